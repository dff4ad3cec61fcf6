"""A folder as a store: the same keys as in a bucket, as files.

Every object is written under a temporary name beside its own, synced, and then
given its name by a hard link, which fails if the name is taken. Metadata has no
place in a folder; all of it is in the call's JSON as well.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import itertools
import os
import secrets
import stat
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from audiohook.errors import KeyExistsError, UploadError
from audiohook.storage.base import (
    MIB,
    READ_LIMIT_BYTES,
    BytesBlob,
    FoundObject,
    StoredObject,
    Version,
    check_key,
)
from audiohook.storage.folder_traces import FolderTraces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from typing_extensions import AsyncGenerator

    from audiohook.storage.base import Blob

T = TypeVar("T")

CHUNK_BYTES: Final = MIB
# Entries of a folder that are looked at in one go.
_PAGE: Final = 1000
# A temporary file this old belongs to a process that is dead; none takes a day.
LEFTOVER_AGE: Final = 24 * 60 * 60.0

# Recordings are for the owner and his group, who may listen but not change them;
# nobody else on the machine has any business with what callers said.
_FILE_MODE: Final = 0o640
_FOLDER_MODE: Final = 0o750

_TEMPORARY_START: Final = "."
_TEMPORARY_END: Final = ".part"

# Somebody has to change something before it can work.
_NEEDS_MENDING: Final = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
    }
)
# What opening says of a symbolic link, a folder and a socket.
_NOT_PLAIN: Final = frozenset({errno.ELOOP, errno.EISDIR, errno.ENXIO})
# File systems without hard links, such as FAT and some network ones.
_NO_LINKS: Final = frozenset(
    {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
)

_AT_FDCWD: Final = -100
_RENAME_NOREPLACE: Final = 1
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a file is, without its content.

    Attributes:
        size: Bytes.
        tag: Another one for another content.
    """

    size: int
    tag: str


