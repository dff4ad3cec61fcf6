"""Work of many calls for one hop to a thread, and who waits for it.

A `Group` is filled on Trio's side, goes to a thread, where only `Group.run`
happens, and is settled on Trio's side again. So nothing here needs a lock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from audiohook.errors import SpoolError
from audiohook.recording import disk
from audiohook.recording.journal import encode

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from audiohook.recording._files import Journals
    from audiohook.recording.journal import Fact, Opened
    from audiohook.recording.spooled import SpooledCall

# Calls that are created in one go. Whether somebody still waits is looked at between.
_CREATED_AT_ONCE: Final = 64


def encode_all(facts: Iterable[Fact]) -> bytes:
    """Write facts as lines.

    Raises:
        SpoolError: JSON cannot say what one of them holds.
    """
    try:
        return b"".join(map(encode, facts))
    except ValueError as exc:
        raise SpoolError(f"fact cannot be written: {exc}") from exc


def reason_of(exc: OSError) -> str:
    """Say in words what the disk said."""
    return exc.strerror or type(exc).__name__


def spool_error(what: str, exc: OSError) -> SpoolError:
    """Make the error to raise in another task than the one that met `exc`."""
    error = SpoolError(f"{what}: {reason_of(exc)}", full=disk.is_no_room(exc))
    error.__cause__ = exc
    return error


class Ticket:
    """Somebody waits until something is done."""

    def __init__(self) -> None:
        self._error: SpoolError | None = None
        self._settled = trio.Event()

    def settle(self, error: SpoolError | None = None) -> None:
        """Let the one who waits go on, or fail."""
        self._error = error
        self._settled.set()

    async def wait(self) -> None:
        """Wait for `settle`.

        Raises:
            SpoolError: It was not done.
        """
        await self._settled.wait()
        if self._error is not None:
            raise self._error


class Creation(Ticket):
    """A call is to be created.

    Attributes:
        opened: Its first fact.
        line: The same as a line.
        abandoned: Whether nobody waits for the call any more.
        files: What the thread made.
        failure: Why it made nothing.
        call: What the one who waits gets.
    """

    def __init__(self, opened: Opened) -> None:
        super().__init__()
        self.opened = opened
        self.line = encode_all([opened])
        self.abandoned = False
        self.files: disk.CallFiles | None = None
        self.failure: SpoolError | None = None
        self.call: SpooledCall | None = None


class Commit(Ticket):
    """Facts are to be on disk, and with them all that their call had before.

    Attributes:
        call: Whose they are.
        facts: They.
        step: The same as lines, and where the audio is to be cut off before. No line
            is written if that fails.
    """

    def __init__(
        self, call: SpooledCall, facts: Collection[Fact], fit_bytes: int | None
    ) -> None:
        super().__init__()
        self.call = call
        self.facts = facts
        self.step = disk.Step(encode_all(facts), fit_bytes)


@dataclass(eq=False, slots=True)
class Lines:
    """What one call has to write.

    Attributes:
        call: Whose it is.
        files: Where it goes.
        step: Lines that nobody waits for. If they cannot be written, nothing else is.
        commits: Lines that somebody waits for; they come after.
    """

    call: SpooledCall
    files: disk.CallFiles
    step: disk.Step
    commits: list[Commit] = field(default_factory=list)

    def steps(self) -> list[disk.Step]:
        """Return all that is to be written, in order."""
        return [self.step, *(commit.step for commit in self.commits)]


class Removal(Ticket):
    """A call is to leave the spool.

    Attributes:
        call: It.
        files: Its files, which stay open until it is done.
        spare: What was made of its folder, if anything.
        failure: Why it was not done.
    """

    def __init__(self, call: SpooledCall) -> None:
        super().__init__()
        self.call = call
        self.files = call.hold()
        self.spare: disk.Spare | None = None
        self.failure: OSError | None = None

    def run(self, spool_fd: int, *, keep: bool) -> None:
        """Do it; blocks.

        Args:
            spool_fd: The spool's folder.
            keep: Whether its folder is to become a spare.
        """
        try:
            self.spare = clear(spool_fd, self.files, keep=keep)
        except OSError as exc:
            self.failure = exc


def clear(spool_fd: int, files: disk.CallFiles, *, keep: bool) -> disk.Spare | None:
    """Make a spare of a call's folder, or delete it.

    Raises:
        OSError: The disk refused.
    """
    if keep:
        try:
            return disk.make_spare(spool_fd, files)
        except OSError:
            # It is to go nevertheless.
            pass
    disk.remove(spool_fd, files)
    return None


@dataclass(eq=False, slots=True)
class Group:
    """All that was asked for while the group before was at work.

    Attributes:
        spool_fd: The spool's folder.
        journals: What writes lines.
        keep_files: Whether locks need open files.
        low_water_bytes: Free room below which no call is created.
        refusal: Why the disk takes no new calls, as was known and as is known.
        creations: Calls to create.
        spares: Folders for them. What is left of them is not used up.
        spares_wanted: How many more may be made.
        lines: Lines to write.
        orphans: Calls to remove that nobody has come to know.
        waiting: Who waits for the group as such.
        free_bytes: Room that was found.
    """

    spool_fd: int
    journals: Journals
    keep_files: bool
    low_water_bytes: int
    refusal: OSError | None
    creations: list[Creation]
    spares: list[disk.Spare]
    spares_wanted: int
    lines: list[Lines]
    orphans: list[disk.CallFiles]
    waiting: list[Ticket]
    free_bytes: int = 0

    def run(self) -> None:
        """Do it; blocks. What went wrong is noted with each item."""
        for files in self.orphans:
            self._remove(files)
        if self.lines:
            disk.write_steps(
                self.journals, [(lines.files, lines.steps()) for lines in self.lines]
            )
        self._measure()
        for begin in range(0, len(self.creations), _CREATED_AT_ONCE):
            # Looked at here, since a storm may take longer than some will wait.
            self._create(
                [
                    creation
                    for creation in self.creations[begin : begin + _CREATED_AT_ONCE]
                    if not creation.abandoned
                ]
            )

    def _remove(self, files: disk.CallFiles) -> None:
        try:
            spare = clear(self.spool_fd, files, keep=self.spares_wanted > 0)
        except OSError as exc:
            # The next look for leftovers finds it.
            self.refusal = self.refusal or exc
        else:
            if spare is not None:
                self.spares.append(spare)
                self.spares_wanted -= 1

    def _measure(self) -> None:
        """Measure the free room, and try again a disk that refused."""
        try:
            self.free_bytes = disk.free_bytes(self.spool_fd)
            if self.refusal is not None and self.free_bytes >= self.low_water_bytes:
                disk.try_writing(self.spool_fd)
                self.refusal = None
        except OSError as exc:
            self.refusal = exc

    def _refuse(self) -> SpoolError | None:
        if self.refusal is not None:
            return spool_error("the disk takes no new calls", self.refusal)
        if self.free_bytes < self.low_water_bytes:
            return SpoolError(
                f"{self.free_bytes} bytes are free on the spool's disk,"
                f" {self.low_water_bytes} must stay free",
                full=True,
            )
        return None

    def _create(self, creations: list[Creation]) -> None:
        while creations:
            refusal = self._refuse()
            if refusal is not None:
                for creation in creations:
                    creation.failure = refusal
                return
            made = disk.create(
                self.spool_fd,
                [(each.opened.session_id, each.line) for each in creations],
                self.spares,
                keep_files=self.keep_files,
            )
            for creation, files in zip(creations, made, strict=False):
                self._note_created(creation, files)
            creations = creations[len(made) :]

    def _note_created(
        self, creation: Creation, files: disk.CallFiles | OSError
    ) -> None:
        if isinstance(files, OSError):
            if disk.is_refusal(files):
                self.refusal = files
            name = creation.opened.session_id
            creation.failure = spool_error(f"call {name} cannot be created", files)
        else:
            creation.files = files
