"""The outbox: what is to be told, on the local disk until it is.

Whoever has something to tell either notes it and goes on (`Outbox.note`), or waits
until it is on disk (`Outbox.record`) before he does what cannot be undone. All that
is asked for while one group is being written makes up the next.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from audiohook.errors import OutboxError
from audiohook.logs import Limiter
from audiohook.notify.database import Database
from audiohook.notify.event import Event, Kind, plain_id
from audiohook.notify.letter import Counts, Letter, Settlement
from audiohook.recording.journal import utc_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

T = TypeVar("T")

SECONDS = 1.0
MINUTES = 60 * SECONDS

OUTBOX_FOLDER: Final = ".notify"
"""Name of the outbox's folder, in that of the spool."""

# How long something may wait for company.
_LINGER: Final = 0.05 * SECONDS
# How often a disk that refused is tried again.
_RETRY_INTERVAL: Final = 1 * SECONDS
# How long a call waits for a disk that refuses; it must not be kept in the spool, and
# fill the disk, only because nobody can be told of it.
_PATIENCE: Final = 10 * SECONDS
# What waits to be written; a call has three or four. What is beyond is lost.
_MOST_UNWRITTEN: Final = 50_000
# How long the last group may take when the outbox closes.
_STOP_PATIENCE: Final = 10 * SECONDS
_COUNT_INTERVAL: Final = 1 * SECONDS


@dataclass(eq=False, slots=True)
class _Order:
    """Something to be written.

    Attributes:
        letter: A notification, or
        settlement: what has come of one.
        done: Set once it is on disk, or was forgotten.
    """

    letter: Letter | None
    settlement: Settlement | None
    done: trio.Event


