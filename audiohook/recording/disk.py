"""The blocking half of the spool: files, locks and syncs. Called from threads.

Layout of a spool::

    <folder>/<name>/journal.jsonl     facts, one a line; its lock owns the call
                    audio.ulaw        channels interleaved, as received; gone once
                                      the store has all of the call
    <folder>/.new-<hex>/              the same for a call to come, empty
    <folder>/aside/<name>/reason.txt  what made no sense, kept for a person

The name is the session id. A client that tries again with the same one, while what
it sent before is still there, gets a number behind it: ``<session id>_2``.

A call belongs to whoever holds the lock on its journal, so that several
processes can share a folder, and what a dead one leaves is free for the taking.
A new call is made under another name and renamed once it is locked and has its
first line; no process ever sees one that is half made.

The lock lasts without an open file, and journals are opened only to write a few
lines. So a live call needs a socket and its audio, and no third file.

A call that is done is not deleted but emptied, and its folder kept under such
another name, locked, for a call to come. To make and delete folders is what a file
system is slowest at, and some get slower with each that was deleted lately. So
nobody may have a file of a call open for longer than he holds the call: what he
read or wrote then would be another's.

Every name is looked up relative to an open folder, and no symbolic link at its end
is followed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from audiohook.recording import _files
from audiohook.recording._files import Lock

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from audiohook.recording._files import Journals

KIB: Final = 1024

JOURNAL: Final = "journal.jsonl"
AUDIO: Final = "audio.ulaw"

# Room on disk that is set aside for a journal beyond its first line, so that
# gaps and the end of a call can be written when the disk is full.
JOURNAL_ROOM_BYTES: Final = 8 * KIB
# From here on one `syncfs` is cheaper than syncing files one by one. Measured
# on ext4: 3,000 calls in 0.16 s against 120 µs a file.
SYNCFS_FROM: Final = 9

NEW: Final = ".new-"
PROBE: Final = ".probe-"

FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_JOURNAL_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
CREATE_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_FALLOC_FL_KEEP_SIZE: Final = 0x01
_NAME: Final = re.compile(
    r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:_(?:[2-9]|[1-9][0-9]))?"
)
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
# The disk as a whole refuses, not just this one file.
_REFUSED: Final = _NO_ROOM | {errno.EIO, errno.EROFS}
# The spool's folder has been removed, unmounted by a server of files, or given to
# another user; what is only one call's trouble is found out by the next probe.
_TAKEN_AWAY: Final = frozenset({errno.ENOENT, errno.ESTALE, errno.EACCES, errno.EPERM})
_OUT_OF_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE})

_libc = ctypes.CDLL(None, use_errno=True)
_syncfs = getattr(_libc, "syncfs", None)
# glibc: 64-bit offsets have a name of their own; musl: they are the only ones.
_fallocate = getattr(_libc, "fallocate64", None) or getattr(_libc, "fallocate", None)
if _fallocate is not None:
    _fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def is_no_room(exc: OSError) -> bool:
    """Tell whether the disk or quota was full."""
    return exc.errno in _NO_ROOM


def is_refusal(exc: OSError) -> bool:
    """Tell whether the next call would fare no better."""
    return exc.errno in _REFUSED or exc.errno in _TAKEN_AWAY


def session_of(name: str) -> str | None:
    """Tell the session id in the name of a call's folder; ``None`` if it is none."""
    match = _NAME.fullmatch(name)
    return None if match is None else match[1]


@dataclass(eq=False, slots=True)
class CallFiles:
    """The files of one call.

    Attributes:
        name: Name of the folder.
        lock: Of the journal; the call is ours for as long as it is held.
        audio_fd: Open for reading and writing; -1 if it is closed.
        journal_bytes: Where the next line goes.
        entries_synced: Whether the names themselves are known to be on disk.
        failure: The first failed sync. The kernel tells each failure once and
            may drop what it could not write, so a later success proves nothing.
    """

    name: str
    lock: Lock
    audio_fd: int
    journal_bytes: int = 0
    entries_synced: bool = False
    failure: OSError | None = field(default=None, repr=False)

    def audio_bytes(self) -> int:
        """Return the size of the audio file."""
        return os.fstat(self.audio_fd).st_size

    def close_audio(self) -> None:
        """Close the audio file alone; once is enough."""
        if self.audio_fd >= 0:
            os.close(self.audio_fd)
        self.audio_fd = -1

    def close(self) -> None:
        """Close the audio and give up the lock; once is enough."""
        self.close_audio()
        self.lock.close()


