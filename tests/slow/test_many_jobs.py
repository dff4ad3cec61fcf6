"""Ten thousand jobs at a time: how many requests, how much time, how much memory."""

from __future__ import annotations

import os
import random
import time
import tracemalloc
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import trio

from audiohook.transcription.job import Request
from audiohook.transcription.pace import REQUESTS_A_MINUTE, Pace
from tests.slow.processes import tell
from tests.transcription.office import MINUTES, Call, Office, scheduling

if TYPE_CHECKING:
    from trio.testing import MockClock

pytestmark = pytest.mark.slow

# For all of it: AUDIOHOOK_JOBS=10000.
JOBS = int(os.environ.get("AUDIOHOOK_JOBS", "1000"))
LONGEST = 30 * MINUTES
BURST = 50
KIB = 1024
# A job, its call and its journal as objects; the largest part is the call's record.
LIMIT_KIB_A_JOB = 16
LIMIT_CPU_MS_A_REQUEST = 5.0


async def test_ten_thousand_jobs_cost_few_requests_and_little_memory(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(3)
    tracemalloc.start()
    calls = [Call(number) for number in range(JOBS)]
    times = {call.key: draw.uniform(1 * MINUTES, LONGEST) for call in calls}
    office = Office(times.__getitem__, Pace())
    async with scheduling(office, calls, parallel=2 * JOBS) as jobs:
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        began = time.process_time()
        with trio.fail_after(10 * LONGEST):
            await jobs.wait_settled()
        took = trio.current_time()
    cpu_ms = (time.process_time() - began) * 1000 / len(office.requests)
    kinds = Counter(what for what, _ in office.requests)
    polls = kinds[Request.FETCH] / JOBS
    late = sorted(
        office.polled[key][-1] - office.began[key] - seconds
        for key, seconds in times.items()
    )
    tell(
        capsys,
        f"{JOBS} jobs of up to {LONGEST / MINUTES:.0f} min, {office.most_open} at a"
        f" time: at most {office.most_a_minute()} requests a minute, {polls:.1f} polls"
        f" a job, {held / JOBS / KIB:.1f} KiB a job, {cpu_ms:.2f} ms of processor time a"
        f" request; all done after {took / MINUTES:.0f} min, seen to be done after"
        f" {late[JOBS // 2]:.0f} s in the median, {late[-1]:.0f} s at most",
    )
    assert len(office.shelf.finished) == JOBS
    assert kinds[Request.SUBMIT] == JOBS
    assert office.most_open > JOBS / 2
    assert office.most_a_minute() <= REQUESTS_A_MINUTE + BURST
    assert held / JOBS < LIMIT_KIB_A_JOB * KIB
    assert cpu_ms < LIMIT_CPU_MS_A_REQUEST
