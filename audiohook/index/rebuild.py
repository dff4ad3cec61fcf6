"""The index made anew, or brought up to date, from what the store holds."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import trio

from audiohook.errors import UploadError
from audiohook.index.entry import Entry, entry_of, spoken
from audiohook.storage.base import ListableStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from audiohook.index.database import Database
    from audiohook.storage.base import Store

T = TypeVar("T")

SUMMARY_NAME: Final = "call.json"
# Requests to the store at a time, beside those of the calls.
_PARALLEL: Final = 4
# Keys that are looked up, and recordings that are written, at a time.
_BATCH: Final = 100
# A call may last for a day, and wait for as long to be stored.
_LOOK_BACK: Final = timedelta(days=2)


class Run(Protocol):
    """Has something done to the database, in a thread."""

    async def __call__(self, work: Callable[[Database], T]) -> T:
        """Return what the work returns."""


@dataclass(slots=True)
class Pass:
    """What going through the store has come to.

    Attributes:
        seen: Recordings that were there.
        taken: Recordings that were read and taken in.
        unreadable: Those whose ``call.json`` is none.
        forgotten: Those that are not there any more.
    """

    seen: int = 0
    taken: int = 0
    unreadable: int = 0
    forgotten: int = 0


async def load(
    store: Store, key: str, summary: bytes | None = None
) -> tuple[Entry, str | None] | None:
    """Read what the index wants of one recording.

    Args:
        store: Where it is.
        key: Of its ``call.json``.
        summary: Its content, if it is known.

    Returns:
        The recording with the words of its transcripts; None if it is not there,
        or not a recording.

    Raises:
        UploadError: The store did not do as asked.
    """
    if summary is None:
        summary = await store.read(key)
    if summary is None:
        return None
    try:
        entry = entry_of(key, summary)
    except ValueError:
        return None
    # Only what is beside it: the JSON may be anybody's.
    keys = [each for each in entry.texts if each.startswith(f"{entry.key}/")]
    texts = [spoken(await store.read(each) or b"") for each in keys]
    return entry, "\n".join(texts) if texts else None


async def catch_up(
    run: Run,
    store: Store,
    prefix: str,
    *,
    whole: bool,
    progress: Callable[[int], None] = lambda _: None,
) -> Pass:
    """Go through the store, and take in what the index has not.

    The first time, and if it is asked for, that is everything; otherwise what
    began not long before the newest recording that is known. No more of the
    store's names are in memory than one page of them.

    Args:
        run: Has something done to the database.
        store: Where recordings are.
        prefix: What their keys begin with.
        whole: Whether to read everything anew, and forget what is gone.
        progress: Told how many recordings there were so far.

    Raises:
        CallIndexError: The index cannot be written.
        UploadError: The store cannot be listed.
    """
    done = Pass()
    if not isinstance(store, ListableStore):
        return done
    everything = whole or not await run(lambda database: database.is_whole())
    after, generation = "", 0
    if everything:
        generation = await run(lambda database: database.begin_pass())
    else:
        newest = await run(lambda database: database.newest_ms())
        after = "" if newest is None else _name_before(newest)
    async with aclosing(store.list_names(prefix, after=after)) as pages:
        async for names in pages:
            for start in range(0, len(names), _BATCH):
                keys = [f"{prefix}{each}" for each in names[start : start + _BATCH]]
                await _take_in(run, store, keys, done, everything=everything)
                progress(done.seen)
    if everything:
        done.forgotten = await run(lambda database: database.end_pass(generation))
    return done


async def _take_in(
    run: Run, store: Store, keys: Sequence[str], done: Pass, *, everything: bool
) -> None:
    done.seen += len(keys)
    known: set[str] = set()
    if not everything:
        known = await run(lambda database: database.settled(keys))
    batch = _Batch(store, [key for key in keys if key not in known])
    async with trio.open_nursery() as nursery:
        for _ in range(_PARALLEL):
            nursery.start_soon(batch.read)
    if batch.fault is not None:
        raise batch.fault
    done.unreadable += batch.unreadable
    done.taken += len(batch.entries)
    if batch.entries:
        await run(lambda database: database.put(batch.entries))


@dataclass(slots=True)
class _Batch:
    """Recordings that are read side by side."""

    store: Store
    keys: list[str]
    entries: list[tuple[Entry, str | None]] = field(default_factory=list)
    unreadable: int = 0
    fault: UploadError | None = None

    async def read(self) -> None:
        while self.keys and self.fault is None:
            key = f"{self.keys.pop()}/{SUMMARY_NAME}"
            try:
                summary = await self.store.read(key)
                if summary is None:
                    # It is stored last: the rest is on its way.
                    continue
                found = await load(self.store, key, summary)
            except UploadError as error:
                self.fault = error
                return
            if found is None:
                self.unreadable += 1
            else:
                self.entries.append(found)


def _name_before(newest_ms: int) -> str:
    """Return a name before which all names are of recordings that are known."""
    moment = datetime.fromtimestamp(newest_ms / 1000, UTC) - _LOOK_BACK
    return f"{moment:%Y-%m-%dT%H-%M-%S}"
