from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import trio

from audiohook.errors import UploadError, UploadGoneError
from audiohook.storage.base import MIB, StoredObject
from audiohook.storage.s3_client import S3Options
from tests.faultproxy import (
    INTERNAL_ERROR,
    SLOW_DOWN,
    Answer,
    Cut,
    Delay,
    FaultProxy,
    Hang,
    Reset,
    SwallowAnswer,
    Throttle,
)
from tests.storage.s3_tools import (
    HELLO,
    PatternBlob,
    complete,
    new_key,
    put,
    put_in_parts,
)

if TYPE_CHECKING:
    from audiohook.storage.s3 import S3Store
    from tests.storage.conftest import MakeStore

CONFLICT = Answer(409, "ConditionalRequestConflict")
pytestmark = pytest.mark.slow


async def test_put_of_which_nothing_is_known_is_recognized_the_next_time(
    store: S3Store, proxy: FaultProxy
) -> None:
    key = new_key()
    proxy.plan(SwallowAnswer(), method="PUT")
    proxy.plan(Reset(), method="HEAD")
    with pytest.raises(UploadError) as caught:
        await put(store, key)
    assert caught.value.fault == "away"
    assert caught.value.retryable
    assert (await put(store, key)).size == 5


async def test_part_whose_answer_is_lost_is_sent_again(
    store: S3Store, proxy: FaultProxy
) -> None:
    key = new_key()
    upload = await store.begin(key, metadata={}, token="t")
    proxy.plan(SwallowAnswer(), method="PUT")
    with pytest.raises(UploadError) as caught:
        await store.put_part(key, upload, 1, HELLO)
    assert caught.value.fault == "away"
    parts = [await store.put_part(key, upload, 1, HELLO)]
    assert len(await store.list_parts(key, upload)) == 1
    await complete(store, key, upload, parts)
    assert await store.read(key) == b"hello"


async def test_completion_whose_answer_is_lost_is_looked_up(
    store: S3Store, proxy: FaultProxy
) -> None:
    key = new_key()
    upload = await store.begin(key, metadata={}, token="t")
    parts = [await store.put_part(key, upload, 1, HELLO)]
    proxy.plan(SwallowAnswer(), method="POST")
    assert (await complete(store, key, upload, parts)).size == 5


async def test_completion_of_which_nothing_is_known_is_recognized_the_next_time(
    store: S3Store, proxy: FaultProxy
) -> None:
    key = new_key()
    upload = await store.begin(key, metadata={}, token="t")
    parts = [await store.put_part(key, upload, 1, HELLO)]
    proxy.plan(SwallowAnswer(), method="POST")
    proxy.plan(INTERNAL_ERROR, method="HEAD")
    with pytest.raises(UploadError) as caught:
        await complete(store, key, upload, parts)
    assert caught.value.retryable
    assert (await complete(store, key, upload, parts)).size == 5


async def test_upload_that_the_store_has_forgotten_once_complete_is_looked_up(
    store: S3Store, proxy: FaultProxy
) -> None:
    key = new_key()
    upload = await store.begin(key, metadata={}, token="t")
    parts = [await store.put_part(key, upload, 1, HELLO)]
    await complete(store, key, upload, parts)
    proxy.plan(Answer(404, "NoSuchUpload"), method="POST")
    assert (await complete(store, key, upload, parts)).size == 5


async def test_begin_whose_answer_is_lost_can_be_repeated(
    store: S3Store, proxy: FaultProxy
) -> None:
    proxy.plan(SwallowAnswer(), method="POST")
    with pytest.raises(UploadError) as caught:
        await store.begin(new_key(), metadata={}, token="t")
    assert caught.value.fault == "away"
    assert await store.begin(new_key(), metadata={}, token="t")


async def test_body_that_is_cut_leaves_nothing(
    store: S3Store, proxy: FaultProxy
) -> None:
    key = new_key()
    proxy.plan(Cut(100_000), method="PUT")
    with pytest.raises(UploadError) as caught:
        await put(store, key, bytes(MIB))
    assert caught.value.fault == "away"
    assert await store.head(key) is None
    await put(store, key, bytes(MIB))


