"""A bucket as a store: Amazon's S3, or another that speaks its language.

Answers get lost. Whether a request that made an object was carried out is decided
by what is there: every object carries the token of its owner in its metadata.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from audiohook.errors import KeyExistsError, UploadError, UploadGoneError
from audiohook.storage.base import (
    MIB,
    BytesBlob,
    Part,
    StoredObject,
    StoreFault,
    check_key,
)
from audiohook.storage.s3_body import load
from audiohook.storage.s3_faults import (
    ConflictError,
    KeyTakenError,
    LostAnswerError,
    NotFoundError,
)
from audiohook.storage.s3_metadata import (
    SHA256_NAME,
    TOKEN_NAME,
    content_type,
    safe_metadata,
    safe_value,
)
from audiohook.storage.s3_reader import S3Reader
from audiohook.storage.traces import WHY_KEPT, remove_all

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from audiohook.storage.base import Blob, FoundObject
    from audiohook.storage.s3_body import Body, Digest
    from audiohook.storage.s3_client import (
        CompletedPart,
        Confirmation,
        S3Client,
        S3Options,
    )

SECONDS = 1.0

# Source: Amazon S3 User Guide, "Multipart upload limits".
_LEAST_PART_BYTES: Final = 5 * MIB
_MOST_PARTS: Final = 10_000

# A larger object is stored in parts of this size, so that memory does not grow.
_PUT_LIMIT_BYTES: Final = 8 * MIB
_ABORT_DEADLINE: Final = 10 * SECONDS


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What we want to have under a key.

    Attributes:
        key: Where.
        size: Bytes.
        token: Whose it is.
        sha256: Its checksum, if it is sent whole.
    """

    key: str
    size: int
    token: str
    sha256: str | None = None

    def is_met_by(self, found: FoundObject) -> bool:
        """Tell whether that is what we wanted to have there, or another's."""
        known = found.metadata.get(SHA256_NAME)
        return (
            found.size == self.size
            and found.metadata.get(TOKEN_NAME) == safe_value(self.token)
            and (self.sha256 is None or known is None or known == self.sha256)
        )


