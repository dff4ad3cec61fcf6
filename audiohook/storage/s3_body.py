"""What one request carries: a piece of a blob in memory, and its checksum."""

from __future__ import annotations

import base64
import io
import zlib
from typing import TYPE_CHECKING, Final, Protocol

import trio

from audiohook.errors import UploadError
from audiohook.storage.base import MIB

if TYPE_CHECKING:
    from audiohook.storage.base import Blob

_CHUNK_BYTES: Final = MIB


class Digest(Protocol):
    """A checksum being computed, as `hashlib` has them."""

    def update(self, data: bytes, /) -> None:
        """Take more bytes in."""

    def hexdigest(self) -> str:
        """Return the checksum of all so far."""


class Body:
    """Bytes to be sent, in the chunks in which they came; boto3 takes it for a file.

    To join the chunks first would take memory twice, and a tenth of all time that
    is spent on an upload.

    Args:
        chunks: Of `_CHUNK_BYTES` each, but for the last.
        crc32: CRC-32 of them all.
    """

    def __init__(self, chunks: list[bytes], crc32: int) -> None:
        self._chunks = chunks
        self._position = 0
        self.size = sum(map(len, chunks))
        self.crc32 = base64.b64encode(crc32.to_bytes(4, "big")).decode()

    def read(self, amt: int = -1) -> bytes | memoryview:
        """Read up to `amt` bytes, or to the end of a chunk; none at the end."""
        index, offset = divmod(self._position, _CHUNK_BYTES)
        if index >= len(self._chunks):
            return b""
        end = None if amt < 0 else offset + amt
        piece = memoryview(self._chunks[index])[offset:end]
        self._position += len(piece)
        return piece

    def tell(self) -> int:
        """Say where the next byte is read."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go elsewhere."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}
        self._position = start[whence] + offset
        return self._position


def load(
    blob: Blob, offset: int, length: int, *, key: str, digest: Digest | None = None
) -> Body:
    """Read a piece of a blob into memory.

    Blocks; call it from a worker thread. It ends early if its task is cancelled.

    Args:
        blob: What.
        offset: Where the piece begins.
        length: Its bytes.
        key: Whose it is, for the error's text.
        digest: Gets all of it, on the way.

    Raises:
        UploadError: The blob ends before.
        SpoolError: The blob cannot be read.
    """
    chunks: list[bytes] = []
    crc32 = 0
    for start in range(offset, offset + length, _CHUNK_BYTES):
        trio.from_thread.check_cancelled()
        wanted = min(_CHUNK_BYTES, offset + length - start)
        chunk = blob.read_at(start, wanted)
        if len(chunk) != wanted:
            raise UploadError(
                f"{key}: ends at {start + len(chunk)} of {blob.size_bytes} bytes"
            )
        crc32 = zlib.crc32(chunk, crc32)
        if digest is not None:
            digest.update(chunk)
        chunks.append(chunk)
    return Body(chunks, crc32)