@dataclass(frozen=True, slots=True)
class Spare:
    """An empty folder for a call to come, locked.

    Attributes:
        name: Its name.
        lock: Of its journal.
    """

    name: str
    lock: Lock


@dataclass(eq=False, slots=True)
class Step:
    """One thing to write for a call.

    Attributes:
        data: Whole lines for the journal.
        fit_bytes: Where the audio is to be cut off before; ``None`` for nowhere.
        failure: Why it was not done.
    """

    data: bytes
    fit_bytes: int | None = None
    failure: OSError | None = None


def write_steps(
    journals: Journals, calls: Collection[tuple[CallFiles, list[Step]]]
) -> None:
    """Append to journals, and cut audio off, as far as the disk lets us.

    On an error nothing of that step counts as written, and the next attempt
    overwrites what little may be there; until then it is a torn last line. If the
    first step of a call fails then all of them do.

    Args:
        journals: What writes them.
        calls: Files and steps, in order.
    """
    entries = [
        (
            files.name.encode(),
            files.audio_fd,
            files.journal_bytes,
            [(step.fit_bytes, step.data) for step in steps],
        )
        for files, steps in calls
    ]
    done = journals.append_all(entries)
    for (files, steps), (journal_bytes, codes) in zip(calls, done, strict=True):
        files.journal_bytes = journal_bytes
        for step, code in zip(steps, codes, strict=True):
            step.failure = _step_error(files, step, code)


def _step_error(files: CallFiles, step: Step, code: int) -> OSError | None:
    if code == errno.ENODATA and step.fit_bytes is not None:
        return OSError(
            code,
            f"{files.audio_bytes()} bytes of audio are stored, not {step.fit_bytes}",
        )
    return OSError(code, os.strerror(code)) if code else None


def read_at(fd: int, offset: int, length: int) -> bytes:
    """Read `length` bytes at `offset`, fewer only at the end of the file."""
    pieces = []
    while length > 0:
        piece = os.pread(fd, length, offset)
        if not piece:
            break
        pieces.append(piece)
        offset += len(piece)
        length -= len(piece)
    return b"".join(pieces)


def write_at(fd: int, data: bytes, offset: int) -> None:
    """Write all of `data` at `offset`, whatever the kernel takes at a time."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


def open_spool(folder: Path) -> int:
    """Make the spool's folder if needed, for its owner only, and open it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def free_bytes(spool_fd: int) -> int:
    """Return the room that an ordinary user has left on the spool's disk."""
    status = os.fstatvfs(spool_fd)
    return status.f_bavail * status.f_frsize


def try_writing(spool_fd: int) -> None:
    """Write one block, and remove it again.

    Raises:
        OSError: The disk refused.
    """
    name = f"{PROBE}{secrets.token_hex(8)}"
    fd = os.open(name, CREATE_FLAGS, 0o600, dir_fd=spool_fd)
    try:
        # A quota, or a disk that gives out blocks late, says no only to a sync.
        write_at(fd, bytes(4 * KIB), 0)
        os.fsync(fd)
    finally:
        os.close(fd)
        os.unlink(name, dir_fd=spool_fd)


def locks_last(spool_fd: int) -> bool:
    """Tell whether a lock is kept here once its file is closed, see `Lock`.

    Raises:
        OSError: The disk refused.
    """
    name = f"{PROBE}{secrets.token_hex(8)}"
    lock = Lock(_open_locked(name, CREATE_FLAGS, spool_fd))
    try:
        lock.map()
        if lock.fd >= 0:
            return False
        try:
            os.close(_open_locked(name, os.O_RDWR | os.O_CLOEXEC, spool_fd))
        except BlockingIOError:
            return True
        return False
    finally:
        lock.close()
        os.unlink(name, dir_fd=spool_fd)


