"""Who is next: how many requests, how many jobs, and that nobody is forgotten."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import structlog
import trio

from audiohook.errors import SpoolError, TranscriptError
from audiohook.recording.transcripts import (
    Choice,
    TranscriptPlanned,
    TranscriptSubmitted,
)
from audiohook.transcription.answers import RETRY_AFTER_LIMIT
from audiohook.transcription.base import TranscriptFault
from audiohook.transcription.job import Request
from audiohook.transcription.pace import Pace
from tests.transcription.office import MINUTES, Call, Office, never, scheduling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio.testing import MockClock

    from audiohook.transcription.job import Job
    from audiohook.transcription.scheduler import Transcriptions
    from audiohook.transcription.steps import Docket

A_MINUTE = 100
BURST = 10


def calls(count: int) -> list[Call]:
    return [Call(number) for number in range(count)]


async def wait_completed(jobs: Transcriptions, count: int) -> None:
    while jobs.statistics().completed < count:  # noqa: ASYNC110 - the clock is fast
        await trio.sleep(5)


async def test_requests_a_minute_are_bounded_whatever_is_open(
    autojump_clock: MockClock,
) -> None:
    draw = random.Random(1)
    times = {call.key: draw.uniform(1, 20) * MINUTES for call in calls(500)}
    office = Office(times.__getitem__, Pace(A_MINUTE, BURST))
    async with scheduling(office, calls(500), parallel=1000) as jobs:
        with trio.fail_after(120 * MINUTES):
            await jobs.wait_settled()
        assert jobs.statistics().completed == 500
    assert office.most_open > 400
    assert office.most_a_minute() <= A_MINUTE + BURST


async def test_jobs_that_never_end_keep_nobody_from_being_asked_about(
    autojump_clock: MockClock,
) -> None:
    """The oldest are the ones that hang."""

    def seconds(key: str) -> float:
        return never(key) if int(key.split("/")[1]) < 300 else 5 * MINUTES

    office = Office(seconds, Pace(A_MINUTE, BURST))
    async with scheduling(office, calls(400), parallel=1000) as jobs:
        with trio.fail_after(40 * MINUTES):
            await wait_completed(jobs, 100)
        # And those that hang are asked about as well, time and again.
        assert min(len(each) for each in office.polled.values()) >= 1


async def test_new_jobs_are_asked_for_while_many_are_open(
    autojump_clock: MockClock,
) -> None:
    office = Office(never, Pace(A_MINUTE, BURST))
    async with scheduling(office, calls(300), parallel=1000) as jobs:
        await trio.sleep(20 * MINUTES)
        assert office.open == 300
        late = trio.current_time()
        for number in range(1000, 1040):
            jobs.add(Call(number))  # type: ignore[arg-type]
        await trio.sleep(2 * MINUTES)
    submits = [at for what, at in office.requests if what is Request.SUBMIT]
    assert len([at for at in submits if at >= late]) == 40


@pytest.mark.parametrize("under_way", [0, 3, 5])
async def test_parallel_jobs_are_bounded_over_a_restart(
    autojump_clock: MockClock, under_way: int
) -> None:
    office = Office(lambda _: MINUTES, Pace())
    both = calls(20)
    for number, call in enumerate(both[:under_way]):
        call.record.apply(TranscriptSubmitted(call.key, f"old{number}"))
        office.begin(call.key, f"old{number}")
    async with scheduling(office, both, parallel=5) as jobs:
        with trio.fail_after(30 * MINUTES):
            await jobs.wait_settled()
    assert office.most_open == 5
    assert len(office.shelf.finished) == 20


def failing(
    fault: TranscriptFault, times: int, *, retry_after: float | None
) -> Sequence[TranscriptError | None]:
    error = TranscriptError(f"it is {fault}", fault=fault, retry_after=retry_after)
    return [error] * times


@pytest.mark.parametrize("fault", [TranscriptFault.BUSY, TranscriptFault.AWAY])
async def test_nobody_asks_before_the_time_that_it_names(
    autojump_clock: MockClock, fault: TranscriptFault
) -> None:
    faults = list(failing(fault, 1, retry_after=RETRY_AFTER_LIMIT))
    office = Office(lambda _: 1.0, Pace(), lambda _: faults.pop() if faults else None)
    async with scheduling(office, calls(30), parallel=5) as jobs:
        with trio.fail_after(2 * RETRY_AFTER_LIMIT):
            await wait_completed(jobs, 30)
    at = sorted(at for _, at in office.requests)
    # Those that were on their way already.
    early = [each for each in at if each < RETRY_AFTER_LIMIT]
    assert len(early) <= 5


async def test_service_that_is_away_gets_one_request_at_a_time(
    autojump_clock: MockClock,
) -> None:
    is_away = True
    error = TranscriptError("it is away", fault=TranscriptFault.AWAY)
    office = Office(lambda _: 1.0, Pace(), lambda _: error if is_away else None)
    with structlog.testing.capture_logs() as lines:
        async with scheduling(office, calls(1000), parallel=200) as jobs:
            await trio.sleep(60 * MINUTES)
            tried = len(office.requests)
            is_away = False
            with trio.fail_after(30 * MINUTES):
                await wait_completed(jobs, 1000)
    # Some that go together at first, and then one after each pause.
    assert 100 <= tried <= 300
    told = [line for line in lines if line["event"] == "transcription_fails"]
    assert 30 <= len(told) <= 61


@pytest.mark.parametrize(
    "fault",
    [TranscriptFault.BAD_KEY, TranscriptFault.MISLED],
)
async def test_jobs_under_way_count_while_somebody_has_to_mend_something(
    autojump_clock: MockClock, fault: TranscriptFault
) -> None:
    is_refused = False
    error = TranscriptError(f"it is {fault}", retryable=False, fault=fault)
    office = Office(
        lambda _: 20 * MINUTES, Pace(), lambda _: error if is_refused else None
    )
    async with scheduling(office, calls(20), parallel=5) as jobs:
        await trio.sleep(1 * MINUTES)
        assert office.open == 5
        is_refused = True
        tried = len(office.requests)
        await trio.sleep(10 * MINUTES)
        # All say so, and one after another tries.
        assert jobs.statistics().parked == 20
        assert len(office.requests) - tried < 60
        is_refused = False
        with trio.fail_after(300 * MINUTES):
            await wait_completed(jobs, 20)
    assert office.most_open == 5


async def test_nothing_is_deleted_there_before_the_store_says_that_it_is_here(
    autojump_clock: MockClock,
) -> None:
    office = Office(lambda _: 1.0, Pace())
    office.shelf.is_away = True
    async with scheduling(office, calls(5), parallel=5, deletes=True) as jobs:
        await trio.sleep(60 * MINUTES)
        assert jobs.statistics().completed == 5
        assert Request.DELETE not in {what for what, _ in office.requests}
        office.shelf.is_away = False
        with trio.fail_after(30 * MINUTES):
            await jobs.wait_settled()
    deleted = [what for what, _ in office.requests if what is Request.DELETE]
    assert len(deleted) == len(office.shelf.finished) == 5


class BadDisk(Office):
    """The journal of whoever is asked about first cannot be written."""

    is_bad = True

    async def perform(self, job: Job, docket: Docket) -> None:
        if job.request is Request.FETCH and self.is_bad:
            self.is_bad = False
            raise SpoolError("bad sector")
        await super().perform(job, docket)


async def test_no_job_of_a_call_that_was_given_up_is_seen_to(
    autojump_clock: MockClock,
) -> None:
    """Whoever adopts it sees to all of them, maybe in another process."""
    office = BadDisk(lambda _: 1.0, Pace())
    second = TranscriptPlanned("calls/0/audio/0_2.wav", Choice.TRANSCRIBE)
    call, *others = Call(0, second), *calls(4)[1:]
    async with scheduling(office, [call], parallel=5) as jobs:
        await trio.sleep(10 * MINUTES)
        assert call.released
        assert [what for what, _ in office.requests] == [Request.SUBMIT] * 2
        assert office.shelf.updates == 0
        for each in others:
            jobs.add(each)  # type: ignore[arg-type]
        with trio.fail_after(10 * MINUTES):
            await jobs.wait_settled()
        assert jobs.statistics().completed == 3
