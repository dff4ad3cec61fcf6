"""Where a job writes its facts down, and where its audio and its transcript are.

For a call in the spool that is its journal there; for one in a bucket, which any
machine may come to, the job's object beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from audiohook.storage.base import DeletingStore, DescribedStore, VersionedStore
from audiohook.storage.transcripts import Recordings, keep

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from audiohook.recording.spool import Spool
    from audiohook.recording.spooled import SpooledCall
    from audiohook.recording.transcripts import TranscriptFact, TranscriptObject
    from audiohook.storage.job_object import JobObject
    from audiohook.storage.transcripts import TranscriptShelf


class SharedStore(DescribedStore, DeletingStore, VersionedStore, Protocol):
    """A store that many processes share."""


class SpoolDocket:
    """One WAV file of a call in the spool, see `audiohook.transcription.steps.Docket`."""

    __slots__ = ("_call", "_key", "_shelf", "_spool")

    def __init__(
        self, spool: Spool, shelf: TranscriptShelf, call: SpooledCall, key: str
    ) -> None:
        self._spool = spool
        self._shelf = shelf
        self._call = call
        self._key = key

    def note(self, *facts: TranscriptFact) -> None:
        """Write facts down soon, see `Docket`."""
        for fact in facts:
            self._spool.append(self._call, fact)

    async def commit(self, *facts: TranscriptFact) -> None:
        """Write facts down for sure, see `Docket`."""
        await self._spool.commit(self._call, *facts)

    @property
    def signs(self) -> bool:
        """Whether `address` can be asked for."""
        return self._shelf.signs

    async def address(self) -> str:
        """Return where the service can fetch the file for some hours."""
        return await self._shelf.address(self._key)

    async def size(self) -> int:
        """Return the length of the file in bytes."""
        return await self._shelf.size(self._key)

    def read(self, size_bytes: int) -> AsyncGenerator[bytes, None]:
        """Read the file from start to end."""
        return self._shelf.read(self._key, size_bytes)

    async def keep(
        self, transcript_id: str, texts: Mapping[str, bytes]
    ) -> Sequence[TranscriptObject]:
        """Store all forms of the transcript, see `audiohook.storage.transcripts.keep`."""
        return await self._shelf.keep(self._call, self._key, transcript_id, texts)


class BucketDocket:
    """One WAV file in a bucket, see `audiohook.transcription.steps.Docket`."""

    __slots__ = ("_job", "_key", "_recordings", "_store")

    def __init__(self, store: SharedStore, job: JobObject, key: str) -> None:
        self._store = store
        self._job = job
        self._key = key
        self._recordings = Recordings(store)

    def note(self, *facts: TranscriptFact) -> None:
        """Write facts down soon, see `Docket`."""
        self._job.note(*facts)

    async def commit(self, *facts: TranscriptFact) -> None:
        """Write facts down for sure, see `Docket`."""
        await self._job.commit(*facts)

    @property
    def signs(self) -> bool:
        """Whether `address` can be asked for."""
        return self._recordings.signs

    async def address(self) -> str:
        """Return where the service can fetch the file for some hours."""
        return await self._recordings.address(self._key)

    async def size(self) -> int:
        """Return the length of the file in bytes."""
        return await self._recordings.size(self._key)

    def read(self, size_bytes: int) -> AsyncGenerator[bytes, None]:
        """Read the file from start to end."""
        return self._recordings.read(self._key, size_bytes)

    async def keep(
        self, transcript_id: str, texts: Mapping[str, bytes]
    ) -> Sequence[TranscriptObject]:
        """Store all forms of the transcript, see `audiohook.storage.transcripts.keep`."""
        record = self._job.record
        return await keep(
            self._store,
            self._key,
            transcript_id,
            texts,
            token=transcript_id,
            metadata={},
            replaces=() if record is None else record.ids,
        )
