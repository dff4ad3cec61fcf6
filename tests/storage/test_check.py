from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import boto3
import httpx
import pytest

from audiohook.errors import KeyExistsError, UploadError
from audiohook.storage.base import Part, StoredObject
from audiohook.storage.check import check_prefix, check_store
from audiohook.storage.policy import lifecycle_rule
from tests.seaweed import BUCKET, OWNER, READER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from audiohook.storage.base import Blob
    from audiohook.storage.s3 import S3Store
    from audiohook.verdict import Verdict
    from tests.seaweed import Seaweed
    from tests.storage.conftest import MakeStore

TRIALS = [
    "write an object",
    "read it back",
    "be told of one that is not there",
    "leave it alone when another is written (If-None-Match)",
    "upload an object in parts",
    "list uploads that nobody has finished",
    "fetch it by a signed address",
    "delete both",
]


@dataclass
class Bucket:
    """A store in memory, which can be made to fail in one thing."""

    fails: str = ""
    overwrites: bool = False
    damages: bool = False
    lists_nothing: bool = False
    keeps_versions: bool = False
    objects: dict[str, bytes] = field(default_factory=dict)
    parts: dict[int, bytes] = field(default_factory=dict)

    min_part_bytes = 5

    def _try(self, what: str) -> None:
        if self.fails == what:
            raise UploadError(f"no {what} today")

    async def put(
        self, key: str, blob: Blob, *, metadata: Mapping[str, str], token: str
    ) -> StoredObject:
        self._try("put")
        if key in self.objects and not self.overwrites:
            raise KeyExistsError(key)
        return await self.replace(key, blob, metadata=metadata, token=token)

    async def replace(
        self, key: str, blob: Blob, *, metadata: Mapping[str, str], token: str
    ) -> StoredObject:
        self.objects[key] = data = blob.read_at(0, blob.size_bytes)
        return StoredObject(key, len(data), hashlib.sha256(data).hexdigest())

    async def read(self, key: str) -> bytes | None:
        if key not in self.objects:
            self._try("read of nothing")
            return None
        self._try("read")
        return b"?" if self.damages else self.objects[key]

    async def begin(self, key: str, *, metadata: Mapping[str, str], token: str) -> str:
        return key

    async def put_part(self, key: str, upload_id: str, number: int, blob: Blob) -> Part:
        self._try("put_part")
        self.parts[number] = blob.read_at(0, blob.size_bytes)
        return Part(number, blob.size_bytes, "etag", "")

    async def list_uploads(self, key: str) -> list[str]:
        self._try("list_uploads")
        return []

    async def list_parts(self, key: str, upload_id: str) -> list[Part]:
        parts = {} if self.lists_nothing else self.parts
        return [Part(n, len(data), "etag", "") for n, data in parts.items()]

    async def complete(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        *,
        size: int,
        sha256: str,
        token: str,
    ) -> StoredObject:
        data = b"".join(self.parts[part.number] for part in parts)
        assert (size, sha256) == (len(data), hashlib.sha256(data).hexdigest())
        self.objects[key] = data
        return StoredObject(key, size, sha256)

    async def abort(self, key: str, upload_id: str) -> None:
        self.parts.clear()
        self._try("abort")

    async def delete(self, key: str) -> None:
        self._try("delete")
        self.objects.pop(key, None)

    async def purge(self, key: str) -> None:
        self._try("purge")
        if not self.keeps_versions:
            self.objects.pop(key, None)

    async def presign(self, key: str, seconds: int) -> str:
        self._try("presign")
        return f"https://bucket.s3.example.com/{key}"

    def serve(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=self.objects[request.url.path[1:]])


async def verdicts(
    bucket: Bucket, transport: httpx.AsyncBaseTransport | None = None
) -> list[Verdict]:
    transport = transport or httpx.MockTransport(bucket.serve)
    async with httpx.AsyncClient(transport=transport) as http:
        return [each async for each in check_store(bucket, "calls/", http=http)]


async def test_bucket_that_does_all_is_praised_and_left_empty() -> None:
    bucket = Bucket()
    found = await verdicts(bucket)
    assert [(each.ok, each.what, each.mend) for each in found] == [
        (True, what, "") for what in TRIALS
    ]
    assert bucket.objects == {}


@pytest.mark.parametrize(
    ("bucket", "mend"),
    [
        (Bucket(), ""),
        (Bucket(fails="purge"), "no purge today; calls of which only the transcript"),
        (Bucket(keeps_versions=True), "does not delete: use another"),
    ],
)
async def test_deletion_of_all_versions_is_tried_where_a_mode_needs_it(
    bucket: Bucket, mend: str
) -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(bucket.serve)) as http:
        found = [
            each async for each in check_store(bucket, "calls/", http=http, purges=True)
        ]
        brief = await check_prefix(bucket, "vip/", http=http, purges=True)
    assert [each.what for each in found] == [
        *TRIALS[:-1],
        "delete an object with all its versions",
        TRIALS[-1],
    ]
    assert [each.ok for each in (found[-2], brief)] == [not mend, not mend]
    assert mend in found[-2].mend
    assert mend in brief.mend


