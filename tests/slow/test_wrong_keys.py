"""A flood of strangers, and calls that must not notice."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from audiohook.simulator.client import place_call
from audiohook.simulator.options import CallOptions
from tests.admin.reading import samples
from tests.house import KEY, upgrade_request
from tests.slow.processes import Site, tell, worst
from tests.slow.scale import scaled

if TYPE_CHECKING:
    from pathlib import Path

    from audiohook.simulator.report import CallReport

pytestmark = pytest.mark.slow

STRANGERS_A_SECOND = 10_000 / 60
SECONDS = scaled(12.0, 60.0)
CALLS = 20
ANSWER_SECONDS = 1.0

SLOW_CLIENTS = 1000
# What Genesys waits. The clients here take up half of the time themselves.
DUE_SECONDS = 5.0


async def be_refused(port: int, answers: list[bytes]) -> None:
    key = b"X-API-KEY: " + secrets.token_urlsafe(24).encode() + b"\r\n"
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(upgrade_request(key))
        answers.append(await stream.receive_some())


async def test_flood_of_wrong_keys_delays_no_call(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(tmp_path)
    async with site.serve() as server:
        answers: list[bytes] = []
        reports: list[CallReport] = []

        async def call() -> None:
            options = CallOptions(uri=server.uri, api_key=KEY, duration=SECONDS - 3)
            reports.append(await place_call(options))

        async with trio.open_nursery() as nursery:
            began = trio.current_time()
            for number in range(round(SECONDS * STRANGERS_A_SECOND)):
                await trio.sleep_until(began + number / STRANGERS_A_SECOND)
                nursery.start_soon(be_refused, server.port, answers)
                if number == round(STRANGERS_A_SECOND):
                    # In the middle of it.
                    for _ in range(CALLS):
                        nursery.start_soon(call)
            took = trio.current_time() - began
        async with httpx.AsyncClient() as client:
            figures = samples((await client.get(server.admin_uri + "/metrics")).text)
    opened = [report.opened_latency or 99.0 for report in reports]
    pongs = [each for report in reports for each in report.pong_latencies]
    closed = [report.closed_latency or 99.0 for report in reports]
    tell(
        capsys,
        f"{len(answers) / took * 60:.0f} wrong keys a minute: opened {worst(opened)},"
        f" pong {worst(pongs)}, closed {worst(closed)}",
    )
    assert {answer.split(b"\r\n")[0] for answer in answers} == {
        b"HTTP/1.1 401 Unauthorized"
    }
    refused = "audiohook_handshakes_refused_total{reason=unknown_key}"
    assert figures[refused] == len(answers)
    # And the log did not grow with them.
    assert len(server.lines("handshake_refused")) < 100
    assert len(reports) == CALLS
    for report in reports:
        assert report.ok, report.breaches
    assert pongs
    assert max(opened + pongs + closed) < ANSWER_SECONDS


async def test_thousand_slow_clients_of_the_admin_port_delay_no_call(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(tmp_path)
    async with site.serve() as server:
        port = server.lines("admin_listening")[0]["port"]
        reports: list[CallReport] = []

        async def dawdle() -> None:
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                try:
                    for byte in b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n":
                        await stream.send_all(bytes([byte]))
                        await trio.sleep(0.4)
                    await trio.sleep_forever()
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return

        async def call() -> None:
            options = CallOptions(uri=server.uri, api_key=KEY, duration=6.0)
            reports.append(await place_call(options))

        async with trio.open_nursery() as slow:
            for _ in range(SLOW_CLIENTS):
                slow.start_soon(dawdle)
            await trio.sleep(1)
            async with trio.open_nursery() as calls:
                for _ in range(CALLS):
                    calls.start_soon(call)
                # And who asks in earnest is answered.
                async with httpx.AsyncClient(timeout=10) as client:
                    answer = await client.get(server.admin_uri + "/ready")
                    assert answer.status_code == 200
            slow.cancel_scope.cancel()
        server.terminate()
        assert await server.wait() == 0
    latencies = [
        each
        for report in reports
        for each in (report.opened_latency, report.closed_latency)
        if each is not None
    ]
    tell(capsys, f"{SLOW_CLIENTS} slow clients: answers {worst(latencies)}")
    assert len(latencies) == 2 * CALLS
    assert max(latencies) < DUE_SECONDS
    assert server.lines("admin_port_failed") == []
