"""How a load goes and what came of it, told to a person."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.live import Live
from rich.table import Table
from rich.text import Text

from audiohook.simulator.load.figures import MAX_LAG, MAX_LAG_P99, TIMES, spread

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console

    from audiohook.simulator.load.figures import Figures, Progress
    from audiohook.simulator.load.histogram import Histogram
    from audiohook.simulator.load.options import LoadOptions
    from audiohook.simulator.load.verify import Verdict

SECONDS = 1.0

# Between two lines where nothing can be written over.
_LINE_INTERVAL = 5 * SECONDS
_MAX_FAULTS = 20


class Display:
    """Tells how a load goes, on one line that changes, or line after line.

    Args:
        console: Where to print.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began_at = time.monotonic()
        self._told_at = self._began_at
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._is_live = console.is_terminal

    def __enter__(self) -> Display:
        if self._is_live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_live:
            self._live.stop()

    def progress(self, progress: Progress) -> None:
        """Tell how far the load has come."""
        words = (
            f"live {progress.live:,}",
            f"begun {progress.begun:,}",
            f"opened {progress.opened:,}",
            f"ended {progress.ended:,}",
            f"failed {progress.failed:,}",
            f"frames {progress.frames:,}",
            f"own lag at most {progress.lag * 1000:.0f} ms",
        )
        self._tell("  ".join(words))

    def verifying(self, done: int, total: int) -> None:
        """Tell how far the comparison has come."""
        self._tell(f"compared {done:,} of {total:,} recordings")

    def note(self, text: str) -> None:
        """Tell something once."""
        self._console.print(Text(text), soft_wrap=True)

    def _tell(self, text: str) -> None:
        now = time.monotonic()
        line = Text(f"{now - self._began_at:7.1f} s  {text}")
        if self._is_live:
            self._live.update(line, refresh=True)
        elif now >= self._told_at + _LINE_INTERVAL:
            self._told_at = now
            self._console.print(line, soft_wrap=True)


def show_figures(console: Console, options: LoadOptions, figures: Figures) -> None:
    """Print what came of a load."""
    table = Table("milliseconds", "count", "p50", "p95", "p99", "max")
    for column in table.columns[1:]:
        column.justify = "right"
    for name in TIMES:
        _add_row(table, name, figures.times[name])
    _add_row(table, "own lag of frames", figures.lag)
    _add_row(table, "own turn", figures.turns)
    console.print(table)
    endings = ", ".join(
        f"{count:,} {name}" for name, count in sorted(figures.endings.items())
    )
    _print(
        console,
        f"{figures.begun:,} calls, {figures.peak:,} at a time: {endings or 'none'}",
    )
    _print(
        console,
        f"{figures.frames:,} frames, {figures.audio_bytes:,} bytes of audio in"
        f" {figures.elapsed:.1f} s; {figures.cores:.3f} cores used by"
        f" {options.processes} process{'' if options.processes == 1 else 'es'}",
    )
    if figures.held_frames:
        _print(
            console,
            f"{figures.held_frames:,} frames waited for the server to read",
            "yellow",
        )
    for rule, count in figures.failures.most_common():
        _print(console, f"{count:,} failed: {rule}: {figures.examples[rule]}", "red")
    if figures.fell_behind:
        _print(
            console,
            "this machine was too slow for the load: one frame in a hundred may be"
            f" {MAX_LAG_P99 * 1000:.0f} ms late, and none {MAX_LAG:.0f} s; use more"
            " --processes, fewer calls, or a machine with nothing else to do",
            "red",
        )


def show_verdict(console: Console, verdict: Verdict) -> None:
    """Print what came of a comparison."""
    for fault in verdict.faults[:_MAX_FAULTS]:
        _print(console, fault, "red")
    more = len(verdict.faults) - _MAX_FAULTS
    if more > 0:
        _print(console, f"and {more:,} more", "red")
    colour = "red" if verdict.faults else "green"
    _print(
        console,
        f"{verdict.sound:,} of {verdict.calls:,} calls are stored as they were sent"
        f" ({verdict.audio_bytes:,} bytes of audio compared)",
        colour,
    )


def _add_row(table: Table, name: str, times: Histogram) -> None:
    figures = spread(times)
    cells = [f"{figures[share]:,.1f}" for share in figures] or [""] * 4
    table.add_row(name, f"{times.total:,}", *cells)


def _print(console: Console, line: str, style: str = "") -> None:
    # As `Text`, so that nothing from a server is taken for markup.
    console.print(Text(line, style=style), soft_wrap=True)
