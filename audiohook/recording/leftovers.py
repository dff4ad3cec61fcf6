"""What earlier processes left in the spool: which of it is calls, and the rest.

A leftover is one of five things: a call that nobody holds any more, which is
locked and handed over; a call that another process holds, which is its own
business; the remains of a call that never was or is already done, which are
removed; an empty folder that was kept for a call to come, which is kept again; or
nonsense, which is moved to the folder ``aside`` together with the
reason, for a person to look at. Nothing that holds audio is ever deleted here,
unless the journal says that the store has all of it.

Blocking; called from threads.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import os
import secrets
import stat
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from audiohook.recording import disk, journal
from audiohook.recording._files import Lock
from audiohook.recording.groups import reason_of
from audiohook.recording.record import replay

if TYPE_CHECKING:
    from collections.abc import Collection

    from audiohook.recording.record import CallRecord

ASIDE: Final = "aside"
REASON: Final = "reason.txt"

# A journal past this is not one of ours; reading it could exhaust memory.
JOURNAL_LIMIT_BYTES: Final = 64 * 1024 * disk.KIB
# Seconds for which something half made is left alone; its maker may be at it.
PATIENCE: Final = 60.0

# The index of recordings, what was erased, the outbox of notifications, events of
# Genesys, and the file system's own folder, if the spool is a disk of its own.
_NOT_OURS: Final = frozenset(
    {ASIDE, ".index", ".erasures", ".notify", ".genesys", "lost+found"}
)

# O_NONBLOCK: a pipe that somebody put there must not hang the start.
_OPEN_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# What opening says of a symbolic link, of a folder where a file should be or
# the reverse, and of a socket.
_WRONG_KIND: Final = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO})
_OUT_OF_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE})


class _NonsenseError(Exception):
    """An entry is not what a spool holds; the text says why."""


class _Verdict(enum.Enum):
    LEAVE = enum.auto()
    REMOVE = enum.auto()
    KEEP = enum.auto()


@dataclass(frozen=True, slots=True)
class Leftover:
    """A call that nobody held, now locked by us.

    Attributes:
        files: Its files.
        record: Its journal, replayed.
        audio_bytes: Size of the audio file; 0 for a call that is delivered.
        last_write: When the audio, or else the journal, last changed, in seconds
            since 1970.
    """

    files: disk.CallFiles
    record: CallRecord
    audio_bytes: int
    last_write: float


@dataclass(frozen=True, slots=True)
class Findings:
    """What a look through the spool gave.

    Attributes:
        calls: Calls to finish.
        aside: Names and reasons of what was moved aside.
        unreachable: Names and reasons of what had to stay where it was.
        spares: Empty folders for calls to come.
    """

    calls: list[Leftover] = field(default_factory=list)
    aside: list[tuple[str, str]] = field(default_factory=list)
    unreachable: list[tuple[str, str]] = field(default_factory=list)
    spares: list[disk.Spare] = field(default_factory=list)


def find(
    spool_fd: int,
    held: Collection[str],
    limit: int,
    delivered_limit: int,
    passed_over: dict[str, bool],
    *,
    spares_limit: int = 0,
    keep_files: bool = False,
) -> Findings:
    """Look for calls that nobody holds, and lock them.

    No entry, whatever it is, keeps the others from being found.

    Args:
        spool_fd: The spool's folder.
        held: Names not to look at, since this process holds them.
        limit: No more calls to be stored than this; each keeps a file open.
        delivered_limit: No more calls than this that only wait for transcripts.
        passed_over: Calls for which there was no room, and whether they only wait
            for transcripts. It is kept from one look to the next, as a long queue
            of a kind that is not wanted would have to be read each time.
        spares_limit: No more empty folders than this are kept.
        keep_files: Whether locks need open files here.

    Raises:
        OSError: The spool itself cannot be listed.
    """
    findings = Findings()
    room = {False: limit, True: delivered_limit}
    search = _Search(room, passed_over, keep_files=keep_files)
    names = _oldest_first(spool_fd)
    for name in passed_over.keys() - set(names):
        del passed_over[name]
    for name in names:
        if not any(search.room.values()):
            break
        if name in _NOT_OURS or name in held or search.passes_over(name):
            continue
        try:
            call = _look(spool_fd, name)
            if isinstance(call, disk.CallFiles):
                _keep_or_remove(spool_fd, call, findings, spares_limit)
            elif call is not None and search.wants(call):
                findings.calls.append(call)
        except _NonsenseError as exc:
            _put_away(spool_fd, name, str(exc), findings)
        except OSError as exc:
            findings.unreachable.append((_printable(name), reason_of(exc)))
            if exc.errno in _OUT_OF_FILES:
                break
    return findings


@dataclass(frozen=True, slots=True)
class _Search:
    """What is still looked for.

    Attributes:
        room: How many more calls are wanted, by whether they are delivered.
        passed_over: See `find`.
        keep_files: See `find`.
    """

    room: dict[bool, int]
    passed_over: dict[str, bool]
    keep_files: bool

    def passes_over(self, name: str) -> bool:
        """Tell whether a call is known to be of a kind that is not wanted."""
        known = self.passed_over.get(name)
        return known is not None and not self.room[known]

    def wants(self, call: Leftover) -> bool:
        """Tell whether a call is wanted; otherwise it is let go."""
        delivered = call.record.delivered
        if self.room[delivered]:
            self.room[delivered] -= 1
            self.passed_over.pop(call.files.name, None)
            if not self.keep_files:
                call.files.lock.map()
            return True
        self.passed_over[call.files.name] = delivered
        call.files.close()
        return False


def _keep_or_remove(
    spool_fd: int, files: disk.CallFiles, findings: Findings, spares_limit: int
) -> None:
    """Deal with an empty folder that we have locked."""
    if len(findings.spares) < spares_limit:
        try:
            spare = disk.make_spare(spool_fd, files)
        except OSError:
            # There is something else in it, or it cannot be emptied.
            pass
        else:
            spare.lock.map()
            findings.spares.append(spare)
            return
    disk.remove(spool_fd, files)


def _oldest_first(spool_fd: int) -> list[str]:
    """List a spool; what is there may be more than is wanted at a time."""

    def changed_at(entry: os.DirEntry[str]) -> float:
        # The folder of a call last changed when its files were made.
        try:
            return entry.stat(follow_symlinks=False).st_mtime
        except OSError:
            return 0.0

    with os.scandir(spool_fd) as entries:
        return [entry.name for entry in sorted(entries, key=changed_at)]


def _printable(name: str) -> str:
    """Write out bytes of a name that are no text, which no log could encode."""
    return name.encode(errors="backslashreplace").decode()


def _look(spool_fd: int, name: str) -> Leftover | disk.CallFiles | None:
    """Judge one entry; lock it if it is a call, clear it away if it is none.

    Returns:
        A call, or the files of an empty folder that was kept for one.

    Raises:
        _NonsenseError: It belongs aside.
        OSError: It cannot be reached.
    """
    if name.startswith(disk.PROBE):
        _clear_probe(spool_fd, name)
        return None
    files = disk.CallFiles(name, Lock(), -1)
    unfinished = _is_unfinished(files)
    if not unfinished and disk.session_of(name) is None:
        raise _NonsenseError("the name is not a session id")
    folder_fd = _open_entry(name, disk.FOLDER_FLAGS, spool_fd)
    if folder_fd is None:
        return None
    with contextlib.ExitStack() as closing:
        closing.callback(files.close)
        closing.callback(os.close, folder_fd)
        if unfinished and _is_recent(os.fstat(folder_fd)):
            return None
        found = _examine(folder_fd, files)
        if isinstance(found, Leftover):
            found = _compare(found, unfinished=unfinished)
        if found is _Verdict.REMOVE:
            disk.clear_folder(spool_fd, name, files)
        if found is _Verdict.REMOVE or found is _Verdict.LEAVE:
            return None
        closing.pop_all()
    os.close(folder_fd)
    return found if isinstance(found, Leftover) else files


def _examine(folder_fd: int, files: disk.CallFiles) -> Leftover | _Verdict:
    """Lock and read a call's folder; `files` gets what was opened."""
    journal_fd = _open_entry(disk.JOURNAL, _OPEN_FLAGS, folder_fd)
    if journal_fd is None:
        if _is_bare(folder_fd):
            return _Verdict.REMOVE
        raise _NonsenseError("there is no journal")
    files.lock = Lock(journal_fd)
    if not _lock(journal_fd):
        return _Verdict.LEAVE
    audio_fd = _open_entry(disk.AUDIO, _OPEN_FLAGS, folder_fd)
    files.audio_fd = -1 if audio_fd is None else audio_fd
    record = _read_record(files)
    if record is None:
        # Killed before the first line was whole: `opened` was never sent.
        if audio_fd is None or files.audio_bytes() == 0:
            return _Verdict.KEEP if _is_unfinished(files) else _Verdict.REMOVE
        raise _NonsenseError("there is audio, but the journal has no first line")
    if record.done or record.delivered:
        # A folder that is used again may, when the power is cut, have the journal of
        # the call before beside the audio of the call after.
        _check_session(files, record)
    if record.done:
        return _Verdict.REMOVE
    if record.delivered:
        return _delivered(folder_fd, files, record)
    if audio_fd is None:
        raise _NonsenseError("the audio is missing")
    status = os.fstat(audio_fd)
    return Leftover(files, record, status.st_size, status.st_mtime)


