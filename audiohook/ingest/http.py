"""The little HTTP that comes before a WebSocket."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import h11
import trio

from audiohook.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from audiohook.ingest.stream import DivertedStream

SECONDS = 1.0

# What an answer may take before the connection is closed.
_ANSWER_DEADLINE = 5 * SECONDS

HTTP_BAD_REQUEST = 400
HTTP_UPGRADE_REQUIRED = 426

_REASONS = {
    200: b"OK",
    400: b"Bad Request",
    401: b"Unauthorized",
    405: b"Method Not Allowed",
    413: b"Content Too Large",
    426: b"Upgrade Required",
    431: b"Request Header Fields Too Large",
    503: b"Service Unavailable",
}

# No two of its parts can take the same byte, so that nothing is tried twice.
_USUAL_HEAD = re.compile(
    rb"GET ([\x21-\x7e]+) HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\x21-\x7e][\x20-\x7e]*\r\n)+)\r\n"
)
_ABOUT_BODIES = frozenset({b"content-length", b"transfer-encoding"})

# 16 bytes in base64.
_WEBSOCKET_KEY = re.compile(rb"[+/0-9A-Za-z]{22}==")

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_CONTINUE_EVENT = h11.InformationalResponse(status_code=100, headers=[])


@dataclass(frozen=True, slots=True)
class UpgradeFault:
    """What is not in order with a request for a WebSocket.

    Attributes:
        status: HTTP status to answer with.
        text: What is wrong, for a person with ``curl``.
    """

    status: int
    text: bytes


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request as it came.

    Attributes:
        method: Such as ``GET``.
        target: Path and query, untouched, as the signature needs it.
        headers: Names in lower case and values, in order.
        version: Of HTTP, such as ``1.1``.
        client: Address of whoever sent it, as far as is known.
    """

    method: bytes
    target: bytes
    headers: Sequence[tuple[bytes, bytes]]
    version: bytes = b"1.1"
    client: str | None = None

    @property
    def path(self) -> bytes:
        """The target without its query."""
        return self.target.partition(b"?")[0]

    @property
    def asks_for_websocket(self) -> bool:
        """Whether the request is for a WebSocket, in order or not.

        Source: RFC 9110 section 7.8: of HTTP/1.0, the wish for an upgrade counts
        for nothing.
        """
        return self.version == b"1.1" and any(
            value.lower() == b"websocket" for value in self._values(b"upgrade")
        )

    @property
    def websocket_key(self) -> bytes:
        """What the answer to a request for a WebSocket depends on, if it is in order."""
        return self._values(b"sec-websocket-key")[0]

    @property
    def upgrade_fault(self) -> UpgradeFault | None:
        """What is wrong with a request for a WebSocket; None if it is in order.

        A body is none of a WebSocket's: what is a body to a proxy before us would be
        frames here.

        Source: RFC 6455 section 4.2.1.
        """
        lengths = self._values(b"content-length")
        tokens = b",".join(self._values(b"connection")).lower().split(b",")
        keys = self._values(b"sec-websocket-key")
        if self.method != b"GET":
            text = b"It is asked for with GET"
        elif self._values(b"transfer-encoding") or any(
            length.strip(b"0") for length in lengths
        ):
            text = b"The request must have no body"
        elif b"upgrade" not in {token.strip() for token in tokens}:
            text = b"Connection must say Upgrade"
        elif len(keys) != 1 or not _WEBSOCKET_KEY.fullmatch(keys[0]):
            text = b"Sec-WebSocket-Key must be there once, 16 bytes in base64"
        elif self._values(b"sec-websocket-version") != [b"13"]:
            text = b"Sec-WebSocket-Version must be 13"
            return UpgradeFault(HTTP_UPGRADE_REQUIRED, text)
        else:
            return None
        return UpgradeFault(HTTP_BAD_REQUEST, text)

    def _values(self, wanted: bytes) -> list[bytes]:
        return [value for name, value in self.headers if name == wanted]


def parse_head(data: bytes) -> RequestHead:
    """Parses the head of a request.

    What is written as all real clients write it is read here, in 9 µs; whatever is
    not, right or wrong, is left to h11, which takes 40.

    Args:
        data: The bytes up to and including the blank line.

    Raises:
        RemoteProtocolError: It is not HTTP/1.1.
    """
    return _parse_usual_head(data) or _parse_any_head(data)


def _parse_usual_head(data: bytes) -> RequestHead | None:
    """Parses a head without anything out of the ordinary; None if it has that."""
    match = _USUAL_HEAD.fullmatch(data)
    if match is None or b" \r\n" in data:
        return None
    target, lines = match.groups()
    headers = []
    for line in lines.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b": ")
        headers.append((name.lower(), value))
    names = [name for name, _ in headers]
    if names.count(b"host") != 1 or not _ABOUT_BODIES.isdisjoint(names):
        return None
    return RequestHead(b"GET", target, headers)


def _parse_any_head(data: bytes) -> RequestHead:
    connection = h11.Connection(h11.SERVER)
    try:
        connection.receive_data(data)
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        raise RemoteProtocolError("not an HTTP request") from error
    if not isinstance(event, h11.Request):
        raise RemoteProtocolError("not an HTTP request")
    return RequestHead(
        event.method, event.target, list(event.headers), event.http_version
    )


async def receive_body(stream: DivertedStream, most_bytes: int) -> bytes | None:
    """Reads a request whose head has been read, and returns what follows the head.

    Args:
        stream: Where it comes from; nothing has been taken out of it.
        most_bytes: Longest body.

    Returns:
        The body; None if it is longer.

    Raises:
        RemoteProtocolError: It is not HTTP/1.1, or ends early.
        trio.BrokenResourceError: The connection is gone.
    """
    connection = h11.Connection(h11.SERVER)
    body = bytearray()
    while True:
        try:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if connection.they_are_waiting_for_100_continue:
                    await stream.send_all(_CONTINUE)
                    connection.send(_CONTINUE_EVENT)
                connection.receive_data(await stream.receive_some())
        except h11.RemoteProtocolError as error:
            raise RemoteProtocolError("not an HTTP request") from error
        if isinstance(event, h11.Data):
            body += event.data
            if len(body) > most_bytes:
                return None
        elif isinstance(event, h11.EndOfMessage):
            return bytes(body)
        elif isinstance(event, h11.ConnectionClosed):
            raise RemoteProtocolError("the request ends early")


async def answer(
    stream: DivertedStream,
    status: int,
    body: bytes,
    *,
    without_body: bool = False,
    headers: bytes = b"",
) -> None:
    """Answers a request that does not become a WebSocket, and closes.

    Args:
        stream: Where the request came from.
        status: One of the few that are used here.
        body: Plain text for a person with ``curl``.
        without_body: Send the length of the body only, as ``HEAD`` asks.
        headers: More header lines, each with its line end.
    """
    data = (
        b"HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n"
        b"%sConnection: close\r\n\r\n" % (status, _REASONS[status], len(body), headers)
    )
    try:
        with trio.move_on_after(_ANSWER_DEADLINE):
            await stream.send_all(data if without_body else data + body)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # nobody is there to read it
    finally:
        await trio.aclose_forcefully(stream)
