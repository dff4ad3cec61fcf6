"""Five hundred calls that begin in the same instant, and end in the same."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import trio

from audiohook.service import raise_file_limit
from bench.load import Call, Due, Load, LoadOptions, verify
from tests.house import KEY
from tests.slow.processes import Site, sound_audio, tell, worst

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

CALLS = 500
# All have been opened and have sent all but their last frame by then.
CLOSE_AFTER_SECONDS = 8.0
AUDIO_SECONDS = 2.0
FRAME_BYTES = 3200

# What Genesys waits.
OPENED_SECONDS = 5.0
PONG_SECONDS = 5.0
CLOSED_SECONDS = 10.0


class Storm(Load):
    """Calls that hold their last frame back, to close all at once.

    Args:
        options: What to do.
        close_at: When, on the monotonic clock.
    """

    def __init__(self, options: LoadOptions, close_at: float) -> None:
        super().__init__(options)
        self._close_at = close_at

    def _send_audio(self, call: Call, at: float) -> None:
        is_last = call.frames + 1 == self._total_frames
        if is_last and at < self._close_at:
            self._plan(self._close_at, call, Due.FRAME)
        else:
            super()._send_audio(call, at)


async def test_every_call_of_a_storm_is_answered_and_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raise_file_limit(None)
    site = Site(tmp_path)
    async with site.serve() as server:
        options = LoadOptions(
            uri=server.uri,
            calls=CALLS,
            duration=AUDIO_SECONDS,
            ramp=0.0,
            frame_bytes=FRAME_BYTES,
            rate=5.0,
            api_key=KEY,
        )
        storm = Storm(options, time.monotonic() + CLOSE_AFTER_SECONDS)
        await trio.to_thread.run_sync(storm.run)
        await site.wait_stored()
    tell(
        capsys,
        f"worst of {CALLS} at once: opened {worst(storm.openings)},"
        f" pong {worst(storm.pings)}, closed {worst(storm.closings)}",
    )
    assert [call.failure for call in storm.calls if call.failure] == []
    assert len(storm.openings) == len(storm.closings) == CALLS
    assert max(storm.openings) < OPENED_SECONDS
    assert max(storm.pings) < PONG_SECONDS
    assert max(storm.closings) < CLOSED_SECONDS
    assert verify(site.recordings, storm.calls, FRAME_BYTES) == []
    stored = site.stored()
    assert len(stored) == CALLS
    for recordings in stored.values():
        (recording,) = recordings
        assert recording.facts["ended"]["complete"] is True
        sound_audio(recording, site.recordings)
    assert site.strays() == []
