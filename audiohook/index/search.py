"""Questions to the index, and how each is answered soonest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from audiohook.index.entry import Entry, RecordingState, number_key, words_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

# Up to so many that one condition leaves are looked at one by one.
_FEW: Final = 200
_MOST_NUMBERS: Final = 500
_MOST_WORDS: Final = 16
# Before a star; one letter would be the beginning of every other word.
_LEAST_BEGINNING: Final = 2

ID_BITS: Final = 12
"""Room for recordings that begin in the same millisecond."""

COLUMNS: Final = (
    "key, session, conversation, participant, ani, ani_name, dnis, started_at,"
    " duration, language, audio_removed_at, transcripts_removed_at, complete, state,"
    " texts"
)
"""What is read of a recording, but for its number."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for; all that is given must hold.

    Attributes:
        conversation: Its conversation.
        participant: Its participant.
        number: Calling or called number, or the end of one.
        since_ms: Not earlier than that, in milliseconds since 1970.
        until_ms: Earlier than that.
        text: Words of its transcript; one may end in a star.
        before: Only what is older than the recording of that number.
    """

    conversation: str | None = None
    participant: str | None = None
    number: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    text: str | None = None
    before: int | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A recording that was found.

    Attributes:
        id: Its number; greater for a later one.
        entry: What is known of it.
    """

    id: int
    entry: Entry


