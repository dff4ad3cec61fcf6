"""Several buckets as one store.

A key may say in which bucket it is (`audiohook.storage.layout.in_bucket`); what does
not is in the bucket of the service. So whoever keeps a key, in a journal, in the
index, or in hand, need not keep the bucket beside it.
"""

from __future__ import annotations

import dataclasses
from contextlib import aclosing
from typing import TYPE_CHECKING

from audiohook.storage.layout import in_bucket, split_bucket
from audiohook.storage.s3 import S3Store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import AsyncGenerator

    from audiohook.storage.base import (
        Blob,
        FoundObject,
        Part,
        StoredObject,
        Version,
    )
    from audiohook.storage.s3_client import S3Options


class S3Buckets(S3Store):
    """Objects in a bucket, and in others that keys name.

    Each bucket has connections of its own, so that one that hangs holds up no other.

    Args:
        bucket: That of keys which name none.
        options: What all buckets may ask for.
        parallel: Most requests to one bucket at a time.
    """

    def __init__(
        self, bucket: str, *, options: S3Options | None = None, parallel: int = 8
    ) -> None:
        super().__init__(bucket, options=options, parallel=parallel)
        self._parallel = parallel
        self._others: dict[str, S3Store] = {}

    def _place(self, key: str) -> tuple[S3Store | None, str]:
        """Return the store of another bucket and the key there; None if it is ours."""
        bucket, plain = split_bucket(key)
        if bucket is None:
            return None, key
        if bucket not in self._others:
            # There are no more of them than keys have.
            self._others[bucket] = S3Store(
                bucket, options=self._options, parallel=self._parallel
            )
        return self._others[bucket], plain

    def store_of(self, bucket: str | None) -> S3Store:
        """Return the store of one of the buckets; its keys name none.

        Args:
            bucket: Which; None for that of the service.
        """
        if bucket is None or bucket == self._bucket:
            return self
        other, _ = self._place(in_bucket(bucket, ""))
        return self if other is None else other

    async def put(
        self, key: str, blob: Blob, *, metadata: Mapping[str, str], token: str
    ) -> StoredObject:
        """Store an object, see `S3Store.put`."""
        other, plain = self._place(key)
        if other is None:
            return await super().put(key, blob, metadata=metadata, token=token)
        stored = await other.put(plain, blob, metadata=metadata, token=token)
        return dataclasses.replace(stored, key=key)

    async def replace(
        self, key: str, blob: Blob, *, metadata: Mapping[str, str], token: str
    ) -> StoredObject:
        """Store an object in place of whatever is there, see `S3Store.replace`."""
        other, plain = self._place(key)
        if other is None:
            return await super().replace(key, blob, metadata=metadata, token=token)
        stored = await other.replace(plain, blob, metadata=metadata, token=token)
        return dataclasses.replace(stored, key=key)

    async def read(self, key: str) -> bytes | None:
        """Return a whole object, see `S3Store.read`."""
        other, plain = self._place(key)
        return await (super().read(key) if other is None else other.read(plain))

    async def read_range(self, key: str, offset: int, length: int) -> bytes:
        """Return a stretch of an object, see `S3Store.read_range`."""
        other, plain = self._place(key)
        if other is None:
            return await super().read_range(key, offset, length)
        return await other.read_range(plain, offset, length)

    async def fetch(self, key: str) -> Version | None:
        """Return a small object with its version, see `S3Store.fetch`."""
        other, plain = self._place(key)
        return await (super().fetch(key) if other is None else other.fetch(plain))

    async def swap(
        self, key: str, data: bytes, tag: str | None, *, metadata: Mapping[str, str]
    ) -> str:
        """Store an object in place of a certain one, see `S3Store.swap`."""
        other, plain = self._place(key)
        if other is None:
            return await super().swap(key, data, tag, metadata=metadata)
        return await other.swap(plain, data, tag, metadata=metadata)

    async def list_names(
        self, prefix: str, *, after: str = ""
    ) -> AsyncGenerator[list[str]]:
        """List what lies directly below a prefix, see `S3Store.list_names`."""
        other, plain = self._place(prefix)
        found = (
            super().list_names(plain, after=after)
            if other is None
            else other.list_names(plain, after=after)
        )
        async with aclosing(found) as pages:
            async for names in pages:
                yield names

    async def head(self, key: str) -> FoundObject | None:
        """Say what is under a key, see `S3Store.head`."""
        other, plain = self._place(key)
        return await (super().head(key) if other is None else other.head(plain))

    async def delete(self, key: str) -> None:
        """Delete an object, see `S3Store.delete`."""
        other, plain = self._place(key)
        await (super().delete(key) if other is None else other.delete(plain))

    async def purge(self, key: str) -> None:
        """Delete an object with all its versions, see `S3Store.purge`."""
        other, plain = self._place(key)
        await (super().purge(key) if other is None else other.purge(plain))

    async def presign(self, key: str, seconds: int) -> str:
        """Sign an address, see `S3Store.presign`."""
        other, plain = self._place(key)
        if other is None:
            return await super().presign(key, seconds)
        return await other.presign(plain, seconds)

    async def begin(self, key: str, *, metadata: Mapping[str, str], token: str) -> str:
        """Begin an upload, see `S3Store.begin`."""
        other, plain = self._place(key)
        if other is None:
            return await super().begin(key, metadata=metadata, token=token)
        return await other.begin(plain, metadata=metadata, token=token)

    async def put_part(self, key: str, upload_id: str, number: int, blob: Blob) -> Part:
        """Store a part, see `S3Store.put_part`."""
        other, plain = self._place(key)
        if other is None:
            return await super().put_part(key, upload_id, number, blob)
        return await other.put_part(plain, upload_id, number, blob)

    async def list_uploads(self, key: str) -> list[str]:
        """List uploads under way, see `S3Store.list_uploads`."""
        other, plain = self._place(key)
        if other is None:
            return await super().list_uploads(key)
        return await other.list_uploads(plain)

    async def list_parts(self, key: str, upload_id: str) -> list[Part]:
        """List parts, see `S3Store.list_parts`."""
        other, plain = self._place(key)
        if other is None:
            return await super().list_parts(key, upload_id)
        return await other.list_parts(plain, upload_id)

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
        """Make an object of parts, see `S3Store.complete`."""
        other, plain = self._place(key)
        if other is None:
            return await super().complete(
                key, upload_id, parts, size=size, sha256=sha256, token=token
            )
        stored = await other.complete(
            plain, upload_id, parts, size=size, sha256=sha256, token=token
        )
        return dataclasses.replace(stored, key=key)

    async def abort(self, key: str, upload_id: str) -> None:
        """Give up an upload, see `S3Store.abort`."""
        other, plain = self._place(key)
        if other is None:
            await super().abort(key, upload_id)
        else:
            await other.abort(plain, upload_id)

    def close(self) -> None:
        """Close idle connections to all buckets."""
        super().close()
        for other in self._others.values():
            other.close()
