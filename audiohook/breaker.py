"""Whether a service is worth asking: what one has learnt counts for all.

Nothing here reads a clock or waits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

E = TypeVar("E", bound=Exception)

SECONDS = 1.0

# One or two may be a matter of a connection.
_FAILURES_TO_OPEN: Final = 3
_FIRST_PAUSE: Final = 1 * SECONDS
_LONGEST_PAUSE: Final = 30 * SECONDS


class Breaker(Generic[E]):
    """Lets everybody at a service, or, while that fails, one at a time.

    It opens after some failures in a row that are the service's own, and at once
    after one that somebody has to mend. While it is open a single trial may be made
    after each pause. The first thing that the service confirms closes it.

    Args:
        jitter: Returns numbers from 0 up to 1.

    Attributes:
        fault: The service's last failure while it is open; None while it is closed.
    """

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._attempts = 0
        self._failures = 0
        self._pauses = 0
        # The attempt that is the trial under way.
        self._trial = 0
        self._trial_at = 0.0
        self.fault: E | None = None

    @property
    def is_open(self) -> bool:
        """Whether the service is taken to be unusable."""
        return self.fault is not None

    @property
    def next_at(self) -> float:
        """When somebody may go next; `math.inf` while a trial is under way."""
        if self.fault is None:
            return -math.inf
        return math.inf if self._trial else self._trial_at

    def begin(self) -> int:
        """Note that somebody goes; to be asked once `next_at` has come.

        Returns:
            A number, to be told to `fail` or `end`.
        """
        self._attempts += 1
        if self.is_open:
            self._trial = self._attempts
        return self._attempts

    def succeed(self) -> None:
        """Note that the service has confirmed something."""
        self._failures = self._pauses = self._trial = 0
        self.fault = None

    def fail(self, attempt: int, error: E, now: float, *, lasting: bool) -> None:
        """Note a failure which any other request would have met as well.

        Args:
            attempt: What `begin` returned.
            error: What it said.
            now: The time in seconds.
            lasting: Whether it will last until somebody has mended something.
        """
        if self.is_open and attempt != self._trial:
            # It went before the breaker opened, and knows nothing new.
            return
        self._failures += 1
        few = self._failures < _FAILURES_TO_OPEN
        if few and not lasting and not self.is_open:
            return
        self.fault = error
        self._trial = 0
        pause = _LONGEST_PAUSE
        if not lasting:
            pause = min(_FIRST_PAUSE * 2 ** min(self._pauses, 16), pause)
        self._pauses += 1
        self._trial_at = now + pause * (0.5 + self._jitter() / 2)

    def hurry(self) -> None:
        """Let the next trial be made at once: somebody has mended something."""
        self._pauses = 0
        self._trial_at = -math.inf

    def end(self, attempt: int) -> None:
        """Note that an attempt is over, if it told nothing of the service."""
        if attempt == self._trial:
            self._trial = 0
