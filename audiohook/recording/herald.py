"""Who is told what becomes of calls, for those who bring it about.

They tell it before they do what makes it count as done, and again after a crash;
whoever is told has to know by himself what he has heard already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from audiohook.recording.record import CallRecord
    from audiohook.recording.transcripts import JobRecord


class Herald(Protocol):
    """Is told what becomes of calls. Nothing here raises an error of its own."""

    def opened(self, record: CallRecord) -> None:
        """Note that a call is being recorded."""

    async def stored(self, record: CallRecord) -> None:
        """Note that all audio of a call is stored; return once that cannot be lost."""

    async def transcribed(self, record: CallRecord, job: JobRecord) -> None:
        """Note that a job of a call is at its end, likewise."""

    async def transcribed_elsewhere(self, job: JobRecord) -> None:
        """Note the same of a call of which only its files are known."""


class Nobody:
    """A herald who listens to nothing."""

    def opened(self, record: CallRecord) -> None:
        """Do nothing."""

    async def stored(self, record: CallRecord) -> None:
        """Do nothing."""

    async def transcribed(self, record: CallRecord, job: JobRecord) -> None:
        """Do nothing."""

    async def transcribed_elsewhere(self, job: JobRecord) -> None:
        """Do nothing."""
