"""The processes of a load: started, listened to, stopped, and added up."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from audiohook.errors import ConfigError
from audiohook.simulator.load.figures import Figures, Progress
from audiohook.simulator.load.manifest import make_manifest
from audiohook.simulator.load.worker import STOP, encode_beginning, encode_task

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from audiohook.simulator.load.options import LoadOptions

SECONDS = 1.0

# By then all processes know, and begin together.
_START_DELAY = 0.2 * SECONDS
# Beside one for each call.
_FILES_BESIDE = 32


@dataclass(slots=True)
class Crew:
    """The processes of one load.

    Args:
        options: The load.
        manifest: Where the calls are written to.
        tell: Called with how far all have come.

    Attributes:
        figures: Of the processes that are done, added up.
        faults: Why processes could not do their work.
    """

    options: LoadOptions
    manifest: Path | None = None
    tell: Callable[[Progress], None] | None = None
    figures: Figures = field(default_factory=Figures)
    faults: list[str] = field(default_factory=list)
    _processes: list[trio.Process] = field(default_factory=list)
    _progress: dict[int, Progress] = field(default_factory=dict)
    _stopped: bool = False
    # Processes that are ready, or never will be.
    _settled: set[int] = field(default_factory=set)
    _all_settled: trio.Event = field(default_factory=trio.Event)
    _began_at: float = 0.0
    _saying: trio.Lock = field(default_factory=trio.Lock)

    async def run(self) -> None:
        """Make all calls.

        Raises:
            ConfigError: It cannot be begun.

        Cancellation: ends all processes and drops their calls.
        """
        check_file_limit(self.options)
        if self.manifest is not None:
            await trio.to_thread.run_sync(make_manifest, self.manifest)
        async with trio.open_nursery() as nursery:
            for number in range(self.options.processes):
                nursery.start_soon(self._run_one, number)

    async def stop(self) -> None:
        """Have all calls come to their end; no more are begun."""
        self._stopped = True
        for process in self._processes:
            await self._say(process, STOP)

    async def _say(self, process: trio.Process, line: bytes) -> None:
        """Write a line to a process, unless it has come to its end by itself."""
        if process.stdin is None:
            return
        async with self._saying:
            try:
                await process.stdin.send_all(line)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                # That is told elsewhere.
                return

    async def _run_one(self, number: int) -> None:
        command = [sys.executable, "-m", "audiohook.simulator.load.worker"]
        run = partial(
            trio.run_process,
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            check=False,
        )
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(run)
            self._processes.append(process)
            nursery.start_soon(self._begin, process)
            done = await self._converse(process, number)
            self._settle(number)
        if not done:
            self.faults.append(f"process {number} ended with {process.returncode}")

    async def _begin(self, process: trio.Process) -> None:
        """Have a process begin when all are ready."""
        await self._all_settled.wait()
        if not self._stopped:
            await self._say(process, encode_beginning(self._began_at))

    def _settle(self, number: int) -> None:
        self._settled.add(number)
        if len(self._settled) == self.options.processes and not self._began_at:
            self._began_at = time.monotonic() + _START_DELAY
            self._all_settled.set()

    async def _converse(self, process: trio.Process, number: int) -> bool:
        """Give a process its task and listen; False if it ended without an answer."""
        stdout = process.stdout
        if stdout is None:
            return False
        done = False
        task = encode_task(self.options, process=number, manifest=self.manifest)
        await self._say(process, task)
        if self._stopped:
            await self._say(process, STOP)
        waiting = b""
        async for data in stdout:
            *lines, waiting = (waiting + data).split(b"\n")
            for line in lines:
                done = self._hear(number, json.loads(line)) or done
        return done

    def _hear(self, number: int, value: dict[str, Any]) -> bool:
        """Take in a line of a process; True if it was its last."""
        if "progress" in value:
            self._progress[number] = Progress(**value["progress"])
            if self.tell is not None:
                self.tell(sum(self._progress.values(), Progress()))
            return False
        if "ready" in value:
            self._settle(number)
            return False
        if "fault" in value:
            self.faults.append(value["fault"])
        else:
            self.figures.merge(Figures.from_json(value["figures"]))
        return True


def check_file_limit(options: LoadOptions) -> None:
    """Make sure that each process may have a connection a call.

    Raises:
        ConfigError: It may not; the text says what to do.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = -(-options.calls // options.processes) + _FILES_BESIDE
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ConfigError(
            f"each process may open {hard:,} files and needs {needed:,}: raise the"
            " limit (ulimit -Hn) or share the calls among more --processes"
        )
