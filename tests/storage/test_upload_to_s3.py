"""Whole calls to a real S3, while they live and after."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any

import structlog
import trio

from audiohook.errors import UploadError
from audiohook.metrics import Metrics
from audiohook.protocol.timeline import GapKind
from audiohook.recording.journal import GapFact
from audiohook.storage.base import MIB
from audiohook.storage.delivery import Deliveries
from audiohook.storage.folder import FolderStore
from tests.faultproxy import (
    INTERNAL_ERROR,
    SLOW_DOWN,
    Cut,
    FaultProxy,
    Reset,
    SwallowAnswer,
)
from tests.house import house
from tests.recording.factory import entries, make_closed, make_opened, running
from tests.seaweed import BUCKET, Seaweed
from tests.storage.s3_tools import plain_client
from tests.storage.uploads import make_uploader
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from audiohook.recording.journal import Opened
    from audiohook.recording.spool import Spool
    from audiohook.recording.spooled import SpooledCall
    from audiohook.storage.s3 import S3Store

MINUTE_BYTES = 60 * 8000 * 2
GAP = GapFact(GapKind.PAUSED, 30 * 8000, 45 * 8000)


def noise(size_bytes: int) -> bytes:
    return random.Random(7).randbytes(size_bytes)


async def stored_in_folder(
    folder: Path, opened: Opened, audio: bytes, fact: GapFact
) -> dict[str, bytes]:
    """What the folder store makes of a call, by key."""
    async with running(folder / ".spool") as spool:
        call = await spool.create(opened)
        os.pwrite(call.audio_fd, audio, 0)
        spool.append(call, fact)
        await spool.seal(call, make_closed(len(audio)))
        await make_uploader(FolderStore(folder), spool).take(call).finish()
    paths = [path for path in (folder / "calls").rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def stored_in_bucket(seaweed: Seaweed, prefix: str) -> dict[str, bytes]:
    client: Any = plain_client(seaweed)
    found = client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
    objects = {
        each["Key"]: client.get_object(Bucket=BUCKET, Key=each["Key"])["Body"].read()
        for each in found
    }
    client.close()
    return objects


def open_uploads(seaweed: Seaweed, prefix: str) -> dict[str, dict[int, int]]:
    """Sizes of the parts of each upload under way, by key."""
    client: Any = plain_client(seaweed)
    listed = client.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix)
    uploads = {}
    for each in listed.get("Uploads", []):
        parts = client.list_parts(
            Bucket=BUCKET, Key=each["Key"], UploadId=each["UploadId"]
        )
        uploads[each["Key"]] = {
            part["PartNumber"]: part["Size"] for part in parts.get("Parts", [])
        }
    client.close()
    return uploads


async def test_long_call_is_in_the_bucket_but_for_its_ends_before_it_is_over(
    tmp_path: Path, store: S3Store, proxy: FaultProxy, seaweed: Seaweed
) -> None:
    opened = make_opened(started_at="2026-11-22T15:00:00.000Z")
    prefix = "calls/2026-11-22T15-00-00.000Z"
    audio = noise(12 * MINUTE_BYTES)
    expected = await stored_in_folder(tmp_path / "folder", opened, audio, GAP)
    settled = 0
    async with running(tmp_path / "spool") as spool:
        deliveries = Deliveries(
            make_uploader(store, spool),
            metrics=Metrics(),
            log=structlog.get_logger("test"),
            live_interval=0.02,
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(deliveries.run)
            call = await spool.create(opened)
            deliveries.watch(call, lambda: settled)
            for begin in range(0, len(audio), MINUTE_BYTES):
                os.pwrite(call.audio_fd, audio[begin : begin + MINUTE_BYTES], begin)
                if begin == MINUTE_BYTES:
                    spool.append(call, GAP)
                settled = begin + MINUTE_BYTES
                await trio.sleep(0.03)
            # 765 s of a WAV are four whole parts and a rest; the audio as received
            # is two and a rest.
            await wait_until(lambda: proxy.count("PUT", "partNumber") == 4)
            await wait_until(lambda: deliveries.statistics().active == 0)
            uploads = await trio.to_thread.run_sync(open_uploads, seaweed, prefix)
            assert {key[-3:]: parts for key, parts in uploads.items()} == {
                "wav": {2: 5 * MIB, 3: 5 * MIB, 4: 5 * MIB},
                "raw": {2: 5 * MIB},
            }
            await spool.seal(call, make_closed(len(audio)))
            deliveries.add(call)
            await deliveries.wait_settled()
            assert deliveries.statistics().stored == 1
            nursery.cancel_scope.cancel()
        assert entries(tmp_path / "spool") == set()
    # The first and the last part of each, whatever the length of the call.
    assert proxy.count("PUT", "partNumber") == 8
    found = await trio.to_thread.run_sync(stored_in_bucket, seaweed, prefix)
    assert found == expected
    assert await trio.to_thread.run_sync(open_uploads, seaweed, prefix) == {}


async def adopted(spool: Spool) -> SpooledCall:
    """Takes a call over; a thread may be at its journal, and hold the lock so long."""
    with trio.fail_after(30):
        while True:
            if calls := await spool.adopt():
                return calls[0]


async def test_store_with_all_kinds_of_faults_gets_each_object_once(
    tmp_path: Path, store: S3Store, proxy: FaultProxy, seaweed: Seaweed
) -> None:
    opened = make_opened(started_at="2026-11-22T16:00:00.000Z")
    prefix = "calls/2026-11-22T16-00-00.000Z"
    audio = noise(6 * MINUTE_BYTES)
    expected = await stored_in_folder(tmp_path / "folder", opened, audio, GAP)
    faults = [Reset(), SwallowAnswer(), INTERNAL_ERROR, SLOW_DOWN, Cut(100_000)]
    proxy.at_random(11, 0.5, faults)
    failures = 0
    async with running(tmp_path / "spool") as spool:
        call = await spool.create(opened)
        os.pwrite(call.audio_fd, audio, 0)
        spool.append(call, GAP)
        await spool.seal(call, make_closed(len(audio)))
        upload = make_uploader(store, spool).take(call)
        while not call.released:
            try:
                await upload.finish()
            except UploadError:
                failures += 1
            if failures % 3 == 1 and not call.released:
                # Another process takes over.
                call.release()
                call = await adopted(spool)
                upload = make_uploader(store, spool).take(call)
    proxy.be_kind()
    assert failures > 3
    found = await trio.to_thread.run_sync(stored_in_bucket, seaweed, prefix)
    assert found == expected
    # One that was begun, and whose id never came, is left to the bucket.
    left = await trio.to_thread.run_sync(open_uploads, seaweed, prefix)
    assert not any(left.values())


async def test_service_stores_a_long_call_in_a_bucket(
    tmp_path: Path, seaweed: Seaweed, aws: pytest.MonkeyPatch, s3: S3Store
) -> None:
    async with house(tmp_path, s3_bucket=BUCKET, s3_key_prefix="house/") as it:
        report = await it.call(duration=240.0, pauses=((100.0, 60.0),))
        assert report.ok, report.breaches
        await it.settle()
        assert it.spooled() == []
    found = await trio.to_thread.run_sync(stored_in_bucket, seaweed, "house/")
    sizes = {key.rpartition(".")[2]: len(data) for key, data in found.items()}
    assert sizes["raw"] == report.audio_bytes == 240 * 16_000
    assert sizes["wav"] == 44 + 300 * 32_000
    assert await trio.to_thread.run_sync(open_uploads, seaweed, "house/") == {}
