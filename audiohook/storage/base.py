"""What a store can do, whichever it is.

A store takes whole objects under keys that are paths. It promises three things:
an object is there whole or not at all; nothing is ever overwritten by `put`; and
to put the same content under the same key again changes nothing and succeeds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from audiohook.errors import UploadError

if TYPE_CHECKING:
    from collections.abc import Mapping

MIB: Final = 1024 * 1024

KEY_LIMIT_BYTES: Final = 1024
"""Longest key. Source: Amazon S3 User Guide, "Naming Amazon S3 objects"."""

READ_LIMIT_BYTES: Final = 64 * MIB
"""Largest object that can be read back: they are JSON and text, never audio."""

# The characters that the guide named above calls safe. A part that begins with a
# dot would be hidden, a temporary file of ours, or a way up.
_PART: Final = re.compile(r"(?!\.)[A-Za-z0-9!_.*'()-]+")


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
