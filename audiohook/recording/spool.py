"""The spool: every call on local disk from its first moment until it is stored.

All file work is done in threads, and in groups: whatever calls ask for while one
group is at work makes up the next. So three thousand calls that begin, or end,
at one instant cost two or three hops between threads, not three thousand.

There are three lanes, so that no call waits to begin while others are brought to
the disk, or removed: one creates calls and writes lines, one syncs, one removes.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import math
import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import structlog
import trio

from audiohook.errors import SpoolError
from audiohook.recording import disk, leftovers
from audiohook.recording._files import Journals
from audiohook.recording.groups import (
    Commit,
    Creation,
    Group,
    Lines,
    Removal,
    Ticket,
    encode_all,
    reason_of,
    spool_error,
)
from audiohook.recording.journal import ClosedFact, utc_text
from audiohook.recording.record import CallRecord
from audiohook.recording.spares import Demand, Spares
from audiohook.recording.spooled import SpooledCall

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from audiohook.recording.journal import Fact, Opened

# How long lines may wait for company; a crash may cost a second.
_LINGER: Final = 0.05
# How often a disk that refused is tried again.
_RETRY_INTERVAL: Final = 1.0
# How old a measurement of free room may be.
_FRESH: Final = 1.0
# How often the audio of live calls is sent on its way to the disk. Otherwise the
# kernel would let half a minute of it pile up, and many calls that end together
# would have to wait for all of that.
_SYNC_INTERVAL: Final = 5.0
# How long whoever does not wait for a call any more is kept for its removal, which goes
# on without him; his peer waits for an answer.
_TAKE_BACK_PATIENCE: Final = 0.3
# How long the last lines may take when the spool stops.
_STOP_PATIENCE: Final = 10.0
# Other work in threads at a time: removals, and looks for leftovers.
_ERRANDS: Final = 2
# Each leftover that is handed out keeps a file open.
_ADOPT_LIMIT: Final = 1000
# Folders of calls that are done, for calls to come; each takes 4 KiB on most disks.
# As many as may begin in an instant.
_SPARES: Final = 4096
# Calls that are removed in one go.
_REMOVED_AT_ONCE: Final = 64
# Calls that are created before those who wait for them are told. A slow disk takes half
# a second for so many.
_CREATED_AT_ONCE: Final = 256

_STOPPED: Final = "the spool is not running"


@dataclass(frozen=True, slots=True)
class SpoolStatistics:
    """How the spool does.

    Attributes:
        calls: Calls that this process holds.
        waiting: Calls that wait to be created, or for their facts to be on disk.
        unwritten: Calls with lines that are not in their journals yet.
        faults: Refusals by the disk so far.
        free_bytes: Room on the disk when last measured.
        sync_seconds: How long the last group took to be brought to the disk.
    """

    calls: int
    waiting: int
    unwritten: int
    faults: int
    free_bytes: int
    sync_seconds: float


class Spool:
    """All calls that this process has on local disk.

    Several processes may share a folder; each call belongs to one of them.

    Args:
        folder: Made if it is not there.
        low_water_bytes: Free room on its disk below which no call is created.
        sync_interval: Seconds after which the audio of live calls is sent on its
            way to the disk again; `math.inf` leaves that to the kernel.
        spares: Most empty folders that are kept for calls to come.
        log: For what an operator must see.
    """

    def __init__(
        self,
        folder: Path,
        *,
        low_water_bytes: int,
        sync_interval: float = _SYNC_INTERVAL,
        spares: int = _SPARES,
        log: FilteringBoundLogger | None = None,
    ) -> None:
        self._folder = folder
        self._low_water_bytes = low_water_bytes
        self._sync_interval = sync_interval
        self._log: FilteringBoundLogger = log or structlog.get_logger("audiohook.spool")
        self._running = False
        self._spool_fd = -1
        self._journals: Journals | None = None
        # Whether this disk forgets locks whose files are closed.
        self._keep_files = False
        self._spares = Spares(spares)
        self._calls: dict[str, SpooledCall] = {}
        self._live: dict[str, SpooledCall] = {}
        # Each lane is one task that waits for one thread at a time.
        self._lanes = trio.CapacityLimiter(3)
        self._errands = trio.CapacityLimiter(_ERRANDS)
        # The writing lane.
        self._work = trio.Event()
        self._hurry = trio.Event()
        self._creations: list[Creation] = []
        self._commits: list[Commit] = []
        self._unwritten: dict[SpooledCall, None] = {}
        self._orphans: list[disk.CallFiles] = []
        self._waiting: list[Ticket] = []
        self._stuck = False
        self._refusal: OSError | None = None
        # The removing lane.
        self._removals: list[Removal] = []
        self._removal_work = trio.Event()
        # The syncing lane.
        self._sync_work = trio.Event()
        self._unsynced: list[Commit] = []
        self._sync_seconds = 0.0
        self._live_some = trio.Event()
        self._free_bytes = 0
        self._measured_at = -math.inf
        self._waiting_calls = 0
        self._faults = 0
        # See `leftovers.find`; of use to one look at a time.
        self._looking = trio.Lock()
        self._passed_over: dict[str, bool] = {}

    @property
    def free_bytes(self) -> int:
        """Room on the disk, as measured a second ago at most if asked often.

        Asking when that is older has it measured anew for the next time.
        """
        if self._running and trio.current_time() - self._measured_at > _FRESH:
            self._hurry_up()
        return self._free_bytes

    @property
    def passed_over_delivered(self) -> int:
        """Calls that `adopt` found last to wait for transcripts, and had no room for."""
        return sum(self._passed_over.values())

    @property
    def can_record(self) -> bool:
        """Whether a new call would find room, as far as is known; see `probe`."""
        enough = self.free_bytes >= self._low_water_bytes
        return self._running and self._refusal is None and enough

    def statistics(self) -> SpoolStatistics:
        """Return how the spool does."""
        return SpoolStatistics(
            calls=len(self._calls),
            waiting=self._waiting_calls,
            unwritten=len(self._unwritten),
            faults=self._faults,
            free_bytes=self._free_bytes,
            sync_seconds=self._sync_seconds,
        )

    def records(self) -> list[CallRecord]:
        """Return what is known of each call that this process holds."""
        return [call.record for call in self._calls.values()]

    async def run(
        self,
        *,
        ahead: int = 0,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve all other methods until cancelled; must outlive the calls.

        Args:
            ahead: Empty folders that are made ahead, for calls that come all at once.
            task_status: Told when it serves.

        Raises:
            SpoolError: The folder cannot be used.

        *Cancellation:* Lines that calls have given are written; whoever still
        waits for a call to be created or sealed gets a `SpoolError`.
        """
        syncers = await self._open()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write_groups)
                nursery.start_soon(self._remove_groups)
                nursery.start_soon(self._sync_groups, syncers[0])
                nursery.start_soon(self._sync_live_calls, syncers[1])
                if not self._keep_files:
                    nursery.start_soon(
                        self._spares.make_ahead,
                        ahead,
                        self._spool_fd,
                        self._demand,
                        self._errands,
                    )
                task_status.started()
        finally:
            self._running = False
            with trio.move_on_after(_STOP_PATIENCE, shield=True):
                await self._stop(syncers)

    async def create(self, opened: Opened) -> SpooledCall:
        """Make a place for a call; its lock is ours until it is given up.

        Args:
            opened: Its first fact.

        Raises:
            SpoolError: There is no room, or the disk refused.

        *Cancellation:* Nothing is left of the call.
        """
        self._check_running()
        creation = Creation(opened)
        self._waiting_calls += 1
        self._creations.append(creation)
        self._hurry_up()
        try:
            await creation.wait()
        except trio.Cancelled:
            creation.abandoned = True
            if creation.call is not None:
                # It was made in the very turn in which this task was cancelled.
                await self._take_back(creation.call)
            raise
        assert creation.call is not None
        return creation.call

    def append(self, call: SpooledCall, fact: Fact) -> None:
        """Note a fact; its line is written soon, with those of other calls.

        If the disk refuses, the line is kept and tried again every second.

        Raises:
            SpoolError: The fact cannot be written, or the call was given up.
        """
        self._check(call)
        data = encode_all([fact])
        call.record.apply(fact)
        call.pending.append(data)
        self._unwritten[call] = None
        self._work.set()

    async def commit(self, call: SpooledCall, *facts: Fact) -> None:
        """Note facts and wait until they are on disk, and all before them.

        Raises:
            SpoolError: The disk refused. If the lines could not be written the
                facts do not count. If they could not be synced, nothing of this
                call will be taken for safe again until it is adopted anew.

        *Cancellation:* What was asked for still happens.
        """
        await self._commit(call, facts, None)

    async def seal(self, call: SpooledCall, closed: ClosedFact) -> None:
        """End a call: once this returns, all of it is on disk.

        Audio past the end is cut off. May be asked again after a failure.

        Args:
            call: Nothing may be writing its audio any more.
            closed: How it ended; its bytes are rounded down to whole frames.

        Raises:
            SpoolError: The disk refused, or holds less audio than that.

        *Cancellation:* The call is sealed nevertheless, if the disk lets it.
        """
        stored_bytes = call.record.whole_frames(closed.stored_bytes)
        closed = replace(closed, stored_bytes=stored_bytes)
        facts = () if call.record.closed == closed else (closed,)
        await self._commit(call, facts, stored_bytes)

    async def flush(self) -> None:
        """Wait until all lines given so far are written (not synced).

        Raises:
            SpoolError: The disk refused some of them.
        """
        await self._turn()
        if self._stuck:
            raise SpoolError(f"{len(self._unwritten)} journals cannot be written")

    async def probe(self) -> bool:
        """Ask the disk anew, and return `can_record`."""
        await self._turn()
        return self.can_record

    async def adopt(
        self, limit: int = _ADOPT_LIMIT, delivered_limit: int = _ADOPT_LIMIT
    ) -> list[SpooledCall]:
        """Take over calls that no process holds any more.

        Those that were cut off are sealed as they are, marked incomplete; one
        that cannot be is left for another time. What makes no sense is moved to
        the folder ``aside`` in the spool.

        Args:
            limit: At most so many that are to be stored, since each keeps a file
                open. If as many came, there may be more: ask again when these are
                finished.
            delivered_limit: The same for calls that are stored and only wait for
                their transcripts.

        Returns:
            Sealed calls.

        Raises:
            SpoolError: The spool cannot be read.

        *Cancellation:* All of them are given up again.
        """
        try:
            async with self._looking:
                self._check_running()
                held = {*self._calls, *self._spares.names}
                look = functools.partial(
                    leftovers.find,
                    self._spool_fd,
                    held,
                    limit,
                    delivered_limit,
                    self._passed_over,
                    spares_limit=self._spares_wanted,
                    keep_files=self._keep_files,
                )
                findings = await trio.to_thread.run_sync(look, limiter=self._errands)
        except OSError as exc:
            raise spool_error(f"{self._folder} cannot be listed", exc) from exc
        self._spares.keep(findings.spares)
        for name, reason in findings.aside:
            self._log.warning("spool_set_aside", entry=name, reason=reason)
        for name, reason in findings.unreachable:
            self._faults += 1
            self._log.warning("spool_out_of_reach", entry=name, reason=reason)
        adopted = [
            (self._register(found.files, found.record), found)
            for found in findings.calls
        ]
        try:
            async with trio.open_nursery() as nursery:
                for call, found in adopted:
                    nursery.start_soon(self._seal_leftover, call, found)
        except BaseException:
            for call, _ in adopted:
                call.release()
            raise
        return [call for call, _ in adopted if not call.released]

    async def drop_audio(self, call: SpooledCall) -> None:
        """Delete the audio of a call, and keep the rest.

        Args:
            call: Its journal says on disk that the store has all of it.

        Raises:
            SpoolError: The disk refused, or the call is not delivered.

        *Cancellation:* It may be deleted nevertheless.
        """
        self._check(call)
        if not call.record.delivered:
            raise SpoolError(f"the audio of call {call.folder.name} is still needed")
        call.drop_audio()
        try:
            await trio.to_thread.run_sync(
                disk.drop_audio,
                self._spool_fd,
                call.folder.name,
                limiter=self._errands,
            )
        except OSError as exc:
            raise spool_error(f"audio of call {call.folder.name}", exc) from exc

    async def remove(self, call: SpooledCall) -> None:
        """Delete a call from the spool, and give it up.

        Its folder may be kept, empty and under another name, for another call.

        Raises:
            SpoolError: The disk refused; the next look for leftovers finds what
                remains.

        *Cancellation:* The call is given up. It is deleted nevertheless, or found
        again like any leftover.
        """
        self._check(call)
        try:
            await call.wait_alone()
            # The spool may have stopped in the meantime.
            self._check_running()
            removal = Removal(call)
        finally:
            call.release()
        self._removals.append(removal)
        self._removal_work.set()
        await removal.wait()

    async def _take_back(self, call: SpooledCall) -> None:
        """Leave nothing of a call of which nobody comes to know any more."""
        with trio.move_on_after(_TAKE_BACK_PATIENCE, shield=True):
            with contextlib.suppress(SpoolError):
                await self.remove(call)
        call.release()

    async def _commit(
        self, call: SpooledCall, facts: Collection[Fact], fit_bytes: int | None
    ) -> None:
        self._check(call)
        commit = Commit(call, facts, fit_bytes)
        call.hold()
        self._waiting_calls += 1
        self._commits.append(commit)
        self._hurry_up()
        await commit.wait()

    async def _turn(self) -> None:
        """Wait until the writing lane has done all that it was given."""
        self._check_running()
        ticket = Ticket()
        self._waiting.append(ticket)
        self._hurry_up()
        await ticket.wait()

    async def _seal_leftover(
        self, call: SpooledCall, found: leftovers.Leftover
    ) -> None:
        """Seal a call that was cut off, or whose audio is shorter than was said."""
        closed = call.record.closed
        if call.record.delivered:
            # The audio is in the store, and here no longer.
            return
        if closed is None:
            reason = "interrupted"
        elif found.audio_bytes < closed.stored_bytes:
            reason = "damaged"
        else:
            return
        fact = ClosedFact(
            reason=reason,
            stored_bytes=found.audio_bytes,
            ended_at=utc_text(found.last_write),
            complete=False,
        )
        try:
            await self.seal(call, fact)
        except SpoolError as exc:
            self._log.warning(
                "leftover_not_sealed", session=call.folder.name, error=str(exc)
            )
            call.release()

    def _check_running(self) -> None:
        if not self._running:
            raise SpoolError(_STOPPED)

    def _check(self, call: SpooledCall) -> None:
        self._check_running()
        if call.released:
            raise SpoolError(f"call {call.folder.name} was given up")

    def _register(self, files: disk.CallFiles, record: CallRecord) -> SpooledCall:
        call = SpooledCall(self._folder / files.name, files, record, self._forget)
        self._calls[files.name] = call
        return call

    def _forget(self, call: SpooledCall) -> None:
        self._calls.pop(call.folder.name, None)
        self._unwritten.pop(call, None)
        self._forget_live(call)

    @property
    def _spares_wanted(self) -> int:
        return 0 if self._keep_files else self._spares.wanted

    def _demand(self) -> Demand:
        if self._refusal is not None or self._free_bytes < self._low_water_bytes:
            return Demand.NO_ROOM
        if self._waiting_calls:
            return Demand.WAITING
        return Demand.LIVE if self._live else Demand.NOTHING

    def _forget_live(self, call: SpooledCall) -> None:
        self._live.pop(call.folder.name, None)
        # One that is not set may have somebody waiting for it.
        if not self._live and self._live_some.is_set():
            self._live_some = trio.Event()

    def _hurry_up(self) -> None:
        self._work.set()
        self._hurry.set()

    def _note_fault(self, event: str, exc: OSError) -> None:
        self._faults += 1
        self._log.error(event, folder=str(self._folder), error=reason_of(exc))

    # The writing lane

    async def _write_groups(self) -> None:
        while True:
            await self._wait_for_work()
            await self._write_group()

    async def _wait_for_work(self) -> None:
        short = self._free_bytes < self._low_water_bytes
        if self._stuck or self._refusal is not None or short:
            with trio.move_on_after(_RETRY_INTERVAL):
                await self._hurry.wait()
            return
        await self._work.wait()
        with trio.move_on_after(_LINGER):
            await self._hurry.wait()

    async def _write_group(self) -> None:
        group = self._take_group()
        # Once it is taken it must be done and settled, for others wait for it.
        with trio.move_on_after(_STOP_PATIENCE, shield=True):
            await trio.to_thread.run_sync(group.run, limiter=self._lanes)
        self._settle_group(group)

    def _take_group(self) -> Group:
        self._work = trio.Event()
        self._hurry = trio.Event()
        lines: dict[SpooledCall, Lines] = {}
        for call in (*self._unwritten, *(commit.call for commit in self._commits)):
            if call not in lines:
                step = disk.Step(b"".join(call.pending))
                lines[call] = Lines(call, call.hold(), step)
                call.pending.clear()
        for commit in self._commits:
            lines[commit.call].commits.append(commit)
        spares_wanted = self._spares_wanted
        creations = self._creations[:_CREATED_AT_ONCE]
        del self._creations[:_CREATED_AT_ONCE]
        assert self._journals is not None
        group = Group(
            spool_fd=self._spool_fd,
            journals=self._journals,
            keep_files=self._keep_files,
            spares=self._spares.lend(),
            spares_wanted=spares_wanted,
            low_water_bytes=self._low_water_bytes,
            refusal=self._refusal,
            creations=creations,
            lines=list(lines.values()),
            orphans=self._orphans,
            waiting=self._waiting,
        )
        self._unwritten.clear()
        self._commits = []
        self._orphans = []
        self._waiting = []
        if self._creations:
            self._hurry_up()
        return group

    def _settle_group(self, group: Group) -> None:
        if group.refusal is not None and self._refusal is None:
            self._note_fault("spool_refuses", group.refusal)
        elif group.refusal is None and self._refusal is not None:
            self._log.info("spool_recovered", free_bytes=group.free_bytes)
        self._refusal = group.refusal
        self._free_bytes = group.free_bytes
        self._measured_at = trio.current_time()
        self._spares.take_back(group.spares, used=bool(group.creations))
        self._settle_lines(group.lines)
        for creation in group.creations:
            self._settle_creation(creation)
        for ticket in group.waiting:
            ticket.settle()

    def _settle_lines(self, groups: Iterable[Lines]) -> None:
        was_stuck, self._stuck = self._stuck, False
        for lines in groups:
            call, failure = lines.call, lines.step.failure
            if failure is not None and not call.released:
                call.pending.insert(0, lines.step.data)
                self._unwritten[call] = None
                if not (self._stuck or was_stuck):
                    self._note_fault("journal_not_written", failure)
                self._stuck = True
            for commit in lines.commits:
                self._settle_written(commit)
            call.let_go()
        if was_stuck and not self._stuck:
            self._log.info("journals_written")

    def _settle_written(self, commit: Commit) -> None:
        call = commit.call
        failure = commit.step.failure
        if failure is not None:
            self._faults += 1
            error = spool_error(f"journal of call {call.folder.name}", failure)
            self._settle_commit(commit, error)
            return
        for fact in commit.facts:
            call.record.apply(fact)
        if call.record.closed is not None:
            self._forget_live(call)
        self._unsynced.append(commit)
        self._sync_work.set()

    def _settle_commit(self, commit: Commit, error: SpoolError | None) -> None:
        self._waiting_calls -= 1
        commit.settle(error)
        commit.call.let_go()

    def _settle_creation(self, creation: Creation) -> None:
        self._waiting_calls -= 1
        if creation.files is None:
            creation.settle(creation.failure)
            return
        if creation.abandoned:
            self._orphans.append(creation.files)
            self._hurry_up()
            return
        call = self._register(creation.files, CallRecord(creation.opened))
        self._live[call.folder.name] = call
        self._live_some.set()
        creation.call = call
        creation.settle()

    # The removing lane

    async def _remove_groups(self) -> None:
        while True:
            await self._removal_work.wait()
            group = self._removals[:_REMOVED_AT_ONCE]
            del self._removals[:_REMOVED_AT_ONCE]
            if not self._removals:
                self._removal_work = trio.Event()
            with trio.move_on_after(_STOP_PATIENCE, shield=True):
                await trio.to_thread.run_sync(
                    _remove_all,
                    self._spool_fd,
                    group,
                    self._spares_wanted,
                    limiter=self._errands,
                )
            for removal in group:
                self._settle_removal(removal)

    def _settle_removal(self, removal: Removal) -> None:
        call, failure = removal.call, removal.failure
        if removal.spare is not None:
            self._spares.keep([removal.spare])
        error = None
        if failure is not None:
            error = spool_error(f"{call.folder} cannot be removed", failure)
        removal.settle(error)
        call.let_go()

    # The syncing lane, and the one for live calls

    async def _sync_groups(self, syncer: disk.Syncer) -> None:
        while True:
            await self._sync_work.wait()
            self._sync_work = trio.Event()
            commits, self._unsynced = self._unsynced, []
            began = time.perf_counter()
            await self._sync(syncer, {commit.call for commit in commits})
            self._sync_seconds = time.perf_counter() - began
            for commit in commits:
                self._settle_commit(commit, _sync_error(commit.call))

    async def _sync_live_calls(self, syncer: disk.Syncer) -> None:
        while True:
            await self._live_some.wait()
            await trio.sleep(self._sync_interval)
            await self._sync(syncer, self._live.values())

    async def _sync(self, syncer: disk.Syncer, calls: Iterable[SpooledCall]) -> None:
        held = list(calls)
        files = [call.hold() for call in held]
        sound = [each for each in files if each.failure is None]
        with trio.move_on_after(_STOP_PATIENCE, shield=True):
            await trio.to_thread.run_sync(syncer.sync, files, limiter=self._lanes)
        for call in held:
            call.let_go()
        for each in sound:
            if each.failure is not None:
                self._note_fault("call_not_synced", each.failure)

    # Start and stop

    async def _open(self) -> tuple[disk.Syncer, disk.Syncer]:
        def open_all() -> tuple[int, disk.Syncer, disk.Syncer, int]:
            spool_fd = disk.open_spool(self._folder)
            free = disk.free_bytes(spool_fd)
            try:
                disk.try_writing(spool_fd)
                self._keep_files = not disk.locks_last(spool_fd)
            except OSError as exc:
                # What lies there can still be stored, and the disk may be mended.
                self._refusal = exc
                self._keep_files = True
            return spool_fd, disk.Syncer(self._folder), disk.Syncer(self._folder), free

        try:
            opened = await trio.to_thread.run_sync(open_all, limiter=self._lanes)
        except OSError as exc:
            raise spool_error(f"{self._folder} cannot be used", exc) from exc
        self._spool_fd, first, second, self._free_bytes = opened
        self._journals = Journals(self._spool_fd)
        if self._keep_files and self._refusal is None:
            self._log.warning("spool_locks_need_files", files_per_call=3)
        self._measured_at = trio.current_time()
        self._running = True
        if self._refusal is not None:
            self._note_fault("spool_refuses", self._refusal)
        return first, second

    async def _stop(self, syncers: Iterable[disk.Syncer]) -> None:
        for creation in self._creations:
            self._waiting_calls -= 1
            creation.settle(SpoolError(_STOPPED))
        for commit in (*self._commits, *self._unsynced):
            self._settle_commit(commit, SpoolError(_STOPPED))
        for removal in self._removals:
            removal.failure = OSError(errno.ECANCELED, _STOPPED)
            self._settle_removal(removal)
        self._creations, self._commits, self._unsynced = [], [], []
        self._removals = []
        # More than once, as a group may leave calls that nobody has come to know.
        while self._unwritten or self._orphans or self._waiting:
            await self._write_group()
            if self._stuck:
                break
        # Whoever is at work in a thread still needs the folder open.
        for _ in range(_ERRANDS):
            await self._errands.acquire_on_behalf_of(object())
        for syncer in syncers:
            syncer.close()
        self._spares.close()
        assert self._journals is not None
        self._journals.close()
        os.close(self._spool_fd)


def _remove_all(spool_fd: int, removals: Iterable[Removal], spares_wanted: int) -> None:
    for removal in removals:
        removal.run(spool_fd, keep=spares_wanted > 0)
        spares_wanted -= 1


def _sync_error(call: SpooledCall) -> SpoolError | None:
    failure = call.files.failure
    if failure is None:
        return None
    return spool_error(f"call {call.folder.name} cannot be synced", failure)