class FolderStore:
    """Objects as files below one folder.

    Args:
        root: Made if it is not there.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        # Each writes at the disk's speed; more at a time gain nothing.
        self._limiter = trio.CapacityLimiter(4)

    @property
    def traces(self) -> FolderTraces:
        """All that there is in the folder, for whoever has to remove it."""
        return FolderTraces(self._root)

    async def put(
        self, key: str, blob: Blob, *, metadata: Mapping[str, str], token: str
    ) -> StoredObject:
        """Store an object, unless the key is taken by something else.

        Args:
            key: Where below the root.
            blob: What.
            metadata: Not kept.
            token: Not needed: an object is known by its content.

        Raises:
            KeyExistsError: The key is taken by something else.
            UploadError: The folder did not take it; the text says why.
            SpoolError: The blob cannot be read.

        *Cancellation:* Between two chunks; nothing is left.
        """
        return await self._run(key, partial(_put, self._root, key, blob))

    async def replace(
        self, key: str, blob: Blob, *, metadata: Mapping[str, str], token: str
    ) -> StoredObject:
        """Store an object in place of whatever is there; otherwise as `put`."""
        return await self._run(key, partial(_replace, self._root, key, blob))

    async def read(self, key: str) -> bytes | None:
        """Return a whole object, ``None`` if there is none.

        Raises:
            UploadError: It cannot be read, or is larger than `READ_LIMIT_BYTES`.
        """
        return await self._run(key, partial(_read, self._root, key))

    async def size(self, key: str) -> int | None:
        """Return the length of an object in bytes, ``None`` if there is none.

        Raises:
            UploadError: It is no plain file, or cannot be looked at.
        """
        return await self._run(key, partial(_size, self._root, key))

    async def head(self, key: str) -> FoundObject | None:
        """Say what is under a key, ``None`` if nothing is.

        Raises:
            UploadError: It is no plain file, or cannot be looked at.
        """
        size = await self.size(key)
        return None if size is None else FoundObject(size)

    async def fetch(self, key: str) -> Version | None:
        """Return a small object with what is needed to replace it.

        Raises:
            UploadError: It cannot be read, or is larger than `READ_LIMIT_BYTES`.
        """
        return await self._run(key, partial(_fetch, self._root, key))

    async def swap(
        self, key: str, data: bytes, tag: str | None, *, metadata: Mapping[str, str]
    ) -> str:
        """Store an object in place of a certain one.

        Args:
            key: Where.
            data: The new content.
            tag: Of the one that is to be there; ``None`` if there is to be none.
            metadata: Not kept.

        Returns:
            The new tag.

        Raises:
            KeyExistsError: There is something else, or nothing.
            UploadError: The folder did not take it; the text says why.
        """
        return await self._run(key, partial(_swap, self._root, key, data, tag))

    async def read_range(self, key: str, offset: int, length: int) -> bytes:
        """Return a stretch of an object; fewer bytes only at its end.

        Args:
            key: Which object.
            offset: First byte.
            length: Number of bytes, all of which are in memory.

        Raises:
            UploadError: It cannot be read, or there is none.
        """
        work = partial(_read_range, self._root, key, offset, length)
        return await self._run(key, work)

    async def list_names(
        self, prefix: str, *, after: str = ""
    ) -> AsyncGenerator[list[str]]:
        """List the folders below a prefix, some at a time and in no order.

        Args:
            prefix: With a slash at the end.
            after: Only names that come later than this one.

        Raises:
            UploadError: The folder cannot be listed.
        """
        check_key(prefix.removesuffix("/"))
        path = self._root / prefix
        try:
            entries = await trio.to_thread.run_sync(
                os.scandir, path, limiter=self._limiter
            )
        except FileNotFoundError:
            return
        except OSError as exc:
            raise UploadError(f"{path}: {exc.strerror}") from exc
        with entries:
            while True:
                page = partial(_next_names, entries, after)
                try:
                    names, more = await trio.to_thread.run_sync(
                        page, limiter=self._limiter
                    )
                except OSError as exc:
                    raise UploadError(f"{path}: {exc.strerror}") from exc
                if names:
                    yield names
                if not more:
                    return

    async def delete(self, key: str) -> None:
        """Delete an object; no fault if there is none.

        Raises:
            UploadError: It cannot be deleted.
        """
        await self._run(key, partial(_delete, self._root, key))

    async def purge(self, key: str) -> None:
        """Delete an object; a folder keeps no versions, see `delete`."""
        await self.delete(key)

    async def look(self, key: str) -> FileFacts | None:
        """Return what is there to serve a file by, ``None`` if there is none.

        Raises:
            UploadError: It is no plain file, or cannot be looked at.
        """
        return await self._run(key, partial(_look, self._root, key))

    async def sweep(self) -> int:
        """Delete temporary files that dead processes left a day ago or earlier.

        It walks through the whole store, so let it run beside other things.

        Returns:
            How many were deleted.

        *Cancellation:* Between two folders.
        """
        return await trio.to_thread.run_sync(_sweep, self._root, limiter=self._limiter)

    async def _run(self, key: str, work: Callable[[], T]) -> T:
        check_key(key)
        try:
            return await trio.to_thread.run_sync(work, limiter=self._limiter)
        except OSError as exc:
            raise UploadError(
                f"{self._root / key}: {exc.strerror or type(exc).__name__}",
                retryable=exc.errno not in _NEEDS_MENDING,
            ) from exc


def _put(root: Path, key: str, blob: Blob) -> StoredObject:
    path = root / key
    # Done before? Then the disk, which may be full by now, need not take it again.
    present = _compare(path, key, blob)
    if present is not None:
        return present
    with _temporary(root, path) as temporary:
        stored = _write(temporary, key, blob)
        try:
            _give_name(temporary, path)
        except FileExistsError as exc:
            if _fingerprint(path) != (stored.size, stored.sha256):
                raise KeyExistsError(key) from exc
    _sync_folder(path.parent)
    return stored


def _replace(root: Path, key: str, blob: Blob) -> StoredObject:
    path = root / key
    with _temporary(root, path) as temporary:
        stored = _write(temporary, key, blob)
        temporary.replace(path)
    _sync_folder(path.parent)
    return stored


def _read(root: Path, key: str) -> bytes | None:
    try:
        fd = _open_plain(root / key)
    except FileNotFoundError:
        return None
    with os.fdopen(fd, "rb") as stream:
        data = stream.read(READ_LIMIT_BYTES + 1)
    if len(data) > READ_LIMIT_BYTES:
        raise UploadError(f"{root / key}: too large to be read", retryable=False)
    return data


def _fetch(root: Path, key: str) -> Version | None:
    data = _read(root, key)
    if data is None:
        return None
    try:
        changed_at = (root / key).stat().st_mtime
    except FileNotFoundError:
        return None
    return Version(data, _tag(data), max(0.0, time.time() - changed_at), {})


def _swap(root: Path, key: str, data: bytes, tag: str | None) -> str:
    path = root / key
    if tag is not None and not path.parent.is_dir():
        # It is gone; nothing is to be left where it was.
        raise KeyExistsError(key)
    _make_folders(root, path.parent)
    # One at a time, and the folder is there for as long as anything is in it.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        there = _read(root, key)
        if (None if there is None else _tag(there)) != tag:
            raise KeyExistsError(key)
        _replace(root, key, BytesBlob(data))
    finally:
        os.close(folder)
    return _tag(data)


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _size(root: Path, key: str) -> int | None:
    try:
        fd = _open_plain(root / key)
    except FileNotFoundError:
        return None
    try:
        return os.fstat(fd).st_size
    finally:
        os.close(fd)


def _delete(root: Path, key: str) -> None:
    path = root / key
    try:
        path.unlink()
    except FileNotFoundError:
        return
    _sync_folder(path.parent)


def _look(root: Path, key: str) -> FileFacts | None:
    try:
        fd = _open_plain(root / key)
    except FileNotFoundError:
        return None
    try:
        status = os.fstat(fd)
    finally:
        os.close(fd)
    # Whatever replaces a file is a new one, under another number.
    tag = f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"
    return FileFacts(status.st_size, tag)


def _read_range(root: Path, key: str, offset: int, length: int) -> bytes:
    with os.fdopen(_open_plain(root / key), "rb") as stream:
        stream.seek(offset)
        return stream.read(length)


def _next_names(
    entries: Iterator[os.DirEntry[str]], after: str
) -> tuple[list[str], bool]:
    """Take the names of the next folders; and whether there may be more."""
    page = list(itertools.islice(entries, _PAGE))
    names = [
        each.name
        for each in page
        if each.name > after
        and not each.name.startswith(_TEMPORARY_START)
        and each.is_dir(follow_symlinks=False)
    ]
    return names, len(page) == _PAGE


def _compare(path: Path, key: str, blob: Blob) -> StoredObject | None:
    """Hold what is under a name against a blob.

    Returns:
        ``None`` if there is nothing.

    Raises:
        KeyExistsError: It is something else.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    if status.st_size != blob.size_bytes:
        raise KeyExistsError(key)
    digest = hashlib.sha256()
    for chunk in _chunks(key, blob):
        digest.update(chunk)
    ours = (blob.size_bytes, digest.hexdigest())
    if _fingerprint(path) != ours:
        raise KeyExistsError(key)
    # The process that wrote it may have died before it was on disk.
    _sync_folder(path.parent)
    return StoredObject(key, *ours)


