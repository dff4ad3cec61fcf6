"""Waiting for what other tasks, threads and sockets do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio
import trio.testing

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


def hold_for_threads(clock: trio.testing.MockClock) -> None:
    """Has a clock that jumps stand still while threads work, for all of a run.

    By itself it jumps once all tasks wait, be it for a thread: what a thread does
    would take no time on a quick machine, and minutes on a busy one.
    """
    trio.lowlevel.add_instrument(_Holder(clock))


class _Holder(trio.abc.Instrument):
    """Looks after each step: threads are begun and forgotten in steps alone."""

    def __init__(self, clock: trio.testing.MockClock) -> None:
        self._clock = clock
        self._threshold = clock.autojump_threshold

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        del task
        held = trio.testing.active_thread_count() > 0
        threshold = math.inf if held else self._threshold
        if threshold != self._clock.autojump_threshold:
            self._clock.autojump_threshold = threshold
