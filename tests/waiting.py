"""Waiting for what other tasks, threads and sockets do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable


async def wait_until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Waits until something holds that nobody announces.

    Raises:
        trio.TooSlowError: It did not come to hold in that many seconds.
    """
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - it may change in a thread
            await trio.sleep(0.005)
