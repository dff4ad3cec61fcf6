from __future__ import annotations

import hashlib
import tracemalloc
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from audiohook.errors import KeyExistsError, SpoolError, UploadError, UploadGoneError
from audiohook.storage.base import MIB, BytesBlob, Part, StoredObject
from audiohook.storage.s3_client import S3Options, connect
from tests.faultproxy import INTERNAL_ERROR, SLOW_DOWN, Delay, FaultProxy
from tests.seaweed import BUCKET, Seaweed
from tests.storage.s3_tools import (
    HELLO,
    PatternBlob,
    complete,
    new_key,
    plain_client,
    put,
    put_in_parts,
)

if TYPE_CHECKING:
    from audiohook.storage.s3 import S3Store
    from tests.storage.conftest import MakeStore

pytestmark = pytest.mark.slow


async def test_put_of_the_same_again_changes_nothing(s3: S3Store) -> None:
    key = new_key()
    assert await put(s3, key) == await put(s3, key)


async def test_put_stores_an_empty_object(s3: S3Store) -> None:
    key = new_key()
    assert (await put(s3, key, b"")).size == 0
    assert await s3.read(key) == b""


async def test_nothing_is_found_where_nothing_is(s3: S3Store) -> None:
    assert await s3.read(new_key()) is None
    assert await s3.head(new_key()) is None
    await s3.delete(new_key())


async def test_delete_deletes(s3: S3Store) -> None:
    key = new_key()
    await put(s3, key)
    await s3.delete(key)
    assert await s3.head(key) is None


