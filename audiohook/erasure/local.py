"""What the local disk has of a call that is to be erased.

A call in the spool belongs to whoever holds the lock on its journal; what nobody
holds is removed here. What was put aside for a person, who cannot be asked, goes too
if it may be of that call.

Blocking; called from threads.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final

from audiohook.erasure.ledger import guarded
from audiohook.erasure.order import Asked, Spooled, Transcript
from audiohook.recording import disk, journal
from audiohook.recording.leftovers import ASIDE, JOURNAL_LIMIT_BYTES
from audiohook.recording.record import CallRecord, replay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from audiohook.erasure.order import OrderFact, Wanted
    from audiohook.recording.transcripts import JobRecord

# A first line holds at most 60,000 bytes of configuration, six bytes to each
# character of it at the worst.
_LINE_LIMIT_BYTES: Final = 512 * 1024
# For writing, as some file systems lock nothing else.
_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(slots=True)
class Local:
    """What the disk has.

    Attributes:
        live: Sessions that are going on.
        held: Sessions that a process has and will give up.
        free: Sessions that nobody has, and what was put aside.
    """

    live: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    free: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing."""
        return not (self.live or self.held or self.free)


def look(spool: Path, wanted: Wanted) -> Local:
    """Look for calls that are meant, and leave them as they are.

    Raises:
        ErasureError: The spool cannot be read.
    """
    found = Local()
    with guarded(spool):
        for name, fd, record in _calls(spool, wanted.matches):
            if not _is_held(fd):
                found.free.append(name)
            elif record.closed is None:
                found.live.append(record.opened.session_id)
            else:
                found.held.append(record.opened.session_id)
        found.free += [f"{ASIDE}/{each}" for each in _aside(spool, wanted)]
    return found


def clear(
    spool: Path, wanted: Wanted, note: Callable[[list[OrderFact]], None]
) -> Local:
    """Remove calls that are meant and that nobody holds.

    Args:
        spool: The spool's folder.
        wanted: Which.
        note: Writes down what is known of a call, before it is removed.

    Returns:
        What is left.

    Raises:
        ErasureError: The disk refused.
    """
    left = Local()
    with guarded(spool):
        for name, fd, before in _calls(spool, wanted.matches):
            if not _take(fd):
                kind = left.live if before.closed is None else left.held
                kind.append(before.opened.session_id)
                continue
            # Whoever had it may have written since, or emptied it for another call.
            record = _record(fd, wanted.matches)
            if record is None:
                continue
            note(facts_of(record, _size(spool / name / disk.AUDIO)))
            _remove(spool / name)
        for name in _aside(spool, wanted):
            path = spool / ASIDE / name
            note([*_facts_aside(path), Spooled(f"{ASIDE}/{name}", _tree_size(path))])
            _remove(path)
    return left


def facts_of(record: CallRecord, audio_bytes: int) -> list[OrderFact]:
    """Tell what an order has to know of a call on the local disk.

    Args:
        record: Its journal.
        audio_bytes: Size of its audio.
    """
    facts: list[OrderFact] = [Spooled(record.opened.session_id, audio_bytes)]
    for job in record.jobs.values():
        facts += facts_of_job(job)
    return facts


def facts_of_job(job: JobRecord) -> list[OrderFact]:
    """Tell what an order has to know of a job."""
    facts: list[OrderFact] = [
        Transcript(each) for each in job.ids if each not in job.deleted
    ]
    if job.intent is not None:
        at = datetime.fromisoformat(job.intent.at).timestamp()
        facts.append(Asked(job.intent.audio_url, at))
    return facts


def calls_of(
    spool: Path, is_meant: Callable[[journal.Opened], bool]
) -> list[tuple[CallRecord, bool]]:
    """Find calls on the local disk, and whether a process holds each.

    Args:
        spool: The spool's folder.
        is_meant: Tells which, by how they began.

    Raises:
        ErasureError: The spool cannot be read.
    """
    with guarded(spool):
        return [(record, _is_held(fd)) for _, fd, record in _calls(spool, is_meant)]


