from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio

from audiohook.errors import JobHeldError, UploadError
from audiohook.recording.transcripts import (
    Choice,
    JobStatus,
    TranscriptAgain,
    TranscriptFact,
    TranscriptFailed,
    TranscriptGivenUp,
    TranscriptIntended,
    TranscriptObject,
    TranscriptParked,
    TranscriptPlanned,
    TranscriptRefused,
    TranscriptStored,
    TranscriptSubmitted,
)
from audiohook.storage.base import StoreFault
from audiohook.storage.job_object import LEASE, JobObject
from audiohook.storage.layout import job_key
from tests.storage.fake_s3 import FakeS3, away

if TYPE_CHECKING:
    from trio.testing import MockClock

WAV = "calls/x/audio/x.wav"
KEY = "calls/x/jobs/x.json"
URL = "https://bucket.example/calls/x/audio/x.wav"
PLANNED = TranscriptPlanned(WAV, Choice.TRANSCRIBE, channels=("external", "internal"))
INTENDED = TranscriptIntended(WAV, URL, "2026-11-22T14:10:44.123Z")
STORED = TranscriptStored(WAV, "t1", "m", (TranscriptObject("k", 2, "ab"),))


async def claimed(store: FakeS3) -> JobObject:
    job = await JobObject.open(store, WAV)
    await job.claim(PLANNED)
    return job


def facts_of(store: FakeS3) -> list[str]:
    return [each["fact"] for each in json.loads(store.objects[KEY].data)["facts"]]


async def test_key_lies_beside_the_recording(autojump_clock: MockClock) -> None:
    assert job_key(WAV) == KEY
    assert job_key("calls/x/audio/x-external.wav") == "calls/x/jobs/x-external.json"


async def test_facts_are_there_for_whoever_comes_next(
    autojump_clock: MockClock,
) -> None:
    store = FakeS3()
    job = await claimed(store)
    await job.commit(INTENDED)
    job.note(TranscriptSubmitted(WAV, "t1"))
    await job.commit()
    await job.release()
    record = (await JobObject.open(store, WAV)).record
    assert record is not None
    assert record.planned == PLANNED
    assert (record.current, record.status) == ("t1", JobStatus.SUBMITTED)


async def test_of_two_who_come_at_once_one_is_late(autojump_clock: MockClock) -> None:
    store = FakeS3()
    one, other = await JobObject.open(store, WAV), await JobObject.open(store, WAV)
    await one.claim(PLANNED)
    with pytest.raises(JobHeldError) as caught:
        await other.claim(PLANNED)
    assert caught.value.seconds == LEASE
    await one.commit(INTENDED)


async def test_nobody_else_gets_it_while_it_is_renewed(
    autojump_clock: MockClock,
) -> None:
    store = FakeS3()
    job = await claimed(store)
    for _ in range(10):
        await trio.sleep(LEASE - 1)
        await job.renew()
        other = await JobObject.open(store, WAV)
        assert other.held_for == LEASE
        with pytest.raises(JobHeldError):
            await other.claim(PLANNED)


async def test_whoever_is_silent_for_too_long_has_lost_it(
    autojump_clock: MockClock,
) -> None:
    store = FakeS3()
    dead = await claimed(store)
    await trio.sleep(LEASE)
    heir = await claimed(store)
    with pytest.raises(JobHeldError):
        await dead.commit(INTENDED)
    # What he was not allowed to ask for is not in doubt.
    assert dead.record is not None
    assert dead.record.intent is None
    await heir.commit(INTENDED)
    with pytest.raises(JobHeldError):
        await dead.renew()
    with pytest.raises(JobHeldError):
        await dead.release()
    assert "transcript_intended" in facts_of(store)


async def test_of_two_heirs_one_is_late(autojump_clock: MockClock) -> None:
    store = FakeS3()
    await claimed(store)
    await trio.sleep(LEASE)
    one, other = await JobObject.open(store, WAV), await JobObject.open(store, WAV)
    await one.claim(PLANNED)
    with pytest.raises(JobHeldError):
        await other.claim(PLANNED)


async def test_released_it_is_free_at_once(autojump_clock: MockClock) -> None:
    store = FakeS3()
    job = await claimed(store)
    await job.release()
    await job.release()
    other = await JobObject.open(store, WAV)
    assert other.held_for == 0
    await other.claim(PLANNED)


async def test_released_is_not_settled(autojump_clock: MockClock) -> None:
    store = FakeS3()
    job = await claimed(store)
    await job.release()
    assert not (await JobObject.open(store, WAV)).is_settled
    job = await claimed(store)
    await job.commit(STORED)
    await job.settle()
    settled = await JobObject.open(store, WAV)
    assert settled.is_settled
    assert settled.held_for == 0
    # Somebody wants another transcript, and dies over it: others go on with it.
    settled.note(TranscriptAgain(WAV))
    await settled.claim(PLANNED)
    assert not (await JobObject.open(store, WAV)).is_settled


