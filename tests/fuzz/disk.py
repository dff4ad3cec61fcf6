"""What lies on a disk, damaged in any way: each function takes any bytes."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from audiohook.errors import ConfigError
from audiohook.recording import disk as spool_disk
from audiohook.recording import leftovers
from audiohook.recording.journal import (
    ClosedFact,
    Planned,
    decode,
    encode,
    is_uuid,
)
from audiohook.recording.record import replay
from audiohook.recording.render import Gaps, Layout
from audiohook.recording.wav import Encoding, read_info
from audiohook.simulator.source import load_wav
from audiohook.storage.layout import summary_key, transcript_key, wav_files
from audiohook.storage.summary import metadata, recording_name, summarize
from tests.fuzz.bytes_reader import BytesReader

if TYPE_CHECKING:
    from audiohook.recording.record import CallRecord
    from audiohook.recording.wav import WavInfo

_ENDED_AT = "2026-11-22T14:11:44.123Z"
_PLAN = Planned("name", "calls/", Encoding.PCM16, Layout.STEREO, Gaps.SILENCE, True)
_MOST_AUDIO_BYTES = 4096
_MOST_RENDERED_BYTES = 64 * 1024
_WAITS = 2 * leftovers.PATIENCE


class _Audio:
    """Audio of a call: as much silence as the journal says, or a little."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes

    def read_at(self, offset: int, length: int) -> bytes:
        return b"\xff" * max(0, min(length, self.size_bytes - offset))


def journal(data: bytes) -> None:
    """Replays a journal, and does with the record what a delivery does."""
    try:
        record, whole_bytes = replay(data)
    except ValueError:
        return
    assert whole_bytes == data.rfind(b"\n") + 1
    if record is None:
        assert whole_bytes == 0
        return
    facts = [decode(line) for line in data[:whole_bytes].split(b"\n")[:-1]]
    for fact in facts:
        if fact is not None:
            again = encode(fact)
            assert decode(again) == fact
    _deliver(record)


def _deliver(record: CallRecord) -> None:
    if record.closed is None:
        record.apply(ClosedFact("lost", 2000, _ENDED_AT, complete=False))
    plan = record.planned or _PLAN
    assert record.closed is not None
    size_bytes = min(record.closed.stored_bytes, _MOST_AUDIO_BYTES)
    # With as much audio as there really is; `fit_audio` sees to it.
    record.apply(ClosedFact("lost", size_bytes, _ENDED_AT, complete=False))
    audio = _Audio(size_bytes)
    files = wav_files(record, audio, record.timeline(), plan)
    for key, wav in files.items():
        head = wav.read_at(0, _MOST_RENDERED_BYTES)
        assert len(head) == min(wav.size_bytes, _MOST_RENDERED_BYTES)
        info = read_info(io.BytesIO(head))
        assert info.data_bytes <= wav.size_bytes
        transcript_key(key, ".txt")
    summary_key(plan)
    name = recording_name(record.opened)
    assert "/" not in name
    summarize(record, list(files.values()), plan, list(record.stored.values()))
    metadata(record, list(files.values()))


_IDS = tuple(f"{number:08x}-0000-4000-8000-000000000000" for number in range(4))
_NAMES = (*_IDS, f"{spool_disk.NEW}1", f"{spool_disk.PROBE}1", "notes", "aside")
_ENTRIES = (spool_disk.JOURNAL, spool_disk.AUDIO, "other", leftovers.REASON)
_OPENED = (
    '{"fact":"opened","session_id":"%s","organization_id":"","correlation_id":"",'
    '"conversation_id":"","participant":{"id":"","ani":"","ani_name":"","dnis":""},'
    '"language":null,"custom_config":null,"media":{"format":"PCMU","channels":'
    '["external"],"rate":8000},"started_at":"2026-11-22T14:10:44.123Z",'
    '"start_samples":0,"continued_sessions":[]}\n'
)
_TAILS = (
    b"",
    b'{"fact":"done"}\n',
    b'{"fact":"delivered"}\n',
    b'{"fact":"gap","kind":"lost","offset_samples":1,"length_samples":2}\n',
    b'{"fact":"clo',
    b"\0\0\0\0\n",
    b"{}\n",
)


