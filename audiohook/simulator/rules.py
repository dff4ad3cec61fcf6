"""What a server must not do, and how a Genesys client takes it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from audiohook.rate import Rate

SECONDS = 1.0

_TEXTS: Final = Rate(5, 25)
_HOLDS: Final = Rate(2, 4)


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
        texts: Of text messages from the server.
        holds: Of ``pause``, and of ``resume``.
    """

    opened: float = 5 * SECONDS
    pong: float = 5 * SECONDS
    closed: float = 10 * SECONDS
    first_ping: float = 1 * SECONDS
    ping_interval: float = 5 * SECONDS
    message_bytes: int = 64_000
    texts: Rate = _TEXTS
    holds: Rate = _HOLDS
