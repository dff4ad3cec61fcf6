"""Requests that fail as ordered, down to the socket."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from audiohook.simulator.assemblyai import Endpoint, Fault, Policy, StandIn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

    from tests.simulator.assemblyai.conftest import House
    from tests.simulator.assemblyai.tools import Site

    Start = Callable[..., Awaitable[House]]

ANYWHERE = "http://127.0.0.1:1/a.wav"


@pytest.mark.parametrize(
    ("fault", "status", "error"),
    [
        (Fault.ERROR_500, 500, "Internal Server Error"),
        (Fault.EMPTY_500, 500, None),
        (Fault.ERROR_503, 503, "Service Unavailable"),
        (Fault.EMPTY_503, 503, None),
        (Fault.ERROR_504, 504, "Gateway Timeout"),
        (Fault.EMPTY_504, 504, None),
        (Fault.UNAUTHORIZED, 401, "Authentication error, API token missing/invalid"),
        (Fault.FORBIDDEN, 403, "Cannot access uploaded file"),
    ],
)
async def test_status_instead_of_an_effect(
    clock: MockClock, start: Start, fault: Fault, status: int, error: str | None
) -> None:
    house = await start()
    house.standin.faults.script(Endpoint.SUBMIT, fault)
    answer = await house.client.post("/v2/transcript", json={"audio_url": ANYWHERE})
    assert answer.status_code == status
    if error is None:
        assert answer.content == b""
        assert "content-type" not in answer.headers
    else:
        assert answer.json() == {"error": error}
    assert house.standin.statistics().submitted == 0
    await house.submit(ANYWHERE)
    assert house.standin.statistics().faults == {fault: 1}


async def test_rate(clock: MockClock, start: Start) -> None:
    house = await start()
    house.standin.faults.retry_after = 17
    house.standin.faults.script(Endpoint.LIST, Fault.RATE)
    answer = await house.client.get("/v2/transcript")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "17")


async def test_a_web_page_instead_of_the_answer(clock: MockClock, start: Start) -> None:
    house = await start()
    house.standin.faults.script(Endpoint.LIST, Fault.GARBAGE)
    answer = await house.client.get("/v2/transcript")
    assert answer.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        answer.json()


async def test_reset_before_any_effect(clock: MockClock, start: Start) -> None:
    house = await start()
    house.standin.faults.script(Endpoint.SUBMIT, Fault.RESET)
    with pytest.raises(httpx.TransportError):
        await house.submit(ANYWHERE)
    assert house.standin.statistics().submitted == 0
    assert house.standin.statistics().requests == {"submit": 1}


async def test_reset_amid_an_upload(clock: MockClock, start: Start) -> None:
    house = await start()
    house.standin.faults.script(Endpoint.UPLOAD, Fault.RESET)
    with pytest.raises(httpx.TransportError):
        await house.client.post("/v2/upload", content=bytes(20_000_000))
    assert house.standin.statistics().uploads == 0


async def test_the_answer_is_lost_but_the_job_is_there(
    clock: MockClock, start: Start
) -> None:
    house = await start()
    house.standin.faults.script(Endpoint.SUBMIT, Fault.LOST)
    with pytest.raises(httpx.TransportError):
        await house.submit(ANYWHERE)
    assert house.standin.statistics().submitted == 1
    page = (await house.client.get("/v2/transcript")).json()
    assert [item["audio_url"] for item in page["transcripts"]] == [ANYWHERE]


async def test_the_answer_is_cut_but_the_job_is_there(
    clock: MockClock, start: Start
) -> None:
    house = await start()
    house.standin.faults.script(Endpoint.SUBMIT, Fault.CUT)
    with pytest.raises(httpx.RemoteProtocolError, match="complete message body"):
        await house.submit(ANYWHERE)
    assert house.standin.statistics().submitted == 1


async def test_late_answers(clock: MockClock, start: Start) -> None:
    house = await start()
    house.standin.faults.slow = 20.0
    for fault in (Fault.SLOW, Fault.SLOW_BODY):
        house.standin.faults.script(Endpoint.LIST, fault)
        begun = trio.current_time()
        async with house.client.stream("GET", "/v2/transcript") as answer:
            head = trio.current_time() - begun
            await answer.aread()
        assert answer.json()["transcripts"] == []
        assert 20 <= trio.current_time() - begun < 21
        assert (head >= 20) is (fault is Fault.SLOW)


async def test_no_answer_at_all(clock: MockClock, start: Start) -> None:
    house = await start()
    house.standin.faults.script(Endpoint.SUBMIT, Fault.STALL)
    with trio.move_on_after(1000) as scope:
        await house.client.post(
            "/v2/transcript", json={"audio_url": ANYWHERE}, timeout=None
        )
    assert scope.cancelled_caught
    assert house.standin.statistics().submitted == 0


async def test_away_and_back(clock: MockClock, start: Start) -> None:
    house = await start()
    await house.submit(ANYWHERE)
    house.standin.away = True
    # Whether the connection was there before or not.
    for _ in range(2):
        with pytest.raises(httpx.TransportError):
            await house.submit(ANYWHERE)
    house.standin.away = False
    await house.submit(ANYWHERE)
    assert house.standin.statistics().submitted == 2
    assert house.standin.statistics().requests == {"submit": 4}


async def test_keys_refused_for_a_while(clock: MockClock, start: Start) -> None:
    house = await start()
    house.standin.faults.keys_refused = True
    assert (await house.client.get("/v2/transcript")).status_code == 401
    house.standin.faults.keys_refused = False
    assert (await house.client.get("/v2/transcript")).status_code == 200


async def test_retired_model(clock: MockClock, start: Start) -> None:
    house = await start(policy=Policy(default_models=("universal-3-5-pro",)))
    house.standin.faults.retired.add("universal-3-5-pro")
    answer = await house.client.post("/v2/transcript", json={"audio_url": ANYWHERE})
    assert answer.status_code == 400
    assert '"universal-2"' in answer.json()["error"]


async def test_one_request_in_four_fails(
    clock: MockClock, start: Start, site: Site
) -> None:
    house = await start()
    house.standin.faults.fail(0.25)
    failed = 0
    for _ in range(200):
        try:
            answer = await house.client.get("/v2/transcript")
            answer.raise_for_status()
            answer.json()
        except (httpx.HTTPError, json.JSONDecodeError):
            failed += 1
    assert 30 < failed < 70
    assert sum(house.standin.statistics().faults.values()) == failed


async def test_control_from_outside(clock: MockClock, start: Start) -> None:
    house = await start()
    nobody = {"Authorization": ""}
    house.standin.away = True
    answer = await house.client.post(
        "/stand-in/faults", json={"clear": True}, headers=nobody
    )
    assert (answer.status_code, answer.json()) == (200, {})
    await house.submit(f"{ANYWHERE}?signature=1")
    figures = (await house.client.get("/stand-in/statistics", headers=nobody)).json()
    assert figures["submitted"] == 1
    assert figures["audio"] == {"/a.wav": {"submitted": 1, "billed": 0}}
    assert figures["requests"] == {"submit": 1}
    for body in (b"", b'{"x": 1}', b'{"shares": [{"fault": "no", "share": 1}]}'):
        answer = await house.client.post("/stand-in/faults", content=body)
        assert answer.status_code == 400
    over = {"shares": [{"fault": "lost", "share": 0.6}, {"fault": "cut", "share": 0.6}]}
    assert (await house.client.post("/stand-in/faults", json=over)).status_code == 400
    assert (await house.client.get("/stand-in/")).status_code == 404
    big = await house.client.post("/stand-in/faults", content=b" " * 70_000)
    assert big.status_code == 413


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET //[x HTTP/1.1\r\nHost: h\r\n\r\n",
        b"POST /v2/upload HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nshort",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nZ\r\n",
        b"",
    ],
)
async def test_what_is_not_http_harms_nobody(
    clock: MockClock, start: Start, data: bytes
) -> None:
    house = await start()
    port = int(house.standin.base_url.rpartition(":")[2])
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        if data:
            await stream.send_all(data)
        await stream.send_eof()
        with trio.fail_after(100):
            while await stream.receive_some():
                pass
    assert (await house.client.get("/v2/transcript")).status_code == 200


async def test_expect_100_continue(clock: MockClock, start: Start) -> None:
    house = await start()
    port = int(house.standin.base_url.rpartition(":")[2])
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(
            b"POST /v2/upload HTTP/1.1\r\nHost: h\r\nAuthorization: stand-in-key\r\n"
            b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 100")
        await stream.send_all(b"audio")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")


async def test_idle_connections_are_closed(clock: MockClock, start: Start) -> None:
    house = await start()
    port = int(house.standin.base_url.rpartition(":")[2])
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        begun = trio.current_time()
        assert await stream.receive_some() == b""
        assert 70 < trio.current_time() - begun < 80


async def test_port_that_is_taken(clock: MockClock, start: Start) -> None:
    from audiohook.errors import ConfigError

    house = await start()
    port = int(house.standin.base_url.rpartition(":")[2])
    with pytest.raises(ConfigError, match=f"127.0.0.1 port {port}"):
        await StandIn().serve(port=port)


async def test_head_of_an_answer_is_sent_alone(clock: MockClock, start: Start) -> None:
    """``audiohook check`` asks so for the time."""
    house = await start()
    for path in ("/", "/v2/transcript/no-such-job", "/stand-in/statistics"):
        answer = await house.client.head(path)
        assert answer.content == b""
        assert int(answer.headers["Content-Length"]) > 0
    assert (await house.client.get("/stand-in/statistics")).status_code == 200