def put_aside_on(spool: Path, day: str) -> list[str]:
    """Find what was put aside of the calls of a day, as far as that can be told.

    Args:
        spool: The spool's folder.
        day: Such as ``2026-11-22``.

    Raises:
        ErasureError: The spool cannot be read.
    """
    with guarded(spool):
        started = f'"started_at": "{day}T'.encode()
        squeezed = started.replace(b": ", b":")
        return sorted(
            each.name
            for each in _entries_aside(spool)
            if any(mark in _beginning(each) for mark in (started, squeezed))
        )


def _calls(
    spool: Path, is_meant: Callable[[journal.Opened], bool]
) -> Iterator[tuple[str, int, CallRecord]]:
    """Find calls that are meant, with their journals open."""
    try:
        names = [each.name for each in spool.iterdir()]
    except FileNotFoundError:
        return
    for name in names:
        if disk.session_of(name) is None and not name.startswith(disk.NEW):
            continue
        try:
            fd = os.open(spool / name / disk.JOURNAL, _FLAGS)
        except OSError:
            continue
        try:
            record = _record(fd, is_meant)
            if record is not None:
                yield name, fd, record
        finally:
            os.close(fd)


def _record(fd: int, is_meant: Callable[[journal.Opened], bool]) -> CallRecord | None:
    """Read the journal of a call, if the call is meant."""
    line = disk.read_at(fd, 0, _LINE_LIMIT_BYTES).split(b"\n", 1)[0]
    try:
        first = journal.decode(line)
    except ValueError:
        return None
    if not isinstance(first, journal.Opened) or not is_meant(first):
        return None
    data = disk.read_at(fd, 0, JOURNAL_LIMIT_BYTES)
    try:
        record, _ = replay(data)
    except ValueError:
        # What can be understood of it has to do.
        record = CallRecord(first)
    return record


def _aside(spool: Path, wanted: Wanted) -> list[str]:
    """Find what was put aside and may be of a call that is meant."""
    wanted_bytes = [wanted.conversation.encode()]
    if wanted.session is not None:
        wanted_bytes.append(wanted.session.encode())
    return [
        entry.name
        for entry in _entries_aside(spool)
        if all(each in _beginning(entry) for each in wanted_bytes)
    ]


def _entries_aside(spool: Path) -> list[Path]:
    try:
        return list((spool / ASIDE).iterdir())
    except FileNotFoundError:
        return []


def _beginning(folder: Path) -> bytes:
    """Read what may say whose something is that makes no sense."""
    try:
        fd = os.open(folder / disk.JOURNAL, _FLAGS)
    except OSError:
        return b""
    try:
        return disk.read_at(fd, 0, _LINE_LIMIT_BYTES)
    except OSError:
        return b""
    finally:
        os.close(fd)


def _facts_aside(folder: Path) -> list[OrderFact]:
    """Tell the jobs of something that makes no sense, as far as it does."""
    facts: list[OrderFact] = []
    record: CallRecord | None = None
    for line in _beginning(folder).split(b"\n"):
        with contextlib.suppress(ValueError):
            fact = journal.decode(line)
            if record is None and isinstance(fact, journal.Opened):
                record = CallRecord(fact)
            elif record is not None and fact is not None:
                record.apply(fact)
    for job in record.jobs.values() if record is not None else ():
        facts += facts_of_job(job)
    return facts


def _take(fd: int) -> bool:
    """Take the lock of a call, for as long as its journal is open."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(fd).st_nlink > 0


def _is_held(fd: int) -> bool:
    """Try the lock, and give it back at once; who wants it tries again in a minute."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def _remove(folder: Path) -> None:
    """Remove a folder; the journal last, so that it can be found until then."""
    # Without its journal it is cleared away by whoever looks for leftovers; and what
    # was put aside may be meant by two orders.
    with contextlib.suppress(FileNotFoundError):
        for each in sorted(
            folder.iterdir(), key=lambda path: path.name == disk.JOURNAL
        ):
            if each.is_dir() and not each.is_symlink():
                # Of something put aside; what it was, nobody knows.
                shutil.rmtree(each)
            else:
                each.unlink(missing_ok=True)
        folder.rmdir()
    fd = os.open(folder.parent, disk.FOLDER_FLAGS)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _tree_size(folder: Path) -> int:
    return sum(_size(path) for path in folder.rglob("*") if path.is_file())
