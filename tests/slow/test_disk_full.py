"""A disk that is really full under the spool, and then is not any more."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from audiohook.protocol.messages import DisconnectReason
from audiohook.simulator.client import place_call
from audiohook.simulator.options import CallOptions
from tests.house import KEY
from tests.mounted import mounted
from tests.slow.peer import Peer, Target
from tests.slow.processes import Site, pcm_of, wav_samples
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.slow.processes import Server

pytestmark = pytest.mark.slow

MIB = 1024 * 1024

DISK_MIB = 24
LOW_WATER_MIB = 8
# More than a call may hold in memory, which is 1 MiB.
FLOOD_SECONDS = 120.0
TALK_SECONDS = 4.0
PINGS = 4


class Ballast:
    """Takes up room on a disk."""

    def __init__(self, disk: Path) -> None:
        self._path = disk / ".ballast"

    def leave(self, free_bytes: int) -> None:
        """Fills the disk so that so much is left."""
        self.drop()
        room = os.statvfs(self._path.parent)
        with self._path.open("wb") as file:
            os.posix_fallocate(
                file.fileno(), 0, room.f_bavail * room.f_frsize - free_bytes
            )

    def fill(self) -> None:
        """Takes the last byte."""
        with self._path.open("ab") as file:
            try:
                while True:
                    os.write(file.fileno(), bytes(4096))
            except OSError:
                pass

    def drop(self) -> None:
        self._path.unlink(missing_ok=True)


class Talk:
    """A call that has its pings answered, whatever happens to the disk."""

    def __init__(self, server: Server, number: int) -> None:
        self.peer = Peer(Target(server.port, KEY.encode(), b"", b""), number)

    async def say(self, seconds: float) -> None:
        await self.peer.play(seconds)

    async def ping(self) -> None:
        await self.peer.say("ping", parameters={})
        told = await self.peer.hear()
        assert told.type == "pong"


async def wait_health(server: Server, status: int) -> None:
    """Asks until the service port answers so."""
    async with httpx.AsyncClient() as client:
        while True:
            answer = await client.get(f"http://127.0.0.1:{server.port}/health")
            if answer.status_code == status:
                return
            await trio.sleep(0.1)


async def test_full_disk_costs_what_it_cannot_take_and_says_so(tmp_path: Path) -> None:
    site = Site(tmp_path, {"SPOOL_LOW_WATER_MIB": str(LOW_WATER_MIB)})
    disk = site.recordings / ".spool"
    with mounted(disk, f"size={DISK_MIB}m", lazy=True):
        ballast = Ballast(disk)
        async with site.serve() as server:
            await wait_until(lambda: server.lines("listening"))
            whole, cut = Talk(server, 1), Talk(server, 2)
            for talk in (whole, cut):
                await talk.peer.open()
                await talk.say(TALK_SECONDS)

            # Little is left: no new call, and nothing is lost of those that live.
            ballast.leave(LOW_WATER_MIB * MIB // 2)
            with trio.fail_after(10):
                await wait_health(server, 503)
            report = await place_call(CallOptions(uri=server.uri, api_key=KEY))
            assert report.disconnect_reason is DisconnectReason.ERROR
            async with httpx.AsyncClient() as client:
                ready = await client.get(server.admin_uri + "/ready")
                assert (ready.status_code, ready.text) == (503, "Cannot record now\n")
            await whole.say(TALK_SECONDS)
            for talk in (whole, cut):
                await talk.ping()

            # Nothing is left: what memory does not hold is lost, and pings are
            # answered all the same.
            ballast.fill()
            await cut.say(FLOOD_SECONDS)
            for _ in range(PINGS):
                for talk in (whole, cut):
                    await talk.ping()
                await trio.sleep(0.5)

            # Room again: everything comes back by itself.
            ballast.drop()
            with trio.fail_after(10):
                await wait_health(server, 200)
            for talk in (whole, cut):
                await talk.say(TALK_SECONDS)
                await talk.ping()
                await talk.peer.leave()
                talk.peer.drop()
            report = await place_call(
                CallOptions(uri=server.uri, api_key=KEY, duration=1.0, fast=True)
            )
            assert report.ok, report.breaches
            await site.wait_stored()
            async with httpx.AsyncClient() as client:
                figures = (await client.get(server.admin_uri + "/metrics")).text
        stored = site.stored()
    assert len(stored) == 3
    (recording,) = stored[whole.peer.session_id]
    assert recording.audio(".raw") == whole.peer.audio
    assert recording.facts["gaps"] == []
    assert recording.facts["ended"]["complete"] is True

    (recording,) = stored[cut.peer.session_id]
    raw, sent = recording.audio(".raw"), cut.peer.audio
    gaps = recording.facts["gaps"]
    assert gaps
    assert {gap["kind"] for gap in gaps} == {"lost"}
    lost_bytes = sum(gap["lengthSamples"] for gap in gaps) * 2
    assert len(raw) + lost_bytes == len(sent)
    assert f"audiohook_audio_lost_bytes_total {float(lost_bytes)}" in figures
    assert recording.facts["ended"]["complete"] is False
    # Every byte that is there stands where it was said, and silence in between.
    expected, at = b"", 0
    for gap in gaps:
        begin = gap["startSamples"] * 2
        expected += pcm_of(sent[at:begin]) + bytes(gap["lengthSamples"] * 4)
        at = begin + gap["lengthSamples"] * 2
    expected += pcm_of(sent[at:])
    assert wav_samples(recording.audio(".wav")) == expected
