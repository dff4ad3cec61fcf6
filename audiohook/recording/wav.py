"""Headers of WAV files: made with exact sizes, read with patience.

Source: RIFF/WAVE as in EBU Tech 3285, RF64 as in EBU Tech 3306; format tags as
registered in RFC 2361.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from audiohook.protocol.timeline import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from typing import BinaryIO

TAG_PCM = 0x0001
TAG_ULAW = 0x0007
_TAG_EXTENSIBLE = 0xFFFE

# As a 32-bit size: "look elsewhere", in ds64 or at where the file ends.
_UNKNOWN = 0xFFFFFFFF

# With two channels of 16 bits their bytes still have a number of 64 bits.
_MOST_FRAMES = 2**60

_CHUNK = struct.Struct("<4sI")
_FORMAT = struct.Struct("<HHIIHH")
_DS64 = struct.Struct("<QQQI")
_FACT = struct.Struct("<I")

# Where the tag of the real format stands in an extensible one: behind the plain
# fields, the extension's size, the valid bits and the speaker mask.
_SUBFORMAT_OFFSET = 24


class Encoding(StrEnum):
    """How samples stand in a WAV file."""

    PCM16 = "pcm16"
    """Linear, 16 bits, signed, little-endian."""
    ULAW = "ulaw"
    """G.711 µ-law, 8 bits, as received."""

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample of one channel."""
        return 2 if self is Encoding.PCM16 else 1


def header(encoding: Encoding, channels: int, frames: int) -> bytes:
    """Make all of a WAV file that stands before its samples.

    The sizes are exact, and count the pad byte that must follow samples of an odd
    length in all. Where they no longer fit 32 bits the header is that of RF64.

    Args:
        encoding: How the samples will stand.
        channels: Channels, interleaved.
        frames: Samples per channel.

    Returns:
        44 bytes for PCM16, 58 for µ-law (which needs a ``fact`` chunk); 36 more
        past 4 GiB.

    Raises:
        ValueError: There are no channels, or a negative number of frames, or more
            than any file can have.
    """
    if channels < 1 or not 0 <= frames <= _MOST_FRAMES:
        raise ValueError(f"no such file: {channels} channels, {frames} frames")
    width = encoding.sample_bytes
    frame_bytes = channels * width
    data_bytes = frames * frame_bytes
    padded_bytes = data_bytes + data_bytes % 2
    tag = TAG_PCM if encoding is Encoding.PCM16 else TAG_ULAW
    description = _FORMAT.pack(
        tag,
        channels,
        SAMPLE_RATE_HZ,
        SAMPLE_RATE_HZ * frame_bytes,
        frame_bytes,
        8 * width,
    )
    if encoding is Encoding.ULAW:
        # A format other than PCM says how long its extension is: 0 bytes.
        description += b"\0\0"
    chunks = _chunks(description, encoding, fact=_UNKNOWN, data=_UNKNOWN)
    riff_bytes = len(b"WAVE") + len(chunks) + padded_bytes
    if riff_bytes < _UNKNOWN:
        chunks = _chunks(description, encoding, fact=frames, data=data_bytes)
        return _CHUNK.pack(b"RIFF", riff_bytes) + b"WAVE" + chunks
    riff_bytes += _CHUNK.size + _DS64.size
    return b"".join(
        (
            _CHUNK.pack(b"RF64", _UNKNOWN),
            b"WAVE",
            _CHUNK.pack(b"ds64", _DS64.size),
            _DS64.pack(riff_bytes, data_bytes, frames, 0),
            chunks,
        )
    )


def _chunks(description: bytes, encoding: Encoding, *, fact: int, data: int) -> bytes:
    """Join the ``fmt`` chunk, ``fact`` where due, and the head of ``data``."""
    parts = [_CHUNK.pack(b"fmt ", len(description)), description]
    if encoding is not Encoding.PCM16:
        parts += [_CHUNK.pack(b"fact", _FACT.size), _FACT.pack(fact)]
    parts.append(_CHUNK.pack(b"data", data))
    return b"".join(parts)


