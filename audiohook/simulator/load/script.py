"""What one of many calls does, chosen beforehand. No I/O, no clock."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from audiohook.protocol.timeline import SAMPLE_RATE_HZ
from audiohook.simulator.options import MAX_CHANNELS
from audiohook.simulator.schedule import Discard, Pause

if TYPE_CHECKING:
    from audiohook.simulator.load.options import LoadOptions

# How long gaps last, in seconds: what it takes to read out a card number is more,
# but nothing depends on it.
_GAP_LENGTHS = (0.5, 3.0)


class Ending(StrEnum):
    """How a call ends if nothing goes wrong."""

    CLOSED = "closed"
    """As it should be."""
    HUNG_UP = "hung-up"
    """Its connection is lost after the last audio."""
    PROBED = "probed"
    """It was only to try the connection."""


@dataclass(frozen=True, slots=True)
class Talk:
    """Send this many frames."""

    frames: int


Step = Talk | Pause | Discard


@dataclass(frozen=True, slots=True)
class Script:
    """One call.

    Attributes:
        steps: What it does, in order.
        ending: How it ends.
        phase: When within the time between two frames its first one is due, as a
            part of that time, so that not all calls send in the same instant.
    """

    steps: tuple[Step, ...]
    ending: Ending
    phase: float

    @property
    def frames(self) -> int:
        """How many frames it sends in all."""
        return sum(step.frames for step in self.steps if isinstance(step, Talk))


def write_script(options: LoadOptions, number: int) -> Script:
    """Choose what a call does.

    Args:
        options: The load.
        number: Number of the call; the same one always does the same.
    """
    draw = random.Random(f"{options.seed}/{number}")  # noqa: S311 - no secrets
    phase = draw.random()
    if draw.random() < options.probe:
        return Script((), Ending.PROBED, phase)
    length = options.lengths.draw(draw)
    frame_seconds = options.frame_bytes / MAX_CHANNELS / SAMPLE_RATE_HZ
    frames = max(1, round(length / frame_seconds))
    gaps: list[tuple[int, Pause | Discard]] = []
    if draw.random() < options.pause:
        gaps.append((draw.randint(0, frames), Pause(_gap(draw))))
    if draw.random() < options.discard:
        gaps.append((draw.randint(0, frames), Discard(_gap(draw))))
    hangs_up = draw.random() < options.hang_up
    ending = Ending.HUNG_UP if hangs_up else Ending.CLOSED
    return Script(_lay_out(frames, gaps), ending, phase)


def _gap(draw: random.Random) -> int:
    return round(draw.uniform(*_GAP_LENGTHS) * SAMPLE_RATE_HZ)


def _lay_out(frames: int, gaps: list[tuple[int, Pause | Discard]]) -> tuple[Step, ...]:
    """Put gaps between frames, each behind that many of them."""
    steps: list[Step] = []
    said = 0
    for at, gap in sorted(gaps, key=lambda item: item[0]):
        if at > said:
            steps.append(Talk(at - said))
            said = at
        steps.append(gap)
    if frames > said:
        steps.append(Talk(frames - said))
    return tuple(steps)
