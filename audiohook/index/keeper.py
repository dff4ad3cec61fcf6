"""The index as the service has it: off the event loop, and never in a call's way."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from audiohook.errors import CallIndexError, UploadError
from audiohook.index.database import Database
from audiohook.index.rebuild import Extent, Pass, catch_up, load
from audiohook.index.search import Query

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from audiohook.index.entry import Entry
    from audiohook.index.search import Found
    from audiohook.storage.base import Store

T = TypeVar("T")

SECONDS = 1.0
MINUTES = 60 * SECONDS
KIB: Final = 1024
MIB: Final = 1024 * KIB

INDEX_FOLDER: Final = ".index"
"""Name of the index's folder, in that of the spool."""

# What waits to be taken in. What is beyond is found by the next pass.
_MOST_WAITING: Final = 5000
_MOST_WAITING_BYTES: Final = 16 * MIB
_BATCH: Final = 100
_PAUSE: Final = 30 * SECONDS
# When a pass that failed is made again.
_PASS_INTERVAL: Final = 10 * MINUTES
# Start, conversation, participant.
_NAME_PARTS: Final = 3
# A conversation has a handful of recordings.
_MOST_OF_A_NAME: Final = 100
# Questions at a time; each has a connection of its own.
_READERS: Final = 2
# How long whoever is at the file may take when the index closes; after that it stays
# open until the process ends.
_CLOSE_PATIENCE: Final = 5 * SECONDS


@dataclass(frozen=True, slots=True)
class IndexStatistics:
    """How the index does.

    Attributes:
        waiting: Recordings that wait to be taken in.
        failures: Times that its file could not be written.
        building: Whether the store is being gone through.
    """

    waiting: int
    failures: int
    building: bool


