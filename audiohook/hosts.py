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
