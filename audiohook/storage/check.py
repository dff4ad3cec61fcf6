"""Tries everything that a bucket has to do, for real."""

from __future__ import annotations

import hashlib
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

import httpx

from audiohook.errors import KeyExistsError, UploadError
from audiohook.hosts import is_private
from audiohook.storage.base import BytesBlob, MultipartStore
from audiohook.storage.policy import CHECK_NAME
from audiohook.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

SECONDS = 1

_SIGNATURE_LIFE: Final = 60 * SECONDS
_FETCHED: Final = httpx.codes.OK


class BucketStore(MultipartStore, Protocol):
    """A store that also deletes, and signs addresses."""

    async def delete(self, key: str) -> None:
        """Delete an object; no fault if there is none."""

    async def purge(self, key: str) -> None:
        """Delete an object with all its versions; no fault if there is none."""

    async def presign(self, key: str, seconds: int) -> str:
        """Sign an address from which the object can be fetched for a while."""


async def check_store(
    store: BucketStore,
    prefix: str,
    *,
    http: httpx.AsyncClient,
    purges: bool = False,
) -> AsyncIterator[Verdict]:
    """Try a bucket, one thing after the other, with small objects of its own.

    If nothing can be written, the rest is not tried.

    Args:
        store: The bucket.
        prefix: What the keys begin with.
        http: Fetches by the signed address.
        purges: Whether audio has to be deleted with all its versions.

    Yields:
        A verdict on each thing, as it is tried.

    *Cancellation:* Small objects may be left, whose names begin with `CHECK_NAME`.
    """
    trial = _Trial(store, f"{prefix}{CHECK_NAME}{secrets.token_hex(8)}", http)
    first = await trial.verdict("write an object", trial.write)
    yield first
    if not first.ok:
        return
    for what, attempt in (
        ("read it back", trial.read_back),
        ("be told of one that is not there", trial.miss),
        ("leave it alone when another is written (If-None-Match)", trial.protect),
        ("upload an object in parts", trial.upload_in_parts),
        ("list uploads that nobody has finished", trial.list_uploads),
        ("fetch it by a signed address", trial.fetch),
        *([("delete an object with all its versions", trial.purge)] * purges),
        ("delete both", trial.delete),
    ):
        yield await trial.verdict(what, attempt)


async def check_prefix(
    store: BucketStore, prefix: str, *, http: httpx.AsyncClient, purges: bool
) -> Verdict:
    """Try whether objects can be written below one more prefix of a bucket.

    Args:
        store: The bucket.
        prefix: What the keys begin with.
        http: As for `check_store`.
        purges: Whether audio has to be deleted with all its versions.
    """
    trial = _Trial(store, f"{prefix}{CHECK_NAME}{secrets.token_hex(8)}", http)
    verdict = await trial.verdict("write an object", trial.write)
    if not verdict.ok:
        return verdict
    if purges:
        what = "delete an object with all its versions"
        verdict = await trial.verdict(what, trial.purge)
    rest = await trial.verdict("write and delete an object", trial.delete)
    return rest if verdict.ok else verdict


class _FailedTrial(Exception):
    """Says what to do about it; an advice if it works all the same."""

    def __init__(self, mend: str, *, advice: bool = False) -> None:
        super().__init__(mend)
        self.advice = advice


