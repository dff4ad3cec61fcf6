"""Erasure in a whole service with a folder, and the stand-in for AssemblyAI."""

from __future__ import annotations

import base64
import json
import shutil
import sqlite3
import time
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from audiohook.erasure.ledger import ERASURES, Ledger
from audiohook.erasure.order import Ordered
from audiohook.missed.events import GenesysEvent
from audiohook.missed.ledger import EVENTS_FOLDER, EventLedger
from audiohook.recording.journal import utc_text
from audiohook.simulator.assemblyai import Endpoint, Fault, Pace, StandIn
from tests.api.served import ERASER, Api, api_of
from tests.house import KEY
from tests.test_transcribing import haste  # noqa: F401 - a fixture
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

STANDIN_KEY = "stand-in-key"
MINE = "5e55a0e5-0000-4000-8000-000000000001"
OTHER = "5e55a0e5-0000-4000-8000-000000000002"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audiohook.erasure.eraser._INTERVAL", 0.05)
    monkeypatch.setattr("audiohook.erasure.eraser._FIRST_PAUSE", 0.05)


def contents(folder: Path) -> dict[str, bytes]:
    """Everything below a folder but the erasures' own, and the index."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ERASURES not in path.parts and ".index" not in path.parts
    }


def mentions(folder: Path, text: str) -> list[str]:
    """All files below a folder with a text in them, or in their names."""
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if text in path.name or (path.is_file() and text.encode() in path.read_bytes())
    ]


async def erased(api: Api, reference: str) -> dict[str, object]:
    """Waits until an erasure is done."""
    with trio.fail_after(20):
        while True:
            answer = await api.get(f"/erasures/{reference}", token=ERASER)
            assert answer.status_code == 200
            standing: dict[str, object] = answer.json()
            if standing["done"]:
                return standing
            await trio.sleep(0.05)


async def call(api: Api, conversation: str, session: str | None = None) -> str:
    session = session or str(uuid.uuid4())
    report = await api.house.call(
        conversation_id=conversation, session_id=session, duration=1.0
    )
    assert report.ok
    await api.house.settle()
    return session


async def test_one_session_of_three_goes_and_the_others_stay_byte_for_byte(
    tmp_path: Path,
) -> None:
    async with api_of(tmp_path) as api:
        folder = api.house.folder
        sessions = [await call(api, MINE) for _ in range(3)]
        await call(api, OTHER)
        await api.wait_indexed(4)
        before = contents(folder)
        victim = next(
            each
            for each in api.house.recordings()
            if each.facts["sessionId"] == sessions[1]
        )
        answer = await api.ask(
            "DELETE", f"/calls/{MINE}?session={sessions[1]}", token=ERASER
        )
        assert answer.status_code == 202
        standing = await erased(api, answer.json()["reference"])
        after = contents(folder)
        gone = before.keys() - after.keys()
        assert gone == {
            str(path.relative_to(folder))
            for path in map(folder.joinpath, before)
            if victim.folder in path.parents
        }
        assert all(after[name] == before[name] for name in after)
        assert not victim.folder.exists()
        assert len(await api.wait_indexed(3)) == 3
        counts = standing["erased"]
        assert isinstance(counts, dict)
        assert counts["recordings"] == 1
        assert counts["versions"] == counts["objects"] == len(gone)
        assert counts["bytes"] == sum(len(before[name]) for name in gone)
    # Only the order itself names it, until the last look.
    left = mentions(folder, sessions[1])
    assert [name for name in left if not name.startswith(f".spool/{ERASURES}/")] == []


async def test_a_name_that_begins_like_another_is_left_alone(tmp_path: Path) -> None:
    async with api_of(tmp_path) as api:
        await call(api, MINE)
        (mine,) = api.house.recordings()
        # As a second session of the same millisecond is called, and a stranger's.
        neighbours = [
            mine.folder.with_name(f"{mine.folder.name}{ending}")
            for ending in ("_2", ".bak", "0")
        ]
        for each in neighbours:
            (each / "audio").mkdir(parents=True)
            (each / "audio" / "x.wav").write_bytes(b"another's")
        (neighbours[0] / "call.json").write_text(
            json.dumps({"conversationId": MINE, "sessionId": str(uuid.uuid4())})
        )
        session = mine.facts["sessionId"]
        answer = await api.ask(
            "DELETE", f"/calls/{MINE}?session={session}", token=ERASER
        )
        await erased(api, answer.json()["reference"])
        assert not mine.folder.exists()
        assert all((each / "audio" / "x.wav").exists() for each in neighbours)


async def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    async with api_of(tmp_path) as api:
        await call(api, MINE)
        (mine,) = api.house.recordings()
        treasure = tmp_path / "treasure"
        treasure.mkdir()
        (treasure / "gold").write_bytes(b"gold")
        (mine.folder / "link").symlink_to(treasure)
        (mine.folder / "audio" / "gold").symlink_to(treasure / "gold")
        answer = await api.ask("DELETE", f"/calls/{MINE}", token=ERASER)
        await erased(api, answer.json()["reference"])
        assert not mine.folder.exists()
        assert (treasure / "gold").read_bytes() == b"gold"


async def test_a_live_call_is_refused_and_then_ended_first(tmp_path: Path) -> None:
    async with api_of(tmp_path) as api, trio.open_nursery() as nursery:
        nursery.start_soon(
            lambda: api.house.call(conversation_id=MINE, duration=60.0, fast=False)
        )
        await api.house.wait_streaming()
        refused = await api.ask("DELETE", f"/calls/{MINE}", token=ERASER)
        assert (refused.status_code, refused.json()["code"]) == (409, "live")
        taken = await api.ask("DELETE", f"/calls/{MINE}?end=true", token=ERASER)
        standing = await erased(api, taken.json()["reference"])
        assert standing["erased"]["spooled"] or standing["erased"]["recordings"]  # type: ignore[index]
        assert not api.house.service.statistics().live
        assert api.house.recordings() == []
        assert api.house.spooled() == []


async def test_what_began_after_the_order_is_not_meant(tmp_path: Path) -> None:
    async with api_of(tmp_path) as api:
        await call(api, MINE)
        answer = await api.ask("DELETE", f"/calls/{MINE}", token=ERASER)
        await erased(api, answer.json()["reference"])
        await call(api, MINE)
        assert len(await api.wait_indexed(1)) == 1
        again = await api.ask("DELETE", f"/calls/{MINE}", token=ERASER)
        assert again.json()["reference"] == answer.json()["reference"]
        await erased(api, again.json()["reference"])
        await wait_until(lambda: not api.house.recordings())


async def test_only_the_scope_erase_may(tmp_path: Path) -> None:
    async with api_of(tmp_path) as api:
        await call(api, MINE)
        assert (await api.ask("DELETE", f"/calls/{MINE}")).status_code == 403
        assert (await api.ask("DELETE", f"/calls/{MINE}", token="")).status_code == 401
        assert (await api.get(f"/erasures/{'0' * 64}")).status_code == 403
        unknown = await api.get(f"/erasures/{'0' * 64}", token=ERASER)
        assert unknown.status_code == 404
        assert len(api.house.recordings()) == 1


@asynccontextmanager
async def transcribing_api(
    tmp_path: Path, standin: StandIn, **flags: object
) -> AsyncIterator[Api]:
    async with trio.open_nursery() as nursery:
        url = await nursery.start(standin.serve)
        chosen = {"assemblyai_api_key": STANDIN_KEY, "assemblyai_base_url": url}
        async with api_of(tmp_path, **chosen, **flags) as api:
            yield api
        nursery.cancel_scope.cancel()


async def test_the_service_forgets_a_transcript_and_keeps_anothers(
    tmp_path: Path,
) -> None:
    standin = StandIn()
    async with transcribing_api(tmp_path, standin) as api:
        folder = api.house.folder
        for number, conversation in enumerate((MINE, OTHER), 1):
            await call(api, conversation)
            await wait_until(
                lambda: (
                    len(list(folder.glob("calls/*/transcripts/*.json"))) == number  # noqa: B023
                )
            )
            await wait_until(lambda: not api.house.spooled())
        answer = await api.ask("DELETE", f"/calls/{MINE}", token=ERASER)
        standing = await erased(api, answer.json()["reference"])
        assert standing["erased"]["transcripts"] == 1  # type: ignore[index]
        jobs = standin.account(STANDIN_KEY).jobs.values()
        assert [each.deleted for each in jobs] == [True, False]


async def test_a_job_that_runs_is_forgotten_once_it_has_ended(tmp_path: Path) -> None:
    standin = StandIn(pace=Pace(processing=1.0))
    async with transcribing_api(tmp_path, standin) as api:
        await call(api, MINE)
        await wait_until(lambda: standin.account(STANDIN_KEY).jobs)
        (job,) = standin.account(STANDIN_KEY).jobs.values()
        was_final: bool = job.final
        assert not was_final
        answer = await api.ask("DELETE", f"/calls/{MINE}", token=ERASER)
        reference = answer.json()["reference"]
        # What is here goes at once; only the job has to be waited for.
        await wait_until(lambda: not api.house.recordings() and not api.house.spooled())
        waiting = (await api.get(f"/erasures/{reference}", token=ERASER)).json()
        assert not waiting["done"]
        standing = await erased(api, reference)
        assert standing["erased"]["transcripts"] == 1  # type: ignore[index]
        assert job.final
        assert job.deleted
        # A report of it that comes late is nobody's.
        jobs = api.house.service._transcribing
        assert jobs is not None
        assert not jobs.jobs.tell(job.id)
        await trio.sleep(0.2)
        assert api.house.recordings() == []


async def test_a_request_of_which_nobody_knows_is_looked_for(tmp_path: Path) -> None:
    standin = StandIn()
    # It is made, and its answer lost; and then the process dies.
    standin.faults.script(Endpoint.SUBMIT, Fault.LOST)
    standin.faults.share(Fault.ERROR_500, 1.0, Endpoint.LIST)
    async with transcribing_api(tmp_path, standin) as api:
        session = await call(api, MINE)
        await wait_until(lambda: standin.account(STANDIN_KEY).jobs)
    spool = tmp_path / "recordings" / ".spool"
    assert "transcript_intended" in (spool / session / "journal.jsonl").read_text()
    now = Ordered(MINE, None, utc_text(time.time()), "me", end=False)
    reference = Ledger(spool).order(now)
    standin.faults.clear()
    async with transcribing_api(tmp_path, standin) as api:
        standing = await erased(api, reference)
        assert standing["erased"]["transcripts"] == 1  # type: ignore[index]
        (job,) = standin.account(STANDIN_KEY).jobs.values()
        assert job.deleted
        assert not (spool / session).exists()
        assert api.house.recordings() == []


async def test_a_parked_call_is_given_up(tmp_path: Path) -> None:
    standin = StandIn(keys=("another",))
    async with transcribing_api(tmp_path, standin) as api:
        await call(api, MINE)
        await wait_until(lambda: api.house.spooled())
        await wait_until(
            lambda: api.house.service.statistics().transcriptions.fault  # type: ignore[union-attr]
        )
        answer = await api.ask("DELETE", f"/calls/{MINE}", token=ERASER)
        await erased(api, answer.json()["reference"])
        assert api.house.spooled() == []
        assert api.house.recordings() == []


async def test_what_was_put_aside_goes_too(tmp_path: Path) -> None:
    async with api_of(tmp_path) as api:
        spool = api.house.folder / ".spool"
        for conversation, name in ((MINE, "mine"), (OTHER, "another's")):
            (spool / "aside" / name).mkdir(parents=True)
            journal = json.dumps({"fact": "opened", "conversation_id": conversation})
            (spool / "aside" / name / "journal.jsonl").write_text(
                f"{journal}\nnonsense"
            )
            (spool / "aside" / name / "audio.ulaw").write_bytes(b"voice")
        answer = await api.ask("DELETE", f"/calls/{MINE}", token=ERASER)
        standing = await erased(api, answer.json()["reference"])
        assert standing["erased"]["spooled"] == 1  # type: ignore[index]
        assert [each.name for each in (spool / "aside").iterdir()] == ["another's"]


async def test_a_store_that_is_restored_does_not_bring_it_back(tmp_path: Path) -> None:
    async with api_of(tmp_path) as api:
        await call(api, MINE)
        (mine,) = api.house.recordings()
        saved = tmp_path / "saved"
        shutil.copytree(mine.folder, saved)
        answer = await api.ask("DELETE", f"/calls/{MINE}", token=ERASER)
        await erased(api, answer.json()["reference"])
        shutil.copytree(saved, mine.folder)
        done = await api.house.service.index.build()
        assert done.seen == 1
        assert (await api.get("/calls")).json()["recordings"] == []


async def test_a_spool_that_is_restored_does_not_bring_it_back(tmp_path: Path) -> None:
    standin = StandIn(pace=Pace(processing=60.0))
    flags = {"assemblyai_api_key": STANDIN_KEY}
    saved = tmp_path / "saved"
    async with trio.open_nursery() as nursery:
        flags["assemblyai_base_url"] = await nursery.start(standin.serve)
        async with api_of(tmp_path, **flags) as api:
            session = await call(api, MINE)
            await wait_until(lambda: api.house.spooled())
        spooled = tmp_path / "recordings" / ".spool" / session
        shutil.copytree(spooled, saved)
        async with api_of(tmp_path) as api:
            answer = await api.ask("DELETE", f"/calls/{MINE}", token=ERASER)
            await wait_until(lambda: not spooled.exists())
            reference = answer.json()["reference"]
            waiting = await api.get(f"/erasures/{reference}", token=ERASER)
            assert not waiting.json()["done"]
        shutil.copytree(saved, spooled)
        async with api_of(tmp_path) as api:
            await wait_until(lambda: not spooled.exists())
            await wait_until(lambda: not api.house.recordings())
        nursery.cancel_scope.cancel()


async def test_a_record_names_nobody(tmp_path: Path) -> None:
    async with api_of(tmp_path) as api:
        session = await call(api, MINE)
        answer = await api.ask("DELETE", f"/calls/{MINE}", token=ERASER)
        await erased(api, answer.json()["reference"])
        spool = api.house.folder / ".spool"
        # It is done once nothing was found; the record comes right after.
        await wait_until(lambda: Ledger(spool).records())
        (record,) = Ledger(spool).records()
        assert record.by == "eraser"
        text = (spool / ERASURES / "records.jsonl").read_text()
        for secret in (MINE, session, MINE[:8], KEY):
            assert secret not in text


def test_an_order_survives_a_line_that_was_cut_off(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    reference = ledger.order(Ordered(MINE, None, utc_text(1.0), "me", end=False))
    path = tmp_path / ERASURES / "orders" / reference
    path.write_bytes(path.read_bytes() + b'{"fact": "verif')
    work = ledger.take(reference)
    assert work is not None
    assert ledger.take(reference) is None
    assert work.record.verified is None
    assert work.remove()
    work.close()
    assert ledger.pending() == []


def test_an_order_that_comes_once_more_in_the_last_moment_is_not_lost(
    tmp_path: Path,
) -> None:
    ledger = Ledger(tmp_path)
    reference = ledger.order(Ordered(MINE, None, utc_text(1.0), "me", end=False))
    work = ledger.take(reference)
    assert work is not None
    assert (
        ledger.order(Ordered(MINE, None, utc_text(2.0), "you", end=True)) == reference
    )
    assert not work.remove()
    work.close()
    found = ledger.look(reference)
    assert found is not None
    assert (found.ordered.at, found.ordered.by, found.ordered.end) == (
        utc_text(2.0),
        "you",
        True,
    )


def test_another_spool_has_another_hash(tmp_path: Path) -> None:
    ordered = Ordered(MINE, None, utc_text(1.0), "me", end=False)
    first = Ledger(tmp_path / "a").order(ordered)
    second = Ledger(tmp_path / "b").order(ordered)
    assert first != second


async def test_a_receiver_is_told_once_and_of_nothing_else(tmp_path: Path) -> None:
    # Nobody listens there, so all waits.
    secret = "whsec_" + base64.b64encode(bytes(32)).decode()
    flags = {"notify_url": "http://127.0.0.1:9/", "notify_secret": secret}
    async with api_of(tmp_path, **flags) as api:
        await call(api, MINE)
        await call(api, OTHER)
        outbox = api.house.service._notifying.outbox  # type: ignore[union-attr]
        await outbox.flush()
        answer = await api.ask("DELETE", f"/calls/{MINE}", token=ERASER)
        reference = answer.json()["reference"]
        await erased(api, reference)
        await outbox.flush()
        with sqlite3.connect(
            api.house.folder / ".spool" / ".notify" / "outbox.sqlite"
        ) as connection:
            rows = connection.execute(
                "SELECT conversation, kind, body FROM notifications"
            ).fetchall()
        connection.close()
        mine = [(kind, body) for who, kind, body in rows if who == MINE]
        assert [kind for kind, _ in mine] == ["erased"]
        data = json.loads(mine[0][1])["data"]
        assert data["reference"] == reference
        assert data["erased"]["recordings"] == 1
        assert {kind for who, kind, _ in rows if who == OTHER} >= {"opened", "stored"}


async def test_a_call_that_its_settings_put_deeper_goes_too(tmp_path: Path) -> None:
    async with api_of(tmp_path, custom_config_allow="prefix") as api:
        report = await api.house.call(
            conversation_id=MINE, duration=1.0, custom_config={"prefix": "sales/north/"}
        )
        assert report.ok
        await api.house.settle()
        await api.wait_indexed(1)
        deep = api.house.folder / "calls" / "sales" / "north"
        assert len(list(deep.iterdir())) == 1
        answer = await api.ask("DELETE", f"/calls/{MINE}", token=ERASER)
        standing = await erased(api, answer.json()["reference"])
        assert standing["erased"]["recordings"] == 1  # type: ignore[index]
        assert list(deep.iterdir()) == []
        assert (await api.get("/calls")).json()["recordings"] == []


async def test_what_genesys_told_of_it_is_forgotten_and_nothing_of_another(
    tmp_path: Path,
) -> None:
    async with api_of(tmp_path) as api:
        session = await call(api, MINE)
        await call(api, MINE)
        folder = api.house.folder / ".spool" / EVENTS_FOLDER
        ledger = EventLedger(folder)
        now = time.time()
        events = [
            GenesysEvent(each, now, "AUDIOHOOK-0006", each, f"no server for {each}")
            for each in (MINE, OTHER)
        ]
        await ledger.take(events, now)
        # They name conversations alone: another session of it may stay.
        path = f"/calls/{MINE}?session={session}"
        answer = await api.ask("DELETE", path, token=ERASER)
        await erased(api, answer.json()["reference"])
        assert len(await ledger.between(0, now + 1, 10)) == 2
        answer = await api.ask("DELETE", f"/calls/{MINE}", token=ERASER)
        await erased(api, answer.json()["reference"])
        assert await ledger.between(0, now + 1, 10) == events[1:]
        assert mentions(folder, MINE) == []
