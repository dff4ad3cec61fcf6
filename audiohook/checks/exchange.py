"""One request to become a WebSocket, and whatever comes back.

The simulator's client gives up at anything that is no WebSocket; here it is the
other answers that tell what is wrong.
"""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import h11
import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

SECONDS = 1.0
KIB = 1024

ANSWER_SECONDS: Final = 10 * SECONDS
_MAX_ANSWER_BYTES: Final = 64 * KIB
_RECEIVE_BYTES: Final = 4 * KIB
SWITCHING: Final = 101
HTTP2_ONLY: Final = "it speaks HTTP/2 only"
_UPGRADE_REQUIRED: Final = 426
_OUR_WORDS: Final = b"This is a WebSocket server\n"

# Source: RFC 9113, sections 4.1 and 6: type of a frame behind its length.
_HTTP2_FRAMES: Final = (4, 7)


class NoAnswerError(Exception):
    """Nothing came that could be read; the text says what came instead."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        status: Of HTTP; 101 if it became a WebSocket.
        headers: By name in lower case.
        body: How the rest begins.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


def is_ours(answer: Answer) -> bool:
    """Tell whether an answer to no upgrade is that of our service."""
    return answer.status == _UPGRADE_REQUIRED and answer.body == _OUR_WORDS


async def ask(
    connect: Callable[[], Awaitable[trio.abc.Stream]],
    authority: str,
    target: str,
    headers: Sequence[tuple[bytes, bytes]],
    *,
    upgrade: bool = True,
) -> Answer:
    """Ask once, and close the connection again.

    Args:
        connect: Opens a connection.
        authority: The ``Host``.
        target: Path and query.
        headers: Further headers.
        upgrade: Whether to ask for a WebSocket.

    Raises:
        NoAnswerError: There was no HTTP/1.1 answer.
        OSError: There was no connection.
        trio.BrokenResourceError: TLS did not come about, see its cause.
    """
    stream = await connect()
    try:
        with trio.fail_after(ANSWER_SECONDS):
            return await _exchange(stream, authority, target, headers, upgrade)
    except trio.TooSlowError:
        raise NoAnswerError(f"no answer within {ANSWER_SECONDS:g} s") from None
    finally:
        await trio.aclose_forcefully(stream)


async def _exchange(
    stream: trio.abc.Stream,
    authority: str,
    target: str,
    headers: Sequence[tuple[bytes, bytes]],
    upgrade: bool,
) -> Answer:
    connection = h11.Connection(h11.CLIENT)
    all_headers = [(b"Host", authority.encode()), *headers]
    if upgrade:
        all_headers += [
            (b"Upgrade", b"websocket"),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Version", b"13"),
            (b"Sec-WebSocket-Key", base64.b64encode(secrets.token_bytes(16))),
        ]
    request = h11.Request(method="GET", target=target, headers=all_headers)
    # The end of the request adds nothing on the wire.
    data = connection.send(request)
    connection.send(h11.EndOfMessage())
    assert data is not None
    head = b""
    answer: Answer | None = None
    try:
        await stream.send_all(data)
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                piece = bytes(await stream.receive_some(_RECEIVE_BYTES))
                head += piece if len(head) < _RECEIVE_BYTES else b""
                connection.receive_data(piece)
                continue
            answer, is_whole = _take(event, answer)
            if is_whole and answer is not None:
                return answer
    except h11.RemoteProtocolError:
        if answer is not None:
            return answer
        raise NoAnswerError(_what_is(head)) from None
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        if answer is not None:
            return answer
        raise NoAnswerError("the connection was cut off without an answer") from None


def _take(event: object, answer: Answer | None) -> tuple[Answer | None, bool]:
    """Take in a piece; returns what is known, and whether it is all there is."""
    match event:
        case h11.InformationalResponse(status_code=status, headers=headers):
            if status == SWITCHING:
                return Answer(status, _named(headers)), True
            return answer, False
        case h11.Response(status_code=status, headers=headers):
            return Answer(status, _named(headers)), False
        case h11.Data(data=data) if answer is not None:
            body = answer.body + bytes(data)
            whole = len(body) > _MAX_ANSWER_BYTES
            return Answer(answer.status, answer.headers, body), whole
        case _:
            return answer, True


def _named(headers: h11._headers.Headers) -> dict[str, str]:
    return {name.decode(): value.decode("latin-1") for name, value in headers}


def _what_is(head: bytes) -> str:
    """Say what an answer is that is no HTTP/1.1."""
    if not head:
        return "the connection was closed without an answer"
    if len(head) > 3 and head[:2] == b"\0\0" and head[3] in _HTTP2_FRAMES:
        return HTTP2_ONLY
    return "the answer is not HTTP"
