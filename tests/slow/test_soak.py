"""Calls that come and go for long, and whether anything stays behind."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
import trio

from tests.slow.processes import Site, tell
from tests.slow.scale import scaled
from tests.slow.vitals import MIB, Curve
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.slow.vitals import Look

pytestmark = pytest.mark.slow

CALLS = scaled(60, 500)
LENGTHS = scaled("2..8", "5..30")
SECONDS = scaled(35, 20 * 60)
LOOK_SECONDS = scaled(0.5, 5.0)
# From the end of the last call to the last recording, and its comparison.
REST_SECONDS = scaled(60, 900)
SHOWN = 12

# What may come and go with the calls of a moment.
MEMORY_SHARE = 1.08
MEMORY_SPREAD_BYTES = 6 * MIB
MOST_THREADS = 40
IDLE_SECONDS = 20.0


def memory(each: Look) -> float:
    return each.rss_bytes


async def test_nothing_grows_and_nothing_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Half of the disk's work is left out; what is compared is the same.
    site = Site(tmp_path, {"KEEP_RAW": "false", "WAV_ENCODING": "ulaw"})
    report = tmp_path / "report.json"
    async with site.serve() as server:
        curve = Curve(server.pid, site.recordings / ".spool", LOOK_SECONDS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(curve.draw)
            await wait_until(lambda: curve.looks)
            before = curve.looks[0]
            ended = await site.command(
                *("load", server.uri, "--calls", str(CALLS), "--duration", LENGTHS),
                *("--keep", str(SECONDS), "--verify", site.recordings),
                *("--wait", "120", "--json", report),
                seconds=SECONDS + REST_SECONDS,
            )
            await site.wait_stored()
            await wait_until(
                lambda: curve.looks[-1].files <= before.files + 2, IDLE_SECONDS
            )
            nursery.cancel_scope.cancel()
        server.terminate()
        assert await server.wait() == 0
    figures = json.loads(report.read_text())
    for each in curve.looks[:: max(1, len(curve.looks) // SHOWN)]:
        tell(capsys, str(each))
    tell(
        capsys,
        f"{figures['calls']} calls, {figures['verified']} recordings as sent,"
        f" {figures['compared_bytes'] / MIB:.0f} MiB compared; answers in ms:"
        f" {figures['latency_ms']}",
    )
    assert ended.returncode == 0, (ended.stdout, ended.stderr)
    assert figures["failed"] == 0
    assert figures["faults"] == []
    assert figures["verified"] == figures["calls"] > CALLS
    early = curve.median(memory, 0.3, 0.6)
    late = curve.median(memory, 0.7, 1.0)
    assert late <= early * MEMORY_SHARE + MEMORY_SPREAD_BYTES
    assert max(each.threads for each in curve.looks) <= MOST_THREADS
    assert curve.looks[-1].spooled == 0
    assert server.lines("call_not_stored") == []
    assert site.strays() == []
    # Gigabytes, which pytest would keep.
    shutil.rmtree(site.recordings)
