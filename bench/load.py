"""Load for the servers that are compared, in the process that is measured.

    python -m bench.load ws://127.0.0.1:3000/ --calls 1000 --duration 60

It is `audiohook load` without its processes and its display: all calls are made
by this process, and a word on standard error says when they are steady and when
the first ends, for a supervisor that measures between the two.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from audiohook.errors import AudioHookError
from audiohook.file_limit import raise_file_limit
from audiohook.protocol.timeline import SAMPLE_RATE_HZ
from audiohook.simulator.load.control import check_file_limit
from audiohook.simulator.load.engine import Engine, Watcher
from audiohook.simulator.load.options import LoadOptions, parse_lengths
from audiohook.simulator.load.shelf import open_shelf
from audiohook.simulator.load.verify import verify
from audiohook.simulator.options import MAX_CHANNELS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from audiohook.simulator.load.manifest import SentCall


class Supervised(Watcher):
    """Tells the supervisor when to look, and keeps what was sent."""

    def __init__(self) -> None:
        self.calls: list[SentCall] = []

    def steady(self) -> None:
        print("steady", file=sys.stderr, flush=True)

    def closing(self) -> None:
        print("closing", file=sys.stderr, flush=True)

    def ended(self, call: SentCall) -> None:
        self.calls.append(call)


def _parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, LoadOptions]:
    parser = argparse.ArgumentParser(
        prog="bench.load", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("uri")
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--duration", default="30", help="seconds a call")
    parser.add_argument("--ramp", type=float, default=5.0, help="seconds to begin in")
    parser.add_argument("--together", action="store_true", help="end in one instant")
    parser.add_argument("--frame-bytes", type=int, default=1600)
    parser.add_argument("--rate", type=float, help="frames a second, if not real time")
    parser.add_argument("--api-key", default=os.environ.get("API_KEY"))
    parser.add_argument("--insecure", action="store_true", help="trust any certificate")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--verify", metavar="RECORDINGS_DIR")
    arguments = parser.parse_args(argv)
    real_rate = SAMPLE_RATE_HZ * MAX_CHANNELS / arguments.frame_bytes
    speed = 1.0 if arguments.rate is None else arguments.rate / real_rate
    lengths = parse_lengths(arguments.duration)
    options = LoadOptions(
        uri=arguments.uri,
        calls=arguments.calls,
        # So many seconds as they pass here.
        lengths=parse_lengths(str(lengths.least * speed)) if speed != 1 else lengths,
        ramp=arguments.ramp,
        together=arguments.together,
        frame_bytes=arguments.frame_bytes,
        speed=speed,
        api_key=arguments.api_key or None,
        insecure=arguments.insecure,
    )
    return arguments, options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the load that the command line asks for; 0 if all went well."""
    watcher = Supervised()
    try:
        arguments, options = _parse(argv)
        raise_file_limit(None)
        check_file_limit(options)
        engine = Engine(options, watcher=watcher)
        # As in the processes of `audiohook load`: a collection is a pause.
        gc.disable()
        engine.run()
        gc.enable()
        figures = engine.figures.summary()
        faults: list[str] = []
        if arguments.verify is not None:
            faults = _verify(arguments.verify, watcher.calls, figures)
    except AudioHookError as error:
        print(error, file=sys.stderr)
        return 1
    text = json.dumps(figures, indent=2)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")
    print(text)
    return 1 if figures["failed"] or figures["fell_behind"] or faults else 0


def _verify(
    store: str, calls: Sequence[SentCall], figures: dict[str, object]
) -> list[str]:
    """Compare what every server stores: the audio as received."""

    async def run() -> list[str]:
        verdict = await verify(calls, open_shelf(store), raw_only=True)
        figures.update(verified=verdict.sound, faults=verdict.faults)
        return verdict.faults

    return trio.run(run)


if __name__ == "__main__":
    sys.exit(main())