def _delivered(folder_fd: int, files: disk.CallFiles, record: CallRecord) -> Leftover:
    """Take a call that waits for its transcripts, without its audio."""
    files.close_audio()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(disk.AUDIO, dir_fd=folder_fd)
    return Leftover(files, record, 0, os.fstat(files.lock.fd).st_mtime)


def _compare(call: Leftover, *, unfinished: bool) -> Leftover | _Verdict:
    """Hold a call against the name of its folder."""
    if unfinished:
        # It was not handed to anybody before it got its own name.
        if call.audio_bytes == 0:
            return _Verdict.KEEP
        raise _NonsenseError("a call that was never finished being made has audio")
    _check_session(call.files, call.record)
    return call


def _is_unfinished(files: disk.CallFiles) -> bool:
    return files.name.startswith(disk.NEW)


def _check_session(files: disk.CallFiles, record: CallRecord) -> None:
    name = files.name
    if not _is_unfinished(files) and record.opened.session_id != disk.session_of(name):
        raise _NonsenseError("the journal is that of another session")


def _read_record(files: disk.CallFiles) -> CallRecord | None:
    """Replay the journal, and cut off a torn last line."""
    fd = files.lock.fd
    size_bytes = os.fstat(fd).st_size
    if size_bytes > JOURNAL_LIMIT_BYTES:
        raise _NonsenseError(f"the journal is {size_bytes} bytes long")
    try:
        record, whole_bytes = replay(disk.read_at(fd, 0, size_bytes))
    except ValueError as exc:
        raise _NonsenseError(str(exc)) from exc
    if record is not None and whole_bytes < size_bytes:
        os.ftruncate(fd, whole_bytes)
        # That took the reserved room with it. To get none is no reason to stop.
        with contextlib.suppress(OSError):
            disk.reserve(fd, whole_bytes + disk.JOURNAL_ROOM_BYTES)
    files.journal_bytes = whole_bytes
    return record


