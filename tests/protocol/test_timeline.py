from __future__ import annotations

import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiohook.protocol.timeline import (
    Gap,
    GapKind,
    Run,
    Timeline,
    duration_to_samples,
    format_duration,
    parse_duration,
)

PAUSED, DISCARDED, LOST = GapKind.PAUSED, GapKind.DISCARDED, GapKind.LOST

gaps_strategy = st.lists(
    st.builds(
        Gap,
        kind=st.sampled_from(GapKind),
        offset_samples=st.integers(0, 40),
        length_samples=st.integers(0, 12),
    ),
    max_size=8,
)


def frames_of(stored: int, gaps: list[Gap], *, cut: bool) -> list[int | None]:
    """The finished file, one entry a frame: which sample, or None for silence."""
    frames: list[int | None] = []
    for sample in range(stored + 1):
        if not cut:
            for gap in gaps:
                if gap.offset_samples == sample:
                    frames += [None] * gap.length_samples
        if sample < stored:
            frames.append(sample)
    return frames


def frames_of_runs(runs: list[Run]) -> list[int | None]:
    frames: list[int | None] = []
    for run in runs:
        assert run.length_samples > 0
        if run.offset_samples is None:
            frames += [None] * run.length_samples
        else:
            start = run.offset_samples
            frames += range(start, start + run.length_samples)
    return frames


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("PT0S", Fraction(0)),
        ("PT0.0S", Fraction(0)),
        ("PT1.25S", Fraction(5, 4)),
        ("PT.5S", Fraction(1, 2)),
        ("PT007S", Fraction(7)),
        ("PT0.000125S", Fraction(1, 8000)),
        ("PT0.001453849S", Fraction(1453849, 10**9)),
        ("PT0.1S", Fraction(1, 10)),
        ("PT" + "9" * 37 + "S", Fraction(10**37 - 1)),
    ],
)
def test_parse_duration_is_exact(text: str, seconds: Fraction) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "PTS",
        "PT.S",
        "PT1.S",
        "PT1",
        "1S",
        "pt1s",
        "PT-1S",
        "PT+1S",
        "PT1e3S",
        "PT1,5S",
        "PT1M",
        "PT1M2S",
        "P1DT1S",
        "PT1.2.3S",
        " PT1S",
        "PT1S ",
        "PT1S\n",
        "PT1_0S",
        "PT\u0661S",  # a digit to str.isdigit, not to AudioHook
        "PT" + "9" * 38 + "S",
        "PT" + "9" * 1_000_000 + "S",
    ],
)
def test_parse_duration_refuses_anything_else(text: str) -> None:
    with pytest.raises(ValueError, match=r"^a duration must be of the form PT1\.25S$"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "samples"),
    [
        (Fraction(0), 0),
        (Fraction(12, 5), 19_200),
        (Fraction(1, 16_000), 1),
        (Fraction(1, 16_001), 0),
        (Fraction(3, 16_000), 2),
        (Fraction(10**37), 8_000 * 10**37),
    ],
)
def test_duration_to_samples_rounds_halves_up(seconds: Fraction, samples: int) -> None:
    assert duration_to_samples(seconds) == samples


@pytest.mark.parametrize(
    ("samples", "text"),
    [
        (0, "PT0S"),
        (1, "PT0.000125S"),
        (800, "PT0.1S"),
        (8_000, "PT1S"),
        (12_000, "PT1.5S"),
        (80_000, "PT10S"),
        (8_000 * 10**20 + 1, "PT100000000000000000000.000125S"),
    ],
)
def test_format_duration_is_exact_and_plain(samples: int, text: str) -> None:
    assert format_duration(samples) == text


def test_format_duration_refuses_a_negative_amount() -> None:
    with pytest.raises(ValueError, match="negative"):
        format_duration(-1)


@given(st.integers(0, 10**15))
def test_a_duration_written_reads_back_alike(samples: int) -> None:
    assert duration_to_samples(parse_duration(format_duration(samples))) == samples


@pytest.mark.parametrize(("offset", "length"), [(-1, 0), (0, -1)])
def test_a_gap_of_negative_amounts_is_refused(offset: int, length: int) -> None:
    with pytest.raises(ValueError, match="negative"):
        Gap(LOST, offset, length)


def test_a_negative_start_is_refused() -> None:
    with pytest.raises(ValueError, match="start"):
        Timeline(start_samples=-1)


def test_gaps_are_kept_by_offset_and_then_in_order_of_arrival() -> None:
    timeline = Timeline()
    first, second = Gap(PAUSED, 10, 1), Gap(DISCARDED, 10, 2)
    late, early = Gap(LOST, 30, 4), Gap(LOST, 5, 8)
    for gap in (late, first, second, early):
        timeline.add(gap)
    assert timeline.gaps == (early, first, second, late)
    assert timeline.gap_samples == 15


