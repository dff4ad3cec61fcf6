"""The blocking half of the outbox: one file of SQLite. Called from threads.

Whatever is told stays in the file until the receiver has it, and its id some days
longer, so that what is told again after a crash is not sent again. Several
processes may write to it, such as `audiohook notify --resend` beside a service;
SQLite's own locks order what they do.

All that is told of one conversation is a stream, and only the oldest waiting one of
each stream, its head, may be sent.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from typing import TYPE_CHECKING, Final

from audiohook import sqlite_file
from audiohook.errors import OutboxError
from audiohook.notify.letter import Counts, Entry, Letter, Standing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from audiohook.notify.letter import Settlement

SECONDS = 1.0
MINUTES = 60 * SECONDS
HOURS = 60 * MINUTES
DAYS = 24 * HOURS

FILE_NAME: Final = "outbox.sqlite"
DAMAGED_NAME: Final = "damaged.sqlite"
_LOCK_NAME: Final = "sender.lock"

_APPLICATION_ID: Final = 0x41484F42
_VERSION: Final = 1

# A million of them take up 1 GiB.
MOST_WAITING: Final = 1_000_000
MOST_DEAD: Final = 100_000
# A call may be taken over, and told of again, by a process that starts days later.
_REMEMBERED: Final = 3 * DAYS
_MOST_REMEMBERED: Final = 1_000_000
_DEAD_KEPT: Final = 30 * DAYS

_TABLES: Final = (
    """
    CREATE TABLE notifications (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        stream TEXT NOT NULL,
        kind TEXT NOT NULL,
        conversation TEXT NOT NULL,
        body BLOB,
        state TEXT NOT NULL,
        head INTEGER NOT NULL,
        since REAL NOT NULL,
        due REAL NOT NULL,
        tries INTEGER NOT NULL,
        reason TEXT,
        settled_at REAL
    )
    """,
    "CREATE INDEX heads ON notifications (due) WHERE head = 1",
    "CREATE INDEX streams ON notifications (stream, seq) WHERE state = 'waiting'",
    "CREATE INDEX ages ON notifications (since) WHERE state = 'waiting'",
    "CREATE INDEX ends ON notifications (state, settled_at) WHERE state != 'waiting'",
    "CREATE INDEX conversations ON notifications (conversation)",
)


class Database:
    """One connection to the outbox; for one thread at a time.

    Every method raises `OutboxError` if the file cannot be read or written.

    Args:
        folder: Where the file is; made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / FILE_NAME
        self._connection: sqlite3.Connection | None = None
        # Of the file that was opened last.
        self._inode = 0
        self._lock_fd = -1
        # How many more may wait, as was counted last.
        self._room = 0

    def close(self) -> None:
        """Close the connection, and give up the lock of the sender."""
        self._disconnect()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def become_sender(self) -> bool:
        """Tell whether it is for this process to send what waits.

        Once it is, it is until the connection is closed, or the process dies.
        """
        if self._lock_fd >= 0:
            return True
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(self._folder / _LOCK_NAME, flags, 0o600)
        except OSError as exc:
            raise _refusal(exc) from exc
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        self._lock_fd = fd
        return True

    # What calls and the sender do

    def change(
        self, letters: Collection[Letter], settlements: Collection[Settlement]
    ) -> None:
        """Take in what is to be sent, and what has come of what was.

        What is known already is not taken in again. It is on disk in the end.
        """
        with self._transaction() as connection:
            streams = {each.stream for each in letters}
            if self._room < len(letters):
                self._room = MOST_WAITING - _count(connection, Standing.WAITING)
            for letter in letters:
                self._room -= _put(connection, letter, has_room=self._room > 0)
            for each in settlements:
                streams |= _settle(connection, each)
            _reckon(connection, streams)

    def heads(
        self, now: float, limit: int, *, fewest_tries: bool = False
    ) -> list[Letter]:
        """Return what may be sent, the longest due first.

        Args:
            now: Seconds since 1970.
            limit: At most so many.
            fewest_tries: Whatever is due when, begin with what has failed least.
        """
        where, order = "due <= ?", "due, seq"
        if fewest_tries:
            where, order = "? IS NOT NULL", "tries, seq"
        with self._guarded() as connection:
            rows = connection.execute(
                "SELECT id, stream, kind, conversation, body, tries, since"  # noqa: S608 - no input in it
                f" FROM notifications WHERE head = 1 AND {where}"
                f" ORDER BY {order} LIMIT ?",
                (now, limit),
            )
            return [Letter(*row) for row in rows]

    def next_due(self, now: float) -> float | None:
        """Return when the next one that is not due yet will be."""
        with self._guarded() as connection:
            row = connection.execute(
                "SELECT min(due) FROM notifications WHERE head = 1 AND due > ?", (now,)
            ).fetchone()
            return None if row[0] is None else float(row[0])

    def hasten(self, now: float) -> None:
        """Have all that wait for their next try be due."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE notifications SET due = ? WHERE head = 1 AND due > ?",
                (now, now),
            )

    def expire(self, before: float, reason: str, now: float) -> int:
        """Give up what waits for longer than something should.

        Args:
            before: What is tried since before that, in seconds since 1970.
            reason: Why it was not sent.
            now: The time.

        Returns:
            How many these were.
        """
        with self._transaction() as connection:
            old = "state = 'waiting' AND since <= ?"
            streams = {
                row[0]
                for row in connection.execute(
                    f"SELECT DISTINCT stream FROM notifications WHERE {old}",  # noqa: S608 - no input in it
                    (before,),
                )
            }
            done = connection.execute(
                "UPDATE notifications SET state = 'dead', head = 0, settled_at = ?,"  # noqa: S608 - no input in it
                f" reason = coalesce(reason, ?) WHERE {old}",
                (now, reason, before),
            )
            _reckon(connection, streams)
            return done.rowcount

    def prune(self, now: float) -> None:
        """Forget what is settled for long."""
        with self._transaction() as connection:
            for state, kept, most in (
                (Standing.SENT, _REMEMBERED, _MOST_REMEMBERED),
                (Standing.DEAD, _DEAD_KEPT, MOST_DEAD),
            ):
                connection.execute(
                    "DELETE FROM notifications WHERE state = ? AND settled_at < ?",
                    (state, now - kept),
                )
                connection.execute(
                    "DELETE FROM notifications WHERE seq IN (SELECT seq FROM"
                    " notifications WHERE state = ? ORDER BY settled_at DESC"
                    " LIMIT -1 OFFSET ?)",
                    (state, most),
                )

    def counts(self) -> Counts:
        """Count what is there."""
        with self._guarded() as connection:
            oldest = connection.execute(
                "SELECT min(since) FROM notifications WHERE state = 'waiting'"
            ).fetchone()[0]
            return Counts(
                _count(connection, Standing.WAITING),
                _count(connection, Standing.DEAD),
                oldest,
            )

    def version(self) -> int:
        """Return a number that changes whenever another process has written."""
        with self._guarded() as connection:
            return int(connection.execute("PRAGMA data_version").fetchone()[0])

    # What people do

    def entries(self, state: Standing, limit: int) -> list[Entry]:
        """List notifications, the oldest first."""
        with self._guarded() as connection:
            rows = connection.execute(
                "SELECT id, kind, conversation, state, since, tries, reason"
                " FROM notifications WHERE state = ? ORDER BY seq LIMIT ?",
                (state, limit),
            )
            return [Entry(*row) for row in rows]

    def resend(self, identities: Collection[str] | None, now: float) -> set[str]:
        """Have dead ones sent after all, and waiting ones at once.

        Args:
            identities: Which; None for all that are dead.
            now: Since when they are tried now.

        Returns:
            Ids of those that will be.
        """
        with self._transaction() as connection:
            if identities is None:
                rows = connection.execute(
                    "SELECT id FROM notifications WHERE state = 'dead'"
                ).fetchall()
                identities = [row[0] for row in rows]
            streams: set[str] = set()
            found: set[str] = set()
            for identity in identities:
                row = connection.execute(
                    "UPDATE notifications SET state = 'waiting', since = ?, due = ?,"
                    " tries = 0, settled_at = NULL WHERE id = ? AND state != 'sent'"
                    " RETURNING stream",
                    (now, now, identity),
                ).fetchone()
                if row is not None:
                    streams.add(row[0])
                    found.add(identity)
            _reckon(connection, streams)
            return found

    def erase(self, conversation: str) -> int:
        """Forget all that is told of a conversation, also what was not sent yet.

        Returns:
            How many notifications these were.

        Raises:
            OutboxError: It could not be done, or not to the last byte; ask again.
        """
        with self._transaction() as connection:
            done = connection.execute(
                "DELETE FROM notifications WHERE conversation = ?", (conversation,)
            )
        # What was deleted must not stay in the log of the file either.
        with self._guarded() as connection:
            is_busy, *_ = connection.execute(
                "PRAGMA wal_checkpoint(TRUNCATE)"
            ).fetchone()
        if is_busy:
            raise OutboxError(f"{self._path}: somebody reads it all the time")
        return done.rowcount

    def set_aside(self) -> None:
        """Put a damaged file aside, so that what comes now has a place.

        If another process has done so, what is there now is not damaged.
        """
        damaged = self._inode
        self._disconnect()
        try:
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(folder, fcntl.LOCK_EX)
                if sqlite_file.inode_of(self._path) == damaged:
                    sqlite_file.rename(self._folder, FILE_NAME, DAMAGED_NAME)
            finally:
                os.close(folder)
        except OSError as exc:
            raise _refusal(exc) from exc

    # The connection

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._connected()
        except sqlite3.Error as exc:
            damaged = sqlite_file.is_damage(exc)
            raise OutboxError(f"{self._path}: {exc}", damaged=damaged) from exc
        except OSError as exc:
            raise _refusal(exc) from exc

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._guarded() as connection, sqlite_file.transaction(connection):
            yield connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> sqlite3.Connection:
        inode = sqlite_file.inode_of(self._path)
        if inode != self._inode:
            # Another process has set the file aside meanwhile, and nobody sends what
            # is put into that any more.
            self._disconnect()
        if self._connection is None:
            # One that is damaged may not even be opened.
            self._inode = inode
            # What is told counts as told once it is on disk.
            connection, self._inode = sqlite_file.open_file(self._path, "FULL")
            try:
                _make_tables(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection


def _refusal(exc: OSError) -> OutboxError:
    return OutboxError(f"{exc.filename}: {exc.strerror or type(exc).__name__}")


def _make_tables(connection: sqlite3.Connection) -> None:
    """Make the tables of a new file.

    Raises:
        OutboxError: It is that of something else, or of another version.
    """
    ours = (_APPLICATION_ID, _VERSION)
    with sqlite_file.transaction(connection):
        mark = sqlite_file.mark_of(connection)
        if mark == (0, 0):
            for statement in _TABLES:
                connection.execute(statement)
            sqlite_file.set_mark(connection, *ours)
    if mark not in {(0, 0), ours}:
        raise OutboxError("the file is that of another version", damaged=True)


def _count(connection: sqlite3.Connection, state: Standing) -> int:
    row = connection.execute(
        # In so many words, or the index of the waiting ones is not used.
        f"SELECT count(*) FROM notifications WHERE state = '{state}'"  # noqa: S608 - a word of ours
    ).fetchone()
    return int(row[0])


def _put(connection: sqlite3.Connection, letter: Letter, *, has_room: bool) -> int:
    """Take a notification in; return how many more wait."""
    state = Standing.WAITING if has_room else Standing.DEAD
    done = connection.execute(
        "INSERT OR IGNORE INTO notifications (id, stream, kind, conversation, body,"
        " state, head, since, due, tries, reason, settled_at)"
        " VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?, 0, ?, ?)",
        (
            letter.id,
            letter.stream,
            letter.kind,
            letter.conversation,
            letter.body,
            state,
            letter.since,
            letter.since,
            None if has_room else f"more than {MOST_WAITING:,} wait",
            None if has_room else letter.since,
        ),
    )
    return done.rowcount if has_room else 0


def _settle(connection: sqlite3.Connection, settlement: Settlement) -> set[str]:
    """Note what has come of a try; return the stream that may go on."""
    state = settlement.state
    if state is Standing.WAITING:
        connection.execute(
            "UPDATE notifications SET tries = tries + 1, due = ?, reason = ?"
            " WHERE id = ? AND state = 'waiting'",
            (settlement.at, settlement.reason, settlement.id),
        )
        return set()
    rows = connection.execute(
        "UPDATE notifications SET state = ?, head = 0, reason = ?, settled_at = ?,"
        " tries = tries + ?, body = CASE WHEN ? THEN NULL ELSE body END"
        " WHERE id = ? AND state != 'sent' RETURNING stream",
        (
            state,
            settlement.reason,
            settlement.at,
            state is Standing.DEAD,
            state is Standing.SENT,
            settlement.id,
        ),
    ).fetchall()
    return {row[0] for row in rows}


def _reckon(connection: sqlite3.Connection, streams: Iterable[str]) -> None:
    """Have the oldest waiting one of each stream be its head."""
    values: Sequence[tuple[str, str]] = [(stream, stream) for stream in streams]
    connection.executemany(
        "UPDATE notifications SET head = (seq = (SELECT min(seq) FROM notifications"
        " WHERE stream = ? AND state = 'waiting'))"
        " WHERE stream = ? AND state = 'waiting'",
        values,
    )