async def test_one_more_prefix_is_tried_and_left_empty() -> None:
    bucket = Bucket()
    async with httpx.AsyncClient() as http:
        good = await check_prefix(bucket, "vip/", http=http, purges=False)
        bucket.fails = "put"
        bad = await check_prefix(bucket, "vip/", http=http, purges=False)
    assert (good.ok, good.what) == (True, "write and delete an object")
    assert (bad.ok, bad.mend) == (False, "no put today")
    assert bucket.objects == {}


async def test_names_are_new_each_time_and_below_the_prefix() -> None:
    bucket = Bucket(fails="delete")
    await verdicts(bucket)
    await verdicts(bucket)
    assert len(bucket.objects) == 4
    assert all(key.startswith("calls/audiohook-check-") for key in bucket.objects)


@pytest.mark.parametrize(
    ("bucket", "trial", "mend"),
    [
        (Bucket(fails="read"), 1, "no read today"),
        (Bucket(damages=True), 1, "gives back something else"),
        (Bucket(fails="read of nothing"), 2, "s3:ListBucket"),
        (Bucket(fails="put_part"), 4, "no put_part today"),
        (Bucket(lists_nothing=True), 4, "does not list"),
        (Bucket(fails="abort"), 4, "no abort today"),
        (Bucket(fails="presign"), 6, "no presign today"),
    ],
)
async def test_one_fault_is_found_and_the_rest_is_tried(
    bucket: Bucket, trial: int, mend: str
) -> None:
    found = await verdicts(bucket)
    assert [each.what for each in found] == TRIALS
    assert [each.ok for each in found] == [n != trial for n in range(len(TRIALS))]
    assert mend in found[trial].mend
    assert not bucket.parts
    assert not bucket.objects


async def test_nothing_else_is_tried_if_nothing_can_be_written() -> None:
    (only,) = await verdicts(Bucket(fails="put"))
    assert not only.ok
    assert only.mend == "no put today"


async def test_store_that_overwrites_is_warned_of_and_its_object_restored() -> None:
    found = await verdicts(Bucket(overwrites=True))
    assert all(each.ok for each in found)
    assert "in spite of If-None-Match" in found[3].mend


async def test_permission_to_list_uploads_may_be_missing() -> None:
    found = await verdicts(Bucket(fails="list_uploads"))
    assert all(each.ok for each in found)
    assert "no list_uploads today; without it" in found[5].mend


async def test_object_that_cannot_be_deleted_is_named() -> None:
    bucket = Bucket(fails="delete")
    last = (await verdicts(bucket))[-1]
    assert last.ok
    assert all(key in last.mend for key in bucket.objects)


@pytest.mark.parametrize(
    ("response", "mend"),
    [
        (httpx.Response(403), "answers 403: set AWS_REGION"),
        (httpx.Response(503), "answers 503, a failure of its own: try it again"),
        (httpx.Response(200, content=b"?"), "something else"),
        (httpx.ConnectError("certificate verify failed"), "ConnectError"),
    ],
)
async def test_signed_address_that_does_not_work_is_found(
    response: httpx.Response | httpx.ConnectError, mend: str
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if isinstance(response, httpx.ConnectError):
            raise response
        return response

    found = (await verdicts(Bucket(), httpx.MockTransport(answer)))[6]
    assert not found.ok
    assert mend in found.mend
    assert "bucket.s3.example.com" in found.mend


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "10.0.0.7", "localhost", "s3.internal", "[::1]"]
)
async def test_address_that_only_we_can_reach_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    async def presign(self: Bucket, key: str, seconds: int) -> str:
        return f"http://{host}:8333/{key}"

    monkeypatch.setattr(Bucket, "presign", presign)
    found = (await verdicts(Bucket()))[6]
    assert found.ok
    assert "AssemblyAI cannot" in found.mend


@pytest.mark.slow
async def test_real_store_passes(s3: S3Store) -> None:
    async with httpx.AsyncClient() as http:
        found = [each async for each in check_store(s3, "calls/", http=http)]
    assert [(each.ok, each.what) for each in found] == [(True, what) for what in TRIALS]
    assert [each.what for each in found if each.mend] == [TRIALS[6]]


@pytest.mark.slow
async def test_real_store_that_denies_fails(
    seaweed: Seaweed, make_store: MakeStore
) -> None:
    store = make_store(seaweed.url, keys=READER)
    async with httpx.AsyncClient() as http:
        (only,) = [each async for each in check_store(store, "calls/", http=http)]
    assert not only.ok
    assert "is denied" in only.mend


@pytest.mark.slow
def test_real_store_takes_the_rule(seaweed: Seaweed) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=seaweed.url,
        aws_access_key_id=OWNER[0],
        aws_secret_access_key=OWNER[1],
        region_name="us-east-1",
    )
    rule = lifecycle_rule("calls/")
    client.put_bucket_lifecycle_configuration(
        Bucket=BUCKET, LifecycleConfiguration={"Rules": [rule]}
    )
    found = client.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    client.close()
    assert found == [rule]
