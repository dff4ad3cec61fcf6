"""Figures that are reached are said to be so, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.goals import goals
from bench.peers import FLOOR, OURS
from bench.records import Run, cost
from tests.bench.made_up import good_run, kernel, kind, live

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.measure import Record


def verdicts(run: Run) -> list[str]:
    return [goal.verdict for goal in goals(run)]


def test_all_figures_of_a_good_run_are_reached() -> None:
    assert set(verdicts(good_run())) == {"yes"}


def test_nothing_is_reached_that_was_not_measured() -> None:
    assert set(verdicts(Run({}))) == {"not measured"}


def of(server: str, calls: int, *, tls: bool = False) -> Callable[[Record], bool]:
    wanted = (server, calls, tls)
    return lambda it: (it["server"], it["calls"], it["tls"]) == wanted


SPOILT: dict[str, tuple[str, Callable[[Record], bool], Record, str]] = {
    "processor": (
        "calls",
        of(OURS, 3000),
        {"cores_per_1000_calls": 0.05},
        "3,000 live",
    ),
    "node": ("calls", of("node", 1000), {"cores_per_1000_calls": 0.3}, "1/8 of Node"),
    "picows": ("calls", of("picows", 3000), {"cores_per_1000_calls": 0.07}, "picows"),
    "TLS": (
        "calls",
        of(OURS, 1000, tls=True),
        {"cores_per_1000_calls": 0.101},
        "TLS",
    ),
    "memory": ("calls", of(OURS, 5000), {"kib_per_call": 64.5}, "memory a live call"),
    "storm": (
        "storms",
        of(OURS, 3000),
        {"latency_ms": {"closed": {"max": 4001.0}}},
        "same instant",
    ),
    "late in a storm": (
        "storms",
        of(OURS, 3000),
        {"all_open_after": 4.1},
        "same instant",
    ),
    "delivery": ("parts", of(OURS, 250), {"cores": 0.121}, "end to end"),
    "late object": (
        "delivery",
        of(OURS, 1000),
        {"stored_after": {"max": 2.1}},
        "WAV in the store",
    ),
    "late object of a long call": (
        "length",
        lambda it: it["length"] == 36_000,
        {"stored_after": {"max": 2.1}},
        "WAV in the store",
    ),
    "long call": (
        "length",
        lambda it: it["length"] == 36_000,
        {"rss_peak_kib": 100_000},
        "10 hours",
    ),
    "decode": (
        "kernel",
        lambda it: (it["name"], it["operation"]) == ("audioop", "decode"),
        {"gb_per_second": 6.1},
        "kernel: decode",
    ),
    "split": (
        "kernel",
        lambda it: (it["name"], it["operation"]) == ("numpy", "split"),
        {"gb_per_second": 2.1},
        "decode and split",
    ),
}


@pytest.mark.parametrize("what", SPOILT)
def test_figure_that_is_missed_is_told(what: str) -> None:
    name, match, change, words = SPOILT[what]
    run = good_run()
    records = run.kinds[name]["records"]
    (index,) = [i for i, record in enumerate(records) if match(record)]
    records[index] = records[index] | change
    missed = [goal for goal in goals(run) if goal.verdict != "yes"]
    assert {goal.verdict for goal in missed} == {"no"}
    assert any(words in f"{goal.figure} {goal.goal}" for goal in missed)


def test_ten_thousand_calls_that_were_too_many_are_not_reached() -> None:
    run = good_run()
    records = run.kinds["calls"]["records"]
    (index,) = [i for i, it in enumerate(records) if of(OURS, 10_000)(it)]
    records[index] = records[index] | {"doubts": ["the load fell behind"]}
    (goal,) = [goal for goal in goals(run) if goal.goal == "10,000"]
    assert goal.verdict == "no"
    # What was carried is said all the same.
    assert goal.measured.startswith("5,000: ")


def test_peer_that_carries_less_is_compared_where_it_carries() -> None:
    goal = next(
        goal
        for goal in goals(good_run())
        if "3,000" in goal.figure and "Node" in goal.goal
    )
    assert "(both at 1,000)" in goal.measured
    assert goal.verdict == "yes"


def test_ours_is_judged_where_the_figure_is_for_and_nowhere_else() -> None:
    run = Run({"calls": kind("calls", live(OURS, 50, 0.01), live(FLOOR, 50, 0.04))})
    assert set(verdicts(run)) == {"not measured"}


# Which measurements are taken.


def test_measurement_that_does_not_count_is_not_used() -> None:
    wrong = live(OURS, 200, 0.01, faults=["1 recordings are not as sent"])
    doubtful = live(OURS, 200, 0.02, doubts=["the load fell behind"])
    run = Run({"calls": kind("calls", wrong, doubtful, live(OURS, 200, 0.05))})
    assert cost(run, OURS, 200) == 0.05
    assert [it["cores_per_1000_calls"] for it in run.tried("calls")] == [
        0.01,
        0.02,
        0.05,
    ]


def test_least_of_several_rounds_is_taken() -> None:
    rounds = [live(OURS, 200, cores) for cores in (0.06, 0.05, 0.07)]
    secure = live(OURS, 200, 0.01, tls=True)
    run = Run({"calls": kind("calls", *rounds, secure)})
    assert cost(run, OURS, 200) == 0.05
    rates = [kernel("kernel", "decode", rate) for rate in (5.0, 6.0)]
    best = Run({"kernel": kind("kernel", *rates)}).best("kernel")
    assert best is not None
    assert best["gb_per_second"] == 6.0
