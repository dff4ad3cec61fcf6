"""When calls begin. No I/O, no clock."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from audiohook.simulator.load.options import LoadOptions


class Arrivals:
    """Hands out the numbers of calls when they are to begin.

    The first ones come over the ramp, the others when one before has ended; none
    of them faster than the rate. Of several processes each takes every so many-th.

    Args:
        options: The load.
        began_at: When it begins, in seconds on any clock.
        process: Which process this is, from 0 on.
    """

    def __init__(
        self, options: LoadOptions, *, began_at: float, process: int = 0
    ) -> None:
        self._processes = options.processes
        self._number = process
        self._at_once = len(range(process, options.calls, options.processes))
        self._calls = options.calls
        self._total: float = options.calls if options.total is None else options.total
        self._ends_at = math.inf
        if options.keep is not None:
            self._total = math.inf
            self._ends_at = began_at + options.keep
        self._began_at = began_at
        self._ramp = options.ramp
        # Between two calls of this process.
        self._apart = 0.0 if options.rate is None else options.processes / options.rate
        self._each = 0.0 if options.rate is None else 1 / options.rate
        self._last_at = -math.inf

    def next_at(self, live: int, now: float) -> float:
        """Tell when the next call is to begin.

        Args:
            live: Calls that have begun and not ended.
            now: Seconds on the clock.

        Returns:
            Seconds on the clock; it may be past. Infinite if there is none as long
            as all of these go on.
        """
        if self._number >= self._total or live >= self._at_once or now >= self._ends_at:
            return math.inf
        at = self._began_at
        if self._number < self._calls:
            at += max(self._ramp / self._calls, self._each) * self._number
        at = max(at, self._last_at + self._apart)
        return at if at < self._ends_at else math.inf

    def take(self, now: float) -> int:
        """Give the number of the call that begins now.

        Args:
            now: Seconds on the clock, not before what `next_at` says.
        """
        number = self._number
        self._number += self._processes
        # By the plan, so that no lateness adds up; but what was missed because all
        # lines were busy is not made up for.
        planned = self._last_at + self._apart
        self._last_at = planned if now - planned < self._apart else now
        return number

    def stop(self) -> None:
        """Let no more calls begin."""
        self._total = 0