def spool(data: bytes) -> None:
    """Looks for leftovers in a folder in which there is anything."""
    base = Path(tempfile.mkdtemp(prefix="audiohook-fuzz-", dir=_memory()))
    try:
        folder, outside = base / "spool", base / "outside"
        folder.mkdir(0o700)
        outside.mkdir()
        precious = outside / spool_disk.AUDIO
        precious.write_bytes(b"precious")
        (outside / spool_disk.JOURNAL).write_bytes(b"precious")
        _build(folder, outside, BytesReader(data))
        audio = _audio_in(folder)
        spool_fd = spool_disk.open_spool(folder)
        try:
            _look(spool_fd)
            _look(spool_fd)
        finally:
            os.close(spool_fd)
        kept = _audio_in(folder)
        for content, deletable in audio.items():
            assert deletable or content in kept, "audio was deleted"
        assert precious.read_bytes() == b"precious"
        assert (outside / spool_disk.JOURNAL).read_bytes() == b"precious"
        assert len(list(outside.iterdir())) == 2
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _look(spool_fd: int) -> None:
    findings = leftovers.find(spool_fd, (), 100, 100, {})
    for call in findings.calls:
        assert is_uuid(call.files.name)
        assert call.record.opened.session_id == call.files.name
        call.files.close()


def _build(folder: Path, outside: Path, source: BytesReader) -> None:
    # Anything may be there already, or be of the wrong kind to hold something.
    long_ago = time.time() - _WAITS
    while source.left:
        name = _NAMES[source.byte() % len(_NAMES)]
        path = folder / name
        with contextlib.suppress(FileExistsError, NotADirectoryError):
            kind = source.byte()
            if kind < 200:
                path.mkdir(exist_ok=True)
                if path.is_symlink():
                    continue
                entry = _ENTRIES[source.byte() % len(_ENTRIES)]
                path = path / entry
                kind = source.byte()
            _make(path, kind, name, outside, source)
        if source.byte() > 128 and not path.is_symlink():
            with contextlib.suppress(OSError):
                os.utime(folder / name, (long_ago, long_ago), follow_symlinks=False)


def _make(path: Path, kind: int, name: str, outside: Path, source: BytesReader) -> None:
    if kind < 190:
        if path.name == spool_disk.JOURNAL and kind < 150:
            whose = _IDS[source.byte() % 4] if kind < 20 else name
            content = (_OPENED % whose).encode()
            content += _TAILS[source.byte() % len(_TAILS)]
        else:
            content = source.block()
        if path.name == spool_disk.AUDIO and content:
            # So that each is known again.
            content += os.fsencode(str(path))
        if not path.is_symlink() and not _is_pipe(path):
            with contextlib.suppress(IsADirectoryError):
                path.write_bytes(content)
    elif kind < 210:
        path.symlink_to(outside / path.name)
    elif kind < 220:
        path.symlink_to(outside)
    elif kind < 230:
        path.symlink_to(path)
    elif kind < 240:
        os.mkfifo(path)
    else:
        path.mkdir()


def _is_pipe(path: Path) -> bool:
    try:
        return stat.S_ISFIFO(path.lstat().st_mode)
    except OSError:
        return False


def _audio_in(folder: Path) -> dict[bytes, bool]:
    """Returns all audio below a folder, and whether it may be deleted."""
    found = {}
    for root, _, names in os.walk(folder):
        path = Path(root, spool_disk.AUDIO)
        if spool_disk.AUDIO in names and path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            if content:
                found[content] = _is_stored(Path(root, spool_disk.JOURNAL))
    return found


def _is_stored(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    try:
        record, _ = replay(path.read_bytes())
    except ValueError:
        return False
    return record is not None and (record.done or record.delivered)


def wav(data: bytes) -> None:
    """Reads a WAV file, and plays it as the simulator does."""
    info: WavInfo | None = None
    with contextlib.suppress(ValueError):
        info = read_info(io.BytesIO(data))
        assert 0 <= info.data_offset <= len(data)
        assert 0 <= info.data_bytes <= len(data) - info.data_offset
    fd = os.memfd_create("wav")
    try:
        os.write(fd, data)
        source = load_wav(Path(f"/proc/self/fd/{fd}"))
    except ConfigError:
        return
    finally:
        os.close(fd)
    assert info is not None
    samples = info.data_bytes // (info.channels * info.bits // 8)
    assert source.total_samples == samples
    assert len(source.read(100)) == min(100, samples) * info.channels
