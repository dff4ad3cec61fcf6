"""The index made anew, or brought up to date, from what the store holds."""

from __future__ import annotations

import re
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import trio

from audiohook.errors import UploadError
from audiohook.index.entry import Entry, entry_of, spoken
from audiohook.storage.base import ListableStore
from audiohook.storage.layout import SUMMARY_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from audiohook.index.database import Database
    from audiohook.storage.base import Store

T = TypeVar("T")

# What recordings are called, see `audiohook.storage.summary.recording_name`; whatever
# else lies beside them may hold some.
_NAME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9-]{8}\.[0-9]{3}Z_")
# Parts of a prefix that customConfig may ask for, and of how many others it may.
_DEEPEST: Final = 64
_MOST_PLACES: Final = 1000
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


@dataclass(frozen=True, slots=True)
class Extent:
    """Where recordings are.

    Attributes:
        places: What their keys may begin with, each with a slash at the end.
        is_deep: Whether they may lie deeper than right below those.
    """

    places: Sequence[str]
    is_deep: bool = False


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
    extent: Extent,
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
        extent: Where in it.
        whole: Whether to read everything anew, and forget what is gone.
        progress: Told how many recordings there were so far.

    Raises:
        CallIndexError: The index cannot be written.
        UploadError: The store cannot be listed, or not everywhere; whatever could be
            was taken in, and nothing was forgotten.
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
    walk = _Walk(run, store, extent, done, after, everything=everything)
    fault: UploadError | None = None
    for place in extent.places:
        try:
            await walk.go(place, progress)
        except UploadError as error:
            # A bucket of one API key is not to keep those of others from being found.
            fault = fault or error
    if fault is not None:
        raise fault
    if everything:
        done.forgotten = await run(lambda database: database.end_pass(generation))
    return done


@dataclass(frozen=True, slots=True)
class _Walk:
    """One way through the store."""

    run: Run
    store: ListableStore
    extent: Extent
    done: Pass
    after: str
    everything: bool = field(kw_only=True)

    async def go(self, place: str, progress: Callable[[int], None]) -> None:
        """Take in what lies below a place, and deeper if recordings may."""
        places = [(place, 0)]
        while places:
            place, depth = places.pop()
            deeper: list[str] = []
            async with aclosing(
                self.store.list_names(place, after=self.after)
            ) as pages:
                async for names in pages:
                    found = names
                    if self.extent.is_deep:
                        found = [each for each in names if _NAME.match(each)]
                        deeper += [each for each in names if not _NAME.match(each)]
                    await self._take(place, found, progress)
            if depth < _DEEPEST:
                below = deeper[:_MOST_PLACES]
                places += [(f"{place}{each}/", depth + 1) for each in below]

    async def _take(
        self, place: str, names: Sequence[str], progress: Callable[[int], None]
    ) -> None:
        for start in range(0, len(names), _BATCH):
            keys = [f"{place}{each}" for each in names[start : start + _BATCH]]
            await _take_in(
                self.run, self.store, keys, self.done, everything=self.everything
            )
            progress(self.done.seen)


async def _take_in(
    run: Run, store: Store, keys: Sequence[str], done: Pass, *, everything: bool
) -> None:
    done.seen += len(keys)
    known: set[str] = set()
    if not everything:
        known = await run(lambda database: database.settled(keys))
    wanted = [key for key in keys if key not in known]
    # Somebody may take one in, or note what was removed of it, while it is read.
    before = await run(lambda database: database.marks(wanted))
    batch = _Batch(store, list(wanted))
    async with trio.open_nursery() as nursery:
        for _ in range(_PARALLEL):
            nursery.start_soon(batch.read)
    if batch.fault is not None:
        raise batch.fault
    done.unreadable += batch.unreadable
    done.taken += len(batch.entries)
    if batch.entries:
        await run(lambda database: database.put(batch.entries, before))


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