def _fingerprint(path: Path) -> tuple[int, str] | None:
    """Size and SHA-256 of a plain file, synced; ``None`` if it is none."""
    try:
        fd = _open_plain(path)
    except OSError as exc:
        if exc.errno in _NOT_PLAIN:
            return None
        raise
    with os.fdopen(fd, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
        os.fsync(fd)
        return os.fstat(fd).st_size, digest.hexdigest()


def _open_plain(path: Path) -> int:
    """Open a file for reading, but no link, folder or pipe.

    Raises:
        OSError: It cannot be opened; with a number in `_NOT_PLAIN`, it is no file.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EISDIR, "not a plain file")
    return fd


def _chunks(key: str, blob: Blob) -> Iterator[bytes]:
    """Read a blob from start to end; ends early if the waiting task is cancelled."""
    offset = 0
    while offset < blob.size_bytes:
        trio.from_thread.check_cancelled()
        chunk = blob.read_at(offset, min(CHUNK_BYTES, blob.size_bytes - offset))
        if not chunk:
            raise UploadError(f"{key}: ends at {offset} of {blob.size_bytes} bytes")
        yield chunk
        offset += len(chunk)


def _write(path: Path, key: str, blob: Blob) -> StoredObject:
    """Write and sync a new file."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    digest = hashlib.sha256()
    size = 0
    # Unbuffered: chunks are large, and an error must come where it happens.
    with os.fdopen(os.open(path, flags, _FILE_MODE), "wb", buffering=0) as stream:
        for chunk in _chunks(key, blob):
            digest.update(chunk)
            view = memoryview(chunk)
            while view:
                view = view[stream.write(view) :]
            size += len(chunk)
        os.fsync(stream.fileno())
    return StoredObject(key, size, digest.hexdigest())


@contextlib.contextmanager
def _temporary(root: Path, path: Path) -> Iterator[Path]:
    """Give a name beside `path`, and see to it that nothing is left of it."""
    _make_folders(root, path.parent)
    name = f"{_TEMPORARY_START}{secrets.token_hex(16)}{_TEMPORARY_END}"
    temporary = path.with_name(name)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _make_folders(root: Path, folder: Path) -> None:
    """Make a folder and those above it, and have their names on disk."""
    missing = [folder]
    while missing[-1] != root and not missing[-1].parent.is_dir():
        missing.append(missing[-1].parent)
    for each in reversed(missing):
        try:
            each.mkdir(_FOLDER_MODE, parents=each == root)
        except FileExistsError:
            continue
        _sync_folder(each.parent)


def _give_name(temporary: Path, path: Path) -> None:
    """Give a file its name, unless the name is taken.

    Raises:
        FileExistsError: It is.
    """
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise
    except OSError as exc:
        if exc.errno not in _NO_LINKS or _renameat2 is None:
            raise
        old, new = os.fsencode(temporary), os.fsencode(path)
        if _renameat2(_AT_FDCWD, old, _AT_FDCWD, new, _RENAME_NOREPLACE) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code)) from exc


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sweep(root: Path) -> int:
    oldest = time.time() - LEFTOVER_AGE
    deleted = 0
    # A folder that cannot be listed is passed over, and links are not followed.
    for folder, _, names in os.walk(root):
        trio.from_thread.check_cancelled()
        for name in names:
            if name.startswith(_TEMPORARY_START) and name.endswith(_TEMPORARY_END):
                path = Path(folder, name)
                with contextlib.suppress(OSError):
                    if path.lstat().st_mtime < oldest:
                        path.unlink()
                        deleted += 1
    return deleted
