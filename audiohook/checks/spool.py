"""Whether the spool's disk can take the calls that are to come."""

from __future__ import annotations

import os
import re
import secrets
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from audiohook.recording.disk import PROBE
from audiohook.recording.survey import survey
from audiohook.storing import MIB, SPOOL_FOLDER
from audiohook.verdict import Verdict, bad, doubtful, good

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from audiohook.checks.expectations import Expectations
    from audiohook.settings import Settings

SECONDS = 1.0
MINUTES = 60 * SECONDS

MOUNTS: Final = Path("/proc/self/mountinfo")

# µ-law, 8 kHz, two channels.
_CALL_BYTES_A_SECOND: Final = 16_000
# Without a bucket the WAV, twice as large, and the raw file are written there too.
_FOLDER_FACTOR: Final = 4
_TRIAL_BYTES: Final = 32 * MIB
_TRIAL_SECONDS: Final = 3 * SECONDS
_SYNCS: Final = 8
_SYNC_BYTES: Final = 4096
# A call is to be on the medium within 10 s of its end, and calls end together.
_SLOW_SYNC: Final = 0.1 * SECONDS
_HOPELESS_SYNC: Final = 1 * SECONDS
_FEW_INODES: Final = 10_000

_FILE_SYSTEMS: Final = {
    "tmpfs": "is memory: calls are gone when the machine restarts",
    "ramfs": "is memory: calls are gone when the machine restarts",
    "overlay": "goes with its container: calls are gone when that is replaced",
    "aufs": "goes with its container: calls are gone when that is replaced",
    "nfs": "is another machine's: when the network stops, so do calls",
    "nfs4": "is another machine's: when the network stops, so do calls",
    "cifs": "is another machine's: when the network stops, so do calls",
    "smb3": "is another machine's: when the network stops, so do calls",
    "9p": "is another machine's: when it stops, so do calls",
    "ceph": "is other machines': when the network stops, so do calls",
    "glusterfs": "is other machines': when the network stops, so do calls",
    "fuse.sshfs": "is another machine's: when the network stops, so do calls",
    "fuse.s3fs": "is no disk: it stores a file when that is closed",
    "vfat": "keeps no owners and loses files when power goes",
    "exfat": "keeps no owners and loses files when power goes",
}


async def check_spool(
    settings: Settings, expected: Expectations
) -> AsyncGenerator[Verdict, None]:
    """Measures the disk of the spool, and looks at what is in it.

    Yields:
        A verdict on each thing.
    """
    spool = (settings.recordings_dir / SPOOL_FOLDER).absolute()
    look = _Look(settings, expected, spool)
    for step in (look.place, look.room, look.speed, look.contents):
        verdicts = await trio.to_thread.run_sync(list, step())
        for verdict in verdicts:
            yield verdict
        if not all(verdict.ok for verdict in verdicts):
            return


def file_system_of(path: Path, mounts: Path) -> str:
    """Return the kind of file system that a path is on; empty if it is unknown.

    Args:
        path: The path, absolute.
        mounts: The kernel's list.

    Source: proc(5), ``/proc/pid/mountinfo``.
    """
    found, longest = "", -1
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields[4]))
        # Of two on the same point the later one hides the other.
        if path.is_relative_to(point) and len(point.parts) >= longest:
            found, longest = after.split()[0], len(point.parts)
    return found


