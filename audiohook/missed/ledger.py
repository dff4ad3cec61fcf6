"""Where Genesys' events are kept: a file of SQLite beside the spool.

Each is kept once, for a while, and no more than so many. The file holds ids and what
Genesys says of them; if it is damaged it is set aside, and begun anew.
"""

from __future__ import annotations

import contextlib
import sqlite3
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from audiohook import sqlite_file
from audiohook.errors import CallIndexError
from audiohook.missed.events import GenesysEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

T = TypeVar("T")

SECONDS = 1.0
DAYS = 24 * 3600 * SECONDS

EVENTS_FOLDER: Final = ".genesys"
"""Name of the folder, in that of the spool."""

FILE_NAME: Final = "events.sqlite"
DAMAGED_NAME: Final = "damaged.sqlite"

KEPT: Final = 90 * DAYS
"""So long an event is kept."""

MOST_KEPT: Final = 200_000

_TABLES: Final = (
    """
    CREATE TABLE IF NOT EXISTS events (
        id TEXT PRIMARY KEY,
        at REAL NOT NULL,
        code TEXT NOT NULL,
        conversation TEXT NOT NULL,
        text TEXT NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE INDEX IF NOT EXISTS by_time ON events (at)",
    "CREATE INDEX IF NOT EXISTS by_conversation ON events (conversation)",
)


class EventLedger:
    """Keeps Genesys' events. Every method raises `CallIndexError` if it cannot.

    Args:
        folder: Where the file is; made with the first event.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / FILE_NAME
        self._threads = trio.CapacityLimiter(1)

    async def take(self, events: Collection[GenesysEvent], now: float) -> int:
        """Keeps events; returns how many were not known yet.

        Args:
            events: What came.
            now: The time, in seconds since 1970.
        """

        def put(connection: sqlite3.Connection) -> int:
            with sqlite_file.transaction(connection):
                before = connection.total_changes
                connection.executemany(
                    "INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?)",
                    [
                        (each.id, each.at, each.code, each.conversation, each.text)
                        for each in events
                    ],
                )
                taken = connection.total_changes - before
                connection.execute("DELETE FROM events WHERE at < ?", (now - KEPT,))
                connection.execute(
                    "DELETE FROM events WHERE id IN (SELECT id FROM events"
                    " ORDER BY at DESC LIMIT -1 OFFSET ?)",
                    (MOST_KEPT,),
                )
            return taken

        return await self._do(put)

    async def between(
        self, since: float, until: float, limit: int
    ) -> list[GenesysEvent]:
        """Returns the events of a stretch of time, the oldest first."""
        if not self._path.exists():
            await trio.lowlevel.checkpoint()
            return []

        def find(connection: sqlite3.Connection) -> list[GenesysEvent]:
            rows = connection.execute(
                "SELECT id, at, code, conversation, text FROM events"
                " WHERE at >= ? AND at < ? ORDER BY at, id LIMIT ?",
                (since, until, limit),
            )
            return [GenesysEvent(*row) for row in rows]

        return await self._do(find)

    async def erase(self, conversation: str) -> int:
        """Forgets what came of a conversation; returns how many events that were."""
        if not self._path.exists():
            await trio.lowlevel.checkpoint()
            return 0
        return await self._do(partial(self._erase, conversation.lower()))

    def _erase(self, conversation: str, connection: sqlite3.Connection) -> int:
        with sqlite_file.transaction(connection):
            done = connection.execute(
                "DELETE FROM events WHERE conversation = ?", (conversation,)
            )
        # What was deleted must not stay in the log of the file either.
        is_busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if is_busy:
            raise CallIndexError(f"{self._path}: somebody reads it all the time")
        return done.rowcount

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Does something with the file in a thread; one that is damaged is begun anew."""

        def run() -> T:
            try:
                with self._opened() as connection:
                    return work(connection)
            except CallIndexError as error:
                if not error.damaged:
                    raise
            sqlite_file.rename(self._folder, FILE_NAME, DAMAGED_NAME)
            with self._opened() as connection:
                return work(connection)

        return await trio.to_thread.run_sync(run, limiter=self._threads)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """Open the file for one piece of work; events are too rare to keep it open."""
        try:
            connection, _ = sqlite_file.open_file(self._path, "FULL")
            with contextlib.closing(connection):
                for statement in _TABLES:
                    connection.execute(statement)
                yield connection
        except sqlite3.Error as exc:
            damaged = sqlite_file.is_damage(exc)
            raise CallIndexError(f"{self._path}: {exc}", damaged=damaged) from exc
        except OSError as exc:
            raise CallIndexError(
                f"{self._path}: {exc.strerror or type(exc).__name__}"
            ) from exc
