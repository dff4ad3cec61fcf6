"""Whether the store is worth asking: what one call has learnt counts for all.

Nothing here reads a clock or waits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from audiohook.storage.base import StoreFault

if TYPE_CHECKING:
    from collections.abc import Callable

    from audiohook.errors import UploadError

SECONDS = 1.0

# One or two may be a matter of a connection.
_FAILURES_TO_OPEN: Final = 3
_FIRST_PAUSE: Final = 1 * SECONDS
_LONGEST_PAUSE: Final = 30 * SECONDS


class Breaker:
    """Lets everybody at the store, or, while it fails, one at a time.

    It opens after some failures in a row that are the store's and not an
    object's, and at once after one that somebody has to mend. While it is open a
    single trial may be made after each pause. The first thing that the store
    confirms closes it.

    Args:
        jitter: Returns numbers from 0 up to 1.

    Attributes:
        fault: The store's last failure while it is open; None while it is closed.
    """

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._attempts = 0
        self._failures = 0
        self._pauses = 0
        # The attempt that is the trial under way.
        self._trial = 0
        self._trial_at = 0.0
        self.fault: UploadError | None = None

    @property
    def is_open(self) -> bool:
        """Whether the store is taken to be unusable."""
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
        """Note that the store has confirmed something."""
        self._failures = self._pauses = self._trial = 0
        self.fault = None

    def fail(self, attempt: int, error: UploadError, now: float) -> None:
        """Note a failure of the store; see `is_stores_own`.

        Args:
            attempt: What `begin` returned.
            error: What it said.
            now: The time in seconds.
        """
        if self.is_open and attempt != self._trial:
            # It went before the breaker opened, and knows nothing new.
            return
        self._failures += 1
        few = self._failures < _FAILURES_TO_OPEN
        if few and error.retryable and not self.is_open:
            return
        self.fault = error
        self._trial = 0
        pause = _LONGEST_PAUSE
        if error.retryable:
            pause = min(_FIRST_PAUSE * 2 ** min(self._pauses, 16), pause)
        self._pauses += 1
        self._trial_at = now + pause * (0.5 + self._jitter() / 2)

    def end(self, attempt: int) -> None:
        """Note that an attempt is over, if it told nothing of the store."""
        if attempt == self._trial:
            self._trial = 0


def is_stores_own(error: UploadError) -> bool:
    """Tell whether any other object would have met the same failure."""
    return error.fault != StoreFault.OTHER
