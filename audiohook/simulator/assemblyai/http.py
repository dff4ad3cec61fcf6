"""HTTP/1.1 with a hand on the socket, for answers that fail as the network does.

A framework would keep the connection to itself; here an answer can be cut short,
and a connection be reset before, amid or instead of one.
"""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import h11
import trio

from audiohook.errors import AudioHookError
from audiohook.hosts import is_loopback
from audiohook.simulator.assemblyai.account import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

SECONDS = 1.0
KIB = 1024

# How long a peer may neither send nor take a byte.
_PATIENCE = 75 * SECONDS
_RECEIVE_BYTES = 64 * KIB
_PIECES = 8
# On, for 0 seconds: closing drops what is unsent and sends a reset.
_LINGER_NOT = struct.pack("ii", 1, 0)
_GONE = (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)


class PeerGone(AudioHookError):
    """There is nobody left to talk to on this connection."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request without its body.

    Attributes:
        method: Such as ``GET``.
        path: Without the query.
        query: Names and values; of several with one name, the last.
        headers: Names in lower case.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer.

    Attributes:
        status: HTTP status.
        body: All of it.
        content_type: What it is; nothing where there is no body.
        headers: More headers.
    """

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def json_answer(body: object, status: int = 200) -> Answer:
    """Makes an answer of JSON."""
    return Answer(status, json.dumps(body).encode())


def refusal_answer(refusal: Refusal) -> Answer:
    """Makes the answer that says why there is no other."""
    body = json.dumps({"error": str(refusal)}).encode()
    return Answer(refusal.status, body, headers=refusal.headers)


class Connection:
    """A connection of one client; requests on it come one after the other.

    Args:
        stream: The connection; `close` or `reset` ends it.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.SERVER)
        self._wants_body = True

    @property
    def is_local(self) -> bool:
        """Whether the client is on this machine."""
        try:
            peer = self._stream.socket.getpeername()
        except OSError:
            return False  # gone already
        return is_loopback(peer[0])

    async def receive(self) -> Request | None:
        """Waits for the next request; None when the client has no more.

        Raises:
            PeerGone: The connection broke, or nothing came for long.
            Refusal: What came is not HTTP; the connection cannot go on.
        """
        if self._http.our_state is h11.MUST_CLOSE:
            return None
        if self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
        event = await self._next_event()
        if not isinstance(event, h11.Request):
            return None
        self._wants_body = event.method != b"HEAD"
        path, _, query = event.target.decode("ascii").partition("?")
        return Request(
            event.method.decode("ascii"),
            path,
            dict(parse_qsl(query, keep_blank_values=True)),
            {
                name.decode("ascii"): value.decode("latin-1")
                for name, value in event.headers
            },
        )

    async def read_some(self) -> bytes:
        """Reads more of the body; nothing at its end.

        Raises:
            PeerGone: The connection broke before it was whole.
        """
        if self._http.their_state is not h11.SEND_BODY:
            return b""
        try:
            event = await self._next_event()
        except Refusal as error:
            raise PeerGone("the body is broken off") from error
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def read_all(self, most_bytes: int) -> bytes:
        """Reads the body.

        Args:
            most_bytes: Longest body.

        Raises:
            PeerGone: The connection broke before it was whole.
            Refusal: It is too long.
        """
        body = bytearray()
        while data := await self.read_some():
            body += data
            if len(body) > most_bytes:
                raise Refusal(413, "Request Entity Too Large")
        return bytes(body)

    async def drain(self) -> None:
        """Reads what is left of the body, and drops it.

        Raises:
            PeerGone: The connection broke before it was whole.
        """
        while await self.read_some():
            pass

    async def send(self, answer: Answer, *, seconds: float = 0.0) -> None:
        """Sends an answer.

        Args:
            answer: What to send.
            seconds: How long its body is to take.

        Raises:
            PeerGone: The connection broke.
        """
        await self._send(self._head(answer))
        body = answer.body if self._wants_body else b""
        pieces = _PIECES if seconds else 1
        size = max(1, -(-len(body) // pieces))
        starts = range(0, len(body), size)
        for start in starts:
            await trio.sleep(seconds / len(starts))
            await self._send(h11.Data(data=body[start : start + size]))
        await self._send(h11.EndOfMessage())

    async def send_half(self, answer: Answer) -> None:
        """Sends the head and half of the body, and closes.

        Raises:
            PeerGone: The connection broke.
        """
        await self._send(self._head(answer))
        if self._wants_body:
            await self._send(h11.Data(data=answer.body[: len(answer.body) // 2]))
        await self._stream.aclose()

    async def reset(self) -> None:
        """Ends the connection with a reset."""
        self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        await trio.aclose_forcefully(self._stream)

    async def wait_gone(self) -> None:
        """Waits until the client ends the connection, and lets it send."""
        while True:
            try:
                if not await self._stream.receive_some(_RECEIVE_BYTES):
                    return
            except _GONE:
                return

    def _head(self, answer: Answer) -> h11.Response:
        headers = {
            **({"Content-Type": answer.content_type} if answer.body else {}),
            "Content-Length": str(len(answer.body)),
            **answer.headers,
        }
        if self._http.their_state is h11.SEND_BODY:
            headers["Connection"] = "close"
        return h11.Response(
            status_code=answer.status,
            headers=list(headers.items()),
            reason=HTTPStatus(answer.status).phrase.encode("ascii"),
        )

    async def _next_event(self) -> object:
        """Reads until something has come that means something.

        Raises:
            PeerGone: The connection broke, or nothing came for long.
            Refusal: What came is not HTTP.
        """
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                raise Refusal(400, "Bad Request") from error
            if event is not h11.NEED_DATA:
                return event
            if self._http.they_are_waiting_for_100_continue:
                await self._send(h11.InformationalResponse(status_code=100, headers=[]))
            try:
                with trio.fail_after(_PATIENCE):
                    data = await self._stream.receive_some(_RECEIVE_BYTES)
            except _GONE as error:
                raise PeerGone("the connection broke") from error
            self._http.receive_data(data)

    async def _send(self, event: h11.Event) -> None:
        """Sends a part of an answer.

        Raises:
            PeerGone: The connection broke, or the client took nothing for long.
        """
        data = self._http.send(event)
        if not data:
            return
        try:
            with trio.fail_after(_PATIENCE):
                await self._stream.send_all(data)
        except _GONE as error:
            raise PeerGone("the connection broke") from error
