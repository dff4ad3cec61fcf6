"""The WebSocket of a client, against other people's server side."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto import ConnectionType, WSConnection
from wsproto.connection import Connection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    Request,
    TextMessage,
)

from audiohook.simulator.load.framing import (
    BadFrameError,
    FrameReader,
    Opcode,
    Upgrade,
    masked_frame,
)


def answer_to(upgrade: Upgrade) -> bytes:
    server = WSConnection(ConnectionType.SERVER)
    server.receive_data(upgrade.request)
    (request,) = server.events()
    assert isinstance(request, Request)
    assert (request.host, request.target) == ("x:1", "/a?b=%20")
    assert (b"x-api-key", b"k") in request.extra_headers
    return server.send(AcceptConnection())


def make_upgrade() -> Upgrade:
    return Upgrade("x:1", "/a?b=%20", [(b"X-API-KEY", b"k")])


def test_upgrade_is_accepted_in_any_pieces() -> None:
    upgrade = make_upgrade()
    answer = answer_to(upgrade)
    data = bytearray()
    for byte in answer[:-1]:
        data.append(byte)
        assert not upgrade.take_answer(data)
    data += answer[-1:] + b"rest"
    assert upgrade.take_answer(data)
    assert data == b"rest"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            b"HTTP/1.1 401 Unauthorized\r\n\r\n",
            "answered with 401 Unauthorized; --api-key and --client-secret have to be",
        ),
        (b"HTTP/1.1 503\r\n\r\n", "answered with 503"),
        (b"HTTP/1.1 101 X\r\n\r\n", "not a valid WebSocket handshake"),
        (b"SSH-2.0-OpenSSH\r\n", "does not speak HTTP"),
        (b"HTTP/1.1\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 " + b"x" * 20_000, "does not speak HTTP"),
        (b"HTTP/1.1 400 \x1b[31m\r\n\r\n", r"400 \\x1b\[31m"),
    ],
)
def test_refusal_is_told(answer: bytes, words: str) -> None:
    with pytest.raises(BadFrameError, match=words):
        make_upgrade().take_answer(bytearray(answer))


def test_answer_to_another_request_is_refused() -> None:
    with pytest.raises(BadFrameError, match="handshake"):
        make_upgrade().take_answer(bytearray(answer_to(make_upgrade())))


def test_extension_that_nobody_asked_for_is_refused() -> None:
    upgrade = make_upgrade()
    answer = answer_to(upgrade).replace(
        b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    )
    with pytest.raises(BadFrameError, match="handshake"):
        upgrade.take_answer(bytearray(answer))


@given(payload=st.binary(max_size=70))
def test_frames_are_read_by_a_server(payload: bytes) -> None:
    server = Connection(ConnectionType.SERVER)
    server.receive_data(
        masked_frame(Opcode.PONG, payload) + masked_frame(Opcode.BINARY, payload * 9)
    )
    pong, message = server.events()
    assert pong == Pong(payload=payload)
    assert isinstance(message, BytesMessage)
    assert message.data == payload * 9


@given(cuts=st.lists(st.integers(1, 200), max_size=30))
def test_messages_are_read_in_any_pieces(cuts: list[int]) -> None:
    server = Connection(ConnectionType.SERVER)
    data = b"".join(
        [
            server.send(TextMessage("héllo", message_finished=False)),
            server.send(Ping(b"p")),
            server.send(TextMessage(" world", message_finished=True)),
            server.send(BytesMessage(bytes(300))),
            server.send(TextMessage("x" * 70_000)),
            server.send(CloseConnection(1000)),
        ]
    )
    reader, found = FrameReader(), []
    at = 0
    for cut in [*cuts, len(data)]:
        reader.data += data[at : at + cut]
        at += cut
        while (frame := reader.next_frame()) is not None:
            found.append(frame)
    assert found == [
        (Opcode.PING, b"p"),
        (Opcode.TEXT, "héllo world".encode()),
        (Opcode.BINARY, bytes(300)),
        (Opcode.TEXT, b"x" * 70_000),
        (Opcode.CLOSE, b"\x03\xe8"),
    ]
    assert not reader.data


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x81\x80abcd", "masked"),
        (b"\xc1\x00", "reserved bits"),
        (b"\x83\x00", "kind 3"),
        (b"\x09\x00", "control frame"),
        (b"\x89\x7e\x00\x7e" + bytes(126), "control frame"),
        (b"\x80\x00", "out of turn"),
        (b"\x01\x00\x01\x00", "out of turn"),
        (b"\x81\x7f\x00\x00\x00\x00\x10\x00\x00\x00", "268,435,456 bytes"),
    ],
)
def test_what_no_server_may_send_is_told(data: bytes, words: str) -> None:
    reader = FrameReader()
    reader.data += data
    with pytest.raises(BadFrameError, match=words):
        list(iter(reader.next_frame, None))


def test_message_without_end_is_refused() -> None:
    reader = FrameReader()
    for opcode in [b"\x01", *[b"\x00"] * 15]:
        reader.data += opcode + b"\x7e\xff\xff" + bytes(0xFFFF)
        assert reader.next_frame() is None
    reader.data += b"\x00\x7e\xff\xff" + bytes(0xFFFF)
    with pytest.raises(BadFrameError, match="without end"):
        reader.next_frame()
