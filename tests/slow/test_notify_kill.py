"""A receiver that is away, and servers that are killed meanwhile, as real processes.

The hour that it may be away is in `tests/notify/test_sender.py`, under a clock of its
own; here it is as long as the calls take.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import pytest
import trio

from audiohook.simulator.assemblyai import Pace, StandIn
from audiohook.simulator.client import place_call
from audiohook.simulator.options import CallOptions
from tests.house import KEY
from tests.notify.reader import SECRET, data_of, read, verify
from tests.slow.processes import Server, Site, tell
from tests.slow.scale import FULL_SIZE, scaled
from tests.transcription.scripted_server import NOTHING, Answer, Heard, ScriptedServer
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

KILLS = 2
CALLS = scaled(6, 200)
"""Of each server."""

TOGETHER = 20
ARRIVE_SECONDS = scaled(60.0, 600.0)
# A request for a transcript that a kill cut off is believed to be lost after half a
# minute, which is not what this test is about.
ORDER = ["opened", "stored", *(["transcribed"] if FULL_SIZE else [])]


class Ear:
    """A receiver that is away at first, and then loses some of its answers.

    Attributes:
        away: Whether it is.
        bodies: What came while it was not: each body by its id.
        kinds: What came of each session, in order, each once.
        copies: How often something came that had come before.
        lost: How often it has taken something, and not said so.
    """

    def __init__(self) -> None:
        self.away = True
        self.bodies: dict[str, bytes] = {}
        self.kinds: dict[str, list[str]] = defaultdict(list)
        self.copies = 0
        self.lost = 0
        self.server = ScriptedServer(self._answer)

    def _answer(self, _: Heard) -> Answer:
        if self.away:
            return Answer(503)
        if len(self.server.heard) % 7:
            return Answer(204)
        self.lost += 1
        return NOTHING

    def take_in(self, heard: Heard) -> None:
        verify(heard)
        event = read(heard.headers, heard.body)
        identity = event.get_id()
        assert identity == heard.headers["webhook-id"]
        if identity in self.bodies:
            self.copies += 1
            assert self.bodies[identity] == heard.body
            return
        self.bodies[identity] = heard.body
        kind = event.get_type().split(".")[-2]
        self.kinds[data_of(event)["sessionId"]].append(kind)


async def call(server: Server, sessions: set[str], turns: trio.CapacityLimiter) -> None:
    """Makes a call that the server may not live to see the end of."""
    options = CallOptions(uri=server.uri, api_key=KEY, duration=8.0, fast=True)
    async with turns:
        report = await place_call(options)
    if report.ok:
        sessions.add(options.session_id)


async def test_receiver_gets_everything_in_order_though_servers_are_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ear, sessions = Ear(), set[str]()
    away_since = trio.current_time()
    standin = StandIn(pace=Pace(processing=0.5))
    (tmp_path / "site").mkdir()
    async with trio.open_nursery() as nursery:
        await nursery.start(ear.server.serve)
        url = await nursery.start(standin.serve)
        settings = {
            **(
                {"ASSEMBLYAI_API_KEY": "stand-in-key", "ASSEMBLYAI_BASE_URL": url}
                if FULL_SIZE
                else {}
            ),
            "NOTIFY_URL": ear.server.url + "/hook",
            "NOTIFY_SECRET": SECRET,
        }
        site = Site(tmp_path / "site", settings)
        turns = trio.CapacityLimiter(TOGETHER)
        for kill in range(KILLS):
            async with site.serve() as server:
                async with trio.open_nursery() as calls:
                    for _ in range(CALLS):
                        calls.start_soon(call, server, sessions, turns)
                if kill:
                    # The first is killed while calls are stored, the second while
                    # nothing is left but to tell of them.
                    await wait_until(lambda: not site.spooled(), 60)
                    await wait_until(lambda: ear.server.heard, 30)
                server.kill()
                await server.wait()
        tries, ear.away = len(ear.server.heard), False
        began = trio.current_time()
        # Pauses double, and each is taken by half at least: one that has begun can be
        # twice as long as the receiver was away, which a busy machine draws out.
        patience = 2 * (began - away_since) + ARRIVE_SECONDS
        async with site.serve() as server:
            await site.wait_stored()
            expected = len(ORDER) * len(site.stored())
            seen = tries

            def has_all() -> bool:
                nonlocal seen
                for heard in ear.server.heard[seen:]:
                    ear.take_in(heard)
                seen = len(ear.server.heard)
                return len(ear.bodies) >= expected

            await wait_until(has_all, patience)
            took = trio.current_time() - began
            # Nothing comes after that but what came before.
            await wait_until(lambda: has_all() and ear.copies >= ear.lost, patience)
        listed = await site.command("notify", "--list")
        nursery.cancel_scope.cancel()
    tell(
        capsys,
        f"{len(site.stored())} calls, {KILLS} kills, {tries} tries while the receiver"
        f" was away; {len(ear.bodies)} notifications {took:.1f} s after it was back,"
        f" {ear.copies} copies",
    )
    assert sessions <= set(site.stored())
    assert len(site.stored()) == KILLS * CALLS
    assert ear.kinds.keys() == site.stored().keys()
    assert all(kinds == ORDER for kinds in ear.kinds.values())
    # There was something to tell them apart by.
    assert ear.copies
    assert b"0 were given up" in listed.stdout
