"""What waits in a service, for people, and a way to have it tried again."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import trio

from audiohook.errors import SpoolError, UploadError
from audiohook.web.surroundings import Spooled, WaitingCall, WaitingView

if TYPE_CHECKING:
    from collections.abc import Callable

    from audiohook.admin.figures import Lookout
    from audiohook.storage.delivery import Deliveries, WaitingDelivery
    from audiohook.transcription.scheduler import Transcriptions, WaitingJob


class Backlog:
    """Looks at what is not done.

    Args:
        deliveries: Calls on their way to the store.
        transcriptions: Calls that wait for their transcripts; None if it is off.
        lookout: Looks at the disk.
        store_fault: Returns why the store is not used; None if it is.
    """

    def __init__(
        self,
        deliveries: Deliveries,
        transcriptions: Transcriptions | None,
        lookout: Lookout,
        *,
        store_fault: Callable[[], str | None],
    ) -> None:
        self._deliveries = deliveries
        self._transcriptions = transcriptions
        self._lookout = lookout
        self._store_fault = store_fault

    async def look(self, most: int) -> WaitingView:
        """Looks once.

        Args:
            most: So many of the oldest calls of each kind are looked at.
        """
        await self._lookout.look()
        deliveries = self._deliveries.statistics()
        now = trio.current_time()
        waiting = [_delivery(each, now) for each in self._deliveries.oldest(most)]
        parked = [each for each in waiting if each.mend]
        jobs, parked_jobs, fault = None, 0, None
        if self._transcriptions is not None:
            transcriptions = self._transcriptions.statistics()
            jobs, parked_jobs = transcriptions.jobs, transcriptions.parked
            fault = transcriptions.fault
            waiting += [_job(each, now) for each in self._transcriptions.oldest(most)]
            found = self._transcriptions.oldest(most, parked=True)
            parked += [_job(each, now) for each in found]
        return WaitingView(
            spool=self._spooled(),
            uploads={"waiting": deliveries.waiting, "active": deliveries.active},
            store_fault=self._store_fault(),
            jobs=jobs,
            parked_jobs=parked_jobs,
            transcription_fault=fault,
            oldest=heapq.nsmallest(most, waiting, key=lambda each: each.started_at),
            parked=heapq.nsmallest(most, parked, key=lambda each: each.started_at),
        )

    def retry(self) -> None:
        """Tries all of it again at once."""
        self._deliveries.retry()
        if self._transcriptions is not None:
            self._transcriptions.retry()

    def _spooled(self) -> Spooled | None:
        spool = self._lookout.latest.spool
        if spool is None:
            return None
        return Spooled(
            calls=spool.calls,
            used_bytes=spool.used_bytes,
            oldest_seconds=spool.oldest_seconds,
            aside=spool.aside,
            free_bytes=spool.free_bytes,
        )


def _delivery(waiting: WaitingDelivery, now: float) -> WaitingCall:
    opened, error = waiting.call.record.opened, waiting.error
    reason = None
    if error is not None:
        known = isinstance(error, UploadError | SpoolError)
        reason = str(error) if known else "unexpected failure: see the log"
    return WaitingCall(
        session=opened.session_id,
        conversation=opened.conversation_id,
        started_at=opened.started_at,
        awaits="store",
        state="waiting" if waiting.tries else "ready",
        tries=waiting.tries,
        reason=reason,
        mend=isinstance(error, UploadError) and not error.retryable,
        again_in=None if waiting.due is None else max(0.0, waiting.due - now),
    )


def _job(waiting: WaitingJob, now: float) -> WaitingCall:
    opened = waiting.call.record.opened
    return WaitingCall(
        session=opened.session_id,
        conversation=opened.conversation_id,
        started_at=opened.started_at,
        awaits="transcript",
        state="parked" if waiting.parked is not None else str(waiting.state),
        tries=waiting.failures,
        reason=waiting.parked if waiting.parked is not None else waiting.reason,
        mend=waiting.parked is not None,
        again_in=max(0.0, waiting.due - now),
    )
