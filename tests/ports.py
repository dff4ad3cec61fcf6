"""Ports for servers that have to be told theirs."""

from __future__ import annotations

import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def reserved_ports(count: int) -> Iterator[list[int]]:
    """Keeps ports for whoever is told them, while the block lasts.

    A port that was only looked for may be given to somebody else before its server
    is up. These stay bound, and are not listened on: servers set ``SO_REUSEADDR`` and
    may use them, and nobody who asks for any port is given one.
    """
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind(("127.0.0.1", 0))
        yield [each.getsockname()[1] for each in sockets]
