"""Calls of other processes that share the spool, as far as can be seen from here.

A call belongs to whoever holds the lock on its journal; its first line says what
it is. It blocks; call it from a worker thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from audiohook.recording import disk, journal

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

# A first line holds at most 60,000 bytes of configuration, six bytes to each
# character of it at the worst.
_LINE_LIMIT_BYTES: Final = 512 * 1024
# More than all instances of a machine hold; what is beyond is not seen.
_MOST_CALLS: Final = 50_000


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A call that another process has, or has left.

    Attributes:
        session: Its session.
        started_at: When it began, in UTC with milliseconds.
        held: Whether a process holds it; otherwise one will take it over soon.
    """

    session: str
    started_at: str
    held: bool


def look_elsewhere(folder: Path, own: Collection[str]) -> dict[str, list[Elsewhere]]:
    """Look for calls of other processes.

    Args:
        folder: The spool.
        own: Sessions that this process holds, which are passed over.

    Returns:
        The calls by their conversations; none if the spool cannot be read.
    """
    try:
        spool_fd = os.open(folder, disk.FOLDER_FLAGS)
    except OSError:
        return {}
    try:
        return _look_at_all(spool_fd, own)
    finally:
        os.close(spool_fd)


def _look_at_all(spool_fd: int, own: Collection[str]) -> dict[str, list[Elsewhere]]:
    found: dict[str, list[Elsewhere]] = {}
    sessions = {each: disk.session_of(each) for each in os.listdir(spool_fd)}
    names = [each for each, session in sessions.items() if session is not None]
    for name in [each for each in names if sessions[each] not in own][:_MOST_CALLS]:
        opened, held = _look(spool_fd, name)
        if opened is not None:
            call = Elsewhere(opened.session_id, opened.started_at, held)
            found.setdefault(opened.conversation_id, []).append(call)
    return found


def _look(spool_fd: int, name: str) -> tuple[journal.Opened | None, bool]:
    """Read a call's first line, and whether anybody holds it."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(f"{name}/{disk.JOURNAL}", flags, dir_fd=spool_fd)
    except OSError:
        return None, False
    try:
        line = disk.read_at(fd, 0, _LINE_LIMIT_BYTES).split(b"\n", 1)[0]
        fact = journal.decode(line)
        return (fact if isinstance(fact, journal.Opened) else None), _is_held(fd)
    except (OSError, ValueError):
        return None, False
    finally:
        os.close(fd)


def _is_held(journal_fd: int) -> bool:
    """Try the lock, and give it back at once; who wants it tries again in a minute."""
    try:
        fcntl.flock(journal_fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    with contextlib.suppress(OSError):
        fcntl.flock(journal_fd, fcntl.LOCK_UN)
    return False
