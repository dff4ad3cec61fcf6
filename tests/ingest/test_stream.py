from __future__ import annotations

import os
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
import trustme

from audiohook._divert import Unsealer
from audiohook.ingest.pump import Pump
from audiohook.ingest.stream import DivertedStream
from audiohook.ingest.transport import PlainTransport, TlsTransport
from tests.ingest.sockets import connection
from tests.reference_frames import BINARY, CLOSE, TEXT, frame
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    Opened = Callable[
        [trustme.CA],
        AbstractAsyncContextManager[tuple[trio.abc.Stream, DivertedStream, Pump]],
    ]

INTERVAL = 0.02


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@asynccontextmanager
async def plain(
    _authority: trustme.CA,
) -> AsyncIterator[tuple[trio.abc.Stream, DivertedStream, Pump]]:
    pump = Pump(INTERVAL)
    async with connection() as (client, server), trio.open_nursery() as nursery:
        await nursery.start(pump.run)
        stream = DivertedStream(PlainTransport(server, pump.fleet), pump)
        yield client, stream, pump
        await stream.aclose()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def encrypted(
    authority: trustme.CA,
) -> AsyncIterator[tuple[trio.abc.Stream, DivertedStream, Pump]]:
    pump = Pump(INTERVAL)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    # A client that closes with a ticket unread would reset the connection.
    context.num_tickets = 0
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with connection() as (client, server), trio.open_nursery() as nursery:
        await nursery.start(pump.run)
        transport = TlsTransport(server, context, pump.unsealer)
        secure = trio.SSLStream(client, trusting, server_hostname="localhost")
        async with trio.open_nursery() as hands:
            hands.start_soon(secure.do_handshake)
            hands.start_soon(transport.handshake)
        stream = DivertedStream(transport, pump)
        yield secure, stream, pump
        await stream.aclose()
        nursery.cancel_scope.cancel()


both = pytest.mark.parametrize("opened", [plain, encrypted])


@both
async def test_reader_gets_all_but_audio(opened: Opened, authority: trustme.CA) -> None:
    audio = os.memfd_create("audio")
    async with opened(authority) as (client, stream, pump):
        await client.send_all(b"GET / HTTP/1.1\r\n\r\n" + frame(TEXT, b"early"))
        head = await stream.receive_head(1000)
        assert head == b"GET / HTTP/1.1\r\n\r\n"
        stream.start_frames()
        with trio.fail_after(30):
            assert await stream.receive_some() == frame(TEXT, b"early")
        assert stream.take_lone_text() == "early"
        assert stream.lane.pop_mark() == 0
        stream.lane.keep(2, audio)
        stream.enlist(lambda _: False)
        stream.enlist(lambda _: False)
        data = frame(BINARY, bytes(1600)) * 50 + frame(TEXT, b"late")
        await client.send_all(data)
        received = b""
        while len(received) < len(frame(TEXT, b"late")):
            received += await stream.receive_some()
        assert received == frame(TEXT, b"late")
        assert stream.lane.pop_mark() == 80_000
        await pump.flush(stream.lane)
        assert os.fstat(audio).st_size == 80_000
        await stream.send_all(b"answer")
        assert await client.receive_some() == b"answer"
    os.close(audio)


@both
async def test_end_of_stream_reaches_an_enlisted_reader(
    opened: Opened, authority: trustme.CA
) -> None:
    async with opened(authority) as (client, stream, _):
        stream.lane.start_frames(0)
        stream.lane.keep(1)
        stream.enlist(lambda _: False)
        await client.send_all(frame(BINARY, b"last"))
        await client.aclose()
        with trio.fail_after(30):
            assert await stream.receive_some() == b""
        assert stream.lane.audio_bytes == 4


@both
async def test_closing_wakes_the_reader(opened: Opened, authority: trustme.CA) -> None:
    async with opened(authority) as (_, stream, pump), trio.open_nursery() as nursery:
        stream.lane.start_frames(0)
        stream.enlist(lambda _: False)

        async def read() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive_some()

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        await stream.aclose()
        assert pump.statistics().lanes == 0
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")


