"""What a server must not do, and how a Genesys client takes it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

SECONDS = 1.0


class Rule(StrEnum):
    """A rule of the protocol, or of reaching the server at all."""

    REACHABLE = "reachable"
    UPGRADE = "upgrade"
    MESSAGE = "message"
    SIZE = "size"
    RATE = "rate"
    ID = "id"
    SEQ = "seq"
    CLIENTSEQ = "clientseq"
    STATE = "state"
    MEDIA = "media"
    LANGUAGES = "languages"
    BINARY = "binary"
    OPENED = "opened"
    PONG = "pong"
    UPDATED = "updated"
    CLOSED = "closed"
    AFTER_CLOSED = "after-closed"
    DISCONNECT = "disconnect"
    SOCKET = "socket"


@dataclass(frozen=True, slots=True)
class Breach:
    """One thing that the server did wrong.

    Attributes:
        rule: Which rule it broke.
        text: What it did, on one line of printable characters.
        at: Seconds since the call began.
    """

    rule: Rule
    text: str
    at: float


@dataclass(frozen=True, slots=True)
class Reaction:
    """What the client does about a breach.

    Attributes:
        code: Code of the ``error`` message it sends, None if it sends none.
        fatal: True if it closes the session, reason ``error``.
    """

    code: int | None = None
    fatal: bool = False


# After the reference client; rules that are not here are only noted.
REACTIONS = {
    Rule.MESSAGE: Reaction(400, fatal=True),
    Rule.SIZE: Reaction(413, fatal=True),
    Rule.ID: Reaction(400, fatal=True),
    Rule.SEQ: Reaction(500, fatal=True),
    Rule.CLIENTSEQ: Reaction(400, fatal=True),
    Rule.STATE: Reaction(409, fatal=True),
    Rule.MEDIA: Reaction(400, fatal=True),
    Rule.BINARY: Reaction(415, fatal=True),
    Rule.OPENED: Reaction(408, fatal=True),
    Rule.PONG: Reaction(409),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Times and amounts that a Genesys client allows or keeps to.

    Attributes:
        opened: Longest wait for ``opened``.
        pong: Longest wait for ``pong``.
        closed: Longest wait for ``closed``.
        first_ping: From ``opened`` to the first ping.
        ping_interval: From the second ping on, the time between two.
        message_bytes: Largest message.
        texts_per_second: Rate of text messages from the server, lasting.
        texts_burst: Number of them at once.
        holds_per_second: Rate of ``pause``, and of ``resume``.
        holds_burst: Number of them at once.
    """

    opened: float = 5 * SECONDS
    pong: float = 5 * SECONDS
    closed: float = 10 * SECONDS
    first_ping: float = 1 * SECONDS
    ping_interval: float = 5 * SECONDS
    message_bytes: int = 64_000
    texts_per_second: float = 5
    texts_burst: float = 25
    holds_per_second: float = 2
    holds_burst: float = 4


class TokenBucket:
    """A limit on a rate that lets a burst through.

    Args:
        rate: Tokens a second.
        burst: Tokens at most, and at first.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._filled_at = 0.0

    def take(self, now: float) -> bool:
        """Take a token.

        Args:
            now: Seconds on a clock that does not go back.

        Returns:
            False if there was none.
        """
        fresh = (now - self._filled_at) * self._rate
        self._tokens = min(self._burst, self._tokens + fresh)
        self._filled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