async def test_read_refuses_what_is_too_large(
    s3: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audiohook.storage.s3_requests.READ_LIMIT_BYTES", 4)
    key = new_key()
    await put(s3, key)
    with pytest.raises(UploadError, match="too large"):
        await s3.read(key)


async def test_put_does_not_take_anothers_object_for_its_own(s3: S3Store) -> None:
    key = new_key()
    await put(s3, key, token="theirs")
    with pytest.raises(KeyExistsError):
        await put(s3, key, token="ours")


async def test_replace_overwrites(s3: S3Store) -> None:
    key = new_key()
    await put(s3, key)
    blob = BytesBlob(b"other")
    stored = await s3.replace(key, blob, metadata={}, token="another")
    assert stored.sha256 == hashlib.sha256(b"other").hexdigest()
    assert await s3.read(key) == b"other"


async def test_metadata_of_any_characters_is_kept(s3: S3Store) -> None:
    key, other = new_key(), new_key()
    metadata = {"ani": "Zoë", "start-time": "2026-11-22T14-10-44.123Z"}
    await s3.put(key, HELLO, metadata=metadata, token="Ω")
    upload = await s3.begin(other, metadata=metadata, token="Ω")
    await complete(s3, other, upload, [await s3.put_part(other, upload, 1, HELLO)], "Ω")
    for each in (key, other):
        found = await s3.head(each)
        assert found is not None
        assert found.metadata["ani"] == "Zo%C3%AB"
        assert found.metadata["start-time"] == "2026-11-22T14-10-44.123Z"
        assert found.metadata["audiohook-session"] == "%CE%A9"
    # It is still known to be ours.
    await s3.put(key, HELLO, metadata=metadata, token="Ω")


async def test_options_reach_the_store(seaweed: Seaweed, make_store: MakeStore) -> None:
    options = S3Options(
        encryption="AES256",
        storage_class="STANDARD_IA",
        tags={"team": "contact centre", "a&b": "ü"},
        expected_bucket_owner="123456789012",
    )
    store = make_store(seaweed.url, options=options)
    keys = new_key(), new_key()
    await put(store, keys[0])
    await put_in_parts(store, keys[1])
    client = connect(1, S3Options())
    for key in keys:
        head = client.head_object(Bucket=BUCKET, Key=key)
        assert dict(head)["ServerSideEncryption"] == "AES256"
        assert dict(head)["StorageClass"] == "STANDARD_IA"
        assert dict(head)["ContentType"] == "audio/wav"
        tags = plain_client(seaweed).get_object_tagging(Bucket=BUCKET, Key=key)
        assert {each["Key"]: each["Value"] for each in tags["TagSet"]} == dict(
            options.tags
        )
    client.close()


async def test_signed_address_fetches_an_object_until_it_expires(s3: S3Store) -> None:
    key = new_key()
    await put(s3, key)
    url = await s3.presign(key, 60)
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in url
    assert "X-Amz-Expires=60&" in url
    async with httpx.AsyncClient() as http:
        assert (await http.get(url)).content == b"hello"
        other = url.replace(key, new_key())
        assert (await http.get(other)).status_code == 403
    for seconds in (0, 604_801):
        with pytest.raises(ValueError, match="seven days"):
            await s3.presign(key, seconds)


async def test_large_object_is_put_in_parts(store: S3Store, proxy: FaultProxy) -> None:
    key, blob = new_key(), PatternBlob(17 * MIB + 1)
    stored = await store.put(key, blob, metadata={"a": "b"}, token="t")
    assert stored == StoredObject(key, blob.size_bytes, blob.sha256())
    assert proxy.count("PUT", "partNumber=") == 3
    assert await store.read(key) == blob.read_at(0, blob.size_bytes)
    found = await store.head(key)
    assert found is not None
    assert found.metadata["a"] == "b"
    again = await store.put(key, blob, metadata={"a": "b"}, token="t")
    assert again == stored
    with pytest.raises(KeyExistsError):
        await store.put(key, blob, metadata={}, token="another")
    smaller = PatternBlob(9 * MIB)
    await store.replace(key, smaller, metadata={}, token="x")
    assert await store.read(key) == smaller.read_at(0, smaller.size_bytes)


async def test_large_object_is_never_in_memory_as_a_whole(s3: S3Store) -> None:
    await put(s3, new_key())
    tracemalloc.start()
    try:
        await s3.put(new_key(), PatternBlob(48 * MIB), metadata={}, token="t")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * MIB


async def test_large_object_that_fails_leaves_no_parts(
    store: S3Store, proxy: FaultProxy, seaweed: Seaweed
) -> None:
    key = new_key()
    proxy.plan(SLOW_DOWN, target="partNumber=2")
    with pytest.raises(UploadError):
        await store.put(key, PatternBlob(9 * MIB), metadata={}, token="t")
    assert proxy.count("DELETE", "uploadId=") == 1
    listed = plain_client(seaweed).list_multipart_uploads(Bucket=BUCKET, Prefix=key)
    assert not listed.get("Uploads")


async def test_large_object_whose_parts_cannot_be_given_up_says_what_failed_first(
    store: S3Store, proxy: FaultProxy
) -> None:
    proxy.plan(SLOW_DOWN, target="partNumber=2")
    proxy.plan(INTERNAL_ERROR, method="DELETE")
    with pytest.raises(UploadError, match="SlowDown"):
        await store.put(new_key(), PatternBlob(9 * MIB), metadata={}, token="t")


async def test_parts_in_any_order_make_an_object(s3: S3Store) -> None:
    key = new_key()
    first, second, last = PatternBlob(5 * MIB), PatternBlob(6 * MIB), BytesBlob(b"end")
    upload = await s3.begin(key, metadata={}, token="t")
    parts = [
        await s3.put_part(key, upload, 7, last),
        await s3.put_part(key, upload, 2, second),
        await s3.put_part(key, upload, 1, BytesBlob(b"replaced later")),
        await s3.put_part(key, upload, 1, first),
    ]
    del parts[2]
    parts.sort(key=lambda part: part.number)
    listed = await s3.list_parts(key, upload)
    # SeaweedFS tells no checksums, and lists a part beside the one it replaced.
    assert listed == [replace(part, crc32="") for part in parts[1:]]
    stored = await complete(s3, key, upload, parts)
    assert stored == StoredObject(key, 11 * MIB + 3, "as told")
    data = await s3.read(key)
    assert data is not None
    assert data[: 5 * MIB] == first.read_at(0, 5 * MIB)
    assert data[5 * MIB : -3] == second.read_at(0, 6 * MIB)
    assert data[-3:] == b"end"


async def test_part_sent_twice_is_listed_once(s3: S3Store) -> None:
    key = new_key()
    upload = await s3.begin(key, metadata={}, token="t")
    first = await s3.put_part(key, upload, 1, HELLO)
    assert await s3.put_part(key, upload, 1, HELLO) == first
    assert await s3.list_parts(key, upload) == [replace(first, crc32="")]


async def test_uploads_to_a_key_are_listed(s3: S3Store) -> None:
    key = new_key()
    assert await s3.list_uploads(key) == []
    uploads = {await s3.begin(key, metadata={}, token=str(n)) for n in range(2)}
    # Its name begins with the other's.
    longer = f"{key}.wav"
    other = await s3.begin(longer, metadata={}, token="t")
    assert set(await s3.list_uploads(key)) == uploads
    assert await s3.list_uploads(longer) == [other]
    assert await s3.list_uploads(new_key()) == []
    for upload in uploads:
        await s3.abort(key, upload)
    assert await s3.list_uploads(key) == []


async def test_completion_that_the_store_refuses_says_why(s3: S3Store) -> None:
    key = new_key()
    upload = await s3.begin(key, metadata={}, token="t")
    part = await s3.put_part(key, upload, 1, HELLO)
    with pytest.raises(UploadError, match="InvalidRequest") as caught:
        await complete(s3, key, upload, [replace(part, crc32="")])
    assert not caught.value.retryable


async def test_object_of_another_length_than_said_is_not_taken_for_ours(
    s3: S3Store,
) -> None:
    key = new_key()
    upload = await s3.begin(key, metadata={}, token="t")
    parts = [await s3.put_part(key, upload, 1, HELLO)]
    with pytest.raises(KeyExistsError):
        await s3.complete(key, upload, parts, size=6, sha256="", token="t")


async def test_upload_to_a_key_that_was_taken_meanwhile_fails(s3: S3Store) -> None:
    key = new_key()
    await put(s3, key, token="theirs")
    with pytest.raises(KeyExistsError):
        await put_in_parts(s3, key, token="ours")
    assert await s3.read(key) == b"hello"


async def test_upload_that_was_given_up_is_gone(s3: S3Store) -> None:
    key = new_key()
    upload = await s3.begin(key, metadata={}, token="t")
    parts = [await s3.put_part(key, upload, 1, HELLO)]
    await s3.abort(key, upload)
    await s3.abort(key, upload)
    for call in (
        s3.put_part(key, upload, 2, HELLO),
        s3.list_parts(key, upload),
        complete(s3, key, upload, parts),
    ):
        with pytest.raises(UploadGoneError) as caught:
            await call
        assert caught.value.key == key
    assert await s3.head(key) is None


async def test_part_that_the_store_does_not_have_asks_for_a_new_upload(
    s3: S3Store,
) -> None:
    key = new_key()
    upload = await s3.begin(key, metadata={}, token="t")
    with pytest.raises(UploadGoneError):
        await complete(s3, key, upload, [Part(1, 5, '"0123"', "")])


@dataclass
class Gauge:
    """Counts blobs that were begun to be read and are not yet done with."""

    now: int = 0
    most: int = 0
    blobs: list[CountedBlob] = field(default_factory=list)


@dataclass
class CountedBlob:
    gauge: Gauge
    size_bytes: int = 10

    def read_at(self, offset: int, length: int) -> bytes:
        self.gauge.now += 1
        self.gauge.most = max(self.gauge.most, self.gauge.now)
        return b"0123456789"[offset : offset + length]


async def test_no_more_parts_are_in_memory_than_requests_are_allowed(
    proxy: FaultProxy, make_store: MakeStore
) -> None:
    store = make_store(proxy.url, parallel=2)
    key, gauge = new_key(), Gauge()
    upload = await store.begin(key, metadata={}, token="t")
    proxy.plan(Delay(0.05), method="PUT", times=6)

    async def send(number: int) -> None:
        await store.put_part(key, upload, number, CountedBlob(gauge))
        gauge.now -= 1

    async with trio.open_nursery() as nursery:
        for number in range(1, 7):
            nursery.start_soon(send, number)
    assert gauge.most == 2


async def test_blob_that_is_shorter_than_it_says_is_not_stored(s3: S3Store) -> None:
    class Short(BytesBlob):
        @property
        def size_bytes(self) -> int:
            return 9

    key = new_key()
    with pytest.raises(UploadError, match="ends at 5 of 9 bytes"):
        await s3.put(key, Short(b"hello"), metadata={}, token="t")
    assert await s3.head(key) is None


async def test_blob_that_cannot_be_read_says_so(s3: S3Store) -> None:
    class Broken(BytesBlob):
        def read_at(self, offset: int, length: int) -> bytes:
            raise SpoolError("bad disk")

    with pytest.raises(SpoolError, match="bad disk"):
        await s3.put(new_key(), Broken(b"hello"), metadata={}, token="t")
