"""What a live call costs: processor and memory, ours and others', TLS.

Calls of 1,600-byte stereo frames, 10 a second, a ping each every 5 s, opened one
after another and looked at while all are open. Every recording is then compared with
what was sent, byte for byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.peers import FLOOR, OURS

if TYPE_CHECKING:
    from bench.plan import Bench

KIND = "calls"


def run(bench: Bench) -> None:
    """Measure ours and the floor at growing counts of calls, then the others."""
    plan = bench.plan
    for _ in range(bench.rounds):
        for calls in plan.counts:
            wanted = (OURS,) if calls in plan.alone else (OURS, FLOOR)
            for server in wanted:
                if server in bench.servers:
                    _measure(bench, server, calls)
            if calls in plan.tls:
                _measure(bench, OURS, calls, tls=True)
        for calls, servers in plan.peers:
            for server in servers:
                if server in bench.servers:
                    _measure(bench, server, calls)


def _measure(bench: Bench, server: str, calls: int, *, tls: bool = False) -> None:
    bench.case(KIND, bench.steady(server, calls, tls=tls))
