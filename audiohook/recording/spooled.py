"""One call in the spool, from its creation until it is given up."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

from audiohook.recording import disk
from audiohook.recording.groups import spool_error

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from audiohook.recording.record import CallRecord


class SpooledCall:
    """One call in the spool, locked by this process.

    It is an audio source: µ-law as received, channels interleaved, whole frames.

    Attributes:
        folder: Where its files are.
        record: What its journal says.
        files: Its open files; for the spool only.
        pending: Lines not in the journal yet; for the spool only.
    """

    __slots__ = (
        "_audio_dropped",
        "_idle",
        "_on_release",
        "_released",
        "_users",
        "files",
        "folder",
        "pending",
        "record",
    )

    def __init__(
        self,
        folder: Path,
        files: disk.CallFiles,
        record: CallRecord,
        on_release: Callable[[SpooledCall], None],
    ) -> None:
        self.folder = folder
        self.record = record
        self.files = files
        self.pending: list[bytes] = []
        self._on_release = on_release
        self._released = False
        # Threads that work on the files. Until they are done the files must stay
        # open, or their numbers might be given to other files.
        self._users = 0
        self._idle: trio.Event | None = None
        self._audio_dropped = False

    @property
    def audio_fd(self) -> int:
        """File to write audio to, at offsets of the caller's own; -1 if closed.

        It may be used until `release` or `Spool.remove` is called, no longer.
        """
        return self.files.audio_fd

    @property
    def size_bytes(self) -> int:
        """Audio that counts: what the call was closed with, or what is there."""
        closed = self.record.closed
        if closed is not None:
            return closed.stored_bytes
        return self.record.whole_frames(self.files.audio_bytes())

    @property
    def is_doubtful(self) -> bool:
        """Whether a sync has failed, after which no other proves anything.

        Only who adopts the call anew may take it for safe again.
        """
        return self.files.failure is not None

    @property
    def released(self) -> bool:
        """Whether the call was given up."""
        return self._released

    def read_at(self, offset: int, length: int) -> bytes:
        """Read audio. It blocks; call it from a worker thread.

        Args:
            offset: First byte.
            length: Number of bytes.

        Returns:
            Those bytes; fewer only at the end of the audio.

        Raises:
            SpoolError: The disk refused.
        """
        wanted = min(length, self.size_bytes - offset)
        try:
            return disk.read_at(self.files.audio_fd, offset, wanted)
        except OSError as exc:
            raise spool_error(f"audio of call {self.files.name}", exc) from exc

    def read_journal(self) -> bytes:
        """Read the journal as far as it is written. It blocks.

        Raises:
            SpoolError: The disk refused.
        """
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(self.folder / disk.JOURNAL, flags)
            try:
                return disk.read_at(fd, 0, self.files.journal_bytes)
            finally:
                os.close(fd)
        except OSError as exc:
            raise spool_error(f"journal of call {self.files.name}", exc) from exc

    def release(self) -> None:
        """Give the call up: close its files and so its lock. Once is enough.

        It stays in the spool, and `Spool.adopt` of any process may find it. Lines
        that are not written yet are dropped; see `Spool.flush`.
        """
        if not self._released:
            self._released = True
            self._on_release(self)
        if self._users == 0:
            self.files.close()

    def hold(self) -> disk.CallFiles:
        """Keep the files open until `let_go`, whoever gives the call up meanwhile.

        For threads of the spool, and for uploads of a call that another task owns.
        """
        self._users += 1
        return self.files

    def let_go(self) -> None:
        """Undo one `hold`."""
        self._users -= 1
        if self._users == 0:
            if self._audio_dropped:
                self.files.close_audio()
            if self._idle is not None:
                self._idle.set()
            elif self._released:
                self.files.close()

    def drop_audio(self) -> None:
        """Close the audio file as soon as no thread is at it; for the spool only."""
        self._audio_dropped = True
        if self._users == 0:
            self.files.close_audio()

    async def wait_alone(self) -> disk.CallFiles:
        """Give the call up, and wait for its threads; for the spool only.

        Returns:
            Its files, still open; `release` closes them.
        """
        self._released = True
        self._on_release(self)
        try:
            while self._users:
                self._idle = trio.Event()
                await self._idle.wait()
        finally:
            self._idle = None
        return self.files