class _Look:
    """What is tried one after another. It blocks."""

    def __init__(self, settings: Settings, expected: Expectations, spool: Path) -> None:
        self._settings = settings
        self._minutes = expected.minutes
        self._spool = spool
        # Where it will be, as far as that is there.
        self._folder = next(each for each in (spool, *spool.parents) if each.exists())

    def place(self) -> Iterator[Verdict]:
        """Can anything be written there, and is it a disk?"""
        what = f"write to the spool {self._spool}"
        if not self._folder.is_dir():
            yield bad(what, f"{self._folder} is no folder: set RECORDINGS_DIR to one")
            return
        trial = self._folder / f"{PROBE}{secrets.token_hex(8)}"
        try:
            trial.write_bytes(b"x")
            trial.unlink()
        except OSError as error:
            yield bad(
                what,
                f"{self._folder}: {error.strerror}; RECORDINGS_DIR must be a folder"
                " that this user may write to, on a disk that is not read-only",
            )
            return
        yield good(what)
        kind = file_system_of(self._folder.resolve(), MOUNTS)
        if fault := _FILE_SYSTEMS.get(kind):
            yield doubtful(
                f"the spool is on {kind}",
                f"which {fault}; set RECORDINGS_DIR to a folder on a local disk",
            )
        elif kind:
            yield good(f"the spool is on {kind}")

    def room(self) -> Iterator[Verdict]:
        """Is there room for the calls that may come?"""
        status = os.statvfs(self._folder)
        free_bytes = status.f_bavail * status.f_frsize
        low_bytes = self._settings.spool_low_water_mib * MIB
        usable = max(0, free_bytes - low_bytes)
        hours = usable / (_CALL_BYTES_A_SECOND * 60 * MINUTES)
        what = f"room for {hours:,.0f} hours of calls ({_size(free_bytes)} are free)"
        if free_bytes < low_bytes:
            yield bad(
                what,
                f"with less than {self._settings.spool_low_water_mib} MiB no call is"
                " taken: free some, or lower SPOOL_LOW_WATER_MIB",
            )
            return
        calls = self._settings.max_calls
        needed = (calls or 0) * self._minutes * MINUTES * self._bytes_a_second
        if calls and usable < needed:
            yield doubtful(
                what,
                f"{calls:,} calls of {self._minutes:g} minutes (MAX_CALLS) need"
                f" {_size(needed)} besides {_size(low_bytes)} that stay free: use a"
                " larger disk, or lower MAX_CALLS",
            )
        else:
            yield good(what)
        if status.f_files and status.f_favail < _FEW_INODES:
            yield doubtful(
                f"room for {status.f_favail:,} files",
                "each call is three: free some, or make the file system with more"
                " inodes",
            )

    def speed(self) -> Iterator[Verdict]:
        """Is the disk fast enough?"""
        trial = self._folder / f"{PROBE}{secrets.token_hex(8)}"
        try:
            with trial.open("wb", buffering=0) as file:
                trial.unlink()
                rate = _write_rate(file.fileno())
                syncs = _sync_times(file.fileno())
        except OSError as error:
            yield bad("measure the disk", f"{error.strerror}")
            return
        yield self._judge_rate(rate)
        yield judge_syncs(syncs)

    def contents(self) -> Iterator[Verdict]:
        """What is left there of other processes?"""
        if self._folder != self._spool:
            return
        found = survey(self._spool, (), time.time())
        if found.aside:
            yield doubtful(
                f"nothing is put aside: {found.aside}",
                f"look at reason.txt in each folder of {self._spool}/aside; what is"
                " there is stored nowhere else",
            )
        what = f"calls in the spool: {found.calls}, {_size(found.used_bytes)}"
        if found.calls and found.oldest_seconds > 60 * MINUTES:
            yield doubtful(
                what,
                f"the oldest has waited for {found.oldest_seconds / 3600:.0f} h: is the"
                " service running, and the store there? `audiohook recover` finishes"
                " them without serving",
            )
        else:
            yield good(what)

    @property
    def _bytes_a_second(self) -> int:
        factor = 1 if self._settings.s3_bucket else _FOLDER_FACTOR
        return _CALL_BYTES_A_SECOND * factor

    def _judge_rate(self, rate: float) -> Verdict:
        what = f"write {rate / MIB:,.0f} MiB a second"
        calls = self._settings.max_calls
        needed = (calls or 0) * self._bytes_a_second
        if needed > rate:
            return bad(
                what,
                f"{calls:,} calls (MAX_CALLS) write {needed / MIB:,.0f} MiB a second:"
                " use a faster disk, or lower MAX_CALLS",
            )
        return good(what)


def judge_syncs(seconds: list[float]) -> Verdict:
    """Judge how long it takes until something is on the medium.

    Args:
        seconds: Some measurements.
    """
    median, worst = statistics.median(seconds), max(seconds)
    what = f"sync in {median * 1000:.1f} ms, {worst * 1000:.1f} ms at worst"
    mend = (
        "a call must be on the medium within 10 s of its end, and many end together:"
        " use a disk of its own, or one with a write cache that outlives power cuts"
    )
    if median > _HOPELESS_SYNC:
        return bad(what, mend)
    return doubtful(what, mend) if median > _SLOW_SYNC else good(what)


def _write_rate(fd: int) -> float:
    """Measure bytes a second, down to the medium."""
    block = secrets.token_bytes(MIB)
    began, written = time.perf_counter(), 0
    while written < _TRIAL_BYTES and time.perf_counter() - began < _TRIAL_SECONDS:
        written += os.write(fd, block)
    os.fdatasync(fd)
    return written / (time.perf_counter() - began)


def _sync_times(fd: int) -> list[float]:
    found = []
    for number in range(_SYNCS):
        os.pwrite(fd, secrets.token_bytes(_SYNC_BYTES), number * _SYNC_BYTES)
        began = time.perf_counter()
        os.fdatasync(fd)
        found.append(time.perf_counter() - began)
    return found


def _size(size_bytes: float) -> str:
    if size_bytes < 1024 * MIB:
        return f"{size_bytes / MIB:,.0f} MiB"
    return f"{size_bytes / MIB / 1024:,.1f} GiB"
