"""The API of a whole service, each answer held against its document."""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from typing import TYPE_CHECKING, Any, cast

import pytest
import structlog.testing
import trio

from audiohook.api import operations
from audiohook.api.room import operations_of
from audiohook.rate import Rate
from audiohook.recording import disk
from audiohook.recording.journal import Participant, encode
from tests.api.served import CONTROLLER, ERASER, READER, Api, api_of, write_tokens
from tests.house import KEY
from tests.recording.factory import make_opened
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CONVERSATION = str(uuid.UUID(int=0xABCDEF, version=4))


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with api_of(tmp_path) as it:
        yield it


async def test_recorded_call_is_found_shown_and_fetched(api: Api) -> None:
    report = await api.house.call(
        duration=1.0, conversation_id=CONVERSATION, ani="tel:+49 30 9876543"
    )
    assert report.ok
    await api.house.settle()
    (item,) = await api.wait_indexed(1)
    (recording,) = api.house.recordings()
    assert item["name"] == recording.folder.name
    assert item["state"] == "stored"
    for query in (
        f"conversation={CONVERSATION.upper()}",
        f"participant={item['participant']}",
        "number=0309876543",
        f"since={item['startedAt']}",
        "until=2200-01-01T00:00:00%2B01:00&limit=1",
    ):
        found = (await api.get(f"/calls?{query}")).json()
        assert [each["name"] for each in found["recordings"]] == [item["name"]], query
        assert found["next"] is None
    for query in (
        f"conversation={uuid.UUID(int=5)}",
        "number=0309876544",
        f"until={item['startedAt']}",
        "text=hello",
    ):
        assert (await api.get(f"/calls?{query}")).json()["recordings"] == [], query
    shown = (await api.get(f"/calls/{CONVERSATION}")).json()
    (session,) = shown["sessions"]
    assert session["call"] == recording.facts
    assert session["recording"] == item
    assert (session["state"], session["live"]) == ("stored", None)
    files = {each["file"]: each for each in session["links"]}
    assert len(files) == 4
    for name, link in files.items():
        answer = await api.get(link["href"].removeprefix("/api/v1"))
        assert answer.status_code == 200
        if name != "call.json":
            assert len(answer.content) == link["bytes"]
            assert hashlib.sha256(answer.content).hexdigest() == link["sha256"]


async def test_pages_follow_each_other(api: Api) -> None:
    for number in range(5):
        await api.house.call(
            duration=0.1, conversation_id=str(uuid.UUID(int=number + 1))
        )
    await api.house.settle()
    everything = [each["name"] for each in await api.wait_indexed(5)]
    seen: list[str] = []
    path = "/calls?limit=2"
    for size in (2, 2, 1):
        page = (await api.get(path)).json()
        assert len(page["recordings"]) == size
        seen += [each["name"] for each in page["recordings"]]
        path = f"/calls?limit=2&cursor={page['next']}"
    assert page["next"] is None
    assert seen == everything == sorted(seen, reverse=True)


async def test_live_calls_are_listed_and_shown(api: Api, nursery: trio.Nursery) -> None:
    ids = [str(uuid.UUID(int=number, version=4)) for number in range(1, 4)]
    for each in ids:
        options = {"duration": 30.0, "fast": False, "conversation_id": each}
        nursery.start_soon(lambda options=options: api.house.call(**options))  # type: ignore[misc]
    await api.house.wait_streaming(3)
    first = (await api.get("/live?limit=2")).json()
    second = (await api.get(f"/live?limit=2&cursor={first['next']}")).json()
    assert first["total"] == second["total"] == 3
    assert second["next"] is None
    calls = [*first["calls"], *second["calls"]]
    assert sorted(each["conversation"] for each in calls) == sorted(ids)
    assert {each["held"] for each in calls} == {"recording"}
    (session,) = (await api.get(f"/calls/{ids[0]}")).json()["sessions"]
    assert session["state"] == "live"
    assert session["live"]["channels"] == ["external", "internal"]
    assert session["startedAt"] is not None
    for each in ids:
        await api.post(f"/calls/{each}/end")
    await api.house.settle()


