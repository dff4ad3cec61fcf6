"""Positions and gaps of one call, in exact samples.

The audio of a call is kept compact, just as it came; what is missing between is
a list of gaps. From both follow every position on the wire and every frame of the
finished file. Amounts are samples per channel, at 8000 Hz, so that nothing is
ever rounded but an amount the peer gave more finely than a sample.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from itertools import accumulate
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SAMPLE_RATE_HZ: Final = 8000

DURATION_PATTERN: Final = r"^PT(?:([0-9]*)\.)?([0-9]+)S$"
"""How a duration is written: seconds only, no sign, no exponent.

Source: the pattern of the AudioHook reference implementation, for ASCII digits only.
"""

MAX_DURATION_CHARS: Final = 40
"""Longest duration that is read.

The longest on record has 9 decimals. The bound keeps a hostile peer from having us
multiply numbers of thousands of digits.
"""

_DURATION: Final = re.compile(DURATION_PATTERN)

_HALF: Final = Fraction(1, 2)
_MICROSECONDS_PER_SAMPLE: Final = 1_000_000 // SAMPLE_RATE_HZ


def is_duration(text: str) -> bool:
    """Tell whether a text is a duration that `parse_duration` reads."""
    return _matched(text) is not None


def parse_duration(text: str) -> Fraction:
    """Read a duration as AudioHook writes it.

    Args:
        text: Such as ``PT1.25S``, see `DURATION_PATTERN`.

    Returns:
        Seconds, exact.

    Raises:
        ValueError: The text is no such duration, or longer than any sane one. The
            error's text never repeats what the peer sent.
    """
    match = _matched(text)
    if match is None:
        raise ValueError("a duration must be of the form PT1.25S")
    whole, digits = match.groups()
    if whole is None:
        return Fraction(int(digits))
    return Fraction(int(whole + digits), 10 ** len(digits))


def _matched(text: str) -> re.Match[str] | None:
    # fullmatch, because `$` alone lets a trailing newline through.
    return _DURATION.fullmatch(text) if len(text) <= MAX_DURATION_CHARS else None


def duration_to_samples(seconds: Fraction) -> int:
    """Turn seconds into samples per channel, halves rounded up."""
    return math.floor(seconds * SAMPLE_RATE_HZ + _HALF)


def format_duration(samples: int) -> str:
    """Write an amount of samples as AudioHook wants it: exact, no exponent.

    Args:
        samples: Samples per channel, not negative.

    Returns:
        Such as ``PT0S``, ``PT1.5S`` or ``PT0.000125S``.

    Raises:
        ValueError: ``samples`` is negative, for which there is no notation.
    """
    if samples < 0:
        raise ValueError(f"a duration cannot be negative: {samples} samples")
    seconds, rest = divmod(samples, SAMPLE_RATE_HZ)
    if rest == 0:
        return f"PT{seconds}S"
    fraction = f"{rest * _MICROSECONDS_PER_SAMPLE:06d}".rstrip("0")
    return f"PT{seconds}.{fraction}S"


class GapKind(StrEnum):
    """Why audio is missing."""

    PAUSED = "paused"
    """The stream was paused, by the client or on our word."""
    DISCARDED = "discarded"
    """The client dropped audio, and said so."""
    LOST = "lost"
    """It came, and we could not keep it."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of the call of which there is no audio.

    Attributes:
        kind: Why.
        offset_samples: Samples per channel that are stored before the gap.
        length_samples: Samples per channel that are missing.
    """

    kind: GapKind
    offset_samples: int
    length_samples: int

    def __post_init__(self) -> None:
        if self.offset_samples < 0 or self.length_samples < 0:
            raise ValueError(
                "a gap cannot start or last a negative amount: "
                f"{self.offset_samples} and {self.length_samples} samples"
            )


@dataclass(frozen=True, slots=True)
class Run:
    """A stretch of the finished file that comes from one place.

    Attributes:
        offset_samples: Where its audio is stored, in samples per channel; None if
            it is silence.
        length_samples: Its length, in samples per channel; never 0.
    """

    offset_samples: int | None
    length_samples: int


class Timeline:
    """The gaps of one call, and what follows from them.

    Nothing in here grows with the length of the call, only with the number of
    gaps; look-ups search by halves. It is not safe to `add` while another thread
    reads: give that thread a copy (`clamped` makes one).

    Args:
        start_samples: Position at which the stream started (``open.position``). It
            counts for positions only; the file begins with the first audio.
        gaps: In any order.

    Raises:
        ValueError: ``start_samples`` is negative.
    """

    __slots__ = ("_gaps", "_offsets", "_start", "_sums")

    def __init__(self, *, start_samples: int = 0, gaps: Iterable[Gap] = ()) -> None:
        if start_samples < 0:
            raise ValueError(f"a stream cannot start at {start_samples} samples")
        self._start = start_samples
        self._gaps = sorted(gaps, key=lambda gap: gap.offset_samples)
        self._offsets = [gap.offset_samples for gap in self._gaps]
        # One entry more than there are gaps: _sums[i] is the length of the first i.
        self._sums = list(
            accumulate((gap.length_samples for gap in self._gaps), initial=0)
        )

    @property
    def start_samples(self) -> int:
        """Position at which the stream started, in samples per channel."""
        return self._start

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """All gaps by offset; those at one offset in the order they came."""
        return tuple(self._gaps)

    @property
    def gap_samples(self) -> int:
        """Length of all gaps together, in samples per channel."""
        return self._sums[-1]

    @property
    def last_offset_samples(self) -> int:
        """Offset of the last gap, in samples per channel; 0 if there is none."""
        return self._offsets[-1] if self._offsets else 0

    def add(self, gap: Gap) -> None:
        """Note a gap; its offset may lie before that of gaps noted earlier."""
        index = bisect_right(self._offsets, gap.offset_samples)
        self._gaps.insert(index, gap)
        self._offsets.insert(index, gap.offset_samples)
        self._sums[index + 1 :] = [
            self._sums[index] + gap.length_samples,
            *(total + gap.length_samples for total in self._sums[index + 1 :]),
        ]

    def position_at(self, offset_samples: int) -> int:
        """Tell the stream's position once so much audio has come.

        Args:
            offset_samples: Stored audio before the point, in samples per channel. A
                gap that starts exactly there counts as passed.

        Returns:
            Samples per channel since position zero of the stream.
        """
        passed = self._sums[bisect_right(self._offsets, offset_samples)]
        return self._start + offset_samples + passed

    def total_samples(self, stored_samples: int, *, cut: bool) -> int:
        """Tell how long the finished file is.

        Args:
            stored_samples: Audio there is, in samples per channel. Gaps beyond it do
                not count; see `clamped`.
            cut: True if gaps are left out, False if they become silence.

        Returns:
            Frames of the file.
        """
        if cut:
            return stored_samples
        passed = self._sums[bisect_right(self._offsets, stored_samples)]
        return stored_samples + passed

    def runs(
        self, stored_samples: int, first: int, count: int, *, cut: bool
    ) -> Iterator[Run]:
        """Tell where a stretch of the finished file comes from.

        Args:
            stored_samples: Audio there is, in samples per channel. Gaps beyond it do
                not count; see `clamped`.
            first: First frame wanted.
            count: Frames wanted; those past the end of the file are left off.
            cut: True if gaps are left out, False if they become silence.

        Yields:
            Runs which cover the stretch without overlap, in order.

        Raises:
            ValueError: ``first`` or ``count`` is negative.
        """
        if first < 0 or count < 0:
            raise ValueError(f"no such stretch: {count} frames from {first} on")
        here = first
        end = min(first + count, self.total_samples(stored_samples, cut=cut))
        if cut:
            if here < end:
                yield Run(here, end - here)
            return
        known = bisect_right(self._offsets, stored_samples)
        index = bisect_right(range(known), here, key=self._gap_end)
        while here < end:
            passed = self._sums[index]
            gap_start = self._offsets[index] + passed if index < known else end
            if here < gap_start:
                stop = min(gap_start, end)
                yield Run(here - passed, stop - here)
            else:
                stop = min(self._gap_end(index), end)
                if here < stop:
                    yield Run(None, stop - here)
                index += 1
            here = stop

    def clamped(self, stored_samples: int) -> Timeline:
        """Copy the timeline for audio that ends earlier than the gaps say.

        After a crash the journal may know of gaps past the last audio that reached
        the disk. They are moved to the end of the audio, and what is missing before
        each becomes a gap of kind ``lost``, so that the total is still right.

        Args:
            stored_samples: Audio there is, in samples per channel.

        Returns:
            A timeline none of whose gaps lies past ``stored_samples``.
        """
        known = bisect_right(self._offsets, stored_samples)
        gaps = self._gaps[:known]
        reached = stored_samples
        for gap in self._gaps[known:]:
            missing = gap.offset_samples - reached
            if missing > 0:
                gaps.append(Gap(GapKind.LOST, stored_samples, missing))
                reached = gap.offset_samples
            gaps.append(Gap(gap.kind, stored_samples, gap.length_samples))
        return Timeline(start_samples=self._start, gaps=gaps)

    def _gap_end(self, index: int) -> int:
        """Frame of the file at which a gap's silence is over."""
        return self._offsets[index] + self._sums[index + 1]
