"""The store is looked at once after the start, and again until it answers."""

from __future__ import annotations

import itertools
import uuid
from typing import TYPE_CHECKING, Any, cast

import httpx
import structlog
import trio

from audiohook.errors import UploadError
from audiohook.first_look import FirstLook
from tests.house import house
from tests.seaweed import Seaweed, reach, seaweed
from tests.storage.s3_tools import plain_client
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest
    from trio.testing import MockClock

__all__ = ["seaweed"]

GONE = UploadError("bucket b does not exist: correct S3_BUCKET", retryable=False)
AWAY = UploadError("the store cannot be reached")


class FakeStore:
    """Fails in the given ways, one after the other, and then answers."""

    def __init__(self, *faults: Exception) -> None:
        self.faults = list(faults)
        self.asked: list[tuple[float, str]] = []

    async def read(self, key: str) -> None:
        await trio.lowlevel.checkpoint()
        self.asked.append((trio.current_time(), key))
        if self.faults:
            raise self.faults.pop(0)


def look_at(
    store: FakeStore, has_stored: Callable[[], bool] = lambda: False
) -> FirstLook:
    return FirstLook(
        cast("Any", store),
        "calls/",
        has_stored=has_stored,
        log=structlog.get_logger("audiohook"),
        jitter=lambda: 1.0,
    )


async def test_store_that_answers_is_asked_once_and_nothing_is_said() -> None:
    store = FakeStore()
    with structlog.testing.capture_logs() as lines:
        await look_at(store).run()
    ((_, key),) = store.asked
    assert key == "calls/audiohook-check-none"
    assert lines == []


async def test_each_reason_is_said_once_and_pauses_grow(
    autojump_clock: MockClock,
) -> None:
    store = FakeStore(*[GONE] * 8, AWAY, *[GONE] * 3)
    look = look_at(store)
    began = trio.current_time()
    with structlog.testing.capture_logs() as lines:
        await look.run()
    said = [(each["event"], each.get("error")) for each in lines]
    assert said == [
        ("store_not_ready", str(GONE)),
        ("store_not_ready", str(AWAY)),
        ("store_not_ready", str(GONE)),
        ("store_ready", None),
    ]
    assert look.fault is None
    times = [at - began for at, _ in store.asked]
    pauses = [round(b - a) for a, b in itertools.pairwise(times)]
    assert pauses == [5, 10, 20, 40, 80, 160, 320, 600, 600, 600, 600, 600]


async def test_fault_is_known_until_something_was_stored(
    autojump_clock: MockClock,
) -> None:
    store = FakeStore(*[AWAY] * 100)
    stored = 0
    look = look_at(store, lambda: stored > 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(look.run)
        await trio.sleep(60)
        assert look.fault == str(AWAY)
        stored = 1
        await trio.sleep(600)
        assert nursery.child_tasks == set()
    assert look.fault is None


async def test_fault_of_ours_is_told_and_costs_nothing_else(
    autojump_clock: MockClock,
) -> None:
    look = look_at(FakeStore(ZeroDivisionError()))
    with structlog.testing.capture_logs() as lines:
        await look.run()
    assert lines[0]["exc_info"]
    assert lines[-1]["event"] == "store_ready"


async def test_service_says_that_the_bucket_is_wrong_until_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seaweed: Seaweed
) -> None:
    reach(seaweed, monkeypatch)
    monkeypatch.setattr("audiohook.first_look._FIRST_PAUSE", 0.1)
    bucket = f"late-{uuid.uuid4()}"
    with structlog.testing.capture_logs() as lines:
        async with house(tmp_path, s3_bucket=bucket) as it:
            await wait_until(lambda: it.service.statistics().store_fault)
            base = f"http://127.0.0.1:{it.service.admin_port}"
            async with httpx.AsyncClient(base_url=base) as client:
                fault = (await client.get("/stats")).json()["store_fault"]
                assert f"bucket {bucket} does not exist" in fault
                assert "audiohook_store_down 1.0" in (await client.get("/metrics")).text
                assert bucket in (await client.get("/waiting")).text
                # A call is taken all the same.
                assert (await client.get("/ready")).status_code == 200
            s3: Any = plain_client(seaweed)
            s3.create_bucket(Bucket=bucket)
            s3.close()
            await wait_until(lambda: it.service.statistics().store_fault is None)
    said = [each for each in lines if each["event"].startswith("store_")]
    assert [each["event"] for each in said] == ["store_not_ready", "store_ready"]
    assert "S3_BUCKET" in said[0]["error"]
