"""Calls in which it is known who speaks when, and transcripts held against them."""

from __future__ import annotations

import io
import json
import re
import wave
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from audiohook.protocol.timeline import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.house import Recording

NAMES = {"external": "customer", "internal": "agent"}
TOLERANCE_MS = 100

# Pauses within one's speech are shorter than the one, and between turns longer.
_TURN_SECONDS = (0.6, 2.5)
_PAUSE_SECONDS = (1.2, 3.0)
_TONE_HZ = {"external": 210.0, "internal": 140.0}
_PEAK = 9000
_NOISE = 20
_STEREO = 2

_WINDOW_MS = 10
_LOUD = 400.0
_GAP_MS = 500
_TURN = re.compile(r"\[(\d\d):(\d\d):(\d\d)\] ([a-z]+): (.+)")


def write_talk(
    path: Path, seconds: float, channels: Sequence[str], draw: random.Random
) -> Path:
    """Writes a WAV in which both sides speak at times of their own.

    Args:
        path: Where.
        seconds: How long.
        channels: Names of the channels, in the order that they are to have.
        draw: Chance.
    """
    sides = [_side(seconds, name, draw) for name in channels]
    samples = np.stack(sides, axis=1).astype("<i2")
    with wave.open(str(path), "wb") as wav:
        wav.setnchannels(len(sides))
        wav.setsampwidth(2)
        wav.setframerate(SAMPLE_RATE_HZ)
        wav.writeframes(samples.tobytes())
    return path


def _side(seconds: float, name: str, draw: random.Random) -> NDArray[np.float64]:
    count = round(seconds * SAMPLE_RATE_HZ)
    times = np.arange(count) / SAMPLE_RATE_HZ
    voice = _PEAK * np.sin(2 * np.pi * _TONE_HZ[name] * times)
    speaks = np.zeros(count, bool)
    at = draw.uniform(0.2, 1.5)
    while at < seconds:
        length = draw.uniform(*_TURN_SECONDS)
        first, last = (round(each * SAMPLE_RATE_HZ) for each in (at, at + length))
        speaks[first:last] = True
        at += length + draw.uniform(*_PAUSE_SECONDS)
    noise = np.random.default_rng(draw.randrange(2**32)).normal(0, _NOISE, count)
    return np.where(speaks, voice, 0) + noise


@dataclass(frozen=True)
class Span:
    """From when to when somebody speaks, in milliseconds."""

    start: int
    end: int

    def is_near(self, other: Span) -> bool:
        return (
            abs(self.start - other.start) <= TOLERANCE_MS
            and abs(self.end - other.end) <= TOLERANCE_MS
        )


def activity(data: bytes) -> list[list[Span]]:
    """Finds out who speaks when, for each channel of a stereo PCM16 WAV."""
    with wave.open(io.BytesIO(data)) as wav:
        assert (wav.getnchannels(), wav.getsampwidth()) == (_STEREO, 2)
        samples = np.frombuffer(wav.readframes(wav.getnframes()), "<i2")
    window = SAMPLE_RATE_HZ * _WINDOW_MS // 1000
    whole = len(samples) // _STEREO // window * window
    blocks = samples[: whole * _STEREO].astype(float).reshape(-1, window, _STEREO)
    loud = np.sqrt((blocks**2).mean(axis=1)) > _LOUD
    return [_spans(loud[:, channel]) for channel in range(_STEREO)]


def _spans(loud: NDArray[np.bool_]) -> list[Span]:
    spans: list[Span] = []
    for index in np.flatnonzero(loud):
        start = int(index) * _WINDOW_MS
        if spans and start - spans[-1].end <= _GAP_MS:
            spans[-1] = Span(spans[-1].start, start + _WINDOW_MS)
        else:
            spans.append(Span(start, start + _WINDOW_MS))
    return spans


def check_transcript(recording: Recording, channels: Sequence[str]) -> int:
    """Holds a transcript against its WAV.

    Args:
        recording: What the store holds of a call.
        channels: Names of the channels as they were sent, in order.

    Returns:
        The largest distance between what is written and what is heard, in ms.
    """
    facts = recording.facts
    (told,) = facts["transcripts"]
    assert told["status"] == "completed", told
    name = recording.folder.name
    answer = json.loads(
        (recording.folder / "transcripts" / f"{name}.json").read_bytes()
    )
    assert answer["id"] == told["id"]
    heard = activity(recording.audio(".wav"))
    said = _utterances(answer)
    worst = 0
    for channel, spans in enumerate(heard):
        mine = [span for number, span in said if number == channel]
        assert len(mine) == len(spans), (name, channel, mine, spans)
        for written, real in zip(mine, spans, strict=True):
            assert written.is_near(real), (name, channel, written, real)
            worst = max(
                *(worst, abs(written.start - real.start), abs(written.end - real.end))
            )
    text = (recording.folder / "transcripts" / f"{name}.txt").read_text()
    turns = [_TURN.fullmatch(line) for line in text.splitlines()]
    spoken = [
        (span.start // 1000, NAMES[channels[number]])
        for number, span in sorted(said, key=lambda each: (each[1].start, each[0]))
    ]
    assert [_turn(each) for each in turns] == spoken, name
    return worst


def _turn(match: re.Match[str] | None) -> tuple[int, str]:
    assert match is not None
    hours, minutes, seconds = (int(match[group]) for group in (1, 2, 3))
    return (hours * 60 + minutes) * 60 + seconds, match[4]


def _utterances(answer: dict[str, Any]) -> list[tuple[int, Span]]:
    """Returns the channel, from 0 on, and the time of each, by their time."""
    found = [
        (int(each["channel"]) - 1, Span(each["start"], each["end"]))
        for each in answer["utterances"]
    ]
    return sorted(found, key=lambda each: each[1].start)