def test_position_counts_start_audio_and_gaps() -> None:
    # The documented example: paused at 15 s, resumed at 23 s.
    timeline = Timeline(start_samples=800)
    timeline.add(Gap(PAUSED, 120_000, 64_000))
    assert timeline.position_at(0) == 800
    assert timeline.position_at(119_999) == 120_799
    assert timeline.position_at(120_000) == 184_800
    assert timeline.position_at(120_001) == 184_801


def test_position_after_a_discard_at_the_start() -> None:
    timeline = Timeline(gaps=[Gap(DISCARDED, 0, 19_200)])
    assert timeline.position_at(0) == 19_200


@given(gaps_strategy, st.integers(0, 100), st.integers(0, 60))
def test_position_is_the_sum_of_what_came_before(
    gaps: list[Gap], start: int, offset: int
) -> None:
    passed = sum(gap.length_samples for gap in gaps if gap.offset_samples <= offset)
    timeline = Timeline(start_samples=start, gaps=gaps)
    assert timeline.position_at(offset) == start + offset + passed


@given(gaps_strategy, st.integers(0, 60))
def test_adding_one_by_one_is_the_same_as_all_at_once(
    gaps: list[Gap], offset: int
) -> None:
    grown, whole = Timeline(), Timeline(gaps=gaps)
    for gap in gaps:
        grown.add(gap)
    assert grown.gaps == whole.gaps
    assert grown.gap_samples == whole.gap_samples == sum(g.length_samples for g in gaps)
    assert grown.position_at(offset) == whole.position_at(offset)


@given(
    gaps_strategy,
    st.integers(0, 50),
    st.integers(0, 150),
    st.integers(0, 150),
    st.booleans(),
)
def test_runs_cover_any_stretch_of_the_file(
    gaps: list[Gap], stored: int, first: int, count: int, cut: bool
) -> None:
    timeline = Timeline(start_samples=7, gaps=gaps)
    expected = frames_of(stored, gaps, cut=cut)
    assert timeline.total_samples(stored, cut=cut) == len(expected)
    runs = list(timeline.runs(stored, first, count, cut=cut))
    assert frames_of_runs(runs) == expected[first : first + count]


@pytest.mark.parametrize(("first", "count"), [(-1, 5), (0, -1)])
@pytest.mark.parametrize("cut", [True, False])
def test_runs_refuse_a_stretch_that_cannot_be(
    first: int, count: int, cut: bool
) -> None:
    with pytest.raises(ValueError, match="no such stretch"):
        list(Timeline().runs(10, first, count, cut=cut))


def test_clamped_moves_gaps_and_says_what_is_lost() -> None:
    timeline = Timeline(
        start_samples=3,
        gaps=[
            Gap(PAUSED, 50, 5),
            Gap(PAUSED, 100, 6),
            Gap(DISCARDED, 130, 7),
            Gap(PAUSED, 130, 8),
            Gap(PAUSED, 150, 9),
        ],
    )
    clamped = timeline.clamped(100)
    assert clamped.gaps == (
        Gap(PAUSED, 50, 5),
        Gap(PAUSED, 100, 6),
        Gap(LOST, 100, 30),
        Gap(DISCARDED, 100, 7),
        Gap(PAUSED, 100, 8),
        Gap(LOST, 100, 20),
        Gap(PAUSED, 100, 9),
    )
    assert clamped.start_samples == 3
    assert timeline.gap_samples == 35


@given(gaps_strategy, st.integers(0, 50))
def test_clamped_keeps_the_position_at_the_end(gaps: list[Gap], stored: int) -> None:
    timeline = Timeline(gaps=gaps)
    reached = max([stored, *(gap.offset_samples for gap in gaps)])
    clamped = timeline.clamped(stored)
    assert clamped.position_at(stored) == timeline.position_at(reached)
    assert clamped.total_samples(stored, cut=False) == timeline.position_at(reached)
    assert clamped.total_samples(stored, cut=True) == stored
    assert clamped.clamped(stored).gaps == clamped.gaps


def test_clamped_is_a_copy() -> None:
    timeline = Timeline(gaps=[Gap(PAUSED, 1, 1)])
    copy = timeline.clamped(10)
    timeline.add(Gap(PAUSED, 2, 1))
    assert copy.gaps == (Gap(PAUSED, 1, 1),)


def test_a_call_of_ten_hours_with_thousands_of_gaps() -> None:
    stored = 10 * 3600 * 8000
    chance = random.Random(10)
    offsets = sorted(chance.randrange(stored) for _ in range(20_000))
    timeline = Timeline(gaps=[Gap(PAUSED, offset, 1_000) for offset in offsets])
    total = timeline.total_samples(stored, cut=False)
    assert total == stored + 20_000_000
    for _ in range(500):
        first = chance.randrange(total)
        here = first
        for run in timeline.runs(stored, first, 4_000, cut=False):
            if run.offset_samples is not None:
                # A frame that is audio stands where the position of that sample is.
                assert timeline.position_at(run.offset_samples) == here
            here += run.length_samples
        assert here == min(first + 4_000, total)
