"""Load for the servers that are measured, in one process of its own.

    python -m bench.load '{"uri": "ws://127.0.0.1:3000/", "calls": 100, ...}'

It is `audiohook load` without its processes and its display: all calls are made by
this process, which writes the line ``steady`` once all are open, and at its end a
line of JSON with what came of it, the recordings compared.

The one argument is an object: the fields of `LoadOptions` (``lengths`` as on the
command line), and for the comparison `store`, `raw_only`, `wait` and `compare`, how
many recordings are looked at at most. A line on its input ends all calls.
"""

from __future__ import annotations

import gc
import json
import random
import sys
import time
from typing import TYPE_CHECKING, Any

import trio

from audiohook.errors import AudioHookError
from audiohook.file_limit import raise_file_limit
from audiohook.simulator.load.control import check_file_limit
from audiohook.simulator.load.engine import Engine, Watcher
from audiohook.simulator.load.options import LoadOptions, parse_lengths
from audiohook.simulator.load.shelf import open_shelf
from audiohook.simulator.load.verify import verify

if TYPE_CHECKING:
    from audiohook.simulator.load.manifest import SentCall


class Supervised(Watcher):
    """Tells the supervisor when to look, and keeps what was sent.

    Attributes:
        calls: The calls that are over.
        moments: When all were open and when the first ended, on the monotonic
            clock.
    """

    def __init__(self) -> None:
        self.calls: list[SentCall] = []
        self.moments: dict[str, float] = {}

    def steady(self) -> None:
        self.moments["steady_at"] = time.monotonic()
        print("steady", flush=True)

    def closing(self) -> None:
        self.moments["closing_at"] = time.monotonic()

    def ended(self, call: SentCall) -> None:
        self.calls.append(call)


def make_load(task: dict[str, Any]) -> dict[str, Any]:
    """Make the calls, and look at what became of them.

    Raises:
        AudioHookError: It cannot be done.
    """
    comparison = {name: task.pop(name) for name in ("raw_only", "wait")}
    store, most = task.pop("store"), task.pop("compare")
    lengths = parse_lengths(task.pop("lengths"))
    options = LoadOptions(**task, lengths=lengths)
    raise_file_limit(None)
    check_file_limit(options)
    watcher = Supervised()
    began_at = time.monotonic()
    engine = Engine(options, watcher=watcher, began_at=began_at)

    def stop() -> None:
        engine.unwatch(sys.stdin.fileno())
        engine.stop()

    engine.watch(sys.stdin.fileno(), stop)
    # As in the processes of `audiohook load`: a collection is a pause.
    gc.disable()
    engine.run()
    gc.enable()

    calls = watcher.calls
    if len(calls) > most:
        # Which ones is nobody's to know beforehand.
        calls = random.SystemRandom().sample(calls, most)

    async def compare() -> dict[str, Any]:
        verdict = await verify(calls, open_shelf(store), **comparison)
        return {
            "compared": verdict.calls,
            "verified": verdict.sound,
            "compared_bytes": verdict.audio_bytes,
            "faults": verdict.faults,
        }

    closed_at = {call.session: call.closed_at for call in watcher.calls}
    figures = engine.figures.summary() | {"began_at": began_at} | watcher.moments
    figures["closed_at"] = closed_at
    return figures | trio.run(compare)


def main() -> int:
    """Make the load that the argument asks for."""
    try:
        figures = make_load(json.loads(sys.argv[1]))
    except AudioHookError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
