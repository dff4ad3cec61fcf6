"""Deletion with all versions, in a real bucket."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from audiohook.errors import UploadError
from audiohook.storage.layout import in_bucket
from audiohook.storage.s3_buckets import S3Buckets
from tests.faultproxy import Answer, FaultProxy
from tests.seaweed import BUCKET
from tests.storage.s3_tools import plain_client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.seaweed import Seaweed
    from tests.storage.conftest import MakeStore

KEY = "calls/a/audio/a.wav"
LONGER = f"{KEY}2"


@pytest.fixture
def client(seaweed: Seaweed) -> Iterator[Any]:
    made = plain_client(seaweed)
    yield made
    made.close()


def new_bucket(client: Any, *, versions: bool = True, lock: bool = False) -> str:  # noqa: ANN401
    name = f"purge-{uuid.uuid4()}"
    client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=lock)
    if versions:
        client.put_bucket_versioning(
            Bucket=name, VersioningConfiguration={"Status": "Enabled"}
        )
    return name


def fill(client: Any, bucket: str) -> None:  # noqa: ANN401
    for key in (KEY, LONGER):
        for text in (b"1", b"2"):
            client.put_object(Bucket=bucket, Key=key, Body=text)
        client.delete_object(Bucket=bucket, Key=key)
        client.put_object(Bucket=bucket, Key=key, Body=b"3")
        client.create_multipart_upload(Bucket=bucket, Key=key)


def traces_of(client: Any, bucket: str) -> list[str]:  # noqa: ANN401
    page = client.list_object_versions(Bucket=bucket)
    uploads = client.list_multipart_uploads(Bucket=bucket)
    return [
        each["Key"]
        for found in (
            page.get("Versions", []),
            page.get("DeleteMarkers", []),
            uploads.get("Uploads", []),
        )
        for each in found
    ]


@pytest.mark.parametrize(("versions", "longer"), [(True, 5), (False, 2)])
async def test_all_of_one_object_goes_and_nothing_else(
    seaweed: Seaweed,
    make_store: MakeStore,
    client: Any,  # noqa: ANN401
    *,
    versions: bool,
    longer: int,
) -> None:
    bucket = new_bucket(client, versions=versions)
    fill(client, bucket)
    store = make_store(seaweed.url, bucket=bucket)
    for _ in range(2):
        await store.purge(KEY)
        assert traces_of(client, bucket) == [LONGER] * longer


async def test_it_is_in_the_bucket_that_the_key_names(
    seaweed: Seaweed,
    make_store: MakeStore,
    client: Any,  # noqa: ANN401
) -> None:
    ours, theirs = new_bucket(client), new_bucket(client)
    for each in (ours, theirs):
        fill(client, each)
    make_store(seaweed.url)
    store = S3Buckets(ours)
    await store.purge(in_bucket(theirs, KEY))
    assert KEY not in traces_of(client, theirs)
    assert traces_of(client, ours).count(KEY) == 5
    await store.purge(KEY)
    assert KEY not in traces_of(client, ours)
    store.close()


async def test_what_is_locked_is_said_and_hidden(
    seaweed: Seaweed,
    make_store: MakeStore,
    client: Any,  # noqa: ANN401
) -> None:
    bucket = new_bucket(client, lock=True)
    client.put_object(
        Bucket=bucket,
        Key=KEY,
        Body=b"voice",
        ObjectLockMode="COMPLIANCE",
        ObjectLockRetainUntilDate=datetime.now(UTC) + timedelta(minutes=1),
    )
    store = make_store(seaweed.url, bucket=bucket)
    for _ in range(2):
        with pytest.raises(UploadError, match="Object Lock keeps it until 20") as info:
            await store.purge(KEY)
        assert not info.value.retryable
        # One version, and one marker that does not become more.
        assert traces_of(client, bucket) == [KEY, KEY]
        assert await store.read(KEY) is None


async def test_a_role_that_may_not_list_versions_deletes_nothing(
    proxy: FaultProxy,
    make_store: MakeStore,
    client: Any,  # noqa: ANN401
) -> None:
    key = f"calls/{uuid.uuid4()}/audio/x.wav"
    client.put_object(Bucket=BUCKET, Key=key, Body=b"voice")
    proxy.plan(Answer(403, "AccessDenied"), method="GET", times=1)
    store = make_store(proxy.url)
    with pytest.raises(UploadError, match=r"ListObjectVersions in bucket .* denied"):
        await store.purge(key)
    assert await store.read(key) == b"voice"
    await store.purge(key)
    assert await store.read(key) is None
