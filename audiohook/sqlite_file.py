"""A file of SQLite that several processes share: opening it, and changing it.

Whatever several processes do to the file is ordered by SQLite's own locks; its log
(WAL) lets them read while one of them writes. Everything here blocks, for up to
`BUSY_LIMIT` where another process has the file for itself; call it from threads.

What is in the file, and what an error of it means, is up to whoever opens it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECONDS = 1.0

COMPANIONS: Final = ("", "-wal", "-shm", "-journal")
"""Endings of the files that belong together; those with one come and go."""

BUSY_LIMIT: Final = 5 * SECONDS
"""How long another process may keep the file for itself."""

_OPEN_PAUSE: Final = 0.02 * SECONDS
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def open_file(
    path: Path, synchronous: Literal["NORMAL", "FULL"]
) -> tuple[sqlite3.Connection, int]:
    """Open a file for its owner only; it and its folder are made if need be.

    What is deleted from it is overwritten with zeros, and no change is part of a
    transaction unless that is begun, see `transaction`.

    Args:
        path: Where it is; not followed if it is a symbolic link.
        synchronous: ``FULL`` if a change must be on disk once it is made; with
            ``NORMAL`` a crash of the machine may take the last ones back.

    Returns:
        A connection for one thread at a time, and the number of the file's inode.

    Raises:
        sqlite3.Error: It cannot be opened, or is none of SQLite's.
        OSError: It cannot be made.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Its companions get the same mode from SQLite.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600)
    try:
        inode = os.fstat(fd).st_ino
    finally:
        os.close(fd)
    connection = sqlite3.connect(
        path, timeout=BUSY_LIMIT, isolation_level=None, check_same_thread=False
    )
    try:
        _use_log(connection)
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
    except BaseException:
        connection.close()
        raise
    return connection, inode


def _use_log(connection: sqlite3.Connection) -> None:
    """Have changes go to a log first; the file remembers it.

    Of two that open a new file at once, one is told that it is locked, without the
    wait that it would get for anything else.
    """
    until = time.monotonic() + BUSY_LIMIT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as exc:
            if code_of(exc) != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        else:
            return
        time.sleep(_OPEN_PAUSE)


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Have all changes of a block be made, or none if it raises."""
    # Not one that becomes a writer later, which could be too late.
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def mark_of(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return whose a file is, and of which version; zeros if it is new."""
    mark = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    return int(mark), int(version)


def set_mark(connection: sqlite3.Connection, mark: int, version: int) -> None:
    """Note whose a file is, and of which version."""
    connection.execute(f"PRAGMA application_id = {mark}")
    connection.execute(f"PRAGMA user_version = {version}")


def code_of(exc: sqlite3.Error) -> int:
    """Tell what kind an error is, such as `sqlite3.SQLITE_BUSY`; 0 if it says none.

    Source: SQLite, "Result and Error Codes": only the low byte says what kind.
    """
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF


def is_damage(exc: sqlite3.Error) -> bool:
    """Tell whether an error says that the file is damaged, or none of SQLite's."""
    return code_of(exc) in _CORRUPT


def inode_of(path: Path) -> int:
    """Return the number of a file's inode, by which two of one name differ; 0 if none.

    Raises:
        OSError: It cannot be looked at.
    """
    try:
        return path.stat(follow_symlinks=False).st_ino
    except FileNotFoundError:
        return 0


def rename(folder: Path, old: str, new: str) -> None:
    """Give a file and its companions another name; it need not be there.

    Raises:
        OSError: They cannot be renamed.
    """
    for ending in COMPANIONS:
        with contextlib.suppress(FileNotFoundError):
            (folder / f"{old}{ending}").replace(folder / f"{new}{ending}")