def _open_locked(name: str, flags: int, folder_fd: int) -> int:
    fd = os.open(name, flags, 0o600, dir_fd=folder_fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(fd)
        raise
    return fd


def create(
    spool_fd: int,
    requests: Collection[tuple[str, bytes]],
    spares: list[Spare],
    *,
    keep_files: bool = False,
) -> list[CallFiles | OSError]:
    """Make folders and files of calls, locked, with their first lines.

    Args:
        spool_fd: The spool's folder.
        requests: Of each its session id, after which the folder is named, and what
            the journal begins with. They had better be few at a time.
        spares: Empty folders, which are used up.
        keep_files: Whether locks need open files here, see `locks_last`.

    Returns:
        Of each its files, or what was said: that the disk refused, or that there
        are too many calls of that session. It ends early where the next would fare
        no better.
    """
    wanted = []
    taken: list[Spare | None] = []
    for session_id, line in requests:
        spare = spares.pop() if spares else None
        taken.append(spare)
        wanted.append(
            (
                session_id.encode(),
                line,
                f"{NEW}{secrets.token_hex(8)}".encode(),
                None if spare is None else spare.name.encode(),
            )
        )
    made = _files.create_all(
        spool_fd, wanted, journal_room_bytes=JOURNAL_ROOM_BYTES, keep_file=keep_files
    )
    # Those for which it was not even tried are as good as before.
    spares.extend(spare for spare in taken[len(made) :] if spare is not None)
    return [
        _made_files(request, spare, each)
        for request, spare, each in zip(requests, taken, made, strict=False)
    ]


def make_spares(spool_fd: int, count: int) -> tuple[list[Spare], OSError | None]:
    """Make empty folders for calls to come; only where locks last without files.

    Returns:
        Those that were made, and why there are no more of them.
    """
    names = [f"{NEW}{secrets.token_hex(8)}" for _ in range(count)]
    made = _files.make_spares(spool_fd, [name.encode() for name in names])
    spares = [
        Spare(name, lock)
        for name, (code, lock) in zip(names, made, strict=False)
        if not code
    ]
    code = made[-1][0] if made else 0
    return spares, OSError(code, os.strerror(code)) if code else None


def _made_files(
    request: tuple[str, bytes],
    spare: Spare | None,
    made: tuple[int, int, int, Lock | None],
) -> CallFiles | OSError:
    session_id, line = request
    code, number, audio_fd, lock = made
    if code or lock is not None:
        # Whoever looks for leftovers clears it away.
        if spare is not None:
            spare.lock.close()
    else:
        assert spare is not None
        lock = spare.lock
    if code:
        return OSError(code, os.strerror(code))
    assert lock is not None
    name = session_id if number == 1 else f"{session_id}_{number}"
    return CallFiles(name, lock, audio_fd, journal_bytes=len(line))


def reserve(fd: int, size_bytes: int) -> None:
    """Set room on disk aside without changing the file's size.

    File systems that cannot do so are left in peace.

    Raises:
        OSError: There is no room.
    """
    if _fallocate is None or not _fallocate(fd, _FALLOC_FL_KEEP_SIZE, 0, size_bytes):
        return
    code = ctypes.get_errno()
    if code in _REFUSED:
        raise OSError(code, os.strerror(code))


def drop_audio(spool_fd: int, name: str) -> None:
    """Unlink a call's audio; it need not be there.

    Raises:
        OSError: The disk refused.
    """
    folder_fd = os.open(name, FOLDER_FLAGS, dir_fd=spool_fd)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(AUDIO, dir_fd=folder_fd)
    finally:
        os.close(folder_fd)


def make_spare(spool_fd: int, files: CallFiles) -> Spare:
    """Empty the files of a call that is locked by us, and keep its folder as a spare.

    The journal goes after the audio, so that a removal that was cut short still
    says that it was one.

    Returns:
        The spare, which has the lock from now on.

    Raises:
        OSError: The disk refused, or the folder holds something else; the files are
            still there.
    """
    new = files.name
    if not new.startswith(NEW):
        new = f"{NEW}{secrets.token_hex(8)}"
    code = _files.empty_folder(
        spool_fd, files.name.encode(), files.audio_fd, new.encode()
    )
    if code:
        raise OSError(code, os.strerror(code))
    files.close_audio()
    lock, files.lock = files.lock, Lock()
    return Spare(new, lock)


def remove(spool_fd: int, files: CallFiles) -> None:
    """Delete a call that is locked by us, and close its files.

    The journal goes after the audio, so that a removal that was cut short still
    says that it was one.

    Raises:
        OSError: The disk refused; the files are closed nevertheless.
    """
    try:
        clear_folder(spool_fd, files.name, files)
    finally:
        files.close()


def clear_folder(spool_fd: int, name: str, files: CallFiles | None = None) -> None:
    """Unlink a call's audio and journal, then its folder; none need be there.

    Files are closed before the folder goes: NFS keeps open files as entries.

    Raises:
        OSError: The disk refused, or the folder holds something else.
    """
    with contextlib.suppress(FileNotFoundError):
        folder_fd = os.open(name, FOLDER_FLAGS, dir_fd=spool_fd)
        try:
            for entry in (AUDIO, JOURNAL):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry, dir_fd=folder_fd)
        finally:
            os.close(folder_fd)
        if files is not None:
            files.close()
        os.rmdir(name, dir_fd=spool_fd)


