"""One connection that never blocks: TCP, or TLS over it."""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from audiohook.errors import ConfigError
from audiohook.simulator.connection import tls_context

if TYPE_CHECKING:
    from audiohook.simulator.load._frames import Outlet
    from audiohook.simulator.load.options import LoadOptions

_RECEIVE_BYTES = 65_536


class Link(Protocol):
    """A connection to the server. What its methods raise is an `OSError`."""

    @property
    def fd(self) -> int:
        """Its descriptor, for polling."""

    @property
    def outlet_fd(self) -> int:
        """What an `Outlet` is to send to; -1 if `flush` sends."""

    @property
    def events(self) -> int:
        """What to poll for now."""

    def establish(self) -> bool:
        """Go on connecting; True once the server can be talked to."""

    def receive(self) -> bytes | None:
        """Receive; empty at the end, None if nothing is there."""

    def flush(self, outlet: Outlet[Any]) -> bool:
        """Send what waits in an outlet; True if nothing does any more."""

    def shut_down(self) -> None:
        """Say nothing any more, as a machine does that is gone."""

    def close(self) -> None:
        """Let the connection go; again is fine."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where all calls go.

    Attributes:
        family: Address family.
        address: Address, as sockets take it.
        host: Name of the server, which its certificate must be for.
        context: How to do TLS; None for plain TCP.
    """

    family: int
    address: Any
    host: str
    context: ssl.SSLContext | None

    def dial(self) -> Link:
        """Begin a connection.

        Raises:
            OSError: Not even that is possible.
        """
        sock = socket.socket(self.family)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = sock.connect_ex(self.address)
            if code not in {0, errno.EINPROGRESS}:
                raise OSError(code, os.strerror(code))
            if self.context is None:
                return PlainLink(sock)
            return TlsLink(sock, self.context, self.host)
        except BaseException:
            sock.close()
            raise


def find_target(options: LoadOptions) -> Target:
    """Look the server up, once for all calls.

    Raises:
        ConfigError: There is no such host, or the certificates cannot be read.
    """
    one = options.call_options()
    endpoint = one.endpoint
    try:
        found = socket.getaddrinfo(
            endpoint.host, endpoint.port, type=socket.SOCK_STREAM
        )
    except socket.gaierror as error:
        raise ConfigError(
            f"no such host: {endpoint.host} ({error.strerror})"
        ) from error
    family, _, _, _, address = found[0]
    context = tls_context(one) if endpoint.secure else None
    return Target(family, address, endpoint.host, context)


class PlainLink:
    """Plain TCP."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._connected = False
        self._waits = False

    @property
    def fd(self) -> int:
        """Its descriptor, for polling."""
        return self._sock.fileno()

    @property
    def outlet_fd(self) -> int:
        """Outlets send by themselves."""
        return self._sock.fileno()

    @property
    def events(self) -> int:
        """What to poll for now."""
        out = self._waits or not self._connected
        return select.EPOLLIN | (select.EPOLLOUT if out else 0)

    def establish(self) -> bool:
        """Learn what became of connecting."""
        _raise_failure(self._sock)
        self._connected = True
        return True

    def receive(self) -> bytes | None:
        """Receive; empty at the end, None if nothing is there."""
        try:
            return self._sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return None

    def flush(self, outlet: Outlet[Any]) -> bool:
        """Send what waits in an outlet."""
        sent = outlet.flush()
        if outlet.error:
            raise OSError(outlet.error, os.strerror(outlet.error))
        self._waits = not sent
        return sent

    def shut_down(self) -> None:
        """Say nothing any more."""
        self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Let the connection go."""
        self._sock.close()


class TlsLink:
    """TLS."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._sock: socket.socket = sock
        self._context = context
        self._host = host
        self._secure: ssl.SSLSocket | None = None
        self._events = select.EPOLLIN | select.EPOLLOUT

    @property
    def fd(self) -> int:
        """Its descriptor, for polling."""
        return self._sock.fileno()

    @property
    def outlet_fd(self) -> int:
        """Only the library can send."""
        return -1

    @property
    def events(self) -> int:
        """What to poll for now."""
        return self._events

    def establish(self) -> bool:
        """Go on with TCP's and TLS's handshakes."""
        if self._secure is None:
            _raise_failure(self._sock)
            self._secure = self._context.wrap_socket(
                self._sock, server_hostname=self._host, do_handshake_on_connect=False
            )
            # It has taken the descriptor over.
            self._sock = self._secure
        self._events = select.EPOLLIN
        try:
            self._secure.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLWantWriteError:
            self._events |= select.EPOLLOUT
            return False
        return True

    def receive(self) -> bytes | None:
        """Receive; empty at the end, None if nothing is there."""
        parts: list[bytes] = []
        while True:
            try:
                data = self._sock.recv(_RECEIVE_BYTES)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return b"".join(parts) or None
            except ssl.SSLEOFError:
                data = b""
            if not data:
                # What came before the end is told first; the end comes again.
                return b"".join(parts)
            parts.append(data)

    def flush(self, outlet: Outlet[Any]) -> bool:
        """Send what waits in an outlet."""
        self._events = select.EPOLLIN
        while outlet.waiting_bytes:
            try:
                outlet.drop(self._sock.send(outlet.peek()))
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                outlet.drop(0)
                self._events |= select.EPOLLOUT
                return False
        return True

    def shut_down(self) -> None:
        """Say nothing any more; not even TLS's farewell."""
        self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Let the connection go."""
        self._sock.close()


def _raise_failure(sock: socket.socket) -> None:
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))
