"""Ten thousand jobs at a time: how many requests, how much time, how much memory."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import time
import tracemalloc
import uuid
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import trio

from audiohook.simulator.assemblyai import Pace as JobPace
from audiohook.simulator.assemblyai import StandIn
from audiohook.simulator.client import place_call
from audiohook.simulator.options import CallOptions
from audiohook.transcription.job import Request
from audiohook.transcription.pace import REQUESTS_A_MINUTE, Pace
from bench.samples import sample
from tests.house import KEY
from tests.slow.processes import Site, tell
from tests.transcription.office import MINUTES, Call, Office, scheduling
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

pytestmark = pytest.mark.slow

# For all of it: AUDIOHOOK_JOBS=10000.
JOBS = int(os.environ.get("AUDIOHOOK_JOBS", "500"))
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


# The same with a real process, for all of it: AUDIOHOOK_OPEN_JOBS=10000.
OPEN_JOBS = int(os.environ.get("AUDIOHOOK_OPEN_JOBS", "150"))
# An open file, its call's record and the job; the least that is seen is noise.
LIMIT_KIB_AN_OPEN_JOB = 48
NOISE_KIB = 8 * KIB
PACE_SECONDS = MINUTES / REQUESTS_A_MINUTE
# Two to open it, and polls of the others meanwhile, on a machine that is busy.
REQUESTS_A_JOB = 8


def multiply(spool: Path, count: int) -> None:
    """Makes many of the one call that waits in a spool, not asked for yet."""
    (folder,) = (each for each in spool.iterdir() if len(each.name) == 36)
    lines = (folder / "journal.jsonl").read_text().splitlines()
    kept = [
        line
        for line in lines
        if json.loads(line)["fact"] not in ("audio_uploaded", "transcript_intended")
        and "transcript_submitted" not in line
    ]
    journal = "\n".join(kept) + "\n"
    for _ in range(count):
        session = str(uuid.uuid4())
        (spool / session).mkdir()
        copy = journal.replace(folder.name, session)
        (spool / session / "journal.jsonl").write_text(copy)
    shutil.rmtree(folder)


async def test_open_jobs_of_a_real_process_cost_little_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    standin = StandIn(pace=JobPace(processing=math.inf))
    async with trio.open_nursery() as nursery:
        await nursery.start(standin.serve)
        settings = {
            "ASSEMBLYAI_API_KEY": "stand-in-key",
            "ASSEMBLYAI_BASE_URL": standin.base_url,
            "TRANSCRIBE_PARALLEL": "10000",
        }
        site = Site(tmp_path, settings)
        async with site.serve() as server:
            report = await place_call(
                CallOptions(uri=server.uri, api_key=KEY, fast=True, duration=3.0)
            )
            assert report.ok
            await wait_until(lambda: standin.statistics().submitted == 1)
            idle = sample(server.pid).rss_bytes
            server.kill()
            await server.wait()
        await trio.to_thread.run_sync(multiply, site.recordings / ".spool", OPEN_JOBS)
        async with site.serve() as server:
            began = trio.current_time()
            await wait_until(
                lambda: standin.statistics().open == OPEN_JOBS + 1,
                60 + REQUESTS_A_JOB * OPEN_JOBS * PACE_SECONDS,
            )
            took = trio.current_time() - began
            cpu = sample(server.pid).cpu
            await trio.sleep(10)
            cpu = sample(server.pid).cpu - cpu
            rss = sample(server.pid).rss_bytes
        statistics = standin.statistics()
        nursery.cancel_scope.cancel()
    each = max(0.0, (rss - idle) / KIB) / OPEN_JOBS
    tell(
        capsys,
        f"{OPEN_JOBS} jobs opened in {took:.0f} s, at most"
        f" {statistics.most_requests_a_minute} requests a minute; memory"
        f" {idle / KIB / KIB:.0f} MiB with one, {rss / KIB / KIB:.0f} MiB with all:"
        f" {each:.1f} KiB a job; {cpu * 10:.1f} % of a core while they are waited for",
    )
    assert rss - idle < (LIMIT_KIB_AN_OPEN_JOB * OPEN_JOBS + NOISE_KIB) * KIB
    assert statistics.most_requests_a_minute <= REQUESTS_A_MINUTE + BURST
