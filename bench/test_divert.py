"""The diverter beside wsproto: a second of ten calls' frames, from the same bytes.

Both get the stream in the same reads and end with the same audio in memory; what
wsproto's events cost above that (a Python object a frame) is the point.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from audiohook._divert import Lane
from tests.reference_frames import BINARY, Reader, frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_benchmark.fixture import BenchmarkFixture

FRAMES = 100
READ_BYTES = 16_384


def stream_of(frame_bytes: int) -> tuple[list[bytes], int]:
    """Returns the bytes of the frames, cut into reads, and the audio in them."""
    source = random.Random(1)
    data = b"".join(
        frame(BINARY, source.randbytes(frame_bytes), mask=source.randbytes(4))
        for _ in range(FRAMES)
    )
    reads = [data[i : i + READ_BYTES] for i in range(0, len(data), READ_BYTES)]
    return reads, FRAMES * frame_bytes


def by_lane(reads: list[bytes]) -> int:
    lane = Lane(audio_limit_bytes=FRAMES * 65_536 * 2)
    lane.start_frames(0)
    lane.keep(2)
    for data in reads:
        lane.feed(data)
    return lane.audio_bytes


def by_wsproto(reads: list[bytes]) -> int:
    reader = Reader()
    audio = bytearray()
    for data in reads:
        for item in reader.feed(data):
            assert isinstance(item, bytes)
            audio += item
    return len(audio)


@pytest.mark.parametrize("frame_bytes", [320, 1_600, 3_200, 64_000])
@pytest.mark.parametrize("parse", [by_lane, by_wsproto])
def test_frames(
    benchmark: BenchmarkFixture, parse: Callable[[list[bytes]], int], frame_bytes: int
) -> None:
    reads, audio_bytes = stream_of(frame_bytes)
    benchmark.group = f"{FRAMES} frames of {frame_bytes} bytes"
    assert benchmark(parse, reads) == audio_bytes
    if benchmark.stats is not None:
        seconds = benchmark.stats["min"]
        benchmark.extra_info["frames_per_second"] = round(FRAMES / seconds)
