"""One WAV file in a bucket, transcribed by whoever is told of it.

There is no spool here, and nothing that outlives a process but the bucket and the
account at the service. Any number of processes may be told of a file, at the same
time and as often as it pleases whoever tells them. What has been asked for is in the
job's object (`audiohook.storage.job_object`); what is next is decided as for calls
in the spool (`audiohook.transcription.job`), and done by the same code
(`audiohook.transcription.steps`).
"""

from __future__ import annotations

import logging
import math
import random
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import trio

from audiohook.errors import (
    JobHeldError,
    KeyExistsError,
    TranscriptError,
    UnfinishedError,
    UploadError,
)
from audiohook.logs import Limiter
from audiohook.recording.herald import Nobody
from audiohook.recording.transcripts import (
    Choice,
    JobStatus,
    TranscriptAgain,
    TranscriptSubmitted,
)
from audiohook.storage import call_json
from audiohook.storage.base import SigningStore, is_stores_own
from audiohook.storage.job_object import JobObject
from audiohook.storage.layout import transcript_key
from audiohook.transcription.base import TranscriptFault
from audiohook.transcription.decisions import decide
from audiohook.transcription.dockets import BucketDocket
from audiohook.transcription.job import Habits, Job, Request, Scope, assess
from audiohook.transcription.news import news_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from structlog.typing import FilteringBoundLogger

    from audiohook.recording.herald import Herald
    from audiohook.recording.transcripts import JobRecord, TranscriptPlanned
    from audiohook.transcription.dockets import SharedStore
    from audiohook.transcription.pace import Pace
    from audiohook.transcription.parameters import Parameters
    from audiohook.transcription.steps import Steps

SECONDS = 1.0
MINUTES = 60 * SECONDS

_RELEASE_DEADLINE: Final = 10 * SECONDS
# Somebody has to mend something first.
_MENDING: Final = 5 * MINUTES
# The recorder stores the call's JSON right after its WAV.
_SUMMARY_LOOK: Final = 2 * SECONDS
_SUMMARY_WAIT: Final = 10 * SECONDS
_COMMON: Final = frozenset({Scope.SERVICE, Scope.SUBMITS})


class Outcome(StrEnum):
    """What came of it, once nothing is left to be done."""

    COMPLETED = "completed"
    """The transcript is stored."""
    FAILED = "failed"
    """There will be no transcript."""
    LEFT_ALONE = "left_alone"
    """It was at its end already, or is for somebody else, or not worth it."""


class Patience:
    """How long somebody has time, which may end early.

    Args:
        until: In Trio's time.
    """

    def __init__(self, until: float = math.inf) -> None:
        self.until = until
        self._end = trio.Event()

    def end(self) -> None:
        """Have whoever waits stop; what is under way may come to its end."""
        self.until = -math.inf
        self._end.set()

    async def sleep_until(self, at: float) -> None:
        """Wait, unless it ends before."""
        with trio.move_on_at(min(at, self.until)):
            await self._end.wait()


