"""A whole service that tells a receiver what becomes of calls."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import structlog
import trio

from audiohook import settings
from audiohook.recovery import recover
from audiohook.simulator.assemblyai import JobFault, StandIn
from tests.house import House, house
from tests.notify.reader import SECRET, data_of, read, verify
from tests.transcription.scripted_server import Answer, ScriptedServer
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from cloudevents.core.base import BaseCloudEvent

    from audiohook.notify.sender import NotificationStatistics

KEY = "stand-in-key"


class Ear:
    """A receiver, and what it heard; each event once."""

    def __init__(self) -> None:
        self.status = 200
        self.server = ScriptedServer(lambda _: Answer(self.status))

    def events(self) -> list[BaseCloudEvent]:
        found: dict[str, BaseCloudEvent] = {}
        for heard in self.server.heard:
            verify(heard)
            event = read(heard.headers, heard.body)
            assert heard.headers["webhook-id"] == event.get_id()
            if self.status == 200:
                found.setdefault(event.get_id(), event)
        return list(found.values())

    def kinds(self) -> list[str]:
        return [event.get_type().split(".")[-2] for event in self.events()]


@asynccontextmanager
async def telling(
    folder: Path,
    ear: Ear,
    standin: StandIn | None = None,
    **flags: Any,  # noqa: ANN401 - as house
) -> AsyncIterator[House]:
    async with trio.open_nursery() as nursery:
        if not ear.server.url:
            await nursery.start(ear.server.serve)
        if standin is not None:
            url = await nursery.start(standin.serve)
            flags |= {"assemblyai_api_key": KEY, "assemblyai_base_url": url}
        flags |= {"notify_url": ear.server.url + "/hook", "notify_secret": SECRET}
        async with house(folder, **flags) as it:
            yield it
        nursery.cancel_scope.cancel()


def statistics_of(it: House) -> NotificationStatistics:
    found = it.service.statistics().notifications
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_FIRST_POLL", "_FIRST_PAUSE", "_FIRST_RESUBMIT"):
        monkeypatch.setattr(f"audiohook.transcription.job.{name}", 0.05)
    monkeypatch.setattr("audiohook.breaker._FIRST_PAUSE", 0.05)
    monkeypatch.setattr("audiohook.breaker._LONGEST_PAUSE", 0.3)
    monkeypatch.setattr("audiohook.notify.sender._FIRST_PAUSE", 0.05)


async def test_receiver_is_told_of_a_call_from_its_beginning_to_its_transcript(
    tmp_path: Path,
) -> None:
    ear = Ear()
    async with telling(tmp_path, ear, StandIn(keys=(KEY,))) as it:
        await it.call(duration=8.0)
        await wait_until(lambda: len(ear.kinds()) == 3)
    assert ear.kinds() == ["opened", "stored", "transcribed"]
    (recording,) = it.recordings()
    facts = recording.facts
    opened, stored, transcribed = map(data_of, ear.events())
    for event in ear.events():
        assert event.get_subject() == facts["conversationId"]
        assert event.get_source() == "/audiohook/recordings"
        assert data_of(event)["sessionId"] == facts["sessionId"]
        assert data_of(event)["conversationId"] == facts["conversationId"]
    assert opened["startedAt"] == stored["startedAt"] == facts["start"]
    assert stored["endedAt"] == facts["end"]
    assert stored["seconds"] == facts["audioDuration"]
    assert stored["complete"] is True
    assert stored["files"] == facts["objects"]
    assert (tmp_path / stored["summary"]).read_bytes()
    (transcript,) = facts["transcripts"]
    assert transcribed["transcriptId"] == transcript["id"]
    assert transcribed["files"] == transcript["objects"]
    assert transcribed["audio"] == transcript["audio"]
    # Nothing of who spoke with whom.
    told = b"".join(heard.body for heard in ear.server.heard).decode()
    for word in (facts["participant"]["ani"], facts["participant"]["dnis"], "aniName"):
        assert word
        assert word not in told


async def test_numbers_are_told_if_wanted(tmp_path: Path) -> None:
    ear = Ear()
    async with telling(tmp_path, ear, notify_participants=True) as it:
        await it.call(duration=0.5)
        await wait_until(lambda: len(ear.kinds()) == 2)
    party = it.recordings()[0].facts["participant"]
    for event in ear.events():
        assert data_of(event)["participant"]["ani"] == party["ani"]


async def test_only_what_is_wanted_is_told(tmp_path: Path) -> None:
    ear = Ear()
    async with telling(tmp_path, ear, notify_kinds="stored") as it:
        await it.call(duration=0.5)
        await it.call(duration=0.5)
        await wait_until(lambda: len(ear.kinds()) == 2)
        await it.settle()
    assert ear.kinds() == ["stored", "stored"]


async def test_receiver_is_told_that_there_will_be_no_transcript(
    tmp_path: Path,
) -> None:
    ear = Ear()
    standin = StandIn(keys=(KEY,))
    standin.faults.script_jobs(JobFault.NO_AUDIO)
    async with telling(tmp_path, ear, standin) as it:
        await it.call(duration=8.0)
        await wait_until(lambda: "failed" in ear.kinds())
    failed = data_of(ear.events()[-1])
    assert (failed["what"], failed["status"]) == ("transcript", "failed")
    assert failed["reason"] == it.recordings()[0].facts["transcripts"][0]["reason"]


async def test_what_could_not_be_told_is_told_by_the_next_process(
    tmp_path: Path,
) -> None:
    ear = Ear()
    ear.status = 500
    async with trio.open_nursery() as nursery:
        await nursery.start(ear.server.serve)
        async with telling(tmp_path, ear) as it:
            await it.call(duration=0.5)
            await it.settle()
            await wait_until(lambda: ear.server.heard)
            uri = f"http://127.0.0.1:{it.service.admin_port}"
            async with httpx.AsyncClient() as client:
                await wait_until(lambda: statistics_of(it).waiting == 2)
                shown = (await client.get(f"{uri}/stats")).json()["notifications"]
                assert (shown["waiting"], shown["dead"]) == (2, 0)
                page = (await client.get(f"{uri}/metrics")).text
            assert "audiohook_notifications_waiting 2.0" in page
            assert 'audiohook_notifications_total{outcome="failed"}' in page
        ear.server.heard.clear()
        ear.status = 200
        async with telling(tmp_path, ear):
            await wait_until(lambda: len(ear.kinds()) == 2)
        nursery.cancel_scope.cancel()
    assert ear.kinds() == ["opened", "stored"]


async def test_call_that_was_cut_off_is_told_of_by_who_takes_it_over(
    tmp_path: Path,
) -> None:
    ear = Ear()
    async with trio.open_nursery() as nursery:
        await nursery.start(ear.server.serve)
        # By a process that told nobody.
        async with house(tmp_path, s3_bucket="nowhere") as it:
            it.service.hurry()
            await it.call(duration=0.5)
        assert it.spooled()
        async with telling(tmp_path, ear):
            await wait_until(lambda: len(ear.kinds()) == 2)
        nursery.cancel_scope.cancel()
    assert ear.kinds() == ["opened", "stored"]


async def test_nothing_is_kept_when_nobody_wants_to_be_told(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        await it.call(duration=0.5)
        await it.settle()
        assert it.service.statistics().notifications is None
    assert not (tmp_path / ".spool" / ".notify").exists()


async def test_recover_leaves_what_is_to_be_told_to_the_next_process(
    tmp_path: Path,
) -> None:
    ear = Ear()
    async with house(tmp_path, s3_bucket="nowhere") as it:
        await it.call(duration=0.5)
    assert it.spooled()
    async with trio.open_nursery() as nursery:
        await nursery.start(ear.server.serve)
        chosen = settings.load(
            env_file=tmp_path / "none",
            recordings_dir=tmp_path,
            notify_url=ear.server.url,
            notify_secret=SECRET,
        )
        done = await recover(chosen, log=structlog.get_logger("audiohook"))
        assert done.stored == 1
        assert ear.server.heard == []
        async with telling(tmp_path, ear):
            await wait_until(lambda: len(ear.kinds()) == 2)
        nursery.cancel_scope.cancel()
    assert json.loads(ear.server.heard[0].body)["data"]["sessionId"]