class S3Store(S3Reader):
    """Objects in a bucket.

    Args:
        bucket: Its name, or the ARN of an access point.
        options: What the bucket may ask for.
        parallel: Most requests at a time; each may hold a part in memory.
    """

    def __init__(
        self, bucket: str, *, options: S3Options | None = None, parallel: int = 8
    ) -> None:
        super().__init__(bucket, options=options, parallel=parallel)
        # Held from the first byte that is read to the last that is sent.
        self._buffers = trio.CapacityLimiter(parallel)

    @property
    def min_part_bytes(self) -> int:
        """The least that a part may have, except for the last."""
        return _LEAST_PART_BYTES

    async def put(
        self, key: str, blob: Blob, *, metadata: Mapping[str, str], token: str
    ) -> StoredObject:
        """Store an object, unless the key is taken by something else.

        Args:
            key: Where, see `check_key`.
            blob: What; a large one is stored in parts, one after the other.
            metadata: Names and values to keep beside it. Characters that are not
                printable ASCII come percent-encoded; what is beyond 2 KiB is cut.
            token: The same for each attempt at the same object.

        Raises:
            KeyExistsError: The key is taken by something else.
            UploadError: The store did not do as asked; the text says how to mend it.
            SpoolError: The blob cannot be read.

        *Cancellation:* At once. A request that was sent may still be carried out.
        """
        return await self._store(key, blob, metadata, token, only_new=True)

    async def replace(
        self, key: str, blob: Blob, *, metadata: Mapping[str, str], token: str
    ) -> StoredObject:
        """Store an object in place of whatever is there; otherwise as `put`."""
        return await self._store(key, blob, metadata, token, only_new=False)

    async def swap(
        self, key: str, data: bytes, tag: str | None, *, metadata: Mapping[str, str]
    ) -> str:
        """Store an object in place of a certain one.

        Args:
            key: Where.
            data: The new content.
            tag: Of the one that is to be there; ``None`` if there is to be none.
            metadata: As for `put`.

        Returns:
            The new tag.

        Raises:
            KeyExistsError: There is something else, or nothing. It may be our own
                if an earlier answer was lost.
            UploadError: The store did not do as asked; it may be there nonetheless.
        """
        check_key(key)
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        kept = safe_metadata(metadata)
        if SHA256_NAME in kept:
            # It was that of the content before.
            kept[SHA256_NAME] = hashlib.sha256(data).hexdigest()
        async with self._buffers:
            body = await self._read_into_memory(
                partial(load, BytesBlob(data), 0, len(data), key=key)
            )

            def put(client: S3Client) -> str:
                return _confirmed(
                    self._put_object(client, key, body, kept, condition), body
                )

            try:
                return await self._call("PutObject", key, put)
            except (KeyTakenError, NotFoundError) as exc:
                raise KeyExistsError(key) from exc

    async def delete(self, key: str) -> None:
        """Delete an object; no fault if there is none.

        Raises:
            UploadError: The store did not do as asked.
        """
        check_key(key)

        def delete(client: S3Client) -> None:
            client.delete_object(Bucket=self._bucket, Key=key, **self._common)

        await self._call("DeleteObject", key, delete)

    async def purge(self, key: str) -> None:
        """Delete an object with all its versions; no fault if there is none.

        Uploads to it that nobody has finished are given up as well. What is locked
        is hidden from all who do not ask for versions.

        Raises:
            UploadError: The store did not do as asked, or something keeps it, which
                the text says. A role needs ``s3:ListBucketVersions`` and
                ``s3:DeleteObjectVersion``.
        """
        traces = self.traces
        kept = await remove_all(traces, await traces.of(key))
        if kept:
            reason, until = kept[0].reason, kept[0].until
            raise UploadError(
                f"{key}: {len(kept)} versions cannot be deleted: {WHY_KEPT[reason]}"
                + ("" if until is None else f" until {until}"),
                fault=StoreFault.DENIED,
                retryable=False,
            )

    async def begin(self, key: str, *, metadata: Mapping[str, str], token: str) -> str:
        """Begin an upload; nothing is to be seen of it before it is complete.

        Args:
            key: Where the object is to be, see `check_key`.
            metadata: As for `put`.
            token: As for `put`.

        Returns:
            The upload's id.

        Raises:
            UploadError: The store did not do as asked.
        """
        check_key(key)
        kept = safe_metadata({TOKEN_NAME: token, **metadata})

        def begin(client: S3Client) -> str:
            begun = client.create_multipart_upload(
                Bucket=self._bucket,
                Key=key,
                ContentType=content_type(key),
                # Said here, or Amazon refuses parts that come with a checksum.
                ChecksumAlgorithm="CRC32",
                Metadata=kept,
                **self._for_object(key),
            )
            return begun["UploadId"]

        return await self._call("CreateMultipartUpload", key, begin)

    async def put_part(self, key: str, upload_id: str, number: int, blob: Blob) -> Part:
        """Store a part; one of the same number is replaced.

        Args:
            key: Where the object is to be.
            upload_id: What `begin` returned.
            number: From 1 to 10,000.
            blob: The part's bytes, all of which are held in memory for a while.

        Raises:
            UploadGoneError: There is no such upload.
            UploadError: The store did not do as asked.
            SpoolError: The blob cannot be read.

        *Cancellation:* At once. A request that was sent may still be carried out.
        """
        return await self._send_part(
            key, upload_id, number, partial(load, blob, 0, blob.size_bytes, key=key)
        )

    async def list_uploads(self, key: str) -> list[str]:
        """List the ids of the uploads to a key that are under way, whosever they are.

        Raises:
            UploadError: The store did not do as asked. A role may be for writing
                only.
        """
        check_key(key)

        def list_all(client: S3Client) -> list[str]:
            # Keys that only begin so come after it, and no key has a page of them.
            page = client.list_multipart_uploads(
                Bucket=self._bucket, Prefix=key, **self._common
            )
            listed = page.get("Uploads", [])
            return [each["UploadId"] for each in listed if each["Key"] == key]

        return await self._call("ListMultipartUploads", key, list_all)

    async def list_parts(self, key: str, upload_id: str) -> list[Part]:
        """List the parts that are stored, by their numbers.

        Returns:
            The parts; one that is missing has to be sent again. Not every store
            tells their checksums, which `complete` may need.

        Raises:
            UploadGoneError: There is no such upload.
            UploadError: The store did not do as asked.
        """
        check_key(key)

        def list_all(client: S3Client) -> list[Part]:
            parts: list[Part] = []
            while True:
                page = client.list_parts(
                    Bucket=self._bucket,
                    Key=key,
                    UploadId=upload_id,
                    PartNumberMarker=parts[-1].number if parts else 0,
                    **self._common,
                )
                listed = page.get("Parts", [])
                parts += (
                    Part(
                        each["PartNumber"],
                        each["Size"],
                        each["ETag"],
                        each.get("ChecksumCRC32", ""),
                    )
                    for each in listed
                )
                if not listed or not page.get("IsTruncated"):
                    return _unambiguous(parts)

        return await self._call("ListParts", key, list_all)

    async def complete(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        *,
        size: int,
        sha256: str,
        token: str,
    ) -> StoredObject:
        """Make an object of the parts, unless the key is taken.

        To complete an upload twice is no fault.

        Args:
            key: Where the object is to be.
            upload_id: What `begin` returned.
            parts: By their numbers.
            size: Bytes of them all.
            sha256: Checksum of them all, which is handed through.
            token: What `begin` was given.

        Raises:
            KeyExistsError: The key is taken by something else.
            UploadGoneError: There is no such upload, or it cannot be completed.
            UploadError: The store did not do as asked.
        """
        check_key(key)
        await self._complete(key, upload_id, parts, size, token, only_new=True)
        return StoredObject(key, size, sha256)

    async def abort(self, key: str, upload_id: str) -> None:
        """Give up an upload and its parts; no fault if there is none.

        Raises:
            UploadError: The store did not do as asked.
        """
        check_key(key)

        def abort(client: S3Client) -> None:
            client.abort_multipart_upload(
                Bucket=self._bucket, Key=key, UploadId=upload_id, **self._common
            )

        try:
            await self._call("AbortMultipartUpload", key, abort)
        except UploadGoneError:
            return

    def _put_object(
        self,
        client: S3Client,
        key: str,
        body: Body,
        metadata: Mapping[str, str],
        condition: Mapping[str, str],
    ) -> Confirmation:
        """Sends an object whole, from its start at each try; runs in a thread."""
        body.seek(0)
        return client.put_object(
            Bucket=self._bucket,
            Key=key,
            Body=body,
            ContentLength=body.size,
            ContentType=content_type(key),
            ChecksumCRC32=body.crc32,
            Metadata=metadata,
            **self._for_object(key),
            **condition,
        )

    def _for_object(self, key: str) -> dict[str, str]:
        return self._options.for_object(key) | self._common

    async def _store(
        self,
        key: str,
        blob: Blob,
        metadata: Mapping[str, str],
        token: str,
        *,
        only_new: bool,
    ) -> StoredObject:
        check_key(key)
        digest = hashlib.sha256()
        if blob.size_bytes > _PUT_LIMIT_BYTES:
            await self._store_parts(
                key, blob, metadata, token, digest, only_new=only_new
            )
        else:
            await self._store_whole(
                key, blob, metadata, token, digest, only_new=only_new
            )
        return StoredObject(key, blob.size_bytes, digest.hexdigest())

    async def _store_whole(
        self,
        key: str,
        blob: Blob,
        metadata: Mapping[str, str],
        token: str,
        digest: Digest,
        *,
        only_new: bool,
    ) -> None:
        async with self._buffers:
            body = await self._read_into_memory(
                partial(load, blob, 0, blob.size_bytes, key=key, digest=digest)
            )
            wanted = _Wanted(key, body.size, token, digest.hexdigest())
            mark = {TOKEN_NAME: token, SHA256_NAME: digest.hexdigest()}
            kept = safe_metadata({**mark, **metadata})
            condition = {"IfNoneMatch": "*"} if only_new else {}
            is_checked = True

            def put(client: S3Client) -> None:
                nonlocal is_checked
                stored = self._put_object(client, key, body, kept, condition)
                _confirmed(stored, body)
                is_checked = "ChecksumCRC32" in stored

            try:
                await self._make("PutObject", wanted, put)
            except ConflictError:
                await self._make("PutObject", wanted, put)
            if not is_checked:
                await self._look_at(wanted)

    async def _store_parts(
        self,
        key: str,
        blob: Blob,
        metadata: Mapping[str, str],
        token: str,
        digest: Digest,
        *,
        only_new: bool,
    ) -> None:
        size = blob.size_bytes
        step = max(_PUT_LIMIT_BYTES, -(-size // _MOST_PARTS))
        upload_id = await self.begin(key, metadata=metadata, token=token)
        try:
            parts = [
                await self._send_part(
                    key,
                    upload_id,
                    number,
                    partial(
                        load,
                        blob,
                        offset,
                        min(step, size - offset),
                        key=key,
                        digest=digest,
                    ),
                )
                for number, offset in enumerate(range(0, size, step), 1)
            ]
            made = await self._complete(
                key, upload_id, parts, size, token, only_new=only_new
            )
        except BaseException:
            # The bucket's owner pays for parts until they are given up.
            with trio.move_on_after(_ABORT_DEADLINE, shield=True):
                await self._abort_quietly(key, upload_id)
            raise
        if not made:
            # An earlier attempt's has become the object, whose answer was lost.
            await self._abort_quietly(key, upload_id)

    async def _abort_quietly(self, key: str, upload_id: str) -> None:
        try:
            await self.abort(key, upload_id)
        except UploadError:
            # The bucket's lifecycle does it in a few days.
            return

    async def _send_part(
        self, key: str, upload_id: str, number: int, load: Callable[[], Body]
    ) -> Part:
        check_key(key)
        async with self._buffers:
            body = await self._read_into_memory(load)

            def upload(client: S3Client) -> str:
                stored = client.upload_part(
                    Bucket=self._bucket,
                    Key=key,
                    UploadId=upload_id,
                    PartNumber=number,
                    Body=body,
                    ContentLength=body.size,
                    ChecksumCRC32=body.crc32,
                    **self._common,
                )
                return _confirmed(stored, body)

            etag = await self._call("UploadPart", key, upload)
        return Part(number, body.size, etag, body.crc32)

    async def _complete(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        size: int,
        token: str,
        *,
        only_new: bool,
    ) -> bool:
        """Make an object of parts; tell whether it is known to be made of these."""
        condition = {"IfNoneMatch": "*"} if only_new else {}

        def complete(client: S3Client) -> None:
            stored = client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=key,
                UploadId=upload_id,
                MultipartUpload={"Parts": [_completed(part) for part in parts]},
                MpuObjectSize=size,
                **self._common,
                **condition,
            )
            _confirmed(stored)

        wanted = _Wanted(key, size, token)
        try:
            made = await self._make("CompleteMultipartUpload", wanted, complete)
        except ConflictError as exc:
            # Source: Amazon S3 API Reference, CompleteMultipartUpload: after 409
            # an upload has to be begun anew.
            raise UploadGoneError(key) from exc
        await self._verify(wanted)
        return made

    async def _make(
        self, operation: str, wanted: _Wanted, work: Callable[[S3Client], None]
    ) -> bool:
        """Make an object, or find that it has been made before.

        Args:
            operation: The call, as S3 names it.
            wanted: The object.
            work: Sends the request.

        Returns:
            Whether it is known to have been this request that made it.

        Raises:
            KeyExistsError: There is something else.
            ConflictError: Somebody else was at it.
            UploadGoneError: The upload is gone, and the object is not there.
            UploadError: The store did not do as asked.
        """
        try:
            await self._call(operation, wanted.key, work)
        except KeyTakenError as exc:
            found = await self.head(wanted.key)
            if found is None:
                raise ConflictError(f"{wanted.key} was there and is gone") from exc
            if not wanted.is_met_by(found):
                raise KeyExistsError(wanted.key) from exc
            return False
        except (LostAnswerError, UploadGoneError):
            if not await self._has_arrived(wanted):
                raise
            return False
        return True

    async def _has_arrived(self, wanted: _Wanted) -> bool:
        """Say whether a request whose answer was lost is known to have been done."""
        try:
            found = await self.head(wanted.key)
        except UploadError:
            # The first failure is the one to tell; the next attempt finds out.
            return False
        return found is not None and wanted.is_met_by(found)

    async def _verify(self, wanted: _Wanted) -> None:
        """Make sure of the length, which not every store does.

        Raises:
            KeyExistsError: It is another, or somebody has replaced the object.
            UploadError: The store did not do as asked, or somebody has taken the
                object away.
        """
        try:
            found = await self.head(wanted.key)
        except UploadError as exc:
            # A role may be for writing only, and Amazon has checked the length.
            if exc.fault != StoreFault.DENIED:
                raise
            return
        if found is None:
            raise UploadError(f"{wanted.key}: said to be complete, and is not there")
        if not wanted.is_met_by(found):
            raise KeyExistsError(wanted.key)

    async def _look_at(self, wanted: _Wanted) -> None:
        """Make sure of an object that was sent whole, and not checked by the store.

        One that is shorter or longer than what was sent is nobody's use, and would be
        in the way of the next attempt.

        Raises:
            UploadError: It is not there, or not all of it.
        """
        try:
            found = await self.head(wanted.key)
        except UploadError as exc:
            if exc.fault != StoreFault.DENIED:
                raise
            return
        if found is not None and found.size == wanted.size:
            return
        if found is not None and found.metadata.get(SHA256_NAME) == wanted.sha256:
            with contextlib.suppress(UploadError):
                await self.delete(wanted.key)
        raise UploadError(f"{wanted.key}: said to be stored, and is not there whole")

    async def _read_into_memory(self, load: Callable[[], Body]) -> Body:
        return await self._requests.do(load)


def _unambiguous(listed: list[Part]) -> list[Part]:
    """Leave out parts of which nobody can tell which one it is.

    There is a store that lists a part beside the one that it has replaced; to send
    it again is always right.
    """
    parts = dict.fromkeys(listed)
    times = Counter(part.number for part in parts)
    return [part for part in parts if times[part.number] == 1]


def _confirmed(stored: Confirmation, body: Body | None = None) -> str:
    """Take the store at its word, if it is one.

    Args:
        stored: Its answer.
        body: What it got.

    Returns:
        Its name for the content.

    Raises:
        KeyError: The answer is not that of a store.
        LostAnswerError: It got something else.
    """
    if body is not None and stored.get("ChecksumCRC32", body.crc32) != body.crc32:
        raise LostAnswerError("damaged on the way", fault=StoreFault.AWAY)
    return stored["ETag"]


def _completed(part: Part) -> CompletedPart:
    if part.crc32:
        return {
            "PartNumber": part.number,
            "ETag": part.etag,
            "ChecksumCRC32": part.crc32,
        }
    return {"PartNumber": part.number, "ETag": part.etag}
