"""What a waveform is drawn from, made in a way that is written for the eye."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING

from audiohook.recording import _peaks
from audiohook.recording.wav import TAG_PCM, read_info
from tests import reference_ulaw as reference

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST, MOST = _peaks.LEAST_SPAN_SAMPLES, _peaks.MOST_SPANS


def span_of(frames: int) -> int:
    """Samples of a span of so long a recording."""
    span = LEAST
    while frames // span >= MOST:
        span *= 2
    return span


def naive_dat(values: Sequence[int], channels: int) -> bytes:
    """The file on a recording, of which all samples stand in a list."""
    frames = len(values) // channels
    span = span_of(frames)
    spans = [
        values[start * channels : (start + span) * channels]
        for start in range(0, frames, span)
    ]
    body = b""
    for each in spans:
        for channel in range(channels):
            side = each[channel::channels]
            body += struct.pack("bb", int(min(side) / 256), int(max(side) / 256))
    return struct.pack("<iIiiIi", 2, 1, 8000, span, len(spans), channels) + body


def summed_up(wav: bytes) -> bytes:
    """What belongs beside a WAV file, made of the samples that stand in it."""
    info = read_info(io.BytesIO(wav))
    data = wav[info.data_offset : info.data_offset + info.data_bytes]
    pcm = data if info.encoding_tag == TAG_PCM else reference.decode(data)
    values = [value for (value,) in struct.iter_unpack("<h", pcm)]
    return naive_dat(values, info.channels)
