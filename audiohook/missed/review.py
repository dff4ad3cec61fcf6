"""Which calls Genesys failed to send us: its events, held against the recordings."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from audiohook.index.search import Query

if TYPE_CHECKING:
    from collections.abc import Collection

    from audiohook.index.keeper import CallIndex
    from audiohook.missed.events import GenesysEvent
    from audiohook.missed.ledger import EventLedger

MOST_EVENTS: Final = 10_000
"""Of a day; whoever has more of them need not know each."""


class Finding(StrEnum):
    """What became of a call of which Genesys reports a fault."""

    MISSED = "missed"
    """There is no recording of the conversation at all."""
    RECORDED = "recorded"
    """There is one, at least of a part."""
    WAITING = "waiting"
    """It is live here, or waits to be stored."""
    UNKNOWN = "unknown"
    """The event names no conversation."""


@dataclass(frozen=True, slots=True)
class Reported:
    """An event, and what became of its call.

    Attributes:
        event: It.
        finding: What became of the call.
    """

    event: GenesysEvent
    finding: Finding


def bounds_of(day: date) -> tuple[float, float]:
    """Return when a day begins and ends in UTC, in seconds since 1970."""
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return begin.timestamp(), (begin + timedelta(days=1)).timestamp()


async def review(
    ledger: EventLedger,
    index: CallIndex,
    day: date,
    waiting: Collection[str] = (),
) -> list[Reported]:
    """Hold the events of a day against what is recorded.

    Args:
        ledger: Genesys' events.
        index: Recordings.
        day: In UTC.
        waiting: Conversations that are live, or wait to be stored.

    Returns:
        The oldest first.

    Raises:
        CallIndexError: Either cannot be read.
    """
    known: dict[str, Finding] = {"": Finding.UNKNOWN}
    found = []
    for event in await ledger.between(*bounds_of(day), MOST_EVENTS):
        finding = known.get(event.conversation)
        if finding is None:
            finding = await _look(index, event.conversation, waiting)
            known[event.conversation] = finding
        found.append(Reported(event, finding))
    return found


async def _look(
    index: CallIndex, conversation: str, waiting: Collection[str]
) -> Finding:
    if conversation in waiting:
        return Finding.WAITING
    if await index.search(Query(conversation=conversation), 1):
        return Finding.RECORDED
    return Finding.MISSED
