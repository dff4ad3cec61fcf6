"""What was kept for its time goes, and all that knows of it follows."""

from __future__ import annotations

import json
import os
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import structlog
import trio

from audiohook.erasure.places import Place
from audiohook.index.keeper import CallIndex
from audiohook.keys import KeyRecord
from audiohook.recording.spool import Spool
from audiohook.retention.keeper import Retention
from audiohook.retention.terms import Keep, keeps_of, tells_kinds, without_prefix
from audiohook.settings import load
from audiohook.storage.base import BytesBlob
from audiohook.storage.folder import FolderStore
from audiohook.storage.layout import kind_of
from audiohook.storage.policy import retention_rules
from audiohook.storage.s3 import S3Store
from audiohook.storage.s3_client import S3Options
from tests.api.served import api_of
from tests.documents import shown
from tests.printed import assert_alike, read_shown
from tests.seaweed import Seaweed, reach, seaweed
from tests.storage.s3_tools import plain_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from audiohook.index.entry import Entry

__all__ = ["seaweed"]

LOG = structlog.get_logger("audiohook")
DAY = 24 * 60 * 60.0
STARTED = datetime(2026, 1, 10, 12, tzinfo=UTC).timestamp()
CONVERSATION = "5e55a0e5-0000-4000-8000-000000000001"
PARTICIPANT = "5e55a0e5-0000-4000-8000-00000000000a"
NAME = f"2026-01-10T12-00-00.000Z_{CONVERSATION}_{PARTICIPANT}"
FOLDER = f"calls/{NAME}"
AUDIO = (f"audio/{NAME}.wav", f"audio/{NAME}.raw")
TEXTS = (f"transcripts/{NAME}.json", f"transcripts/{NAME}.txt")


def summary() -> dict[str, Any]:
    def listed(files: tuple[str, ...]) -> list[dict[str, Any]]:
        return [
            {"key": f"{FOLDER}/{file}", "bytes": 5, "sha256": "0" * 64}
            for file in files
        ]

    return {
        "sessionId": str(uuid.uuid4()),
        "conversationId": CONVERSATION,
        "participant": {"id": PARTICIPANT, "ani": "1", "aniName": "", "dnis": "2"},
        "start": "2026-01-10T12:00:00.000Z",
        "end": "2026-01-10T12:00:10.000Z",
        "duration": 10.0,
        "language": None,
        "ended": {"complete": True},
        "objects": listed(AUDIO),
        "transcripts": [
            {
                "audio": f"{FOLDER}/{AUDIO[0]}",
                "status": "completed",
                "objects": listed(TEXTS),
            }
        ],
    }


