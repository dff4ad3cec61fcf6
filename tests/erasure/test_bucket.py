"""Erasure from a real bucket: versions, markers, uploads and locks."""

from __future__ import annotations

import uuid
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import structlog
import trio

from audiohook.erasure.eraser import Eraser
from audiohook.erasure.ledger import Ledger
from audiohook.erasure.places import Place
from audiohook.storage.policy import iam_policy
from audiohook.storage.s3 import S3Store
from tests.faultproxy import INTERNAL_ERROR, Answer, FaultProxy
from tests.seaweed import Seaweed, reach, seaweed
from tests.storage.s3_tools import plain_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from audiohook.erasure.eraser import Standing

__all__ = ["seaweed"]

MINE = "5e55a0e5-0000-4000-8000-000000000001"
PARTICIPANT = "5e55a0e5-0000-4000-8000-00000000000a"


class NoIndex:
    """Forgets, and knows how often it was asked."""

    def __init__(self) -> None:
        self.erased = 0

    async def erase(self, conversation: str, session: str | None = None) -> int:
        self.erased += 1
        return 0


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch, seaweed: Seaweed) -> None:
    monkeypatch.setattr("audiohook.erasure.eraser._FIRST_PAUSE", 0.05)
    reach(seaweed, monkeypatch)


@pytest.fixture
def client(seaweed: Seaweed) -> Iterator[Any]:
    made = plain_client(seaweed)
    yield made
    made.close()


def new_bucket(client: Any, *, lock: bool = False) -> str:  # noqa: ANN401
    name = f"erase-{uuid.uuid4()}"
    client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=lock)
    client.put_bucket_versioning(
        Bucket=name, VersioningConfiguration={"Status": "Enabled"}
    )
    return name


def name_of(conversation: str = MINE, number: int = 1) -> str:
    return f"2026-11-2{number}T14-10-44.123Z_{conversation}_{PARTICIPANT}"


def everything(client: Any, bucket: str) -> set[tuple[str, str, str]]:  # noqa: ANN401
    """All versions, markers and uploads."""
    page = client.list_object_versions(Bucket=bucket)
    assert not page["IsTruncated"]
    uploads = client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    return {
        *(("v", each["Key"], each["VersionId"]) for each in page.get("Versions", [])),
        *(
            ("m", each["Key"], each["VersionId"])
            for each in page.get("DeleteMarkers", [])
        ),
        *(("u", each["Key"], each["UploadId"]) for each in uploads),
    }


@asynccontextmanager
async def eraser_of(
    tmp_path: Path, bucket: str, index: NoIndex | None = None
) -> AsyncIterator[Eraser]:
    store = S3Store(bucket)
    yield Eraser(
        Ledger(tmp_path),
        spool=tmp_path,
        places=lambda: [Place("the bucket", store.traces, "calls/")],
        index=index or NoIndex(),
        account=None,
        log=structlog.get_logger("audiohook"),
    )
    store.close()


async def erase(eraser: Eraser, conversation: str = MINE) -> Standing:
    reference = await eraser.order(conversation, by="me", end=False)
    with trio.fail_after(20):
        standing = await eraser.pursue(reference)
    assert standing is not None
    return standing


async def test_all_versions_markers_and_uploads_go_and_nobody_elses(
    tmp_path: Path,
    client: Any,  # noqa: ANN401
) -> None:
    bucket = new_bucket(client)
    mine = f"calls/{name_of()}"
    # One that begins alike, one of the same day, and one that is longer.
    others = [
        f"calls/{name_of(MINE[:-1] + '2')}",
        f"calls/{name_of(str(uuid.uuid4()))}",
        f"calls/{name_of()}0",
    ]
    for folder in (mine, *others):
        for file in ("call.json", "audio/x.wav", "peaks/x.bin", "dialogue.jsonl"):
            for version in (b"1", b"22"):
                client.put_object(Bucket=bucket, Key=f"{folder}/{file}", Body=version)
        client.delete_object(Bucket=bucket, Key=f"{folder}/call.json")
        key = f"{folder}/audio/y.wav"
        client.create_multipart_upload(Bucket=bucket, Key=key)
    # A second recording, of which only older versions and an upload are left.
    ghost = f"calls/{name_of(number=2)}"
    client.put_object(Bucket=bucket, Key=f"{ghost}/call.json", Body=b"1")
    client.delete_object(Bucket=bucket, Key=f"{ghost}/call.json")
    half = f"calls/{name_of(number=3)}/audio/z.wav"
    client.create_multipart_upload(Bucket=bucket, Key=half)
    before = everything(client, bucket)
    index = NoIndex()
    async with eraser_of(tmp_path, bucket, index) as eraser:
        standing = await erase(eraser)
    assert standing.done
    assert standing.kept == ()
    assert index.erased == 1
    left = everything(client, bucket)
    expected = {
        each for each in before if any(f"{each[1]}".startswith(f"{o}/") for o in others)
    }
    assert left == expected
    counts = standing.counts
    assert (counts.recordings, counts.versions) == (3, 9)
    assert (counts.markers, counts.uploads, counts.bytes) == (2, 2, 4 * 3 + 1)


