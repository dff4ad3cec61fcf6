"""The JSON of a call in the store, and who may change it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.recording.factory import make_opened, running
from tests.storage.uploads import (
    AUDIO,
    NAME,
    MemoryStore,
    make_uploader,
    spool_call,
    summary_of,
)

if TYPE_CHECKING:
    from pathlib import Path


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
