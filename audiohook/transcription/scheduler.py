"""When each job is seen to, and by how many at a time.

One scheduler holds all jobs of a process. A job that waits is an entry in a heap and
a locked journal; it has no task, no audio and no text in memory.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import random
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from audiohook.breaker import Breaker
from audiohook.errors import SpoolError, TranscriptError, UploadError
from audiohook.logs import Limiter
from audiohook.recording.herald import Nobody
from audiohook.recording.transcripts import JobStatus, TranscriptParked
from audiohook.transcription.agenda import Agenda, Entry, Held
from audiohook.transcription.base import TranscriptFault
from audiohook.transcription.dockets import SpoolDocket
from audiohook.transcription.job import Habits, Job, Request, Scope, State, assess
from audiohook.transcription.news import Upshot, news_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from structlog.typing import FilteringBoundLogger

    from audiohook.metrics import Metrics
    from audiohook.recording.herald import Herald
    from audiohook.recording.spool import Spool
    from audiohook.recording.spooled import SpooledCall
    from audiohook.recording.transcripts import TranscriptFact
    from audiohook.storage.transcripts import TranscriptShelf
    from audiohook.transcription.pace import Pace
    from audiohook.transcription.steps import Steps

SECONDS = 1.0
MINUTES = 60 * SECONDS

HELD_LIMIT: Final = 20_000
"""Calls that wait here; each keeps a file open. Others wait in the spool alone."""

# Of all requests that may be made, at most one in so many asks how far a job is, so
# that with thousands of open jobs there is room for new ones, and for texts.
_POLLS_SHARE: Final = 2
# Steps at a time. Each may hold a transcript in memory.
_WORKERS: Final = 16
# How often one failure of the service is told.
_TELL_INTERVAL: Final = 1 * MINUTES
# How long something has to need mending before the JSON of all calls that wait for
# it says so; a short while is not worth storing thousands of objects twice.
_MARK_AFTER: Final = 1 * MINUTES


@dataclass(frozen=True, slots=True)
class TranscriptionStatistics:
    """How the transcriptions stand.

    Attributes:
        calls: Calls that wait here for their transcripts.
        jobs: Their jobs, by `audiohook.transcription.job.State`.
        parked: Jobs among them that wait until somebody mends something.
        active: Steps that are under way.
        completed: Transcripts stored so far.
        failed: Files given up so far.
        failures: Requests that failed so far.
        fault: Why the service is not asked, but for trials; None if it is.
    """

    calls: int
    jobs: Mapping[str, int]
    parked: int
    active: int
    completed: int
    failed: int
    failures: int
    fault: str | None


@dataclass(frozen=True, slots=True)
class WaitingJob:
    """A job that is not done.

    Attributes:
        call: Its call.
        key: Its WAV file.
        state: Where it stands.
        parked: What is to be mended first; None if nothing is.
        reason: Why it failed last; None if it did not.
        failures: Times that the service has failed it.
        due: When it is seen to next, in seconds of Trio's clock.
    """

    call: SpooledCall
    key: str
    state: State
    parked: str | None
    reason: str | None
    failures: int
    due: float


class _Line:
    """What is asked for in the same way, and fails in the same way.

    Args:
        jitter: Returns numbers from 0 up to 1.

    Attributes:
        breaker: Whether it is worth asking.
        lasting_since: Since when somebody has to mend something; `math.inf` if
            nobody has.
    """

    __slots__ = ("breaker", "lasting_since")

    def __init__(self, jitter: Callable[[], float]) -> None:
        self.breaker: Breaker[TranscriptError] = Breaker(jitter)
        self.lasting_since = math.inf

    def succeed(self) -> None:
        """Note that it works."""
        self.breaker.succeed()
        self.lasting_since = math.inf

    def fail(
        self, attempt: int, error: TranscriptError, now: float, *, lasting: bool
    ) -> None:
        """Note that it does not, see `Breaker.fail`."""
        self.breaker.fail(attempt, error, now, lasting=lasting)
        if not lasting:
            self.lasting_since = math.inf
        elif self.lasting_since == math.inf:
            self.lasting_since = now


class Transcriptions:
    """Has all stored calls transcribed, each until its transcripts are stored.

    A job that fails waits for a growing, jittered pause. If it is the service that
    fails, or the account, all wait: one after another tries, until something gets
    through.

    Args:
        steps: Does what a job needs done.
        spool: Where the calls are.
        shelf: Where their transcripts go.
        pace: Lets requests pass.
        metrics: Counts.
        log: For lines about transcripts and the service.
        parallel: Most jobs that the service works on at a time.
        deletes: Whether the service is to forget what is stored.
        is_told: Whether webhooks say when a job is done.
        held_limit: Most calls that wait here.
        herald: Told of each job that is at its end.
        jitter: Returns numbers from 0 up to 1.
    """

    def __init__(
        self,
        steps: Steps,
        *,
        spool: Spool,
        shelf: TranscriptShelf,
        pace: Pace,
        metrics: Metrics,
        log: FilteringBoundLogger,
        parallel: int,
        deletes: bool = False,
        is_told: bool = False,
        held_limit: int = HELD_LIMIT,
        herald: Herald | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._steps = steps
        self._spool = spool
        self._shelf = shelf
        self._pace = pace
        self._metrics = metrics
        self._log = log
        self._noise = Limiter(log)
        self._parallel = parallel
        self._held_limit = held_limit
        self._herald = herald or Nobody()
        self._habits = Habits(
            uploads=not shelf.signs, deletes=deletes, is_told=is_told, jitter=jitter
        )
        self._service = _Line(jitter)
        self._submits = _Line(jitter)
        self._order = itertools.count()
        self._held: dict[SpooledCall, Held] = {}
        self._by_id: dict[str, Entry] = {}
        self._agenda = Agenda()
        self._news = trio.Event()
        self._change = trio.Event()
        self._active = 0
        self._open = 0
        self._searching = False
        self._stopping = False
        self._completed = 0
        self._failed = 0
        self._failures = 0
        self._told: tuple[str, float] | None = None
        self._told_of_trouble = False

    def add(self, call: SpooledCall) -> None:
        """Take a call that is stored and waits for its transcripts.

        If too many wait already it is released; it stays in the spool, and is
        adopted from there once there is room.
        """
        if not self.room or self._stopping:
            call.release()
            return
        now = trio.current_time()
        held = self._held[call] = Held(call)
        for record in call.record.jobs.values():
            job = Job(record, self._habits, now)
            held.entries.append(Entry(held, job, next(self._order)))
        for entry in held.entries:
            self._reckon(entry)
            self._place(entry)

    def take_out(self, wanted: Callable[[SpooledCall], bool]) -> list[SpooledCall]:
        """Give calls up that wait here; whoever asks owns them from then on.

        One of which something is being done at this moment is not among them: ask
        again. Webhooks for its jobs are nobody's from then on.

        Args:
            wanted: Tells which.
        """
        taken = [
            held
            for held in self._held.values()
            if wanted(held.call)
            and not held.lock.locked()
            and not any(entry.is_busy for entry in held.entries)
        ]
        for held in taken:
            del self._held[held.call]
            for entry in held.entries:
                self._reckon(entry)
                self._agenda.strike(entry)
        if taken:
            self._change.set()
            self._change = trio.Event()
        return [held.call for held in taken]

    def tell(self, transcript_id: str) -> bool:
        """Take a webhook: a job has ended, so that it is worth asking.

        Returns:
            Whether the job is one of ours.
        """
        entry = self._by_id.get(transcript_id)
        if entry is None:
            return False
        if entry.is_busy:
            entry.is_told = True
        else:
            entry.job.due = trio.current_time()
            self._place(entry)
        return True

    @property
    def room(self) -> int:
        """How many more calls can wait here; others are to wait in the spool."""
        return max(0, self._held_limit - len(self._held))

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """See to jobs until cancelled.

        *Cancellation:* Calls are released and stay in the spool, where the next
        process finds them.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._mark_parked)
                task_status.started()
                while True:
                    work = await self._next()
                    self._active += 1
                    nursery.start_soon(work)
        finally:
            for held in list(self._held.values()):
                self._let_go(held)

    async def stop(self) -> None:
        """Begin nothing more, and wait until what is under way is done.

        A request that is cut off would have to be looked for by the next process.
        """
        self._stopping = True
        while self._active:
            await self._change.wait()

    async def wait_settled(self) -> None:
        """Wait until nothing is left to do but what has to be mended first."""
        while self._held and not self._is_stuck():
            await self._change.wait()

    def statistics(self) -> TranscriptionStatistics:
        """Return how the transcriptions stand."""
        jobs: Counter[str] = Counter(dict.fromkeys(State, 0))
        parked = 0
        for entry in self._entries():
            jobs[entry.job.state] += 1
            parked += entry.job.record.status is JobStatus.PARKED
        fault = self._fault()
        return TranscriptionStatistics(
            calls=len(self._held),
            jobs=dict(jobs),
            parked=parked,
            active=self._active,
            completed=self._completed,
            failed=self._failed,
            failures=self._failures,
            fault=None if fault is None else str(fault),
        )

    def oldest(self, most: int, *, parked: bool = False) -> list[WaitingJob]:
        """Return so many of the jobs, those of the oldest calls first.

        Args:
            most: How many.
            parked: Only those that wait until somebody mends something.
        """
        wanted = (
            entry
            for entry in self._entries()
            if not parked or entry.job.record.parked is not None
        )
        first = heapq.nsmallest(most, wanted, key=lambda entry: entry.age[:2])
        return [
            WaitingJob(
                each.held.call,
                each.job.key,
                each.job.state,
                each.job.record.parked,
                each.job.record.last_reason,
                each.job.record.failures,
                each.job.due,
            )
            for each in first
        ]

    def retry(self) -> None:
        """Try everything again that has failed: somebody has mended something."""
        now = trio.current_time()
        for entry in list(self._entries()):
            has_failed = entry.job.failed_tries or entry.job.record.parked is not None
            if has_failed and not entry.is_busy and entry.job.due > now:
                entry.job.due = now
                self._place(entry)
        for line in (self._service, self._submits):
            line.breaker.hurry()
        self._news.set()

    def _entries(self) -> Iterator[Entry]:
        # One after another: whoever looks for the first of some kind looks often.
        return (entry for held in self._held.values() for entry in held.entries)

    def _fault(self) -> TranscriptError | None:
        return self._service.breaker.fault or self._submits.breaker.fault

    def _is_stuck(self) -> bool:
        if self._active:
            return False
        if self._service.breaker.is_open:
            return True
        return all(
            entry.job.record.parked is not None
            or (self._submits.breaker.is_open and entry.job.state in _UNSENT)
            for entry in self._entries()
        )

    # Who is next

    def _place(self, entry: Entry) -> None:
        self._agenda.place(entry, trio.current_time())
        self._news.set()

    async def _next(self) -> Callable[[], Awaitable[None]]:
        """Wait for something to do, and return what does it."""
        while True:
            self._news = trio.Event()
            now = trio.current_time()
            wake = self._agenda.wake(now)
            if self._active < _WORKERS and not self._stopping:
                work, at = self._choose(now)
                if work is not None:
                    return work
                wake = min(wake, at)
            with trio.move_on_at(wake):
                await self._news.wait()

    def _choose(self, now: float) -> tuple[Callable[[], Awaitable[None]] | None, float]:
        """Return what to do, or else when to look again."""
        entry = self._agenda.next_settled()
        if entry is not None:
            return self._begin(entry, self._finish), math.inf
        service = self._service.breaker
        if service.next_at > now:
            return None, service.next_at
        if self._agenda.has_doubtful and not self._searching:
            return self._begin_search(), math.inf
        entry = self._agenda.next_ready(fewest_tries=service.is_open)
        if entry is None and self._open < self._parallel:
            submits = self._submits.breaker
            if submits.next_at > now:
                return None, submits.next_at if self._agenda.has_unsent else math.inf
            either = service.is_open or submits.is_open
            entry = self._agenda.next_unsent(fewest_tries=either)
        if entry is None:
            return None, math.inf
        return self._begin(entry, self._step), math.inf

    def _begin(
        self, entry: Entry, work: Callable[[Entry, int, int], Awaitable[None]]
    ) -> Callable[[], Awaitable[None]]:
        entry.is_busy = True
        finishes = entry.job.request is Request.FINISH
        attempt = 0 if finishes else self._service.breaker.begin()
        submit = 0
        if entry.job.request in (Request.UPLOAD, Request.SUBMIT):
            submit = self._submits.breaker.begin()
            self._count_open(entry, is_open=True)
        return lambda: work(entry, attempt, submit)

    def _begin_search(self) -> Callable[[], Awaitable[None]]:
        entries = [each for each in self._agenda.all_doubtful() if self._is_here(each)]
        for entry in entries:
            entry.is_busy = True
        self._searching = True
        attempt = self._service.breaker.begin()
        return lambda: self._search(entries, attempt)

    def _is_here(self, entry: Entry) -> bool:
        return entry.held.call in self._held

    # What is done

    async def _step(self, entry: Entry, attempt: int, submit: int) -> None:
        """Do one step of a job that needs the service."""
        job, held = entry.job, entry.held
        request, before = job.request, (job.record.status, job.record.failures)

        async def work() -> None:
            if request is Request.DELETE:
                # The store has to know first.
                await self._update(held)
            await self._steps.perform(job, self._docket(entry))
            self._succeed(request)

        await self._try(work, [entry], attempt, submit)
        self._tell_of_job(entry, *before)
        has_failed = not job.record.is_final and job.record.failures > before[1]
        if (has_failed or job.record.status is JobStatus.PARKED) and self._is_here(
            entry
        ):
            await self._show(held)
        self._done([entry])

    async def _search(self, entries: list[Entry], attempt: int) -> None:
        """Look for all jobs of which nobody knows whether they are there."""

        async def work() -> None:
            await self._steps.look_up(
                [(entry.job, self._docket(entry)) for entry in entries]
            )
            self._succeed(Request.LOOK_UP)

        await self._try(work, entries, attempt, 0)
        self._searching = False
        self._done(entries)

    async def _finish(self, entry: Entry, attempt: int, submit: int) -> None:
        """End a job; with the last of its jobs the call leaves the spool."""
        held = entry.held

        async def work() -> None:
            await self._update(held)
            await self._herald.transcribed(held.call.record, entry.job.record)
            held.entries.remove(entry)
            self._reckon(entry)
            if not held.entries:
                await self._shelf.finish(held.call)

        await self._try(work, [entry], attempt, submit)
        if not held.entries:
            # It is gone, or else somebody will find it in the spool.
            self._let_go(held)
        self._done([entry] if entry in held.entries else [])

    async def _try(
        self,
        work: Callable[[], Awaitable[None]],
        entries: Sequence[Entry],
        attempt: int,
        submit: int,
    ) -> None:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - the edge: other jobs must not notice
            self._fail(entries, error, attempt, submit)
        finally:
            self._service.breaker.end(attempt)
            self._submits.breaker.end(submit)

    def _docket(self, entry: Entry) -> SpoolDocket:
        return SpoolDocket(self._spool, self._shelf, entry.held.call, entry.job.key)

    async def _update(self, held: Held) -> None:
        async with held.lock:
            await self._shelf.update(held.call)

    async def _show(self, held: Held, *facts: TranscriptFact) -> None:
        """Bring the JSON of a call up to date, if the store lets us."""
        try:
            for fact in facts:
                self._spool.append(held.call, fact)
            await self._update(held)
        except UploadError as error:
            self._complain(held, error)
        except SpoolError:
            self._let_go(held)

    def _done(self, entries: Sequence[Entry]) -> None:
        """Queue jobs again after a step."""
        self._active -= 1
        now = trio.current_time()
        for entry in entries:
            entry.is_busy = False
            if not self._is_here(entry):
                continue
            self._reckon(entry)
            self._spread(entry, now)
            if entry.is_told:
                entry.is_told = False
                entry.job.due = min(entry.job.due, now)
            self._place(entry)
        self._news.set()
        self._change.set()
        self._change = trio.Event()

    def _spread(self, entry: Entry, now: float) -> None:
        """Have a job asked for less often if there are many."""
        if entry.job.request is Request.FETCH:
            pause = self._open * self._pace.interval * _POLLS_SHARE
            pause *= 0.75 + self._habits.jitter() / 2
            entry.job.due = max(entry.job.due, now + pause)

    def _reckon(self, entry: Entry) -> None:
        """Keep count of what the service works on, and under which ids."""
        record, state = entry.job.record, entry.job.state
        held = self._is_here(entry) and entry in entry.held.entries
        # One that waits for somebody to mend something goes on there nevertheless.
        running = state is State.DOUBTFUL or (
            state is State.SUBMITTED and not entry.job.is_lost
        )
        self._count_open(entry, is_open=held and running)
        current = record.current if held and state is State.SUBMITTED else None
        if entry.id != current:
            if entry.id is not None:
                self._by_id.pop(entry.id, None)
            if current is not None:
                self._by_id[current] = entry
            entry.id = current

    def _count_open(self, entry: Entry, *, is_open: bool) -> None:
        self._open += is_open - entry.is_open
        entry.is_open = is_open

    def _let_go(self, held: Held) -> None:
        """Leave a call to whoever finds it in the spool."""
        if self._held.pop(held.call, None) is not None:
            for entry in held.entries:
                self._reckon(entry)
                # They are for whoever adopts it.
                self._agenda.strike(entry)
            held.call.release()

    async def _mark_parked(self) -> None:
        """Have the JSON of calls say for what they wait, if they wait for long."""
        while True:
            await trio.sleep(_MARK_AFTER)
            long_ago = trio.current_time() - _MARK_AFTER
            for line in (self._service, self._submits):
                error = line.breaker.fault
                if error is not None and line.lasting_since <= long_ago:
                    await self._mark_all(str(error), unsent=line is self._submits)

    async def _mark_all(self, reason: str, *, unsent: bool) -> None:
        for entry in list(self._entries()):
            record, held = entry.job.record, entry.held
            concerned = entry.job.state in _UNSENT if unsent else not record.is_final
            if entry.is_busy or record.parked is not None or not concerned:
                continue
            if self._is_here(entry):
                await self._show(held, TranscriptParked(entry.job.key, reason))
                self._reckon(entry)

    # What comes of it

    def _succeed(self, request: Request) -> None:
        self._service.succeed()
        if request is Request.SUBMIT:
            self._submits.succeed()
        if self._told_of_trouble and self._fault() is None:
            self._told_of_trouble = False
            self._log.info("transcription_works_again", calls=len(self._held))
        self._news.set()

    def _fail(
        self, entries: Sequence[Entry], error: Exception, attempt: int, submit: int
    ) -> None:
        now = trio.current_time()
        if isinstance(error, TranscriptError):
            self._failures += 1
            self._metrics.transcription_faults.labels(str(error.fault)).inc()
            self._note_trouble(error, attempt, submit, now)
            return
        if not isinstance(error, UploadError | SpoolError):
            self._log.error("transcription_step_failed", exc_info=error)
        for entry in entries:
            entry.job.put_off(now)
            if isinstance(error, SpoolError):
                # Whoever adopts it opens its journal anew.
                self._let_go(entry.held)
            self._complain(entry.held, error)

    def _note_trouble(
        self, error: TranscriptError, attempt: int, submit: int, now: float
    ) -> None:
        trouble = assess(error)
        if trouble.scope is Scope.SERVICE:
            self._service.fail(attempt, error, now, lasting=trouble.lasting)
            if error.retry_after is not None:
                self._pace.hold(error.retry_after)
        elif trouble.scope is Scope.PACE:
            self._pace.hold(error.retry_after)
        else:
            self._service.succeed()
        if trouble.scope is Scope.SUBMITS:
            self._submits.fail(submit, error, now, lasting=trouble.lasting)
        elif submit and error.fault == TranscriptFault.BAD_REQUEST:
            # One may be a matter of its language; if all are refused it is not.
            self._submits.fail(submit, error, now, lasting=False)
        self._tell_of_trouble()

    # What is told

    def _tell_of_job(self, entry: Entry, status: JobStatus, failures: int) -> None:
        """Say what a step has brought, if it is worth a line."""
        news = news_of(entry.job.record, status, failures)
        if news is None:
            return
        self._completed += news.upshot is Upshot.COMPLETED
        self._failed += news.upshot is Upshot.FAILED
        self._metrics.transcripts.labels(news.upshot).inc()
        if (
            news.upshot is Upshot.PARKED
            and str(self._fault()) == entry.job.record.reason
        ):
            # What holds up all of them has a line of its own.
            return
        # What befalls many at once is not told of each of them.
        at_most = news.upshot in (Upshot.PARKED, Upshot.RESUBMITTED)
        write = self._noise.write if at_most else self._log.log
        opened = entry.held.call.record.opened
        write(
            news.level,
            news.event,
            session=opened.session_id,
            correlation=opened.correlation_id,
            conversation=opened.conversation_id,
            **news.values,
        )

    def _complain(self, held: Held, error: Exception) -> None:
        known = isinstance(error, UploadError | SpoolError)
        opened = held.call.record.opened
        self._noise.write(
            logging.WARNING,
            "transcript_not_stored",
            session=opened.session_id,
            correlation=opened.correlation_id,
            conversation=opened.conversation_id,
            error=str(error) if known else "unexpected failure",
        )

    def _tell_of_trouble(self) -> None:
        """Say once a minute what is wrong, however many calls wait."""
        fault, now = self._fault(), trio.current_time()
        if fault is None:
            return
        if self._told is not None:
            what, at = self._told
            if what == fault.fault and now - at < _TELL_INTERVAL:
                return
        self._told = fault.fault, now
        self._told_of_trouble = True
        lasting = assess(fault).lasting
        self._log.log(
            logging.ERROR if lasting else logging.WARNING,
            "transcription_needs_mending" if lasting else "transcription_fails",
            error=str(fault),
            calls=len(self._held),
        )


_UNSENT: Final = frozenset({State.WITHOUT_AUDIO, State.READY})
