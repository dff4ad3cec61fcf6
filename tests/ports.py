"""Ports that have to be known before anybody listens on them."""

from __future__ import annotations

import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def reserved_ports(count: int) -> Iterator[list[int]]:
    """Keeps ports of 127.0.0.1 from all who take any that is free.

    Whoever asks for one of them by its number gets it all the same, if he lets the
    address be used again as servers do: what holds it here never listens. A port that
    was only free a moment ago may have become that of another test's server.

    Source: socket(7), SO_REUSEADDR.

    Args:
        count: How many.
    """
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind(("127.0.0.1", 0))
        yield [each.getsockname()[1] for each in sockets]
