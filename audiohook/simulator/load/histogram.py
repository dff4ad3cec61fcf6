"""Many times summed up in little memory, and added across processes."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# A bucket is at most 1/64 of its times wide, and a microsecond at least.
_FINE_BITS = 7
_HALF = 64


class HistogramState(TypedDict):
    """A histogram as JSON: (bucket, count) pairs, and the largest time."""

    counts: list[tuple[int, int]]
    largest: float


@dataclass(slots=True)
class Histogram:
    """How often something took how long, to about one part in a hundred.

    Attributes:
        counts: How many times fell into each bucket.
        largest: The longest, exact, in seconds.
    """

    counts: Counter[int] = field(default_factory=Counter)
    largest: float = 0.0

    @property
    def total(self) -> int:
        """How many times were taken in."""
        return self.counts.total()

    def add(self, seconds: float) -> None:
        """Take one time in; below zero counts as zero."""
        self.counts[bucket_of(seconds)] += 1
        self.largest = max(self.largest, seconds)

    def add_all(self, times: Iterable[float]) -> None:
        """Take several times in."""
        for seconds in times:
            self.add(seconds)

    def add_counts(self, counts: Sequence[int], largest: float) -> None:
        """Take in what was counted elsewhere, in the same buckets.

        Args:
            counts: One count a bucket.
            largest: The longest of those times, in seconds.
        """
        self.counts.update(
            {bucket: count for bucket, count in enumerate(counts) if count}
        )
        self.largest = max(self.largest, largest)

    def merge(self, other: Histogram) -> None:
        """Take in all of another."""
        self.counts.update(other.counts)
        self.largest = max(self.largest, other.largest)

    def quantile(self, share: float) -> float:
        """Tell what so large a share of the times did not exceed.

        Args:
            share: From 0 to 1.

        Returns:
            Seconds; up to a bucket's width too much, 0 if there were no times.
        """
        total = self.total
        if not total:
            return 0.0
        wanted = max(1, share * total)
        ordered = sorted(self.counts.items())
        passed = itertools.accumulate(count for _, count in ordered)
        for (bucket, _), reached in zip(ordered, passed, strict=True):
            if reached >= wanted:
                return min(_end_of(bucket), self.largest)
        return self.largest

    def to_json(self) -> HistogramState:
        """Give all of it as plain JSON."""
        return {"counts": sorted(self.counts.items()), "largest": self.largest}

    @classmethod
    def from_json(cls, state: HistogramState) -> Histogram:
        """Make what `to_json` gave."""
        return cls(Counter(dict(state["counts"])), state["largest"])


def bucket_of(seconds: float) -> int:
    """Tell which bucket a time belongs to."""
    microseconds = max(0, int(seconds * 1e6))
    shift = max(0, microseconds.bit_length() - _FINE_BITS)
    return _HALF * shift + (microseconds >> shift)


def _end_of(bucket: int) -> float:
    """Give the end of a bucket, in seconds."""
    shift = max(0, bucket // _HALF - 1)
    return ((bucket - _HALF * shift + 1) << shift) / 1e6
