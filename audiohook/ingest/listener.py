"""From a listening socket to a stream that waits to become a WebSocket.

Here a peer is anybody: each stage has a deadline, a size and a number, and
nothing that it sends is kept or logged.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import trio

from audiohook.errors import RemoteProtocolError
from audiohook.ingest.http import answer, parse_head, receive_body
from audiohook.ingest.origin import Origins, RefusedOriginError
from audiohook.ingest.stream import DivertedStream
from audiohook.ingest.transport import PlainTransport, TlsTransport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from audiohook.ingest.http import RequestHead
    from audiohook.ingest.origin import Origin
    from audiohook.ingest.pump import Pump

SECONDS = 1.0
KIB = 1024

HTTP_OK = 200

# A handshake this young is not sacrificed for a newer one, unless there are so many
# times as many as there should be: in a burst all are young, and take all files.
_GRACE = 1 * SECONDS
_CROWD = 2
# The kernel cuts it down to its own limit, net.core.somaxconn.
_BACKLOG = 0xFFFF
_LAST_PORT = 0xFFFF
# As 8443 stands for 443.
_UNPRIVILEGED = 8000


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


async def open_listeners(
    port: int, host: str | None, *, share: bool = False
) -> list[trio.SocketListener]:
    """Listens on every address of a host.

    Args:
        port: The port; 0 takes one that is free for each address.
        host: Name or address; None for all addresses of this machine.
        share: Let other processes of the same user listen on the same port, if
            they ask for it too; the kernel deals new connections out.

    Returns:
        A listener for each address.

    Raises:
        OSError: One of them cannot be listened on, or there is none.
    """
    found = await trio.socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    listeners = []
    with contextlib.ExitStack() as stack:
        for family, kind, protocol, _, address in found:
            try:
                sock = trio.socket.socket(family, kind, protocol)
            except OSError as error:
                # The machine has IPv4 or IPv6 only, and the resolver does not know.
                if error.errno == errno.EAFNOSUPPORT:
                    continue
                raise
            stack.callback(sock.close)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if share:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            await sock.bind(address)
            sock.listen(_BACKLOG)
            listeners.append(trio.SocketListener(sock))
        if not listeners:
            raise OSError(errno.EAFNOSUPPORT, "the machine has no such addresses")
        stack.pop_all()
    return listeners


def adopt_listeners(sockets: Iterable[socket.socket]) -> list[trio.SocketListener]:
    """Makes listeners of sockets that somebody else has opened.

    Closing such a listener leaves the socket, and whoever has connected to it, to
    the others that have it.

    Args:
        sockets: They listen and do not block. They are owned by the listeners
            from now on.
    """
    return [trio.SocketListener(trio.socket.from_stdlib_socket(s)) for s in sockets]


def listen_fault(error: OSError, port: int, *, names: tuple[str, str]) -> str:
    """Says in one line why an address cannot be listened on, and what could be.

    Args:
        error: What the system said.
        port: The port that was to be listened on.
        names: Settings that hold the address and the port.
    """
    host_name, port_name = names
    causes = [error, *getattr(error.__cause__, "exceptions", ())]
    numbers = {cause.errno for cause in causes if isinstance(cause, OSError)}
    if errno.EADDRINUSE in numbers:
        return (
            f"{port_name}: {port} is in use; choose another, such as"
            f" {port_name}={port % _LAST_PORT + 1}"
        )
    if errno.EACCES in numbers:
        return (
            f"{port_name}: {port} may not be listened on without privileges; choose"
            f" one above 1023, such as {port_name}={port + _UNPRIVILEGED}"
        )
    if errno.EADDRNOTAVAIL in numbers:
        return (
            f"{host_name}: is no address of this machine; for example"
            f" {host_name}=127.0.0.1"
        )
    text = os.strerror(error.errno) if error.errno else str(error)
    return (
        f"{host_name}: cannot be listened on ({text}); for example"
        f" {host_name}=127.0.0.1"
    )


class PostDesk(Protocol):
    """Takes the requests of one path that bring something."""

    @property
    def path(self) -> bytes:
        """The path."""

    @property
    def most_bytes(self) -> int:
        """Longest body."""

    def admits(self, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        """Tells whether a request may bring anything, by its headers."""

    def take(self, body: bytes) -> int:
        """Takes what was brought; returns the HTTP status to answer with."""


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
        post_desk: Takes requests that are no calls and bring something.
        origins: Tells who connects, and lets in who may; anybody if not given.
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
        post_desk: PostDesk | None = None,
        origins: Origins | None = None,
    ) -> None:
        self._accept = accept
        self._pump = pump
        self._healthy = healthy
        self._refused = refused
        self._limits = limits or HandshakeLimits()
        self._tls_context = tls_context
        self._post_desk = post_desk
        self._origins = origins or Origins()
        self._in_flight: OrderedDict[trio.CancelScope, float] = OrderedDict()
        self._idle = trio.Event()

    @property
    def handshakes_in_flight(self) -> int:
        """Connections that have not yet sent the head of a request."""
        return len(self._in_flight)

    async def serve(
        self,
        listeners: Sequence[trio.SocketListener],
        *,
        handler_nursery: trio.Nursery,
        sweep: bool = False,
        task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accepts connections until cancelled.

        Args:
            listeners: Sockets that listen. They are closed at the end.
            handler_nursery: Owns the tasks of the connections, so that those go
                on when no new ones are accepted any more.
            sweep: Take what has queued up before closing. To be chosen when the
                queue is nobody else's, since the kernel resets what is in it.
            task_status: Told when connections are accepted.
        """
        spares = [listener.socket.dup() for listener in listeners] if sweep else []
        try:
            await trio.serve_listeners(
                self.handle,
                list(listeners),
                handler_nursery=handler_nursery,
                task_status=task_status,
            )
        finally:
            for spare in spares:
                self._sweep(spare.detach(), handler_nursery)

    async def wait_no_handshakes(self) -> None:
        """Waits until every connection has sent its request, or has ended.

        It says something only once :meth:`serve` has ended.
        """
        # Those that were accepted last have not had their first turn yet.
        await trio.lowlevel.checkpoint()
        while self._in_flight:
            self._idle = trio.Event()
            await self._idle.wait()

    def _sweep(self, number: int, handler_nursery: trio.Nursery) -> None:
        """Accepts what is in the queue of a listening descriptor, and closes it."""
        with socket.socket(fileno=number) as listening:
            listening.setblocking(False)
            while True:
                try:
                    accepted, _ = listening.accept()
                except ConnectionAbortedError:
                    continue
                except OSError:  # there is none left, or no file for it
                    return
                tcp = trio.SocketStream(trio.socket.from_stdlib_socket(accepted))
                handler_nursery.start_soon(self.handle, tcp)

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
            # The head is 3 KiB that nobody needs for as long as the call lasts.
            accepted = self._accept(*taken)
            del taken
            await accepted

    async def _handshake(
        self, tcp: trio.SocketStream
    ) -> tuple[DivertedStream, RequestHead] | None:
        """Returns the stream of an upgrade request; None if it was anything else."""
        scope = trio.CancelScope(deadline=trio.current_time() + self._limits.deadline)
        self._make_room()
        self._in_flight[scope] = trio.current_time()
        try:
            with scope:
                origin = await self._origins.of_connection(tcp)
                stream = await self._encrypt(tcp)
                head = await self._receive_head(stream)
                if head is not None:
                    head = await self._with_client(origin, head, stream)
                if head is not None and head.asks_for_websocket:
                    stream.start_frames()
                    return stream, head
                if head is not None:
                    await self._answer_plain(stream, head)
        except ssl.SSLError:
            self._refused("tls")
        except RefusedOriginError as error:
            self._refused(error.reason)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._refused("no_request")
        finally:
            del self._in_flight[scope]
            if not self._in_flight:
                self._idle.set()
        if scope.cancelled_caught:
            self._refused("handshake_timeout")
        return None

    async def _with_client(
        self, origin: Origin, head: RequestHead, stream: DivertedStream
    ) -> RequestHead:
        """Notes who sent a request; who may not send any gets a refusal."""
        try:
            client = self._origins.of_request(origin, head)
        except RefusedOriginError:
            await answer(stream, 401, b"refused\n")
            raise
        return replace(head, client=None if client is None else str(client))

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
        transport = TlsTransport(tcp, self._tls_context(), self._pump.unsealer)
        try:
            await transport.handshake()
        except BaseException:
            await transport.aclose()
            raise
        return DivertedStream(transport, self._pump)

    def _make_room(self) -> None:
        if len(self._in_flight) >= self._limits.in_flight:
            is_crowd = len(self._in_flight) >= _CROWD * self._limits.in_flight
            for scope, since in self._in_flight.items():
                if scope.cancel_called:
                    continue
                if is_crowd or trio.current_time() - since > _GRACE:
                    scope.cancel()
                return

    async def _answer_plain(self, stream: DivertedStream, head: RequestHead) -> None:
        """Answers a request that is not for a WebSocket."""
        desk = self._post_desk
        if desk is not None and head.path == desk.path:
            await self._answer_post(stream, head, desk)
        elif head.path != b"/health":
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

    async def _answer_post(
        self, stream: DivertedStream, head: RequestHead, desk: PostDesk
    ) -> None:
        """Hands on what a request brings, if it may."""
        if head.method != b"POST":
            await answer(stream, 405, b"Only POST\n", headers=b"Allow: POST\r\n")
        elif not desk.admits(head.headers):
            await answer(stream, 401, b"refused\n")
        else:
            try:
                body = await receive_body(stream, desk.most_bytes)
            except RemoteProtocolError:
                self._refused("bad_request")
                await answer(stream, 400, b"Bad request\n")
                return
            if body is None:
                self._refused("bad_request")
                await answer(stream, 413, b"Too long\n")
                return
            status = desk.take(body)
            await answer(stream, status, b"ok\n" if status == HTTP_OK else b"no\n")
