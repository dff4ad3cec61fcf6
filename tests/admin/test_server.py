from __future__ import annotations

import logging
import socket
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import hypercorn.trio
import pytest
import structlog
import trio
import trio.testing
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from audiohook.admin import server
from audiohook.admin.server import AdminServer
from audiohook.errors import ConfigError
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hypercorn.config import Config
    from starlette.requests import Request

MANY_BYTES = 8 * 2**20


async def hello(_: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


async def much(_: Request) -> PlainTextResponse:
    return PlainTextResponse("x" * MANY_BYTES)


async def fails(_: Request) -> PlainTextResponse:
    raise ZeroDivisionError


async def never(_: Request) -> PlainTextResponse:
    await trio.sleep_forever()
    raise AssertionError


APP = Starlette(
    routes=[
        Route("/", hello),
        Route("/much", much),
        Route("/fails", fails),
        Route("/never", never),
    ]
)


@pytest.fixture(autouse=True)
def short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_UNREAD", 0.3)
    monkeypatch.setattr(server, "_IDLE", 0.3)
    monkeypatch.setattr(server, "_SILENT", 0.6)
    monkeypatch.setattr(server, "_GRACE", 0.3)
    monkeypatch.setattr(server, "_RESTART_PAUSE", 0.01)


def make_server(port: int = 0, host: str = "127.0.0.1") -> AdminServer:
    log = structlog.get_logger("audiohook")
    return AdminServer(APP, host=host, port=port, log=log)


@asynccontextmanager
async def served(host: str = "127.0.0.1") -> AsyncIterator[int]:
    """Serves while the block lasts, and leaves no file open."""
    before = open_files()
    async with trio.open_nursery() as nursery:
        port = await nursery.start(make_server(host=host).run)
        yield port
        nursery.cancel_scope.cancel()
    await wait_until(lambda: open_files() <= before, 5.0)


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def settled_tasks() -> int:
    """Counts the tasks once connections that are closed are forgotten."""
    await trio.testing.wait_all_tasks_blocked(0.05)
    return trio.lowlevel.current_statistics().tasks_living


async def wait_for_tasks(number: int) -> None:
    """Waits until there are no more tasks than there were."""
    statistics = trio.lowlevel.current_statistics
    await wait_until(lambda: statistics().tasks_living == number)


async def ask(port: int, data: bytes, *, most: int = 2**30) -> bytes:
    """Sends bytes, and returns what comes until the server hangs up."""
    received = b""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        try:
            with trio.fail_after(30):
                await stream.send_all(data)
                while len(received) < most and (more := await stream.receive_some()):
                    received += more
        except trio.BrokenResourceError:
            pass
    return received


def request(path: str, *more: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *more, "", ""]).encode()


async def is_well(port: int) -> bool:
    answer = await ask(port, request("/", "Connection: close"))
    return answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"hello")


async def test_pages_are_served_on_any_free_port(lines: list[Any]) -> None:
    async with served() as port:
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://127.0.0.1:{port}/")
        assert (answer.status_code, answer.text) == (200, "hello")
        assert "hypercorn" not in str(answer.headers)
    assert {"event": "admin_listening", "host": "127.0.0.1", "port": port} in [
        {key: line[key] for key in line if key != "log_level"} for line in lines
    ]
    assert not [line for line in lines if line["event"] == "admin_port_exposed"]


async def test_address_that_others_reach_is_warned_of(lines: list[Any]) -> None:
    async with served("0.0.0.0"):
        pass
    (line,) = [line for line in lines if line["event"] == "admin_port_exposed"]
    assert line["log_level"] == "warning"


