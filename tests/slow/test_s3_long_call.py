"""A long call is in the bucket when it is over, but for its ends."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
import trio

from audiohook.storage.base import MIB
from tests.house import KEY
from tests.slow.bucket import Bucket, aws_settings, parts_sent
from tests.slow.peer import Peer, Target
from tests.slow.processes import Site, tell

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faultproxy import FaultProxy
    from tests.house import Recording
    from tests.slow.processes import Server

pytestmark = pytest.mark.slow

MINUTES = 12
GAP_SECONDS = 7.5
RAW_BYTES = MINUTES * 60 * 16_000
# Stereo PCM is twice as long as the audio as received.
WAV_BYTES = 44 + 2 * RAW_BYTES + round(GAP_SECONDS * 32_000)
PART_BYTES = 5 * MIB

# The service looks at live calls every few seconds.
LIVE_SECONDS = 30.0
STORED_SECONDS = 2.0


async def play_long_call(server: Server) -> Peer:
    """Makes a call with a gap in it, and leaves it open."""
    peer = Peer(Target(server.port, KEY.encode(), b"", b""), number=7)
    await peer.open()
    half = MINUTES * 30.0
    await peer.play(half)
    gap = {"start": f"PT{half}S", "discarded": f"PT{GAP_SECONDS}S"}
    await peer.say("discarded", parameters=gap)
    await peer.play(half)
    return peer


def only(recordings: dict[str, list[Recording]]) -> Recording:
    ((recording,),) = recordings.values()
    return recording


async def wait_for_parts(
    bucket: Bucket, peer: Peer, wanted: dict[str, set[int]]
) -> None:
    """Waits until these parts are stored, by the ending of their key."""
    with trio.fail_after(LIVE_SECONDS):
        while True:
            found = await trio.to_thread.run_sync(bucket.parts)
            if {key[-4:]: set(numbers) for key, numbers in found.items()} == wanted:
                return
            await trio.sleep(0.5)
            await peer.say("ping")
            await peer.hear()


async def test_long_call_is_stored_soon_after_its_end(
    tmp_path: Path,
    bucket: Bucket,
    proxy: FaultProxy,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("there", "here"):
        (tmp_path / name).mkdir()
    there = Site(tmp_path / "there", aws_settings(proxy.url, bucket.name))
    here = Site(tmp_path / "here")
    async with there.serve() as server:
        peer = await play_long_call(server)
        await wait_for_parts(
            bucket,
            peer,
            {
                ".wav": set(range(2, WAV_BYTES // PART_BYTES + 1)),
                ".raw": set(range(2, RAW_BYTES // PART_BYTES + 1)),
            },
        )
        assert await trio.to_thread.run_sync(bucket.sizes) == {}
        sent_live = len(parts_sent(proxy.requests))
        await peer.close()
        closed_at = trio.current_time()
        await there.wait_stored()
        took = trio.current_time() - closed_at
        peer.drop()
    tell(
        capsys,
        f"{MINUTES} minutes: {sent_live} parts while live,"
        f" stored {took:.2f} s after `closed`",
    )
    async with here.serve() as server:
        twin = await play_long_call(server)
        await twin.close()
        await here.wait_stored()
        twin.drop()
    # Everything was sent once.
    sent = parts_sent(proxy.requests)
    assert set(sent.values()) == {1}
    # The first part and the last of each file.
    assert len(sent) == sent_live + 4
    assert took <= STORED_SECONDS
    assert await trio.to_thread.run_sync(bucket.parts) == {}
    sizes = await trio.to_thread.run_sync(bucket.sizes)
    assert len(sizes) == 4
    root = tmp_path / "fetched"
    recording = only(await trio.to_thread.run_sync(bucket.fetch, root))
    expected = only(here.stored())
    assert recording.audio(".raw") == expected.audio(".raw") == peer.audio
    assert recording.audio(".wav") == expected.audio(".wav")
    assert len(recording.audio(".wav")) == WAV_BYTES
    entries = recording.facts["objects"]
    assert len(entries) == 3
    for entry in entries:
        data = (root / entry["key"]).read_bytes()
        assert len(data) == entry["bytes"] == sizes[entry["key"]]
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