class Kept:
    """A folder with one old call, an index that knows it, and a clock."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = STARTED + 10.0
        self.keep = Keep(audio_days=30, transcripts_days=60)
        self.store = FolderStore(root)
        self.index = CallIndex(
            root / ".spool" / ".index", self.store, places=lambda: ["calls/"], log=LOG
        )

    @property
    def folder(self) -> Path:
        return self.root / FOLDER

    def files(self) -> set[str]:
        return {
            str(path.relative_to(self.folder))
            for path in self.folder.rglob("*")
            if path.is_file()
        }

    def write(self, folder: str = FOLDER) -> None:
        for file in (*AUDIO, *TEXTS, f"jobs/{NAME}.json"):
            path = self.root / folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"voice")
            # Of a copy that was made yesterday.
            os.utime(path, (self.now, self.now))
        (self.root / folder / "call.json").write_text(json.dumps(summary()))

    async def sweep(self, days: float) -> None:
        self.now = STARTED + 10.0 + days * DAY
        await Retention(
            self.store,
            lambda: {"calls/": self.keep},
            place=lambda start: Place("folder", self.store.traces, start),
            index=self.index,
            spool=self.root / ".spool",
            log=LOG,
            clock=lambda: self.now,
        ).sweep()

    async def entry(self) -> Entry | None:
        """What the index says, once it has taken in what it was told."""
        with trio.move_on_after(30):
            while self.index.statistics().waiting:  # noqa: ASYNC110
                await trio.sleep(0.01)
        found = await self.index.by_key(FOLDER)
        return None if found is None else found.entry


@pytest.fixture
async def kept(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Kept]:
    it = Kept(tmp_path)
    it.write()
    await nursery.start(it.index.run)
    await it.index.build()
    yield it
    nursery.cancel_scope.cancel()
    it.index.close()


async def until_marked(it: Kept) -> Entry:
    with trio.fail_after(30):
        while True:
            entry = await it.entry()
            if entry is not None and entry.audio_removed_at is not None:
                return entry
            await trio.sleep(0.01)


async def test_audio_goes_first_then_transcripts_then_all(kept: Kept) -> None:
    whole = {*AUDIO, *TEXTS, f"jobs/{NAME}.json", "call.json"}
    await kept.sweep(29.9)
    assert kept.files() == whole
    await kept.sweep(30.1)
    assert kept.files() == whole - {*AUDIO}
    assert not (kept.folder / "audio").exists()
    marks = json.loads((kept.folder / "call.json").read_bytes())["removed"]
    assert marks["audio"].startswith("2026-02-09T")
    assert marks["transcripts"] is None
    page = shown("docs/retention.md", '"removed"')
    assert_alike(read_shown(page.text), {"removed": marks})
    entry = await until_marked(kept)
    assert entry.audio_removed_at == marks["audio"]
    assert entry.transcripts_removed_at is None
    # The next day nothing is left to be done.
    before = (kept.folder / "call.json").stat()
    await kept.sweep(31.1)
    assert (kept.folder / "call.json").stat() == before
    await kept.sweep(60.1)
    assert not kept.folder.exists()
    assert await kept.entry() is None


async def test_transcripts_alone_may_go(kept: Kept) -> None:
    kept.keep = Keep(transcripts_days=10)
    await kept.sweep(10.1)
    assert kept.files() == {*AUDIO, "call.json"}
    await kept.sweep(10_000)
    assert kept.files() == {*AUDIO, "call.json"}


async def test_what_is_not_ours_stays(kept: Kept) -> None:
    kept.keep = Keep(1, 1)
    (kept.folder / "audio" / "mine.mp3").write_bytes(b"mine")
    stranger = kept.root / "calls" / f"{NAME}.copy"
    stranger.mkdir()
    (stranger / "call.json").write_text(json.dumps(summary()))
    lying = kept.root / "calls" / NAME.replace("01-10", "01-11")
    lying.mkdir()
    # It lists what is another's.
    (lying / "call.json").write_text(json.dumps(summary()))
    kept.now = STARTED
    kept.write(f"calls/{NAME}_2")
    await kept.sweep(2)
    assert kept.files() == {"audio/mine.mp3"}
    assert (stranger / "call.json").exists()
    # Nothing that it lists was below it, and so only itself was to go.
    assert not lying.exists()
    # Nor did it list its own.
    assert len(list((kept.root / "calls" / f"{NAME}_2").rglob("*.wav"))) == 1


async def test_who_was_killed_after_the_mark_goes_on(kept: Kept) -> None:
    await kept.sweep(30.1)
    for file in AUDIO:
        path = kept.folder / file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"voice")
    await kept.sweep(30.2)
    assert not {*AUDIO} & kept.files()


async def test_a_call_that_waits_in_the_spool_is_left_alone(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    async with api_of(
        tmp_path, assemblyai_api_key="k", assemblyai_base_url="http://127.0.0.1:9"
    ) as api:
        report = await api.house.call(duration=1.0)
        assert report.ok
        await api.house.settle()
        assert api.house.spooled()
        (recording,) = api.house.recordings()
        service = api.house.service
        service._retention._keeps = lambda: {"calls/": Keep(1, 1)}
        service._retention._clock = lambda: 4e9
        await service._retention.sweep()
        assert len(list(recording.folder.rglob("*.wav"))) == 1
    # Once it has left the spool its time has come.
    spool = Spool(tmp_path / "recordings" / ".spool", low_water_bytes=0)
    await nursery.start(spool.run)
    for call in await spool.adopt():
        await spool.remove(call)
    await service._retention.sweep()
    # The service has ended, and would have closed it.
    service.index.close()
    assert not recording.folder.exists()
    nursery.cancel_scope.cancel()


async def test_the_api_says_when_audio_was_removed(tmp_path: Path) -> None:
    async with api_of(tmp_path) as api:
        assert (await api.house.call(duration=1.0, conversation_id=CONVERSATION)).ok
        await api.house.settle()
        (item,) = await api.wait_indexed(1)
        before: str | None = item["audioRemovedAt"]
        assert before is None
        service = api.house.service
        service._retention._keeps = lambda: {"calls/": Keep(audio_days=1)}
        service._retention._clock = lambda: 4e9
        await service._retention.sweep()
        with trio.fail_after(30):
            while item["audioRemovedAt"] is None:
                (item,) = (await api.get("/calls")).json()["recordings"]
        assert item["audioRemovedAt"].startswith("2096-")
        (session,) = (await api.get(f"/calls/{CONVERSATION}")).json()["sessions"]
        assert [link["file"] for link in session["links"]] == ["call.json"]
        assert session["call"]["removed"]["audio"] == item["audioRemovedAt"]


# In a bucket


@pytest.fixture
def bucket_client(
    seaweed: Seaweed,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:  # noqa: ANN401
    reach(seaweed, monkeypatch)
    return plain_client(seaweed)


def new_bucket(client: Any) -> str:  # noqa: ANN401
    name = f"keep-{uuid.uuid4()}"
    client.create_bucket(Bucket=name)
    return name


@pytest.mark.parametrize(
    ("audio", "transcripts", "count"), [(30, 60, 4), (30, None, 2), (7, 7, 2)]
)
def test_a_store_takes_the_rules(
    bucket_client: Any,  # noqa: ANN401
    audio: int | None,
    transcripts: int | None,
    count: int,
) -> None:
    bucket = new_bucket(bucket_client)
    rules = retention_rules("calls/", audio_days=audio, transcripts_days=transcripts)
    bucket_client.put_bucket_lifecycle_configuration(
        Bucket=bucket, LifecycleConfiguration={"Rules": rules}
    )
    found = bucket_client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert len(found) == len(rules) == count
    assert [each["Expiration"] for each in found] == [
        each["Expiration"] for each in rules
    ]
    bucket_client.close()


async def test_objects_say_what_they_are_where_rules_have_to_know(
    bucket_client: Any,  # noqa: ANN401
) -> None:
    bucket = new_bucket(bucket_client)
    store = S3Store(
        bucket, options=S3Options(tags={"team": "a"}, tags_kinds=lambda: True)
    )
    for file in (*AUDIO, *TEXTS, "call.json"):
        key = f"{FOLDER}/{file}"
        await store.put(key, BytesBlob(b"x"), metadata={}, token="t")
        tags = bucket_client.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
        found = {each["Key"]: each["Value"] for each in tags}
        assert found == {"team": "a", "audiohook-kind": kind_of(key)}
    store.close()
    bucket_client.close()


async def test_the_index_follows_the_rules_of_a_bucket(
    tmp_path: Path,
    bucket_client: Any,  # noqa: ANN401
    nursery: trio.Nursery,
) -> None:
    bucket = new_bucket(bucket_client)
    store = S3Store(bucket)
    for file in (*AUDIO, *TEXTS):
        key = f"{FOLDER}/{file}"
        bucket_client.put_object(Bucket=bucket, Key=key, Body=b"hello")
    data = json.dumps(summary())
    bucket_client.put_object(Bucket=bucket, Key=f"{FOLDER}/call.json", Body=data)
    index = CallIndex(tmp_path, store, places=lambda: ["calls/"], log=LOG)
    await nursery.start(index.run)
    await index.build()
    now = STARTED
    retention = Retention(
        store,
        lambda: {"calls/": Keep(30, 60)},
        place=lambda start: Place("bucket", store.traces, start),
        index=index,
        spool=tmp_path,
        log=LOG,
        clock=lambda: now,
    )

    async def entry() -> Entry | None:
        await retention.sweep()
        found = await index.by_key(FOLDER)
        return None if found is None else found.entry

    now = STARTED + 31 * DAY
    found = await entry()
    # The rule has not been carried out yet.
    assert found is not None
    assert found.audio_removed_at is None
    for file in AUDIO:
        bucket_client.delete_object(Bucket=bucket, Key=f"{FOLDER}/{file}")
    found = await entry()
    assert found is not None
    assert (found.audio_removed_at or "").startswith("2026-02-10T")
    now = STARTED + 61 * DAY
    for file in (*TEXTS, "call.json"):
        bucket_client.delete_object(Bucket=bucket, Key=f"{FOLDER}/{file}")
    # Some stores keep a name for a folder that nothing is in.
    assert await entry() is None
    store.close()
    bucket_client.close()
    nursery.cancel_scope.cancel()


# Terms


def test_days_of_a_key_hold_for_its_prefix(tmp_path: Path) -> None:
    settings = load(
        env_file=tmp_path / ".env", keep_audio_days=30, keep_transcripts_days=30
    )
    own = KeyRecord(prefix="vip/", keep_audio_days=5)
    shared = KeyRecord(keep_audio_days=5)
    keeps = keeps_of(settings, [own, shared, KeyRecord()])
    assert keeps == {"calls/": Keep(30, 30), "vip/": Keep(5, 30)}
    assert tells_kinds(keeps.values())
    labelled = [("a", own), ("b", shared), ("c", KeyRecord())]
    assert list(without_prefix(settings, labelled)) == ["b"]


def test_no_days_no_rules() -> None:
    assert retention_rules("calls/", audio_days=None, transcripts_days=None) == []
    assert Keep().first_days is None
    assert not tells_kinds([Keep(), Keep(3, 3)])
