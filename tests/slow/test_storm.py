"""Five hundred calls that begin in the same instant, and end in the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from audiohook.file_limit import raise_file_limit
from audiohook.simulator.load.shelf import open_shelf
from audiohook.simulator.load.verify import verify
from tests.house import KEY
from tests.simulator.load.runs import Run
from tests.slow.processes import Site, sound_audio, tell

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

CALLS = 500
# All have been opened by then.
CLOSE_AFTER_SECONDS = 8.0
FRAME_BYTES = 3200

# What Genesys waits.
OPENED_SECONDS = 5.0
PONG_SECONDS = 5.0
CLOSED_SECONDS = 10.0


async def test_every_call_of_a_storm_is_answered_and_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raise_file_limit(None)
    site = Site(tmp_path)
    async with site.serve() as server:
        storm = Run(
            server.uri,
            calls=CALLS,
            length=str(CLOSE_AFTER_SECONDS),
            together=True,
            frame_bytes=FRAME_BYTES,
            api_key=KEY,
        )
        await storm.make()
        await site.wait_stored()
    times = storm.figures.times
    worst = {name: times[name].largest for name in ("opened", "pong", "closed")}
    words = ", ".join(f"{name} {each * 1000:.0f} ms" for name, each in worst.items())
    tell(capsys, f"worst of {CALLS} at once: {words}")
    assert [call.faults for call in storm.calls if call.faults] == []
    assert times["opened"].total == times["closed"].total == CALLS
    assert worst["opened"] < OPENED_SECONDS
    assert worst["pong"] < PONG_SECONDS
    assert worst["closed"] < CLOSED_SECONDS
    verdict = await verify(storm.calls, open_shelf(str(site.recordings)))
    assert (verdict.sound, verdict.faults) == (CALLS, [])
    stored = site.stored()
    assert len(stored) == CALLS
    for recordings in stored.values():
        (recording,) = recordings
        assert recording.facts["ended"]["complete"] is True
        sound_audio(recording, site.recordings)
    assert site.strays() == []
