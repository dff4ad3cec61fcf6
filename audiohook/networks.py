"""Networks that an operator names, and whether an address is in one of them."""

from __future__ import annotations

import bisect
import ipaddress
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

MIB: Final = 1024 * 1024

_MOST_BYTES: Final = MIB
_MOST_NETWORKS: Final = 20_000
_IPV4, _IPV6 = 4, 6

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def address_of(text: str) -> Address | None:
    """Read an address; None if it is none.

    Args:
        text: IPv4, IPv6 with or without a zone, or IPv4 in the form of IPv6, which
            is taken for the IPv4 address that it is.
    """
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped


@dataclass(frozen=True, slots=True)
class _Ranges:
    """Addresses of one version, as stretches that do not touch."""

    starts: tuple[int, ...]
    ends: tuple[int, ...]

    def __contains__(self, number: int) -> bool:
        place = bisect.bisect_right(self.starts, number) - 1
        return place >= 0 and number <= self.ends[place]


class Networks:
    """Some networks. To ask for an address takes as long for ten as for thousands.

    Args:
        networks: In the form ``198.51.100.0/24``, or single addresses.

    Raises:
        ValueError: One is none; the text says which place it has, and why.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        found = [
            _network(text.strip(), place) for place, text in enumerate(networks, 1)
        ]
        if len(found) > _MOST_NETWORKS:
            raise ValueError(f"has more than {_MOST_NETWORKS} networks")
        self._count = len(found)
        self._of_version = {
            version: _ranges([each for each in found if each.version == version])
            for version in (_IPV4, _IPV6)
        }

    def __len__(self) -> int:
        return self._count

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Networks) and self._of_version == other._of_version

    def __hash__(self) -> int:
        return hash(tuple(self._of_version.values()))

    def __contains__(self, address: Address) -> bool:
        return int(address) in self._of_version[address.version]


def read_networks_file(path: Path) -> Networks:
    """Read networks from a file, one a line; what follows a ``#`` is a remark.

    It blocks.

    Raises:
        ValueError: It cannot be used; the text says why and follows the path.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None
    if len(data) > _MOST_BYTES:
        raise ValueError(f"is longer than {_MOST_BYTES // MIB} MiB")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    networks = Networks(line for line in lines if line)
    if not networks:
        # An empty file is more likely a mistake than the wish to let nobody in.
        raise ValueError("holds no network")
    return networks


def _network(text: str, place: int) -> _Network:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        has_host_bits = "host bits" in str(error)
        why = "has bits beyond its length" if has_host_bits else "is no network"
        raise ValueError(f"entry {place} {why}") from None
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is not None and network.prefixlen >= 96:
        return ipaddress.ip_network(f"{mapped}/{network.prefixlen - 96}")
    return network


def _ranges(networks: Sequence[_Network]) -> _Ranges:
    spans = sorted(
        (int(each.network_address), int(each.broadcast_address)) for each in networks
    )
    merged: list[tuple[int, int]] = []
    for start, end in spans:
        if merged and start <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    starts, ends = zip(*merged, strict=True) if merged else ((), ())
    return _Ranges(tuple(starts), tuple(ends))


def client_of(forwarded: Sequence[bytes], trusted: Networks) -> Address | None:
    """Find who sent a request through proxies.

    Each proxy puts the address that it sees at the end, so all that stands before
    the first one from the right that is none of ours may be made up.

    Args:
        forwarded: Values of ``X-Forwarded-For``, in order.
        trusted: Our proxies.

    Returns:
        The address; None if there is none, or not one where it should be.
    """
    parts = itertools.chain.from_iterable(each.split(b",") for each in forwarded)
    address = None
    for part in reversed(list(parts)):
        address = address_of(_bare(part.strip().decode("latin-1")))
        if address is None or address not in trusted:
            return address
    # All of them are ours: then one of those has asked itself.
    return address


def _bare(text: str) -> str:
    """Take a port and brackets away, which some proxies add."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    host, colon, _ = text.partition(":")
    return host if colon and text.count(":") == 1 else text
