"""Transcripts with real processes: a service that fails, servers that are killed."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from audiohook.protocol.messages import Channel
from audiohook.simulator.assemblyai import Pace, StandIn
from audiohook.simulator.client import place_call
from audiohook.simulator.options import CallOptions
from tests.api.served import CONTROLLER, write_tokens
from tests.house import KEY
from tests.slow.bucket import Bucket, aws_settings
from tests.slow.processes import Server, Site, tell
from tests.slow.talk import Span, activity, check_transcript, write_talk
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

SEED = 11
# For all of it: AUDIOHOOK_TRANSCRIPTS=300.
CALLS = int(os.environ.get("AUDIOHOOK_TRANSCRIPTS", "25"))
KILLS = 5
FAILING_SHARE = 0.25
# From the end of the calls of a wave to the end of its server: their jobs are to be
# asked for, under way, done, or on their way to the store.
KILL_SECONDS = (0.0, 5.0)
JOB_SECONDS = 2.0
TOGETHER = 20
# A request whose fate is unknown is believed to be lost after half a minute.
SETTLE_SECONDS = 240.0

USUAL = (Channel.EXTERNAL, Channel.INTERNAL)
INVERTED = (Channel.INTERNAL, Channel.EXTERNAL)

AWAY_CALLS = 8
AWAY_SECONDS = 2.0


def transcribing_site(base: Path, bucket: Bucket, standin: StandIn) -> Site:
    base.mkdir()
    settings = {
        **aws_settings(bucket.store.url, bucket.name),
        "ASSEMBLYAI_API_KEY": "stand-in-key",
        "ASSEMBLYAI_BASE_URL": standin.base_url,
        "KEEP_RAW": "false",
    }
    return Site(base, settings)


class Callers:
    """Those who call, each with a talk of its own; every other one inverted.

    Attributes:
        channels: What each call was sent with, by session.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._draw = random.Random(SEED)
        self._turns = trio.CapacityLimiter(TOGETHER)
        self.channels: dict[str, tuple[Channel, ...]] = {}

    async def call(self, server: Server, count: int) -> None:
        """Has some of them call, and waits until all have been heard."""
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(self._call, server)

    async def _call(self, server: Server) -> None:
        number = len(self.channels)
        channels = INVERTED if number % 2 else USUAL
        seconds = self._draw.uniform(6.0, 14.0)
        options = CallOptions(
            uri=server.uri,
            api_key=KEY,
            wav=self._folder / f"{number}.wav",
            channels=channels,
            fast=True,
        )
        self.channels[options.session_id] = channels
        write_talk(self._folder / f"{number}.wav", seconds, channels, self._draw)
        async with self._turns:
            report = await place_call(options)
        assert report.ok, report.breaches

    def check(self, bucket: Bucket, root: Path) -> int:
        """Holds all transcripts against what was said. It blocks."""
        recordings = bucket.fetch(root)
        assert set(recordings) == set(self.channels)
        worst = 0
        for session, channels in self.channels.items():
            (recording,) = recordings[session]
            assert recording.facts["media"]["channels"] == list(channels)
            worst = max(worst, check_transcript(recording, channels))
        # WAV, its peaks, call.json, and four forms of the transcript.
        assert len(bucket.sizes()) == 7 * len(self.channels)
        return worst