@pytest.mark.parametrize(
    ("host", "port", "line"),
    [
        ("127.0.0.1", -1, "ADMIN_PORT: {port} is in use; choose another"),
        ("203.0.113.1", 0, "ADMIN_HOST: is no address of this machine"),
        ("nowhere.invalid", 0, "ADMIN_HOST: cannot be listened on"),
    ],
)
async def test_unusable_address_is_one_line(host: str, port: int, line: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = port or 0
        if port < 0:
            port = taken.getsockname()[1]
        with pytest.raises(ConfigError) as caught:
            await make_server(port, host).run()
    assert str(caught.value).startswith(line.format(port=port))
    assert "\n" not in str(caught.value)


async def test_page_that_fails_is_an_answer_and_a_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with served() as port:
        answer = await ask(port, request("/fails"))
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert b"ZeroDivisionError" not in answer
        assert await is_well(port)
    (record,) = [r for r in caplog.records if r.name == "hypercorn.error"]
    assert record.levelno == logging.ERROR
    # It goes to our handler, and to no other.
    assert logging.getLogger("hypercorn.error").handlers == []


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\xff" * 200 + b"\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", b"431"),
        (b"\x80" * 100_000, b"431"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n123456789", b"405"),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"1000\r\n%b\r\n" % (b"x" * 4096) * 100,
            b"405",
        ),
    ],
)
async def test_bad_request_gets_its_answer_and_leaves_nothing(
    data: bytes, status: bytes
) -> None:
    async with served() as port:
        assert await is_well(port)
        tasks = await settled_tasks()
        answer = await ask(port, data)
        # The kernel may throw it away, if there was more to be read.
        assert answer.startswith(b"HTTP/1.1 " + status) or len(data) > 300_000
        assert await is_well(port)
        await wait_for_tasks(tasks)


@pytest.mark.parametrize("data", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n"])
async def test_client_that_does_not_finish_its_request_is_dropped(data: bytes) -> None:
    async with served() as port:
        assert await ask(port, data) == b""


async def test_connection_that_is_not_used_any_more_is_closed() -> None:
    async with served() as port:
        answer = await ask(port, request("/") * 2)
        assert answer.count(b"HTTP/1.1 200 ") == 2


async def test_client_that_reads_nothing_is_dropped_and_delays_nobody() -> None:
    async with served() as port:
        assert await is_well(port)
        tasks = await settled_tasks()
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        client.sendall(request("/much"))
        assert await is_well(port)
        assert await settled_tasks() > tasks
        # Without anybody having read.
        await wait_for_tasks(tasks)
        client.close()


async def test_client_that_reads_nothing_does_not_keep_the_service_from_ending() -> (
    None
):
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            port = await nursery.start(make_server().run)
            client.connect(("127.0.0.1", port))
            client.sendall(request("/much"))
            assert await is_well(port)
            nursery.cancel_scope.cancel()
    client.close()


async def test_answer_on_its_way_is_finished_when_the_port_closes() -> None:
    async with trio.open_nursery() as nursery:
        port = await nursery.start(make_server().run)
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(request("/much"))
            received = len(await stream.receive_some())
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                while more := await stream.receive_some():
                    received += len(more)
    assert received > MANY_BYTES


async def test_page_that_never_answers_does_not_keep_the_service_from_ending() -> None:
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            port = await nursery.start(make_server().run)
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(request("/never"))
                assert await is_well(port)
            nursery.cancel_scope.cancel()


async def test_port_is_opened_again_when_the_server_fails(
    monkeypatch: pytest.MonkeyPatch, lines: list[Any]
) -> None:
    calls = 0

    async def serve(app: Any, config: Config, **options: Any) -> None:  # noqa: ANN401
        nonlocal calls
        calls += 1
        if calls == 1:
            for each in config.create_sockets().insecure_sockets:
                each.close()
            raise ExceptionGroup("x", [ZeroDivisionError()])
        await hypercorn.trio.serve(app, config, **options)

    monkeypatch.setattr(server, "serve", serve)
    async with served() as port:
        assert await is_well(port)
    assert [line["event"] for line in lines].count("admin_port_failed") == 1


@pytest.mark.parametrize(
    "data",
    [
        request(
            "/",
            "Connection: Upgrade, HTTP2-Settings",
            "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABkAAQAAP__",
        ),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\xff" * 500,
    ],
)
async def test_silent_client_of_another_protocol_is_dropped(data: bytes) -> None:
    async with served() as port:
        assert await is_well(port)
        tasks = await settled_tasks()
        assert await ask(port, data)
        assert await is_well(port)
        await wait_for_tasks(tasks)
