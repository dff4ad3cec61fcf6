"""Work of many calls for one hop to a thread, and who waits for it.

A `Group` is filled on Trio's side, goes to a thread, where only `Group.run`
happens, and is settled on Trio's side again. So nothing here needs a lock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from audiohook.errors import SpoolError
from audiohook.recording import disk
from audiohook.recording.journal import encode

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from audiohook.recording.journal import Fact, Opened
    from audiohook.recording.spooled import SpooledCall


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
        data: The same as lines.
        fit_bytes: Where the audio is to be cut off, ``None`` for nowhere.
        failure: Why they were not written.
    """

    def __init__(
        self, call: SpooledCall, facts: Collection[Fact], fit_bytes: int | None
    ) -> None:
        super().__init__()
        self.call = call
        self.facts = facts
        self.data = encode_all(facts)
        self.fit_bytes = fit_bytes
        self.failure: OSError | None = None

    def write(self, files: disk.CallFiles) -> None:
        """Cut the audio and write the lines; no line is written if that fails."""
        try:
            if self.fit_bytes is not None:
                files.fit_audio(self.fit_bytes)
            files.write_lines(self.data)
        except OSError as exc:
            self.failure = exc


@dataclass(eq=False, slots=True)
class Lines:
    """What one call has to write.

    Attributes:
        call: Whose it is.
        files: Where it goes.
        data: Lines that nobody waits for.
        commits: Lines that somebody waits for; they come after.
        failure: Why `data` was not written, and so nothing else either.
    """

    call: SpooledCall
    files: disk.CallFiles
    data: bytes
    commits: list[Commit] = field(default_factory=list)
    failure: OSError | None = None

    def write(self) -> None:
        """Write all of it, as far as the disk lets us."""
        try:
            self.files.write_lines(self.data)
        except OSError as exc:
            self.failure = exc
        for commit in self.commits:
            if self.failure is None:
                commit.write(self.files)
            else:
                commit.failure = self.failure


@dataclass(eq=False, slots=True)
class Group:
    """All that was asked for while the group before was at work.

    Attributes:
        spool_fd: The spool's folder.
        low_water_bytes: Free room below which no call is created.
        refusal: Why the disk takes no new calls, as was known and as is known.
        creations: Calls to create.
        lines: Lines to write.
        orphans: Calls to remove that nobody has come to know.
        waiting: Who waits for the group as such.
        free_bytes: Room that was found.
    """

    spool_fd: int
    low_water_bytes: int
    refusal: OSError | None
    creations: list[Creation]
    lines: list[Lines]
    orphans: list[disk.CallFiles]
    waiting: list[Ticket]
    free_bytes: int = 0

    def run(self) -> None:
        """Do it; blocks. What went wrong is noted with each item."""
        for files in self.orphans:
            self._remove(files)
        for lines in self.lines:
            lines.write()
        self._measure()
        for creation in self.creations:
            # Looked at here, since a storm may take longer than some will wait.
            if not creation.abandoned:
                creation.failure = self._refuse() or self._create(creation)

    def _remove(self, files: disk.CallFiles) -> None:
        try:
            disk.remove(self.spool_fd, files)
        except OSError as exc:
            # The next look for leftovers finds it.
            self.refusal = self.refusal or exc

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

    def _create(self, creation: Creation) -> SpoolError | None:
        session_id = creation.opened.session_id
        try:
            creation.files = disk.create(self.spool_fd, session_id, creation.line)
        except OSError as exc:
            if disk.is_refusal(exc):
                self.refusal = exc
            return spool_error(f"call {session_id} cannot be created", exc)
        return None
