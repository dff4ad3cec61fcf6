"""How an object is cut into parts, and how their bytes are held against it.

Nothing here knows a store. Where a part begins and ends follows from its number
and the size of the first alone, so that any process finds the same bounds.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from audiohook.errors import SpoolError
from audiohook.storage.base import MIB

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from audiohook.storage.base import Blob

# Parts of one size; those after are twice as large. A store takes 10,000 parts:
# from 5 MiB on they hold 5 TB, five years of a call.
_EQUAL_PARTS: Final = 1000

_CHUNK_BYTES: Final = MIB


@dataclass(frozen=True, slots=True)
class Span:
    """Where a part lies in its object.

    Attributes:
        number: From 1 on.
        offset: Its first byte.
        size: Bytes.
    """

    number: int
    offset: int
    size: int

    @property
    def end(self) -> int:
        """Where the next part begins."""
        return self.offset + self.size


def full_span(number: int, part_bytes: int) -> Span:
    """Tell where a part lies that is not the last.

    Args:
        number: From 1 on.
        part_bytes: Size of the first part.
    """
    doublings, index = divmod(number - 1, _EQUAL_PARTS)
    before = _EQUAL_PARTS * part_bytes * (2**doublings - 1)
    size = part_bytes * 2**doublings
    return Span(number, before + index * size, size)


def all_spans(size_bytes: int, part_bytes: int) -> list[Span]:
    """Cut an object into parts; only the last may be smaller than its like.

    Args:
        size_bytes: Length of the object; 0 gives no parts.
        part_bytes: Size of the first part.
    """
    spans: list[Span] = []
    offset = 0
    while offset < size_bytes:
        span = full_span(len(spans) + 1, part_bytes)
        size = min(span.size, size_bytes - offset)
        spans.append(Span(span.number, offset, size))
        offset += size
    return spans


class Slice:
    """A part's bytes, as a blob.

    Args:
        blob: The object.
        span: Which part.
    """

    def __init__(self, blob: Blob, span: Span) -> None:
        self._blob = blob
        self._span = span

    @property
    def size_bytes(self) -> int:
        """How many bytes there are."""
        return self._span.size

    def read_at(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` on, fewer only at the end."""
        wanted = max(0, min(length, self._span.size - offset))
        return self._blob.read_at(self._span.offset + offset, wanted)


@dataclass(frozen=True, slots=True)
class Survey:
    """What one reading of a whole object gave.

    Attributes:
        sha256: Its checksum, lower-case hexadecimal.
        wrong: Numbers of the parts whose bytes are not those of the object.
    """

    sha256: str
    wrong: frozenset[int]


def survey(blob: Blob, spans: Iterable[Span], crc32s: Mapping[int, str]) -> Survey:
    """Read an object once, and hold parts that are stored against it.

    Blocks; call it from a worker thread. It ends early if its task is cancelled.

    Args:
        blob: The object.
        spans: All its parts, in order.
        crc32s: By number, CRC-32 of what is stored: four bytes big-endian in base64.

    Raises:
        SpoolError: It cannot be read to its end.
    """
    digest = hashlib.sha256()
    wrong = set()
    for span in spans:
        known = crc32s.get(span.number)
        crc32 = 0
        for offset in range(span.offset, span.end, _CHUNK_BYTES):
            trio.from_thread.check_cancelled()
            length = min(_CHUNK_BYTES, span.end - offset)
            chunk = blob.read_at(offset, length)
            if len(chunk) != length:
                raise SpoolError(
                    f"it ends at {offset + len(chunk)} of {blob.size_bytes} bytes"
                )
            digest.update(chunk)
            if known is not None:
                crc32 = zlib.crc32(chunk, crc32)
        if known is not None and known != crc32_text(crc32):
            wrong.add(span.number)
    return Survey(digest.hexdigest(), frozenset(wrong))


def crc32_text(crc32: int) -> str:
    """Write a CRC-32 as S3 does: four bytes big-endian in base64."""
    return base64.b64encode(crc32.to_bytes(4, "big")).decode()
