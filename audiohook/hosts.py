"""What the name of a machine tells of where it is."""

from __future__ import annotations

import ipaddress


def is_private(host: str) -> bool:
    """Tell whether a host is surely not to be reached from elsewhere.

    Args:
        host: Name or address, without a port.
    """
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".localhost"))


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach a host, as far as is known.

    Args:
        host: Name or address, without a port.
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
