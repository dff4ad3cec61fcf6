"""A bucket in memory that takes parts, and is as strict as Amazon's."""

from __future__ import annotations

import base64
import hashlib
import itertools
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from audiohook.errors import KeyExistsError, UploadError, UploadGoneError
from audiohook.storage.base import (
    FoundObject,
    Part,
    StoredObject,
    StoreFault,
    Version,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from audiohook.storage.base import Blob


@dataclass
class Thing:
    """An object."""

    data: bytes
    token: str
    metadata: Mapping[str, str]
    written_at: float = 0.0
    tag: str = ""


@dataclass
class Upload:
    """An upload under way."""

    key: str
    token: str
    metadata: Mapping[str, str]
    parts: dict[int, tuple[bytes, str]] = field(default_factory=dict)


def away() -> UploadError:
    return UploadError("cannot be reached", fault=StoreFault.AWAY)


class FakeS3:
    """Conditional writes, parts in any order, and answers that may get lost.

    Args:
        min_part_bytes: Held against every part but the last, on completion.
        step: Called with the name of an operation before and after its effect;
            may raise.

    Attributes:
        objects: By key.
        uploads: Those that are open, by id.
        sent: Key, upload, number and content of each part that arrived.
        written: Keys in the order in which objects came to be.
        url: Where signed addresses point.
    """

    def __init__(
        self, min_part_bytes: int = 64, *, step: Callable[[str], None] | None = None
    ) -> None:
        self._min_part_bytes = min_part_bytes
        self._numbers = itertools.count(1)
        self.step: Callable[[str], None] = step or (lambda _: None)
        self.objects: dict[str, Thing] = {}
        self.uploads: dict[str, Upload] = {}
        self.sent: list[tuple[str, str, int, bytes]] = []
        self.written: list[str] = []
        self.listings = 0
        self.url = "https://bucket.example"

    @property
    def min_part_bytes(self) -> int:
        return self._min_part_bytes

    def contents(self) -> dict[str, bytes]:
        return {key: thing.data for key, thing in self.objects.items()}

    async def put(
        self, key: str, blob: Blob, *, metadata: Mapping[str, str], token: str
    ) -> StoredObject:
        data = await self._load(blob)
        self.step("put")
        if key in self.objects:
            if self.objects[key].token != token or self.objects[key].data != data:
                raise KeyExistsError(key)
        else:
            self._make(key, Thing(data, token, metadata))
        self.step("put")
        return StoredObject(key, len(data), hashlib.sha256(data).hexdigest())

    async def replace(
        self, key: str, blob: Blob, *, metadata: Mapping[str, str], token: str
    ) -> StoredObject:
        data = await self._load(blob)
        self.step("replace")
        self._make(key, Thing(data, token, metadata))
        self.step("replace")
        return StoredObject(key, len(data), hashlib.sha256(data).hexdigest())

    async def purge(self, key: str) -> None:
        self.step("purge")
        self.objects.pop(key, None)
        self.step("purge")

    async def read(self, key: str) -> bytes | None:
        thing = self.objects.get(key)
        return None if thing is None else thing.data

    async def fetch(self, key: str) -> Version | None:
        await trio.lowlevel.checkpoint()
        self.step("fetch")
        thing = self.objects.get(key)
        if thing is None:
            return None
        age = trio.current_time() - thing.written_at
        return Version(thing.data, thing.tag, age, thing.metadata)

    async def swap(
        self, key: str, data: bytes, tag: str | None, *, metadata: Mapping[str, str]
    ) -> str:
        await trio.lowlevel.checkpoint()
        self.step("swap")
        there = self.objects.get(key)
        if (None if there is None else there.tag) != tag:
            raise KeyExistsError(key)
        self._make(key, Thing(data, "", metadata))
        self.step("swap")
        return self.objects[key].tag

    async def head(self, key: str) -> FoundObject | None:
        await trio.lowlevel.checkpoint()
        self.step("head")
        thing = self.objects.get(key)
        return None if thing is None else FoundObject(len(thing.data), thing.metadata)

    async def size(self, key: str) -> int | None:
        found = await self.head(key)
        return None if found is None else found.size

    async def read_range(self, key: str, offset: int, length: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return self.objects[key].data[offset : offset + length]

    async def presign(self, key: str, seconds: int) -> str:
        await trio.lowlevel.checkpoint()
        return f"{self.url}/{key}?signature={next(self._numbers)}&until={seconds}"

    async def begin(self, key: str, *, metadata: Mapping[str, str], token: str) -> str:
        await trio.lowlevel.checkpoint()
        self.step("begin")
        upload_id = f"upload {next(self._numbers)}"
        self.uploads[upload_id] = Upload(key, token, metadata)
        self.step("begin")
        return upload_id

    async def put_part(self, key: str, upload_id: str, number: int, blob: Blob) -> Part:
        data = await self._load(blob)
        self.step("part")
        upload = self._upload(key, upload_id)
        assert 1 <= number <= 10_000
        # As with encryption by KMS, where it is not the content's MD5.
        etag = f'"{next(self._numbers)}"'
        upload.parts[number] = data, etag
        self.sent.append((key, upload_id, number, data))
        self.step("part")
        return Part(number, len(data), etag, _crc32(data))

    async def list_uploads(self, key: str) -> list[str]:
        await trio.lowlevel.checkpoint()
        self.step("list uploads")
        return [name for name, each in self.uploads.items() if each.key == key]

    async def list_parts(self, key: str, upload_id: str) -> list[Part]:
        await trio.lowlevel.checkpoint()
        self.step("list")
        self.listings += 1
        parts = self._upload(key, upload_id).parts
        return [
            Part(number, len(data), etag, _crc32(data))
            for number, (data, etag) in sorted(parts.items())
        ]

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
        await trio.lowlevel.checkpoint()
        self.step("complete")
        there = self.objects.get(key)
        if there is not None:
            if there.token != token or len(there.data) != size:
                raise KeyExistsError(key)
        else:
            data = self._assemble(key, upload_id, parts)
            assert len(data) == size
            upload = self.uploads.pop(upload_id)
            self._make(key, Thing(data, upload.token, upload.metadata))
        self.step("complete")
        return StoredObject(key, size, sha256)

    async def abort(self, key: str, upload_id: str) -> None:
        await trio.lowlevel.checkpoint()
        self.step("abort")
        self.uploads.pop(upload_id, None)
        self.step("abort")

    def _upload(self, key: str, upload_id: str) -> Upload:
        upload = self.uploads.get(upload_id)
        if upload is None or upload.key != key:
            raise UploadGoneError(key)
        return upload

    def _assemble(self, key: str, upload_id: str, parts: Sequence[Part]) -> bytes:
        upload = self._upload(key, upload_id)
        numbers = [part.number for part in parts]
        assert numbers == sorted(set(numbers))
        assert numbers
        pieces = []
        for part in parts:
            data, etag = upload.parts.get(part.number, (b"", ""))
            if etag != part.etag or _crc32(data) != part.crc32:
                raise UploadGoneError(key)
            pieces.append(data)
        # EntityTooSmall is not a fault that time mends.
        assert all(len(piece) >= self._min_part_bytes for piece in pieces[:-1])
        return b"".join(pieces)

    def _make(self, key: str, thing: Thing) -> None:
        thing.written_at = trio.current_time()
        thing.tag = f'"{next(self._numbers)}"'
        self.objects[key] = thing
        self.written.append(key)

    async def _load(self, blob: Blob) -> bytes:
        data = await trio.to_thread.run_sync(blob.read_at, 0, blob.size_bytes)
        assert len(data) == blob.size_bytes
        return data


def _crc32(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