class _Trial:
    def __init__(self, store: BucketStore, key: str, http: httpx.AsyncClient) -> None:
        self._store = store
        self._key = f"{key}.txt"
        self._parts_key = f"{key}-parts.txt"
        self._http = http
        self._token = secrets.token_hex(8)
        self._data = f"audiohook check {self._token}\n".encode()

    async def verdict(
        self, what: str, attempt: Callable[[], Awaitable[None]]
    ) -> Verdict:
        try:
            await attempt()
        except UploadError as error:
            return Verdict(ok=False, what=what, mend=str(error))
        except _FailedTrial as trial:
            return Verdict(ok=trial.advice, what=what, mend=str(trial))
        return Verdict(ok=True, what=what)

    async def write(self) -> None:
        await self._put(self._data, self._token)

    async def read_back(self) -> None:
        if await self._store.read(self._key) != self._data:
            raise _FailedTrial("the store gives back something else: use another")

    async def miss(self) -> None:
        try:
            found = await self._store.read(f"{self._key}.none")
        except UploadError as error:
            raise _FailedTrial(
                f"{error}; of an object that is not there S3 says so only to those"
                " who may list the bucket (s3:ListBucket)"
            ) from error
        if found is not None:
            raise _FailedTrial("the store finds what is not there: use another")

    async def protect(self) -> None:
        try:
            await self._put(b"another\n", "another")
        except KeyExistsError:
            return
        await self._store.replace(
            self._key, BytesBlob(self._data), metadata={}, token=self._token
        )
        raise _FailedTrial(
            "the store overwrites in spite of If-None-Match: let no other program"
            " write below this prefix, or use a store that heeds it",
            advice=True,
        )

    async def upload_in_parts(self) -> None:
        key = self._parts_key
        upload_id = await self._store.begin(key, metadata={}, token=self._token)
        try:
            await self._make_of_parts(key, upload_id)
        except (UploadError, _FailedTrial):
            with suppress(UploadError):
                await self._store.abort(key, upload_id)
            raise
        # It is gone by now, but this tells whether uploads may be given up.
        await self._store.abort(key, upload_id)

    async def _make_of_parts(self, key: str, upload_id: str) -> None:
        part = await self._store.put_part(key, upload_id, 1, BytesBlob(self._data))
        listed = await self._store.list_parts(key, upload_id)
        if [(each.number, each.size) for each in listed] != [(1, part.size)]:
            raise _FailedTrial("the store does not list the parts it has: use another")
        await self._store.complete(
            key,
            upload_id,
            [part],
            size=len(self._data),
            sha256=hashlib.sha256(self._data).hexdigest(),
            token=self._token,
        )

    async def list_uploads(self) -> None:
        try:
            await self._store.list_uploads(self._parts_key)
        except UploadError as error:
            raise _FailedTrial(
                f"{error}; without it, uploads that were begun as the service was"
                " killed wait for the bucket's lifecycle rule",
                advice=True,
            ) from error

    async def fetch(self) -> None:
        url = await self._store.presign(self._key, _SIGNATURE_LIFE)
        host = urlsplit(url).hostname or ""
        try:
            response = await self._http.get(url)
        except httpx.HTTPError as error:
            raise _FailedTrial(
                f"{host} cannot be reached that way ({type(error).__name__}), so"
                " AssemblyAI cannot either: check its name and its certificate"
            ) from error
        if response.is_server_error:
            raise _FailedTrial(
                f"{host} answers {response.status_code}, a failure of its own: try it"
                " again; AssemblyAI fetches recordings this way"
            )
        if response.status_code != _FETCHED:
            raise _FailedTrial(
                f"{host} answers {response.status_code}: set AWS_REGION to the"
                " bucket's region, and allow s3:GetObject without regard to the"
                " network, since AssemblyAI fetches recordings this way"
            )
        if response.content != self._data:
            raise _FailedTrial(f"{host} gives something else: is it the store?")
        if is_private(host):
            raise _FailedTrial(
                f"{host} is not to be reached from elsewhere, so AssemblyAI cannot"
                " fetch recordings from it",
                advice=True,
            )

    async def purge(self) -> None:
        key = f"{self._key}.versions"
        for text in (b"first\n", b"second\n"):
            await self._store.replace(
                key, BytesBlob(text), metadata={}, token=self._token
            )
        try:
            await self._store.purge(key)
        except UploadError as error:
            with suppress(UploadError):
                await self._store.delete(key)
            raise _FailedTrial(
                f"{error}; calls of which only the transcript is to be kept need"
                " s3:DeleteObject, s3:DeleteObjectVersion and s3:ListBucketVersions,"
                " and stay on the local disk until that is allowed"
            ) from error
        if await self._store.read(key) is not None:
            raise _FailedTrial("the store does not delete: use another")

    async def delete(self) -> None:
        try:
            await self._store.delete(self._key)
            await self._store.delete(self._parts_key)
        except UploadError as error:
            # Nothing else is ever deleted.
            raise _FailedTrial(
                f"{error}; delete {self._key} and {self._parts_key} by hand",
                advice=True,
            ) from error

    async def _put(self, data: bytes, token: str) -> None:
        await self._store.put(self._key, BytesBlob(data), metadata={}, token=token)
