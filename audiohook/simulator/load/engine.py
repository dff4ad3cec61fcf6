"""The loop that drives all calls of one process.

It is a loop of its own, and no task of Trio's, since nearly all that happens is
that a frame is due: those are sent in C, for all calls in one pass. What is left,
some messages a second, is handled one after another.
"""

from __future__ import annotations

import heapq
import math
import random
import select
import time
from typing import TYPE_CHECKING, Final

from audiohook.simulator.load._frames import MAX_NUMBER
from audiohook.simulator.load.arrivals import Arrivals
from audiohook.simulator.load.caller import Caller, Exchange
from audiohook.simulator.load.figures import Figures, Progress
from audiohook.simulator.load.link import find_target
from audiohook.simulator.load.script import write_script

if TYPE_CHECKING:
    from collections.abc import Callable

    from audiohook.simulator.load.manifest import SentCall
    from audiohook.simulator.load.options import LoadOptions

SECONDS = 1.0

# Frames leave in passes so far apart: a pass costs some 10 µs of its own.
GRID: Final = 0.004 * SECONDS
PROGRESS_INTERVAL: Final = 0.25 * SECONDS
# Calls that begin in one turn, so that the others are served in between.
_BEGINNINGS_A_TURN: Final = 8


class Watcher:
    """Is told how a load goes; whoever wants to know overrides some of it."""

    def progress(self, progress: Progress) -> None:
        """Some time has passed."""

    def steady(self) -> None:
        """As many calls are open as there will be at a time."""

    def closing(self) -> None:
        """The first call ends."""

    def ended(self, call: SentCall) -> None:
        """A call is over."""


