"""What is read from logs, processes and loads, and what does not count."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from bench.measure import Case, _window_figures, faults_of, seconds_spread, stored_after
from bench.peers import OURS
from bench.processes import Running
from bench.samples import Moment, Sample, sample

if TYPE_CHECKING:
    from pathlib import Path

CASE = Case(calls=1000, ramp=2.0, window=10.0)


def make_figures(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - passed on
    figures = {
        "calls": 1000,
        "compared": 1000,
        "verified": 1000,
        "failures": {},
        "examples": {},
        "faults": [],
        "fell_behind": False,
        "lag_ms": {"p99": 2.0, "max": 5.0},
        "steady_at": 103.0,
        "closing_at": 117.0,
    }
    return figures | changes


def make_moments(cpu: float = 0.5, load_cpu: float = 1.0) -> list[Moment]:
    first = Moment(Sample(105.0, 20.0, 90 << 20), Sample(105.0, 5.0, 0), 1000.0)
    last = Moment(
        Sample(115.0, 20.0 + cpu, 120 << 20), Sample(115.0, 5.0 + load_cpu, 0), 1002.0
    )
    return [first, last]


def test_cost_is_worked_out_between_two_moments() -> None:
    idle = Sample(100.0, 19.0, 70 << 20)
    figures = _window_figures(CASE, idle, make_moments())
    assert figures["window"] == 10.0
    assert figures["cores"] == figures["cores_per_1000_calls"] == 0.05
    # 1,000 calls of 10 frames a second.
    assert figures["us_per_frame"] == 5.0
    assert figures["kib_per_call"] == round(50 * 1024 / 1000, 1)
    assert figures["load_cores"] == 0.1
    assert figures["elsewhere_cores"] == 0.05
    assert figures["limit"] == "none"


@pytest.mark.parametrize(
    ("cpu", "load_cpu", "limit"), [(9.5, 1.0, "server"), (0.5, 9.5, "load")]
)
def test_side_that_is_at_its_limit_is_told(
    cpu: float, load_cpu: float, limit: str
) -> None:
    idle = Sample(100.0, 19.0, 70 << 20)
    moments = make_moments(cpu, load_cpu)
    assert _window_figures(CASE, idle, moments)["limit"] == limit


def test_good_measurement_counts() -> None:
    found = faults_of(CASE, make_figures(), make_moments(), [0])
    assert found == {"faults": [], "doubts": []}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"failures": {"pong": 3}, "examples": {"pong": "no pong"}},
            "3 calls failed: no pong",
        ),
        ({"verified": 998}, "2 recordings are not as sent"),
        ({"faults": ["call 1: raw: ends early"]}, "call 1: raw: ends early"),
    ],
)
def test_fault_of_a_server_does_not_count(changes: dict[str, Any], words: str) -> None:
    found = faults_of(CASE, make_figures(**changes), make_moments(), [0])
    assert words in found["faults"]


def test_server_that_ended_badly_does_not_count() -> None:
    found = faults_of(CASE, make_figures(), make_moments(), [0, -9])
    assert found["faults"] == ["the server ended with -9"]


@pytest.mark.parametrize(
    ("changes", "moments", "words"),
    [
        ({"fell_behind": True}, make_moments(), "the load fell behind: lag p99 2.0 ms"),
        ({"closing_at": 114.0}, make_moments(), "calls ended while they were measured"),
        ({}, [], "not all calls were open at a time"),
    ],
)
def test_busy_machine_is_nobodys_fault(
    changes: dict[str, Any], moments: list[Moment], words: str
) -> None:
    found = faults_of(CASE, make_figures(**changes), moments, [0])
    assert found["faults"] == []
    assert len(found["doubts"]) == 1
    assert words in found["doubts"][0]


def test_server_gets_as_many_processes_as_it_needs_files() -> None:
    assert CASE.processes(20_000) == 1
    many = Case(calls=10_000, ramp=2.0, window=10.0)
    assert many.processes(20_000) == 2
    assert many.processes(sys.maxsize) == 1


def test_calls_last_through_the_window() -> None:
    assert CASE.seconds > CASE.ramp + CASE.settle + CASE.window
    assert CASE.frames_per_second == 10_000


@pytest.mark.parametrize("frame_bytes", [320, 1600, 64_000])
def test_last_frame_of_a_call_is_due_after_the_window(
    frame_bytes: int, tmp_path: Path
) -> None:
    case = Case(calls=10, ramp=1.0, window=6.0, frame_bytes=frame_bytes)
    task = case.task(Running(1, "key", tmp_path / "log"), tmp_path)
    frame = frame_bytes / 16_000
    frames = round(float(str(task["lengths"])) / frame)
    # The first is due somewhere within a frame's time, and may be at once.
    assert (frames - 1) * frame >= case.seconds - 0.001


def line(event: str, session: str, at: str) -> str:
    return json.dumps({"event": event, "session": session, "timestamp": at})


def test_time_to_the_store_counts_from_closed() -> None:
    log = "\n".join(
        [
            "not JSON at all",
            line("call_ended", "a", "2026-11-25T10:00:01.000000Z"),
            line("call_stored", "a", "2026-11-25T10:00:00.750000Z"),
            line("call_stored", "b", "2026-11-25T10:00:09.000000Z"),
            line("call_stored", "never closed", "2026-11-25T10:00:09.000000Z"),
        ]
    )
    # 10:00:00 of that day.
    closed_at = {"a": 1795600800.0, "b": 1795600800.5, "never closed": None}
    assert stored_after(log, closed_at) == {"a": 0.75, "b": 8.5}


def test_times_are_spread() -> None:
    times = [float(number) for number in range(1, 101)]
    assert seconds_spread(times[::-1]) == {
        "count": 100,
        "p50": 50.0,
        "p99": 100.0,
        "max": 100.0,
    }
    assert seconds_spread([]) == {}


def test_process_is_looked_at() -> None:
    before = sample(os.getpid())
    sum(number * number for number in range(200_000))
    after = sample(os.getpid())
    assert after.cpu > before.cpu
    assert after.rss_bytes > 1 << 20
    both = sample(os.getpid(), os.getppid())
    assert both.rss_bytes > after.rss_bytes


@pytest.mark.slow
def test_nothing_outlives_a_bench_that_is_killed() -> None:
    code = (
        "import sys; from bench.processes import start;"
        "process = start(['sleep', '600'], min(__import__('os').sched_getaffinity(0)));"
        "print(process.pid, flush=True); process.wait()"
    )
    bench = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    )
    assert bench.stdout is not None
    pid = int(bench.stdout.readline())
    bench.send_signal(signal.SIGKILL)
    bench.wait()
    bench.stdout.close()
    # It is somebody's child no more, and ends at once.
    descriptor = None
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        import select

        ready, _, _ = select.select([descriptor], [], [], 10.0)
        assert ready
    finally:
        os.close(descriptor)


def test_ours_is_what_is_measured_unless_told() -> None:
    assert CASE.server == OURS
