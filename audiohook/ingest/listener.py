"""From a listening socket to a stream that waits to become a WebSocket.

Here a peer is anybody: each stage has a deadline, a size and a number, and
nothing that it sends is kept or logged.
"""

from __future__ import annotations

import ssl
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import h11
import trio

from audiohook.ingest.stream import DivertedStream
from audiohook.ingest.transport import PlainTransport, TlsTransport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from audiohook.ingest.pump import Pump

SECONDS = 1.0
KIB = 1024

# What the answer to plain HTTP may take before the connection is closed.
_ANSWER_DEADLINE = 5 * SECONDS
# A handshake this young is not sacrificed for a newer one.
_GRACE = 1 * SECONDS


@dataclass(frozen=True, slots=True)
class HandshakeLimits:
    """Bounds on what a peer may do before it has asked for anything.

    Attributes:
        deadline: Seconds for TLS and the head of the HTTP request together.
        head_bytes: Longest head.
        in_flight: Handshakes at a time. When there are more, the oldest makes
            room, since an honest one takes milliseconds.
    """

    deadline: float = 10 * SECONDS
    head_bytes: int = 16 * KIB
    in_flight: int = 4096


class Listener:
    """Accepts connections and takes each to the end of its HTTP request's head.

    Args:
        accept: Called with the stream of each WebSocket upgrade, in a task of its
            own; it owns the stream. It must not raise.
        pump: Reads the streams once their sessions are open.
        healthy: Whether ``GET /health`` is to say that new calls are welcome.
        refused: Called with one of a few fixed words when a connection ends here
            without having been a WebSocket upgrade or a health check.
        limits: Bounds on the handshake.
        tls_context: Gives the settings for the next connection; None for
            connections without TLS.
    """

    def __init__(
        self,
        accept: Callable[[DivertedStream], Awaitable[None]],
        *,
        pump: Pump,
        healthy: Callable[[], bool],
        refused: Callable[[str], None],
        limits: HandshakeLimits | None = None,
        tls_context: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self._accept = accept
        self._pump = pump
        self._healthy = healthy
        self._refused = refused
        self._limits = limits or HandshakeLimits()
        self._tls_context = tls_context
        self._in_flight: OrderedDict[trio.CancelScope, float] = OrderedDict()

    @property
    def handshakes_in_flight(self) -> int:
        """Connections that have not yet sent the head of a request."""
        return len(self._in_flight)

    async def serve(
        self,
        listeners: Sequence[trio.SocketListener],
        *,
        handler_nursery: trio.Nursery,
        task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accepts connections until cancelled.

        Args:
            listeners: Sockets that listen. They are closed at the end.
            handler_nursery: Owns the tasks of the connections, so that those go
                on when no new ones are accepted any more.
            task_status: Told when connections are accepted.
        """
        await trio.serve_listeners(
            self.handle,
            list(listeners),
            handler_nursery=handler_nursery,
            task_status=task_status,
        )

    async def handle(self, tcp: trio.SocketStream) -> None:
        """Takes one connection through its handshake, and gives it away."""
        try:
            stream = await self._handshake(tcp)
        except BaseException:
            await trio.aclose_forcefully(tcp)
            raise
        if stream is None:
            await trio.aclose_forcefully(tcp)
        else:
            await self._accept(stream)

    async def _handshake(self, tcp: trio.SocketStream) -> DivertedStream | None:
        """Returns the stream of an upgrade request; None if it was anything else."""
        scope = trio.CancelScope(deadline=trio.current_time() + self._limits.deadline)
        self._make_room()
        self._in_flight[scope] = trio.current_time()
        try:
            with scope:
                stream = await self._encrypt(tcp)
                head = await stream.receive_head(self._limits.head_bytes)
                if head is None:
                    too_long = stream.lane.rest_bytes >= self._limits.head_bytes
                    self._refused("head_too_long" if too_long else "no_request")
                    if too_long:
                        await self._answer(stream, 431, b"Headers too long\n")
                    return None
                if _asks_for_upgrade(head):
                    return stream
                await self._answer_plain(stream, head)
        except ssl.SSLError:
            self._refused("tls")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._refused("no_request")
        finally:
            del self._in_flight[scope]
        if scope.cancelled_caught:
            self._refused("handshake_timeout")
        return None

    async def _encrypt(self, tcp: trio.SocketStream) -> DivertedStream:
        if self._tls_context is None:
            return DivertedStream(PlainTransport(tcp, self._pump.fleet), self._pump)
        transport = TlsTransport(tcp, self._tls_context())
        try:
            await transport.handshake()
        except BaseException:
            await transport.aclose()
            raise
        return DivertedStream(transport, self._pump)

    def _make_room(self) -> None:
        if len(self._in_flight) >= self._limits.in_flight:
            for scope, since in self._in_flight.items():
                if scope.cancel_called:
                    continue
                if trio.current_time() - since > _GRACE:
                    scope.cancel()
                return

    async def _answer_plain(self, stream: DivertedStream, head: bytes) -> None:
        """Answers a request that is not for a WebSocket."""
        connection = h11.Connection(h11.SERVER)
        try:
            connection.receive_data(head)
            request = connection.next_event()
        except h11.RemoteProtocolError:
            request = None
        if not isinstance(request, h11.Request):
            self._refused("bad_request")
            await self._answer(stream, 400, b"Bad request\n")
        elif request.target.split(b"?", 1)[0] != b"/health":
            self._refused("not_an_upgrade")
            await self._answer(
                stream, 426, b"This is a WebSocket server\n", upgrade=True
            )
        elif request.method not in (b"GET", b"HEAD"):
            self._refused("bad_request")
            await self._answer(stream, 405, b"Only GET\n")
        elif self._healthy():
            await self._answer(stream, 200, b"ok\n", head=request.method == b"HEAD")
        else:
            await self._answer(
                stream, 503, b"no new calls\n", head=request.method == b"HEAD"
            )

    async def _answer(
        self,
        stream: DivertedStream,
        status: int,
        body: bytes,
        *,
        head: bool = False,
        upgrade: bool = False,
    ) -> None:
        reason = {
            200: b"OK",
            400: b"Bad Request",
            405: b"Method Not Allowed",
            426: b"Upgrade Required",
            431: b"Request Header Fields Too Large",
            503: b"Service Unavailable",
        }[status]
        data = (
            b"HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n"
            b"Connection: close\r\n" % (status, reason, len(body))
        )
        if upgrade:
            data += b"Upgrade: websocket\r\n"
        data += b"\r\n"
        with trio.move_on_after(_ANSWER_DEADLINE):
            await stream.send_all(data if head else data + body)
            await stream.aclose()


def _asks_for_upgrade(head: bytes) -> bool:
    """Whether the WebSocket library should judge the request.

    It looks for the header as anybody would write it; a request that hides it
    is answered as plain HTTP, which loses nothing.
    """
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"upgrade":
            return value.strip().lower() == b"websocket"
    return False
