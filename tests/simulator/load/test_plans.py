"""What is decided before anything is sent: options, scripts, arrivals."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from audiohook.errors import ConfigError
from audiohook.simulator.load.arrivals import Arrivals
from audiohook.simulator.load.options import LengthKind, LoadOptions, parse_lengths
from audiohook.simulator.load.script import (
    Ending,
    Talk,
    write_script,
)
from audiohook.simulator.schedule import Discard, Pause

URI = "ws://127.0.0.1:3000/"


def make(**changes: Any) -> LoadOptions:  # noqa: ANN401 - passed on
    lengths = parse_lengths(changes.pop("length", "10"))
    return LoadOptions(**{"uri": URI, "calls": 10, "lengths": lengths, **changes})


# Options.


@pytest.mark.parametrize(
    ("text", "kind", "least", "most"),
    [
        ("60", LengthKind.FIXED, 60, 60),
        ("0.5", LengthKind.FIXED, 0.5, 0.5),
        ("30..90", LengthKind.UNIFORM, 30, 90),
        ("exp:45.5", LengthKind.EXPONENTIAL, 45.5, 45.5),
    ],
)
def test_lengths_are_read_and_written(
    text: str, kind: LengthKind, least: float, most: float
) -> None:
    lengths = parse_lengths(text)
    assert (lengths.kind, lengths.least, lengths.most) == (kind, least, most)
    assert str(lengths) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "0", "-1", "nan", "inf", "90..30", "1..", "..1", "exp:", "exp:1..2"),
        *("uniform:1", "86401", "1:2"),
    ],
)
def test_other_lengths_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no length of calls"):
        parse_lengths(text)


def test_lengths_are_distributed_as_told() -> None:
    draw = random.Random(3)
    uniform = [parse_lengths("10..20").draw(draw) for _ in range(2000)]
    assert min(uniform) >= 10
    assert max(uniform) <= 20
    assert sum(uniform) / 2000 == pytest.approx(15, rel=0.05)
    exponential = [parse_lengths("exp:15").draw(draw) for _ in range(5000)]
    assert sum(exponential) / 5000 == pytest.approx(15, rel=0.08)
    assert sum(each > 15 for each in exponential) / 5000 == pytest.approx(
        1 / math.e, abs=0.03
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"uri": "http://x/"}, "needs a WebSocket"),
        ({"calls": 0}, "^--calls: must be from 1 to"),
        ({"total": 9}, "^--total: must not be less"),
        ({"total": 20, "keep": 5.0}, "^--keep: does not go with --total"),
        ({"together": True, "keep": 5.0}, "^--together: .* end together"),
        ({"frame_bytes": 0}, "^--frame-bytes: must be a multiple of 16"),
        ({"frame_bytes": 1608}, "multiple of 16"),
        ({"frame_bytes": 64_016}, "multiple of 16"),
        ({"ramp": -1.0}, "^--ramp: must be a number"),
        ({"ramp": math.nan}, "^--ramp: must be a number"),
        ({"rate": 0.0}, "^--rate: must be above 0"),
        ({"speed": 0.0}, "^--speed: must be above 0"),
        ({"pause": 1.5}, "^--pause: must be a share"),
        ({"hang_up": math.nan}, "^--hang-up: must be a share"),
        ({"processes": 11}, "^--processes: must be from 1 to 10"),
        ({"client_secret": "abcd"}, "API key"),
        ({"api_key": "ä"}, "no header"),
    ],
)
def test_options_that_cannot_be_carried_out_are_refused(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        make(**changes)
    assert "\n" not in str(caught.value)


def test_secrets_are_not_shown() -> None:
    shown = repr(make(api_key="open-sesame", client_secret="c2VzYW1l"))
    assert "sesame" not in shown
    assert "c2VzYW1l" not in shown


# Scripts.


def test_plain_call_talks_and_is_closed() -> None:
    script = write_script(make(length="10"), 3)
    assert script.steps == (Talk(100),)
    assert script.ending is Ending.CLOSED
    assert 0 <= script.phase < 1


def test_script_depends_on_seed_and_number_alone() -> None:
    options = make(length="5..50", seed=4, pause=0.5, discard=0.5, hang_up=0.5)
    scripts = [write_script(options, number) for number in range(50)]
    assert scripts == [write_script(options, number) for number in range(50)]
    assert len(set(scripts)) == 50


def test_shares_are_as_told() -> None:
    options = make(seed=1, pause=0.3, discard=0.2, hang_up=0.1, probe=0.25)
    scripts = [write_script(options, number) for number in range(4000)]
    probes = [each for each in scripts if each.ending is Ending.PROBED]
    calls = [each for each in scripts if each.ending is not Ending.PROBED]
    assert len(probes) / 4000 == pytest.approx(0.25, abs=0.03)
    assert all(not each.steps for each in probes)

    def share(of: type[Pause | Discard]) -> float:
        having = [each for each in calls if any(isinstance(s, of) for s in each.steps)]
        return len(having) / len(calls)

    assert share(Pause) == pytest.approx(0.3, abs=0.03)
    assert share(Discard) == pytest.approx(0.2, abs=0.03)
    hung_up = [each for each in calls if each.ending is Ending.HUNG_UP]
    assert len(hung_up) / len(calls) == pytest.approx(0.1, abs=0.02)
    # Gaps take nothing away from what is said.
    assert {each.frames for each in calls} == {100}


def test_call_shorter_than_a_frame_has_one() -> None:
    assert write_script(make(length="0.01"), 0).frames == 1


# Arrivals.


def begin_all(
    arrivals: Arrivals, *, live: int = 0, until: float = math.inf
) -> list[tuple[float, int]]:
    """Begins all calls that may, each when it is due; none ends."""
    begun = []
    now = 0.0
    while (at := arrivals.next_at(live, now)) <= until and at < math.inf:
        now = max(now, at)
        begun.append((now, arrivals.take(now)))
        live += 1
    return begun


def test_first_calls_come_over_the_ramp() -> None:
    arrivals = Arrivals(make(calls=4, ramp=8.0), began_at=100.0)
    begun = begin_all(arrivals)
    assert begun == [(100.0, 0), (102.0, 1), (104.0, 2), (106.0, 3)]
    assert arrivals.next_at(0, 200.0) == math.inf


def test_processes_share_the_ramp() -> None:
    options = make(calls=5, ramp=5.0, processes=2)
    first = begin_all(Arrivals(options, began_at=0.0, process=0))
    second = begin_all(Arrivals(options, began_at=0.0, process=1))
    assert first == [(0.0, 0), (2.0, 2), (4.0, 4)]
    assert second == [(1.0, 1), (3.0, 3)]


def test_calls_begin_no_faster_than_the_rate() -> None:
    arrivals = Arrivals(make(calls=4, rate=2.0), began_at=0.0)
    assert [at for at, _ in begin_all(arrivals)] == [0.0, 0.5, 1.0, 1.5]


def test_call_that_ends_is_followed_up_to_the_total() -> None:
    arrivals = Arrivals(make(calls=2, total=3), began_at=0.0)
    assert [number for _, number in begin_all(arrivals)] == [0, 1]
    assert arrivals.next_at(2, 5.0) == math.inf
    assert arrivals.next_at(1, 5.0) <= 5.0
    assert arrivals.take(5.0) == 2
    assert arrivals.next_at(0, 6.0) == math.inf


def test_call_that_ends_is_followed_for_the_time_told() -> None:
    arrivals = Arrivals(make(calls=1, keep=10.0), began_at=0.0)
    assert arrivals.take(0.0) == 0
    assert arrivals.next_at(0, 9.9) <= 9.9
    assert arrivals.take(9.9) == 1
    assert arrivals.next_at(0, 10.0) == math.inf


def test_missed_beginnings_are_not_made_up_for() -> None:
    arrivals = Arrivals(make(calls=3, total=9, rate=1.0), began_at=0.0)
    assert len(begin_all(arrivals)) == 3
    # All lines were busy for a minute, then all are free.
    assert arrivals.next_at(0, 60.0) <= 60.0
    arrivals.take(60.0)
    assert arrivals.next_at(1, 60.0) == 61.0


def test_stopped_load_begins_nothing() -> None:
    arrivals = Arrivals(make(calls=3), began_at=0.0)
    arrivals.stop()
    assert arrivals.next_at(0, 1.0) == math.inf
