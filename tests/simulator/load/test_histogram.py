"""Times summed up."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiohook.simulator.load.histogram import Histogram, bucket_of

TIMES = st.lists(st.floats(0, 1000), min_size=1, max_size=50)


@given(times=TIMES, share=st.sampled_from([0.0, 0.5, 0.95, 0.99, 1.0]))
def test_quantile_is_a_bucket_too_much_at_most(
    times: list[float], share: float
) -> None:
    histogram = Histogram()
    histogram.add_all(times)
    ordered = sorted(times)
    exact = ordered[max(1, -int(-share * len(times) // 1)) - 1]
    found = histogram.quantile(share)
    assert exact <= found + 1e-6
    assert found <= max(exact * (1 + 1 / 64), exact + 1e-6) + 1e-6
    assert histogram.quantile(1.0) == histogram.largest == ordered[-1]


@given(first=st.floats(0, 1000), more=st.floats(0, 10))
def test_buckets_keep_the_order(first: float, more: float) -> None:
    assert bucket_of(first) <= bucket_of(first + more)


@given(one=TIMES, other=TIMES)
def test_merged_is_as_if_counted_together(one: list[float], other: list[float]) -> None:
    together, first, second = Histogram(), Histogram(), Histogram()
    together.add_all(one + other)
    first.add_all(one)
    second.add_all(other)
    first.merge(Histogram.from_json(json.loads(json.dumps(second.to_json()))))
    assert first == together


def test_counts_from_elsewhere_are_added() -> None:
    histogram = Histogram()
    counts = [0] * 2048
    counts[bucket_of(0.25)] = 3
    histogram.add_counts(counts, 0.2504)
    assert histogram.total == 3
    assert histogram.quantile(0.5) == pytest.approx(0.25, rel=1 / 64)
    assert histogram.largest == 0.2504


def test_nothing_is_zero() -> None:
    assert Histogram().quantile(0.99) == 0.0


def test_what_is_before_now_counts_as_zero() -> None:
    histogram = Histogram()
    histogram.add(-1.0)
    assert (histogram.total, histogram.quantile(0.5)) == (1, 0.0)
