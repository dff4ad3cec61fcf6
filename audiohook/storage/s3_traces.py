"""What there is of a call in a bucket: objects, versions, markers and uploads."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final, TypedDict, TypeVar, cast

import trio

from audiohook.errors import UploadError, UploadGoneError
from audiohook.storage.base import StoreFault, check_key
from audiohook.storage.s3_faults import NotFoundError
from audiohook.storage.s3_requests import read_small
from audiohook.storage.traces import Kept, Reason, Trace, TraceKind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from datetime import datetime
    from typing import NotRequired

    from typing_extensions import AsyncGenerator

    from audiohook.storage.s3_client import ObjectListing, S3Client
    from audiohook.storage.s3_requests import Requests

T = TypeVar("T")

SECONDS = 1.0

# Between tries of one request; whoever asked tries again later.
_PAUSES: Final = (0.2 * SECONDS, 1 * SECONDS)

# A version of an object from before the bucket had versions. Source: Amazon S3 User
# Guide, "Working with objects in a versioning-suspended bucket".
_NO_VERSION: Final = "null"


class _Version(TypedDict):
    Key: str
    VersionId: str
    Size: NotRequired[int]


class _Prefix(TypedDict):
    Prefix: str


class _Upload(TypedDict):
    Key: str
    UploadId: str


class VersionPage(TypedDict):
    """One page of ``ListObjectVersions``."""

    Versions: NotRequired[list[_Version]]
    DeleteMarkers: NotRequired[list[_Version]]
    CommonPrefixes: NotRequired[list[_Prefix]]
    IsTruncated: NotRequired[bool]
    NextKeyMarker: NotRequired[str]
    NextVersionIdMarker: NotRequired[str]


class UploadPage(TypedDict):
    """One page of ``ListMultipartUploads``."""

    Uploads: NotRequired[list[_Upload]]
    CommonPrefixes: NotRequired[list[_Prefix]]
    IsTruncated: NotRequired[bool]
    NextKeyMarker: NotRequired[str]
    NextUploadIdMarker: NotRequired[str]


class LockedHead(TypedDict):
    """What ``HeadObject`` says of locks, to those who may know."""

    ObjectLockRetainUntilDate: NotRequired[datetime]
    ObjectLockLegalHoldStatus: NotRequired[str]


class S3Traces:
    """A bucket as somebody sees it who has to remove all of a call.

    Args:
        bucket: Its name, or the ARN of an access point.
        requests: Makes requests.
        common: Parameters of all calls.
    """

    def __init__(
        self, bucket: str, requests: Requests, common: Mapping[str, str]
    ) -> None:
        self._bucket = bucket
        self._requests = requests
        self._common = common

    async def names(self, prefix: str) -> AsyncGenerator[list[str]]:
        """List the names of all recordings of which there is any trace.

        A page of 1,000 is one request, and all unfinished uploads are a few more.

        Raises:
            UploadError: The store did not do as asked; a role needs
                ``s3:ListBucketVersions`` for it.
        """
        where: dict[str, str] = {}
        while True:
            page = await self._version_page(prefix, where, delimiter="/")
            names = [
                each["Prefix"].removeprefix(prefix).removesuffix("/")
                for each in page.get("CommonPrefixes", [])
            ]
            if names:
                yield names
            where = _next(page, "NextVersionIdMarker", "VersionIdMarker")
            if not where:
                break
        where = {}
        while True:
            uploads = await self._upload_page(prefix, where, delimiter="/")
            # Not every store heeds the delimiter here.
            keys = [each["Key"] for each in uploads.get("Uploads", [])]
            keys += [each["Prefix"] for each in uploads.get("CommonPrefixes", [])]
            names = [each.removeprefix(prefix).partition("/")[0] for each in keys]
            if names:
                yield names
            where = _next(uploads, "NextUploadIdMarker", "UploadIdMarker")
            if not where:
                break

    async def beginning(self, start: str) -> AsyncGenerator[list[Trace]]:
        """List current objects and unfinished uploads whose keys begin so.

        Raises:
            UploadError: The store did not do as asked.
        """
        where: dict[str, str] = {}
        while True:

            def fetch(client: S3Client, where: dict[str, str] = where) -> ObjectListing:
                return client.list_objects_v2(
                    Bucket=self._bucket, Prefix=start, **where, **self._common
                )

            page = await self._make("ListObjectsV2", start, fetch)
            yield [
                Trace(TraceKind.OBJECT, each["Key"], "", each["Size"])
                for each in page.get("Contents", [])
            ]
            where = next_keys(page)
            if not where:
                break
        while True:
            uploads = await self._upload_page(start, where)
            yield [
                Trace(TraceKind.UPLOAD, each["Key"], each["UploadId"], 0)
                for each in uploads.get("Uploads", [])
                if each["Key"].startswith(start)
            ]
            where = _next(uploads, "NextUploadIdMarker", "UploadIdMarker")
            if not where:
                return

    async def below(self, folder: str) -> list[Trace]:
        """List all traces below a folder.

        Raises:
            UploadError: The store did not do as asked.
        """
        check_key(folder)
        return await self._list(f"{folder}/")

    async def of(self, key: str) -> list[Trace]:
        """List all traces of one object.

        Raises:
            UploadError: The store did not do as asked.
        """
        check_key(key)
        return [each for each in await self._list(key) if each.key == key]

    async def _list(self, prefix: str) -> list[Trace]:
        found: list[Trace] = []
        where: dict[str, str] = {}
        while True:
            page = await self._version_page(prefix, where)
            found += [
                Trace(TraceKind.OBJECT, each["Key"], each["VersionId"], each["Size"])
                for each in page.get("Versions", [])
            ]
            found += [
                Trace(TraceKind.MARKER, each["Key"], each["VersionId"], 0)
                for each in page.get("DeleteMarkers", [])
            ]
            where = _next(page, "NextVersionIdMarker", "VersionIdMarker")
            if not where:
                break
        while True:
            uploads = await self._upload_page(prefix, where)
            found += [
                Trace(TraceKind.UPLOAD, each["Key"], each["UploadId"], 0)
                for each in uploads.get("Uploads", [])
                if each["Key"].startswith(prefix)
            ]
            where = _next(uploads, "NextUploadIdMarker", "UploadIdMarker")
            if not where:
                return found

    async def content(self, trace: Trace) -> bytes | None:
        """Return a small object, or a version of one; ``None`` if it is gone.

        Raises:
            UploadError: The store did not do as asked, or it is too large.
        """

        def fetch(client: S3Client) -> bytes:
            found = client.get_object(
                Bucket=self._bucket,
                Key=trace.key,
                **_which(trace),
                **self._common,
            )
            return read_small(found, trace.key)

        try:
            return await self._make("GetObject", trace.key, fetch)
        except NotFoundError:
            return None

    async def notes(self, trace: Trace) -> dict[str, str]:
        """Return what is kept beside an object; nothing if it is gone.

        Raises:
            UploadError: The store did not do as asked.
        """

        def look(client: S3Client) -> dict[str, str]:
            head = client.head_object(
                Bucket=self._bucket, Key=trace.key, **_which(trace), **self._common
            )
            return {name.lower(): text for name, text in head["Metadata"].items()}

        try:
            return await self._make("HeadObject", trace.key, look)
        except NotFoundError:
            return {}

    async def remove(self, trace: Trace) -> Kept | None:
        """Remove a trace for ever; no fault if it is gone.

        Returns:
            Why it is still there, if nobody can change that for now.

        Raises:
            UploadError: The store did not do as asked; try again later.
        """
        operation, work = self._removal(trace)
        try:
            await self._make(operation, trace.key, work)
        except (NotFoundError, UploadGoneError):
            return None
        except UploadError as error:
            if error.fault != StoreFault.DENIED:
                raise
            return await self._why_kept(trace)
        return None

    async def hide(self, key: str) -> None:
        """Have nobody find an object any more that cannot be removed yet.

        Raises:
            UploadError: The store did not do as asked.
        """

        def hide(client: S3Client) -> None:
            client.delete_object(Bucket=self._bucket, Key=key, **self._common)

        await self._make("DeleteObject", key, hide)

    async def tidy(self, folder: str, keys: Collection[str]) -> None:
        """Have a store forget the names of folders, if it has any.

        A bucket has no folders; but some stores keep files in ones, and leave them.
        Of nothing Amazon deletes no version, and makes no marker.

        Raises:
            UploadError: The store did not do as asked.
        """
        parents = {str(each) for key in keys for each in PurePosixPath(key).parents}
        inner = {each for each in parents if each.startswith(f"{folder}/")}
        for each in (*sorted(inner, key=len, reverse=True), folder):
            trace = Trace(TraceKind.OBJECT, f"{each}/", _NO_VERSION, 0)
            operation, work = self._removal(trace)
            try:
                await self._make(operation, trace.key, work)
            except UploadError as error:
                if error.retryable:
                    raise

    async def _make(self, operation: str, key: str, work: Callable[[S3Client], T]) -> T:
        """Make a request, and make it again: all of these can be repeated."""
        for pause in _PAUSES:
            try:
                return await self._requests.make(operation, key, work)
            except UploadError as error:
                if not error.retryable or isinstance(error, UploadGoneError):
                    raise
            await trio.sleep(pause)
        return await self._requests.make(operation, key, work)

    def _removal(self, trace: Trace) -> tuple[str, Callable[[S3Client], None]]:
        def abort(client: S3Client) -> None:
            client.abort_multipart_upload(
                Bucket=self._bucket,
                Key=trace.key,
                UploadId=trace.version,
                **self._common,
            )

        def delete(client: S3Client) -> None:
            client.delete_object(
                Bucket=self._bucket, Key=trace.key, **_which(trace), **self._common
            )

        if trace.kind is TraceKind.UPLOAD:
            return "AbortMultipartUpload", abort
        return "DeleteObject", delete

    async def _why_kept(self, trace: Trace) -> Kept:
        """Ask whether it is a lock; a role that may not know is told "denied"."""
        if trace.kind is not TraceKind.OBJECT:
            return Kept(trace, Reason.DENIED)

        def look(client: S3Client) -> LockedHead:
            head = client.head_object(
                Bucket=self._bucket, Key=trace.key, **_which(trace), **self._common
            )
            return cast("LockedHead", head)

        try:
            head = await self._make("HeadObject", trace.key, look)
        except UploadError:
            return Kept(trace, Reason.DENIED)
        if head.get("ObjectLockLegalHoldStatus") == "ON":
            return Kept(trace, Reason.HELD)
        until = head.get("ObjectLockRetainUntilDate")
        if until is not None:
            return Kept(trace, Reason.LOCKED, until.astimezone().isoformat())
        return Kept(trace, Reason.DENIED)

    async def _version_page(
        self, prefix: str, where: Mapping[str, str], *, delimiter: str = ""
    ) -> VersionPage:
        more = {"Delimiter": delimiter} if delimiter else {}

        def fetch(client: S3Client) -> VersionPage:
            return client.list_object_versions(
                Bucket=self._bucket, Prefix=prefix, **more, **where, **self._common
            )

        return await self._make("ListObjectVersions", prefix, fetch)

    async def _upload_page(
        self, prefix: str, where: Mapping[str, str], *, delimiter: str = ""
    ) -> UploadPage:
        more = {"Delimiter": delimiter} if delimiter else {}

        def fetch(client: S3Client) -> UploadPage:
            page = client.list_multipart_uploads(
                Bucket=self._bucket, Prefix=prefix, **more, **where, **self._common
            )
            return cast("UploadPage", page)

        return await self._make("ListMultipartUploads", prefix, fetch)


def _which(trace: Trace) -> dict[str, str]:
    return {"VersionId": trace.version or _NO_VERSION}


def next_keys(page: ObjectListing) -> dict[str, str]:
    """Return where the next page of a list of keys begins; nothing after the last.

    Raises:
        UploadError: There is one, and the store does not say where it begins.
    """
    if not page.get("IsTruncated"):
        return {}
    return {"ContinuationToken": _said(page.get("NextContinuationToken"))}


def _said(marker: str | None) -> str:
    if marker is None:
        # To take that for the end would leave things behind.
        raise UploadError("the store does not say where its list goes on")
    return marker


def _next(page: VersionPage | UploadPage, found: str, wanted: str) -> dict[str, str]:
    """Return where the next page begins; nothing after the last."""
    if not page.get("IsTruncated"):
        return {}
    where = {"KeyMarker": _said(page.get("NextKeyMarker"))}
    second = page.get(found)
    if isinstance(second, str) and second:
        where[wanted] = second
    return where
