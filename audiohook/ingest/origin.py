"""Who a connection comes from, and whether they may connect at all."""

from __future__ import annotations

import contextlib
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

import trio

from audiohook.errors import RemoteProtocolError
from audiohook.ingest.proxy_header import FIXED_BYTES, read_fixed, read_source
from audiohook.networks import Networks, address_of, client_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from audiohook.ingest.http import RequestHead
    from audiohook.networks import Address

_HEALTH: Final = b"/health"
# On, and for no time: closing sends a reset, and nothing is left behind.
_NO_LINGER: Final = struct.pack("ii", 1, 0)


class RefusedOriginError(Exception):
    """A connection is not taken.

    Attributes:
        reason: The word by which it is counted.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a connection comes from.

    Attributes:
        address: Of the client, as far as is known; None if it has none.
        is_proxy: Whether that is one of our proxies, which may yet tell whose request
            it brings.
    """

    address: Address | None
    is_proxy: bool = False


class Origins:
    """Tells who connects, and lets in who may.

    Args:
        admits: Tells whether an address may connect.
        trusted: Our proxies, who are believed what they say.
        proxy_protocol: Whether each of their connections begins with a header that
            says who is behind it, and nobody else may connect.
        told: Told of each connection that is not taken: why, and whose it is.
    """

    def __init__(
        self,
        *,
        admits: Callable[[Address], bool] = lambda _address: True,
        trusted: Networks | None = None,
        proxy_protocol: bool = False,
        told: Callable[[str, Address | None], None] = lambda _why, _whose: None,
    ) -> None:
        self._admits = admits
        self._trusted = Networks([]) if trusted is None else trusted
        self._proxy_protocol = proxy_protocol
        self._told = told

    async def of_connection(self, tcp: trio.SocketStream) -> Origin:
        """Judges a connection of which nothing was read.

        Raises:
            RefusedOriginError: It is not to be taken.

        *Cancellation:* The connection is of no use any more.
        """
        peer = _peer_of(tcp)
        if peer is None:  # a socket of this machine that has no addresses
            return Origin(None)
        if peer not in self._trusted:
            if self._proxy_protocol:
                self._refuse(tcp, "not_a_proxy", peer)
            if not self._admits(peer):
                self._refuse(tcp, "network", peer)
            return Origin(peer)
        if not self._proxy_protocol:
            return Origin(peer, is_proxy=True)
        try:
            source = await _read_header(tcp)
        except RemoteProtocolError:
            self._refuse(tcp, "proxy_header", peer)
        if source is None:
            return Origin(peer)
        if not self._admits(source):
            self._refuse(tcp, "network", source)
        return Origin(source)

    def of_request(self, origin: Origin, head: RequestHead) -> Address | None:
        """Judges a request.

        Returns:
            Who sent it.

        Raises:
            RefusedOriginError: It is not to be taken.
        """
        if not origin.is_proxy or origin.address is None:
            return origin.address
        forwarded = [v for n, v in head.headers if n.lower() == b"x-forwarded-for"]
        if not forwarded and head.path == _HEALTH and not head.asks_for_websocket:
            # It asks for itself how we are.
            return origin.address
        client = client_of(forwarded, self._trusted) if forwarded else origin.address
        if client is None or not self._admits(client):
            self._told("network", client)
            raise RefusedOriginError("network")
        return client

    def _refuse(
        self, tcp: trio.SocketStream, why: str, whose: Address | None
    ) -> NoReturn:
        with contextlib.suppress(OSError):
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._told(why, whose)
        raise RefusedOriginError(why) from None


def _peer_of(tcp: trio.SocketStream) -> Address | None:
    """Returns who is at the other end; None if it is a socket without addresses.

    Raises:
        RefusedOriginError: Nobody is there any more.
    """
    try:
        name = tcp.socket.getpeername()
    except OSError:
        raise RefusedOriginError("no_request") from None
    return address_of(name[0]) if isinstance(name, tuple) else None


async def _read_header(tcp: trio.SocketStream) -> Address | None:
    """Reads a PROXY header and not a byte more: what follows may be TLS."""
    fixed = read_fixed(await _read_exactly(tcp, FIXED_BYTES))
    return read_source(fixed, await _read_exactly(tcp, fixed.rest_bytes))


async def _read_exactly(tcp: trio.SocketStream, size_bytes: int) -> bytes:
    data = b""
    while len(data) < size_bytes:
        try:
            more = await tcp.receive_some(size_bytes - len(data))
        except trio.BrokenResourceError as error:
            raise RemoteProtocolError("gone within its PROXY header") from error
        if not more:
            raise RemoteProtocolError("gone within its PROXY header")
        data += more
    return data
