"""What the API does with Genesys' operational events: take them, and list calls."""

from __future__ import annotations

import logging
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, cast

from audiohook.api.models import (
    GenesysEvents,
    MissedCalls,
    MissedQuery,
    ReportedEvent,
    TakenEvents,
)
from audiohook.logs import Limiter
from audiohook.missed.events import read_events
from audiohook.missed.review import Finding, review
from audiohook.recording.journal import utc_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from structlog.typing import FilteringBoundLogger

    from audiohook.api.operations import Ask
    from audiohook.index.keeper import CallIndex
    from audiohook.metrics import Metrics
    from audiohook.missed.ledger import EventLedger


class Missed:
    """Answers what is asked about calls that Genesys could not deliver.

    Args:
        ledger: Where its events are kept.
        index: What is recorded.
        waiting: Returns the conversations that are live, or wait to be stored.
        metrics: Counts.
        log: For lines about events.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        ledger: EventLedger,
        index: CallIndex,
        *,
        waiting: Callable[[], Awaitable[Collection[str]]],
        metrics: Metrics,
        log: FilteringBoundLogger,
        clock: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._index = index
        self._waiting = waiting
        self._metrics = metrics
        self._noise = Limiter(log)
        self._clock = clock

    async def take(self, ask: Ask) -> TakenEvents:
        """Takes events in whatever envelope they come."""
        value = cast("GenesysEvents", ask.body).root
        items = value if isinstance(value, list) else [value]
        now = self._clock()
        events = read_events(value, now=now)
        taken = await self._ledger.take(events, now) if events else 0
        known, ignored = len(events) - taken, len(items) - len(events)
        for word, number in (("taken", taken), ("known", known), ("ignored", ignored)):
            self._metrics.genesys_events.labels(word).inc(number)
        if taken:
            for event in events:
                self._noise.write(
                    logging.WARNING,
                    "genesys_reports",
                    code=event.code,
                    conversation=event.conversation or None,
                    mend="`audiohook missed` tells whether the call is recorded",
                )
        return TakenEvents(taken=taken, known=known, ignored=ignored)

    async def list(self, ask: Ask) -> MissedCalls:
        """Lists the events of a day, and what became of their calls."""
        asked = cast("MissedQuery", ask.query)
        day = datetime.fromtimestamp(self._clock(), UTC).date()
        if asked.day is not None:
            day = date.fromisoformat(asked.day)
        found = await review(self._ledger, self._index, day, await self._waiting())
        missed = {
            each.event.conversation for each in found if each.finding is Finding.MISSED
        }
        return MissedCalls(
            day=day.isoformat(),
            missed=sorted(missed),
            events=[
                ReportedEvent(
                    at=utc_text(each.event.at),
                    code=each.event.code,
                    conversation=each.event.conversation or None,
                    text=each.event.text,
                    finding=each.finding,
                )
                for each in found
            ],
        )