async def test_what_waits_to_be_sent_does_not_reach_who_gets_the_number(
    authority: trustme.CA,
) -> None:
    """Between its turn and its sending somebody may close the connection."""
    async with encrypted(authority) as (_, stream, _), trio.open_nursery() as nursery:
        transport = stream.transport
        assert isinstance(transport, TlsTransport)

        async def send() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await stream.send_all(b"late")

        number = transport._fd
        async with transport._sending:
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            await stream.aclose()
            other = os.memfd_create("other")
            os.dup2(other, number)
        await trio.testing.wait_all_tasks_blocked()
        assert os.fstat(other).st_size == 0
        for each in {other, number}:
            os.close(each)


@both
async def test_audio_that_came_before_closing_is_read(
    opened: Opened, authority: trustme.CA
) -> None:
    async with opened(authority) as (client, stream, _):
        stream.lane.start_frames(0)
        stream.lane.keep(1)
        await client.send_all(frame(BINARY, b"abc"))
        await stream.transport.wait_readable()
        await stream.aclose()
        assert stream.lane.audio_bytes == 3


async def test_audio_the_slow_way_is_written_if_the_connection_ends_while_opening(
    authority: trustme.CA,
) -> None:
    audio = os.memfd_create("audio")
    async with plain(authority) as (client, stream, pump):
        stream.lane.start_frames(0)
        early = frame(BINARY, b"early") + frame(CLOSE, b"")
        await client.send_all(early)
        assert await stream.receive_some() == early
        await stream.aclose()
        # The call's turn: it has made a place for the audio meanwhile.
        stream.lane.keep(1, audio)
        stream.enlist(lambda _: False)
        stream.lane.append(b"early")
        with trio.fail_after(30):
            await pump.flush(stream.lane)
        assert os.pread(audio, 10, 0) == b"early"
        pump.release(stream.lane)
        assert pump.statistics().lanes == 0
        assert pump.statistics().buffered_bytes == 0
    os.close(audio)


async def test_reset_breaks_the_reader(authority: trustme.CA) -> None:
    async with plain(authority) as (client, stream, _):
        assert isinstance(client, trio.SocketStream)
        stream.lane.start_frames(0)
        stream.enlist(lambda _: False)
        client.setsockopt(
            trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1" + bytes(7)
        )
        client.socket.close()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()


async def test_tls_garbage_breaks_the_reader(authority: trustme.CA) -> None:
    async with encrypted(authority) as (client, stream, _):
        assert isinstance(client, trio.SSLStream)
        stream.lane.start_frames(0)
        stream.enlist(lambda _: False)
        await client.transport_stream.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
        with trio.fail_after(30), pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()


async def test_tls_handshake_fails_on_garbage_and_on_an_early_end(
    authority: trustme.CA,
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    async with connection() as (client, server):
        await client.send_all(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(ssl.SSLError):
            await TlsTransport(server, context, Unsealer()).handshake()
    async with connection() as (client, server):
        await client.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await TlsTransport(server, context, Unsealer()).handshake()


async def test_large_answers_go_out_over_tls_while_audio_comes_in(
    authority: trustme.CA,
) -> None:
    async with encrypted(authority) as (client, stream, _):
        stream.lane.start_frames(0)
        audio = os.memfd_create("audio")
        stream.lane.keep(1, audio)
        stream.enlist(lambda _: False)
        size = 3_000_000
        received = bytearray()

        async def drain() -> None:
            while len(received) < size:
                received.extend(await client.receive_some(65536))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, bytes(size))
            nursery.start_soon(client.send_all, frame(BINARY, bytes(60_000)) * 10)
            nursery.start_soon(drain)
        assert received == bytes(size)
        await wait_until(lambda: stream.lane.audio_bytes == 600_000)
    os.close(audio)


async def test_reader_does_not_sleep_beside_what_the_pump_has_read(
    authority: trustme.CA,
) -> None:
    async with plain(authority) as (client, stream, pump):
        assert isinstance(client, trio.SocketStream)
        stream.lane.start_frames(0)
        received: list[bytes] = []

        async def read() -> None:
            received.append(await stream.receive_some())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            # No schedule point from here on: the pump is first at the socket.
            stream.enlist(lambda _: False)
            os.write(client.socket.fileno(), frame(TEXT, b"x"))
            pump._pass()
            with trio.fail_after(30):
                await wait_until(lambda: received)
        assert received == [frame(TEXT, b"x")]
