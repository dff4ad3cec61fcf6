"""Transcripts on their way to their place beside the recording."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from audiohook.errors import KeyExistsError, UploadError
from audiohook.recording.journal import AudioDeleted, Done
from audiohook.recording.transcripts import TranscriptObject
from audiohook.storage import call_json
from audiohook.storage.base import (
    MIB,
    BytesBlob,
    DeletingStore,
    ReadableStore,
    SigningStore,
)
from audiohook.storage.layout import transcript_key

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Mapping

    from audiohook.recording.spool import Spool
    from audiohook.recording.spooled import SpooledCall
    from audiohook.storage.base import Store

SECONDS = 1
MINUTES = 60 * SECONDS
HOURS = 60 * MINUTES

# A job may wait in a queue before the audio is fetched. With credentials that
# expire the address may die earlier; then the job fails, and gets another.
_ADDRESS_LIFE: Final = 12 * HOURS
_CHUNK_BYTES: Final = MIB
# The form that is stored last, so that where it is, all others are.
_LAST: Final = ".json"


class Recordings:
    """WAV files in the store, as a service needs them that transcribes them.

    Args:
        store: Where they are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def signs(self) -> bool:
        """Whether others can fetch the audio from the store."""
        return isinstance(self._store, SigningStore)

    async def address(self, wav_key: str) -> str:
        """Return an address from which a WAV file can be fetched for some hours.

        It is as good as the recording itself: not to be logged or written down.

        Raises:
            UploadError: The store cannot do that, or has no credentials.
        """
        if not isinstance(self._store, SigningStore):
            raise UploadError("the store signs no addresses", retryable=False)
        return await self._store.presign(wav_key, _ADDRESS_LIFE)

    async def size(self, wav_key: str) -> int:
        """Return the length of a WAV file in bytes.

        Raises:
            UploadError: The store did not do as asked, or there is no such file.
        """
        size = None
        if isinstance(self._store, ReadableStore):
            size = await self._store.size(wav_key)
        if size is None:
            raise UploadError(f"{wav_key} is not in the store", retryable=False)
        return size

    async def read(self, wav_key: str, size_bytes: int) -> AsyncGenerator[bytes, None]:
        """Read a WAV file from start to end.

        Args:
            wav_key: Which.
            size_bytes: Its length.

        Raises:
            UploadError: The store did not do as asked, or the file is shorter.
        """
        if not isinstance(self._store, ReadableStore):
            raise UploadError("the store cannot be read", retryable=False)
        for offset in range(0, size_bytes, _CHUNK_BYTES):
            length = min(_CHUNK_BYTES, size_bytes - offset)
            chunk = await self._store.read_range(wav_key, offset, length)
            if len(chunk) < length:
                raise UploadError(f"{wav_key} is shorter than {size_bytes} bytes")
            yield chunk


class TranscriptShelf(Recordings):
    """What transcription needs of the store and the spool.

    Args:
        store: Where recordings are, and transcripts go.
        spool: Where calls wait for them.
        noted: Told of the JSON of each call whose transcripts come.
    """

    def __init__(
        self, store: Store, spool: Spool, *, noted: call_json.Noted | None = None
    ) -> None:
        super().__init__(store)
        self._spool = spool
        self._noted = noted or (lambda _key, _summary: None)

    async def keep(
        self,
        call: SpooledCall,
        wav_key: str,
        transcript_id: str,
        texts: Mapping[str, bytes],
    ) -> list[TranscriptObject]:
        """Store all forms of a transcript, see `keep`.

        Args:
            call: Whose.
            wav_key: Of which file.
            transcript_id: Its id, which its JSON holds.
            texts: Its forms by their endings.

        Raises:
            UploadError: The store did not do as asked; try again later.
            KeyExistsError: There is another transcript.
        """
        token = call.record.opened.session_id
        about = {"session-id": token}
        return await keep(
            self._store, wav_key, transcript_id, texts, token=token, metadata=about
        )

    async def update(self, call: SpooledCall) -> None:
        """Have the call's JSON in the store say how its transcripts stand.

        Raises:
            UploadError: The store did not do as asked; try again later.
            SpoolError: The call was given up.
        """
        await call_json.update(self._store, self._spool, call, noted=self._noted)

    async def _delete_audio(self, call: SpooledCall) -> None:
        """Delete the audio of a call of which only the transcript is wanted.

        Nothing is deleted before all of its transcripts are in the store, and the
        journal on disk says so.
        """
        record = call.record
        jobs = record.jobs.values()
        if not all(job.planned.deletes_audio and job.stored for job in jobs):
            return
        await self._spool.commit(call)
        for job in jobs:
            if job.planned.key in record.deleted:
                continue
            if not isinstance(self._store, DeletingStore):
                raise UploadError("the store deletes nothing", retryable=False)
            await self._store.purge(job.planned.key)
            self._spool.append(call, AudioDeleted(job.planned.key))
        await self.update(call)

    async def finish(self, call: SpooledCall) -> None:
        """Remove a call from the spool for which nothing is left to do.

        Before that its audio is deleted, if only its transcripts are wanted.

        Raises:
            UploadError: The store did not delete it; try again later.
            SpoolError: The local disk did not do as asked.
        """
        await self._delete_audio(call)
        await self._spool.commit(call, Done())
        await self._spool.remove(call)


async def keep(
    store: Store,
    wav_key: str,
    transcript_id: str,
    texts: Mapping[str, bytes],
    *,
    token: str,
    metadata: Mapping[str, str],
    replaces: Collection[str] = (),
) -> list[TranscriptObject]:
    """Store all forms of a transcript; the JSON last.

    What an earlier attempt has stored is replaced, if it is of the same
    transcript. That of another is not, unless it is known and was asked for again:
    somebody has paid for it.

    Args:
        store: Where.
        wav_key: Of which file.
        transcript_id: Its id, which its JSON holds.
        texts: Its forms by their endings.
        token: The same for each attempt.
        metadata: Kept beside each form, together with the id.
        replaces: Ids of other transcripts that this one comes in place of.

    Raises:
        UploadError: The store did not do as asked; try again later.
        KeyExistsError: There is another transcript.
    """
    about = {**metadata, "transcript-id": transcript_id}
    last = transcript_key(wav_key, _LAST)
    objects = []
    for ending in sorted(texts, key=lambda each: each == _LAST):
        key = transcript_key(wav_key, ending)
        blob = BytesBlob(texts[ending])
        try:
            stored = await store.put(key, blob, metadata=about, token=token)
        except KeyExistsError:
            other = await _other_id(store, last, transcript_id)
            if other is not None and other not in replaces:
                raise
            stored = await store.replace(key, blob, metadata=about, token=token)
        objects.append(TranscriptObject(stored.key, stored.size, stored.sha256))
    return objects


async def _other_id(store: Store, key: str, transcript_id: str) -> object:
    """Return whose a transcript is; None if there is none or it is this one."""
    data = await store.read(key)
    if data is None:
        return None
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return ""
    known = value.get("id") if isinstance(value, dict) else ""
    return None if known == transcript_id else known or ""
