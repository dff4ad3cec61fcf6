"""When each call is brought to the store, and when it is tried again."""

from __future__ import annotations

import heapq
import itertools
import logging
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from audiohook.breaker import Breaker
from audiohook.errors import SpoolError, UploadError
from audiohook.logs import Limiter
from audiohook.storage.base import is_stores_own

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

    from audiohook.metrics import Metrics
    from audiohook.recording.spooled import SpooledCall
    from audiohook.storage.upload import CallUpload, Uploader

SECONDS = 1.0
MINUTES = 60 * SECONDS

_FIRST_PAUSE: Final = 1 * SECONDS
_LONGEST_PAUSE: Final = 5 * MINUTES
# Calls at a time. Each may hold a few parts in memory, and rendering keeps a core
# busy.
_PARALLEL: Final = 8
# Of these, live calls; so that one that ends need not wait for a part of another.
_LIVE_PARALLEL: Final = 6
# Each waiting call keeps a file open. Those beyond wait in the spool alone.
_HELD_LIMIT: Final = 1000
# A part of 5 MiB takes minutes to fill.
_LIVE_INTERVAL: Final = 5 * SECONDS
# How often one failure of the store is told.
_TELL_INTERVAL: Final = 1 * MINUTES


@dataclass(frozen=True, slots=True)
class DeliveryStatistics:
    """How the deliveries stand.

    Attributes:
        waiting: Sealed calls that wait for their first try or their next.
        active: Calls of which something is being stored now.
        stored: Calls stored so far.
        failures: Tries that failed so far.
        fault: Why the store is not used, but for trials; None if it is.
    """

    waiting: int
    active: int
    stored: int
    failures: int
    fault: str | None


@dataclass(frozen=True, slots=True)
class WaitingDelivery:
    """A call on its way to the store.

    Attributes:
        call: It.
        tries: Tries in a row that failed.
        error: Why the last one did; None if none did.
        due: When it is tried next, in seconds of Trio's clock; None if it is only
            waiting for its turn.
    """

    call: SpooledCall
    tries: int
    error: Exception | None
    due: float | None


@dataclass(eq=False, slots=True)
class _Entry:
    """A call that is known here.

    Attributes:
        call: It.
        order: Breaks ties.
        settled_bytes: What `Deliveries.watch` was given.
        upload: Brings it to the store.
        is_sealed: Whether it is on disk whole.
        is_busy: Whether a task is at it.
        is_queued: Whether it is live and waits to send a part.
        is_fresh: Whether it is sealed and was never tried since.
        progressed: Whether the store has confirmed anything in this try.
        tries: Tries in a row that failed.
        error: Why the last one did.
        due: When a live call may be tried again.
    """

    call: SpooledCall
    order: int
    settled_bytes: Callable[[], int] = lambda: 0
    upload: CallUpload = field(init=False)
    is_sealed: bool = False
    is_busy: bool = False
    is_queued: bool = False
    is_fresh: bool = False
    progressed: bool = False
    tries: int = 0
    error: Exception | None = None
    due: float = 0.0

    @property
    def is_apart(self) -> bool:
        """Whether it goes to a bucket of its API key, whose faults are its own."""
        own = self.call.record.opened.settings
        return own is not None and own.bucket is not None

    @property
    def age(self) -> tuple[str, int, _Entry]:
        """Sorts the oldest call first."""
        return self.call.record.opened.started_at, self.order, self


_ByAge: TypeAlias = tuple[str, int, _Entry]