class CallIndex:
    """Finds recordings in the store.

    Whatever happens to it, calls are recorded and stored; what it missed it makes
    up for from the store.

    Args:
        folder: Where its file is; made if it is not there.
        store: Where recordings are.
        places: Returns what their keys may begin with.
        is_deep: Whether they may lie deeper than right below such a beginning.
        log: For what an operator must see.
        is_erased: Tells of a recording that it was to be erased, and must not come
            back; it may block.
    """

    def __init__(
        self,
        folder: Path,
        store: Store,
        *,
        places: Callable[[], Sequence[str]],
        is_deep: bool = False,
        log: FilteringBoundLogger,
        is_erased: Callable[[Entry], bool] = lambda _entry: False,
    ) -> None:
        self._store = store
        self._places = places
        self._is_deep = is_deep
        self._log = log
        self._writer = Database(folder, is_erased=is_erased)
        self._writing = trio.CapacityLimiter(1)
        self._readers = [Database(folder) for _ in range(_READERS)]
        self._reading = trio.CapacityLimiter(_READERS)
        self._waiting: OrderedDict[str, bytes | None] = OrderedDict()
        self._waiting_bytes = 0
        self._news = trio.Event()
        self._missed = trio.Event()
        self._failures = 0
        self._building = False
        self._told: set[str] = set()

    def note(self, key: str, summary: bytes) -> None:
        """Take a recording in soon, as it is in the store now.

        Args:
            key: Where its ``call.json`` is.
            summary: Its content.
        """
        known = self._waiting.pop(key, None)
        self._waiting_bytes -= len(known or b"")
        if len(self._waiting) >= _MOST_WAITING:
            self._missed.set()
            return
        # Otherwise it is read from the store again.
        fits = self._waiting_bytes + len(summary) <= _MOST_WAITING_BYTES
        self._waiting[key] = summary if fits else None
        self._waiting_bytes += len(summary) if fits else 0
        self._news.set()

    async def search(self, query: Query, limit: int) -> list[Found]:
        """Find recordings, the newest first.

        Raises:
            CallIndexError: It takes too long, or the file cannot be read.
        """
        return await self._read(lambda database: database.search(query, limit))

    async def by_key(self, key: str) -> Found | None:
        """Return the recording that is stored there; None if there is none.

        Raises:
            CallIndexError: The file cannot be read.
        """
        return await self._read(lambda database: database.by_key(key))

    async def by_name(self, name: str, prefix: str) -> Found | None:
        """Return the recording of a name, wherever it is; None if there is none.

        Args:
            name: See `audiohook.storage.summary.recording_name`.
            prefix: Where most of them are.

        Raises:
            CallIndexError: The file cannot be read.
        """
        found = await self.by_key(f"{prefix}{name}")
        parts = name.split("_")
        if found is not None or len(parts) < _NAME_PARTS:
            return found
        # What goes with its API key, or its customConfig, has it elsewhere.
        query = Query(conversation=parts[1])
        for each in await self.search(query, _MOST_OF_A_NAME):
            if each.entry.key.endswith(f"/{name}"):
                return each
        return None

    async def erase(self, conversation: str, session: str | None = None) -> int:
        """Forget a conversation to the last byte.

        Args:
            conversation: Its id.
            session: Only this session of it.

        Returns:
            How many recordings it had.

        Raises:
            CallIndexError: It could not be done; ask again.
        """
        return await self._write(lambda database: database.erase(conversation, session))

    async def due(
        self, before_ms: int, after: int, limit: int, *, audio: bool, transcripts: bool
    ) -> list[Found]:
        """Return recordings of which something may have been removed by now.

        Args:
            before_ms: That began before, in milliseconds since 1970.
            after: Only those with greater numbers.
            limit: At most so many.
            audio: Those of which the audio is not known to be removed.
            transcripts: Those of which transcripts are not known to be.

        Raises:
            CallIndexError: The file cannot be read.
        """
        return await self._read(
            lambda database: database.due(
                before_ms, after, limit, audio=audio, transcripts=transcripts
            )
        )

    async def mark_removed(
        self, key: str, audio: str | None, transcripts: str | None
    ) -> None:
        """Note when something of a recording was removed; see `Database`.

        Raises:
            CallIndexError: The file cannot be written.
        """
        await self._write(
            lambda database: database.mark_removed(key, audio, transcripts)
        )

    async def forget(self, keys: Collection[str]) -> None:
        """Forget recordings that are gone.

        Raises:
            CallIndexError: The file cannot be written.
        """
        if keys:
            await self._write(lambda database: database.forget(keys))

    async def build(self, progress: Callable[[int], None] = lambda _: None) -> Pass:
        """Go through the whole store, and make the index say what is there.

        Args:
            progress: Told how many recordings there were so far.

        Returns:
            What was found.

        Raises:
            CallIndexError: Its file cannot be written.
            UploadError: The store cannot be listed.
        """
        return await catch_up(
            self._write,
            self._store,
            Extent(self._places(), is_deep=self._is_deep),
            whole=True,
            progress=progress,
        )

    def statistics(self) -> IndexStatistics:
        """Return how the index does."""
        return IndexStatistics(len(self._waiting), self._failures, self._building)

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep the index until cancelled.

        *Cancellation:* What is not taken in is found by the next pass.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._feed)
                nursery.start_soon(self._make_passes)
                task_status.started()
        finally:
            with trio.move_on_after(_CLOSE_PATIENCE, shield=True):
                await self._close_when_unused()

    async def _close_when_unused(self) -> None:
        """Closes the file once nobody is at it in a thread.

        SQLite takes the memory from under whoever still is, and the process dies. Who
        was cancelled in the middle of something waits for his thread, too.
        """
        users = [(self._writing, object())]
        users += [(self._reading, object()) for _ in range(_READERS)]
        taken = []
        try:
            for limiter, borrower in users:
                await limiter.acquire_on_behalf_of(borrower)
                taken.append((limiter, borrower))
            self.close()
        finally:
            for limiter, borrower in taken:
                limiter.release_on_behalf_of(borrower)

    def close(self) -> None:
        """Close the file; to be called when nobody uses it any more."""
        for database in (self._writer, *self._readers):
            database.close()

    # What is stored while we run

    async def _feed(self) -> None:
        while True:
            await self._news.wait()
            self._news = trio.Event()
            while self._waiting:
                batch = [
                    self._waiting.popitem(last=False)
                    for _ in range(min(_BATCH, len(self._waiting)))
                ]
                self._waiting_bytes = sum(
                    len(each or b"") for each in self._waiting.values()
                )
                try:
                    await self._take_in(batch)
                except (CallIndexError, UploadError) as error:
                    self._complain("feed", error)
                    self._missed.set()
                    await trio.sleep(_PAUSE)
                except Exception:  # noqa: BLE001 - the edge: it must not cost a call
                    self._log.exception("index_failed")
                    self._missed.set()
                    await trio.sleep(_PAUSE)
                else:
                    self._told.discard("feed")

    async def _take_in(self, batch: list[tuple[str, bytes | None]]) -> None:
        loaded = [await load(self._store, key, data) for key, data in batch]
        entries = [each for each in loaded if each is not None]
        await self._write(lambda database: database.put(entries))

    # What was stored while nobody took note

    async def _make_passes(self) -> None:
        while True:
            self._missed = trio.Event()
            passes = False
            try:
                await self._make_pass()
            except (CallIndexError, UploadError) as error:
                self._complain("pass", error)
                # A role may be for writing only; that does not pass by itself.
                passes = not isinstance(error, UploadError) or error.retryable
            except Exception:  # noqa: BLE001 - the edge: it must not cost a call
                self._log.exception("index_failed")
                passes = True
            finally:
                self._building = False
            if passes:
                await trio.sleep(_PASS_INTERVAL)
            else:
                await self._missed.wait()
                await trio.sleep(_PAUSE)

    async def _make_pass(self) -> None:
        self._building = True
        extent = Extent(self._places(), is_deep=self._is_deep)
        done = await catch_up(self._write, self._store, extent, whole=False)
        self._told.discard("pass")
        if done.taken or done.forgotten:
            self._log.info(
                "index_caught_up",
                taken=done.taken,
                forgotten=done.forgotten,
                unreadable=done.unreadable,
            )

    def _complain(self, work: str, error: CallIndexError | UploadError) -> None:
        self._failures += 1
        if work not in self._told:
            self._told.add(work)
            self._log.warning(
                "index_behind",
                error=str(error),
                mend="recordings are stored; run `audiohook index` once this is mended",
            )

    # Threads

    async def _read(self, work: Callable[[Database], T]) -> T:
        async with self._reading:
            database = self._readers.pop()
            try:
                return await self._run(database, work)
            finally:
                self._readers.append(database)

    async def _write(self, work: Callable[[Database], T]) -> T:
        async with self._writing:
            return await self._run(self._writer, work)

    async def _run(self, database: Database, work: Callable[[Database], T]) -> T:
        # Nobody waits for these: the limiters above let no more in.
        threads = trio.CapacityLimiter(1)
        try:
            return await trio.to_thread.run_sync(
                partial(work, database), limiter=threads
            )
        except CallIndexError as error:
            if not error.damaged:
                raise
            self._log.error(
                "index_damaged", mend="it is set aside, and made anew from the store"
            )
            await trio.to_thread.run_sync(database.set_aside, limiter=threads)
            self._missed.set()
            # An empty one cannot be damaged; if it is, that is the disk's fault.
            return await trio.to_thread.run_sync(
                partial(work, database), limiter=threads
            )
