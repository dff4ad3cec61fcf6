"""`audiohook load` as it is run, against servers that are good and that are not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from audiohook.simulator.load.figures import MAX_LAG
from tests.simulator.load.recorder import Recorder, Studio, serving
from tests.slow.processes import ROOT
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.slow

LOAD_SECONDS = 60.0
# What Genesys waits for a pong is 5 s.
LATE_SECONDS = 5.5


@dataclass(slots=True)
class Load:
    """A load that is made.

    Attributes:
        process: The command.
        log: What it prints.
        report: What it writes as JSON.
    """

    process: trio.Process
    log: Path
    report: Path

    @property
    def said(self) -> str:
        return self.log.read_text()

    @property
    def figures(self) -> dict[str, Any]:
        figures: dict[str, Any] = json.loads(self.report.read_text())
        return figures

    def worker(self) -> int | None:
        """Returns the process that makes the calls, once there is one."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        children = [int(pid) for task in tasks for pid in task.read_text().split()]
        return children[0] if children else None


@asynccontextmanager
async def loading(studio: Studio, *options: str) -> AsyncIterator[Load]:
    """Makes a load, which compares what was stored; it is over after the block.

    Args:
        studio: Takes its calls.
        *options: Of the command.
    """
    log, report = studio.root / "log", studio.root / "figures.json"
    with trio.fail_after(LOAD_SECONDS):
        async with serving(partial(Recorder, studio)) as uri:
            with log.open("wb") as stream:
                process = await trio.lowlevel.open_process(
                    [
                        *(sys.executable, "-m", "audiohook", "load", uri),
                        *("--verify", str(studio.root), "--raw-only", "--wait", "5"),
                        *("--ramp", "0.5", "--json", str(report), *options),
                    ],
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=stream,
                )
            try:
                yield Load(process, log, report)
                await process.wait()
            finally:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()


async def make_load(studio: Studio, *options: str) -> Load:
    """Makes a load to its end."""
    async with loading(studio, *options) as load:
        pass
    return load


async def test_good_server_is_found_good(tmp_path: Path) -> None:
    studio = Studio(tmp_path)
    load = await make_load(
        studio,
        *("--calls", "12", "--duration", "20..40", "--speed", "20"),
        *("--processes", "2", "--pause", "0.3", "--discard", "0.3"),
        *("--frame-bytes", "3200", "--manifest", str(tmp_path / "manifest.jsonl")),
    )
    figures = load.figures
    # It fails by itself on a machine that has other things to do.
    assert load.process.returncode == figures["fell_behind"], load.said
    assert "12 of 12 calls are stored as they were sent" in load.said
    assert (figures["failed"], figures["faults"]) == (0, [])
    assert (figures["verified"], figures["endings"]) == (12, {"closed": 12})
    assert figures["compared_bytes"] == figures["audio_bytes"] == 3200 * studio.frames
    assert set(figures["latency_ms"]["pong"]) == {"p50", "p95", "p99", "max"}
    # What was sent is known afterwards, too.
    command = ("load", "--verify", str(tmp_path), "--raw-only")
    manifest = ("--manifest", str(tmp_path / "manifest.jsonl"))
    again = await trio.run_process(
        [sys.executable, "-m", "audiohook", *command, *manifest],
        cwd=ROOT,
        capture_stdout=True,
    )
    assert b"12 of 12 calls are stored as they were sent" in again.stdout


class Leaky(Studio):
    """Loses one frame in a thousand, of whichever call it is."""

    def keep(self, conversation: str, data: bytes) -> None:
        self.frames += 1
        if self.frames % 1000:
            self.tapes[conversation] += data


async def test_one_frame_lost_in_a_thousand_is_found(tmp_path: Path) -> None:
    studio = Leaky(tmp_path)
    load = await make_load(studio, "--calls", "10", "--duration", "30", "--speed", "10")
    assert studio.frames == 3000
    assert load.process.returncode == 1
    # The server has answered as it should.
    assert load.figures["failed"] == 0
    faults = load.figures["faults"]
    assert 1 <= len(faults) <= 3
    for fault in faults:
        assert "1,600 bytes missing (1 frame)" in fault or "early" in fault
    assert load.figures["verified"] == 10 - len(faults)
    assert faults[0] in load.said