@pytest.mark.parametrize("lost", ["before", "after"])
async def test_lost_answer_to_a_write_is_no_loss(
    lost: str, autojump_clock: MockClock
) -> None:
    store = FakeS3()
    job = await claimed(store)
    steps: list[str] = []

    def lose(what: str) -> None:
        steps.append(what)
        if what == "swap" and len(steps) == (1 if lost == "before" else 2):
            raise away()

    store.step = lose
    with pytest.raises(UploadError) as caught:
        await job.commit(INTENDED)
    assert caught.value.fault == StoreFault.AWAY
    assert job.record is not None
    # Whether or not it is in the store: it was not asked for.
    assert job.record.intent is None
    await job.commit(INTENDED)
    assert facts_of(store) == ["transcript_planned", "transcript_intended"]
    store.step = lambda _: None
    with pytest.raises(JobHeldError):
        await claimed(store)


async def test_lost_answer_to_a_claim_leaves_it_to_nobody_for_a_lease(
    autojump_clock: MockClock,
) -> None:
    store = FakeS3()
    count = iter(range(10))

    def lose(what: str) -> None:
        if what == "swap" and next(count) == 1:
            raise away()

    store.step = lose
    with pytest.raises(UploadError):
        await claimed(store)
    with pytest.raises(JobHeldError) as caught:
        await claimed(store)
    await trio.sleep(caught.value.seconds)
    await claimed(store)


async def test_store_too_slow_to_hold_it_is_a_failure(
    autojump_clock: MockClock,
) -> None:
    store = FakeS3()
    job = await claimed(store)
    swap = store.swap

    async def slow(*args: object, **more: object) -> str:
        await trio.sleep(40)
        return await swap(*args, **more)  # type: ignore[arg-type]

    store.swap = slow  # type: ignore[method-assign]
    with pytest.raises(UploadError, match="too long"):
        await job.commit(INTENDED)
    assert job.record is not None
    assert job.record.intent is None


async def test_object_does_not_grow_with_each_try(autojump_clock: MockClock) -> None:
    store = FakeS3()
    job = await claimed(store)
    for number in range(200):
        await job.commit(INTENDED)
        await job.commit(TranscriptRefused(WAV), TranscriptParked(WAV, f"no {number}"))
    assert facts_of(store) == ["transcript_planned", "transcript_parked"]
    await job.commit(TranscriptParked(WAV, None))
    assert facts_of(store) == ["transcript_planned"]


@pytest.mark.parametrize(
    "facts",
    [
        (INTENDED,),
        (INTENDED, TranscriptRefused(WAV)),
        (INTENDED, TranscriptParked(WAV, "x"), TranscriptSubmitted(WAV, "t1")),
        (TranscriptSubmitted(WAV, "t1"), TranscriptFailed(WAV, "t1", "theirs", "x")),
        (
            TranscriptSubmitted(WAV, "t1"),
            TranscriptFailed(WAV, "t1", "theirs", "x"),
            INTENDED,
            TranscriptRefused(WAV),
            INTENDED,
            TranscriptSubmitted(WAV, "t2"),
            TranscriptParked(WAV, "x"),
        ),
        (TranscriptSubmitted(WAV, "t1"), STORED),
        (TranscriptGivenUp(WAV, "no audio"),),
    ],
)
async def test_what_is_read_is_what_was_known(
    facts: tuple[TranscriptFact, ...],
    autojump_clock: MockClock,
) -> None:
    store = FakeS3()
    job = await claimed(store)
    for fact in facts:
        await job.commit(fact)
    read = (await JobObject.open(store, WAV)).record
    assert job.record is not None
    assert read is not None
    names = [name for name in type(read).__slots__ if not name.startswith("_")]
    for name in names:
        assert getattr(read, name) == getattr(job.record, name), name


GOOD = {
    "schemaVersion": 1,
    "audio": WAV,
    "holder": None,
    "settled": False,
    "sequence": 1,
    "facts": [{"fact": "transcript_planned", "key": WAV, "choice": "transcribe"}],
}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[" * 100_000,
        b"\xff\xfe",
        json.dumps({**GOOD, "schemaVersion": 2}).encode(),
        json.dumps({**GOOD, "audio": "calls/y/audio/y.wav"}).encode(),
        json.dumps({**GOOD, "facts": []}).encode(),
        json.dumps({**GOOD, "facts": [{"fact": "opened"}]}).encode(),
        json.dumps({**GOOD, "facts": [{"fact": "done"}]}).encode(),
        json.dumps({**GOOD, "holder": 3}).encode(),
        json.dumps({**GOOD, "sequence": -1}).encode(),
    ],
)
async def test_nothing_is_asked_for_on_account_of_what_is_not_understood(
    content: bytes,
    autojump_clock: MockClock,
) -> None:
    store = FakeS3()
    await store.swap(KEY, content, None, metadata={})
    with pytest.raises(UploadError, match="cannot be understood") as caught:
        await JobObject.open(store, WAV)
    assert not caught.value.retryable
