"""Calls that are played against a store that takes parts."""

from __future__ import annotations

import itertools
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Unpack

from audiohook.errors import AudioHookError, UploadError
from audiohook.recording import disk
from tests.recording.factory import entries, make_closed, make_opened, running
from tests.storage.uploads import (
    Changes,
    Fuse,
    FusedSpool,
    MemoryStore,
    make_uploader,
)

if TYPE_CHECKING:
    from pathlib import Path

    from audiohook.recording.journal import Fact, Opened
    from audiohook.recording.spool import Spool
    from audiohook.recording.spooled import SpooledCall
    from audiohook.storage.upload import CallUpload, Uploader
    from tests.storage.fake_s3 import FakeS3

AUDIO = bytes(itertools.islice(itertools.cycle(range(251)), 1000))


@dataclass
class Script:
    """What happens to a call: audio, facts, and looks at what can be sent."""

    opened: Opened
    steps: list[bytes | Fact] = field(default_factory=list)

    @property
    def audio(self) -> bytes:
        return b"".join(step for step in self.steps if isinstance(step, bytes))


def plain_script(audio: bytes = AUDIO, *, pieces: int = 10) -> Script:
    size = -(-len(audio) // pieces)
    steps: list[bytes | Fact] = [
        audio[at : at + size] for at in range(0, len(audio), size)
    ]
    return Script(make_opened(), steps)


async def play(
    script: Script,
    spool: Spool,
    uploader: Uploader,
    *faults: type[AudioHookError],
) -> tuple[SpooledCall, CallUpload]:
    """Live through a call, and send what is full whenever something came.

    After one of the faults it is tried again when more has come.
    """
    call = await spool.create(script.opened)
    upload = uploader.take(call)
    written = 0
    for step in script.steps:
        if isinstance(step, bytes):
            os.pwrite(call.audio_fd, step, written)
            written += len(step)
        else:
            spool.append(call, step)
        with suppress(*faults):
            while upload.ready(written):
                await upload.advance(written)
    return call, upload


async def finish_at_last(upload: CallUpload) -> int:
    """Try until it works, and return how often that was."""
    tries = 1
    while True:
        try:
            await upload.finish()
        except UploadError:
            tries += 1
        else:
            return tries


async def play_and_finish(script: Script, spool: Spool, uploader: Uploader) -> None:
    call, upload = await play(script, spool, uploader)
    await spool.seal(call, make_closed(len(script.audio)))
    await upload.finish()


async def stored_whole(folder: Path, **changes: Unpack[Changes]) -> dict[str, bytes]:
    """What a store that takes whole objects only makes of a copy of the spool."""
    other = folder.with_name(folder.name + " copied")
    shutil.copytree(folder, other)
    for path in other.glob("*/" + disk.JOURNAL):
        lines = path.read_bytes().splitlines(keepends=True)
        later = (b'{"fact":"stored"', b'{"fact":"done"')
        path.write_bytes(b"".join(x for x in lines if not x.startswith(later)))
    store = MemoryStore()
    async with running(other) as spool:
        for call in await spool.adopt():
            await make_uploader(store, spool, **changes).take(call).finish()
    shutil.rmtree(other)
    return store.objects


async def run_script(
    folder: Path, store: FakeS3, script: Script, **changes: Unpack[Changes]
) -> dict[str, bytes]:
    """Play a call to its end; return what the store should hold."""
    async with running(folder) as spool:
        uploader = make_uploader(store, spool, **changes)
        call, upload = await play(script, spool, uploader)
        await spool.seal(call, make_closed(len(script.audio)))
        await spool.flush()
        expected = await stored_whole_locked(call, spool, changes)
        await upload.finish()
        assert entries(folder) == set()
    return expected


async def stored_whole_locked(
    call: SpooledCall, spool: Spool, changes: Changes
) -> dict[str, bytes]:
    """The same of a call that this process holds; it stays in the spool."""

    class Keeps(FusedSpool):
        async def commit(self, call: SpooledCall, *facts: Fact) -> None:
            pass

        def append(self, call: SpooledCall, fact: Fact) -> None:
            pass

        async def remove(self, call: SpooledCall) -> None:
            pass

    store, keeps = MemoryStore(), Keeps(spool, Fuse(0))
    uploads, call.record.uploads = call.record.uploads, {}
    await make_uploader(store, keeps, **changes).take(call).finish()  # type: ignore[arg-type]
    call.record.uploads = uploads
    return store.objects
