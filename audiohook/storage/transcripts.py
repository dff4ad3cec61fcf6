"""Transcripts on their way to their place beside the recording."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from audiohook.errors import KeyExistsError, UploadError
from audiohook.recording.journal import Done
from audiohook.recording.transcripts import TranscriptObject
from audiohook.storage import call_json
from audiohook.storage.base import MIB, BytesBlob, ReadableStore, SigningStore
from audiohook.storage.layout import transcript_key

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

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


class TranscriptShelf:
    """What transcription needs of the store and the spool.

    Args:
        store: Where recordings are, and transcripts go.
        spool: Where calls wait for them.
    """

    def __init__(self, store: Store, spool: Spool) -> None:
        self._store = store
        self._spool = spool

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

    async def keep(
        self,
        call: SpooledCall,
        wav_key: str,
        transcript_id: str,
        texts: Mapping[str, bytes],
    ) -> list[TranscriptObject]:
        """Store all forms of a transcript; the JSON last.

        What an earlier attempt has stored is replaced, if it is of the same
        transcript. That of another is not: somebody has paid for it.

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
        about = {"session-id": token, "transcript-id": transcript_id}
        last = transcript_key(wav_key, _LAST)
        objects = []
        for ending in sorted(texts, key=lambda each: each == _LAST):
            key = transcript_key(wav_key, ending)
            blob = BytesBlob(texts[ending])
            try:
                stored = await self._store.put(key, blob, metadata=about, token=token)
            except KeyExistsError:
                if await self._other_id(last, transcript_id) is not None:
                    raise
                stored = await self._store.replace(
                    key, blob, metadata=about, token=token
                )
            objects.append(TranscriptObject(stored.key, stored.size, stored.sha256))
        return objects

    async def update(self, call: SpooledCall) -> None:
        """Have the call's JSON in the store say how its transcripts stand.

        Raises:
            UploadError: The store did not do as asked; try again later.
            SpoolError: The call was given up.
        """
        await call_json.update(self._store, self._spool, call)

    async def finish(self, call: SpooledCall) -> None:
        """Remove a call from the spool for which nothing is left to do.

        Raises:
            SpoolError: The local disk did not do as asked.
        """
        await self._spool.commit(call, Done())
        await self._spool.remove(call)

    async def _other_id(self, key: str, transcript_id: str) -> object:
        """Return whose a transcript is; None if there is none or it is this one."""
        data = await self._store.read(key)
        if data is None:
            return None
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            return ""
        known = value.get("id") if isinstance(value, dict) else ""
        return None if known == transcript_id else known or ""