async def test_call_is_paused_resumed_and_ended(
    api: Api, nursery: trio.Nursery
) -> None:
    nursery.start_soon(
        lambda: api.house.call(
            duration=30.0, fast=False, frame_ms=20, conversation_id=CONVERSATION
        )
    )
    await api.house.wait_streaming()
    because = {"reason": "card\u202e \x00  payment"}
    answers = []

    async def pause() -> None:
        answers.append(await api.post(f"/calls/{CONVERSATION}/pause", json=because))

    async with trio.open_nursery() as asking:
        for _ in range(50):
            asking.start_soon(pause)
    assert [each.status_code for each in answers] == [200] * 50
    ((session,),) = {
        tuple(json.dumps(each) for each in answer.json()["sessions"])
        for answer in answers
    }
    told = json.loads(session)
    assert (told["held"], told["by"]) == ("paused", "controller")
    assert told["reason"] == "card payment"
    (live,) = (await api.get("/live")).json()["calls"]
    assert (live["held"], live["pausedBy"]) == ("paused", "controller")
    resumed = (await api.post(f"/calls/{CONVERSATION}/resume")).json()
    assert resumed["sessions"][0]["held"] == "recording"
    ended = (await api.post(f"/calls/{CONVERSATION}/end", json={})).json()
    assert ended["sessions"][0]["held"] == "ended"
    await api.house.settle()
    await api.wait_indexed(1)
    for action in ("pause", "resume", "end"):
        answer = await api.post(f"/calls/{CONVERSATION}/{action}")
        assert (answer.status_code, answer.json()["code"]) == (409, "over")
    (recording,) = api.house.recordings()
    (gap,) = recording.facts["gaps"]
    assert (gap["by"], gap["reason"]) == ("controller", "card payment")
    actions = [each["action"] for each in recording.facts["controls"]]
    assert actions == ["pause", "resume", "end"]


