"""The JSON of a call in the store, and who may change it."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

import pytest

from audiohook.errors import UploadError
from audiohook.recording.herald import Nobody
from audiohook.recording.transcripts import (
    Choice,
    JobRecord,
    TranscriptPlanned,
    TranscriptStored,
)
from audiohook.storage import call_json
from tests.recording.factory import make_opened, running
from tests.storage.fake_s3 import FakeS3, away
from tests.storage.uploads import (
    AUDIO,
    NAME,
    Killed,
    MemoryStore,
    make_uploader,
    spool_call,
    summary_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from audiohook.recording.record import CallRecord
    from audiohook.recording.render import Rendering
    from audiohook.recording.spooled import SpooledCall

SUMMARY = f"calls/{NAME}/call.json"
WAV = f"calls/{NAME}/audio/{NAME}.wav"


@pytest.mark.parametrize(
    "present", [b"", b"{]", b"null", b"[]", b'{"sessionId": "other"}', b"[" * 100_000]
)
async def test_call_json_of_another_is_never_replaced(
    tmp_path: Path, present: bytes
) -> None:
    store = MemoryStore()
    store.objects[SUMMARY] = present
    async with running(tmp_path) as spool:
        call = await spool_call(spool, make_opened())
        await make_uploader(store, spool).take(call).finish()
    assert store.objects[SUMMARY] == present
    assert f"calls/{NAME}_2/call.json" in store.objects


async def test_call_json_of_an_earlier_version_of_us_is_replaced(
    tmp_path: Path,
) -> None:
    store = MemoryStore()
    opened = make_opened()
    key = SUMMARY
    store.objects[key] = json.dumps({"sessionId": opened.session_id}).encode()
    async with running(tmp_path) as spool:
        await make_uploader(store, spool).take(await spool_call(spool, opened)).finish()
    assert summary_of(store)["audioBytes"] == len(AUDIO)
    assert len(store.objects) == 3


class Interrupted(Nobody):
    """A herald whose process dies the first time that a call is stored."""

    def __init__(self) -> None:
        self.told = 0

    async def stored(self, record: CallRecord) -> None:
        self.told += 1
        if self.told == 1:
            raise Killed


async def test_what_a_worker_has_said_meanwhile_stays(tmp_path: Path) -> None:
    """The answer to the first attempt was lost, and then nothing came through."""
    store = FakeS3(1024 * 1024)
    puts = itertools.count(1)

    async def left(
        call: SpooledCall, wavs: Mapping[str, Rendering]
    ) -> list[TranscriptPlanned]:
        return [TranscriptPlanned(key, Choice.ELSEWHERE, "by events") for key in wavs]

    def lose_third_answer(what: str) -> None:
        # Before and after each of WAV, audio as received and JSON.
        if what == "put" and next(puts) == 6:
            raise away()

    async with running(tmp_path) as spool:
        call = await spool_call(spool, make_opened())
        uploader = make_uploader(store, spool)
        uploader.plan_transcripts = left
        uploader.herald = Interrupted()
        store.step = lose_third_answer
        with pytest.raises(UploadError):
            await uploader.take(call).finish()
        worker = JobRecord(TranscriptPlanned(WAV, Choice.TRANSCRIBE))
        worker.apply(TranscriptStored(WAV, "t1", "universal-2", ()))
        assert await call_json.tell(store, worker)
        said = store.contents()[SUMMARY]
        with pytest.raises(Killed):
            await uploader.take(call).finish()
        assert await uploader.take(call).finish()
    assert store.contents()[SUMMARY] == said
    (entry,) = json.loads(said)["transcripts"]
    assert (entry["status"], entry["id"]) == ("completed", "t1")
