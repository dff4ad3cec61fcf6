"""Who may see the page: one password for the operator, and sessions of those who had it.

A session is 256 random bits in a cookie, of which only the hash is kept here; it
ends with the process, after some hours, or when its owner says so. What changes
something takes a token besides, which no page of another origin can read.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import trio

from audiohook.rate import Rate, TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 1.0
HOURS = 3600 * SECONDS

SESSION_LIFE: Final = 8 * HOURS
"""How long somebody stays let in."""

_MOST_SESSIONS: Final = 100
_MOST_ADDRESSES: Final = 1000
_RANDOM_BYTES: Final = 32
# Source: RFC 7914 and OWASP, "Password Storage Cheat Sheet": 16 MiB, about 50 ms.
_COST: Final = 2**14
_BLOCK, _PARALLEL = 8, 1
_HASH_BYTES: Final = 32
_LONGEST_PASSWORD: Final = 1000
# Tries of one address, and of all that there are.
_RATE_OF_ONE: Final = Rate(0.1, 5)
_RATE_OF_ALL: Final = Rate(1.0, 20)


class Rule(StrEnum):
    """Who is let in."""

    OPEN = "open"
    """Whoever can reach the port."""
    PASSWORD = "password"  # noqa: S105 - a word
    """Whoever knows the password."""
    SHUT = "shut"
    """Nobody: the port can be reached from outside, and there is no password."""


class Entrance(StrEnum):
    """What came of an attempt to be let in."""

    IN = "in"
    WRONG = "wrong"
    TOO_OFTEN = "too_often"


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who may see the page.

    Attributes:
        token: Comes back with each form that changes something.
        by_password: Whether there is a session to end.
    """

    token: str
    by_password: bool


class Access:
    """Lets people in.

    Args:
        rule: Who is let in.
        password: What they have to know, if anything.
        clock: Seconds from anywhere.
        cost: Of each try: a power of 2, of KiB and some microseconds each.
    """

    def __init__(
        self,
        rule: Rule,
        password: str | None = None,
        *,
        clock: Callable[[], float] = trio.current_time,
        cost: int = _COST,
    ) -> None:
        self.rule = rule
        self._cost = cost
        self._clock = clock
        self._secret = secrets.token_bytes(_RANDOM_BYTES)
        self._salt = secrets.token_bytes(_RANDOM_BYTES)
        self._hash = b"" if password is None else self._derive(password)
        # Each try takes 16 MiB for a while.
        self._limiter = trio.CapacityLimiter(1)
        self._all_tries: TokenBucket | None = None
        self._tries: OrderedDict[str, TokenBucket] = OrderedDict()
        # By the hash of what is in the cookie: when it ends.
        self._sessions: OrderedDict[bytes, float] = OrderedDict()

    def visitor(self, cookie: str | None) -> Visitor | None:
        """Return who comes with that cookie; None if that is nobody we know."""
        if self.rule is Rule.OPEN:
            return Visitor(self.token_of(""), by_password=False)
        if self.rule is Rule.SHUT or not cookie:
            return None
        # An exact search for a hash of 256 random bits tells nothing by its time.
        ends_at = self._sessions.get(_digest(cookie))
        if ends_at is None or self._clock() >= ends_at:
            return None
        return Visitor(self.token_of(cookie), by_password=True)

    def token_of(self, cookie: str) -> str:
        """Return what forms carry; that of no cookie is good for logging in only."""
        message = b"form:" + cookie.encode(errors="replace")
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()

    async def enter(self, password: str, address: str) -> tuple[Entrance, str]:
        """Let somebody in who knows the password.

        Args:
            password: What was said.
            address: Where it was said.

        Returns:
            What came of it, and what goes into the cookie.
        """
        if not self._may_try(address):
            return Entrance.TOO_OFTEN, ""
        derived = await trio.to_thread.run_sync(
            self._derive, password, limiter=self._limiter
        )
        if self.rule is not Rule.PASSWORD or not hmac.compare_digest(
            derived, self._hash
        ):
            return Entrance.WRONG, ""
        cookie = secrets.token_urlsafe(_RANDOM_BYTES)
        while len(self._sessions) >= _MOST_SESSIONS:
            self._sessions.popitem(last=False)
        self._sessions[_digest(cookie)] = self._clock() + SESSION_LIFE
        return Entrance.IN, cookie

    def leave(self, cookie: str) -> None:
        """End a session."""
        self._sessions.pop(_digest(cookie), None)

    def _may_try(self, address: str) -> bool:
        now = self._clock()
        bucket = self._tries.pop(address, None) or TokenBucket(_RATE_OF_ONE, now)
        self._tries[address] = bucket
        while len(self._tries) > _MOST_ADDRESSES:
            self._tries.popitem(last=False)
        if not bucket.take(now):
            return False
        if self._all_tries is None:
            self._all_tries = TokenBucket(_RATE_OF_ALL, now)
        return self._all_tries.take(now)

    def _derive(self, password: str) -> bytes:
        return hashlib.scrypt(
            password[:_LONGEST_PASSWORD].encode(errors="replace"),
            salt=self._salt,
            n=self._cost,
            r=_BLOCK,
            p=_PARALLEL,
            dklen=_HASH_BYTES,
        )


def _digest(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode(errors="replace")).digest()
