"""When each sealed call is brought to the store, and when it is tried again."""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from audiohook.errors import SpoolError, UploadError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from structlog.typing import FilteringBoundLogger

    from audiohook.metrics import Metrics
    from audiohook.recording.spool import SpooledCall

SECONDS = 1.0
MINUTES = 60 * SECONDS

_FIRST_PAUSE = 1 * SECONDS
_LONGEST_PAUSE = 5 * MINUTES
# Rendering keeps a core busy; more at a time would only make each one later.
_PARALLEL = 4
# Each waiting call keeps two files open. Those beyond wait in the spool alone.
_HELD_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class DeliveryStatistics:
    """How the deliveries stand.

    Attributes:
        waiting: Calls that wait for their first try or their next.
        active: Calls that are being stored now.
        stored: Calls stored so far.
        failures: Tries that failed so far.
    """

    waiting: int
    active: int
    stored: int
    failures: int


class Deliveries:
    """Brings sealed calls to the store, each until it is there.

    A call that fails waits for a growing, jittered pause. Among those that are
    due, the one that has waited longest goes first.

    Args:
        finish: Brings one call to the store; raises ``UploadError`` or
            ``SpoolError`` if it could not, and may then be called again.
        metrics: Counts.
        log: For a line about each call.
        jitter: Returns numbers from 0 up to 1.
    """

    def __init__(
        self,
        finish: Callable[[SpooledCall], Awaitable[None]],
        *,
        metrics: Metrics,
        log: FilteringBoundLogger,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._finish = finish
        self._metrics = metrics
        self._log = log
        self._jitter = jitter
        self._order = itertools.count()
        self._due: list[tuple[float, int, int, SpooledCall]] = []
        self._slots = trio.CapacityLimiter(_PARALLEL)
        self._news = trio.Event()
        self._settled = trio.Event()
        self._active = 0
        self._fresh = 0
        self._stored = 0
        self._failures = 0

    def add(self, call: SpooledCall) -> None:
        """Takes a call that is on disk whole.

        If too many wait already it is released; it stays in the spool, and is
        adopted from there once there is room.
        """
        if self.room:
            self._fresh += 1
            self._put(call, due=trio.current_time(), tries=0)
        else:
            call.release()

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Stores calls until cancelled.

        *Cancellation:* Calls that are not stored are released and stay in the
        spool, where the next process finds them.
        """
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    tries, call = await self._next()
                    try:
                        # In the call's name, as another task gives it back.
                        await self._slots.acquire_on_behalf_of(call)
                    except trio.Cancelled:
                        call.release()
                        raise
                    nursery.start_soon(self._deliver, call, tries)
        finally:
            for _, _, _, call in self._due:
                call.release()

    @property
    def room(self) -> int:
        """How many more calls can wait here; others are to wait in the spool."""
        return max(0, _HELD_LIMIT - len(self._due))

    async def wait_settled(self) -> None:
        """Waits until each call was stored or has failed once at least."""
        while self._fresh or self._active:
            await self._settled.wait()

    def statistics(self) -> DeliveryStatistics:
        """Returns how the deliveries stand."""
        return DeliveryStatistics(
            waiting=len(self._due),
            active=self._active,
            stored=self._stored,
            failures=self._failures,
        )

    def _put(self, call: SpooledCall, *, due: float, tries: int) -> None:
        heapq.heappush(self._due, (due, next(self._order), tries, call))
        self._news.set()

    async def _next(self) -> tuple[int, SpooledCall]:
        while True:
            self._news = trio.Event()
            wait = self._due[0][0] if self._due else float("inf")
            if wait <= trio.current_time():
                _, _, tries, call = heapq.heappop(self._due)
                self._active += 1
                return tries, call
            with trio.move_on_at(wait):
                await self._news.wait()

    async def _deliver(self, call: SpooledCall, tries: int) -> None:
        fault: str | None = None
        try:
            await self._finish(call)
        except trio.Cancelled:
            call.release()
            raise
        except (UploadError, SpoolError) as error:
            fault = str(error)
        except Exception:  # noqa: BLE001 - the edge: other calls must not notice
            fault = "unexpected failure"
            self._log.exception("delivery_failed")
        finally:
            self._slots.release_on_behalf_of(call)
            self._active -= 1
        if fault is None:
            self._stored += 1
            self._metrics.stored.inc()
        else:
            self._try_again(call, tries, fault)
        if tries == 0:
            self._fresh -= 1
        self._settled.set()
        self._settled = trio.Event()

    def _try_again(self, call: SpooledCall, tries: int, fault: str) -> None:
        self._failures += 1
        self._metrics.store_failures.inc()
        pause = min(_FIRST_PAUSE * 2 ** min(tries, 16), _LONGEST_PAUSE)
        pause *= 0.5 + self._jitter() / 2
        self._log.warning(
            "call_not_stored",
            session=call.record.opened.session_id,
            error=fault,
            again_in=round(pause, 1),
        )
        self._put(call, due=trio.current_time() + pause, tries=tries + 1)
