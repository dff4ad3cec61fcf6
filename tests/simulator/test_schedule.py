from __future__ import annotations

import itertools

import pytest

from audiohook.errors import ConfigError
from audiohook.simulator.options import CallOptions
from audiohook.simulator.schedule import (
    ChangeLanguage,
    Discard,
    End,
    Frame,
    HangUp,
    Happening,
    Pause,
    ReportError,
    Schedule,
    Step,
    plan,
)


def play(schedule: Schedule, audio_samples: int) -> list[Step]:
    """Do all steps up to the end, as a player would."""
    position, remaining = 0, audio_samples
    steps: list[Step] = []
    while True:
        step = schedule.peek(position, remaining)
        assert schedule.peek(position, remaining) == step
        steps.append(step)
        if isinstance(step, End | HangUp):
            return steps
        if isinstance(step, Frame):
            remaining -= step.length_samples
        if isinstance(step, Frame | Pause | Discard):
            position += step.length_samples
        schedule.advance()


def test_frames_are_cut_where_something_happens() -> None:
    happenings: list[tuple[int, Happening]] = [
        (150, Pause(60)),
        (210, Discard(5)),
        (40, ChangeLanguage("en")),
    ]
    schedule = Schedule(happenings, itertools.repeat(100), 250)
    assert play(schedule, 250) == [
        Frame(40),
        ChangeLanguage("en"),
        Frame(100),
        Frame(10),
        Pause(60),
        Discard(5),
        Frame(100),
        End(),
    ]


def test_what_falls_into_a_gap_happens_after_it() -> None:
    schedule = Schedule([(10, Pause(100)), (50, Discard(1))], itertools.repeat(10), 20)
    assert play(schedule, 20) == [Frame(10), Pause(100), Discard(1), Frame(10), End()]


def test_position_that_moves_between_peek_and_advance() -> None:
    schedule = Schedule([(100, HangUp())], iter([50, 60, 70]), 300)
    assert schedule.peek(0, 300) == Frame(50)
    # The server paused meanwhile.
    assert schedule.peek(80, 300) == Frame(20)
    schedule.advance()
    assert schedule.peek(100, 280) == HangUp()


def test_at_the_very_end_is_still_in_the_call() -> None:
    schedule = Schedule([(20, Pause(4)), (24, HangUp())], itertools.repeat(20), 20)
    assert play(schedule, 20) == [Frame(20), Pause(4), HangUp()]


def test_past_the_end_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"at 2\.5 s: the call ends at 2 s"):
        Schedule([(8000, Pause(8000)), (20_000, HangUp())], itertools.repeat(1), 8000)


def test_no_audio_is_no_frame() -> None:
    assert play(Schedule([], itertools.repeat(10), 0), 0) == [End()]


def test_plan_takes_seconds() -> None:
    options = CallOptions(
        uri="ws://h/",
        frame_ms=20,
        pauses=((0.02, 1.5),),
        discards=((0.0, 0.25),),
        updates=((0.0, "fr-FR"),),
        errors=((0.0, 400, "x"),),
        hang_up_at=1.79,
    )
    assert play(plan(options, 480), 480) == [
        Discard(2000),
        ChangeLanguage("fr-FR"),
        ReportError(400, "x"),
        Pause(12_000),
        Frame(160),
        Frame(160),
        HangUp(),
    ]


def test_random_frames_are_bounded_and_repeatable() -> None:
    options = CallOptions(uri="ws://h/", frame_seed=3)
    first, second = (play(plan(options, 100_000), 100_000) for _ in range(2))
    assert first == second
    lengths = [step.length_samples for step in first if isinstance(step, Frame)]
    assert sum(lengths) == 100_000
    assert max(lengths) <= 4000
    assert len(set(lengths)) > 10
