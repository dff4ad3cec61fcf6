"""A store in memory, and calls on their way to it, for tests of the way there."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from audiohook.errors import KeyExistsError
from audiohook.recording.render import Gaps, Layout
from audiohook.recording.wav import Encoding
from audiohook.storage.base import StoredObject
from audiohook.storage.upload import Uploader
from tests.recording.factory import (
    CONVERSATION,
    PARTICIPANT,
    entries,
    make_closed,
    running,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from audiohook.recording.journal import ClosedFact, Fact, Opened
    from audiohook.recording.spool import Spool
    from audiohook.recording.spooled import SpooledCall
    from audiohook.storage.base import Blob, Store

NAME = f"2026-11-22T14-10-44.123Z_{CONVERSATION}_{PARTICIPANT}"
AUDIO = bytes(range(256)) * 4


class MemoryStore:
    """A store that keeps the promises of a store, and notes what it was asked.

    Attributes:
        before_put: Called before an object is stored.
    """

    def __init__(self) -> None:
        self.before_put: Callable[[], object] = lambda: None
        self.objects: dict[str, bytes] = {}
        self.metadata: dict[str, Mapping[str, str]] = {}
        self.tokens: set[str] = set()
        self.written: list[str] = []

    async def put(
        self, key: str, blob: Blob, *, metadata: Mapping[str, str], token: str
    ) -> StoredObject:
        self.before_put()
        data = blob.read_at(0, blob.size_bytes)
        if self.objects.get(key, data) != data:
            raise KeyExistsError(key)
        if key not in self.objects:
            self.written.append(key)
        return self._keep(key, data, metadata, token)

    async def replace(
        self, key: str, blob: Blob, *, metadata: Mapping[str, str], token: str
    ) -> StoredObject:
        data = blob.read_at(0, blob.size_bytes)
        return self._keep(key, data, metadata, token)

    async def read(self, key: str) -> bytes | None:
        return self.objects.get(key)

    def _keep(
        self, key: str, data: bytes, metadata: Mapping[str, str], token: str
    ) -> StoredObject:
        self.objects[key] = data
        self.metadata[key] = metadata
        self.tokens.add(token)
        return StoredObject(key, len(data), hashlib.sha256(data).hexdigest())


class Changes(TypedDict, total=False):
    """Settings that differ from the usual."""

    encoding: Encoding
    layout: Layout
    gaps: Gaps
    keep_raw: bool
    keep_peaks: bool


def make_uploader(store: Store, spool: Spool, **changes: Unpack[Changes]) -> Uploader:
    usual: Changes = {
        "encoding": Encoding.PCM16,
        "layout": Layout.STEREO,
        "gaps": Gaps.SILENCE,
        "keep_raw": True,
    }
    usual.update(changes)
    return Uploader(store, spool, prefix="calls/", **usual)


async def spool_call(
    spool: Spool, opened: Opened, audio: bytes = AUDIO, *facts: Fact
) -> SpooledCall:
    call = await spool.create(opened)
    if audio:
        os.pwrite(call.audio_fd, audio, 0)
    for fact in facts:
        spool.append(call, fact)
    await spool.seal(call, make_closed(len(audio)))
    return call


async def store_call(
    folder: Path,
    opened: Opened,
    audio: bytes = AUDIO,
    *facts: Fact,
    **changes: Unpack[Changes],
) -> MemoryStore:
    store = MemoryStore()
    async with running(folder) as spool:
        call = await spool_call(spool, opened, audio, *facts)
        await make_uploader(store, spool, **changes).take(call).finish()
        assert entries(folder) == set()
    return store


def summary_of(store: MemoryStore, name: str = NAME) -> dict[str, Any]:
    summary = json.loads(store.objects[f"calls/{name}/call.json"])
    assert isinstance(summary, dict)
    return summary


class Killed(Exception):
    """The process dies here."""


class Fuse:
    """Counts steps, and blows at one of them."""

    def __init__(self, step: int) -> None:
        self._left = step

    def burn(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise Killed


class FusedStore(MemoryStore):
    """May die before it is asked, or before its answer arrives."""

    fuse = Fuse(0)

    async def put(
        self, key: str, blob: Blob, *, metadata: Mapping[str, str], token: str
    ) -> StoredObject:
        self.fuse.burn()
        stored = await super().put(key, blob, metadata=metadata, token=token)
        self.fuse.burn()
        return stored


class FusedSpool:
    """A spool whose process may die before and after each fact."""

    def __init__(self, spool: Spool, fuse: Fuse) -> None:
        self._spool = spool
        self._fuse = fuse

    async def commit(self, call: SpooledCall, *facts: Fact) -> None:
        self._fuse.burn()
        await self._spool.commit(call, *facts)
        self._fuse.burn()

    @property
    def can_record(self) -> bool:
        return self._spool.can_record

    async def create(self, opened: Opened) -> SpooledCall:
        return await self._spool.create(opened)

    async def seal(self, call: SpooledCall, closed: ClosedFact) -> None:
        await self._spool.seal(call, closed)

    def append(self, call: SpooledCall, fact: Fact) -> None:
        self._fuse.burn()
        self._spool.append(call, fact)
        self._fuse.burn()

    async def remove(self, call: SpooledCall) -> None:
        self._fuse.burn()
        await self._spool.remove(call)
        self._fuse.burn()
