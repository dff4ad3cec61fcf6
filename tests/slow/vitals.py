"""What a process of ours has and holds, looked at from outside while it works."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from bench.samples import sample

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Look:
    """A process and its spool at one moment.

    Attributes:
        at: Seconds since the first look.
        rss_bytes: Memory resident.
        files: Open descriptors.
        threads: Threads.
        spooled: Calls in the spool.
    """

    at: float
    rss_bytes: int
    files: int
    threads: int
    spooled: int

    def __str__(self) -> str:
        return (
            f"{self.at:5.0f} s: {self.rss_bytes / MIB:6.1f} MiB, {self.files:4} files,"
            f" {self.threads:2} threads, {self.spooled:4} calls in the spool"
        )


def _count(folder: Path) -> int:
    """Counts what is in a folder, but for what a dot hides."""
    return sum(1 for path in folder.iterdir() if not path.name.startswith("."))


def look(pid: int, spool: Path, began: float) -> Look:
    """Looks at a process and its spool."""
    seen = sample(pid)
    return Look(
        at=seen.at - began,
        rss_bytes=seen.rss_bytes,
        files=_count(Path(f"/proc/{pid}/fd")),
        threads=_count(Path(f"/proc/{pid}/task")),
        spooled=_count(spool),
    )


@dataclass(slots=True)
class Curve:
    """Looks at a process, in the order they were taken.

    Args:
        pid: The process.
        spool: Its spool.
        every: Seconds between two looks.
    """

    pid: int
    spool: Path
    every: float
    looks: list[Look] = field(default_factory=list)

    async def draw(self) -> None:
        """Looks until cancelled."""
        began = sample(self.pid).at
        while True:
            self.looks.append(
                await trio.to_thread.run_sync(look, self.pid, self.spool, began)
            )
            await trio.sleep(self.every)

    def median(
        self, figure: Callable[[Look], float], begin: float, end: float
    ) -> float:
        """Returns the middle of a figure in a part of the time, from 0 to 1."""
        last = self.looks[-1].at
        return statistics.median(
            figure(each) for each in self.looks if begin * last <= each.at <= end * last
        )
