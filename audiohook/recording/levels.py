"""How loud a live call is just now: the end of its audio, as far as it is on the disk."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Final, NamedTuple

from audiohook._ulaw import peak_rms
from audiohook.recording.disk import AUDIO

if TYPE_CHECKING:
    from pathlib import Path

FLOOR: Final = -60.0
"""What is quieter than that is silence, in dB of full scale."""

# Enough for a syllable, little enough to follow speech.
_WINDOW_SAMPLES: Final = 4000
# Source: ITU-T G.711: the greatest magnitude, in 16 bits.
_FULL_SCALE: Final = 32124
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Level(NamedTuple):
    """How loud a channel is.

    Attributes:
        peak: Its loudest sample, in whole dB of full scale.
        rms: The root of the mean square, likewise.
    """

    peak: float
    rms: float


SILENT: Final = Level(FLOOR, FLOOR)


def latest_levels(folder: Path, channels: int) -> tuple[Level, ...]:
    """Measure the last half second of a call. Blocking.

    It opens the file anew, so that whoever waits for a disk that hangs may leave.

    Args:
        folder: Of the call in the spool.
        channels: 1 or 2.

    Returns:
        A level for each channel; silence if there is no audio, or not any more.
    """
    silent = (SILENT,) * channels
    try:
        fd = os.open(folder / AUDIO, _FLAGS)
        try:
            size = os.fstat(fd).st_size
            whole = size - size % channels
            offset = max(0, whole - _WINDOW_SAMPLES * channels)
            data = os.pread(fd, whole - offset, offset)
        finally:
            os.close(fd)
    except OSError:
        return silent
    data = data[: len(data) - len(data) % channels]
    if not data:
        return silent
    measured = peak_rms(data, channels)
    return tuple(Level(_decibels(peak), _decibels(rms)) for peak, rms in measured)


def _decibels(value: float) -> float:
    if value <= 0:
        return FLOOR
    return max(FLOOR, round(20 * math.log10(value / _FULL_SCALE)))