@dataclass
class Slow(Studio):
    """Is late with one pong, of all."""

    late: int = 7

    def pong_delay(self) -> float:
        return LATE_SECONDS if self.pings == self.late else 0.0


async def test_one_late_pong_is_found(tmp_path: Path) -> None:
    studio = Slow(tmp_path)
    load = await make_load(studio, "--calls", "5", "--duration", "9")
    assert studio.pings > studio.late
    assert load.process.returncode == 1
    figures = load.figures
    assert figures["failures"] == {"pong": 1}
    assert "within 5 s" in figures["examples"]["pong"]
    assert figures["endings"] == {"closed": 4, "failed": 1}
    assert "1 failed: pong: " in load.said
    # As much as it sent of that call, too, is stored.
    assert figures["faults"] == []


@dataclass
class Confused(Studio):
    """Puts one frame of each of two calls into the other's recording."""

    swapped: dict[str, bytes] = field(default_factory=dict)
    at_bytes: int = 20 * 1600

    def keep(self, conversation: str, data: bytes) -> None:
        self.frames += 1
        if len(self.swapped) < 2 and len(self.tapes[conversation]) == self.at_bytes:
            self.swapped[conversation] = data
        self.tapes[conversation] += data

    def store(self, message: dict[str, Any]) -> None:
        mine = message["parameters"]["conversationId"]
        if mine in self.swapped:
            (other,) = self.swapped.keys() - {mine}
            frame = self.swapped[other]
            self.tapes[mine][self.at_bytes : self.at_bytes + len(frame)] = frame
        super().store(message)


async def test_audio_of_two_calls_mixed_is_found(tmp_path: Path) -> None:
    studio = Confused(tmp_path)
    load = await make_load(studio, "--calls", "6", "--duration", "20", "--speed", "10")
    assert load.process.returncode == 1
    assert load.figures["failed"] == 0
    faults = sorted(load.figures["faults"])
    assert len(faults) == 2
    numbers = [fault.split(":")[0].removeprefix("call ") for fault in faults]
    for fault, other in zip(faults, reversed(numbers), strict=True):
        # 20 frames of a tenth of a second stand before it; that it is the other
        # call's shows a byte or two later.
        assert "raw, at 2.000" in fault
        assert f"audio of call {other}" in fault
    assert load.figures["verified"] == 4


async def test_generator_that_falls_behind_says_so_and_fails(tmp_path: Path) -> None:
    studio = Studio(tmp_path)
    async with loading(studio, "--calls", "5", "--duration", "5") as load:
        await wait_until(lambda: studio.frames > 20)
        worker = load.worker()
        assert worker is not None
        # As a machine does that has other things to do.
        os.kill(worker, signal.SIGSTOP)
        await trio.sleep(MAX_LAG + 0.5)
        os.kill(worker, signal.SIGCONT)
    assert load.process.returncode == 1
    assert "this machine was too slow for the load" in load.said
    figures = load.figures
    assert figures["fell_behind"] is True
    assert figures["lag_ms"]["max"] > MAX_LAG * 1000
    # All the same the server has done nothing wrong.
    assert (figures["failed"], figures["faults"]) == (0, [])
    assert figures["verified"] == 5


async def test_nobody_there_fails_the_load(tmp_path: Path) -> None:
    async with serving(partial(Recorder, Studio(tmp_path))) as uri:
        pass
    done = await trio.run_process(
        [sys.executable, "-m", "audiohook", "load", uri, "--calls", "2"],
        cwd=ROOT,
        capture_stdout=True,
        check=False,
    )
    assert done.returncode == 1
    assert b"2 failed: reachable: " in done.stdout