@dataclass(frozen=True, slots=True)
class WavInfo:
    """What a WAV file says of itself.

    Attributes:
        encoding_tag: `TAG_PCM` or `TAG_ULAW`.
        channels: Channels, interleaved.
        rate_hz: Frames a second.
        bits: Bits of one sample: 16 for PCM, 8 for µ-law.
        data_offset: Where in the file the samples start, in bytes.
        data_bytes: Length of the samples, whole frames only.
    """

    encoding_tag: int
    channels: int
    rate_hz: int
    bits: int
    data_offset: int
    data_bytes: int


def read_info(stream: BinaryIO) -> WavInfo:
    """Find the samples of a WAV file, and learn what they are.

    Chunks it does not know are skipped. Sizes left open by a writer that could not
    seek back, or larger than the file, mean "as far as the file goes".

    Args:
        stream: Seekable. It is read from its start and left somewhere.

    Returns:
        What the file says, with a tag of `TAG_PCM` or `TAG_ULAW`.

    Raises:
        ValueError: It is no WAV file of 16-bit PCM or µ-law; the text says why, for
            a person who picked the file.
    """
    file_bytes = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    kind, riff_bytes = _read_chunk_head(stream) or (b"", 0)
    if kind not in (b"RIFF", b"RF64", b"BW64") or stream.read(4) != b"WAVE":
        raise ValueError("not a WAV file")
    description: tuple[int, int, int, int] | None = None
    long_data_bytes: int | None = None
    while (head := _read_chunk_head(stream)) is not None:
        name, size = head
        start = stream.tell()
        if name == b"data":
            if description is None:
                raise ValueError("broken WAV file: samples before their format")
            if size == _UNKNOWN:
                size = file_bytes if long_data_bytes is None else long_data_bytes
            elif size == 0 and riff_bytes == 0:
                # Both left at zero: the writer never came back to fill them in.
                size = file_bytes
            tag, channels, rate_hz, bits = description
            room_bytes = min(size, file_bytes - start)
            data_bytes = room_bytes - room_bytes % (channels * bits // 8)
            return WavInfo(tag, channels, rate_hz, bits, start, data_bytes)
        if name == b"fmt ":
            description = _read_format(stream.read(min(size, 40)))
        elif name == b"ds64":
            long_data_bytes = _read_long_data_bytes(stream.read(min(size, 28)))
        stream.seek(start + size + size % 2)
    raise ValueError("broken WAV file: it has no samples")


def _read_chunk_head(stream: BinaryIO) -> tuple[bytes, int] | None:
    """Read a chunk's name and size; None at the end of the file."""
    head = stream.read(_CHUNK.size)
    if len(head) < _CHUNK.size:
        return None
    name, size = _CHUNK.unpack(head)
    return name, size


def _read_format(body: bytes) -> tuple[int, int, int, int]:
    """Read a ``fmt`` chunk: tag, channels, rate, bits; refuse what we cannot play."""
    if len(body) < _FORMAT.size:
        raise ValueError("broken WAV file: its format is cut short")
    tag, channels, rate_hz, _, _, bits = _FORMAT.unpack_from(body)
    if tag == _TAG_EXTENSIBLE and len(body) >= _SUBFORMAT_OFFSET + 2:
        tag = int.from_bytes(body[_SUBFORMAT_OFFSET : _SUBFORMAT_OFFSET + 2], "little")
    if (tag, bits) not in ((TAG_PCM, 16), (TAG_ULAW, 8)):
        raise ValueError(
            f"WAV file of format 0x{tag:04X} with {bits} bits; "
            "only 16-bit PCM (0x0001) and 8-bit µ-law (0x0007) will do"
        )
    if channels == 0 or rate_hz == 0:
        raise ValueError(f"broken WAV file: {channels} channels at {rate_hz} Hz")
    return tag, channels, rate_hz, bits


def _read_long_data_bytes(body: bytes) -> int:
    """Read the length of the samples from a ``ds64`` chunk."""
    if len(body) < _DS64.size:
        raise ValueError("broken WAV file: its 64-bit sizes are cut short")
    _, data_bytes, _, _ = _DS64.unpack(body)
    return int(data_bytes)
