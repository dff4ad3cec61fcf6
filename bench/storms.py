"""Sessions that are all opened in the same instant, and closed in the same.

Genesys waits 5 s for `opened` and `pong`, and 10 s for `closed`. What is told is the
worst of all calls. The peers but for plain C do not have the audio on disk when they
say `closed`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.measure import Case

if TYPE_CHECKING:
    from bench.plan import Bench

KIND = "storms"


def run(bench: Bench) -> None:
    """Measure the servers that have a chance."""
    for server in bench.servers:
        if server in bench.plan.storm_servers:
            case = Case(
                server=server,
                calls=bench.plan.storm,
                ramp=0.0,
                settle=0.0,
                window=0.0,
                # Long enough for all to be open, and for pings.
                margin=bench.plan.storm_life,
                together=True,
            )
            bench.case(KIND, case)
