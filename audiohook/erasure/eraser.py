"""Carries out orders of erasure, each until nothing is left or nobody can do more.

One round after the other, see `audiohook.erasure.round`, with pauses between them as
long as something is left. Some minutes after nothing was left there is a last look,
since somebody elsewhere may have been in the middle of something.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import trio

from audiohook.erasure import local
from audiohook.erasure.ledger import ErasureRecord
from audiohook.erasure.order import (
    Counts,
    Ordered,
    Waits,
    Wanted,
    check_id,
)
from audiohook.erasure.round import Rounds, WaitError
from audiohook.errors import (
    CallIndexError,
    ErasureError,
    OutboxError,
    SpoolError,
    TranscriptError,
    UploadError,
)
from audiohook.recording.journal import utc_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from audiohook.erasure.account import Account
    from audiohook.erasure.ledger import Ledger, Work
    from audiohook.erasure.order import OrderFact, OrderRecord
    from audiohook.erasure.places import Place
    from audiohook.erasure.round import EventHold, IndexHold, Teller

T = TypeVar("T")

SECONDS = 1.0
MINUTES = 60 * SECONDS
HOURS = 60 * MINUTES

LAST_LOOK: Final = 10 * MINUTES
"""So long after nothing was found any more it is looked for once again.

Who has a job in hand elsewhere learns within a minute that its object is gone.
"""

# How often orders are looked for, of which other processes may have taken one.
_INTERVAL: Final = 2 * SECONDS
_PARALLEL: Final = 4
# Until a round is made again, after something that passes: this, then longer.
_FIRST_PAUSE: Final = 1 * SECONDS
_LONGEST_PAUSE: Final = 5 * MINUTES
# After something that somebody has to mend, or a lock.
_MENDING: Final = 1 * HOURS

_FAULTS: Final = (
    CallIndexError,
    OutboxError,
    SpoolError,
    TranscriptError,
    UploadError,
)


class Holdings(Protocol):
    """What this very process has in hand, see `audiohook.erasure.holdings`."""

    async def give_up(
        self, wanted: Wanted, note: Callable[[list[OrderFact]], object], *, end: str
    ) -> None:
        """Give up calls that are meant, and end live ones.

        Args:
            wanted: Which.
            note: Writes down what is known of a call before it is removed; blocks.
            end: In whose name live calls are ended; empty if they are not.
        """


@dataclass(frozen=True, slots=True)
class Standing:
    """How an order stands.

    Attributes:
        reference: Its hash.
        done: Whether nothing was found any more.
        asked_at: When it was asked for, in UTC.
        done_at: When nothing was found any more.
        counts: What was found and removed so far.
        waits_for: What keeps it from being done, for a person.
        kept: What could not be removed, a line each.
    """

    reference: str
    done: bool
    asked_at: str
    done_at: str | None
    counts: Counts
    waits_for: str | None
    kept: tuple[str, ...]


class Eraser:
    """Carries out orders of erasure.

    Args:
        ledger: Orders and records.
        spool: The spool's folder.
        places: Returns all that recordings may be in.
        index: Has to forget.
        account: At the transcription service; None without a key.
        log: For lines that name no conversation.
        holdings: What this process has in hand, if it is the service.
        teller: Tells of each order that is done, if anybody wants to know.
        events: What Genesys has told; has to forget, too.
        clock: Unix time in seconds.
        last_look: Seconds until the last look.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        spool: Path,
        places: Callable[[], Sequence[Place]],
        index: IndexHold,
        account: Account | None,
        log: FilteringBoundLogger,
        holdings: Holdings | None = None,
        teller: Teller | None = None,
        events: EventHold | None = None,
        clock: Callable[[], float] = time.time,
        last_look: float = LAST_LOOK,
    ) -> None:
        self._ledger = ledger
        self._spool = spool
        self._log = log
        self._holdings = holdings
        self._teller = teller
        self._clock = clock
        self._last_look = last_look
        self._threads = trio.CapacityLimiter(2)
        self._rounds = Rounds(
            spool=spool,
            places=places,
            index=index,
            account=account,
            teller=teller,
            events=events,
            threads=self._threads,
        )
        self._slots = trio.CapacityLimiter(_PARALLEL)
        self._busy: set[str] = set()
        self._pauses: dict[str, float] = {}
        self._due: dict[str, float] = {}
        # Nothing was found any more; they wait for their last look, unless somebody
        # asks for them once more in another process.
        self._resting: dict[str, int] = {}
        self._news = trio.Event()

    async def order(
        self, conversation: str, session: str | None = None, *, by: str, end: bool
    ) -> str:
        """Take an order; when this returns it is carried out, whatever happens.

        Args:
            conversation: What is to be erased,
            session: or which session of it.
            by: Who asks: the name of a token, or of the command.
            end: Whether a live call is to be ended for it.

        Returns:
            Its reference.

        Raises:
            ErasureError: The call is live, the id is none, or the disk refused.
        """
        if not check_id(conversation):
            raise ErasureError("that is no id of a conversation")
        ordered = Ordered(conversation, session, utc_text(self._clock()), by, end=end)

        def take() -> str:
            wanted = _wanted(ordered)
            if not end and local.look(self._spool, wanted).live:
                raise ErasureError("the call is live", live=True)
            return self._ledger.order(ordered)

        reference = await self._blocking(take)
        self._due.pop(reference, None)
        self._pauses.pop(reference, None)
        self._resting.pop(reference, None)
        self._log.info("erasure_ordered", reference=reference, by=by)
        self._news.set()
        return reference

    async def standing(self, reference: str) -> Standing | None:
        """Tell how an order stands; None if there never was one.

        Raises:
            ErasureError: The disk refused.
        """

        def look() -> Standing | None:
            record = self._ledger.look(reference)
            if record is not None:
                return _standing(reference, record)
            for done in reversed(self._ledger.records()):
                if done.reference == reference:
                    return Standing(
                        reference,
                        True,
                        done.asked_at,
                        done.done_at,
                        done.counts,
                        None,
                        (),
                    )
            return None

        return await self._blocking(look)

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Carries out orders until cancelled.

        *Cancellation:* Whoever is next goes on.
        """
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                self._news = trio.Event()
                try:
                    await self._wake_stirred()
                    pending = await self._blocking(self._ledger.pending)
                    for reference in pending:
                        if reference not in self._resting or self._is_due(reference):
                            await self._give_up(reference)
                            self._start(nursery, reference)
                except ErasureError as error:
                    self._log.error("erasure_fails", error=str(error))
                with trio.move_on_after(_INTERVAL):
                    await self._news.wait()

    async def pursue(self, reference: str) -> Standing | None:
        """Carries one order out as far as that goes now, without a service.

        Returns:
            How it stands when it is done, or waits for somebody to mend something.

        Raises:
            ErasureError: The disk refused.

        *Cancellation:* Whoever is next goes on.
        """
        while True:
            await self._give_up(reference)
            await self._attempt(reference)
            standing = await self.standing(reference)
            due = self._due.get(reference, 0.0)
            if standing is None or standing.done:
                return standing
            if due - trio.current_time() > _LONGEST_PAUSE:
                return standing
            pause = due - trio.current_time()
            await trio.sleep(min(max(pause, _FIRST_PAUSE / 4), _INTERVAL))

    # Rounds

    def _start(self, nursery: trio.Nursery, reference: str) -> None:
        if self._is_due(reference) and reference not in self._busy:
            self._busy.add(reference)
            nursery.start_soon(self._attempt_in_turn, reference)

    async def _wake_stirred(self) -> None:
        """Have orders gone on with that were asked for once more."""
        stirred = await self._blocking(self._ledger.stirred, dict(self._resting))
        for reference, mark in stirred.items():
            before = self._resting.get(reference)
            if before == 0:
                self._resting[reference] = mark
                record = await self._blocking(self._ledger.look, reference)
                if record is None or record.verified is not None:
                    continue
                # That was before it was looked at for the first time.
            if self._resting.pop(reference, None) is not None:
                self._due.pop(reference, None)

    def _is_due(self, reference: str) -> bool:
        return self._due.get(reference, 0.0) <= trio.current_time()

    async def _attempt_in_turn(self, reference: str) -> None:
        try:
            async with self._slots:
                await self._attempt(reference)
        except Exception as error:  # noqa: BLE001 - the edge: calls must not notice
            known = isinstance(error, ErasureError)
            self._log.error(
                "erasure_fails",
                reference=reference,
                error=str(error) if known else "unexpected failure",
                exc_info=None if known else error,
            )
            self._due[reference] = trio.current_time() + _LONGEST_PAUSE
        finally:
            self._busy.discard(reference)

    async def _attempt(self, reference: str) -> None:
        """Make a round, if nobody else is at it and it is time."""
        if not self._is_due(reference):
            return
        work = await self._blocking(self._ledger.take, reference)
        if work is None:
            return
        try:
            await self._advance(work)
        finally:
            work.close()

    async def _advance(self, work: Work) -> None:
        """Make a round, and decide when there is to be another."""
        reference = work.reference
        if work.record.verified is not None:
            left = self._last_look - (self._clock() - _epoch(work.record.verified))
            if left > 0:
                self._rest(reference, left)
                return
        is_last = work.record.verified is not None
        try:
            await self._rounds.make(work)
        except _FAULTS as error:
            mending = not getattr(error, "retryable", True)
            await self._wait(work, WaitError(str(error), mending=mending))
        except WaitError as error:
            await self._wait(work, error)
        else:
            await self._done(work, is_last=is_last)

    async def _wait(self, work: Work, error: WaitError) -> None:
        pause = self._pauses.get(work.reference, _FIRST_PAUSE)
        if work.progressed:
            pause = _FIRST_PAUSE
        self._pauses[work.reference] = min(2 * pause, _LONGEST_PAUSE)
        if error.mending:
            pause = _MENDING
        self._due[work.reference] = trio.current_time() + pause
        waits = Waits(error.why, error.kept)
        if waits != work.record.waits:
            self._log.warning(
                "erasure_waits",
                reference=work.reference,
                why=error.why,
                kept=len(error.kept),
                again_in=pause,
            )
            await self._note(work, waits)

    async def _done(self, work: Work, *, is_last: bool) -> None:
        self._pauses.pop(work.reference, None)
        if work.record.verified is None:
            # It was asked for once more as the round began, and rests anew.
            is_last = False
            at = utc_text(self._clock())
            if self._teller is not None:
                # Before it counts as done, or a crash could leave it untold.
                ordered, counts = work.record.ordered, work.record.counts
                told = ErasureRecord(work.reference, ordered.at, ordered.by, at, counts)
                await self._teller.tell(work.record.wanted, told)
            if not await self._blocking(work.verify, at):
                await self._wait(work, WaitError("more of it has turned up"))
                return
        record = await self._blocking(self._ledger.finish, work)
        if not is_last:
            self._log.info("erasure_done", reference=work.reference, by=record.by)
            self._rest(work.reference, self._last_look)
        elif await self._blocking(work.remove):
            self._due.pop(work.reference, None)
            self._resting.pop(work.reference, None)

    def _rest(self, reference: str, seconds: float) -> None:
        self._due[reference] = trio.current_time() + seconds
        self._resting[reference] = 0

    async def _give_up(self, reference: str) -> None:
        """Have this process give up what it has in hand."""
        if self._holdings is None:
            return
        record = await self._blocking(self._ledger.look, reference)
        if record is not None:
            await self._holdings.give_up(
                record.wanted,
                partial(self._ledger.note, reference),
                end=record.ordered.by if record.ordered.end else "",
            )

    async def _note(self, work: Work, *facts: OrderFact) -> None:
        if facts:
            await self._blocking(work.note, *facts)

    async def _blocking(self, work: Callable[..., T], *values: object) -> T:
        return await trio.to_thread.run_sync(
            partial(work, *values), limiter=self._threads
        )


def _wanted(ordered: Ordered) -> Wanted:
    return Wanted(ordered.conversation, ordered.session, ordered.at)


def _standing(reference: str, record: OrderRecord) -> Standing:
    return Standing(
        reference=reference,
        done=record.verified is not None,
        asked_at=record.ordered.at,
        done_at=record.verified,
        counts=record.counts,
        waits_for=record.waits.why or None,
        kept=record.waits.kept,
    )


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