class Search:
    """One question, brought into the form in which it is answered soonest.

    Args:
        connection: To the index.
        query: The question.
        has_fts: Whether text is found by words.
    """

    def __init__(
        self, connection: sqlite3.Connection, query: Query, *, has_fts: bool
    ) -> None:
        self._connection = connection
        self._has_fts = has_fts
        self._query = query
        self._match = "" if query.text is None else _match(query.text)
        upper = [
            each
            for each in (
                query.before,
                None if query.until_ms is None else query.until_ms << ID_BITS,
            )
            if each is not None
        ]
        self._below = min(upper, default=2**63 - 1)
        self._from = 0 if query.since_ms is None else query.since_ms << ID_BITS
        # Conditions on the recording, and what goes into their marks.
        self._where: list[str] = []
        self._values: list[object] = []
        self._numbers: list[int] | None = None

    def run(self, limit: int) -> list[Found]:
        """Return what was found, the newest first, at most `limit`."""
        query = self._query
        if query.text is not None and not self._match:
            return []
        for name in ("conversation", "participant"):
            value = getattr(query, name)
            if value is not None:
                self._where.append(f"r.{name} = ?")
                self._values.append(value)
        if query.number is not None:
            self._numbers = self._numbers_like(query.number)
            if not self._numbers:
                return []
        if query.text is None:
            return self._by_key(limit)
        if self._where or self._numbers:
            few = self._candidates(_FEW + 1)
            if len(few) <= _FEW:
                return self._fetch(self._with_text(few)[:limit])
        return self._by_text(limit)

    def _numbers_like(self, number: str) -> list[int]:
        key = number_key(number)
        if not key:
            return []
        # Digits come last first, so that what ends alike begins alike.
        last = key if key.startswith("@") else f"{key}:"
        condition = (
            "digits = ?" if key.startswith("@") else "digits >= ? AND digits < ?"
        )
        values = (key,) if key.startswith("@") else (key, last)
        rows = self._connection.execute(
            f"SELECT id FROM numbers WHERE {condition} LIMIT {_MOST_NUMBERS}",  # noqa: S608 - no input in it
            values,
        )
        return [each for (each,) in rows]

    def _by_key(self, limit: int) -> list[Found]:
        if self._where or self._numbers is None:
            where: list[str] = []
            values: list[object] = []
            self._add_numbers(where, values)
            return self._select("recordings r", "r.id", where, values, limit)
        # Each number's in their order, where nothing has to be sorted but the ends.
        tables = "uses u CROSS JOIN recordings r ON r.id = u.id"
        found: dict[int, Found] = {}
        for number in self._numbers:
            page = self._select(tables, "u.id", ["u.number = ?"], [number], limit)
            found |= {each.id: each for each in page}
        newest = sorted(found.values(), key=lambda each: each.id, reverse=True)
        return newest[:limit]

    def _by_text(self, limit: int) -> list[Found]:
        where, values = self._text_condition("w")
        self._add_numbers(where, values)
        tables = "words w CROSS JOIN recordings r ON r.id = w.rowid"
        return self._select(tables, "w.rowid", where, values, limit)

    def _add_numbers(self, where: list[str], values: list[object]) -> None:
        if self._numbers is not None:
            marks = ", ".join("?" * len(self._numbers))
            where.append(
                "EXISTS (SELECT 1 FROM uses x"  # noqa: S608 - marks only
                f" WHERE x.id = r.id AND x.number IN ({marks}))"
            )
            values += self._numbers

    def _select(
        self,
        tables: str,
        identity: str,
        where: Sequence[str],
        values: Sequence[object],
        limit: int,
    ) -> list[Found]:
        columns = ", ".join(f"r.{each}" for each in COLUMNS.split(", "))
        conditions = [
            *where,
            f"{identity} >= ?",
            f"{identity} < ?",
            *self._where,
        ]
        rows = self._connection.execute(
            f"SELECT r.id, {columns} FROM {tables}"  # noqa: S608 - no input in it
            f" WHERE {' AND '.join(conditions)} ORDER BY {identity} DESC LIMIT ?",
            [*values, self._from, self._below, *self._values, limit],
        )
        return [found(row) for row in rows]

    def _text_condition(self, table: str) -> tuple[list[str], list[object]]:
        if self._has_fts:
            return ["words MATCH ?"], [self._match]
        patterns = [_pattern(word) for word in words_of(self._query.text or "")]
        return [f"{table}.text LIKE ? ESCAPE '\\'"] * len(patterns), [*patterns]

    def _candidates(self, limit: int) -> list[int]:
        """Return what all but the text would find, by their numbers alone."""
        bounds = (self._from, self._below, limit)
        if self._where:
            conditions, values = [*self._where], [*self._values]
            self._add_numbers(conditions, values)
            rows = self._connection.execute(
                "SELECT r.id FROM recordings r"  # noqa: S608 - no input in it
                f" WHERE {' AND '.join(conditions)} AND r.id >= ? AND r.id < ?"
                " ORDER BY r.id DESC LIMIT ?",
                [*values, *bounds],
            )
            return [each for (each,) in rows]
        ids: set[int] = set()
        for number in self._numbers or ():
            rows = self._connection.execute(
                "SELECT id FROM uses WHERE number = ? AND id >= ? AND id < ?"
                " ORDER BY id DESC LIMIT ?",
                (number, *bounds),
            )
            ids |= {each for (each,) in rows}
            if len(ids) >= limit:
                break
        return sorted(ids, reverse=True)

    def _with_text(self, candidates: Sequence[int]) -> list[int]:
        """Keep those whose transcripts have the words."""
        where, values = self._text_condition("words")
        kept = []
        for each in candidates:
            row = self._connection.execute(
                f"SELECT 1 FROM words WHERE {' AND '.join(where)} AND rowid = ?",  # noqa: S608 - no input in it
                [*values, each],
            ).fetchone()
            if row is not None:
                kept.append(each)
        return kept

    def _fetch(self, identities: Sequence[int]) -> list[Found]:
        rows = (
            self._connection.execute(
                f"SELECT id, {COLUMNS} FROM recordings WHERE id = ?",  # noqa: S608 - no input in it
                (each,),
            ).fetchone()
            for each in identities
        )
        return [found(row) for row in rows if row is not None]


def found(row: Sequence[object]) -> Found:
    """Make a recording of a row: its number, and then `COLUMNS`."""
    identity, *values, complete, state, texts = row
    names = [each.strip() for each in COLUMNS.split(",")][: len(values)]
    fields = dict(zip(names, values, strict=True))
    keys = tuple(str(texts).split("\n")) if texts else ()
    entry = Entry(
        **fields,  # type: ignore[arg-type]  # SQLite's rows have no types
        complete=bool(complete),
        state=RecordingState(str(state)),
        texts=keys,
    )
    return Found(int(str(identity)), entry)


def _match(text: str) -> str:
    """Write what somebody looks for as FTS5 has it: each word quoted, all of them."""
    words = words_of(text)[:_MOST_WORDS]
    parts = []
    for word in words:
        bare = word.rstrip("*").replace('"', '""')
        # A phrase without a letter or digit would match nothing at all.
        if any(each.isalnum() for each in bare):
            begins = word.endswith("*") and len(bare) >= _LEAST_BEGINNING
            parts.append(f'"{bare}"{"*" if begins else ""}')
    return " ".join(parts)


def _pattern(word: str) -> str:
    bare = word.rstrip("*")
    for each in ("\\", "%", "_"):
        bare = bare.replace(each, f"\\{each}")
    return f"%{bare}%"
