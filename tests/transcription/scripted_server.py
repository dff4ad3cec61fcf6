"""An HTTP server that answers as a test says, and breaks off as a test says."""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import h11
import trio

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

_READ_BYTES = 64 * 1024


@dataclass(frozen=True)
class Heard:
    """A request; its body as far as it was read."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What to answer.

    Attributes:
        status: Of the answer.
        body: Of the answer.
        headers: Besides the length.
        keep: How many bytes of head and body are sent before the connection is
            broken off; None sends all of it.
        reset: Break off with a reset.
        hang: Stay silent after that, and leave the connection open.
        early: Answer as soon as the head of the request is there.
    """

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    keep: int | None = None
    reset: bool = False
    hang: bool = False
    early: bool = False


NOTHING = Answer(keep=0)
RESET = Answer(keep=0, reset=True)
SILENCE = Answer(keep=0, hang=True)


def said(value: object, status: int = 200, **headers: str) -> Answer:
    """Makes an answer of JSON."""
    named = tuple((name.replace("_", "-"), text) for name, text in headers.items())
    return Answer(status, json.dumps(value).encode(), named)


@dataclass
class ScriptedServer:
    """Serves on loopback.

    Attributes:
        answer: Gives the answer to each request.
        heard: All requests.
        connections: How many were made.
        url: Where it is, once it is started.
    """

    answer: Callable[[Heard], Answer]
    tls: ssl.SSLContext | None = None
    heard: list[Heard] = field(default_factory=list)
    connections: int = 0
    url: str = ""

    async def serve(
        self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serves for ever."""
        async with trio.open_nursery() as nursery:
            serve = partial(trio.serve_tcp, self._serve_one, 0, host="127.0.0.1")
            (listener,) = await nursery.start(serve)
            port = listener.socket.getsockname()[1]
            self.url = f"http{'s' if self.tls else ''}://127.0.0.1:{port}"
            task_status.started()

    async def _serve_one(self, plain: trio.SocketStream) -> None:
        self.connections += 1
        stream: trio.abc.Stream = plain
        if self.tls is not None:
            stream = trio.SSLStream(plain, self.tls, server_side=True)
        try:
            async with stream:
                while await self._answer_one(stream, plain):
                    pass
        except (trio.BrokenResourceError, h11.RemoteProtocolError):
            pass

    async def _answer_one(
        self, stream: trio.abc.Stream, plain: trio.SocketStream
    ) -> bool:
        """Answers one request; tells whether there may be another."""
        http = h11.Connection(h11.SERVER)
        heard = await self._read(http, stream, b"")
        if heard is None:
            return False
        answer = self.answer(heard)
        if not answer.early:
            rest = await self._read(http, stream, heard.body, heard)
            assert rest is not None
            heard = rest
        self.heard.append(heard)
        head = h11.Response(
            status_code=answer.status,
            headers=[*answer.headers, ("Content-Length", str(len(answer.body)))],
        )
        data = http.send(head) + (http.send(h11.Data(data=answer.body)) or b"")
        await stream.send_all(data[: answer.keep])
        if answer.hang:
            await trio.sleep_forever()
        if answer.keep is None and not answer.early:
            return True
        if answer.reset:
            plain.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            plain.socket.close()
        elif answer.early:
            # What comes yet has to be read, or the answer is lost to a reset.
            await plain.send_eof()
            while await stream.receive_some(_READ_BYTES):
                pass
        return False

    async def _read(
        self,
        http: h11.Connection,
        stream: trio.abc.Stream,
        body: bytes,
        heard: Heard | None = None,
    ) -> Heard | None:
        """Reads the head of a request, or the rest of one whose head is there."""
        data = bytearray(body)
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(bytes(await stream.receive_some(_READ_BYTES)))
            elif isinstance(event, h11.Request):
                headers = {n.decode().lower(): v.decode() for n, v in event.headers}
                return Heard(event.method.decode(), event.target.decode(), headers, b"")
            elif isinstance(event, h11.Data):
                data += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert heard is not None
                return Heard(heard.method, heard.target, heard.headers, bytes(data))
            else:
                return None
