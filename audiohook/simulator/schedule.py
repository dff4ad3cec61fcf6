"""What happens where in the stream of a simulated call. No I/O, no clock."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audiohook.errors import ConfigError
from audiohook.protocol.timeline import SAMPLE_RATE_HZ
from audiohook.simulator.options import seconds_to_samples

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from audiohook.simulator.options import CallOptions

# Random frames: from one sample to half a second.
_MAX_RANDOM_SAMPLES = SAMPLE_RATE_HZ // 2


@dataclass(frozen=True, slots=True)
class Frame:
    """Send this much audio (samples per channel)."""

    length_samples: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Pause on the client's side for this long (samples per channel)."""

    length_samples: int


@dataclass(frozen=True, slots=True)
class Discard:
    """Lose this much of the stream (samples per channel)."""

    length_samples: int


@dataclass(frozen=True, slots=True)
class ChangeLanguage:
    """Tell the server of another language."""

    language: str


@dataclass(frozen=True, slots=True)
class ReportError:
    """Report an error to the server."""

    code: int
    message: str


@dataclass(frozen=True, slots=True)
class HangUp:
    """Drop the connection."""


@dataclass(frozen=True, slots=True)
class End:
    """All audio was played: close the session."""


Happening = Pause | Discard | ChangeLanguage | ReportError | HangUp
Step = Happening | Frame | End


class Schedule:
    """The order of frames and happenings of one call.

    `peek` gives the step that is next at a position and `advance` says that it
    was done; between the two the position may move (the server may pause).

    Args:
        happenings: Where (in samples of the position) what happens.
        frame_lengths: Wanted lengths of frames, in samples; endless.
        audio_samples: Samples per channel of the audio to play.

    Raises:
        ConfigError: Something is to happen past the end of the call.
    """

    def __init__(
        self,
        happenings: Iterable[tuple[int, Happening]],
        frame_lengths: Iterator[int],
        audio_samples: int,
    ) -> None:
        self._happenings = sorted(happenings, key=lambda item: item[0])
        self._lengths = frame_lengths
        self._wanted = next(frame_lengths)
        self._next_is_frame = False
        end = audio_samples
        for at, happening in self._happenings:
            if at > end:
                raise ConfigError(
                    f"nothing can happen at {at / SAMPLE_RATE_HZ:g} s: "
                    f"the call ends at {end / SAMPLE_RATE_HZ:g} s"
                )
            if isinstance(happening, Pause | Discard):
                end += happening.length_samples

    def peek(self, position_samples: int, remaining_samples: int) -> Step:
        """Give the next step.

        Args:
            position_samples: Position of the stream now.
            remaining_samples: Audio that is left to play.
        """
        self._next_is_frame = False
        length = min(self._wanted, remaining_samples)
        if self._happenings:
            at, happening = self._happenings[0]
            if at <= position_samples:
                return happening
            length = min(length, at - position_samples)
        if length == 0:
            return End()
        self._next_is_frame = True
        return Frame(length)

    def advance(self) -> None:
        """Leave behind the step that `peek` gave last."""
        if self._next_is_frame:
            self._wanted = next(self._lengths)
        elif self._happenings:
            del self._happenings[0]


def plan(options: CallOptions, audio_samples: int) -> Schedule:
    """Make the schedule that the options ask for.

    Args:
        options: The call.
        audio_samples: Samples per channel of its audio.

    Raises:
        ConfigError: Something is to happen past the end of the call.
    """
    happenings: list[tuple[float, Happening]] = []
    happenings += [(at, Pause(seconds_to_samples(n))) for at, n in options.pauses]
    happenings += [(at, Discard(seconds_to_samples(n))) for at, n in options.discards]
    happenings += [(at, ChangeLanguage(word)) for at, word in options.updates]
    happenings += [(at, ReportError(code, text)) for at, code, text in options.errors]
    if options.hang_up_at is not None:
        happenings.append((options.hang_up_at, HangUp()))
    return Schedule(
        [(seconds_to_samples(at), happening) for at, happening in happenings],
        _frame_lengths(options),
        audio_samples,
    )


def _frame_lengths(options: CallOptions) -> Iterator[int]:
    if options.frame_samples:
        return itertools.cycle(options.frame_samples)
    if options.frame_seed is not None:
        draw = random.Random(options.frame_seed)  # noqa: S311 - sizes, no secrets
        return iter(lambda: draw.randint(1, _MAX_RANDOM_SAMPLES), 0)
    return itertools.repeat(options.frame_ms * SAMPLE_RATE_HZ // 1000)
