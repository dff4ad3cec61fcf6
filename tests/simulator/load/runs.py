"""Loads made within a test's own process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from audiohook.simulator.load.engine import Engine, Watcher
from audiohook.simulator.load.options import LoadOptions, parse_lengths

if TYPE_CHECKING:
    from audiohook.simulator.load.figures import Figures
    from audiohook.simulator.load.manifest import SentCall


class Run(Watcher):
    """One load, and what was sent.

    Args:
        uri: Where to.
        length: Length of the calls, as on the command line.
        **options: Further ones.

    Attributes:
        calls: The calls that are over.
    """

    def __init__(self, uri: str, *, length: str = "1", **options: Any) -> None:  # noqa: ANN401 - passed on
        self.calls: list[SentCall] = []
        self.options = LoadOptions(
            uri=uri, lengths=parse_lengths(length), **{"calls": 1, "seed": 7, **options}
        )
        self.engine = Engine(self.options, watcher=self)

    @property
    def figures(self) -> Figures:
        return self.engine.figures

    def ended(self, call: SentCall) -> None:
        self.calls.append(call)

    async def make(self) -> None:
        """Makes all calls."""
        await trio.to_thread.run_sync(self.engine.run)
