"""The header of the PROXY protocol, version 2, which tells who is behind a proxy.

It comes before anything else, before TLS too. Nothing here reads from a socket.

Source: HAProxy, "The PROXY protocol, versions 1 & 2", section 2.2.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from audiohook.errors import RemoteProtocolError

if TYPE_CHECKING:
    from audiohook.networks import Address

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
"""What it begins with; nothing that is TLS or HTTP does."""

FIXED_BYTES: Final = 16
"""Length of the part that says how long the rest is."""

MOST_BYTES: Final = 4096
"""Longest rest that is read. Addresses have 36 bytes, and load balancers add some
hundred about the connection, of which nothing is wanted."""

_VERSION: Final = 2
_LOCAL, _PROXY = 0, 1
_INET, _INET6 = 1, 2
_INET_BYTES: Final = 12
_INET6_BYTES: Final = 36
_INET6_ADDRESS_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Fixed:
    """The part of a header that is always there.

    Attributes:
        is_local: Whether the proxy speaks for itself, as for a look at our health.
        family: Of the addresses that follow.
        rest_bytes: How much follows.
    """

    is_local: bool
    family: int
    rest_bytes: int


def read_fixed(data: bytes) -> Fixed:
    """Read the part that is always there.

    Args:
        data: `FIXED_BYTES` of it.

    Raises:
        RemoteProtocolError: It is no such header.
    """
    if len(data) != FIXED_BYTES or not data.startswith(SIGNATURE):
        raise RemoteProtocolError("no PROXY header")
    version, command = data[12] >> 4, data[12] & 0x0F
    if version != _VERSION or command not in (_LOCAL, _PROXY):
        raise RemoteProtocolError("PROXY header of another version")
    rest_bytes = int.from_bytes(data[14:16], "big")
    if rest_bytes > MOST_BYTES:
        raise RemoteProtocolError("PROXY header too long")
    return Fixed(command == _LOCAL, data[13] >> 4, rest_bytes)


def read_source(fixed: Fixed, rest: bytes) -> Address | None:
    """Read where a connection comes from.

    Args:
        fixed: The part that was read before.
        rest: `Fixed.rest_bytes` that follow it.

    Returns:
        The address; None if the proxy speaks for itself, or does not know.

    Raises:
        RemoteProtocolError: There is less than an address.
    """
    if fixed.is_local or fixed.family not in (_INET, _INET6):
        return None
    least = _INET_BYTES if fixed.family == _INET else _INET6_BYTES
    if len(rest) != fixed.rest_bytes or len(rest) < least:
        raise RemoteProtocolError("PROXY header without addresses")
    if fixed.family == _INET:
        return ipaddress.IPv4Address(rest[:4])
    address = ipaddress.IPv6Address(rest[:_INET6_ADDRESS_BYTES])
    return address.ipv4_mapped or address