async def test_put_is_tried_again_when_another_request_is_under_way(
    store: S3Store, proxy: FaultProxy
) -> None:
    proxy.plan(CONFLICT, method="PUT")
    assert (await put(store, new_key())).size == 5
    assert proxy.count("PUT") == 2
    proxy.plan(CONFLICT, method="PUT", times=2)
    with pytest.raises(UploadError) as caught:
        await put(store, new_key())
    assert caught.value.fault == "busy"
    assert caught.value.retryable


async def test_upload_begins_anew_when_another_request_is_under_way(
    store: S3Store, proxy: FaultProxy
) -> None:
    proxy.plan(CONFLICT, method="POST", target="uploadId=")
    with pytest.raises(UploadGoneError):
        await put_in_parts(store, new_key())


async def test_object_that_was_taken_and_is_gone_is_put_after_all(
    store: S3Store, proxy: FaultProxy
) -> None:
    proxy.plan(Answer(412, "PreconditionFailed"), method="PUT")
    assert (await put(store, new_key())).size == 5


async def test_role_that_may_only_write_can_complete_an_upload(
    store: S3Store, proxy: FaultProxy
) -> None:
    proxy.plan(Answer(403, "AccessDenied"), method="HEAD")
    assert (await put_in_parts(store, new_key())).size == 5
    proxy.plan(INTERNAL_ERROR, method="HEAD")
    with pytest.raises(UploadError):
        await put_in_parts(store, new_key())


async def test_role_that_may_only_write_is_told_when_it_has_to_know(
    store: S3Store, proxy: FaultProxy
) -> None:
    key = new_key()
    await put(store, key)
    proxy.plan(Answer(403, "AccessDenied"), method="HEAD")
    with pytest.raises(UploadError, match="HeadObject") as caught:
        await put(store, key)
    assert caught.value.fault == "denied"


async def test_slow_link_is_not_taken_for_a_broken_one(
    proxy: FaultProxy, make_store: MakeStore
) -> None:
    # The whole takes four times as long as the limit, which is for pieces of it.
    store = make_store(proxy.url, options=S3Options(connect_limit=1.0))
    key = new_key()
    upload = await store.begin(key, metadata={}, token="t")
    proxy.plan(Throttle(6 * MIB), method="PUT")
    part = await store.put_part(key, upload, 1, PatternBlob(24 * MIB))
    assert part.size == 24 * MIB


async def test_cancelled_put_does_not_wait_for_the_network(
    proxy: FaultProxy, make_store: MakeStore
) -> None:
    # Longer than the test is let wait.
    store = make_store(proxy.url, options=S3Options(silence_limit=60.0))
    key = new_key()
    proxy.plan(Hang(), method="PUT")
    with trio.fail_after(30):
        with trio.move_on_after(0.2) as scope:
            await put(store, key)
    assert scope.cancelled_caught
    assert await store.head(key) is None


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_the_network_does_every_object_is_stored_once(
    proxy: FaultProxy, make_store: MakeStore, seed: int
) -> None:
    store = make_store(
        proxy.url, options=S3Options(connect_limit=0.5, silence_limit=0.5)
    )
    faults = [
        SwallowAnswer(),
        Reset(),
        Cut(0),
        Cut(3 * MIB),
        SLOW_DOWN,
        INTERNAL_ERROR,
        Hang(),
        Delay(0.05),
    ]
    dice = random.Random(seed)
    blobs = {new_key(): PatternBlob(dice.choice([9, MIB, 9 * MIB])) for _ in range(12)}
    stored: dict[str, StoredObject] = {}
    failures: list[UploadError] = []

    async def deliver(key: str, blob: PatternBlob) -> None:
        while key not in stored:
            try:
                stored[key] = await store.put(key, blob, metadata={}, token=key)
            except UploadError as exc:
                failures.append(exc)

    proxy.at_random(seed, 0.4, faults)
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            for key, blob in blobs.items():
                nursery.start_soon(deliver, key, blob)
    proxy.be_kind()
    assert failures
    assert [exc for exc in failures if not exc.retryable] == []
    for key, blob in blobs.items():
        assert stored[key] == StoredObject(key, blob.size_bytes, blob.sha256())
        assert await store.read(key) == blob.read_at(0, blob.size_bytes)
