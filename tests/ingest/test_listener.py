from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
import trustme

from audiohook.ingest.listener import HandshakeLimits, Listener
from audiohook.ingest.pump import Pump

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from audiohook.ingest.http import RequestHead
    from audiohook.ingest.stream import DivertedStream

UPGRADE = b"GET /a?b=%20 HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket\r\n\r\n"


class Door:
    """A listener on loopback, and what came of its connections."""

    def __init__(self, limits: HandshakeLimits | None) -> None:
        self.refused: list[str] = []
        self.accepted: list[tuple[DivertedStream, RequestHead]] = []
        self.healthy = True
        self.context: ssl.SSLContext | None = None
        self.listener = Listener(
            self.accept,
            pump=Pump(0.02),
            healthy=lambda: self.healthy,
            refused=self.refused.append,
            limits=limits,
        )
        self.address: tuple[str, int] = ("", 0)

    async def accept(self, stream: DivertedStream, head: RequestHead) -> None:
        self.accepted.append((stream, head))
        await stream.aclose()

    async def ask(self, data: bytes) -> bytes:
        """Sends a request, and returns all of the answer."""
        async with await trio.open_tcp_stream(*self.address) as client:
            await client.send_all(data)
            received = b""
            with trio.fail_after(30):
                while chunk := await client.receive_some():
                    received += chunk
        return received


@asynccontextmanager
async def door(
    limits: HandshakeLimits | None = None,
    tls_context: Callable[[], ssl.SSLContext] | None = None,
) -> AsyncIterator[Door]:
    it = Door(limits)
    if tls_context is not None:
        it.listener._tls_context = tls_context
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    it.address = listeners[0].socket.getsockname()[:2]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            lambda: it.listener.serve(listeners, handler_nursery=nursery)
        )
        yield it
        nursery.cancel_scope.cancel()


async def test_upgrade_is_given_away_with_its_head_as_it_came() -> None:
    async with door() as it:
        assert await it.ask(UPGRADE) == b""
        ((_, head),) = it.accepted
        assert head.target == b"/a?b=%20"
        assert head.path == b"/a"
        assert (b"host", b"x") in head.headers
        assert it.refused == []


@pytest.mark.parametrize(
    ("request_line", "healthy", "status", "refused"),
    [
        (b"GET /health", True, b"200 OK", []),
        (b"GET /health?from=lb", True, b"200 OK", []),
        (b"GET /health", False, b"503 Service Unavailable", []),
        (b"POST /health", True, b"405 Method Not Allowed", ["bad_request"]),
        (b"GET /", True, b"426 Upgrade Required", ["not_an_upgrade"]),
    ],
)
async def test_plain_http_is_answered(
    request_line: bytes, healthy: bool, status: bytes, refused: list[str]
) -> None:
    async with door() as it:
        it.healthy = healthy
        received = await it.ask(request_line + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert received.startswith(b"HTTP/1.1 " + status + b"\r\n")
        assert it.refused == refused


async def test_head_request_gets_no_body() -> None:
    async with door() as it:
        received = await it.ask(b"HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert received.endswith(b"\r\n\r\n")
        assert b"Content-Length: 3\r\n" in received


@pytest.mark.parametrize(
    "data",
    [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n", b"\0\r\n\r\n"],
)
async def test_what_is_not_http_gets_400(data: bytes) -> None:
    async with door() as it:
        assert (await it.ask(data)).startswith(b"HTTP/1.1 400 ")
        assert it.refused == ["bad_request"]


async def test_head_over_the_limit_gets_431() -> None:
    async with door(HandshakeLimits(head_bytes=1000)) as it:
        received = await it.ask(b"GET / HTTP/1.1\r\nX: " + b"x" * 1000)
        assert received.startswith(b"HTTP/1.1 431 ")
        assert it.refused == ["head_too_long"]


async def test_connection_without_a_request_is_counted() -> None:
    async with door() as it:
        async with await trio.open_tcp_stream(*it.address) as client:
            await client.send_eof()
            assert await client.receive_some() == b""
        assert it.refused == ["no_request"]


@pytest.mark.parametrize("drip", [b"", b"x"])
async def test_silent_and_slow_peers_run_out_of_time(
    autojump_clock: trio.testing.MockClock, drip: bytes
) -> None:
    autojump_clock.autojump_threshold = 0.01
    async with door() as it, await trio.open_tcp_stream(*it.address) as client:
        began = trio.current_time()
        closed = False
        while not closed:
            await client.send_all(drip)
            with trio.move_on_after(1):
                # A reset, if the last byte came after the end.
                try:
                    closed = await client.receive_some() == b""
                except trio.BrokenResourceError:
                    closed = True
        assert 9 < trio.current_time() - began < 12
        assert it.refused == ["handshake_timeout"]


async def test_oldest_handshake_makes_room_for_a_new_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    autojump_clock.autojump_threshold = 0.01
    async with door(HandshakeLimits(in_flight=2)) as it:
        idle = [await trio.open_tcp_stream(*it.address) for _ in range(2)]
        await trio.sleep(2)
        assert it.listener.handshakes_in_flight == 2
        await it.ask(UPGRADE)
        assert len(it.accepted) == 1
        assert await idle[0].receive_some() == b""
        assert it.refused == ["handshake_timeout"]
        for stream in idle:
            await stream.aclose()


async def test_burst_of_silent_peers_does_not_keep_a_call_out(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """None of them is old enough to be sacrificed, but together they take all files."""
    autojump_clock.autojump_threshold = 0.01
    async with door(HandshakeLimits(in_flight=2)) as it:
        idle = [await trio.open_tcp_stream(*it.address) for _ in range(6)]
        await it.ask(UPGRADE)
        assert len(it.accepted) == 1
        assert it.listener.handshakes_in_flight <= 4
        assert set(it.refused) == {"handshake_timeout"}
        for stream in idle:
            await stream.aclose()


async def test_tls_garbage_is_counted_and_a_real_client_gets_in() -> None:
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with door(tls_context=lambda: context) as it:
        await it.ask(UPGRADE)
        assert it.refused == ["tls"]
        tcp = await trio.open_tcp_stream(*it.address)
        client = trio.SSLStream(
            tcp, trusting, server_hostname="localhost", https_compatible=True
        )
        async with client:
            await client.send_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in await client.receive_some()
