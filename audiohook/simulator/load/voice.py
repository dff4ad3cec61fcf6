"""The audio of calls: what a recording has to hold, and what it holds instead.

How the audio tells the call and the place in it is said in
`audiohook.simulator.load._frames`.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from audiohook.simulator.load._frames import BLOCK_BYTES, audio

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from audiohook.simulator.load.manifest import SentCall

SILENCE: Final = 0xFF

_DIGITS: Final = 4
_DIGIT_BITS: Final = 7
_HOLE: Final = 0x40
_LOW: Final = 0x3F
_TOP: Final = 0x80
# So many blocks are made at a time.
_STRETCH_BLOCKS: Final = 8192
# How far a known block is looked for where other audio begins.
_SEARCH_BYTES: Final = 256

# Source: ITU-T G.711, table 2a; the formula is the usual one. This is not
# `audiohook._ulaw`, whose work is what is to be checked.


def _decoded(code: int) -> int:
    inverted = ~code & 0xFF
    exponent, mantissa = inverted >> 4 & 7, inverted & 15
    magnitude = (((mantissa << 3) + 132) << exponent) - 132
    return -magnitude if inverted & _TOP else magnitude


_PCM: Final = tuple(_decoded(code) for code in range(256))
_LOW_BYTES: Final = bytes(value & 0xFF for value in _PCM)
_HIGH_BYTES: Final = bytes(value >> 8 & 0xFF for value in _PCM)
# Zero is two codes; the one that is silence stands last, and wins.
_CODES: Final = {value: code for code, value in enumerate(_PCM)}


def to_pcm(ulaw: bytes) -> bytes:
    """Decode µ-law to 16-bit samples, little-endian."""
    pcm = bytearray(2 * len(ulaw))
    pcm[0::2] = ulaw.translate(_LOW_BYTES)
    pcm[1::2] = ulaw.translate(_HIGH_BYTES)
    return bytes(pcm)


def from_pcm(pcm: bytes) -> bytes:
    """Find the µ-law that 16-bit samples were decoded from.

    Returns:
        A byte a sample; what no code decodes to becomes silence.
    """
    samples = struct.unpack(f"<{len(pcm) // 2}h", pcm[: len(pcm) // 2 * 2])
    return bytes(_CODES.get(sample, SILENCE) for sample in samples)


@dataclass(frozen=True, slots=True)
class Place:
    """What a block of audio says of itself.

    Attributes:
        voice: Number of the call.
        block: Number of the block.
    """

    voice: int
    block: int


def read_block(data: bytes) -> Place | None:
    """Read a block; None if it is none."""
    if len(data) != BLOCK_BYTES or any(byte & _HOLE for byte in data):
        return None
    digits = [byte & _LOW | (byte & _TOP) >> 1 for byte in data]
    numbers = [
        sum(digit << (_DIGIT_BITS * i) for i, digit in enumerate(half))
        for half in (digits[:_DIGITS], digits[_DIGITS:])
    ]
    return Place(voice=numbers[1], block=numbers[0])


def find_place(data: bytes) -> tuple[int, Place] | None:
    """Look for the first block: one that the next block follows.

    Args:
        data: Audio, µ-law, channels interleaved as they were sent.

    Returns:
        Where in the data it begins, and what it says.
    """
    for at in range(min(len(data) - 2 * BLOCK_BYTES, _SEARCH_BYTES) + 1):
        place = read_block(data[at : at + BLOCK_BYTES])
        if place is None:
            continue
        follower = read_block(data[at + BLOCK_BYTES : at + 2 * BLOCK_BYTES])
        if follower == Place(place.voice, place.block + 1):
            return at, place
    return None


class Expected:
    """What a recording has to hold, from its beginning on, in µ-law as received.

    Args:
        call: The call.
        gaps: True if gaps are silence, False if they are left out.
    """

    def __init__(self, call: SentCall, *, gaps: bool) -> None:
        self._pieces = _pieces(call, gaps=gaps)
        self._ready = b""
        silence = sum(gap.length_samples for gap in call.gaps) if gaps else 0
        self.total_bytes = call.audio_bytes + silence * call.channels

    def take(self, count: int) -> bytes:
        """Give the next bytes; fewer only at the end."""
        parts = [self._ready]
        have = len(self._ready)
        while have < count:
            piece = next(self._pieces, None)
            if piece is None:
                break
            parts.append(piece)
            have += len(piece)
        data = b"".join(parts)
        self._ready = data[count:]
        return data[:count]


def _pieces(call: SentCall, *, gaps: bool) -> Iterator[bytes]:
    done = 0
    for gap in call.gaps if gaps else ():
        until = gap.offset_samples * call.channels
        yield from _stretch(call.voice, done, until)
        done = until
        yield from _silence(gap.length_samples * call.channels)
    yield from _stretch(call.voice, done, call.audio_bytes)


def _stretch(voice: int, start: int, end: int) -> Iterator[bytes]:
    """Make a call's audio from one byte to another."""
    while start < end:
        first, skipped = divmod(start, BLOCK_BYTES)
        wanted = -(-(end - start + skipped) // BLOCK_BYTES)
        data = audio(voice, first, min(_STRETCH_BLOCKS, wanted))
        piece = data[skipped : skipped + end - start]
        yield piece
        start += len(piece)


def _silence(count: int) -> Iterator[bytes]:
    step = _STRETCH_BLOCKS * BLOCK_BYTES
    for start in range(0, count, step):
        yield bytes([SILENCE]) * min(step, count - start)


def describe(
    wanted: bytes, found: bytes, call: SentCall, voices: Mapping[int, int]
) -> str:
    """Say what a recording holds in place of what it has to.

    Args:
        wanted: What it has to hold, some blocks from the first difference on.
        found: What it holds there.
        call: Whose recording it is.
        voices: Numbers of all calls by those that their audio tells.

    Returns:
        A part of a sentence.
    """
    if found.startswith(bytes([SILENCE]) * BLOCK_BYTES):
        length = _leading_silence(found)
        more = " or more" if length == len(found) else ""
        return f"{length:,} bytes{more} of silence that was not sent"
    here, there = find_place(wanted), find_place(found)
    if there is None:
        return "bytes that nobody sent"
    at, place = there
    if place.voice != call.voice:
        number = voices.get(place.voice)
        if number is None:
            return "audio of a call of another load"
        return f"audio of call {number}"
    if here is None or wanted[0] == SILENCE:
        return "audio where a gap has to be"
    moved = (place.block - here[1].block) * BLOCK_BYTES - at + here[0]
    if moved > 0:
        return f"{moved:,} bytes missing{_in_frames(moved, call)}"
    if moved < 0:
        return f"{-moved:,} bytes back: audio repeated{_in_frames(-moved, call)}"
    return "bytes that nobody sent"


def _in_frames(count: int, call: SentCall) -> str:
    frames, rest = divmod(count, call.frame_bytes)
    if rest:
        return ""
    return f" ({frames} frame{'' if frames == 1 else 's'})"


def _leading_silence(data: bytes) -> int:
    return len(list(itertools.takewhile(SILENCE.__eq__, data)))