def _lock(journal_fd: int) -> bool:
    """Take the lock of a call.

    Returns:
        Whether the call is ours now: nobody else has it, nor had it and removed
        it between our opening the file and locking it.
    """
    try:
        fcntl.flock(journal_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(journal_fd).st_nlink > 0


def _open_entry(name: str, flags: int, folder_fd: int) -> int | None:
    """Open a folder or plain file, nothing else; ``None`` if there is none."""
    wanted = "folder" if flags & os.O_DIRECTORY else "plain file"
    try:
        fd = os.open(name, flags, dir_fd=folder_fd)
    except FileNotFoundError:
        return None
    except OSError as exc:
        if exc.errno in _WRONG_KIND:
            raise _NonsenseError(f"{_printable(name)} is not a {wanted}") from exc
        raise
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        os.close(fd)
        raise _NonsenseError(f"{_printable(name)} is not a {wanted}")
    return fd


def _is_bare(folder_fd: int) -> bool:
    """Tell whether a folder holds nothing but, at most, an empty audio file."""
    names = os.listdir(folder_fd)
    if names != [disk.AUDIO]:
        return not names
    status = os.stat(disk.AUDIO, dir_fd=folder_fd, follow_symlinks=False)
    return stat.S_ISREG(status.st_mode) and status.st_size == 0


def _is_recent(status: os.stat_result) -> bool:
    return time.time() - status.st_mtime < PATIENCE


def _clear_probe(spool_fd: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        status = os.stat(name, dir_fd=spool_fd, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            raise _NonsenseError("what looks like a probe is not a plain file")
        if not _is_recent(status):
            os.unlink(name, dir_fd=spool_fd)


def _put_away(spool_fd: int, name: str, reason: str, findings: Findings) -> None:
    try:
        _move_aside(spool_fd, name, reason)
    except OSError as exc:
        text = f"{reason}; not moved: {reason_of(exc)}"
        findings.unreachable.append((_printable(name), text))
    else:
        findings.aside.append((_printable(name), reason))


def _move_aside(spool_fd: int, name: str, reason: str) -> None:
    """Move an entry to ``aside/<name>/``, and write down why.

    A folder becomes ``aside/<name>`` itself; anything else goes into a new
    folder of that name. A name that is taken gets a number.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(ASIDE, 0o700, dir_fd=spool_fd)
    aside_fd = os.open(ASIDE, disk.FOLDER_FLAGS, dir_fd=spool_fd)
    with contextlib.ExitStack() as closing:
        closing.callback(os.close, aside_fd)
        status = os.stat(name, dir_fd=spool_fd, follow_symlinks=False)
        target = _claim_name(aside_fd, name)
        try:
            # Renaming a folder onto an empty one replaces it.
            is_folder = stat.S_ISDIR(status.st_mode)
            new = target if is_folder else f"{target}/{name}"
            os.rename(name, new, src_dir_fd=spool_fd, dst_dir_fd=aside_fd)
        except OSError:
            os.rmdir(target, dir_fd=aside_fd)
            raise
        # The reason is in the log as well; a full disk must not undo the move.
        with contextlib.suppress(OSError):
            _note_reason(aside_fd, target, reason)


def _claim_name(aside_fd: int, name: str) -> str:
    number = 1
    while True:
        target = name if number == 1 else f"{name}_{number}"
        try:
            os.mkdir(target, 0o700, dir_fd=aside_fd)
        except FileExistsError:
            number += 1
        else:
            return target


def _note_reason(aside_fd: int, target: str, reason: str) -> None:
    folder_fd = os.open(target, disk.FOLDER_FLAGS, dir_fd=aside_fd)
    try:
        try:
            fd = os.open(REASON, disk.CREATE_FLAGS, 0o600, dir_fd=folder_fd)
        except FileExistsError:
            other = f"reason-{secrets.token_hex(4)}.txt"
            fd = os.open(other, disk.CREATE_FLAGS, 0o600, dir_fd=folder_fd)
        with os.fdopen(fd, "w", encoding="utf-8") as stream:
            stream.write(f"{journal.utc_text(time.time())} {reason}\n")
    finally:
        os.close(folder_fd)
