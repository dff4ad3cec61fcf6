"""Servers that are killed in the middle of uploads, again and again."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import pytest
import trio

from tests.faultproxy import FaultProxy, Throttle
from tests.house import KEY
from tests.slow.bucket import Bucket, Part, aws_settings, parts_sent
from tests.slow.peer import Peer, Target
from tests.slow.processes import Server, Site, sound_audio, tell
from tests.slow.scale import scaled
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

SEED = 4
KILLS = scaled(8, 30)
# Longest time from when the first request of a process shows to its end: with four
# parts on their way at a time, each of 5 MiB.
KILL_SECONDS = 1.6
BYTES_A_SECOND = 16 * 1024 * 1024
# The service looks at live calls every few seconds.
REQUEST_SECONDS = 30.0
CALL_SECONDS = (720.0, 1080.0)
# How many calls are killed while they live.
LIVE_SHARE = 0.2


def noted_parts(site: Site) -> set[Part]:
    """Returns the parts that journals say are stored, and not given up since."""
    noted: set[Part] = set()
    for path in (site.recordings / ".spool").glob("*/journal.jsonl"):
        for line in path.read_bytes().splitlines():
            try:
                fact = json.loads(line.rstrip(b"\0"))
            except ValueError:
                # Torn.
                continue
            if fact["fact"] == "part_stored":
                noted.add(Part(fact["key"], fact["number"]))
            elif fact["fact"] == "upload_dropped":
                noted = {part for part in noted if part.key != fact["key"]}
    return noted


class Callers:
    """Those who call, and what each of them has said."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.cut: set[str] = set()

    async def call(self, server: Server, seconds: float, *, leave: bool) -> None:
        """Makes a call; if it does not leave, the call lives on."""
        peer = Peer(Target(server.port, KEY.encode(), b"", b""), len(self.peers))
        self.peers.append(peer)
        await peer.open()
        await peer.play(seconds)
        if leave:
            await peer.close()
        else:
            self.cut.add(peer.session_id)


async def test_servers_killed_while_they_upload_send_no_part_again_that_is_noted(
    tmp_path: Path,
    bucket: Bucket,
    proxy: FaultProxy,
    capsys: pytest.CaptureFixture[str],
) -> None:
    draw = random.Random(SEED)
    proxy.at_random(SEED, 1.0, [Throttle(BYTES_A_SECOND)])
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site", aws_settings(proxy.url, bucket.name))
    callers = Callers()
    sent_again: list[Part] = []
    ever_noted: set[Part] = set()
    for _ in range(KILLS):
        noted, seen = noted_parts(site), len(proxy.requests)
        ever_noted |= noted
        async with site.serve() as server:
            if not site.spooled():
                leave = draw.random() >= LIVE_SHARE
                await callers.call(server, draw.uniform(*CALL_SECONDS), leave=leave)
            await wait_until(
                lambda: parts_sent(proxy.requests[seen:]) or not site.spooled(),  # noqa: B023
                REQUEST_SECONDS,
            )
            await trio.sleep(draw.uniform(0.0, KILL_SECONDS))
            server.kill()
            await server.wait()
        sent_again += noted & parts_sent(proxy.requests[seen:]).keys()
    noted, seen = noted_parts(site), len(proxy.requests)
    proxy.be_kind()
    async with site.serve():
        await site.wait_stored()
    sent_again += noted & parts_sent(proxy.requests[seen:]).keys()
    for peer in callers.peers:
        peer.drop()
    sent = parts_sent(proxy.requests)
    tell(
        capsys,
        f"{KILLS} kills, {len(callers.peers)} calls: {len(sent)} parts were sent"
        f" {sent.total()} times; {len(ever_noted)} of them had been noted before a"
        f" kill, of which {len(sent_again)} were sent again",
    )
    assert sent_again == []
    # There was something to be sent again, and something not to be.
    assert ever_noted
    assert sent.total() > len(sent)
    root = tmp_path / "fetched"
    recordings = await trio.to_thread.run_sync(bucket.fetch, root)
    assert set(recordings) == {peer.session_id for peer in callers.peers}
    for peer in callers.peers:
        (recording,) = recordings[peer.session_id]
        raw = sound_audio(recording, root)
        assert peer.audio.startswith(raw)
        assert raw == peer.audio or peer.session_id in callers.cut
    # WAV, its peaks, audio as received, call.json.
    assert len(await trio.to_thread.run_sync(bucket.sizes)) == 4 * len(callers.peers)
    assert await trio.to_thread.run_sync(bucket.parts) == {}
