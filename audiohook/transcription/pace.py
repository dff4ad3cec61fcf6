"""How many requests a minute may be made, whoever makes them."""

from __future__ import annotations

import math

import trio

SECONDS = 1.0
MINUTES = 60 * SECONDS

# Source: AssemblyAI, "Rate limits": 20,000 requests in five minutes for an account.
# Half of that is left to others who use it.
REQUESTS_A_MINUTE = 2000
# A storm of calls that end together need not wait.
_BURST = 50
# When it is asked for fewer requests, and not said for how long.
_PAUSE = 10 * SECONDS


class Pace:
    """Lets requests pass one by one, no more than so many a minute.

    Args:
        a_minute: How many in the long run.
        burst: How many at once after a quiet time.
    """

    def __init__(self, a_minute: int = REQUESTS_A_MINUTE, burst: int = _BURST) -> None:
        self._interval = MINUTES / a_minute
        self._lead = (burst - 1) * self._interval
        # When the next one would be due if they came evenly.
        self._next = -math.inf
        self._held_until = -math.inf

    @property
    def interval(self) -> float:
        """Seconds a request in the long run."""
        return self._interval

    async def wait(self) -> None:
        """Wait until one more request may be made.

        *Cancellation:* The request counts as made.
        """
        now = trio.current_time()
        at = max(self._next, now - self._lead)
        self._next = at + self._interval
        await trio.sleep_until(at)
        await trio.sleep_until(self._held_until)

    def hold(self, seconds: float | None) -> None:
        """Let nobody pass for a while.

        Args:
            seconds: How long; None if the service did not say.
        """
        until = trio.current_time() + (_PAUSE if seconds is None else seconds)
        self._held_until = max(self._held_until, until)