class Engine:
    """All calls of one process.

    Args:
        options: The load, of all processes.
        process: Which process this is, from 0 on.
        began_at: When the load begins on the monotonic clock, for all processes;
            None for now.
        watcher: Is told how it goes.

    Attributes:
        figures: What came of it; the times are whole only at the end.

    Raises:
        ConfigError: The server cannot be found.
    """

    def __init__(
        self,
        options: LoadOptions,
        *,
        process: int = 0,
        began_at: float | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self.figures = Figures()
        self._options = options
        self._watcher = watcher or Watcher()
        self._began_at = time.monotonic() if began_at is None else began_at
        self._arrivals = Arrivals(options, began_at=self._began_at, process=process)
        self._at_once = len(range(process, options.calls, options.processes))
        self._ends_at: float | None = None
        if options.together:
            length = options.lengths.most / options.speed
            self._ends_at = self._began_at + options.ramp + length
        self._exchange = Exchange(
            options,
            find_target(options),
            self.figures,
            on_opened=self._count_opened,
            on_closing=self._note_closing,
        )
        self._metronome = self._exchange.metronome
        # So that the audio of two loads is not the same.
        draw = random.Random(f"{options.seed}/voices")  # noqa: S311 - no secrets
        self._first_voice = draw.randrange(MAX_NUMBER)
        self._callers: dict[int, Caller] = {}
        self._by_fd: dict[int, Caller] = {}
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._agenda: list[tuple[float, int]] = []
        self._epoll = select.epoll()
        self._opened = 0
        self._is_closing = False
        self._swept_at = -math.inf
        self._told_at = self._began_at
        self._turn_began_at = self._began_at

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Have something called, in the loop, when a descriptor is readable."""
        self._callbacks[fd] = callback
        self._epoll.register(fd, select.EPOLLIN)

    def unwatch(self, fd: int) -> None:
        """Watch a descriptor no longer."""
        del self._callbacks[fd]
        self._epoll.unregister(fd)

    def stop(self) -> None:
        """Let no more calls begin, and those that live end as they should."""
        self._arrivals.stop()
        now = time.monotonic()
        for caller in list(self._callers.values()):
            caller.end_soon(now)
            self._settle(caller)

    def run(self) -> None:
        """Make all calls; return when the last is over. It blocks."""
        cpu_began = time.thread_time()
        try:
            while self._callers or self._next_arrival() < math.inf:
                self._begin_calls()
                self._keep_times()
                self._sweep()
                self._poll()
        finally:
            for caller in list(self._callers.values()):
                caller.drop()
                self._settle(caller)
            self._epoll.close()
            figures = self.figures
            figures.cpu = time.thread_time() - cpu_began
            figures.elapsed = time.monotonic() - self._began_at
            self._sum_up()

    def _sum_up(self) -> None:
        metronome, figures = self._metronome, self.figures
        figures.frames = metronome.frames
        figures.held_frames = metronome.held_frames
        figures.lag.add_counts(metronome.lag_counts(), metronome.largest_lag)

    # One turn.

    def _next_arrival(self) -> float:
        return self._arrivals.next_at(len(self._callers), time.monotonic())

    def _begin_calls(self) -> None:
        for _ in range(_BEGINNINGS_A_TURN):
            now = time.monotonic()
            if self._next_arrival() > now:
                return
            number = self._arrivals.take(now)
            caller = Caller(
                self._exchange,
                number=number,
                voice=(self._first_voice + number) % MAX_NUMBER,
                script=write_script(self._options, number),
                ends_at=self._ends_at,
                now=now,
            )
            self.figures.begun += 1
            self._callers[number] = caller
            self.figures.peak = max(self.figures.peak, len(self._callers))
            if caller.link is not None:
                self._by_fd[caller.fd] = caller
                caller.polled = caller.link.events
                self._epoll.register(caller.fd, caller.polled)
            self._settle(caller)

    def _keep_times(self) -> None:
        now = time.monotonic()
        while self._agenda and self._agenda[0][0] <= now:
            at, number = heapq.heappop(self._agenda)
            caller = self._callers.get(number)
            # What was planned again since no longer matters.
            if caller is None or caller.planned_at != at:
                continue
            caller.planned_at = math.inf
            caller.on_time(now)
            self._settle(caller)
        if now >= self._told_at + PROGRESS_INTERVAL:
            self._told_at = now
            self._tell()

    def _sweep(self) -> None:
        now = time.monotonic()
        if now < self._swept_at + GRID:
            return
        self._swept_at = now
        for caller in self._metronome.sweep():
            caller.on_sweep(time.monotonic())
            self._settle(caller)

    def _poll(self) -> None:
        at = min(
            max(self._metronome.next_due(), self._swept_at + GRID),
            self._next_arrival(),
            self._told_at + PROGRESS_INTERVAL,
        )
        if self._agenda:
            at = min(at, self._agenda[0][0])
        now = time.monotonic()
        self.figures.turns.add(now - self._turn_began_at)
        events = self._epoll.poll(max(0.0, at - now))
        self._turn_began_at = time.monotonic()
        for fd, _ in events:
            caller = self._by_fd.get(fd)
            if caller is not None:
                caller.on_ready(time.monotonic())
                self._settle(caller)
            elif fd in self._callbacks:
                self._callbacks[fd]()

    def _settle(self, caller: Caller) -> None:
        """See to what has changed for a caller that was told something."""
        if caller.is_over:
            if self._callers.pop(caller.number, None) is not None:
                self._by_fd.pop(caller.fd, None)
                self._watcher.ended(caller.to_manifest())
            return
        deadline = caller.deadline
        if deadline < caller.planned_at:
            caller.planned_at = deadline
            heapq.heappush(self._agenda, (deadline, caller.number))
        if caller.link is not None and caller.link.events != caller.polled:
            caller.polled = caller.link.events
            self._epoll.modify(caller.fd, caller.polled)

    # What is told.

    def _count_opened(self) -> None:
        self._opened += 1
        if self._opened == self._at_once:
            self._watcher.steady()

    def _note_closing(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._watcher.closing()

    def _tell(self) -> None:
        figures, live = self.figures, len(self._callers)
        self._watcher.progress(
            Progress(
                live=live,
                begun=figures.begun,
                opened=self._opened,
                ended=figures.begun - live,
                failed=figures.failed,
                frames=self._metronome.frames,
                lag=self._metronome.largest_lag,
            )
        )
