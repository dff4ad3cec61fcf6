"""The stand-in as a process of its own."""

from __future__ import annotations

import signal
from functools import partial
from typing import TYPE_CHECKING

import trio

from audiohook.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from audiohook.simulator.assemblyai.server import StandIn


def run_stand_in(
    standin: StandIn,
    *,
    host: str,
    port: int,
    fail: float,
    announce: Callable[[str], None],
) -> None:
    """Serves until SIGTERM or SIGINT.

    Args:
        standin: What to serve.
        host: Address to listen at.
        port: Port to listen at; 0 takes a free one.
        fail: Share of the requests that fail.
        announce: Told the base URL when connections are accepted.

    Raises:
        ConfigError: It cannot listen there, or the share is none.
    """
    try:
        standin.faults.fail(fail)
    except ValueError as error:
        raise ConfigError(
            f"a share of {fail:g}: between 0 and 1 is possible"
        ) from error
    trio.run(partial(_serve, standin, host=host, port=port, announce=announce))


async def _serve(
    standin: StandIn, *, host: str, port: int, announce: Callable[[str], None]
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            serve = partial(standin.serve, host=host, port=port)
            announce(await nursery.start(serve))
            async for _ in signals:
                nursery.cancel_scope.cancel()
