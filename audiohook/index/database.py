"""The blocking half of the index: one file of SQLite. Called from threads.

Several processes may share the file, see `audiohook.sqlite_file`. One that is
damaged is set aside, since all of it can be made anew.

A recording's number in the tables holds the time at which it began, so that the
newest is the one with the greatest number, everywhere and without sorting.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
import zlib
from typing import TYPE_CHECKING, Final, TypeAlias

from audiohook import sqlite_file
from audiohook.errors import CallIndexError
from audiohook.index.entry import Entry, RecordingState
from audiohook.index.search import COLUMNS, ID_BITS, Found, Query, Search, found
from audiohook.sqlite_file import code_of, transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

SECONDS = 1.0

FILE_NAME: Final = "recordings.sqlite"
DAMAGED_NAME: Final = "damaged.sqlite"
_LOCK_NAME: Final = "lock"

_APPLICATION_ID: Final = 0x41484978
_VERSION: Final = 2

# How long one question may take; whoever asks for more must ask more narrowly.
_SEARCH_LIMIT: Final = 2 * SECONDS
# SQLite asks whether to go on after so many of its steps.
_STEPS: Final = 20_000
# For an erasure others have to be done reading.
_ERASE_TRIES: Final = 50
_ERASE_PAUSE: Final = 0.1 * SECONDS

_TABLES: Final = """
CREATE TABLE recordings (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    session TEXT NOT NULL,
    conversation TEXT NOT NULL,
    participant TEXT NOT NULL,
    ani TEXT NOT NULL,
    ani_name TEXT NOT NULL,
    dnis TEXT NOT NULL,
    started_at TEXT NOT NULL,
    duration REAL NOT NULL,
    language TEXT,
    audio_removed_at TEXT,
    transcripts_removed_at TEXT,
    complete INTEGER NOT NULL,
    state TEXT NOT NULL,
    texts TEXT NOT NULL,
    generation INTEGER NOT NULL
);
CREATE INDEX by_conversation ON recordings (conversation, id);
CREATE INDEX by_participant ON recordings (participant, id);
CREATE TABLE numbers (id INTEGER PRIMARY KEY, digits TEXT NOT NULL UNIQUE);
CREATE TABLE uses (
    number INTEGER NOT NULL,
    id INTEGER NOT NULL,
    PRIMARY KEY (number, id)
) WITHOUT ROWID;
CREATE INDEX uses_by_recording ON uses (id);
CREATE TABLE facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO facts VALUES ('generation', 0), ('whole', 0);
"""
_WORDS: Final = (
    "CREATE VIRTUAL TABLE words USING"
    # Beginnings of so many letters are lists of their own; longer ones have few
    # words to them.
    " fts5(text, tokenize = 'unicode61 remove_diacritics 2', prefix = '2 3 4')"
)
_PLAIN_WORDS: Final = "CREATE TABLE words (rowid INTEGER PRIMARY KEY, text TEXT)"


Mark: TypeAlias = "tuple[object, ...]"
"""What of a recording changes; only to be held against another."""


class Database:
    """One connection to the index; for one thread at a time.

    Args:
        folder: Where the file is; made if it is not there.
        is_erased: Tells of a recording that it was to be erased, and must not come
            back; it may block.
    """

    def __init__(
        self, folder: Path, *, is_erased: Callable[[Entry], bool] = lambda _entry: False
    ) -> None:
        self._folder = folder
        self._is_erased = is_erased
        self._path = folder / FILE_NAME
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._has_fts = True
        self._ends_at = 0.0

    @property
    def has_fts(self) -> bool:
        """Whether text is found by words; otherwise any part of one is, slowly."""
        return self._has_fts

    def close(self) -> None:
        """Close the connection; it opens again when it is needed."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # Looking

    def search(self, query: Query, limit: int) -> list[Found]:
        """Find recordings, the newest first.

        Args:
            query: What is looked for.
            limit: At most so many.

        Raises:
            CallIndexError: It takes too long, or the file cannot be read.
        """
        with self._guarded(_SEARCH_LIMIT) as connection:
            return Search(connection, query, has_fts=self._has_fts).run(limit)

    def by_key(self, key: str) -> Found | None:
        """Return the recording that is stored there; None if there is none.

        Raises:
            CallIndexError: The file cannot be read.
        """
        with self._guarded(_SEARCH_LIMIT) as connection:
            row = connection.execute(
                f"SELECT id, {COLUMNS} FROM recordings WHERE key = ?",  # noqa: S608 - no input in it
                (key,),
            ).fetchone()
            return None if row is None else found(row)

    def settled(self, keys: Sequence[str]) -> set[str]:
        """Return those of some keys of which everything is known.

        Raises:
            CallIndexError: The file cannot be read.
        """
        with self._guarded(_SEARCH_LIMIT) as connection:
            marks = ", ".join("?" * len(keys))
            rows = connection.execute(
                "SELECT key FROM recordings"  # noqa: S608 - marks only
                f" WHERE state NOT IN (?, ?) AND key IN ({marks})",
                (RecordingState.TRANSCRIBING, RecordingState.PARKED, *keys),
            )
            return {key for (key,) in rows}

    def marks(self, keys: Sequence[str]) -> dict[str, Mark]:
        """Return by which to tell later whether any of some recordings has changed.

        Raises:
            CallIndexError: The file cannot be read.
        """
        with self._guarded(_SEARCH_LIMIT) as connection:
            found = {key: _mark(connection, key) for key in keys}
        return {key: mark for key, mark in found.items() if mark is not None}

    def count(self) -> int:
        """Return how many recordings there are.

        Raises:
            CallIndexError: The file cannot be read.
        """
        with self._guarded(_SEARCH_LIMIT) as connection:
            row = connection.execute("SELECT count(*) FROM recordings").fetchone()
            return int(row[0])

    def newest_ms(self) -> int | None:
        """Return when the newest recording began, if there is any."""
        with self._guarded(_SEARCH_LIMIT) as connection:
            row = connection.execute("SELECT max(id) FROM recordings").fetchone()
            return None if row[0] is None else int(row[0]) >> ID_BITS

    def is_whole(self) -> bool:
        """Tell whether the whole store has been gone through once."""
        with self._guarded(_SEARCH_LIMIT) as connection:
            return bool(_fact(connection, "whole"))

    # Changing

    def put(
        self,
        entries: Collection[tuple[Entry, str | None]],
        before: Mapping[str, Mark] | None = None,
    ) -> None:
        """Take recordings in, in place of what was known of them.

        Args:
            entries: With the words of their transcripts; None if there are none.
            before: What `marks` returned before they were read. Those that have
                changed since are left as they are: whoever did that knows more.

        Raises:
            CallIndexError: They could not be written; nothing has changed.
        """
        with self._guarded() as connection, transaction(connection):
            generation = _fact(connection, "generation")
            for entry, text in entries:
                if before is not None:
                    mark = _mark(connection, entry.key)
                    if mark != before.get(entry.key):
                        _touch(connection, entry.key, generation)
                        continue
                # Asked in here, so that no erasure can come in between.
                if not self._is_erased(entry):
                    _put(connection, entry, text, generation)

    def begin_pass(self) -> int:
        """Begin to go through the whole store; return the number of the pass.

        Raises:
            CallIndexError: The file cannot be written.
        """
        with self._guarded() as connection, transaction(connection):
            connection.execute(
                "UPDATE facts SET value = value + 1 WHERE name = 'generation'"
            )
            return _fact(connection, "generation")

    def end_pass(self, generation: int) -> int:
        """Forget what a pass through the whole store has not found any more.

        Args:
            generation: What `begin_pass` returned.

        Returns:
            How many recordings that were.

        Raises:
            CallIndexError: The file cannot be written.
        """
        with self._guarded() as connection, transaction(connection):
            rows = connection.execute(
                "SELECT id FROM recordings WHERE generation < ?", (generation,)
            ).fetchall()
            _remove(connection, [number for (number,) in rows])
            connection.execute("UPDATE facts SET value = 1 WHERE name = 'whole'")
            return len(rows)

    def erase(self, conversation: str, session: str | None = None) -> int:
        """Forget a conversation, so that no byte of it is left in the files.

        Args:
            conversation: Its id, in small or capital letters.
            session: Only this session of it.

        Returns:
            How many recordings it had.

        Raises:
            CallIndexError: It could not be done, or not to the last byte; ask again.
        """
        with self._guarded() as connection:
            for suffix in sqlite_file.COMPANIONS:
                # Nobody can tell what is in it.
                (self._folder / f"{DAMAGED_NAME}{suffix}").unlink(missing_ok=True)
            with transaction(connection):
                spellings = (conversation, conversation.lower(), conversation.upper())
                rows = connection.execute(
                    "SELECT id FROM recordings WHERE conversation IN (?, ?, ?)"
                    " AND (? IS NULL OR session = ?)",
                    (*spellings, session, session),
                ).fetchall()
                _remove(connection, [number for (number,) in rows])
                if self._has_fts:
                    # What is deleted stays in the lists of words until they are
                    # merged.
                    connection.execute("INSERT INTO words (words) VALUES ('optimize')")
            # Free pages are overwritten with zeros (secure_delete), but the log
            # still has them as they were.
            for _ in range(_ERASE_TRIES):
                row = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                if not row[0]:
                    return len(rows)
                time.sleep(_ERASE_PAUSE)
        raise CallIndexError("somebody reads the index all the time", busy=True)

    def due(
        self, before_ms: int, after: int, limit: int, *, audio: bool, transcripts: bool
    ) -> list[Found]:
        """Return recordings of which something may have been removed by now.

        Args:
            before_ms: That began before, in milliseconds since 1970.
            after: Only those with greater numbers; they come by their numbers.
            limit: At most so many.
            audio: Those of which the audio is not known to be removed.
            transcripts: Those of which transcripts are not known to be.

        Raises:
            CallIndexError: The file cannot be read.
        """
        with self._guarded(_SEARCH_LIMIT) as connection:
            rows = connection.execute(
                f"SELECT id, {COLUMNS} FROM recordings"  # noqa: S608 - no input in it
                " WHERE id > ? AND id < ?"
                " AND ((? AND audio_removed_at IS NULL)"
                " OR (? AND transcripts_removed_at IS NULL))"
                " ORDER BY id LIMIT ?",
                (after, max(0, before_ms) << ID_BITS, audio, transcripts, limit),
            )
            return [found(row) for row in rows]

    def mark_removed(
        self, key: str, audio: str | None, transcripts: str | None
    ) -> None:
        """Note that something of a recording was removed.

        Args:
            key: Where it is.
            audio: When its audio was, if it was.
            transcripts: When its transcripts were, if they were; then no word of
                them is found any more.

        Raises:
            CallIndexError: The file cannot be written.
        """
        with self._guarded() as connection, transaction(connection):
            connection.execute(
                "UPDATE recordings SET"
                " audio_removed_at = coalesce(audio_removed_at, ?),"
                " transcripts_removed_at = coalesce(transcripts_removed_at, ?)"
                " WHERE key = ?",
                (audio, transcripts, key),
            )
            if transcripts is not None:
                connection.execute(
                    "DELETE FROM words WHERE rowid ="
                    " (SELECT id FROM recordings WHERE key = ?)",
                    (key,),
                )

    def forget(self, keys: Collection[str]) -> None:
        """Forget recordings that are gone.

        Raises:
            CallIndexError: The file cannot be written.
        """
        with self._guarded() as connection, transaction(connection):
            for key in keys:
                rows = connection.execute(
                    "SELECT id FROM recordings WHERE key = ?", (key,)
                ).fetchall()
                _remove(connection, [number for (number,) in rows])

    # The file

    @contextlib.contextmanager
    def lone(self) -> Iterator[bool]:
        """Tell whether no other process is at what only one should do at a time."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self._folder / _LOCK_NAME, flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _guarded(self, limit: float = 0.0) -> Iterator[sqlite3.Connection]:
        """Give the connection, and translate what it raises."""
        try:
            connection = self._connected()
            self._ends_at = time.monotonic() + limit if limit else 0.0
            yield connection
        except sqlite3.Error as exc:
            raise self._translated(exc) from exc
        except OSError as exc:
            raise CallIndexError(f"{self._path}: {exc.strerror or exc}") from exc

    def _translated(self, exc: sqlite3.Error) -> CallIndexError:
        code = code_of(exc)
        if code == sqlite3.SQLITE_INTERRUPT:
            return CallIndexError("the question takes too long", costly=True)
        if sqlite_file.is_damage(exc):
            self.close()
            return CallIndexError(f"{self._path} is damaged", damaged=True)
        # Its words name files and tables, never what is in them.
        self.close()
        busy = code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
        return CallIndexError(f"{self._path}: {exc}", busy=busy)

    def set_aside(self) -> None:
        """Put a damaged file out of the way; the next use begins a new one.

        Raises:
            CallIndexError: It cannot be moved.
        """
        self.close()
        try:
            with self.lone() as alone:
                # Otherwise somebody else is at it.
                if alone and not self._is_sound():
                    sqlite_file.rename(self._folder, FILE_NAME, DAMAGED_NAME)
        except OSError as exc:
            raise CallIndexError(f"{self._path}: {exc.strerror or exc}") from exc

    def _is_sound(self) -> bool:
        try:
            with contextlib.closing(sqlite3.connect(self._path)) as connection:
                rows = connection.execute("PRAGMA quick_check(1)").fetchall()
                connection.execute("SELECT value FROM facts").fetchall()
                if _is_virtual(connection):
                    # What the words are found by is beyond that check.
                    connection.execute(
                        "INSERT INTO words (words) VALUES ('integrity-check')"
                    )
                return rows == [("ok",)]
        except sqlite3.Error:
            return False

    def _connected(self) -> sqlite3.Connection:
        # Another process may have set the file aside meanwhile.
        if self._connection is not None:
            if sqlite_file.inode_of(self._path) == self._inode:
                return self._connection
            self.close()
        # What a crash of the machine takes from the index the store still has.
        connection, self._inode = sqlite_file.open_file(self._path, "NORMAL")
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.set_progress_handler(self._is_late, _STEPS)
        with transaction(connection):
            if sqlite_file.mark_of(connection) != (_APPLICATION_ID, _VERSION):
                self._create(connection)
        self._has_fts = _is_virtual(connection)

    def _create(self, connection: sqlite3.Connection) -> None:
        """Begin anew, whatever an earlier or a later version may have put there."""
        rows = connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table'"
            " AND name IN ('words', 'recordings', 'numbers', 'uses', 'facts')"
        ).fetchall()
        for (name,) in rows:
            connection.execute(f"DROP TABLE {name}")
        for statement in _TABLES.split(";"):
            connection.execute(statement)
        try:
            connection.execute(_WORDS)
        except sqlite3.OperationalError:
            # This SQLite was built without FTS5.
            connection.execute(_PLAIN_WORDS)
        sqlite_file.set_mark(connection, _APPLICATION_ID, _VERSION)

    def _is_late(self) -> bool:
        return self._ends_at > 0 and time.monotonic() > self._ends_at


def _is_virtual(connection: sqlite3.Connection) -> bool:
    row = connection.execute(
        "SELECT sql LIKE 'CREATE VIRTUAL%' FROM sqlite_schema WHERE name = 'words'"
    ).fetchone()
    return bool(row[0])


def _fact(connection: sqlite3.Connection, name: str) -> int:
    row = connection.execute("SELECT value FROM facts WHERE name = ?", (name,))
    return int(row.fetchone()[0])


def _mark(connection: sqlite3.Connection, key: str) -> Mark | None:
    row = connection.execute(
        "SELECT id, state, texts, complete, generation, audio_removed_at,"
        " transcripts_removed_at FROM recordings WHERE key = ?",
        (key,),
    ).fetchone()
    return None if row is None else tuple(row)


def _touch(connection: sqlite3.Connection, key: str, generation: int) -> None:
    """Note that a recording is there, whatever is known of it."""
    connection.execute(
        "UPDATE recordings SET generation = ? WHERE key = ?", (generation, key)
    )


def _put(
    connection: sqlite3.Connection, entry: Entry, text: str | None, generation: int
) -> None:
    known = connection.execute(
        "SELECT id FROM recordings WHERE key = ?", (entry.key,)
    ).fetchone()
    if known is not None:
        _remove(connection, [known[0]])
    identity = known[0] if known is not None else _free_id(connection, entry)
    values = (
        identity,
        entry.key,
        entry.session,
        entry.conversation,
        entry.participant,
        entry.ani,
        entry.ani_name,
        entry.dnis,
        entry.started_at,
        entry.duration,
        entry.language,
        entry.audio_removed_at,
        entry.transcripts_removed_at,
        entry.complete,
        entry.state,
        "\n".join(entry.texts),
        generation,
    )
    marks = ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO recordings VALUES ({marks})", values)  # noqa: S608 - marks only
    for digits in entry.numbers:
        connection.execute(
            "INSERT OR IGNORE INTO numbers (digits) VALUES (?)", (digits,)
        )
        connection.execute(
            "INSERT INTO uses SELECT id, ? FROM numbers WHERE digits = ?",
            (identity, digits),
        )
    if text is not None:
        connection.execute(
            "INSERT INTO words (rowid, text) VALUES (?, ?)", (identity, text)
        )


def _free_id(connection: sqlite3.Connection, entry: Entry) -> int:
    base = entry.started_ms << ID_BITS
    spread = zlib.crc32(entry.key.encode()) & ((1 << ID_BITS) - 1)
    for step in range(1 << ID_BITS):
        identity = base + (spread + step) % (1 << ID_BITS)
        taken = connection.execute(
            "SELECT 1 FROM recordings WHERE id = ?", (identity,)
        ).fetchone()
        if taken is None:
            return identity
    raise CallIndexError("too many recordings in one millisecond")


def _remove(connection: sqlite3.Connection, identities: Sequence[int]) -> None:
    for identity in identities:
        numbers = connection.execute(
            "SELECT number FROM uses WHERE id = ?", (identity,)
        ).fetchall()
        connection.execute("DELETE FROM uses WHERE id = ?", (identity,))
        for (number,) in numbers:
            connection.execute(
                "DELETE FROM numbers WHERE id = ?"
                " AND NOT EXISTS (SELECT 1 FROM uses WHERE number = ?)",
                (number, number),
            )
        connection.execute("DELETE FROM words WHERE rowid = ?", (identity,))
        connection.execute("DELETE FROM recordings WHERE id = ?", (identity,))
