"""Every recording held against what was sent, sample for sample."""

from __future__ import annotations

import hashlib
import io
import json
import os
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from audiohook import _ulaw
from audiohook.protocol.messages import NIL_UUID
from audiohook.protocol.timeline import SAMPLE_RATE_HZ
from audiohook.recording.render import Gaps, Layout
from audiohook.recording.wav import TAG_PCM, read_info
from audiohook.simulator.load.manifest import FAILED
from audiohook.simulator.load.script import Ending
from audiohook.simulator.load.shelf import recordings
from audiohook.simulator.load.voice import (
    Expected,
    describe,
    from_pcm,
    to_pcm,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from audiohook.recording.wav import WavInfo
    from audiohook.simulator.load.manifest import SentCall
    from audiohook.simulator.load.shelf import Folder, Shelf

SECONDS = 1.0

STORE_SECONDS: Final = 60 * SECONDS
"""How long to wait for recordings that are not stored yet."""

_LOOK_INTERVAL: Final = 0.5 * SECONDS
_THREADS: Final = 4
# A WAV header of ours has 94 bytes at most; others write some more.
_HEADER_BYTES: Final = 4096
# As much is looked at from the first difference on.
_WINDOW_BYTES: Final = 65_536


@dataclass(slots=True)
class Verdict:
    """What came of a comparison.

    Attributes:
        calls: Calls that were looked for.
        sound: Those of them whose recordings are as they have to be.
        audio_bytes: Bytes of audio compared, as received.
        faults: One line for each call that is not.
    """

    calls: int = 0
    sound: int = 0
    audio_bytes: int = 0
    faults: list[str] = field(default_factory=list)


class _Different(Exception):
    """A recording is not as it has to be; the text says how."""


async def verify(
    calls: Sequence[SentCall],
    shelf: Shelf,
    *,
    raw_only: bool = False,
    wait: float = STORE_SECONDS,
    tell: Callable[[int], None] | None = None,
) -> Verdict:
    """Hold all recordings of a load against its manifest.

    A call that was closed has to be there once and whole; one whose connection was
    lost too, but marked so; a probe must not be there. Of a call in which something
    went wrong there may be the first part, or nothing.

    Args:
        calls: The calls, as they were made.
        shelf: Where the recordings are.
        raw_only: Look at the audio as received alone, which is all that some
            servers store.
        wait: How long to wait for what is not stored yet, in seconds.
        tell: Called with the number of calls done, now and then.

    Raises:
        AudioHookError: The recordings cannot be read.

    Cancellation: Once the calls that are being compared are done.
    """
    wanted = {call.conversation for call in calls if _has_to_be_there(call)}
    found = await _wait_stored(shelf, wanted, raw_only=raw_only, wait=wait)
    voices = {call.voice: call.number for call in calls}
    verdict = Verdict(calls=len(calls))
    queue = iter(calls)
    probes = await trio.to_thread.run_sync(_recorded_probes, shelf, found)

    async def work() -> None:
        for call in queue:
            if call.ending == Ending.PROBED:
                fault = _PROBE_FAULT if call.session in probes else ""
            else:
                judge = partial(_judge, shelf, call, voices, raw_only=raw_only)
                folders = found.get(call.conversation, [])
                fault = await trio.to_thread.run_sync(judge, folders)
            if fault:
                verdict.faults.append(f"call {call.number}: {fault}")
            else:
                verdict.sound += 1
                verdict.audio_bytes += call.audio_bytes
            if tell is not None:
                tell(verdict.sound + len(verdict.faults))

    async with trio.open_nursery() as nursery:
        for _ in range(_THREADS):
            nursery.start_soon(work)
    return verdict


_PROBE_FAULT: Final = "recorded, though it was only a probe"


def _has_to_be_there(call: SentCall) -> bool:
    return call.ending in {Ending.CLOSED, Ending.HUNG_UP} and call.audio_bytes > 0


async def _wait_stored(
    shelf: Shelf, wanted: set[str], *, raw_only: bool, wait: float
) -> dict[str, list[Folder]]:
    """List the recordings, once those that have to be there are, or it is too late."""
    until = trio.current_time() + wait
    while True:
        began = trio.current_time()
        found = await trio.to_thread.run_sync(recordings, shelf)
        missing = [
            each
            for each in wanted
            if not any(_is_stored(folder, raw_only) for folder in found.get(each, []))
        ]
        now = trio.current_time()
        if not missing or now >= until:
            return found
        # A large store is not to be busy with being listed.
        await trio.sleep(max(_LOOK_INTERVAL, now - began))


def _is_stored(folder: Folder, raw_only: bool) -> bool:
    """Tell whether a recording is finished: its JSON comes last."""
    return folder.raw is not None if raw_only else folder.summary is not None


def _recorded_probes(shelf: Shelf, found: Mapping[str, list[Folder]]) -> set[str]:
    """List the sessions that were recorded though they were probes."""
    return {
        str(_summary(shelf, folder).get("sessionId"))
        for folder in found.get(NIL_UUID, [])
        if folder.summary is not None
    }


def _check_silent(shelf: Shelf, call: SentCall, folder: Folder) -> None:
    """Judge the recording of a call of which no audio was sent.

    Raises:
        _Different: It is not to be there, or holds some.
    """
    if call.ending != FAILED:
        raise _Different("a recording, though the server wanted no audio")
    # It may have opened the call when we had given it up already.
    if folder.raw is not None and any(shelf.read(folder.raw)):
        raise _Different("raw: audio, though none was sent")


def _judge(
    shelf: Shelf,
    call: SentCall,
    voices: Mapping[int, int],
    folders: Sequence[Folder],
    *,
    raw_only: bool,
) -> str:
    """Compare one call; returns what is wrong, empty if nothing."""
    if not folders:
        return "no recording" if _has_to_be_there(call) else ""
    if len(folders) > 1:
        return f"{len(folders)} recordings"
    (folder,) = folders
    try:
        if not call.channels:
            _check_silent(shelf, call, folder)
            return ""
        if raw_only or call.ending == FAILED:
            if folder.raw is not None:
                _compare_raw(shelf, folder.raw, call, voices)
            elif call.ending != FAILED:
                raise _Different("no audio as received")
            return ""
        _compare_all(shelf, folder, call, voices)
    except _Different as difference:
        return str(difference)
    return ""


def _compare_all(
    shelf: Shelf, folder: Folder, call: SentCall, voices: Mapping[int, int]
) -> None:
    if folder.summary is None:
        raise _Different("no call.json")
    facts = _summary(shelf, folder)
    _compare_facts(facts, call)
    sums: dict[str, tuple[int, str]] = {}
    if folder.raw is not None:
        sums[folder.raw] = _compare_raw(shelf, folder.raw, call, voices)
    if not folder.wavs:
        raise _Different("no WAV")
    recording = facts.get("recording", {})
    for path in folder.wavs:
        sums[path] = _compare_wav(shelf, path, call, voices, recording)
    _compare_sums(facts.get("objects", []), sums)


def _summary(shelf: Shelf, folder: Folder) -> dict[str, Any]:
    data = b"" if folder.summary is None else b"".join(shelf.read(folder.summary))
    try:
        value = json.loads(data)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {}


def _compare_facts(facts: Mapping[str, Any], call: SentCall) -> None:
    """Hold a call's JSON against what was sent."""
    if facts.get("sessionId") != call.session:
        raise _Different(f"call.json is of session {facts.get('sessionId')}")
    if facts.get("audioBytes") != call.audio_bytes:
        raise _Different(
            f"call.json: {facts.get('audioBytes')} bytes of audio,"
            f" sent were {call.audio_bytes}"
        )
    complete = facts.get("ended", {}).get("complete")
    if complete is not (call.ending == Ending.CLOSED):
        raise _Different(f"call.json: complete is {complete}, the call {call.ending}")
    told = [
        (gap.get("kind"), gap.get("storedSamplesBefore"), gap.get("lengthSamples"))
        for gap in facts.get("gaps", [])
    ]
    sent = [(gap.kind, gap.offset_samples, gap.length_samples) for gap in call.gaps]
    if told != sent:
        raise _Different(f"call.json: gaps {_in_words(told)}, not {_in_words(sent)}")


def _in_words(gaps: Sequence[tuple[Any, Any, Any]]) -> str:
    words = [f"{kind} {length} samples at {at}" for kind, at, length in gaps]
    return ", ".join(words) or "none"


def _compare_sums(
    objects: Sequence[Mapping[str, Any]], sums: Mapping[str, tuple[int, str]]
) -> None:
    """Hold what call.json says of the objects against what was read."""
    told = {
        str(each.get("key")).rpartition("/")[2]: (each.get("bytes"), each.get("sha256"))
        for each in objects
    }
    for path, measured in sums.items():
        name = path.rpartition("/")[2]
        if told.get(name) != measured:
            raise _Different(f"call.json: another size or checksum for {name}")
    missing = {name for name in told if name.endswith((".raw", ".wav"))} - {
        path.rpartition("/")[2] for path in sums
    }
    if missing:
        raise _Different(f"not there: {', '.join(sorted(missing))}")


@dataclass(slots=True)
class _Meter:
    """Measures what passes through it."""

    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def pass_on(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.size += len(chunk)
            self.digest.update(chunk)
            yield chunk

    @property
    def sum(self) -> tuple[int, str]:
        return self.size, self.digest.hexdigest()


def _compare_raw(
    shelf: Shelf, path: str, call: SentCall, voices: Mapping[int, int]
) -> tuple[int, str]:
    """Compare audio as received; returns its size and checksum."""
    meter = _Meter()
    _compare(
        "raw",
        meter.pass_on(shelf.read(path)),
        Expected(call, gaps=False),
        call,
        voices,
        _Form(call.channels, pcm=False),
        may_end_early=call.ending == FAILED,
    )
    return meter.sum


def _compare_wav(
    shelf: Shelf,
    path: str,
    call: SentCall,
    voices: Mapping[int, int],
    recording: Mapping[str, Any],
) -> tuple[int, str]:
    """Compare a WAV file; returns its size and checksum."""
    meter = _Meter()
    chunks = meter.pass_on(shelf.read(path))
    head = b""
    while len(head) < _HEADER_BYTES and (chunk := next(chunks, b"")):
        head += chunk
    info = _info(head, len(head))
    if info.rate_hz != SAMPLE_RATE_HZ:
        raise _Different(f"WAV: {info.rate_hz} Hz")
    form = _form_of(path, info.channels, info.encoding_tag, call, recording)
    samples = _chain(head[info.data_offset :], chunks)
    gaps = recording.get("gaps", Gaps.SILENCE) != Gaps.CUT
    expected = Expected(call, gaps=gaps)
    _compare("WAV", samples, expected, call, voices, form)
    told_bytes = _info(head, meter.size).data_bytes
    if told_bytes != expected.total_bytes // call.channels * form.frame_bytes:
        raise _Different(f"WAV: its header tells of {told_bytes:,} bytes of samples")
    return meter.sum


class _Head(io.BytesIO):
    """The beginning of a file that is longer."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(data)
        self._size = size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._size if whence == os.SEEK_END else super().seek(offset, whence)


def _info(head: bytes, size: int) -> WavInfo:
    try:
        return read_info(_Head(head, size))
    except ValueError as error:
        raise _Different(f"WAV: {error}") from error


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


@dataclass(frozen=True, slots=True)
class _Form:
    """How a file holds samples.

    Attributes:
        channels: Channels as received.
        pcm: 16 bits, instead of µ-law.
        mixed: Both channels in one.
        only: The one channel of two that it holds.
    """

    channels: int
    pcm: bool
    mixed: bool = False
    only: int | None = None

    @property
    def frame_bytes(self) -> int:
        """Bytes of a sample of all channels in the file."""
        channels = 1 if self.mixed or self.only is not None else self.channels
        return channels * (2 if self.pcm else 1)

    @property
    def is_reversible(self) -> bool:
        """True if what was received can be told from the file."""
        return not self.mixed and self.only is None

    def convert(self, ulaw: bytes) -> bytes:
        """Turn audio as received into what the file has to hold."""
        if self.mixed:
            return _ulaw.mix(ulaw) if self.pcm else _ulaw.mix_ulaw(ulaw)
        if self.only is not None:
            ulaw = ulaw[self.only :: self.channels]
        return to_pcm(ulaw) if self.pcm else ulaw

    def revert(self, data: bytes) -> bytes:
        """Turn what the file holds back into audio as received."""
        return from_pcm(data) if self.pcm else data


def _form_of(
    path: str, channels: int, tag: int, call: SentCall, recording: Mapping[str, Any]
) -> _Form:
    pcm = tag == TAG_PCM
    layout = recording.get("layout", Layout.STEREO)
    wanted = call.channels if layout == Layout.STEREO else 1
    if channels != wanted:
        raise _Different(f"WAV: {channels} channels instead of {wanted}")
    if call.channels == 1 or layout == Layout.STEREO:
        return _Form(call.channels, pcm)
    if layout == Layout.MONO:
        return _Form(call.channels, pcm, mixed=True)
    return _Form(call.channels, pcm, only=1 if path.endswith("-internal.wav") else 0)


def _compare(
    what: str,
    chunks: Iterator[bytes],
    expected: Expected,
    call: SentCall,
    voices: Mapping[int, int],
    form: _Form,
    *,
    may_end_early: bool = False,
) -> None:
    """Compare samples to the last.

    Raises:
        _Different: They are not what was sent.
    """
    done = 0
    rest = b""
    for chunk in chunks:
        data = rest + chunk
        whole = len(data) - len(data) % form.frame_bytes
        data, rest = data[:whole], data[whole:]
        done += _compare_stretch(what, data, done, expected, call, voices, form)
    done += _compare_stretch(what, rest, done, expected, call, voices, form)
    if done < expected.total_bytes and not may_end_early:
        short = expected.total_bytes - done
        raise _Different(f"{what}: ends {_amount(short, call)} early")


def _compare_stretch(
    what: str,
    data: bytes,
    done: int,
    expected: Expected,
    call: SentCall,
    voices: Mapping[int, int],
    form: _Form,
) -> int:
    """Compare some samples; returns how many bytes they are as received."""
    count = len(data) // form.frame_bytes * form.channels
    ulaw = expected.take(count)
    wanted = form.convert(ulaw)
    if data == wanted:
        return count
    if data.startswith(wanted):
        _check_rest(what, data[len(wanted) :], call, form)
        return len(ulaw)
    at = next(i for i, (a, b) in enumerate(zip(data, wanted, strict=False)) if a != b)
    frame = at // form.frame_bytes
    place = (done // call.channels + frame) / SAMPLE_RATE_HZ
    where = f"{what}, at {place:.4f} s"
    if not form.is_reversible:
        raise _Different(f"{where}: other samples")
    found = form.revert(data[frame * form.frame_bytes :][:_WINDOW_BYTES])
    start = frame * form.channels
    window = ulaw[start : start + len(found)]
    raise _Different(f"{where}: {describe(window, found, call, voices)}")


def _check_rest(what: str, rest: bytes, call: SentCall, form: _Form) -> None:
    """Judge what stands behind all that was sent."""
    # A chunk of an odd length is followed by a pad byte.
    if rest == b"\0" and form.frame_bytes == 1 and what == "WAV":
        return
    more = len(rest) // form.frame_bytes * form.channels
    raise _Different(f"{what}: {_amount(more, call)} more than was sent")


def _amount(count: int, call: SentCall) -> str:
    seconds = count / call.channels / SAMPLE_RATE_HZ
    return f"{count:,} bytes ({seconds:.3f} s)"
