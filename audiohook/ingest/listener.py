"""From a listening socket to a stream that waits to become a WebSocket.

Here a peer is anybody: each stage has a deadline, a size and a number, and
nothing that it sends is kept or logged.
"""

from __future__ import annotations

import ssl
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from audiohook.errors import RemoteProtocolError
from audiohook.ingest.http import answer, parse_head
from audiohook.ingest.stream import DivertedStream
from audiohook.ingest.transport import PlainTransport, TlsTransport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from audiohook.ingest.http import RequestHead
    from audiohook.ingest.pump import Pump

SECONDS = 1.0
KIB = 1024

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
        accept: Called with the stream and the request of each WebSocket upgrade,
            in a task of its own; it owns the stream. It must not raise.
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
        accept: Callable[[DivertedStream, RequestHead], Awaitable[None]],
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
            taken = await self._handshake(tcp)
        except BaseException:
            await trio.aclose_forcefully(tcp)
            raise
        if taken is None:
            await trio.aclose_forcefully(tcp)
        else:
            await self._accept(*taken)

    async def _handshake(
        self, tcp: trio.SocketStream
    ) -> tuple[DivertedStream, RequestHead] | None:
        """Returns the stream of an upgrade request; None if it was anything else."""
        scope = trio.CancelScope(deadline=trio.current_time() + self._limits.deadline)
        self._make_room()
        self._in_flight[scope] = trio.current_time()
        try:
            with scope:
                stream = await self._encrypt(tcp)
                head = await self._receive_head(stream)
                if head is not None and head.asks_for_websocket:
                    return stream, head
                if head is not None:
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

    async def _receive_head(self, stream: DivertedStream) -> RequestHead | None:
        """Reads the head; None if there is none that can be read."""
        data = await stream.receive_head(self._limits.head_bytes)
        if data is None:
            if stream.lane.rest_bytes >= self._limits.head_bytes:
                self._refused("head_too_long")
                await answer(stream, 431, b"Headers too long\n")
            else:
                self._refused("no_request")
            return None
        try:
            return parse_head(data)
        except RemoteProtocolError:
            self._refused("bad_request")
            await answer(stream, 400, b"Bad request\n")
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

    async def _answer_plain(self, stream: DivertedStream, head: RequestHead) -> None:
        """Answers a request that is not for a WebSocket."""
        if head.path != b"/health":
            self._refused("not_an_upgrade")
            await answer(
                stream,
                426,
                b"This is a WebSocket server\n",
                headers=b"Upgrade: websocket\r\n",
            )
        elif head.method not in (b"GET", b"HEAD"):
            self._refused("bad_request")
            await answer(stream, 405, b"Only GET\n", headers=b"Allow: GET, HEAD\r\n")
        else:
            status, body = (200, b"ok\n") if self._healthy() else (503, b"busy\n")
            without_body = head.method == b"HEAD"
            await answer(stream, status, body, without_body=without_body)
