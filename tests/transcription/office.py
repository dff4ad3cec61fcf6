"""The scheduler among fakes: calls, a store and a service that only keep count."""

from __future__ import annotations

import itertools
import math
import random
import uuid
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import structlog
import trio

from audiohook.errors import UploadError
from audiohook.metrics import Metrics
from audiohook.recording.journal import utc_text
from audiohook.recording.record import CallRecord
from audiohook.recording.transcripts import (
    Choice,
    TranscriptObject,
    TranscriptPlanned,
)
from audiohook.transcription.base import Transcript, TranscriptStatus
from audiohook.transcription.job import Request
from audiohook.transcription.scheduler import Transcriptions
from tests.recording.factory import make_opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from audiohook.errors import TranscriptError
    from audiohook.recording.spool import Spool
    from audiohook.recording.spooled import SpooledCall
    from audiohook.recording.transcripts import TranscriptFact
    from audiohook.storage.transcripts import TranscriptShelf
    from audiohook.transcription.job import Job
    from audiohook.transcription.pace import Pace
    from audiohook.transcription.steps import Docket, Steps

MINUTES = 60.0


class Call:
    """A call that is stored; it began so many seconds after the first."""

    def __init__(self, number: int, *facts: TranscriptFact) -> None:
        session, started_at = (
            str(uuid.UUID(int=number)),
            utc_text(1_700_000_000 + number),
        )
        opened = make_opened(session_id=session, started_at=started_at)
        self.key = f"calls/{number}/audio/{number}.wav"
        self.record = CallRecord(opened)
        self.record.apply(TranscriptPlanned(self.key, Choice.TRANSCRIBE))
        for fact in facts:
            self.record.apply(fact)
        self.released = False

    def release(self) -> None:
        self.released = True


class _Spool:
    def append(self, call: Call, fact: TranscriptFact) -> None:
        call.record.apply(fact)

    async def commit(self, call: Call, *facts: TranscriptFact) -> None:
        await trio.lowlevel.checkpoint()
        for fact in facts:
            self.append(call, fact)


@dataclass
class _Shelf:
    finished: list[str] = field(default_factory=list)
    updates: int = 0
    signs: bool = True
    is_away: bool = False

    async def update(self, _: Call) -> None:
        await trio.lowlevel.checkpoint()
        if self.is_away:
            raise UploadError("it is away")
        self.updates += 1

    async def finish(self, call: Call) -> None:
        await trio.lowlevel.checkpoint()
        (job,) = call.record.jobs.values()
        self.finished.append(job.planned.key)


@dataclass
class Office:
    """A service that takes its time, and whoever sends to it.

    Attributes:
        seconds: How long a job takes, by the key of its file.
        fault: What any request meets; it may say None.
        requests: Kind and time of each.
        began: When each file's last job was made.
        polled: When each file's job was asked for.
        open: Jobs that are under way.
        most_open: Most of these at a time.
    """

    seconds: Callable[[str], float]
    pace: Pace
    fault: Callable[[Request], TranscriptError | None] = lambda _: None
    requests: list[tuple[Request, float]] = field(default_factory=list)
    began: dict[str, float] = field(default_factory=dict)
    polled: dict[str, list[float]] = field(default_factory=dict)
    open: int = 0
    most_open: int = 0
    shelf: _Shelf = field(default_factory=_Shelf)
    _ends: dict[str, float] = field(default_factory=dict)
    _ids: itertools.count[int] = field(default_factory=itertools.count)

    def begin(self, key: str, transcript_id: str) -> None:
        """Begins a job, whoever asked for it."""
        self.began[key] = trio.current_time()
        self._ends[transcript_id] = self.began[key] + self.seconds(key)
        self.open += 1
        self.most_open = max(self.most_open, self.open)

    async def perform(self, job: Job, docket: Docket) -> None:
        """Does what `Steps.perform` does, but for the network and the texts."""
        request = job.request
        await self.pace.wait()
        now = trio.current_time()
        self.requests.append((request, now))
        error = self.fault(request)
        if error is not None:
            docket.note(*job.refused(request, error, now))
            raise error
        if request is Request.SUBMIT:
            await docket.commit(job.intend(f"https://store/{job.key}", now))
            transcript_id = f"t{next(self._ids)}"
            self.begin(job.key, transcript_id)
            docket.note(*job.submitted(transcript_id, trio.current_time()))
            return
        if request is Request.DELETE:
            assert job.record.stored is not None
            docket.note(*job.deleted(job.traces or "", now))
            return
        assert request is Request.FETCH
        self.polled.setdefault(job.key, []).append(now)
        transcript_id = job.record.current or ""
        is_done = self._ends[transcript_id] <= now
        status = TranscriptStatus.COMPLETED if is_done else TranscriptStatus.PROCESSING
        transcript = Transcript(transcript_id, status, None, "", {"text": "x"})
        if not is_done:
            docket.note(*job.fetched(transcript, now))
            return
        self.open -= 1
        objects: Sequence[TranscriptObject] = ()
        docket.note(*job.stored(transcript, objects, now))

    async def look_up(self, jobs: Sequence[tuple[Job, Docket]]) -> None:
        """Finds nothing."""
        began = trio.current_time()
        await self.pace.wait()
        for job, docket in jobs:
            docket.note(*job.looked_up(None, began, trio.current_time()))

    def most_a_minute(self) -> int:
        """Returns the most requests in any 60 seconds."""
        recent: deque[float] = deque()
        most = 0
        for _, at in self.requests:
            recent.append(at)
            while recent[0] <= at - MINUTES:
                recent.popleft()
            most = max(most, len(recent))
        return most


@asynccontextmanager
async def scheduling(
    office: Office,
    calls: Iterable[Call],
    *,
    parallel: int,
    held_limit: int = 20_000,
    deletes: bool = False,
) -> AsyncIterator[Transcriptions]:
    """Has a scheduler see to some calls while the block lasts."""
    # Reproducible, not secret.
    chance = random.Random(7)
    jobs = Transcriptions(
        cast("Steps", office),
        spool=cast("Spool", _Spool()),
        shelf=cast("TranscriptShelf", office.shelf),
        pace=office.pace,
        metrics=Metrics(),
        log=structlog.get_logger("audiohook"),
        parallel=parallel,
        deletes=deletes,
        held_limit=held_limit,
        jitter=chance.random,
    )
    for call in calls:
        jobs.add(cast("SpooledCall", call))
    async with trio.open_nursery() as nursery:
        await nursery.start(jobs.run)
        yield jobs
        nursery.cancel_scope.cancel()


def never(_: Any) -> float:  # noqa: ANN401
    return math.inf
