"""Audio to play in a simulated call: a WAV file, or a built-in conversation."""

from __future__ import annotations

import functools
import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audiohook import _ulaw
from audiohook.errors import ConfigError
from audiohook.protocol.timeline import SAMPLE_RATE_HZ
from audiohook.recording.wav import TAG_PCM, read_info
from audiohook.simulator.options import MAX_CHANNELS, STEREO, seconds_to_samples

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from audiohook.protocol.messages import Channel
    from audiohook.recording.wav import WavInfo

# The built-in conversation is made once for this long, then repeats.
_LOOP_SECONDS = 8
_SYLLABLES_HZ = 4
_PEAK = 9000
# (pitch in hertz, speaks from, until) of each channel, in seconds of the loop.
_SPEAKERS = ((117, 0.25, 3.75), (208, 4.25, 7.75))
# Weights of the harmonics: a vowel's spectrum, roughly.
_HARMONICS = (1.0, 0.7, 0.5, 0.6, 0.3, 0.15)


@dataclass(slots=True)
class AudioSource:
    """µ-law audio that is read once from front to end.

    Attributes:
        data: Samples, channels interleaved; repeated if it is too short.
        channels: Name of each channel, in order.
        total_samples: Samples per channel to give in all.
        read_samples: Samples per channel given so far.
    """

    data: bytes
    channels: tuple[Channel, ...]
    total_samples: int
    read_samples: int = 0

    @property
    def remaining_samples(self) -> int:
        """Samples per channel that are still to come."""
        return self.total_samples - self.read_samples

    def read(self, count_samples: int) -> bytes:
        """Give the next samples.

        Args:
            count_samples: Samples per channel.

        Returns:
            µ-law bytes, channels interleaved; fewer at the end.
        """
        count = min(count_samples, self.remaining_samples)
        width = len(self.channels)
        start, length = self.read_samples * width, count * width
        self.read_samples += count
        start %= len(self.data) or 1
        piece = self.data[start : start + length]
        while len(piece) < length:
            piece += self.data[: length - len(piece)]
        return piece

    def only(self, wanted: Sequence[str]) -> AudioSource:
        """Give an unread source of some of the channels.

        Args:
            wanted: Names of the channels, in the order of this source.
        """
        width = len(self.channels)
        kept = tuple(channel for channel in self.channels if channel in wanted)
        if kept == self.channels:
            return AudioSource(self.data, self.channels, self.total_samples)
        data = self.data[self.channels.index(kept[0]) :: width]
        return AudioSource(data, kept, self.total_samples)


def load_wav(path: Path, channels: tuple[Channel, ...] | None = None) -> AudioSource:
    """Read a recording whole.

    Args:
        path: WAV file, µ-law or 16-bit PCM, mono or stereo, 8 kHz.
        channels: Names of its channels; None takes the usual ones.

    Raises:
        ConfigError: It cannot be read or is of another kind; the text says how
            to convert it.
    """
    try:
        with path.open("rb") as stream:
            info = read_info(stream)
            _check(info)
            stream.seek(info.data_offset)
            data = stream.read(info.data_bytes)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(
            f"{path}: {error}. Convert it with: "
            f"sox {path} -r 8000 -c 2 -b 16 -e signed-integer call.wav"
        ) from error
    names = channels if channels is not None else STEREO[: info.channels]
    if len(names) != info.channels:
        raise ConfigError(
            f"{path} has {info.channels} channel(s), but {len(names)} were named"
        )
    if info.encoding_tag == TAG_PCM:
        data = _ulaw.encode(data)
    return AudioSource(data, names, len(data) // len(names))


def _check(info: WavInfo) -> None:
    """Refuse what AudioHook does not carry.

    Raises:
        ValueError: The text names the fault and what is needed.
    """
    if info.rate_hz != SAMPLE_RATE_HZ:
        raise ValueError(f"its rate is {info.rate_hz} Hz, but AudioHook's is 8000 Hz")
    if info.channels > MAX_CHANNELS:
        raise ValueError(f"it has {info.channels} channels; one or two will do")


def conversation(
    duration: float, channels: tuple[Channel, ...] | None = None
) -> AudioSource:
    """Make two voices that take turns, one on each channel.

    The voices are vowels with a syllable's rhythm: enough for an ear or a
    voice detector to tell who speaks, nothing that a transcriber could read.

    Args:
        duration: Seconds in all.
        channels: Names of the channels; None makes both.
    """
    names = STEREO if channels is None else channels
    voices = [_voice(*_SPEAKERS[STEREO.index(name)]) for name in names]
    mixed = [value for values in zip(*voices, strict=True) for value in values]
    data = _ulaw.encode(struct.pack(f"<{len(mixed)}h", *mixed))
    return AudioSource(data, names, seconds_to_samples(duration))


@functools.cache
def _voice(pitch_hz: int, begins: float, ends: float) -> tuple[int, ...]:
    """Make one loop of one speaker as 16-bit samples."""
    # The pitch and the syllables are whole numbers of hertz, so that one second
    # repeats without a click and only one has to be computed.
    scale = _PEAK / sum(_HARMONICS)
    second = []
    for index in range(SAMPLE_RATE_HZ):
        time = index / SAMPLE_RATE_HZ
        wave = sum(
            weight * math.sin(math.tau * pitch_hz * number * time)
            for number, weight in enumerate(_HARMONICS, start=1)
        )
        envelope = math.sin(math.pi * _SYLLABLES_HZ * time) ** 2
        second.append(round(scale * wave * envelope))
    first, last = seconds_to_samples(begins), seconds_to_samples(ends)
    return tuple(
        second[index % SAMPLE_RATE_HZ] if first <= index < last else 0
        for index in range(_LOOP_SECONDS * SAMPLE_RATE_HZ)
    )
