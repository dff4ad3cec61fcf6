"""One task that reads every open call, and one that writes their audio to disk.

While a session is open its socket is read at a fixed interval, not when it
becomes readable: many frames are taken in one system call, and a call's task is
woken only if something else than audio was there.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from audiohook._divert import Fleet, Unsealer
from audiohook.errors import SpoolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from audiohook._divert import Batch, Lane
    from audiohook.ingest.stream import DivertedStream

# Seconds between two writes of a call's audio. Fewer and larger writes cost less; a
# crash may cost a second. A write of 1,600 bytes' share took 1.5 µs at 0.4 s and 1.0
# at 0.6.
_WRITE_INTERVAL = 0.6
# Files grow by whole pages, and what is left behind is written the next time. Of
# stereo that is 0.26 s at most, so that none is older than 0.86 s. Measured beside
# other work: 1.42 µs for 1,600 bytes' share, against 1.92 to wherever audio ends.
_WRITE_UNIT_BYTES = 4096
# Where passes are rarer than this, what is left behind would grow too old.
_LONGEST_INTERVAL = 0.25
# A write that takes so long comes from a disk that hangs.
_HUNG = 3.0


@dataclass(frozen=True, slots=True)
class PumpStatistics:
    """How the pump does.

    Attributes:
        lanes: Calls that are read.
        passes: Passes over all of them so far.
        lag: Seconds by which the last pass came late.
        worst_lag: The largest ``lag`` so far.
        buffered_bytes: Audio that is not in its file yet.
        failed_writes: Writes that the disk refused so far.
    """

    lanes: int
    passes: int
    lag: float
    worst_lag: float
    buffered_bytes: int
    failed_writes: int


class Pump:
    """Reads all enlisted streams, and writes their audio.

    Args:
        interval: Seconds from pass to pass.
        late: Told of each pass by how many seconds it came late.
    """

    def __init__(
        self, interval: float, *, late: Callable[[float], object] = lambda _: None
    ) -> None:
        self.fleet = Fleet(
            write_unit_bytes=_WRITE_UNIT_BYTES if interval <= _LONGEST_INTERVAL else 1
        )
        self.unsealer = Unsealer()
        self._interval = interval
        self._late = late
        self._passes_a_write = max(1, round(_WRITE_INTERVAL / interval))
        self._streams: set[DivertedStream] = set()
        self._polled: dict[DivertedStream, Callable[[], None]] = {}
        self._some = trio.Event()
        self._write_wanted = trio.Event()
        self._write_due = False
        self._written = trio.Event()
        # Lanes that were let go of while they were being written.
        self._parting: list[tuple[Lane, Callable[[], object]]] = []
        # One batch at a time: its own limiter, so that nobody's slow upload can
        # keep audio from the disk.
        self._limiter = trio.CapacityLimiter(1)
        # When the batch that is being written was begun; infinite if none is.
        self._write_began = math.inf
        self._passes = 0
        self._lag = 0.0
        self._worst_lag = 0.0
        self._failed_writes = 0

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Runs until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write_batches)
            task_status.started()
            await self._make_passes()

    def add(self, stream: DivertedStream) -> None:
        """Reads a stream from now on."""
        self.fleet.add(stream.lane)
        self._streams.add(stream)
        if stream.transport.polled:
            self._polled[stream] = stream.transport.read
        self._some.set()

    def remove(self, stream: DivertedStream) -> None:
        """Stops reading a stream; audio that it has stays to be flushed."""
        self._streams.discard(stream)
        self._polled.pop(stream, None)

    def release(
        self, lane: Lane, *, unused: Callable[[], object] = lambda: None
    ) -> None:
        """Lets go of a lane whose audio has been flushed or given up.

        Args:
            lane: It.
            unused: Called once nothing writes its audio any more, nor will, so that
                its file may be closed: at once, or when a disk that hangs is done.
        """
        lane.close_file()
        self.fleet.remove(lane)
        self._parting.append((lane, unused))
        self._part()

    async def flush(self, lane: Lane) -> None:
        """Waits until all audio of a lane is in its file (not yet on the medium).

        Raises:
            SpoolError: The disk refused it. The audio is kept, and tried again
                with the next batch.
        """
        while lane.unwritten_bytes:
            lane.hurry()
            written = self._written
            self._write_wanted.set()
            await written.wait()
            if lane.write_error and lane.unwritten_bytes:
                raise SpoolError(
                    f"cannot write audio: {os.strerror(lane.write_error)}", full=True
                )

    async def stop_writing(self, lane: Lane) -> None:
        """Waits until nothing writes a lane's audio any more, nor will.

        Its file may be closed then. What is unwritten stays so.
        """
        lane.close_file()
        while lane.writing:
            await self._written.wait()

    def _part(self) -> None:
        """Forgets the lanes that have been let go of and are not being written."""
        parting, self._parting = self._parting, []
        for lane, unused in parting:
            if lane.writing:
                self._parting.append((lane, unused))
            else:
                self.fleet.forget(lane)
                unused()

    def statistics(self) -> PumpStatistics:
        """Returns how the pump does."""
        return PumpStatistics(
            lanes=len(self._streams),
            passes=self._passes,
            lag=self._lag,
            worst_lag=self._worst_lag,
            buffered_bytes=self.fleet.buffered_bytes,
            failed_writes=self._failed_writes,
        )

    async def _make_passes(self) -> None:
        due = trio.current_time()
        while True:
            if not self._streams:
                # No call, no ticking.
                self._some = trio.Event()
                await self._some.wait()
                due = trio.current_time() + self._interval
                await trio.sleep_until(due)
            self._lag = max(0.0, trio.current_time() - due)
            self._worst_lag = max(self._worst_lag, self._lag)
            self._late(self._lag)
            self._pass()
            due = max(due + self._interval, trio.current_time())
            await trio.sleep_until(due)

    def _pass(self) -> None:
        now = trio.current_time()
        self.fleet.patient = now - self._write_began < _HUNG
        for read in self._polled.values():
            read()
        for lane in self.fleet.sweep(now):
            stream = lane.owner  # type: ignore[assignment]
            if stream is not None:  # else it is closed, and about to be flushed
                stream.wake()
        self._passes += 1
        due = self._passes % self._passes_a_write == 0
        if self.fleet.buffered_bytes and (due or self.fleet.pressing):
            self._write_due = True
            self._write_wanted.set()

    async def _write_batches(self) -> None:
        while True:
            await self._write_wanted.wait()
            self._write_wanted = trio.Event()
            # Where a call only waits for its end, the others are left to their turn.
            due, self._write_due = self._write_due, False
            await self._write(
                self.fleet.due_batch() if due else self.fleet.hurried_batch()
            )
            self._written.set()
            self._written = trio.Event()

    async def _write(self, batch: Batch) -> None:
        self._write_began = trio.current_time()
        try:
            if len(batch):
                await trio.to_thread.run_sync(batch.write, limiter=self._limiter)
        finally:
            self._write_began = math.inf
            self._failed_writes += len(batch.finish())
            self._part()
