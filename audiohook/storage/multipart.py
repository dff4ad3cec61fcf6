"""One object of one call goes to the store in parts, while the call lives or after.

The journal knows the upload and every part that the store has confirmed. A live
call sends parts from the second on, as they fill; the first, which holds the
WAV's sizes, goes when they are known.

What was sent of a live call is only ever taken for a guess: before an upload
becomes an object, each part is held against the final recording, and replaced if
it differs. So neither a gap that became known late, nor a header that has grown,
nor audio that did not survive a power failure can make a wrong object.
"""

from __future__ import annotations

import contextlib
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from audiohook.errors import SpoolError, UploadError, UploadGoneError
from audiohook.recording.journal import PartStored, UploadBegun, UploadDropped
from audiohook.storage.base import Part
from audiohook.storage.parts import Slice, all_spans, full_span, survey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from audiohook.recording.record import OpenUpload
    from audiohook.recording.spool import Spool
    from audiohook.recording.spooled import SpooledCall
    from audiohook.storage.base import Blob, MultipartStore, StoredObject
    from audiohook.storage.parts import Span, Survey

# Of one object at a time; more would only keep the others waiting.
_PARTS_AT_ONCE: Final = 4


class PartsUpload:
    """One object on its way, however many uploads it takes.

    To be used by one task at a time.

    Args:
        call: Whose it is.
        key: Where it is to be.
        store: Where it goes.
        spool: Where the call is.
        part_bytes: Size of the first part of an upload that begins now.
        threads: For reading the whole object.
        confirmed: Called whenever the store has confirmed something.
    """

    def __init__(
        self,
        call: SpooledCall,
        key: str,
        *,
        store: MultipartStore,
        spool: Spool,
        part_bytes: int,
        threads: trio.CapacityLimiter,
        confirmed: Callable[[], None],
    ) -> None:
        self._call = call
        self._key = key
        self._store = store
        self._spool = spool
        self._part_bytes = part_bytes
        self._threads = threads
        self._confirmed = confirmed
        # The upload that is known to be as the journal says.
        self._trusted: str | None = None
        self._survey: Survey | None = None
        self._wrong: set[int] = set()
        self._begun_anew = False
        self._begun_in_vain = False

    @property
    def begun_in_vain(self) -> bool:
        """Whether an upload was to begin and we have not been told its id."""
        return self._begun_in_vain

    @property
    def next_span(self) -> Span:
        """The part of a live call that is to be sent next, once it is full."""
        upload = self._open
        number = max(upload.parts, default=1) + 1 if upload else 2
        return full_span(number, self.first_bytes)

    @property
    def first_bytes(self) -> int:
        """Size of the first part."""
        upload = self._open
        return upload.part_bytes if upload else self._part_bytes

    async def send_next(self, blob: Blob, metadata: Mapping[str, str]) -> None:
        """Send `next_span` of a live call.

        Args:
            blob: The object as far as it is settled, that part included.
            metadata: What is known now, to be kept beside the object.

        Raises:
            UploadError: The store did not do as asked.
            SpoolError: The local disk did not do as asked.

        *Cancellation:* The part may be sent again.
        """
        span = self.next_span
        upload = self._open or await self._begin(metadata)
        try:
            await self._put(upload, span, blob)
        except UploadGoneError:
            await self.drop()
            raise

    async def finish(self, blob: Blob, metadata: Mapping[str, str]) -> StoredObject:
        """Send what is missing or wrong, and make the object.

        Args:
            blob: The whole object, which is final.
            metadata: To be kept beside it if the upload has not begun yet.

        Raises:
            KeyExistsError: The key is taken by something else.
            UploadError: The store did not do as asked.
            SpoolError: The local disk did not do as asked.

        *Cancellation:* The next attempt goes on from the parts that are stored.
        """
        try:
            return await self._finish(blob, metadata)
        except UploadGoneError:
            await self.drop()
            self._begun_anew = True
        return await self._finish(blob, metadata)

    async def drop(self) -> None:
        """Give up the upload, if there is one.

        Raises:
            UploadError: The store did not do as asked; the upload is still known.
            SpoolError: The call was given up.
        """
        upload = self._open
        if upload is not None:
            await self._store.abort(self._key, upload.upload_id)
            self._spool.append(self._call, UploadDropped(self._key))

    async def drop_strays(self) -> None:
        """Give up uploads to the key which began without our coming to know their ids.

        To be asked for once the object is there, when none is our own any more. The
        answer was lost, or the process was killed before the journal had it; so
        they have no parts. One that has is left alone: until names are decided,
        another session may be at the same key. If that has only just begun, nothing
        but that is lost: it begins anew.

        Raises:
            UploadError: The store did not do as asked.
        """
        for upload_id in await self._store.list_uploads(self._key):
            with contextlib.suppress(UploadGoneError):
                if not await self._store.list_parts(self._key, upload_id):
                    await self._store.abort(self._key, upload_id)

    @property
    def _open(self) -> OpenUpload | None:
        return self._call.record.uploads.get(self._key)

    async def _begin(self, metadata: Mapping[str, str]) -> OpenUpload:
        token = self._call.record.opened.session_id
        try:
            upload_id = await self._store.begin(
                self._key, metadata=metadata, token=token
            )
        except UploadError:
            self._begun_in_vain = True
            raise
        # On disk before any part goes, since an upload with parts that nobody knows
        # of is left to the bucket's lifecycle.
        begun = UploadBegun(self._key, upload_id, self._part_bytes)
        try:
            await self._spool.commit(self._call, begun)
        except SpoolError:
            if self._open is None:
                await self._store.abort(self._key, upload_id)
            raise
        self._trusted = upload_id
        return self._call.record.uploads[self._key]

    async def _put(self, upload: OpenUpload, span: Span, blob: Blob) -> None:
        part = await self._store.put_part(
            self._key, upload.upload_id, span.number, Slice(blob, span)
        )
        self._confirmed()
        self._wrong.discard(span.number)
        self._note(PartStored(self._key, part.number, part.size, part.etag, part.crc32))

    def _note(self, stored: PartStored) -> None:
        if self._spool.can_record:
            self._spool.append(self._call, stored)
        else:
            # A journal's room on a full disk is for the call itself; without the
            # line all that is lost by a crash is work.
            self._call.record.apply(stored)

    async def _finish(self, blob: Blob, metadata: Mapping[str, str]) -> StoredObject:
        upload = self._open or await self._begin(metadata)
        spans = all_spans(blob.size_bytes, upload.part_bytes)
        if self._trusted != upload.upload_id:
            await self._compare(upload, spans)
        missing = _missing(upload, spans)
        work = [partial(self._send, upload, missing, blob)]
        if self._survey is None:
            kept = _crc32s(upload, spans, missing)
            work.append(partial(self._survey_all, spans, kept, blob))
        await _together(work)
        wrong = [span for span in spans if span.number in self._wrong]
        await self._send(upload, wrong, blob)
        return await self._complete(upload, spans)

    async def _compare(self, upload: OpenUpload, spans: Sequence[Span]) -> None:
        """Forget parts which an earlier process saw stored and are not there."""
        try:
            listed = await self._store.list_parts(self._key, upload.upload_id)
        except UploadGoneError:
            # If everything had been sent it may have become the object already;
            # to complete it again tells.
            if _missing(upload, spans):
                raise
        else:
            present = {part.number: part for part in listed}
            for number, known in list(upload.parts.items()):
                part = present.get(number)
                if part is None or (part.size, part.etag) != (known.size, known.etag):
                    del upload.parts[number]
        self._trusted = upload.upload_id

    async def _survey_all(
        self, spans: Sequence[Span], kept: Mapping[int, str], blob: Blob
    ) -> None:
        self._survey = await trio.to_thread.run_sync(
            survey, blob, spans, kept, limiter=self._threads
        )
        self._wrong = set(self._survey.wrong)

    async def _send(
        self, upload: OpenUpload, spans: Sequence[Span], blob: Blob
    ) -> None:
        """Send parts, some at a time; after a failure, finish what is under way.

        To cancel a request would leave it unknown whether it is carried out, and
        when.
        """
        waiting = deque(spans)

        async def work() -> None:
            while waiting:
                try:
                    await self._put(upload, waiting.popleft(), blob)
                except BaseException:
                    waiting.clear()
                    raise

        await _together([work] * min(_PARTS_AT_ONCE, len(spans)))

    async def _complete(
        self, upload: OpenUpload, spans: Sequence[Span]
    ) -> StoredObject:
        assert self._survey is not None
        parts = [upload.parts[span.number] for span in spans]
        # With all lines on disk, who comes after a crash knows that the upload may
        # have become the object. A disk that refuses them must not keep the call
        # from the store.
        with contextlib.suppress(SpoolError):
            await self._spool.commit(self._call)
        stored = await self._store.complete(
            self._key,
            upload.upload_id,
            [Part(part.number, part.size, part.etag, part.crc32) for part in parts],
            size=sum(part.size for part in parts),
            sha256=self._survey.sha256,
            token=self._call.record.opened.session_id,
        )
        if self._begun_anew:
            # Should the first upload have become the object after all, the store
            # has kept the second.
            await self._store.abort(self._key, upload.upload_id)
        return stored


def _missing(upload: OpenUpload, spans: Sequence[Span]) -> list[Span]:
    """List the parts that are not stored, or not in their final size."""
    return [
        span
        for span in spans
        if span.number not in upload.parts
        or upload.parts[span.number].size != span.size
    ]


def _crc32s(
    upload: OpenUpload, spans: Sequence[Span], missing: Sequence[Span]
) -> dict[int, str]:
    """Tell the checksums of the parts that are not missing."""
    numbers = {span.number for span in spans} - {span.number for span in missing}
    return {number: upload.parts[number].crc32 for number in numbers}


async def _together(works: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Do things at once; all end before the first failure of any is raised."""
    failures: list[UploadError | SpoolError] = []

    async def attempt(work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except (UploadError, SpoolError) as error:
            failures.append(error)

    async with trio.open_nursery() as nursery:
        for work in works:
            nursery.start_soon(attempt, work)
    if failures:
        raise failures[0]
