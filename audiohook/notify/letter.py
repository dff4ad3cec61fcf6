"""A notification on its way, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Standing(StrEnum):
    """How a notification stands."""

    WAITING = "waiting"
    DEAD = "dead"
    SENT = "sent"


@dataclass(frozen=True, slots=True)
class Letter:
    """A notification on its way.

    Attributes:
        id: Its id.
        stream: What it is kept in order with.
        kind: What it tells, a word of `audiohook.notify.event.Kind`.
        conversation: Of which conversation.
        body: What is sent.
        tries: How often that has failed.
        since: Since when it is tried, in seconds since 1970.
    """

    id: str
    stream: str
    kind: str
    conversation: str
    body: bytes
    tries: int = 0
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Settlement:
    """What has come of a try.

    Attributes:
        id: Of which notification.
        state: How it stands now.
        reason: Why it is not sent.
        at: When it is tried again, if it waits; otherwise the time.
    """

    id: str
    state: Standing
    reason: str | None = None
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A notification as a person sees it.

    Attributes:
        id: Its id.
        kind: What it tells.
        conversation: Of which conversation.
        state: How it stands.
        since: Since when it was tried, in seconds since 1970.
        tries: How often that has failed.
        reason: Why.
    """

    id: str
    kind: str
    conversation: str
    state: str
    since: float
    tries: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class Counts:
    """How many there are.

    Attributes:
        waiting: That wait to be sent.
        dead: That were given up.
        oldest: Since when the oldest one waits, in seconds since 1970; None if none
            does.
    """

    waiting: int
    dead: int
    oldest: float | None
