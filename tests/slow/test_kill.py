"""Seventy calls whose servers are killed without warning, and what is left."""

from __future__ import annotations

import json
import random
import time
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import trio
from rich.console import Console

from audiohook.simulator.client import place_call
from audiohook.simulator.dialogue import Dialogue
from audiohook.simulator.options import CallOptions
from tests.house import KEY
from tests.slow.processes import Site, numbered_audio, sound_audio, write_wav
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.house import Recording
    from tests.slow.processes import Server

pytestmark = pytest.mark.slow

CALLS = 10
# What a crash may cost of the end of a call.
LOSS_SECONDS = 1.0


class Ledger(Dialogue):
    """Notes what was said, and when how much audio had been sent."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True))
        self.said: set[str] = set()
        self.heard: set[str] = set()
        self._times: list[float] = []
        self._totals: list[int] = []

    def sent(self, message: str | bytes, at: float) -> None:
        if isinstance(message, str):
            self.said.add(json.loads(message)["type"])
            return
        self._times.append(time.monotonic())
        self._totals.append(self.sent_bytes + len(message))

    def received(self, message: str | bytes, at: float) -> None:
        self.heard.add(json.loads(message)["type"])

    @property
    def sent_bytes(self) -> int:
        return self._totals[-1] if self._totals else 0

    def sent_before(self, moment: float) -> int:
        """Returns how many bytes had been sent at that time."""
        count = bisect_right(self._times, moment)
        return self._totals[count - 1] if count else 0


@dataclass(frozen=True)
class Case:
    """What the calls are at when the server is killed.

    Attributes:
        name: In a word.
        kill: Between which seconds.
        once_storing: Counted from when the first recording shows in the store, not
            from the start of the calls.
        spread: Seconds over which the calls begin.
        lengths: Shortest and longest, in seconds.
        fast: Stream as fast as it goes.
        recover: Finish by ``audiohook recover`` rather than by serving again.
        kill_twice: Kill the next process too, once it has begun to store.
    """

    name: str
    kill: tuple[float, float]
    once_storing: bool = False
    spread: float = 0.0
    lengths: tuple[float, float] = (8.0, 8.0)
    fast: bool = False
    recover: bool = False
    kill_twice: bool = False


CASES = (
    Case("opening", kill=(0.0, 0.15), spread=0.15),
    # Audio is written every so often, and where between two writes the end comes
    # is what decides how much is missing.
    Case("talking for 1.5 s", kill=(1.5, 2.2), recover=True),
    Case("talking for 2.2 s", kill=(2.2, 2.9), spread=1.0),
    Case("talking for 2.9 s", kill=(2.9, 3.6), recover=True, kill_twice=True),
    Case("closing", kill=(1.95, 2.35), lengths=(2.0, 2.0)),
    Case(
        "storing",
        kill=(0.0, 0.1),
        once_storing=True,
        lengths=(20.0, 20.0),
        fast=True,
        recover=True,
        kill_twice=True,
    ),
    Case("mixed", kill=(2.5, 4.5), spread=3.0, lengths=(0.5, 4.0), kill_twice=True),
)

# How long a process that finishes the others' work may be at it when it is killed.
SECOND_KILL = (0.0, 0.05)


@dataclass(frozen=True)
class Call:
    """A call that was made, or was about to be.

    Attributes:
        options: How.
        audio: All that it had to send.
        ledger: What came of it.
    """

    options: CallOptions
    audio: bytes
    ledger: Ledger


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_killed_server_loses_at_most_a_second_of_each_call(
    case: Case, tmp_path: Path
) -> None:
    draw = random.Random(f"kill while {case.name}")
    site = Site(tmp_path)
    async with site.serve() as server:
        calls = make_calls(case, site, server, draw)
        killed_at = await run_until_killed(case, calls, site, server, draw)
    if case.kill_twice:
        before = in_store(site)
        async with site.start("recover" if case.recover else "serve") as successor:
            await wait_until(lambda: in_store(site) > before or not site.spooled())
            await trio.sleep(draw.uniform(*SECOND_KILL))
            successor.kill()
    await finish(site, recover=case.recover)
    stored = site.stored()
    assert set(stored) <= {call.options.session_id for call in calls}
    for call in calls:
        judge(call, stored.get(call.options.session_id, []), site, killed_at)
    assert site.strays() == []


def make_calls(
    case: Case, site: Site, server: Server, draw: random.Random
) -> list[Call]:
    calls = []
    for number in range(CALLS):
        audio = numbered_audio(number, draw.uniform(*case.lengths))
        options = CallOptions(
            uri=server.uri,
            api_key=KEY,
            wav=write_wav(site.base / f"{number}.wav", audio),
            fast=case.fast,
            frame_ms=100,
        )
        calls.append(Call(options, audio, Ledger()))
    return calls


async def run_until_killed(
    case: Case,
    calls: Sequence[Call],
    site: Site,
    server: Server,
    draw: random.Random,
) -> float:
    """Makes the calls, and kills the server among them; when that was."""

    async def make(call: Call, begin: float) -> None:
        await trio.sleep(begin)
        await place_call(call.options, dialogue=call.ledger)

    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(make, call, draw.uniform(0.0, case.spread))
        if case.once_storing:
            await wait_until(lambda: in_store(site))
        await trio.sleep(draw.uniform(*case.kill))
        killed_at = time.monotonic()
        server.kill()
    return killed_at


def in_store(site: Site) -> int:
    """Counts what has got a place in the store, however little of it."""
    return len(list((site.recordings / "calls").glob("*")))


async def finish(site: Site, *, recover: bool) -> None:
    """Has a new process finish what the dead ones left."""
    if recover:
        ended = await site.command("recover")
        assert ended.returncode == 0, ended.stderr
    else:
        async with site.serve():
            await site.wait_stored()
    assert site.spooled() == []


def judge(
    call: Call, recordings: Sequence[Recording], site: Site, killed_at: float
) -> None:
    """Holds what the store has of a call against what its client knows."""
    ledger = call.ledger
    if "opened" in ledger.heard:
        assert len(recordings) == 1
    # One that was killed on its way to the client may be there too.
    assert len(recordings) <= 1
    for recording in recordings:
        raw = sound_audio(recording, site.recordings)
        assert raw == call.audio[: len(raw)]
        assert len(raw) <= ledger.sent_bytes
        assert len(raw) >= ledger.sent_before(killed_at - LOSS_SECONDS)
        complete = recording.facts["ended"]["complete"]
        # In between, `closed` may have been due but not sent yet.
        if "closed" in ledger.heard:
            assert complete is True
        elif "close" not in ledger.said:
            assert complete is False
        if complete:
            assert raw == call.audio
