"""What a store can do, whichever it is.

A store takes whole objects under keys that are paths. It promises three things:
an object is there whole or not at all; nothing is ever overwritten by `put`; and
to put the same content under the same key again changes nothing and succeeds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from audiohook.errors import UploadError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import AsyncGenerator

MIB: Final = 1024 * 1024

KEY_LIMIT_BYTES: Final = 1024
"""Longest key. Source: Amazon S3 User Guide, "Naming Amazon S3 objects"."""

READ_LIMIT_BYTES: Final = 64 * MIB
"""Largest object that can be read back: they are JSON and text, never audio."""

# The characters that the guide named above calls safe. A part that begins with a
# dot would be hidden, a temporary file of ours, or a way up.
_PART: Final = re.compile(r"(?!\.)[A-Za-z0-9!_.*'()-]+")


class StoreFault(StrEnum):
    """Kinds of failure, as `audiohook.errors.UploadError.fault` has them."""

    AWAY = "away"
    """It cannot be reached, or fails to do its work."""
    BUSY = "busy"
    """It asks for fewer requests."""
    DENIED = "denied"
    """The role or the user may not do that."""
    NO_BUCKET = "no_bucket"
    """There is no such bucket, or not in that region."""
    BAD_KEY_OR_SECRET = "bad_key_or_secret"  # noqa: S105 - names a fault
    """It does not know who we are."""
    CLOCK = "clock"
    """The clock of this machine is wrong."""
    ENCRYPTION = "encryption"
    """The key that is to encrypt the object cannot be used."""
    CERTIFICATE = "certificate"
    """Its certificate is not trusted."""
    OTHER = "other"
    """Anything else."""


def is_stores_own(error: UploadError) -> bool:
    """Tell whether any other object would have met the same failure."""
    return error.fault != StoreFault.OTHER


class Blob(Protocol):
    """Bytes of a known number that can be read anywhere, from worker threads."""

    @property
    def size_bytes(self) -> int:
        """How many there are."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` on, fewer only at the end."""