async def test_killed_servers_and_failing_requests_cost_one_job_a_call(
    tmp_path: Path, bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(SEED)
    standin = StandIn(pace=Pace(processing=JOB_SECONDS), seed=SEED)
    standin.faults.fail(FAILING_SHARE)
    async with trio.open_nursery() as nursery:
        await nursery.start(standin.serve)
        site = transcribing_site(tmp_path / "site", bucket, standin)
        callers = Callers(tmp_path / "talks")
        at = []
        for kill in range(KILLS):
            made = len(callers.channels)
            async with site.serve() as server:
                await callers.call(server, (CALLS - made) // (KILLS - kill))
                await trio.sleep(draw.uniform(*KILL_SECONDS))
                server.kill()
                await server.wait()
            done = standin.statistics()
            at.append(f"{done.submitted}/{done.completed}")
        began = trio.current_time()
        async with site.serve():
            await wait_until(lambda: not site.spooled(), SETTLE_SECONDS)
        took = trio.current_time() - began
        statistics = standin.statistics()
        nursery.cancel_scope.cancel()
    worst = await trio.to_thread.run_sync(callers.check, bucket, tmp_path / "fetched")
    tell(
        capsys,
        f"{CALLS} calls, jobs made/done at each kill {', '.join(at)};"
        f" {sum(statistics.requests.values())} requests, of which"
        f" {sum(statistics.faults.values())} failed; all transcribed {took:.0f} s after"
        f" the last start; {statistics.billed} billed; at most {worst} ms from the"
        " voice",
    )
    assert len(callers.channels) == CALLS
    assert statistics.billed == CALLS
    assert {each.billed for each in statistics.audio.values()} == {1}
    assert len(statistics.audio) == CALLS
    # Some answers were lost, and some requests never came.
    assert statistics.faults.get("lost", 0) + statistics.faults.get("cut", 0)


async def test_service_that_is_away_is_waited_for_without_a_restart(
    tmp_path: Path, bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    standin = StandIn(pace=Pace(processing=JOB_SECONDS))
    async with trio.open_nursery() as nursery:
        await nursery.start(standin.serve)
        standin.away = True
        site = transcribing_site(tmp_path / "site", bucket, standin)
        callers = Callers(tmp_path / "talks")
        async with site.serve() as server:
            await callers.call(server, AWAY_CALLS)
            await wait_until(lambda: server.lines("transcription_fails"), 20)
            await trio.sleep(AWAY_SECONDS)
            assert len(site.spooled()) == AWAY_CALLS
            # Only the journals are left: the audio is in the bucket.
            spool = site.recordings / ".spool"
            assert not list(spool.glob("*-*-*-*-*/audio.ulaw"))
            told = len(server.lines("transcription_fails"))
            standin.away = False
            back = trio.current_time()
            await wait_until(lambda: not site.spooled(), SETTLE_SECONDS)
            took = trio.current_time() - back
            assert server.lines("transcription_works_again")
        billed = standin.statistics().billed
        nursery.cancel_scope.cancel()
    tell(capsys, f"{AWAY_CALLS} transcripts {took:.1f} s after the service came back")
    assert told == 1
    assert billed == AWAY_CALLS
    await trio.to_thread.run_sync(callers.check, bucket, tmp_path / "fetched")


async def test_times_are_right_after_a_pause_that_was_asked_for(
    tmp_path: Path,
) -> None:
    talk = write_talk(tmp_path / "talk.wav", 10.0, USUAL, random.Random(SEED))
    standin = StandIn(pace=Pace(processing=0.0))
    (tmp_path / "site").mkdir()
    site = Site(
        tmp_path / "site",
        {
            "API_TOKENS_FILE": str(write_tokens(tmp_path / "tokens.json")),
            "ASSEMBLYAI_API_KEY": "stand-in-key",
        },
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(standin.serve)
        site.settings["ASSEMBLYAI_BASE_URL"] = standin.base_url
        async with site.serve() as server:
            options = CallOptions(uri=server.uri, api_key=KEY, wav=talk)
            nursery.start_soon(place_call, options)
            await wait_until(lambda: server.lines("call_opened"), 10)
            # One of them speaks from 2.4 to 4.5 s, so that words are cut in two.
            await trio.sleep(3.0)
            path = f"{server.admin_uri}/api/v1/calls/{options.conversation_id}"
            async with httpx.AsyncClient(
                headers={"Authorization": f"Bearer {CONTROLLER}"}
            ) as client:
                assert (await client.post(f"{path}/pause")).status_code == 200
                await trio.sleep(2.0)
                assert (await client.post(f"{path}/resume")).status_code == 200
            await wait_until(lambda: server.lines("call_transcribed"), 30)
            await site.wait_stored()
        nursery.cancel_scope.cancel()
    ((recording,),) = site.stored().values()
    (gap,) = recording.facts["gaps"]
    begin, end = (
        round(1000 * each) for each in (gap["start"], gap["start"] + gap["length"])
    )
    assert end - begin >= 2000
    # What is written stands where it is heard ...
    check_transcript(recording, USUAL)
    # ... and is heard where it was said: the client's WAV stands still in a pause, so
    # what comes after it is later by its length, and nobody is in it.
    length = end - begin
    said = activity(talk.read_bytes())
    heard = activity(recording.audio(".wav"))
    for channel in range(2):
        outside = [
            piece
            for span in said[channel]
            for piece in (
                Span(span.start, min(span.end, begin)),
                Span(max(span.start, begin) + length, span.end + length),
            )
            if piece.end - piece.start > 0
        ]
        assert len(heard[channel]) == len(outside)
        for found, real in zip(heard[channel], outside, strict=True):
            assert found.is_near(real), (channel, found, real, gap)
