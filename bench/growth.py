"""How the cost of a call grows with the length of its frames, and with the tick.

How it grows with the count of calls is in `bench.calls`, with their length in
`bench.stores`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.peers import FLOOR, OURS

if TYPE_CHECKING:
    from bench.plan import Bench

FRAMES = "frames"
TICKS = "ticks"


def run_frames(bench: Bench) -> None:
    """Measure ours and the floor with frames of several lengths."""
    for frame_bytes in bench.plan.frame_bytes:
        for server in (OURS, FLOOR):
            case = bench.steady(server, bench.plan.frame_calls, frame_bytes=frame_bytes)
            bench.case(FRAMES, case)


def run_ticks(bench: Bench) -> None:
    """Measure ours at several intervals between passes over the sockets."""
    for tick in bench.plan.ticks:
        settings = {"INGEST_INTERVAL": str(tick)}
        case = bench.steady(OURS, bench.plan.tick_calls, settings=settings)
        bench.case(TICKS, case, tick=tick)
