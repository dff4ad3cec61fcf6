"""Who of those that may open a session is let in now.

A call that is not is still accepted, and told so once it asks for its session to
be opened: a client never tries again after a refused upgrade, but does after
``disconnect`` with the reason ``error``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import trio

from audiohook.keys import KeyLimits
from audiohook.rate import TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable

    from audiohook.rate import Rate


class TurnedAway(StrEnum):
    """Why a call is not taken, in the words that its peer gets.

    Genesys logs them, so they say nothing about other calls or the machine.
    """

    DRAINING = "Service stops"
    MAX_CALLS = "Too many calls"
    DISK = "Cannot record now"
    KEY_CALLS = "Too many calls with this key"
    KEY_RATE = "Too many new calls with this key"

    @property
    def label(self) -> str:
        """The word by which it is counted."""
        return self.name.lower()


_NO_LIMITS = KeyLimits()


@dataclass(eq=False, slots=True)
class Place:
    """What a call has among those that count, until it leaves.

    Attributes:
        refusal: Why it got none; None if it did.
    """

    refusal: TurnedAway | None
    _leave: Callable[[], None] | None = field(default=None, repr=False)

    def leave(self) -> None:
        """Gives the place up, if it was not done before."""
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()


class Admission:
    """Counts the calls that are let in, all of them and by API key.

    Calls that are turned away are not among them, however long they stay.

    Args:
        calls_per_key: Most calls at a time with one key; None for no limit.
        new_calls_per_key: Most new calls with one key; None for no limit.
        clock: Gives the time in seconds.
    """

    def __init__(
        self,
        *,
        calls_per_key: int | None = None,
        new_calls_per_key: Rate | None = None,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._calls_per_key = calls_per_key
        self._new_calls_per_key = new_calls_per_key
        self._clock = clock
        # There are no more of either than there are keys.
        self._by_key: dict[str, int] = {}
        self._buckets: dict[str, TokenBucket] = {}
        self._live = 0

    @property
    def live(self) -> int:
        """Calls that are let in and have not left."""
        return self._live

    def admit(self, key_id: str, own: KeyLimits | None = None) -> Place:
        """Gives a new call a place, or the reason why there is none.

        Args:
            key_id: Label of its API key.
            own: Limits of that key, which count in place of those for all.
        """
        refusal = self._refuse(key_id, own or _NO_LIMITS)
        if refusal is not None:
            return Place(refusal)
        self._live += 1
        self._by_key[key_id] = self._by_key.get(key_id, 0) + 1
        return Place(None, lambda: self._leave(key_id))

    def _refuse(self, key_id: str, own: KeyLimits) -> TurnedAway | None:
        most = self._calls_per_key if own.max_calls is None else own.max_calls
        if most is not None and self._by_key.get(key_id, 0) >= most:
            return TurnedAway.KEY_CALLS
        rate = self._new_calls_per_key if own.new_calls is None else own.new_calls
        if rate is None:
            self._buckets.pop(key_id, None)
            return None
        now = self._clock()
        bucket = self._buckets.get(key_id)
        # It is another one once somebody has changed it.
        if bucket is None or bucket.rate != rate:
            bucket = self._buckets[key_id] = TokenBucket(rate, now)
        return None if bucket.take(now) else TurnedAway.KEY_RATE

    def _leave(self, key_id: str) -> None:
        self._live -= 1
        left = self._by_key[key_id] - 1
        if left:
            self._by_key[key_id] = left
        else:
            del self._by_key[key_id]