class Syncer:
    """Brings calls to the disk; to be used by one thread at a time.

    One `syncfs` for many calls writes whatever else the file system holds as
    well. It tells of a failed write, whenever that was and whichever file it
    hit, but only once for each open folder. So each syncer has the folder open
    for itself, and from the first failure on asks every file on its own.
    Source: syncfs(2). Before Linux 5.8 it told of no failures.

    Args:
        folder: The spool's folder.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._syncfs = _syncfs

    def sync(self, calls: Collection[CallFiles]) -> None:
        """Sync audio, journals and names; a call that fails has `failure` set."""
        waiting = [call for call in calls if call.failure is None]
        if len(waiting) >= SYNCFS_FROM and self._sync_all(waiting):
            return
        new = [call for call in waiting if not call.entries_synced]
        for call in waiting:
            try:
                self._sync_call(call)
            except OSError as exc:
                # Without a file left to open one journal, all can still be synced.
                if exc.errno in _OUT_OF_FILES and self._sync_all(waiting):
                    return
                call.failure = exc
        if new:
            self._sync_names(new)

    def _sync_all(self, calls: Collection[CallFiles]) -> bool:
        """Sync the file system; whether that can be, and has gone well."""
        if self._syncfs is None:
            return False
        if self._syncfs(self._fd) != 0:
            self._syncfs = None
            return False
        for call in calls:
            call.entries_synced = True
        return True

    def close(self) -> None:
        """Close the folder."""
        os.close(self._fd)

    def _sync_call(self, call: CallFiles) -> None:
        if call.audio_fd >= 0:
            os.fdatasync(call.audio_fd)
        # What the kernel could not write, and nobody has been told of, it tells to
        # whoever opens the file afterwards. Source: Linux, lib/errseq.c.
        self._sync_entry(os.fdatasync, f"{call.name}/{JOURNAL}", _JOURNAL_FLAGS)
        if not call.entries_synced:
            self._sync_entry(os.fsync, call.name, FOLDER_FLAGS)

    def _sync_entry(self, sync: Callable[[int], None], name: str, flags: int) -> None:
        fd = os.open(name, flags, dir_fd=self._fd)
        try:
            sync(fd)
        finally:
            os.close(fd)

    def _sync_names(self, calls: Collection[CallFiles]) -> None:
        try:
            os.fsync(self._fd)
        except OSError as exc:
            for call in calls:
                call.failure = call.failure or exc
        else:
            for call in calls:
                call.entries_synced = True
