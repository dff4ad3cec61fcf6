"""An outbox and a sender under a test's own clock, and a receiver that does as told."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
import trio

from audiohook.metrics import Metrics
from audiohook.notify.outbox import Outbox
from audiohook.notify.sender import Sender

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from audiohook.errors import ReceiverError
    from audiohook.notify.database import Database
    from audiohook.notify.event import Kind
    from audiohook.notify.letter import Letter

T = TypeVar("T")

# More often would only make days long.
LOOK_INTERVAL = 30.0
EPOCH = 1_790_000_000.0


def now() -> float:
    """The time of day, which goes with the clock of the test."""
    return EPOCH + trio.current_time()


class InlineOutbox(Outbox):
    """Does its file work at once: a clock that jumps does not wait for threads."""

    async def ask(self, work: Callable[[Database], T]) -> T:
        await trio.lowlevel.checkpoint()
        return work(self._database)


@dataclass
class FakeReceiver:
    """Takes letters, unless told otherwise.

    Attributes:
        fault: Gives the error for a letter; None has it taken.
        tried: Every try: when, and what.
        took: What was taken, in order.
        seconds: How long it takes.
    """

    fault: Callable[[Letter], ReceiverError | None] = lambda _: None
    tried: list[tuple[float, Letter]] = field(default_factory=list)
    took: list[Letter] = field(default_factory=list)
    seconds: float = 0.01
    at_a_time: int = 0
    most_at_a_time: int = 0

    async def take(self, letter: Letter) -> None:
        self.tried.append((trio.current_time(), letter))
        self.at_a_time += 1
        self.most_at_a_time = max(self.most_at_a_time, self.at_a_time)
        try:
            await trio.sleep(self.seconds)
        finally:
            self.at_a_time -= 1
        error = self.fault(letter)
        if error is not None:
            raise error
        self.took.append(letter)

    def kinds_of(self, conversation: str) -> list[str]:
        """What was taken of a conversation, in order, each once."""
        return list(
            dict.fromkeys(
                each.kind for each in self.took if each.conversation == conversation
            )
        )


@dataclass
class Desk:
    outbox: Outbox
    sender: Sender
    metrics: Metrics

    def tell(self, conversation: str, *kinds: Kind, about: str = "") -> None:
        for kind in kinds:
            self.outbox.note(kind, conversation=conversation, session="s", about=about)


@asynccontextmanager
async def desk(folder: Path, receiver: FakeReceiver) -> AsyncIterator[Desk]:
    outbox = InlineOutbox(
        folder, source="/x", log=structlog.get_logger("audiohook"), clock=now
    )
    metrics = Metrics()
    sender = Sender(
        outbox,
        receiver,
        metrics=metrics,
        log=structlog.get_logger("audiohook"),
        jitter=lambda: 0.5,
        look_interval=LOOK_INTERVAL,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(outbox.run)
        await nursery.start(sender.run)
        yield Desk(outbox, sender, metrics)
        nursery.cancel_scope.cancel()


def body_of(letter: Letter) -> Any:  # noqa: ANN401 - JSON
    return json.loads(letter.body)
