"""What there is of a call in a folder: its files, whoever has put them there."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from audiohook.errors import UploadError
from audiohook.storage.base import READ_LIMIT_BYTES
from audiohook.storage.traces import (
    Kept,
    Reason,
    Trace,
    TraceKind,
    conversation_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from typing_extensions import AsyncGenerator

T = TypeVar("T")

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DENIED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_PAGE: Final = 1000
# Deeper than anything of ours, and bounded whatever somebody has put there.
_MOST_DEEP: Final = 8


class FolderTraces:
    """A folder as somebody sees it who has to remove all of a call.

    Links are removed, never followed. Files and folders whose names begin with a
    dot, such as the temporary ones of a write that was cut off, are traces too.

    Args:
        root: The store's.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._limiter = trio.CapacityLimiter(1)

    async def names(self, prefix: str) -> AsyncGenerator[list[str]]:
        """List the names of all recordings of which there is any trace.

        Raises:
            UploadError: The folder cannot be listed.
        """
        names = await self._run(prefix, partial(_names, self._root / prefix))
        for start in range(0, len(names), _PAGE):
            yield names[start : start + _PAGE]

    async def beginning(self, start: str) -> AsyncGenerator[list[Trace]]:
        """List files whose keys begin so, those of one recording at a time.

        Raises:
            UploadError: The folder cannot be listed.
        """
        prefix, _, begin = start.rpartition("/")
        for name in await self._run(prefix, partial(_names, self._root / prefix)):
            if name.startswith(begin):
                yield await self.below(f"{prefix}/{name}")

    async def below(self, folder: str) -> list[Trace]:
        """List all files below a folder.

        Raises:
            UploadError: It cannot be listed.
        """
        return await self._run(folder, partial(_below, self._root, folder))

    async def content(self, trace: Trace) -> bytes | None:
        """Return a small file; ``None`` if it is gone, or is no plain file.

        Raises:
            UploadError: It cannot be read, or is too large.
        """
        return await self._run(trace.key, partial(_content, self._root / trace.key))

    async def notes(self, trace: Trace) -> dict[str, str]:
        """Return nothing: a folder keeps nothing beside its files."""
        return {}

    async def remove(self, trace: Trace) -> Kept | None:
        """Remove a file; no fault if it is gone.

        Returns:
            Why it is still there, if nobody can change that for now.

        Raises:
            UploadError: The disk did not do as asked; try again later.
        """
        work = partial(_remove, self._root / trace.key)
        if await self._run(trace.key, work):
            return None
        return Kept(trace, Reason.DENIED)

    async def hide(self, key: str) -> None:
        """Do nothing: what cannot be removed cannot be hidden either."""

    async def tidy(self, folder: str, keys: Collection[str]) -> None:
        """Remove folders that nothing is in, and have that on the disk.

        Raises:
            UploadError: The disk did not do as asked.
        """
        await self._run(folder, partial(_tidy, self._root / folder))

    async def _run(self, key: str, work: Callable[[], T]) -> T:
        try:
            return await trio.to_thread.run_sync(work, limiter=self._limiter)
        except OSError as exc:
            raise UploadError(
                f"{self._root / key}: {exc.strerror or type(exc).__name__}"
            ) from exc


def _names(path: Path) -> list[str]:
    try:
        with os.scandir(path) as entries:
            # What has the name of a recording is one, whatever it is; other links
            # and files lead nowhere.
            return [
                each.name
                for each in entries
                if each.is_dir(follow_symlinks=False)
                or conversation_of(each.name) is not None
            ]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _below(root: Path, folder: str) -> list[Trace]:
    found: list[Trace] = []
    status = _status(root / folder)
    if status is not None and not stat.S_ISDIR(status.st_mode):
        # A link, whatever it points at, or something else that is no folder.
        return [Trace(TraceKind.OBJECT, folder, "", status.st_size)]
    for path, names in _walk(root / folder):
        for name, size in names:
            key = (path / name).relative_to(root).as_posix()
            found.append(Trace(TraceKind.OBJECT, key, "", size))
    return found


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _walk(folder: Path, deep: int = 0) -> Iterator[tuple[Path, list[tuple[str, int]]]]:
    """List folders and what is in them, the innermost first."""
    files: list[tuple[str, int]] = []
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for each in entries:
        if each.is_dir(follow_symlinks=False) and deep < _MOST_DEEP:
            yield from _walk(folder / each.name, deep + 1)
        else:
            with contextlib.suppress(FileNotFoundError):
                files.append((each.name, each.stat(follow_symlinks=False).st_size))
    yield folder, files


def _content(path: Path) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            return None
        raise
    with os.fdopen(fd, "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            return None
        data = stream.read(READ_LIMIT_BYTES + 1)
    if len(data) > READ_LIMIT_BYTES:
        raise UploadError(f"{path}: too large to be read", retryable=False)
    return data


def _remove(path: Path) -> bool:
    """Unlink a file; False if that is not allowed."""
    try:
        path.unlink(missing_ok=True)
    except NotADirectoryError:
        return True
    except OSError as exc:
        if exc.errno in _DENIED:
            return False
        raise
    return True


def _tidy(folder: Path) -> None:
    status = _status(folder)
    is_folder = status is not None and stat.S_ISDIR(status.st_mode)
    for path, _ in _walk(folder) if is_folder else ():
        with contextlib.suppress(FileNotFoundError):
            try:
                path.rmdir()
            except OSError as exc:
                if exc.errno not in {errno.ENOTEMPTY, *_DENIED}:
                    raise
    # So that no crash of the machine brings a name back.
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(folder.parent, _FOLDER)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
