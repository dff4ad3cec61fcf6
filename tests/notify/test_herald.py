from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from audiohook.notify.herald import CallHerald, shown_key
from audiohook.recording.transcripts import (
    Choice,
    JobRecord,
    TranscriptGivenUp,
    TranscriptPlanned,
)
from audiohook.storage.layout import in_bucket
from tests.notify.desk import FakeReceiver, body_of, desk

if TYPE_CHECKING:
    from pathlib import Path

CONVERSATION = "8a1f1b52-77a5-4a7e-9f3e-1f2b3c4d5e6f"
PARTICIPANT = "33333333-3333-4333-8333-333333333333"
NIL = "00000000-0000-0000-0000-000000000000"


def job_of(name: str) -> JobRecord:
    key = f"calls/{name}/audio/{name}.wav"
    job = JobRecord(TranscriptPlanned(key, Choice.TRANSCRIBE))
    job.apply(TranscriptGivenUp(key, "no speech"))
    return job


@pytest.mark.parametrize(
    ("name", "conversation"),
    [
        (f"2026-11-22T14-10-44.123Z_{CONVERSATION}_{PARTICIPANT}", CONVERSATION),
        (f"2026-11-22T14-10-44.123Z_{CONVERSATION}_{PARTICIPANT}_2", CONVERSATION),
        (f"2026-11-22T14-10-44.123Z_{NIL}_{PARTICIPANT}", ""),
        ("somebody-else_a_b", ""),
    ],
)
async def test_worker_knows_the_conversation_by_the_name_of_the_file(
    tmp_path: Path,
    autojump_clock: trio.testing.MockClock,
    name: str,
    conversation: str,
) -> None:
    receiver = FakeReceiver()
    async with desk(tmp_path, receiver) as at:
        await CallHerald(at.outbox).transcribed_elsewhere(job_of(name))
        await trio.sleep(1)
    (letter,) = receiver.took
    told = body_of(letter)
    assert told.get("subject", "") == conversation
    assert told["type"] == "org.audiohook.call.failed.v1"
    assert told["data"]["conversationId"] == conversation
    assert told["data"]["sessionId"] is None
    assert told["data"]["reason"] == "no speech"
    assert told["data"]["summary"] == f"calls/{name}/call.json"


def test_key_in_another_bucket_says_which() -> None:
    assert shown_key("calls/x.wav") == "calls/x.wav"
    assert shown_key(in_bucket("other", "calls/x.wav")) == "s3://other/calls/x.wav"
