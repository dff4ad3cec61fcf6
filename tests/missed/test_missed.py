"""Events of Genesys by the API, and what they say of calls that are not recorded."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio

from audiohook.missed.events import GenesysEvent
from audiohook.missed.ledger import DAYS, FILE_NAME, KEPT, EventLedger
from tests.api.served import CONTROLLER, READER, REPORTER, Api, api_of
from tests.erasure.test_folder import mentions
from tests.missed.test_events import BARE, EVENT_BRIDGE
from tests.test_cli import run
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_795_356_700.0
DAY = "2026-11-22"
LOST = "34c18827-77a6-4970-ad66-6f2966c85bad"


def event_of(conversation: str, identity: str) -> dict[str, Any]:
    return {
        **EVENT_BRIDGE,
        "id": identity,
        "detail": {**BARE, "conversationId": conversation},
    }


async def hand_in(it: Api, value: object, token: str = REPORTER) -> Any:  # noqa: ANN401 - JSON
    answer = await it.ask("POST", "/genesys/events", token=token, json=value)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_calls_that_never_came_are_told_from_those_that_did(
    tmp_path: Path,
) -> None:
    async with api_of(tmp_path, clock=lambda: NOW) as it:
        await it.house.call(duration=0.5)
        await it.house.settle()
        await wait_until(lambda: not it.house.service.statistics().index.waiting)
        (recording,) = it.house.recordings()
        here = recording.facts["conversationId"]
        events = [
            event_of(LOST, "one"),
            event_of(here, "two"),
            {"code": "AUDIOHOOK-0001", "id": "three"},
            {"code": "PLATFORM-0001"},
        ]
        assert await hand_in(it, events) == {"taken": 3, "known": 0, "ignored": 1}
        assert await hand_in(it, events[0]) == {"taken": 0, "known": 1, "ignored": 0}
        shown = (await it.get(f"/missed?day={DAY}", token=READER)).json()
        today = (await it.get("/missed")).json()
        before = (await it.get("/missed?day=2026-11-21")).json()
        metrics = it.house.service.metrics.genesys_events
        assert metrics.labels("taken")._value.get() == 3
    assert today == shown
    assert (shown["day"], shown["missed"]) == (DAY, [LOST])
    found = {each["conversation"]: each["finding"] for each in shown["events"]}
    assert found == {LOST: "missed", here: "recorded", None: "unknown"}
    assert before == {"day": "2026-11-21", "missed": [], "events": []}
    listed = await trio.to_thread.run_sync(run, tmp_path, "missed", "--day", DAY)
    assert listed.returncode == 1
    assert f"AUDIOHOOK-0006 {LOST} missed: " in listed.stdout
    assert "3 events, 1 conversations not recorded" in listed.stdout
    quiet = run(tmp_path, "missed", "--day", "2026-11-21", "--json")
    assert (quiet.returncode, quiet.stdout) == (0, "")
    assert run(tmp_path, "missed", "--day", "yesterday").returncode == 2


async def test_call_that_is_live_is_not_missed(tmp_path: Path) -> None:
    async with api_of(tmp_path, clock=lambda: NOW) as it:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: it.house.call(duration=30.0, fast=False))
            await it.house.wait_streaming()
            (record,) = it.house.service._spool.records()
            await hand_in(it, event_of(record.opened.conversation_id, "one"))
            shown = (await it.get("/missed")).json()
            nursery.cancel_scope.cancel()
    assert [each["finding"] for each in shown["events"]] == ["waiting"]


@pytest.mark.parametrize(
    ("token", "body", "status"),
    [
        (READER, "{}", 403),
        (CONTROLLER, "{}", 403),
        ("", "{}", 401),
        (REPORTER, "", 200),
        (REPORTER, "[]", 200),
        (REPORTER, "1", 400),
        (REPORTER, "[1]", 400),
        (REPORTER, json.dumps([{}] * 101), 400),
        (REPORTER, json.dumps({"a": "x" * 60_000}), 200),
    ],
)
async def test_only_those_who_may_hand_events_in(
    tmp_path: Path, token: str, body: str, status: int
) -> None:
    async with api_of(tmp_path) as it:
        answer = await it.ask(
            "POST",
            "/genesys/events",
            token=token,
            content=body,
            headers={"content-type": "application/json"},
        )
        assert answer.status_code == status, answer.text
        assert (await it.get("/missed", token=REPORTER)).status_code == 403


async def test_ledger_forgets_what_is_old_and_what_is_erased(tmp_path: Path) -> None:
    ledger = EventLedger(tmp_path)
    assert await ledger.between(0, NOW, 10) == []
    assert await ledger.erase(LOST) == 0
    old = GenesysEvent("old", NOW - KEPT + DAYS, "AUDIOHOOK-0001", "", "")
    new = GenesysEvent("new", NOW, "AUDIOHOOK-0001", LOST, "")
    assert await ledger.take([old, new], NOW) == 2
    assert await ledger.between(0, NOW + 1, 10) == [old, new]
    assert await ledger.take([new], NOW + 2 * DAYS) == 0
    assert await ledger.between(0, NOW + 1, 10) == [new]
    assert await ledger.erase(LOST.upper()) == 1
    assert mentions(tmp_path, LOST) == []


async def test_damaged_ledger_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database" * 500)
    ledger = EventLedger(tmp_path)
    event = GenesysEvent("x", NOW, "AUDIOHOOK-0001", "", "")
    assert await ledger.take([event], NOW) == 1
    assert (tmp_path / "damaged.sqlite").exists()
