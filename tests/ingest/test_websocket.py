"""The library's WebSocket over a request that was judged, and a client by hand."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import pytest
import trio
import trio.testing
import wsproto
import wsproto.events
from hypothesis import given
from hypothesis import strategies as st
from trio_websocket import ConnectionClosed

from audiohook.ingest.http import parse_head
from audiohook.ingest.pump import Pump
from audiohook.ingest.stream import DivertedStream, text_frame
from audiohook.ingest.transport import PlainTransport
from audiohook.ingest.websocket import CallSocket, JudgedConnection
from tests.house import upgrade_request
from tests.ingest.sockets import connection
from tests.reference_frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    frame,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MOST = 1000


@asynccontextmanager
async def ends(
    early: bytes = b"",
) -> AsyncIterator[tuple[trio.SocketStream, CallSocket]]:
    """The client's stream, and our WebSocket, once the client has its answer.

    Args:
        early: What the client sends with its request.
    """
    pump = Pump(0.02)
    async with connection() as (client, server), trio.open_nursery() as nursery:
        stream = DivertedStream(PlainTransport(server, pump.fleet), pump)
        await client.send_all(upgrade_request() + early)
        data = await stream.receive_head(10_000)
        assert data is not None
        stream.start_frames()
        judged = JudgedConnection(stream, parse_head(data))
        socket = CallSocket(stream, judged, queue_size=4, max_message_size=MOST)
        await socket.accept(nursery)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += await heard(client, 1)
        assert answer.startswith(b"HTTP/1.1 101 ")
        yield client, socket
        await stream.aclose()
        nursery.cancel_scope.cancel()


def unmasked(opcode: int, payload: bytes) -> bytes:
    return bytes((0x80 | opcode, len(payload))) + payload


async def heard(client: trio.SocketStream, most_bytes: int = 65_536) -> bytes:
    with trio.fail_after(30):
        return await client.receive_some(most_bytes)


async def test_answer_is_what_the_library_would_say() -> None:
    library = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
    library.receive_data(upgrade_request())
    assert isinstance(next(library.events()), wsproto.events.Request)
    theirs = library.send(wsproto.events.AcceptConnection())
    async with connection() as (_, server):
        pump = Pump(0.02)
        stream = DivertedStream(PlainTransport(server, pump.fleet), pump)
        ours = JudgedConnection(stream, parse_head(upgrade_request()))
        answer = ours.send(wsproto.events.AcceptConnection())
    assert answer.lower().split() == theirs.lower().split()


@given(st.integers(0, 200_000))
def test_text_is_framed_as_the_library_frames_it(length: int) -> None:
    library = wsproto.connection.Connection(wsproto.ConnectionType.SERVER)
    text = "ü" * (length // 2) + "u" * (length % 2)
    assert text_frame(text) == library.send(wsproto.events.TextMessage(data=text))


@pytest.mark.parametrize("step", [1, 7, 1000])
async def test_messages_come_whole_and_in_order(step: int) -> None:
    data = (
        frame(TEXT, "größer".encode())
        + frame(TEXT, b"in ", fin=False)
        + frame(PING, b"?")
        + frame(CONTINUATION, b"", fin=False)
        + frame(CONTINUATION, b"pieces")
        + frame(PONG, b"unasked")
        + frame(BINARY, b"\0\xff", fin=False)
        + frame(CONTINUATION, b"\1")
        + frame(TEXT, b"")
    )
    async with ends() as (client, socket), trio.open_nursery() as nursery:

        async def send() -> None:
            for begin in range(0, len(data), step):
                await client.send_all(data[begin : begin + step])
                await trio.testing.wait_all_tasks_blocked()

        nursery.start_soon(send)
        got = [await socket.get_message() for _ in range(4)]
        assert got == ["größer", "in pieces", b"\0\xff\1", ""]
        assert await heard(client) == unmasked(PONG, b"?")


@pytest.mark.parametrize("split", [0, 1, 5, 9, 12, 20])
async def test_what_came_with_the_request_is_heard_after_its_answer(split: int) -> None:
    data = frame(PING, b"?") + frame(TEXT, b"early")
    async with ends(data[: len(data) - split]) as (client, socket):
        await client.send_all(data[len(data) - split :])
        assert await heard(client) == unmasked(PONG, b"?")
        with trio.fail_after(30):
            assert await socket.get_message() == "early"


async def test_close_that_came_with_the_request_is_answered() -> None:
    async with ends(frame(TEXT, b"last") + frame(CLOSE, b"\x03\xe8")) as (
        client,
        socket,
    ):
        with trio.fail_after(30):
            assert await socket.get_message() == "last"
            with pytest.raises(ConnectionClosed):
                await socket.get_message()
        assert await heard(client) == unmasked(CLOSE, b"\x03\xe8")


async def test_texts_alone_need_nobody_to_judge_them() -> None:
    async with ends() as (client, socket):
        judged = cast("JudgedConnection", socket._wsproto)
        lane = cast("DivertedStream", socket._stream).lane
        for text in ("open", "größer", "x" * MOST):
            await client.send_all(frame(TEXT, text.encode()))
            assert await socket.get_message() == text
            assert lane.pop_mark() == 0
            await socket.send_message(text[:9])
            assert await heard(client) == text_frame(text[:9])
        assert judged._frames is None
        await client.send_all(frame(TEXT, b"two") + frame(TEXT, b"at once"))
        assert await socket.get_message() == "two"
        assert await socket.get_message() == "at once"
        assert judged._frames is not None


async def test_rest_of_a_message_is_not_taken_for_one() -> None:
    """Though it looks like one: a whole frame with a text of its own."""
    inner = frame(TEXT, b"inner", mask=bytes(4))
    whole = frame(TEXT, b"abc" + inner, mask=bytes(4))
    async with ends() as (client, socket):
        await client.send_all(whole[: -len(inner)])
        await trio.testing.wait_all_tasks_blocked()
        await client.send_all(inner)
        with trio.fail_after(30):
            ended = None
            try:
                message = await socket.get_message()
            except ConnectionClosed as error:
                ended = error.reason
    # Its bytes are no UTF-8, which shows that they were taken for what they are.
    assert ended is not None, message
    assert ended.code == 1007


async def test_close_is_answered_with_its_code() -> None:
    async with ends() as (client, socket):
        await client.send_all(frame(TEXT, b"last") + frame(CLOSE, b"\x03\xe9bye"))
        assert await socket.get_message() == "last"
        with pytest.raises(ConnectionClosed) as ended:
            await socket.get_message()
        assert ended.value.reason is not None
        assert ended.value.reason.code == 1001
        assert await heard(client) == unmasked(CLOSE, b"\x03\xe9bye")
        assert await heard(client) == b""


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"x", rsv=1), 1002),
        (frame(CONTINUATION, b"x"), 1002),
        (frame(TEXT, bytes(MOST + 1)), 1009),
        (frame(TEXT, bytes(MOST), fin=False) + frame(CONTINUATION, b"x"), 1009),
    ],
)
async def test_peer_that_breaks_the_rules_is_told_and_not_heard_any_more(
    data: bytes, code: int
) -> None:
    async with ends() as (client, socket):
        await client.send_all(data + frame(TEXT, b"more"))
        with pytest.raises(ConnectionClosed) as ended:
            await socket.get_message()
        assert ended.value.reason is not None
        assert ended.value.reason.code == code
        goodbye = await heard(client)
        assert goodbye[0] == 0x80 | CLOSE
        assert goodbye[2:4] == code.to_bytes(2, "big")


async def test_peer_that_is_gone_is_heard_to_the_end() -> None:
    async with ends() as (client, socket):
        await client.send_all(frame(TEXT, b"first") + frame(TEXT, b"second"))
        await client.aclose()
        assert await socket.get_message() == "first"
        assert await socket.get_message() == "second"
        with pytest.raises(ConnectionClosed) as ended:
            await socket.get_message()
        assert ended.value.reason is not None
        assert ended.value.reason.code == 1006


async def test_pieces_of_nothing_are_not_kept() -> None:
    nothing = frame(CONTINUATION, b"", fin=False)
    async with ends() as (client, socket):
        await client.send_all(frame(TEXT, b"", fin=False) + nothing * 1000)
        await client.send_all(frame(CONTINUATION, b"end"))
        assert await socket.get_message() == "end"
        assert len(socket._message_parts) <= 1