class Errands:
    """Has WAV files in a bucket transcribed, each as somebody comes with it.

    Args:
        steps: Does what a job needs done.
        store: The bucket.
        pace: Lets requests pass.
        parameters: Say what is not worth a transcript, where nobody has decided.
        log: For lines about transcripts.
        deletes: Whether the service is to forget what is stored.
        progress: Told of a job that has to wait, and of what has failed, if it has.
        herald: Told of each job that is at its end.
        jitter: Returns numbers from 0 up to 1.
    """

    def __init__(
        self,
        steps: Steps,
        *,
        store: SharedStore,
        pace: Pace,
        parameters: Parameters,
        log: FilteringBoundLogger,
        deletes: bool = False,
        progress: Callable[[Job, Exception | None], None] = lambda _job, _trouble: None,
        herald: Herald | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._steps = steps
        self._herald = herald or Nobody()
        self._store = store
        self._pace = pace
        self._parameters = parameters
        self._log = log
        self._noise = Limiter(log)
        self._habits = Habits(
            uploads=not isinstance(store, SigningStore),
            deletes=deletes,
            is_told=False,
            jitter=jitter,
        )
        self._progress = progress

    async def see_to(self, wav_key: str, patience: Patience) -> Outcome:
        """Have a WAV file transcribed, or go on where another try has ended.

        It is safe to call this for the same file any number of times, at once or one
        after the other, here and on other machines: one transcript is paid for.

        Args:
            wav_key: Key of the file, see `audiohook.storage.layout.is_wav_key`.
            patience: How long there is time. It ends between two steps, so a little
                later than that.

        Returns:
            What came of it.

        Raises:
            UnfinishedError: It is not at its end; a later try goes on with it.

        *Cancellation:* What was asked for is found by a later try.
        """
        async with _to_be_finished():
            return await self._see_to(wav_key, patience)

    async def order(
        self,
        planned: TranscriptPlanned,
        patience: Patience,
        *,
        known_id: str | None = None,
        again: bool = False,
    ) -> Outcome:
        """Have a WAV file transcribed because somebody says so; otherwise as `see_to`.

        What was given up or skipped is tried anew. Where an earlier order, or
        somebody who was told of the file, has not come to an end, it is gone on with.

        Args:
            planned: The file.
            patience: How long there is time.
            known_id: Id of a job of the past, which is not to be taken for this one.
            again: Ask for another transcript if there is one.

        Raises:
            UnfinishedError: It is not at its end; a later try goes on with it.

        *Cancellation:* What was asked for is found by a later try.
        """
        async with _to_be_finished():
            return await self._order(planned, patience, known_id, again=again)

    async def _order(
        self,
        planned: TranscriptPlanned,
        patience: Patience,
        known_id: str | None,
        *,
        again: bool,
    ) -> Outcome:
        key = planned.key
        job_object = await JobObject.open(self._store, key)
        record = job_object.record
        if record is None:
            job_object.note(planned)
            if known_id is not None:
                job_object.note(TranscriptSubmitted(key, known_id))
            job_object.note(TranscriptAgain(key))
        elif record.is_final and (again or record.stored is None):
            job_object.note(TranscriptAgain(key))
        return await self._claim(job_object, planned, patience)

    async def _see_to(self, wav_key: str, patience: Patience) -> Outcome:
        job_object = await JobObject.open(self._store, wav_key)
        record = job_object.record
        if job_object.is_settled:
            return self._leave(wav_key, "it is at its end")
        if record is None:
            planned = await self._decide(wav_key, patience)
            if planned is None:
                return Outcome.LEFT_ALONE
        else:
            planned = record.planned
        return await self._claim(job_object, planned, patience)

    async def _claim(
        self, job_object: JobObject, planned: TranscriptPlanned, patience: Patience
    ) -> Outcome:
        try:
            record = await job_object.claim(planned)
            await self._follow(record, job_object, patience)
            # Before it counts as settled: nobody comes back to it after that.
            if record.planned.deletes_audio and record.stored is not None:
                await self._store.purge(record.planned.key)
                await call_json.tell_deleted(self._store, record.planned.key)
            await self._herald.transcribed_elsewhere(record)
            await job_object.settle()
        finally:
            await self._release(job_object)
        if record.status is JobStatus.COMPLETED:
            return Outcome.COMPLETED
        return Outcome.FAILED

    async def _decide(
        self, wav_key: str, patience: Patience
    ) -> TranscriptPlanned | None:
        """Return what is to be done with a file that nobody has begun with."""
        planned = await self._wait_decided(wav_key, patience)
        if planned is None:
            self._leave(wav_key, "it is not in the bucket any more")
            return None
        if planned.choice is not Choice.TRANSCRIBE:
            self._leave(wav_key, planned.reason or planned.choice)
            return None
        if await self._store.size(transcript_key(wav_key, ".json")) is not None:
            self._leave(wav_key, "there is a transcript that somebody else asked for")
            return None
        return planned

    async def _wait_decided(
        self, wav_key: str, patience: Patience
    ) -> TranscriptPlanned | None:
        """Wait a moment for the call's JSON: the event may be faster."""
        end = min(trio.current_time() + _SUMMARY_WAIT, patience.until)
        while True:
            try:
                return await decide(self._store, wav_key, self._parameters)
            except UnfinishedError:
                again = trio.current_time() + _SUMMARY_LOOK
                if again > end:
                    raise
            await patience.sleep_until(again)

    def _leave(self, wav_key: str, reason: str) -> Outcome:
        self._log.info("call_left_alone", audio=wav_key, reason=reason)
        return Outcome.LEFT_ALONE

    async def _release(self, job_object: JobObject) -> None:
        with trio.move_on_after(_RELEASE_DEADLINE, shield=True):
            try:
                await job_object.release()
            except UploadError as error:
                # Others wait until the lease is over.
                self._log.debug("job_not_released", error=str(error))

    async def _follow(
        self, record: JobRecord, job_object: JobObject, patience: Patience
    ) -> None:
        """Do one step after the other until nothing is left to be done."""
        job = Job(record, self._habits, trio.current_time())
        docket = BucketDocket(self._store, job_object, job.key)
        last: Exception | None = None
        while job.request is not Request.FINISH or last is not None:
            await self._wait_due(job, job_object, patience, last)
            try:
                await job_object.commit()
                last = await self._step(job, docket)
                await job_object.commit()
            except JobHeldError:
                raise
            except UploadError as error:
                last = error
                self._judge(error)
                job.put_off(trio.current_time())
        while True:
            try:
                await call_json.tell(self._store, record)
            except UploadError as error:
                self._judge(error)
                job.put_off(trio.current_time())
                await self._wait_due(job, job_object, patience, error)
            else:
                return

    async def _step(self, job: Job, docket: BucketDocket) -> TranscriptError | None:
        """Do what is next; return how the service failed, if that may pass."""
        record = job.record
        before = record.status, record.failures
        try:
            match job.request:
                case Request.FINISH:
                    # Only what is known has still to be written.
                    return None
                case Request.LOOK_UP:
                    await self._steps.look_up([(job, docket)])
                case Request.DELETE:
                    await call_json.tell(self._store, record)
                    await self._steps.perform(job, docket)
                case _:
                    await self._steps.perform(job, docket)
        except TranscriptError as error:
            await self._note_trouble(job, docket, error)
            return error
        finally:
            self._tell(record, *before)
        if record.status is JobStatus.PARKED and before != (
            record.status,
            record.failures,
        ):
            await self._park(job, docket, record.parked or "", is_common=False)
        return None

    async def _note_trouble(
        self, job: Job, docket: BucketDocket, error: TranscriptError
    ) -> None:
        trouble = assess(error)
        if error.fault == TranscriptFault.BUSY:
            self._pace.hold(error.retry_after)
        await docket.commit()
        if trouble.lasting and job.record.status is JobStatus.PARKED:
            await self._park(
                job, docket, str(error), is_common=trouble.scope in _COMMON
            )
        if trouble.lasting and trouble.scope in _COMMON:
            raise UnfinishedError(str(error), seconds=_MENDING, is_common=True)
        self._noise.write(
            logging.WARNING, "transcription_fails", audio=job.key, error=str(error)
        )

    async def _park(
        self, job: Job, docket: BucketDocket, reason: str, *, is_common: bool
    ) -> None:
        """Leave a job to a later try, once somebody has mended something.

        Raises:
            UnfinishedError: Always.
        """
        await docket.commit()
        await call_json.tell(self._store, job.record)
        raise UnfinishedError(reason, seconds=_MENDING, is_common=is_common)

    def _judge(self, error: UploadError) -> None:
        """Go on after a failure of the store only if it may pass."""
        if isinstance(error, KeyExistsError) or not error.retryable:
            raise error

    async def _wait_due(
        self,
        job: Job,
        job_object: JobObject,
        patience: Patience,
        last: Exception | None,
    ) -> None:
        """Wait until a job may be seen to, and keep it in hand meanwhile."""
        while True:
            now = trio.current_time()
            if now >= patience.until or job.due >= patience.until:
                raise UnfinishedError(
                    f"not done yet: {last or job.state}",
                    seconds=max(0.0, job.due - now),
                    is_common=_is_common(last),
                )
            if job.due <= now:
                return
            self._progress(job, last)
            await patience.sleep_until(min(job.due, job_object.renew_at))
            if trio.current_time() >= job_object.renew_at:
                await self._renew(job_object)

    async def _renew(self, job_object: JobObject) -> None:
        try:
            await job_object.renew()
        except JobHeldError:
            raise
        except UploadError as error:
            # Before anything is asked for, it has to be in hand anyway.
            self._log.debug("job_not_renewed", error=str(error))
            await trio.sleep(1 * SECONDS)

    def _tell(self, record: JobRecord, status: JobStatus, failures: int) -> None:
        """Say what a step has brought, if it is worth a line."""
        news = news_of(record, status, failures)
        if news is not None:
            self._log.log(news.level, news.event, **news.values)


@asynccontextmanager
async def _to_be_finished() -> AsyncIterator[None]:
    """Say of failures of the store that a later try goes on."""
    try:
        yield
    except JobHeldError as error:
        raise UnfinishedError(str(error), seconds=error.seconds) from error
    except UploadError as error:
        raise UnfinishedError(
            str(error),
            seconds=0.0 if error.retryable else _MENDING,
            is_common=is_stores_own(error),
        ) from error


def _is_common(error: Exception | None) -> bool:
    """Tell whether other jobs would have met the same failure."""
    if isinstance(error, TranscriptError):
        return assess(error).scope in _COMMON
    return isinstance(error, UploadError) and is_stores_own(error)
