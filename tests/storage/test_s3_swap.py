"""Objects that many change, none undoing another's change, in a real store."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
import trio

from audiohook.errors import JobHeldError, KeyExistsError
from audiohook.recording.transcripts import Choice, TranscriptPlanned
from audiohook.storage.job_object import LEASE, JobObject
from audiohook.storage.s3_metadata import SHA256_NAME
from tests.storage.s3_tools import new_key, put

if TYPE_CHECKING:
    from audiohook.storage.s3 import S3Store

pytestmark = pytest.mark.slow


async def test_swap_replaces_what_was_read_and_nothing_else(s3: S3Store) -> None:
    key = new_key("json")
    with pytest.raises(KeyExistsError):
        await s3.swap(key, b"none", '"0"', metadata={})
    first = await s3.swap(key, b"first", None, metadata={"channels": "external"})
    with pytest.raises(KeyExistsError):
        await s3.swap(key, b"late", None, metadata={})
    found = await s3.fetch(key)
    assert found is not None
    assert (found.data, found.tag) == (b"first", first)
    assert found.metadata == {"channels": "external"}
    assert -2 <= found.age < 60
    second = await s3.swap(key, b"second", first, metadata={})
    with pytest.raises(KeyExistsError):
        await s3.swap(key, b"late", first, metadata={})
    found = await s3.fetch(key)
    assert found is not None
    assert (found.data, found.tag) == (b"second", second)


async def test_checksum_kept_beside_an_object_is_that_of_what_is_there(
    s3: S3Store,
) -> None:
    key = new_key("json")
    await put(s3, key, b"first")
    found = await s3.fetch(key)
    assert found is not None
    await s3.swap(key, b"second", found.tag, metadata=found.metadata)
    changed = await s3.fetch(key)
    assert changed is not None
    sha256 = hashlib.sha256(b"second").hexdigest()
    assert changed.metadata == {**found.metadata, SHA256_NAME: sha256}


async def test_nothing_is_fetched_where_nothing_is(s3: S3Store) -> None:
    assert await s3.fetch(new_key("json")) is None


async def test_of_eight_at_once_one_gets_the_job(s3: S3Store) -> None:
    wav = new_key()
    held: list[float] = []
    taken: list[JobObject] = []

    async def claim(job: JobObject) -> None:
        try:
            await job.claim(TranscriptPlanned(wav, Choice.TRANSCRIBE))
        except JobHeldError as error:
            held.append(error.seconds)
        else:
            taken.append(job)

    for _ in range(2):
        jobs = [await JobObject.open(s3, wav) for _ in range(8)]
        async with trio.open_nursery() as eight:
            for job in jobs:
                eight.start_soon(claim, job)
        (winner,) = taken
        await winner.release()
        taken.clear()
    assert len(held) == 14
    assert all(0 <= seconds <= LEASE + 2 for seconds in held)