async def test_a_lock_is_said_and_what_it_keeps_is_hidden_until_it_ends(
    tmp_path: Path,
    client: Any,  # noqa: ANN401
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket = new_bucket(client, lock=True)
    locked, free = f"calls/{name_of()}/audio/x.wav", f"calls/{name_of()}/call.json"
    made = client.put_object(
        Bucket=bucket,
        Key=locked,
        Body=b"voice",
        ObjectLockMode="GOVERNANCE",
        ObjectLockRetainUntilDate=datetime.now(UTC) + timedelta(hours=1),
    )
    client.put_object(Bucket=bucket, Key=free, Body=b"{}")
    async with eraser_of(tmp_path, bucket) as eraser:
        standing = await erase(eraser)
        assert not standing.done
        (line,) = standing.kept
        assert locked in line
        assert "Object Lock keeps it until 20" in line
        assert {kind for kind, _, _ in everything(client, bucket)} == {"v", "m"}
        with pytest.raises(client.exceptions.NoSuchKey):
            client.get_object(Bucket=bucket, Key=locked)
        # Asked once more at once it is said again, and nothing piles up.
        assert (await erase(eraser)).kept == standing.kept
        assert len(everything(client, bucket)) == 2
        # As if the hour were over.
        until = datetime.now(UTC) + timedelta(seconds=3)
        client.put_object_retention(
            Bucket=bucket,
            Key=locked,
            VersionId=made["VersionId"],
            Retention={"Mode": "GOVERNANCE", "RetainUntilDate": until},
            BypassGovernanceRetention=True,
        )
        await trio.sleep((until - datetime.now(UTC)).total_seconds() + 1)
        assert (await erase(eraser)).done
    assert everything(client, bucket) == set()


async def test_a_legal_hold_is_said(tmp_path: Path, client: Any) -> None:  # noqa: ANN401
    bucket = new_bucket(client, lock=True)
    key = f"calls/{name_of()}/audio/x.wav"
    held = client.put_object(
        Bucket=bucket, Key=key, Body=b"voice", ObjectLockLegalHoldStatus="ON"
    )
    async with eraser_of(tmp_path, bucket) as eraser:
        (line,) = (await erase(eraser)).kept
        assert "legal hold" in line
        client.put_object_legal_hold(
            Bucket=bucket,
            Key=key,
            VersionId=held["VersionId"],
            LegalHold={"Status": "OFF"},
        )
        assert (await erase(eraser)).done
    assert everything(client, bucket) == set()


async def test_a_role_that_may_not_is_said_and_asked_again(
    tmp_path: Path,
    client: Any,  # noqa: ANN401
    seaweed: Seaweed,
    monkeypatch: pytest.MonkeyPatch,
    nursery: trio.Nursery,
) -> None:
    bucket = new_bucket(client)
    key = f"calls/{name_of()}/audio/x.wav"
    client.put_object(Bucket=bucket, Key=key, Body=b"voice")
    proxy = FaultProxy(seaweed.port)
    await nursery.start(proxy.serve)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
    proxy.plan(Answer(403, "AccessDenied"), method="DELETE", times=100)
    async with eraser_of(tmp_path, bucket) as eraser:
        standing = await erase(eraser)
        # To hide it was denied as well.
        assert not standing.done
        assert "denied" in standing.kept[0]
        proxy.be_kind()
        assert (await erase(eraser)).done
    assert everything(client, bucket) == set()
    nursery.cancel_scope.cancel()


async def test_a_store_that_fails_is_asked_again(
    tmp_path: Path,
    client: Any,  # noqa: ANN401
    seaweed: Seaweed,
    monkeypatch: pytest.MonkeyPatch,
    nursery: trio.Nursery,
) -> None:
    bucket = new_bucket(client)
    for number in range(10):
        key = f"calls/{name_of()}/audio/{number}.wav"
        client.put_object(Bucket=bucket, Key=key, Body=b"voice")
    proxy = FaultProxy(seaweed.port)
    await nursery.start(proxy.serve)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
    proxy.at_random(1, 0.2, [INTERNAL_ERROR])
    async with eraser_of(tmp_path, bucket) as eraser:
        assert (await erase(eraser)).done
    assert everything(client, bucket) == set()
    nursery.cancel_scope.cancel()


def test_the_policy_may_allow_it() -> None:
    plain = iam_policy("b", "calls/")
    allowing = iam_policy("b", "calls/", erase=True)
    actions = {
        action
        for each in allowing["Statement"]  # type: ignore[attr-defined]
        if each not in plain["Statement"]  # type: ignore[operator]
        for action in each["Action"]
    }
    assert actions == {
        "s3:DeleteObject",
        "s3:DeleteObjectVersion",
        "s3:GetObjectVersion",
        "s3:GetObjectRetention",
        "s3:GetObjectLegalHold",
        "s3:ListBucketVersions",
    }