@pytest.mark.parametrize("action", ["pause", "resume", "end"])
async def test_call_that_is_not_there(api: Api, action: str) -> None:
    answer = await api.post(f"/calls/{CONVERSATION}/{action}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    answer = await api.post(f"/calls/{uuid.UUID(int=0)}/{action}")
    assert (answer.status_code, answer.json()["code"]) == (409, "probe")
    assert (await api.get(f"/calls/{CONVERSATION}")).status_code == 404


@pytest.mark.parametrize("held", [True, False])
async def test_call_of_another_process(api: Api, tmp_path: Path, held: bool) -> None:
    spool_fd = disk.open_spool(tmp_path / "recordings" / ".spool")
    party = Participant(str(uuid.UUID(int=3)), "", "", "")
    opened = make_opened(conversation_id=CONVERSATION, participant=party)
    (files,) = disk.create(spool_fd, [(opened.session_id, encode(opened))], [])
    assert isinstance(files, disk.CallFiles)
    if not held:
        files.lock.close()
    try:
        (session,) = (await api.get(f"/calls/{CONVERSATION}")).json()["sessions"]
        assert session["state"] == ("elsewhere" if held else "spooled")
        answer = await api.post(f"/calls/{CONVERSATION}/pause")
        code = "elsewhere" if held else "over"
        assert (answer.status_code, answer.json()["code"]) == (409, code)
    finally:
        files.close()
        os.close(spool_fd)


async def test_call_that_waits_for_the_store(tmp_path: Path) -> None:
    async with api_of(tmp_path) as api:
        blocked = tmp_path / "recordings" / "calls"
        blocked.write_bytes(b"")
        await api.house.call(duration=0.2, conversation_id=CONVERSATION)
        await wait_until(lambda: api.house.service.statistics().deliveries.failures)
        (session,) = (await api.get(f"/calls/{CONVERSATION}")).json()["sessions"]
        assert (session["state"], session["links"]) == ("spooled", [])
        answer = await api.post(f"/calls/{CONVERSATION}/end")
        assert answer.json()["code"] == "over"


@pytest.mark.parametrize(
    ("token", "status", "code"),
    [
        ("", 401, "unauthorized"),
        ("ah_no", 401, "unauthorized"),
        (ERASER, 403, "insufficient_scope"),
    ],
)
async def test_nothing_without_a_token_that_is_good_for_it(
    api: Api, token: str, status: int, code: str
) -> None:
    name = "2026-01-01T00-00-00.000Z_x_y"
    for method, path in (
        ("GET", "/calls"),
        ("GET", "/live"),
        ("GET", f"/calls/{CONVERSATION}"),
        ("GET", f"/recordings/{name}/call.json"),
        ("POST", f"/calls/{CONVERSATION}/pause"),
    ):
        answer = await api.ask(method, path, token=token)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["www-authenticate"].startswith("Bearer")
    answer = await api.ask("POST", f"/calls/{CONVERSATION}/end", token=READER)
    assert answer.status_code == 403


async def test_no_api_without_tokens(tmp_path: Path) -> None:
    async with api_of(tmp_path) as api:
        api.house.service._reloader._tokens.replace(None)
        for token in ("", CONTROLLER):
            answer = await api.get("/calls", token=token)
            assert (answer.status_code, answer.json()["code"]) == (404, "off")


async def test_tokens_are_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api_of(tmp_path) as api:
        service = api.house.service
        write_tokens(tmp_path / "tokens.json", {"ah_new": ["read"]})
        assert (await api.get("/calls")).status_code == 200
        await service.reload()
        assert (await api.get("/calls")).status_code == 401
        assert (await api.get("/calls", token="ah_new")).status_code == 200
        # A mistake in the file leaves all as it was.
        (tmp_path / "tokens.json").write_text("{")
        await service.reload()
        assert (await api.get("/calls", token="ah_new")).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/calls?limit=0",
        "/calls?limit=201",
        "/calls?limit=1e3",
        "/calls?limit=1&limit=2",
        "/calls?conversation=x",
        f"/calls?conversation={CONVERSATION}%0A",
        "/calls?since=yesterday",
        "/calls?since=2026-13-01T00:00:00Z",
        "/calls?since=2026-01-01T00:00:00",
        "/calls?text=",
        "/calls?number=" + "1" * 101,
        "/calls?cursor=!",
        "/calls?cursor=AAAA",
        "/calls?cursor=" + "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5",
        "/calls?unknown=1",
        "/live?cursor=gIA",
        "/calls/x",
        "/live?number=1",
        f"/calls/{CONVERSATION}?x=1",
    ],
)
async def test_request_that_cannot_be_understood(api: Api, path: str) -> None:
    answer = await api.get(path)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid"), answer.text


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"[" * 4000, "application/json", 400),
        (b'{"reason": 5}', "application/json", 400),
        (b'{"x": 5}', "application/json", 400),
        (b'{"reason": "' + b"x" * 201 + b'"}', "application/json", 400),
        (b'{"reason": "' + b"x" * 5000 + b'"}', "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"reason=5", "application/x-www-form-urlencoded", 415),
        (b'{"reason": "\\ud800 "}', "application/json; charset=utf-8", 400),
        (b'{"reason": null}', "application/json; charset=utf-8", 404),
    ],
)
async def test_body_that_cannot_be_understood(
    api: Api, content: bytes, kind: str, status: int
) -> None:
    path = f"/calls/{CONVERSATION}/pause"
    answer = await api.post(path, content=content, headers={"content-type": kind})
    assert answer.status_code == status, answer.text
    answer = await api.ask("GET", "/live", content=b"{}")
    assert answer.status_code == 400


async def test_faults_do_not_repeat_what_was_sent(api: Api) -> None:
    with structlog.testing.capture_logs() as lines:
        answer = await api.get("/calls?conversation=Anna&Bert=1&number=")
        assert answer.status_code == 400
        answer2 = await api.post(
            f"/calls/{CONVERSATION}/pause", json={"reason": ["Anna"], "Bert": 1}
        )
    for text in (answer.text, answer2.text, repr(lines)):
        assert "Anna" not in text
        assert "Bert" not in text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("DELETE", "/calls", 405),
        ("HEAD", "/calls", 405),
        ("TRACE", "/live", 405),
        ("GET", f"/calls/{CONVERSATION}/pause", 405),
        ("GET", "/", 404),
        ("GET", "/calls/", 404),
        ("GET", "/nothing", 404),
    ],
)
async def test_what_is_not_there(api: Api, method: str, path: str, status: int) -> None:
    answer = await api.ask(method, path)
    assert answer.status_code == status
    if status == 405:
        assert answer.headers["allow"]


