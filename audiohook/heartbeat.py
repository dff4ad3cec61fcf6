"""Keeps the service manager told: that the service lives, and what it does.

A service that hangs is worse than one that has died, which is started anew and
finishes what was left. So the manager's watchdog is fed from the event loop, and
only while calls are being read; a loop that is stuck feeds nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

    from audiohook.systemd import Notifier

SECONDS = 1.0

# The status is for people.
_LONGEST_BEAT: Final = 5 * SECONDS
_BEATS_A_WATCHDOG: Final = 4
# Without a pass over the calls for this part of the watchdog's time, they are not
# read any more.
_STALLED_PART: Final = 0.5
# While it looks bad, it is looked at more often: what was late may have recovered.
_WORRIED_BEAT: Final = 0.5 * SECONDS
# More than a few beats, so that one that is late does not cost a drain.
_EXTENSION: Final = 30 * SECONDS


@dataclass(frozen=True, slots=True)
class Vitals:
    """Signs of life of a service.

    Attributes:
        live: Sessions that are open.
        backlog: Calls that are not in the store yet.
        lanes: Calls that the pump reads.
        passes: Passes of the pump so far.
        can_record: Whether the disk takes new calls.
        store_fails: Whether the store does not do what it is asked for.
    """

    live: int
    backlog: int
    lanes: int
    passes: int
    can_record: bool = True
    store_fails: bool = False


class Heartbeat:
    """Tells the service manager how the service does, every few seconds.

    Args:
        notifier: Reaches the manager.
        vitals: Looks at the service.
        log: Where lines go.
        longest_drain: Seconds that the service may take to stop. For so long the
            manager is asked for patience.
    """

    def __init__(
        self,
        notifier: Notifier,
        vitals: Callable[[], Vitals],
        *,
        log: FilteringBoundLogger,
        longest_drain: float,
    ) -> None:
        self._notifier = notifier
        self._vitals = vitals
        self._log = log
        self._longest_drain = longest_drain
        self._takes_calls = False
        self._drained_by: float | None = None
        self._reload_failed = False
        self._passes = -1
        self._moved_at = 0.0
        self._worried = False

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Beats until cancelled.

        It returns at once if there is nobody to tell.
        """
        task_status.started()
        if self._notifier.is_heard:
            await self._beat()

    async def _beat(self) -> None:
        watchdog = self._notifier.watchdog
        beat = min(_LONGEST_BEAT, (watchdog or math.inf) / _BEATS_A_WATCHDOG)
        self._moved_at = trio.current_time()
        while True:
            vitals = self._vitals()
            self._notifier.status(self._status(vitals))
            if self._drained_by is not None and trio.current_time() < self._drained_by:
                self._notifier.extend(_EXTENSION)
            if watchdog is None:
                await trio.sleep(beat)
            elif self._is_healthy(vitals, watchdog):
                self._worried = False
                self._notifier.ping()
                await trio.sleep(beat)
            else:
                await trio.sleep(min(beat, _WORRIED_BEAT))

    def ready(self) -> None:
        """Says that calls are taken."""
        self._takes_calls = True
        self._notifier.ready(self._status(self._vitals()))

    def reloading(self) -> None:
        """Says that settings are being read again; `reloaded` follows.

        Before calls are taken, and after, nobody is told: ``READY=1`` would be
        understood as the end of the start.
        """
        if self._takes_calls:
            self._notifier.reloading()

    def reloaded(self, *, failed: bool) -> None:
        """Says that this is over.

        Args:
            failed: Whether the settings are still those of before.
        """
        self._reload_failed = failed
        if self._takes_calls:
            self.ready()

    def stopping(self) -> None:
        """Says that the service drains."""
        self._takes_calls = False
        self._drained_by = trio.current_time() + self._longest_drain
        self._notifier.stopping(self._status(self._vitals()))

    def _status(self, vitals: Vitals) -> str:
        """Describes the service in one line."""
        calls = "call" if vitals.live == 1 else "calls"
        text = f"{vitals.live} {calls} live, {vitals.backlog} to be stored"
        if self._drained_by is not None:
            text = f"draining: {text}"
        # Whoever looks at the service in the night looks here first.
        if not vitals.can_record:
            text += "; NO NEW CALLS: the disk is full, or refuses"
        if vitals.store_fails:
            text += "; the store fails, see the log"
        if self._reload_failed:
            text += "; the last reload failed, see the log"
        return text

    def _is_healthy(self, vitals: Vitals, watchdog: float) -> bool:
        """Tells whether calls, if there are any, are being read."""
        now = trio.current_time()
        if vitals.passes != self._passes or not vitals.lanes:
            self._passes = vitals.passes
            self._moved_at = now
        stalled = now - self._moved_at
        if stalled < watchdog * _STALLED_PART:
            return True
        if not self._worried:
            self._worried = True
            self._log.error("calls_are_not_read", seconds=round(stalled, 1))
        return False
