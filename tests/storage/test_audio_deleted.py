"""Audio of which only the transcript is wanted: when it goes, and when it stays."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from audiohook.call_settings import CallSettings, Mode
from audiohook.errors import UploadError
from audiohook.recording.render import Layout
from audiohook.recording.transcripts import (
    Choice,
    TranscriptGivenUp,
    TranscriptPlanned,
    TranscriptStored,
)
from audiohook.storage.base import StoreFault
from audiohook.storage.transcripts import TranscriptShelf
from tests.recording.factory import entries, make_opened, running
from tests.storage.uploads import (
    AUDIO,
    NAME,
    MemoryStore,
    make_uploader,
    spool_call,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from audiohook.recording.render import Rendering
    from audiohook.recording.spool import Spool
    from audiohook.recording.spooled import SpooledCall

FOLDER = f"calls/sales/{NAME}"


class DeletingMemory(MemoryStore):
    """A store in memory that deletes, if it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[UploadError] = []

    async def purge(self, key: str) -> None:
        if self.faults:
            raise self.faults.pop()
        self.objects.pop(key, None)

    @property
    def waves(self) -> set[str]:
        return {key for key in self.objects if key.endswith(".wav")}

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.objects[f"{FOLDER}/call.json"])
        return found


async def plan(
    _call: SpooledCall, wavs: Mapping[str, Rendering]
) -> list[TranscriptPlanned]:
    return [
        TranscriptPlanned(key, Choice.TRANSCRIBE, deletes_audio=True) for key in wavs
    ]


async def stored_call(spool: Spool, store: DeletingMemory) -> SpooledCall:
    """Brings a call with a file for each side to the store."""
    made = CallSettings(
        "calls/sales/", Layout.SPLIT, keep_raw=False, mode=Mode.TRANSCRIBE
    )
    call = await spool_call(spool, make_opened(settings=made), AUDIO)
    uploader = make_uploader(store, spool)
    uploader.plan_transcripts = plan
    assert not await uploader.take(call).finish()
    assert store.summary["audio"] == "deleted once transcribed"
    assert len(store.waves) == 2
    return call


def transcribe(spool: Spool, call: SpooledCall, *keys: str) -> None:
    for key in keys:
        spool.append(call, TranscriptStored(key, f"id of {key}", None, ()))


async def test_audio_goes_once_all_transcripts_are_stored(tmp_path: Path) -> None:
    store = DeletingMemory()
    async with running(tmp_path) as spool:
        call = await stored_call(spool, store)
        transcribe(spool, call, *call.record.jobs)
        shelf = TranscriptShelf(store, spool)
        await shelf.update(call)
        assert len(store.waves) == 2
        await shelf.finish(call)
        assert store.waves == set()
        assert store.summary["audio"] == "deleted"
        assert [each["deleted"] for each in store.summary["objects"]] == [True, True]
        assert entries(tmp_path) == set()


async def test_audio_stays_if_one_of_the_transcripts_was_given_up(
    tmp_path: Path,
) -> None:
    store = DeletingMemory()
    async with running(tmp_path) as spool:
        call = await stored_call(spool, store)
        first, second = call.record.jobs
        transcribe(spool, call, first)
        spool.append(call, TranscriptGivenUp(second, "no speech"))
        shelf = TranscriptShelf(store, spool)
        await shelf.update(call)
        await shelf.finish(call)
        assert len(store.waves) == 2
        assert store.summary["audio"] == "kept"


@pytest.mark.parametrize("deleted_before", [0, 1, 2])
async def test_deletion_is_gone_on_with_by_whoever_comes_next(
    tmp_path: Path, deleted_before: int
) -> None:
    store = DeletingMemory()
    async with running(tmp_path) as spool:
        call = await stored_call(spool, store)
        transcribe(spool, call, *call.record.jobs)
        # Killed, after some were deleted of which the journal does not know yet.
        for key in list(call.record.jobs)[:deleted_before]:
            await store.purge(key)
        await spool.commit(call)
        call.release()
    async with running(tmp_path) as spool:
        (call,) = await spool.adopt()
        store.faults.append(UploadError("away", fault=StoreFault.AWAY))
        shelf = TranscriptShelf(store, spool)
        with pytest.raises(UploadError):
            await shelf.finish(call)
        # It is not forgotten for that.
        assert entries(tmp_path)
        await shelf.finish(call)
        assert store.waves == set()
        assert store.summary["audio"] == "deleted"
        assert entries(tmp_path) == set()
