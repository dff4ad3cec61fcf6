"""How often something may happen, and whether it may now."""

from __future__ import annotations

from typing import NamedTuple


class Rate(NamedTuple):
    """How often something may happen.

    Attributes:
        per_second: How often in the long run.
        burst: How often at once, after a quiet time.
    """

    per_second: float
    burst: int

    def __str__(self) -> str:
        return f"{self.per_second:g}:{self.burst}"


class TokenBucket:
    """Limits how often something may happen, but lets it happen in bursts.

    Args:
        rate: How often, and how often at once.
        now: Time in seconds.

    Attributes:
        rate: The same.
    """

    def __init__(self, rate: Rate, now: float) -> None:
        self.rate = rate
        self._tokens = float(rate.burst)
        self._filled_at = now

    def take(self, now: float) -> bool:
        """Tells whether it may happen once more, and counts it if so."""
        gained = (now - self._filled_at) * self.rate.per_second
        self._tokens = min(self.rate.burst, self._tokens + gained)
        self._filled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
