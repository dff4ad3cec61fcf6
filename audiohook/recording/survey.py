"""What a spool holds, from the outside: for whoever watches it.

No lock is taken and no journal is read, so it may be done at any time, beside
whatever processes share the spool. It blocks; call it from a worker thread.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from audiohook.recording import disk
from audiohook.recording.leftovers import ASIDE

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

# Source: stat(2), ``st_blocks``.
_BLOCK_BYTES: Final = 512


@dataclass(frozen=True, slots=True)
class SpoolSurvey:
    """What a spool holds.

    Attributes:
        calls: Calls of all processes, live ones among them.
        used_bytes: What they take up on the disk.
        oldest_seconds: Since the oldest call that is not live last got audio, or
            was stored and waits for its transcript since; 0 without such a call.
        aside: Entries that were put aside for a person to look at.
        size_bytes: Size of the disk.
        free_bytes: Room on it.
    """

    calls: int
    used_bytes: int
    oldest_seconds: float
    aside: int
    size_bytes: int
    free_bytes: int


def survey(folder: Path, live: Collection[str], now: float) -> SpoolSurvey:
    """Look at a spool.

    Args:
        folder: The spool.
        live: Session ids of the live calls of this process. Those of others are
            known by their audio, which is never old unless a call is paused.
        now: Unix time in seconds.

    Raises:
        OSError: It cannot be read.
    """
    spool_fd = os.open(folder, disk.FOLDER_FLAGS)
    try:
        return _survey(spool_fd, live, now)
    finally:
        os.close(spool_fd)


def _survey(spool_fd: int, live: Collection[str], now: float) -> SpoolSurvey:
    calls = used_bytes = 0
    oldest = now
    for name in os.listdir(spool_fd):
        session_id = disk.session_of(name)
        if session_id is None:
            continue
        found = _look(spool_fd, name)
        if found is None:
            continue
        call_bytes, changed_at = found
        calls += 1
        used_bytes += call_bytes
        if session_id not in live:
            oldest = min(oldest, changed_at)
    room = os.fstatvfs(spool_fd)
    return SpoolSurvey(
        calls=calls,
        used_bytes=used_bytes,
        oldest_seconds=now - oldest,
        aside=_count_aside(spool_fd),
        size_bytes=room.f_blocks * room.f_frsize,
        free_bytes=room.f_bavail * room.f_frsize,
    )


def _look(spool_fd: int, name: str) -> tuple[int, float] | None:
    """Return what a call takes up, and when it last changed; None if it cannot."""
    folder = _status(spool_fd, name)
    if folder is None or not stat.S_ISDIR(folder.st_mode):
        return None
    audio = _status(spool_fd, f"{name}/{disk.AUDIO}")
    journal = _status(spool_fd, f"{name}/{disk.JOURNAL}")
    blocks = sum(each.st_blocks for each in (folder, audio, journal) if each)
    # The folder changed when the audio was taken out of it.
    return blocks * _BLOCK_BYTES, (audio or folder).st_mtime


def _status(spool_fd: int, path: str) -> os.stat_result | None:
    try:
        return os.stat(path, dir_fd=spool_fd, follow_symlinks=False)
    except OSError:
        return None


def _count_aside(spool_fd: int) -> int:
    try:
        folder_fd: int = os.open(ASIDE, disk.FOLDER_FLAGS, dir_fd=spool_fd)
    except OSError:
        return 0
    try:
        return len(os.listdir(folder_fd))
    finally:
        os.close(folder_fd)
