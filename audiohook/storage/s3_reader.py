"""A bucket as somebody sees it who changes nothing in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from audiohook.storage.base import FoundObject, Version, check_key
from audiohook.storage.s3_client import S3Options, age_of
from audiohook.storage.s3_faults import NotFoundError
from audiohook.storage.s3_requests import Requests, read_body, read_small
from audiohook.storage.s3_traces import S3Traces, next_keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import AsyncGenerator

    from audiohook.storage.s3_client import ObjectListing, S3Client

T = TypeVar("T")

SECONDS = 1.0
MINUTES = 60 * SECONDS

_LONGEST_SIGNATURE: Final = 7 * 24 * 60 * MINUTES


class S3Reader:
    """Objects in a bucket, to be read.

    Everything about the account comes from AWS's standard settings: environment,
    profile, role, ``AWS_ENDPOINT_URL_S3``. Credentials that expire are renewed;
    those that were refused are looked for again after a minute.

    Args:
        bucket: Its name, or the ARN of an access point.
        options: What the bucket may ask for.
        parallel: Most requests at a time.
    """

    def __init__(
        self, bucket: str, *, options: S3Options | None = None, parallel: int = 8
    ) -> None:
        self._bucket = bucket
        self._options = options or S3Options()
        self._common = self._options.for_every_call()
        self._requests = Requests(bucket, self._options, parallel)

    @property
    def traces(self) -> S3Traces:
        """All that there is in the bucket, for whoever has to remove it."""
        return S3Traces(self._bucket, self._requests, self._common)

    async def read(self, key: str) -> bytes | None:
        """Return a whole object, ``None`` if there is none.

        Raises:
            UploadError: The store did not do as asked, or the object is larger
                than `READ_LIMIT_BYTES`.
        """
        check_key(key)

        def fetch(client: S3Client) -> bytes:
            found = client.get_object(Bucket=self._bucket, Key=key, **self._common)
            return read_small(found, key)

        try:
            return await self._call("GetObject", key, fetch)
        except NotFoundError:
            return None

    async def size(self, key: str) -> int | None:
        """Return the length of an object in bytes, ``None`` if there is none.

        Raises:
            UploadError: As for `head`.
        """
        found = await self.head(key)
        return None if found is None else found.size

    async def read_range(self, key: str, offset: int, length: int) -> bytes:
        """Return a stretch of an object; fewer bytes only at its end.

        Args:
            key: Which object.
            offset: First byte; there must be one there.
            length: Number of bytes, at least one; all of them are in memory.

        Raises:
            UploadError: The store did not do as asked, or there is no such object.
        """
        check_key(key)

        def fetch(client: S3Client) -> bytes:
            found = client.get_object(
                Bucket=self._bucket,
                Key=key,
                Range=f"bytes={offset}-{offset + length - 1}",
                **self._common,
            )
            return read_body(found, length)

        return await self._call("GetObject", key, fetch)

    async def fetch(self, key: str) -> Version | None:
        """Return a small object with what is needed to replace it.

        Args:
            key: Which object.

        Returns:
            It; ``None`` if there is none. Its age is by the store's clock, so that
            machines whose clocks differ agree on it.

        Raises:
            UploadError: The store did not do as asked, or the object is larger
                than `READ_LIMIT_BYTES`.
        """
        check_key(key)

        def fetch(client: S3Client) -> Version:
            found = client.get_object(Bucket=self._bucket, Key=key, **self._common)
            data = read_small(found, key)
            metadata = {name.lower(): text for name, text in found["Metadata"].items()}
            return Version(data, found["ETag"], age_of(found), metadata)

        try:
            return await self._call("GetObject", key, fetch)
        except NotFoundError:
            return None

    async def list_names(
        self, prefix: str, *, after: str = ""
    ) -> AsyncGenerator[list[str]]:
        """List what lies directly below a prefix, a page of 1,000 at a time.

        Args:
            prefix: With a slash at the end.
            after: Only names that come later than this one.

        Raises:
            UploadError: The store did not do as asked. A role may not be allowed
                to list the bucket.
        """
        check_key(prefix.removesuffix("/"))
        where: dict[str, str] = {"StartAfter": f"{prefix}{after}"} if after else {}
        while True:

            def fetch(client: S3Client, where: dict[str, str] = where) -> ObjectListing:
                return client.list_objects_v2(
                    Bucket=self._bucket,
                    Prefix=prefix,
                    Delimiter="/",
                    **where,
                    **self._common,
                )

            page = await self._call("ListObjectsV2", prefix, fetch)
            found = [
                each["Prefix"].removeprefix(prefix).removesuffix("/")
                for each in page.get("CommonPrefixes", [])
            ]
            names = [each for each in found if each > after]
            if names:
                yield names
            where = next_keys(page)
            if not where:
                return

    async def head(self, key: str) -> FoundObject | None:
        """Say what is under a key, ``None`` if nothing is.

        Raises:
            UploadError: The store did not do as asked. A role that may not list the
                bucket is denied to know that nothing is there.
        """
        check_key(key)

        def look(client: S3Client) -> FoundObject:
            head = client.head_object(Bucket=self._bucket, Key=key, **self._common)
            metadata = {name.lower(): text for name, text in head["Metadata"].items()}
            return FoundObject(head["ContentLength"], metadata)

        try:
            return await self._call("HeadObject", key, look)
        except NotFoundError:
            return None

    async def presign(self, key: str, seconds: int) -> str:
        """Sign an address from which anybody can fetch an object for a while.

        Nothing is sent, and nobody asks whether there is such an object. If our
        own credentials are temporary, it dies with them.

        Args:
            key: Which object.
            seconds: How long, up to seven days.

        Returns:
            The address, signed with version 4.

        Raises:
            ValueError: That is too short or too long.
            UploadError: There are no credentials.
        """
        check_key(key)
        if not 1 <= seconds <= _LONGEST_SIGNATURE:
            raise ValueError(f"{seconds} s is not between a second and seven days")

        def sign(client: S3Client) -> str:
            what = {"Bucket": self._bucket, "Key": key}
            return client.generate_presigned_url(
                "get_object", Params=what, ExpiresIn=seconds
            )

        return await self._call("GetObject", key, sign)

    def close(self) -> None:
        """Close idle connections; the store can be used again."""
        self._requests.close()

    async def _call(self, operation: str, key: str, work: Callable[[S3Client], T]) -> T:
        return await self._requests.make(operation, key, work)