async def test_who_asks_too_often_has_to_wait(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "_RATE", Rate(0.001, 3))
    statuses = [(await api.get("/live", token=READER)).status_code for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    # Others do not notice.
    monkeypatch.setattr(operations, "_RATE", Rate(50.0, 100))
    assert (await api.get("/live")).status_code == 200


async def test_strangers_have_to_wait_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "_STRANGERS_RATE", Rate(0.001, 3))
    async with api_of(tmp_path) as api:
        statuses = [
            (await api.get("/live", token="ah_x")).status_code for _ in range(4)
        ]
        # The document was the first that was asked for without a token.
        assert statuses == [401, 401, 429, 429]
        assert (await api.get("/live")).status_code == 200


async def test_no_more_at_a_time_than_are_let_in(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "_IN_FLIGHT", 0)
    answer = await api.get("/live")
    assert (answer.status_code, answer.json()["code"]) == (503, "busy")


async def test_fault_of_ours_is_told_as_such(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise ZeroDivisionError("Anna")

    monkeypatch.setattr(api.house.service.index, "search", fail)
    with structlog.testing.capture_logs() as lines:
        answer = await api.get("/calls")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert [each["event"] for each in lines] == ["api_failed"]
    assert "Anna" not in answer.text
    assert (await api.get("/live")).status_code == 200


async def test_index_that_cannot_be_read(api: Api, tmp_path: Path) -> None:
    folder = tmp_path / "recordings" / ".spool" / ".index"
    await wait_until(lambda: not api.house.service.statistics().index.building)
    await api.get("/calls")
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.write_bytes(b"")
    answer = await api.get("/calls")
    assert (answer.status_code, answer.json()["code"]) == (503, "index")


def test_document_is_of_all_operations_and_of_nothing_else() -> None:
    nobody = cast("Any", _Nobody())
    known = operations_of(nobody, nobody, nobody, nobody)
    (document,) = (each for each in known if each.id == "showDocument")
    shown = json.loads(trio.run(_text_of, document))
    listed = {
        (method.upper(), path)
        for path, methods in shown["paths"].items()
        for method in methods
    }
    assert listed == {(each.method, each.path) for each in known}
    for each in known:
        operation = shown["paths"][each.path][each.method.lower()]
        assert operation["operationId"] == each.id
        names = {(one["in"], one["name"]) for one in operation["parameters"]}
        query = each.query.model_fields.values() if each.query else ()
        wanted = {("query", one.alias) for one in query}
        wanted |= {("path", name) for name in re.findall(r"{(\w+)}", each.path)}
        assert names == wanted
        assert set(each.parameters) == {n for place, n in names if place == "path"}
        assert ("requestBody" in operation) == (each.body is not None)
        assert bool(operation["security"]) == (each.scope is not None)
        if each.answer is not None:
            schema = operation["responses"][str(each.status)]["content"][
                "application/json"
            ]
            assert schema["schema"]["$ref"].endswith(f"/{each.answer.__name__}")
            properties = shown["components"]["schemas"][each.answer.__name__][
                "properties"
            ]
            fields = each.answer.model_fields
            assert set(properties) == {one.alias for one in fields.values()}
    ids = [each.id for each in known]
    assert len(set(ids)) == len(ids)


async def _text_of(document: operations.Operation) -> bytes:
    answer = await document.handler(cast("Any", None))
    return bytes(cast("Any", answer).body)


class _Nobody:
    def __getattr__(self, name: str) -> object:
        return self


def test_key_of_the_calls_is_no_token() -> None:
    assert KEY not in (READER, CONTROLLER, ERASER)
