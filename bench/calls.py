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
    """Measure all servers in turns, at growing counts of calls."""
    plan = bench.plan
    for _ in range(bench.rounds):
        for calls in plan.counts:
            for server in _servers(bench, calls):
                _measure(bench, server, calls)
            if calls in plan.tls:
                _measure(bench, OURS, calls, tls=True)


def _servers(bench: Bench, calls: int) -> list[str]:
    if calls in bench.plan.few:
        return list(bench.servers)
    wanted = (OURS,) if calls in bench.plan.alone else (OURS, FLOOR)
    return [server for server in bench.servers if server in wanted]


def _measure(bench: Bench, server: str, calls: int, *, tls: bool = False) -> None:
    bench.case(KIND, bench.steady(server, calls, tls=tls))