@dataclass(frozen=True, slots=True)
class BytesBlob:
    """A blob that is in memory.

    Attributes:
        data: All of it.
    """

    data: bytes

    @property
    def size_bytes(self) -> int:
        """How many bytes there are."""
        return len(self.data)

    def read_at(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` on, fewer only at the end."""
        return self.data[offset : offset + length]


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What the store has confirmed.

    Attributes:
        key: Where.
        size: Bytes.
        sha256: Checksum of what is stored, lower-case hexadecimal.
    """

    key: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an upload, as the store has confirmed it.

    Attributes:
        number: From 1 on; parts are put together in the order of their numbers.
        size: Bytes.
        etag: The store's name for its content.
        crc32: CRC-32 of its content, four bytes big-endian in base64; empty if
            the store does not tell, which not every store does in a list.
    """

    number: int
    size: int
    etag: str
    crc32: str


@dataclass(frozen=True, slots=True)
class Version:
    """An object as it was found, to be replaced only if it is still that.

    Attributes:
        data: Its content.
        tag: The store's name for this content.
        age: Seconds since it was written, by the store's own clock.
        metadata: Names in lower case, and values.
    """

    data: bytes
    tag: str
    age: float
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FoundObject:
    """What is under a key, without its content.

    Attributes:
        size: Bytes.
        metadata: Names in lower case, and values; none in a store that keeps none.
    """

    size: int
    metadata: Mapping[str, str] = field(default_factory=dict)


class Store(Protocol):
    """A folder or a bucket."""

    async def put(
        self, key: str, blob: Blob, *, metadata: Mapping[str, str], token: str
    ) -> StoredObject:
        """Store an object, unless the key is taken by something else.

        Args:
            key: Where, see `check_key`.
            blob: What.
            metadata: ASCII names and values to keep beside it, if the store can.
            token: The same for each attempt at the same object, so that a store
                whose answer was lost can tell its own object from another's.

        Raises:
            KeyExistsError: The key is taken by something else.
            UploadError: The store did not do as asked.
            SpoolError: The blob cannot be read.

        *Cancellation:* The object is there whole or not at all.
        """

    async def replace(
        self, key: str, blob: Blob, *, metadata: Mapping[str, str], token: str
    ) -> StoredObject:
        """Store an object in place of whatever is there; otherwise as `put`."""

    async def read(self, key: str) -> bytes | None:
        """Return a whole object, ``None`` if there is none.

        Raises:
            UploadError: The store did not do as asked, or the object is larger
                than `READ_LIMIT_BYTES`.
        """


@runtime_checkable
class ReadableStore(Store, Protocol):
    """A store of which objects of any size can be read."""

    async def size(self, key: str) -> int | None:
        """Return the length of an object in bytes, ``None`` if there is none.

        Raises:
            UploadError: The store did not do as asked.
        """

    async def read_range(self, key: str, offset: int, length: int) -> bytes:
        """Return a stretch of an object; fewer bytes only at its end.

        Args:
            key: Which object.
            offset: First byte.
            length: Number of bytes, at least one; all of them are in memory.

        Raises:
            UploadError: The store did not do as asked, or there is no such object.
        """


class DescribedStore(ReadableStore, Protocol):
    """A store that tells what is under a key."""

    async def head(self, key: str) -> FoundObject | None:
        """Say what is under a key, ``None`` if nothing is.

        Raises:
            UploadError: The store did not do as asked.
        """


@runtime_checkable
class SigningStore(Store, Protocol):
    """A store of which others can fetch an object, if we let them."""

    async def presign(self, key: str, seconds: int) -> str:
        """Sign an address from which anybody can fetch an object for a while.

        Args:
            key: Which object.
            seconds: How long, up to seven days; it may end earlier, together with
                the credentials that it is signed with.

        Raises:
            UploadError: There are no credentials.
        """


@runtime_checkable
class VersionedStore(Store, Protocol):
    """A store in which many can change an object, and none undoes another's change."""

    async def fetch(self, key: str) -> Version | None:
        """Return a small object with what is needed to replace it.

        Args:
            key: Which object.

        Returns:
            It; ``None`` if there is none.

        Raises:
            UploadError: The store did not do as asked, or the object is larger
                than `READ_LIMIT_BYTES`.
        """

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
            KeyExistsError: There is something else, or nothing.
            UploadError: The store did not do as asked; it may be there nonetheless.
        """


@runtime_checkable
class DeletingStore(Store, Protocol):
    """A store that deletes objects."""

    async def purge(self, key: str) -> None:
        """Delete an object with all its versions; no fault if there is none.

        Raises:
            UploadError: The store did not do as asked, or may not; the text says
                what keeps it.
        """


@runtime_checkable
class ListableStore(Store, Protocol):
    """A store of which one can ask what is there."""

    def list_names(self, prefix: str, *, after: str = "") -> AsyncGenerator[list[str]]:
        """List what lies directly below a prefix, and has something below itself.

        Args:
            prefix: With a slash at the end.
            after: Only names that come later than this one.

        Yields:
            Names, some at a time, so that no store is too large; in any order.

        Raises:
            UploadError: The store did not do as asked.
        """


@runtime_checkable
class MultipartStore(Store, Protocol):
    """A store that takes a large object in parts, in any order."""

    @property
    def min_part_bytes(self) -> int:
        """The least that a part may have, except for the last."""

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

    async def put_part(self, key: str, upload_id: str, number: int, blob: Blob) -> Part:
        """Store a part; one of the same number is replaced.

        Args:
            key: Where the object is to be.
            upload_id: What `begin` returned.
            number: From 1 to 10,000.
            blob: The part's bytes.

        Raises:
            UploadGoneError: There is no such upload.
            UploadError: The store did not do as asked.
            SpoolError: The blob cannot be read.
        """

    async def list_uploads(self, key: str) -> list[str]:
        """List the ids of the uploads to a key that are under way, whosever they are.

        Raises:
            UploadError: The store did not do as asked.
        """

    async def list_parts(self, key: str, upload_id: str) -> list[Part]:
        """List the parts that are stored, by their numbers.

        Raises:
            UploadGoneError: There is no such upload.
            UploadError: The store did not do as asked.
        """

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

        Args:
            key: Where the object is to be.
            upload_id: What `begin` returned.
            parts: By their numbers, as `put_part` returned them; without their
                checksums a store may refuse.
            size: Bytes of them all.
            sha256: Checksum of them all, which is handed through.
            token: What `begin` was given.

        Raises:
            KeyExistsError: The key is taken by something else.
            UploadGoneError: There is no such upload, or it cannot be completed.
            UploadError: The store did not do as asked.
        """

    async def abort(self, key: str, upload_id: str) -> None:
        """Give up an upload and its parts; no fault if there is none.

        Raises:
            UploadError: The store did not do as asked.
        """


def check_key(key: str) -> None:
    """Refuse a key that is not a plain relative path of safe characters.

    Raises:
        UploadError: It is not; trying again cannot help.
    """
    if len(key) > KEY_LIMIT_BYTES:
        raise UploadError(f"key of {len(key)} characters is too long", retryable=False)
    if not all(_PART.fullmatch(part) for part in key.split("/")):
        raise UploadError(
            f"key {key!r} is not letters, digits and !_.*'()- between single slashes",
            retryable=False,
        )
