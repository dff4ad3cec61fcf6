from __future__ import annotations

import pytest
import trio

from audiohook.errors import KeyExistsError, UploadError
from audiohook.storage.base import Part, StoredObject
from audiohook.storage.s3 import S3Store
from audiohook.storage.s3_client import S3Options
from tests.faultproxy import FaultProxy, SwallowAnswer
from tests.seaweed import BUCKET
from tests.storage.s3_tools import (
    HELLO,
    HELLO_SHA256,
    complete,
    new_key,
    put,
    put_in_parts,
)


async def test_put_stores_an_object_that_can_be_read_back(s3: S3Store) -> None:
    key = new_key()
    assert await put(s3, key) == StoredObject(key, 5, HELLO_SHA256)
    assert await s3.read(key) == b"hello"


@pytest.mark.parametrize("other", [b"hellO", b"hello!"])
async def test_put_leaves_what_is_there_alone(s3: S3Store, other: bytes) -> None:
    key = new_key()
    await put(s3, key)
    with pytest.raises(KeyExistsError) as caught:
        await put(s3, key, other)
    assert caught.value.key == key
    assert await s3.read(key) == b"hello"


async def test_completing_twice_is_no_fault(s3: S3Store) -> None:
    key = new_key()
    upload = await s3.begin(key, metadata={}, token="t")
    parts = [await s3.put_part(key, upload, 1, HELLO)]
    once = await complete(s3, key, upload, parts)
    assert await complete(s3, key, upload, parts) == once


async def test_put_whose_answer_is_lost_is_looked_up(
    store: S3Store, proxy: FaultProxy
) -> None:
    key = new_key()
    proxy.plan(SwallowAnswer(), method="PUT")
    assert await put(store, key) == StoredObject(key, 5, HELLO_SHA256)
    assert proxy.count("PUT") == 1


@pytest.mark.parametrize("way", [put, put_in_parts])
async def test_of_many_writers_one_wins_and_the_others_are_told(
    s3: S3Store, way: object
) -> None:
    assert callable(way)
    key = new_key()
    won: list[int] = []
    lost: list[int] = []

    async def write(number: int) -> None:
        try:
            await way(s3, key, b"%d" % number, f"token {number}")
            won.append(number)
        except KeyExistsError:
            lost.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(write, number)
    assert len(won) == 1
    assert len(lost) == 7
    assert await s3.read(key) == b"%d" % won[0]


async def test_key_that_is_no_path_is_refused_before_anything_is_sent(
    aws: pytest.MonkeyPatch,
) -> None:
    store = S3Store(BUCKET)
    for call in (
        put(store, "a/../b"),
        store.read("/a"),
        store.head(""),
        store.delete("ü"),
        store.presign("a b", 60),
        store.begin(".a", metadata={}, token="t"),
        store.put_part("//", "id", 1, HELLO),
        store.list_parts("//", "id"),
        complete(store, "//", "id", []),
        store.abort("//", "id"),
    ):
        with pytest.raises(UploadError, match="single slashes"):
            await call


def test_kms_key_goes_with_its_encryption_only() -> None:
    kms = S3Options(encryption="aws:kms", kms_key_id="arn:aws:kms:x")
    assert kms.for_object("calls/x/call.json") == {
        "ServerSideEncryption": "aws:kms",
        "SSEKMSKeyId": "arn:aws:kms:x",
    }
    with pytest.raises(ValueError, match="aws:kms"):
        S3Options(encryption="AES256", kms_key_id="arn:aws:kms:x")


class PagingClient:
    """Lists five parts, two at a time."""

    def list_parts(self, *, PartNumberMarker: int, **_: object) -> object:
        numbers = [n for n in (1, 2, 5, 9, 10) if n > PartNumberMarker]
        entries = [
            {"PartNumber": n, "Size": n, "ETag": f'"{n}"', "ChecksumCRC32": "AAAAAA=="}
            for n in numbers[:2]
        ]
        return {"Parts": entries, "IsTruncated": len(numbers) > 2}


async def test_all_pages_of_parts_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    store = S3Store(BUCKET)
    monkeypatch.setattr(store._requests, "_client", PagingClient())
    parts = await store.list_parts("a", "upload")
    assert parts == [Part(n, n, f'"{n}"', "AAAAAA==") for n in (1, 2, 5, 9, 10)]


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("eu-central-1", "recordings.s3.eu-central-1.amazonaws.com"),
        ("us-east-1", "recordings.s3.us-east-1.amazonaws.com"),
        ("cn-north-1", "recordings.s3.cn-north-1.amazonaws.com.cn"),
    ],
)
async def test_address_at_amazon_names_the_bucket_and_its_region(
    aws: pytest.MonkeyPatch, region: str, host: str
) -> None:
    aws.setenv("AWS_DEFAULT_REGION", region)
    aws.setenv("AWS_ACCESS_KEY_ID", "AKID")
    aws.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    url = await S3Store(BUCKET).presign("calls/a.wav", 60)
    assert url.startswith(f"https://{host}/calls/a.wav?X-Amz-Algorithm=AWS4-HMAC")