class Outbox:
    """Keeps what is to be told until it is.

    Args:
        folder: Where its file is; made if it is not there.
        source: Where the keys of all events are.
        log: For what an operator must see.
        kinds: What is told; the rest is not taken.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        folder: Path,
        *,
        source: str,
        log: FilteringBoundLogger,
        kinds: Collection[Kind] = tuple(Kind),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.clock = clock
        self._database = Database(folder)
        self._source = source
        self._log = log
        self._noise = Limiter(log)
        self._kinds = frozenset(kinds)
        self._writing = trio.CapacityLimiter(1)
        self._threads = trio.CapacityLimiter(1)
        self._orders: list[_Order] = []
        self._work = trio.Event()
        self._changed = trio.Event()
        self._is_stuck = False
        self._lost = 0
        self._counted = Counts(0, 0, None)
        self._counted_at = float("-inf")

    # What calls do

    def note(
        self,
        kind: Kind,
        *,
        conversation: str,
        session: str = "",
        data: Mapping[str, object] | None = None,
        about: str = "",
        at: str | None = None,
    ) -> None:
        """Has something told, once it is on disk; that takes a moment.

        To note the same again changes nothing.

        Args:
            kind: What has happened.
            conversation: To which conversation.
            session: To which session; empty for all of the conversation.
            data: What else there is to say.
            about: Tells it from others of its kind in the same session.
            at: When, in UTC, see `audiohook.recording.journal.utc_text`; now if not
                given.
        """
        if kind in self._kinds:
            time_text = at or utc_text(self.clock())
            self._take(Event(kind, conversation, session, time_text, data or {}, about))

    async def record(
        self,
        kind: Kind,
        *,
        conversation: str,
        session: str = "",
        data: Mapping[str, object] | None = None,
        about: str = "",
        at: str | None = None,
    ) -> None:
        """Has something told, see `note`, and waits until that is on disk.

        A disk that refuses is not waited for without end: an error in the log says
        that it is told only if this process lives on.

        *Cancellation:* It is told nevertheless.
        """
        if kind not in self._kinds:
            await trio.lowlevel.checkpoint()
            return
        time_text = at or utc_text(self.clock())
        event = Event(kind, conversation, session, time_text, data or {}, about)
        done = self._take(event)
        with trio.move_on_after(_PATIENCE):
            await done.wait()
        if not done.is_set():
            self._noise.write(
                logging.ERROR,
                "notification_not_on_disk",
                notification=event.id,
                kind=str(kind),
                mend="it is kept in memory, and lost if this process is killed",
            )

    async def erase(self, conversation: str) -> int:
        """Forgets all that is told of a conversation, also what was not sent yet.

        Returns:
            How many notifications these were.

        Raises:
            OutboxError: It could not be done; ask again.
        """
        conversation = plain_id(conversation)
        self._drop(conversation)
        erased = await self.ask(lambda database: database.erase(conversation))
        # What was being written, and was refused by the disk, waits here again.
        self._drop(conversation)
        return erased

    # What the sender does

    def settle(self, settlement: Settlement) -> trio.Event:
        """Notes what has come of a try.

        Returns:
            What is set once that is on disk.
        """
        return self._order(_Order(None, settlement, trio.Event()))

    async def ask(self, work: Callable[[Database], T]) -> T:
        """Does something with the file, in a thread.

        Raises:
            OutboxError: It could not be done.
        """
        async with self._writing:
            return await trio.to_thread.run_sync(
                work, self._database, limiter=self._threads
            )

    @property
    def changed(self) -> trio.Event:
        """What is set once something new is on disk, from now on."""
        return self._changed

    def wake(self) -> None:
        """Has those look again who wait for something new."""
        self._changed.set()
        self._changed = trio.Event()

    @property
    def counts(self) -> Counts:
        """How many there are, as was counted a second ago at most if any come."""
        return self._counted

    @property
    def lost(self) -> int:
        """How many were never on disk, as that refused for too long."""
        return self._lost

    async def count(self) -> None:
        """Counts anew, unless that was done a moment ago.

        Raises:
            OutboxError: The file cannot be read.
        """
        now = trio.current_time()
        if now - self._counted_at >= _COUNT_INTERVAL:
            self._counted_at = now
            self._counted = await self.ask(Database.counts)

    async def flush(self) -> None:
        """Waits until all that was noted so far is on disk."""
        if self._orders:
            await self._orders[-1].done.wait()

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Writes until cancelled; must outlive those who have something to tell.

        *Cancellation:* What was noted is written.
        """
        try:
            task_status.started()
            while True:
                await self._work.wait()
                await trio.sleep(_LINGER)
                await self._write_group()
        finally:
            with trio.move_on_after(_STOP_PATIENCE, shield=True):
                await self._write_group()
            with trio.move_on_after(_STOP_PATIENCE, shield=True):
                await self.ask(Database.close)

    # How it is written

    def _take(self, event: Event) -> trio.Event:
        letter = Letter(
            event.id,
            event.stream,
            event.kind,
            plain_id(event.conversation),
            event.body(self._source),
            since=self.clock(),
        )
        return self._order(_Order(letter, None, trio.Event()))

    def _order(self, order: _Order) -> trio.Event:
        if len(self._orders) >= _MOST_UNWRITTEN:
            dropped = self._orders.pop(0)
            if dropped.letter is not None:
                self._lost += 1
                self._noise.write(
                    logging.ERROR,
                    "notification_lost",
                    notification=dropped.letter.id,
                    kind=dropped.letter.kind,
                    mend="the disk of the spool refuses for too long",
                )
        self._orders.append(order)
        self._work.set()
        return order.done

    def _drop(self, conversation: str) -> None:
        """Forgets what is to be written of a conversation; nobody waits for it then."""
        kept = []
        for order in self._orders:
            if order.letter is not None and order.letter.conversation == conversation:
                order.done.set()
            else:
                kept.append(order)
        self._orders = kept

    async def _write_group(self) -> None:
        """Writes all that was asked for; what the disk refuses waits for its turn."""
        self._work = trio.Event()
        orders, self._orders = self._orders, []
        if not orders:
            return
        letters = [each.letter for each in orders if each.letter is not None]
        settled = [each.settlement for each in orders if each.settlement is not None]
        try:
            with trio.move_on_after(_STOP_PATIENCE, shield=True):
                await self.ask(lambda database: database.change(letters, settled))
        except OutboxError as error:
            self._orders = orders + self._orders
            await self._complain(error)
            return
        if self._is_stuck:
            self._is_stuck = False
            self._log.info("outbox_works_again")
        for order in orders:
            order.done.set()
        self.wake()

    async def _complain(self, error: OutboxError) -> None:
        if not self._is_stuck:
            self._is_stuck = True
            self._log.error("outbox_refuses", error=str(error))
        if error.damaged:
            self._log.error(
                "outbox_damaged",
                mend="it is set aside, and what waited in it is not sent",
            )
            try:
                await self.ask(Database.set_aside)
            except OutboxError as again:
                self._log.error("outbox_refuses", error=str(again))
        self._work.set()
        await trio.sleep(_RETRY_INTERVAL)
