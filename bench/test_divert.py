"""The diverter beside other parsers: a hundred frames, from the same bytes.

All get the stream in the same reads and end with the same audio in memory; what the
events of the others cost above that (a Python object a frame) is the point. Those of
websockets and aiohttp are there if they are installed; so they are by `make bench`.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from audiohook._divert import Lane
from tests.reference_frames import BINARY, Reader, frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_benchmark.fixture import BenchmarkFixture

FRAMES = 100
READ_BYTES = 16_384
MAX_MESSAGE_BYTES = 1024 * 1024


def stream_of(frame_bytes: int) -> tuple[list[bytes], int]:
    """Returns the bytes of the frames, cut into reads, and the audio in them."""
    source = random.Random(1)
    data = b"".join(
        frame(BINARY, source.randbytes(frame_bytes), mask=source.randbytes(4))
        for _ in range(FRAMES)
    )
    reads = [data[i : i + READ_BYTES] for i in range(0, len(data), READ_BYTES)]
    return reads, FRAMES * frame_bytes


def by_diverter(reads: list[bytes]) -> int:
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


def by_websockets(reads: list[bytes]) -> int:
    from websockets.protocol import SERVER, Protocol

    protocol = Protocol(SERVER, max_size=MAX_MESSAGE_BYTES)
    audio = bytearray()
    for data in reads:
        protocol.receive_data(data)
        for event in protocol.events_received():
            audio += event.data
    return len(audio)


def by_aiohttp(reads: list[bytes]) -> int:
    from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader

    # So large that it never wants the reading to pause, and needs no protocol.
    queue: Any = WebSocketDataQueue(None, 2**30, loop=None)
    reader = WebSocketReader(queue, MAX_MESSAGE_BYTES, False, False)
    audio = bytearray()
    for data in reads:
        reader.feed_data(data)
        while queue._buffer:
            message, _ = queue._buffer.popleft()
            audio += message.data
    return len(audio)


PARSERS: dict[str, Callable[[list[bytes]], int]] = {
    "diverter": by_diverter,
    "wsproto": by_wsproto,
    "websockets": by_websockets,
    "aiohttp": by_aiohttp,
}


@pytest.mark.parametrize("frame_bytes", [320, 1_600, 3_200, 64_000])
@pytest.mark.parametrize("name", PARSERS)
def test_frames(benchmark: BenchmarkFixture, name: str, frame_bytes: int) -> None:
    reads, audio_bytes = stream_of(frame_bytes)
    parse = PARSERS[name]
    try:
        parse(reads)
    except ImportError:
        pytest.skip(f"{name} is not installed here")
    benchmark.group = f"{FRAMES} frames of {frame_bytes} bytes"
    assert benchmark(parse, reads) == audio_bytes
    if benchmark.stats is not None:
        benchmark.extra_info |= {
            "name": name,
            "frame_bytes": frame_bytes,
            "frames_per_second": round(FRAMES / benchmark.stats["min"]),
        }
