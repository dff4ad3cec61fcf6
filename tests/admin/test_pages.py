from __future__ import annotations

import json
import math
import os
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import trio
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from audiohook.admin import figures
from audiohook.admin.pages import make_app
from tests.admin.reading import parse_openmetrics, samples
from tests.admin.watched import (
    NOW,
    FakeDeliveries,
    FakePump,
    FakeService,
    app_of,
    client_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    import httpx
    from starlette.requests import Request

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
async def client(
    service: FakeService, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app_of(service, tmp_path)) as client:
        yield client


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Does the work of threads at once: a clock that jumps does not see them."""

    async def run(work: Callable[..., object], *args: object, **_: object) -> object:
        await trio.lowlevel.checkpoint()
        return work(*args)

    monkeypatch.setattr(trio.to_thread, "run_sync", run)


@pytest.mark.parametrize(
    ("changes", "health", "ready"),
    [
        ({}, (200, "ok\n"), (200, "ready\n")),
        (
            {"draining": True, "refusal": "Service stops"},
            (503, "draining\n"),
            (503, "Service stops\n"),
        ),
        (
            {"can_record": False, "refusal": "Cannot record now"},
            (503, "cannot record\n"),
            (503, "Cannot record now\n"),
        ),
        # Full is not ill: nobody should restart it for that.
        ({"refusal": "Too many calls"}, (200, "ok\n"), (503, "Too many calls\n")),
    ],
)
async def test_health_and_readiness(
    service: FakeService,
    client: httpx.AsyncClient,
    changes: dict[str, object],
    health: tuple[int, str],
    ready: tuple[int, str],
) -> None:
    service.now = replace(service.now, **changes)  # type: ignore[arg-type]  # by name
    answer = await client.get("/health")
    assert (answer.status_code, answer.text) == health
    answer = await client.get("/ready")
    assert (answer.status_code, answer.text) == ready


@pytest.mark.parametrize("path", ["/health", "/ready", "/stats", "/metrics"])
async def test_only_reading_is_allowed(client: httpx.AsyncClient, path: str) -> None:
    body = (await client.get(path)).content
    head = await client.head(path)
    assert head.status_code == 200
    # The server leaves the body out.
    assert head.headers["content-length"] == str(len(body))
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"):
        answer = await client.request(method, path)
        assert answer.status_code == 405
        assert sorted(answer.headers["allow"].split(", ")) == ["GET", "HEAD"]


@pytest.mark.parametrize("path", ["/", "/metrics/x", "/../etc/passwd", "//", "/%00"])
async def test_other_pages_are_not_there(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 404


async def test_stats_are_json_for_people(
    service: FakeService, client: httpx.AsyncClient
) -> None:
    service.now = replace(service.now, pump=FakePump(worst_lag=math.inf))
    answer = await client.get("/stats")
    assert answer.headers["content-type"] == "application/json"
    assert answer.text.count("\n") > 20
    found = json.loads(answer.text, parse_constant=pytest.fail)
    assert found["deliveries"] == {"waiting": 3, "active": 2, "fault": None}
    assert found["live_by_state"] == {"open": 10, "closing": 1}
    assert found["pump"]["worst_lag"] is None
    assert found["spool_survey"]["calls"] == 0
    assert found["uptime_seconds"] == 0.0


async def test_metrics_show_what_the_service_tells(
    service: FakeService, client: httpx.AsyncClient
) -> None:
    answer = await client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = samples(answer.text)
    assert found["audiohook_calls_live{state=open}"] == 10
    assert found["audiohook_calls_live{state=opening}"] == 0
    assert found["audiohook_uploads{state=waiting}"] == 3
    assert found["audiohook_transcription_jobs{state=submitted}"] == 5
    assert found["audiohook_transcription_jobs{state=settled}"] == 0
    assert found["audiohook_transcription_jobs_parked"] == 1
    assert found["audiohook_transcription_calls"] == 6
    assert found["audiohook_transcription_down"] == 0
    assert found["audiohook_notifications_waiting"] == 8
    assert found["audiohook_notifications_dead"] == 1
    assert found["audiohook_notifications_oldest_seconds"] == 90
    assert found["audiohook_receiver_down"] == 0
    assert found["audiohook_handshakes_in_flight"] == 4
    assert found["audiohook_pump_worst_lag_seconds"] == 0.25
    assert found["audiohook_audio_bytes_total"] == 1600
    assert found["audiohook_ready"] == 1
    assert found["audiohook_store_down"] == 0
    assert found["audiohook_calls_total{outcome=ended}"] == 0
    assert found["process_open_fds"] > 3
    assert found["process_max_fds"] > 3
    assert sum(name.startswith("audiohook_build_info") for name in found) == 1


async def test_metrics_are_the_same_without_transcription(
    service: FakeService,
    client: httpx.AsyncClient,
    autojump_clock: object,
    no_threads: None,
) -> None:
    before = samples((await client.get("/metrics")).text)
    service.now = replace(service.now, transcriptions=None, notifications=None)
    await trio.sleep(1)
    after = samples((await client.get("/metrics")).text)
    assert after.keys() == before.keys()
    assert after["audiohook_transcription_jobs{state=submitted}"] == 0


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text",
        # What Prometheus 2 and 3 send.
        "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8,*/*;q=0.1",
        "application/openmetrics-text;version=nonsense",
    ],
)
async def test_openmetrics_for_those_who_read_it(
    client: httpx.AsyncClient, accept: str
) -> None:
    answer = await client.get("/metrics", headers={"accept": accept})
    assert answer.headers["content-type"] == OPENMETRICS
    names = {family.name for family in parse_openmetrics(answer.text)}
    assert {"audiohook_calls", "audiohook_build", "audiohook_uploads"} <= names


@pytest.mark.parametrize("accept", ["", "*/*", "text/html", "text/plain;version=9x"])
async def test_plain_text_for_all_others(
    client: httpx.AsyncClient, accept: str
) -> None:
    answer = await client.get("/metrics", headers={"accept": accept})
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4;")
    assert samples(answer.text)


async def test_figures_are_put_together_once_a_second(
    service: FakeService,
    client: httpx.AsyncClient,
    autojump_clock: object,
    no_threads: None,
) -> None:
    first = (await client.get("/metrics")).text
    service.now = replace(service.now, handshakes=9)
    assert (await client.get("/metrics")).text == first
    openmetrics = await client.get("/metrics", headers={"accept": OPENMETRICS})
    assert "audiohook_handshakes_in_flight 9.0" in openmetrics.text
    await trio.sleep(1)
    found = samples((await client.get("/metrics")).text)
    assert found["audiohook_handshakes_in_flight"] == 9


async def test_page_does_not_grow_with_what_happens(
    service: FakeService,
    client: httpx.AsyncClient,
    autojump_clock: object,
    no_threads: None,
) -> None:
    before = (await client.get("/metrics")).text
    metrics = service.metrics
    for word in ("ended", "lost", "failed"):
        for _ in range(3000):
            metrics.calls.labels(word).inc()
            metrics.opening.observe(0.3)
    service.desk.states["open"] = 3000
    service.now = replace(
        service.now, deliveries=FakeDeliveries(waiting=900), store_fault="away"
    )
    await trio.sleep(1)
    after = (await client.get("/metrics")).text
    assert samples(before).keys() == samples(after).keys()
    assert before.count("\n") == after.count("\n")
    # Numbers are longer than 0.0.
    assert len(after) < len(before) + 500


def put_call(spool: Path, audio: int | None, changed_at: float) -> str:
    name = str(uuid.uuid4())
    (spool / name).mkdir()
    (spool / name / "journal.jsonl").write_bytes(b"{}\n")
    if audio is not None:
        path = spool / name / "audio.ulaw"
        path.write_bytes(bytes(audio))
        os.utime(path, (changed_at, changed_at))
    os.utime(spool / name, (changed_at, changed_at))
    return name


async def test_spool_is_looked_at(
    service: FakeService,
    client: httpx.AsyncClient,
    tmp_path: Path,
    autojump_clock: object,
    no_threads: None,
) -> None:
    live = put_call(tmp_path, 100_000, NOW - 10_000)
    service.desk.sessions.add(live)
    put_call(tmp_path, 100_000, NOW - 300)
    put_call(tmp_path, None, NOW - 400)
    (tmp_path / "aside" / "nonsense").mkdir(parents=True)
    (tmp_path / ".new-x").mkdir()
    found = samples((await client.get("/metrics")).text)
    assert found["audiohook_spool_calls"] == 3
    assert found["audiohook_spool_oldest_seconds"] == 400
    assert found["audiohook_spool_aside"] == 1
    assert 200_000 < found["audiohook_spool_used_bytes"] < 300_000
    assert found["audiohook_spool_size_bytes"] > found["audiohook_spool_free_bytes"] > 0
    # The next look is a while later.
    service.desk.sessions.clear()
    await trio.sleep(5)
    found = samples((await client.get("/metrics")).text)
    assert found["audiohook_spool_oldest_seconds"] == 400
    await trio.sleep(5)
    found = samples((await client.get("/metrics")).text)
    assert found["audiohook_spool_oldest_seconds"] == 10_000


async def test_spool_that_cannot_be_read_is_left_out(
    service: FakeService, tmp_path: Path
) -> None:
    async with client_of(app_of(service, tmp_path / "none")) as client:
        found = samples((await client.get("/metrics")).text)
        stats = (await client.get("/stats")).json()
    assert "audiohook_spool_calls" not in found
    assert found["audiohook_calls_live{state=open}"] == 10
    assert stats["spool_survey"] is None


async def test_disk_that_hangs_keeps_nobody_waiting_for_long(
    service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "_PATIENCE", 0.05)
    looks = 0

    async def hang(*_: object, **__: object) -> None:
        nonlocal looks
        looks += 1
        await trio.sleep_forever()

    monkeypatch.setattr(trio.to_thread, "run_sync", hang)
    async with client_of(app_of(service, tmp_path)) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(client.get, "/metrics")
        assert looks == 1
        assert (await client.get("/metrics")).status_code == 200


async def test_other_rooms_are_behind_the_same_guard(
    service: FakeService, tmp_path: Path
) -> None:
    async def room(_: Request) -> PlainTextResponse:
        return PlainTextResponse("hello")

    app = make_app(
        service, spool=tmp_path, hosts={"localhost"}, rooms=[Route("/room", room)]
    )
    async with client_of(app) as client:
        answer = await client.get("/room")
        assert (answer.status_code, answer.text) == (200, "hello")
        assert answer.headers["x-content-type-options"] == "nosniff"
        answer = await client.get("/room", headers={"host": "evil.example"})
        assert answer.status_code == 421