class Deliveries:
    """Brings sealed calls to the store, each until it is there.

    While they live, long calls are sent in parts, if the store takes any. Sealed
    calls go before live ones, and older calls before younger.

    A call that fails waits for a growing, jittered pause. If it is the store that
    fails, all wait: one after another tries, until something gets through.

    Args:
        uploader: Brings one call to the store.
        metrics: Counts.
        log: For lines about calls and the store.
        jitter: Returns numbers from 0 up to 1.
        live_interval: Seconds after which live calls are looked at again.
        delivered: Called with each call that stays in the spool once it is stored,
            as it waits for its transcripts; it owns the call from then on.
    """

    def __init__(
        self,
        uploader: Uploader,
        *,
        metrics: Metrics,
        log: FilteringBoundLogger,
        jitter: Callable[[], float] = random.random,
        live_interval: float = _LIVE_INTERVAL,
        delivered: Callable[[SpooledCall], None] | None = None,
    ) -> None:
        self._uploader = uploader
        self._metrics = metrics
        self._log = log
        self._noise = Limiter(log)
        self._jitter = jitter
        self._live_interval = live_interval
        self._delivered = delivered
        self._breaker: Breaker[UploadError] = Breaker(jitter)
        self._order = itertools.count()
        self._ready: list[_ByAge] = []
        self._waiting: list[tuple[float, int, _Entry]] = []
        self._live: dict[SpooledCall, _Entry] = {}
        self._live_ready: list[_ByAge] = []
        self._some_live = trio.Event()
        self._news = trio.Event()
        self._settled = trio.Event()
        self._active = 0
        self._live_active = 0
        self._fresh = 0
        self._stored = 0
        self._failures = 0
        self._told: tuple[str, float] | None = None
        self._told_of_trouble = False

    def watch(self, call: SpooledCall, settled_bytes: Callable[[], int]) -> None:
        """Send parts of a call from now on, while it lives.

        It ends with `add`, or when the call is released.

        Args:
            call: Live; its owner may release it at any time.
            settled_bytes: Returns how much of its audio is certain to have no
                gap put before its end any more. It is called often.
        """
        if self._uploader.takes_parts:
            entry = self._entry(call)
            entry.settled_bytes = settled_bytes
            self._live[call] = entry
            self._some_live.set()

    def add(self, call: SpooledCall) -> None:
        """Take a call that is on disk whole.

        If too many wait already it is released; it stays in the spool, and is
        adopted from there once there is room.
        """
        entry = self._live.pop(call, None) or self._entry(call)
        if not self.room:
            call.release()
            return
        entry.is_sealed = entry.is_fresh = True
        entry.tries = 0
        self._fresh += 1
        if not entry.is_busy:
            self._make_ready(entry)

    def take_out(self, wanted: Callable[[SpooledCall], bool]) -> list[SpooledCall]:
        """Give calls up that wait here; whoever asks owns them from then on.

        One of which something is being stored at this moment is not among them, and
        comes back to wait, or is stored: ask again.

        Args:
            wanted: Tells which.
        """
        entries = [item[-1] for item in (*self._ready, *self._waiting)]
        taken = {each for each in entries if not each.is_busy and wanted(each.call)}
        if taken:
            self._ready = [item for item in self._ready if item[-1] not in taken]
            self._waiting = [item for item in self._waiting if item[-1] not in taken]
            heapq.heapify(self._ready)
            heapq.heapify(self._waiting)
            self._fresh -= sum(each.is_fresh for each in taken)
            self._news.set()
        return [each.call for each in taken]

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Store calls until cancelled.

        *Cancellation:* Calls that are not stored are released and stay in the
        spool, where the next process finds them.
        """
        try:
            async with trio.open_nursery() as nursery:
                if self._uploader.takes_parts:
                    nursery.start_soon(self._watch_live)
                task_status.started()
                while True:
                    entry = await self._next()
                    finishes = entry.is_sealed
                    entry.is_busy, entry.progressed = True, False
                    self._active += 1
                    self._live_active += not finishes
                    attempt = 0 if entry.is_apart else self._breaker.begin()
                    nursery.start_soon(self._deliver, entry, attempt, finishes)
        finally:
            for _, _, entry in (*self._ready, *self._waiting):
                entry.call.release()

    @property
    def room(self) -> int:
        """How many more calls can wait here; others are to wait in the spool."""
        return max(0, _HELD_LIMIT - len(self._ready) - len(self._waiting))

    async def wait_settled(self) -> None:
        """Wait until each sealed call was stored or has failed once at least.

        While the store fails as such, that counts as a failure of all.
        """
        while self._active or (self._fresh and not self._breaker.is_open):
            await self._settled.wait()

    def statistics(self) -> DeliveryStatistics:
        """Return how the deliveries stand."""
        fault = self._breaker.fault
        return DeliveryStatistics(
            waiting=len(self._ready) + len(self._waiting),
            active=self._active,
            stored=self._stored,
            failures=self._failures,
            fault=None if fault is None else str(fault),
        )

    def oldest(self, most: int) -> list[WaitingDelivery]:
        """Return so many of the calls that wait, the oldest first."""
        dues: dict[_Entry, float | None] = {entry: None for *_, entry in self._ready}
        dues |= {entry: due for due, _, entry in self._waiting}
        first = heapq.nsmallest(most, dues, key=lambda entry: entry.age[:2])
        return [
            WaitingDelivery(each.call, each.tries, each.error, dues[each])
            for each in first
        ]

    def retry(self) -> None:
        """Try everything again at once: somebody has mended something."""
        for _, _, entry in self._waiting:
            heapq.heappush(self._ready, entry.age)
        self._waiting.clear()
        for entry in self._live.values():
            entry.due = 0.0
        self._breaker.hurry()
        self._news.set()

    # Who is next

    def _entry(self, call: SpooledCall) -> _Entry:
        entry = _Entry(call, next(self._order))
        entry.upload = self._uploader.take(
            call, confirmed=lambda: self._note_progress(entry)
        )
        return entry

    def _make_ready(self, entry: _Entry) -> None:
        heapq.heappush(self._ready, entry.age)
        self._news.set()

    async def _next(self) -> _Entry:
        while True:
            self._news = trio.Event()
            now = trio.current_time()
            while self._waiting and self._waiting[0][0] <= now:
                heapq.heappush(self._ready, heapq.heappop(self._waiting)[2].age)
            wake = self._waiting[0][0] if self._waiting else float("inf")
            if self._active < _PARALLEL:
                at = self._breaker.next_at
                if at > now:
                    wake = min(wake, at)
                    if (entry := self._pick_apart()) is not None:
                        return entry
                elif (entry := self._pick()) is not None:
                    return entry
            with trio.move_on_at(wake):
                await self._news.wait()

    def _pick_apart(self) -> _Entry | None:
        """Pick a call that does not need the store which fails."""
        apart = [item for item in self._ready if item[2].is_apart]
        return self._take_out(min(apart)) if apart else None

    def _take_out(self, item: _ByAge) -> _Entry:
        self._ready.remove(item)
        heapq.heapify(self._ready)
        return item[2]

    def _pick(self) -> _Entry | None:
        if self._ready:
            if not self._breaker.is_open:
                return heapq.heappop(self._ready)[2]
            # One that tells how the store does; and not the same again, which may be
            # at fault itself.
            return self._take_out(
                min(
                    self._ready,
                    key=lambda item: (item[2].is_apart, item[2].tries, item[:2]),
                )
            )
        while self._live_ready and self._live_active < _LIVE_PARALLEL:
            entry = heapq.heappop(self._live_ready)[2]
            entry.is_queued = False
            if not (entry.is_sealed or entry.call.released):
                return entry
        return None

    async def _watch_live(self) -> None:
        while True:
            await self._some_live.wait()
            await trio.sleep(self._live_interval)
            now = trio.current_time()
            for entry in list(self._live.values()):
                self._consider(entry, now)
            if not self._live:
                self._some_live = trio.Event()

    def _consider(self, entry: _Entry, now: float) -> None:
        """Queue a live call of which a part is full."""
        if entry.call.released:
            self._live.pop(entry.call, None)
        elif (
            not (entry.is_busy or entry.is_queued)
            and entry.due <= now
            and entry.upload.ready(entry.settled_bytes())
        ):
            entry.is_queued = True
            heapq.heappush(self._live_ready, entry.age)
            self._news.set()

    # What comes of it

    async def _deliver(self, entry: _Entry, attempt: int, finishes: bool) -> None:
        error: Exception | None = None
        gone = True
        try:
            if finishes:
                gone = await entry.upload.finish()
            else:
                await entry.upload.advance(entry.settled_bytes())
        except (UploadError, SpoolError) as exc:
            error = exc
        except Exception as exc:  # noqa: BLE001 - the edge: other calls must not notice
            error = exc
            self._log.exception("delivery_failed")
        except BaseException:
            if entry.is_sealed:
                entry.call.release()
            raise
        finally:
            entry.is_busy = False
            self._active -= 1
            self._live_active -= not finishes
        is_stores = isinstance(error, UploadError) and is_stores_own(error)
        if isinstance(error, UploadError) and is_stores and not entry.is_apart:
            now, lasting = trio.current_time(), not error.retryable
            self._breaker.fail(attempt, error, now, lasting=lasting)
        self._breaker.end(attempt)
        if finishes:
            self._settle(entry, error)
            if error is None and not gone:
                self._hand_over(entry.call)
        elif entry.is_sealed:
            self._make_ready(entry)
        else:
            self._settle_live(entry, error)
        self._tell_of_trouble()
        self._news.set()
        self._settled.set()
        self._settled = trio.Event()

    def _settle(self, entry: _Entry, error: Exception | None) -> None:
        if entry.is_fresh:
            entry.is_fresh = False
            self._fresh -= 1
        if error is None or entry.call.released:
            self._stored += 1
            self._metrics.stored.inc()
            self._tell_stored(entry.call)
            if error is not None:
                # All of it is stored, and the next look for leftovers finds the rest.
                self._warn("call_not_removed", entry, error)
            return
        pause = self._fail(entry, error)
        if entry.call.is_doubtful:
            # Whatever is tried fails until somebody opens its journal anew.
            entry.call.release()
            self._warn("call_not_stored", entry, error)
        elif self._breaker.is_open and not entry.is_apart:
            # When it is tried again is up to the store, not to the call.
            self._make_ready(entry)
        else:
            due = trio.current_time() + pause
            heapq.heappush(self._waiting, (due, entry.order, entry))
            self._complain(entry, error, pause)

    def _hand_over(self, call: SpooledCall) -> None:
        if self._delivered is None:
            call.release()
        else:
            self._delivered(call)

    def _settle_live(self, entry: _Entry, error: Exception | None) -> None:
        if error is None:
            entry.tries = 0
            self._consider(entry, trio.current_time())
        elif not entry.call.released:
            pause = self._fail(entry, error)
            entry.due = trio.current_time() + pause
            if entry.is_apart or not self._breaker.is_open:
                self._complain(entry, error, pause)

    def _fail(self, entry: _Entry, error: Exception) -> float:
        """Count a failed try, and return how long the call should wait now."""
        self._failures += 1
        self._metrics.store_failures.labels(_fault_of(error)).inc()
        if entry.progressed and isinstance(error, UploadError) and is_stores_own(error):
            entry.tries = 0
        pause = min(_FIRST_PAUSE * 2.0 ** min(entry.tries, 16), _LONGEST_PAUSE)
        entry.tries += 1
        # Without the traceback, which would keep all that was at work.
        entry.error = error.with_traceback(None)
        return pause * (0.5 + self._jitter() / 2)

    def _note_progress(self, entry: _Entry) -> None:
        entry.progressed = True
        if entry.is_apart:
            return
        self._breaker.succeed()
        if self._told_of_trouble:
            self._told_of_trouble = False
            self._log.info("store_works_again", waiting=self.statistics().waiting)
        self._news.set()

    # What is told

    def _tell_stored(self, call: SpooledCall) -> None:
        opened, planned = call.record.opened, call.record.planned
        self._log.info(
            "call_stored",
            session=opened.session_id,
            correlation=opened.correlation_id,
            conversation=opened.conversation_id,
            key=None if planned is None else planned.prefix + planned.name,
        )

    def _complain(self, entry: _Entry, error: Exception, pause: float) -> None:
        self._warn("call_not_stored", entry, error, again_in=round(pause, 1))

    def _warn(
        self, event: str, entry: _Entry, error: Exception, **values: float
    ) -> None:
        known = isinstance(error, UploadError | SpoolError)
        self._noise.write(
            logging.WARNING,
            event,
            session=entry.call.record.opened.session_id,
            correlation=entry.call.record.opened.correlation_id,
            conversation=entry.call.record.opened.conversation_id,
            error=str(error) if known else "unexpected failure",
            **values,
        )

    def _tell_of_trouble(self) -> None:
        """Say once a minute what is wrong with the store, however many calls wait."""
        fault, now = self._breaker.fault, trio.current_time()
        if fault is None:
            return
        if self._told is not None:
            what, at = self._told
            if what == fault.fault and now - at < _TELL_INTERVAL:
                return
        self._told = fault.fault, now
        self._told_of_trouble = True
        statistics = self.statistics()
        self._log.log(
            logging.WARNING if fault.retryable else logging.ERROR,
            "store_fails" if fault.retryable else "store_needs_mending",
            error=str(fault),
            waiting=statistics.waiting,
            live=len(self._live),
        )


def _fault_of(error: Exception) -> str:
    """Return the word by which a failure is counted."""
    if isinstance(error, UploadError):
        return str(error.fault)
    return "disk" if isinstance(error, SpoolError) else "unexpected"
