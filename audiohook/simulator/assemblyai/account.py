"""An account with the service: its jobs, what they cost, and its limits.

Time comes as an argument, in seconds of a clock that only goes forward; nothing
here waits or talks to anybody.
"""

from __future__ import annotations

import uuid
from collections import Counter, deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from audiohook.errors import AudioHookError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from audiohook.simulator.assemblyai.voices import Hearing

SECONDS = 1.0
MINUTES = 60 * SECONDS
HOURS = 60 * MINUTES
GIB = 1024 * 1024 * 1024

MAX_PAGE = 200
DEFAULT_PAGE = 10

_LOOKUP_ERROR = "Transcript lookup error, transcript id not found"
_RATE_WINDOW = 5 * MINUTES


class Refusal(AudioHookError):
    """An answer other than the one that was asked for.

    Attributes:
        status: HTTP status.
        headers: More headers of the answer.
    """

    def __init__(
        self, status: int, text: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers or {}


class Status(StrEnum):
    """States of a job on the wire."""

    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    ERROR = "error"


_FINAL = (Status.COMPLETED, Status.ERROR)


@dataclass(frozen=True, slots=True)
class Pace:
    """How long jobs take, in seconds.

    Attributes:
        queued: Before a job may begin.
        processing: From its beginning to its end, at least; fetching the audio
            is real and takes what it takes.
        a_minute_of_audio: More for each minute of audio.
    """

    queued: float = 0.0
    processing: float = 0.0
    a_minute_of_audio: float = 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What the service bears; the defaults are its own.

    Attributes:
        parallel: Jobs of an account that are processed at a time.
        requests: Requests of an account in five minutes.
        upload_bytes: Longest upload.
        media_bytes: Longest audio file.
        media_seconds: Longest audio.
        download: Seconds until the fetching of audio is given up.
    """

    parallel: int = 200
    requests: int = 20_000
    upload_bytes: int = int(2.2 * GIB)
    media_bytes: int = 5 * GIB
    media_seconds: float = 10 * HOURS
    download: float = 5 * MINUTES


@dataclass(slots=True, eq=False)
class Job:
    """A job, as the service knows it.

    Attributes:
        id: Name of the transcript.
        number: Place among the account's jobs, by age.
        parameters: The body of the request that made it.
        model: The model that transcribes it.
        language: Code of the language that is found.
        created: When it was made.
        status: Where it stands.
        ended: When it came to its final status.
        error: Why it failed.
        hearing: What was heard in the audio, once completed.
        deleted: Its owner had it deleted.
        webhook_status: What the receiver of its webhook answered.
    """

    id: str
    number: int
    parameters: Mapping[str, Any]
    model: str
    language: str
    created: float
    status: Status = Status.QUEUED
    ended: float | None = None
    error: str | None = None
    hearing: Hearing | None = None
    deleted: bool = False
    webhook_status: int | None = None

    @property
    def audio_url(self) -> str:
        """Where its audio is or was, with the query that it came with."""
        return str(self.parameters["audio_url"])

    @property
    def audio(self) -> str:
        """The part of the address that does not change when it is signed anew."""
        return urlsplit(self.audio_url).path

    @property
    def final(self) -> bool:
        """Whether it has ended."""
        return self.status in _FINAL


@dataclass(slots=True)
class AudioCount:
    """Jobs on one audio file.

    Attributes:
        submitted: How many were made.
        billed: How many of them cost money.
    """

    submitted: int = 0
    billed: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the list of jobs.

    Attributes:
        jobs: Newest first.
        older: There are older ones that match.
        newer: There are newer ones that match.
    """

    jobs: tuple[Job, ...]
    older: bool
    newer: bool


class Traffic:
    """Requests of everybody, whatever becomes of them.

    Attributes:
        requests: By kind.
        most_a_minute: Most in any 60 seconds.
    """

    def __init__(self) -> None:
        self._minute: deque[float] = deque()
        self.requests: Counter[str] = Counter()
        self.most_a_minute = 0

    def count(self, kind: str, now: float) -> None:
        """Counts a request."""
        self.requests[kind] += 1
        self._minute.append(now)
        self.most_a_minute = max(self.most_a_minute, self.last_minute(now))

    def last_minute(self, now: float) -> int:
        """Counts the requests of the last 60 seconds."""
        _forget(self._minute, now - MINUTES)
        return len(self._minute)


class Account:
    """All that the service knows of one customer.

    Args:
        limits: What the service bears.
        pace: How long jobs take.

    Attributes:
        jobs: By id, oldest first.
        audio: Jobs counted by the path of their audio.
        submitted: Jobs made.
        billed: Jobs that cost money: those that were completed.
        completed: Jobs that were completed.
        failed: Jobs that ended with an error.
        deleted: Jobs that were deleted.
        most_open: Most jobs that were not at their end at a time.
        most_parallel: Most jobs processed at a time.
    """

    def __init__(self, limits: Limits, pace: Pace) -> None:
        self._limits = limits
        self._pace = pace
        self._parallel = limits.parallel
        self._ages: list[Job] = []
        self._waiting: deque[Job] = deque()
        self._processing: set[str] = set()
        self._recent: deque[float] = deque()
        self.jobs: dict[str, Job] = {}
        self.audio: dict[str, AudioCount] = {}
        self.submitted = self.billed = self.completed = 0
        self.failed = self.deleted = 0
        self.most_open = self.most_parallel = 0

    @property
    def open(self) -> int:
        """Jobs that are not at their end."""
        return self.submitted - self.completed - self.failed

    @property
    def parallel(self) -> int:
        """Jobs that are being processed."""
        return len(self._processing)

    def admit(self, now: float) -> None:
        """Holds a request against the bound on their rate.

        Raises:
            Refusal: There were too many; it says when to come again.
        """
        _forget(self._recent, now - _RATE_WINDOW)
        if len(self._recent) >= self._limits.requests:
            wait = int(self._recent[0] + _RATE_WINDOW - now) + 1
            raise Refusal(429, "Too Many Requests", {"Retry-After": str(wait)})
        self._recent.append(now)

    def submit(
        self, parameters: Mapping[str, Any], *, model: str, language: str, now: float
    ) -> Job:
        """Makes a job, which waits for its turn."""
        job = Job(
            id=str(uuid.uuid4()),
            number=len(self._ages),
            parameters=parameters,
            model=model,
            language=language,
            created=now,
        )
        self.jobs[job.id] = job
        self._ages.append(job)
        self._waiting.append(job)
        self.audio.setdefault(job.audio, AudioCount()).submitted += 1
        self.submitted += 1
        self.most_open = max(self.most_open, self.open)
        return job

    def get(self, job_id: str) -> Job:
        """Looks a job up.

        Raises:
            Refusal: This account has none of that name.
        """
        job = self.jobs.get(job_id)
        if job is None:
            raise Refusal(400, _LOOKUP_ERROR)
        return job

    def delete(self, job_id: str) -> Job:
        """Deletes what a finished job holds; it stays in the list.

        Raises:
            Refusal: There is none of that name, or it has not ended: then it goes
                on as if nothing had been asked.
        """
        job = self.get(job_id)
        if not job.final:
            raise Refusal(400, _LOOKUP_ERROR)
        if not job.deleted:
            job.deleted = True
            job.hearing = None
            self.deleted += 1
        return job

    def page(
        self,
        matches: Callable[[Job], bool],
        *,
        limit: int = DEFAULT_PAGE,
        before_id: str | None = None,
        after_id: str | None = None,
    ) -> Page:
        """Gives a page of the list.

        Args:
            matches: Which jobs belong to the list.
            limit: How many at most.
            before_id: Only those older than this one.
            after_id: Only those newer than this one, the next ones to it.

        Raises:
            Refusal: There is none of such a name.
        """
        top = len(self._ages) if before_id is None else self.get(before_id).number
        floor = -1 if after_id is None else self.get(after_id).number
        if after_id is not None and before_id is None:
            found = _take(self._ages, range(floor + 1, top), matches, limit)
            found.reverse()
        else:
            found = _take(self._ages, range(top - 1, floor, -1), matches, limit)
        if not found:
            return Page((), older=False, newer=False)
        newest, oldest = found[0].number, found[-1].number
        beyond = range(newest + 1, len(self._ages))
        below = range(oldest - 1, -1, -1)
        return Page(
            tuple(found),
            older=bool(_take(self._ages, below, matches, 1)),
            newer=bool(_take(self._ages, beyond, matches, 1)),
        )

    def start(self, now: float, parallel: int | None = None) -> Job | float | None:
        """Gives the next job whose turn it is.

        Args:
            now: Seconds.
            parallel: How many may be processed at a time; by default the limit.

        Returns:
            A job, which is being processed from now on; or the time at which
            there will be one; or None if that depends on others.
        """
        self._parallel = parallel or self._limits.parallel
        if not self._waiting or len(self._processing) >= self._parallel:
            return None
        job = self._waiting[0]
        due = job.created + self._pace.queued
        if due > now:
            return due
        self._waiting.popleft()
        self._processing.add(job.id)
        self.most_parallel = max(self.most_parallel, len(self._processing))
        job.status = Status.PROCESSING
        return job

    def throttled(self, job: Job, now: float) -> bool:
        """Whether a job waits only for others of the account to end."""
        return (
            job.status is Status.QUEUED
            and job.created + self._pace.queued <= now
            and len(self._processing) >= self._parallel
        )

    def put_back(self, job: Job) -> None:
        """Has a job wait again whose processing was broken off."""
        self._processing.discard(job.id)
        self._waiting.appendleft(job)
        job.status = Status.QUEUED

    def complete(self, job: Job, hearing: Hearing, now: float) -> None:
        """Ends a job well, which costs money."""
        self._end(job, Status.COMPLETED, now)
        job.hearing = hearing
        self.completed += 1
        self.billed += 1
        self.audio[job.audio].billed += 1

    def fail(self, job: Job, error: str, now: float) -> None:
        """Ends a job with an error, which is free."""
        self._end(job, Status.ERROR, now)
        job.error = error
        self.failed += 1

    def _end(self, job: Job, status: Status, now: float) -> None:
        self._processing.discard(job.id)
        job.status = status
        job.ended = now


@dataclass(frozen=True, slots=True)
class Statistics:
    """Figures over all accounts.

    Attributes:
        submitted: Jobs made.
        billed: Jobs that cost money.
        completed: Jobs completed.
        failed: Jobs that ended with an error.
        deleted: Jobs deleted.
        open: Jobs that have not ended.
        most_open: Most of these at a time, in any one account.
        most_parallel: Most jobs processed at a time, in any one account.
        uploads: Files taken.
        upload_bytes: Their bytes.
        requests: By kind.
        requests_last_minute: In the last 60 seconds.
        most_requests_a_minute: Most in any 60 seconds.
        faults: By kind, how often.
        audio: By the path of the audio's address.
        webhooks_sent: Webhooks that were taken.
        webhooks_failed: Webhooks that were given up.
    """

    submitted: int
    billed: int
    completed: int
    failed: int
    deleted: int
    open: int
    most_open: int
    most_parallel: int
    uploads: int
    upload_bytes: int
    requests: Mapping[str, int]
    requests_last_minute: int
    most_requests_a_minute: int
    faults: Mapping[str, int]
    webhooks_sent: int
    webhooks_failed: int
    audio: Mapping[str, AudioCount] = field(repr=False)


def _forget(times: deque[float], until: float) -> None:
    """Drops the times that are past."""
    while times and times[0] <= until:
        times.popleft()


def _take(
    jobs: list[Job], numbers: range, matches: Callable[[Job], bool], limit: int
) -> list[Job]:
    """Gives the first few jobs that match, in the order of the numbers."""
    found: list[Job] = []
    for number in numbers:
        if len(found) == limit:
            break
        if matches(jobs[number]):
            found.append(jobs[number])
    return found
