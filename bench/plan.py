"""How much is measured: all in half an hour, or some in two minutes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from bench.measure import MARGIN, SETTLE, Case, measure
from bench.peers import FLOOR, OURS, SERVERS
from bench.peers.install import MissingError
from bench.processes import FailedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.measure import Record
    from bench.processes import Cores
    from bench.results import Results

SECONDS = 1.0
MINUTES = 60 * SECONDS
HOURS = 60 * MINUTES

OTHERS: Final = tuple(server for server in SERVERS if server not in {OURS, FLOOR})
"""Servers to compare with, beside the floor."""

# A server that would need more of its core than this is not asked to carry so much.
_MOST_CORES = 0.85
# Calls that begin a second while they are all to be opened.
_CALLS_A_SECOND = 500
# A handshake of TLS is work for both sides.
_TLS_CALLS_A_SECOND = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured.

    Attributes:
        budget: After this long nothing more is begun.
        function_seconds: For each function that is timed.
        convert_seconds: Lengths of calls that are converted.
        window: How long a server is looked at.
        settle: What is left out before that.
        margin: By how much calls outlast it.
        counts: Live calls at a time, at which ours and the floor are measured.
        alone: Of these, those at which ours alone is.
        peers: Calls at a time, and which others are measured with so many.
        tls: Counts at which ours is measured with TLS.
        frame_bytes: Lengths of frames.
        frame_calls: Calls with frames of those lengths.
        ticks: Seconds from pass to pass.
        tick_calls: Calls at those.
        storm: Sessions that are opened, and closed, in the same instant.
        storm_life: How long they live.
        storm_servers: Whose.
        long_calls: Live calls of which parts are brought to a bucket; 0 for none.
        long_speed: How much faster than real time they pass.
        delivered: Live calls whose recordings are brought to a bucket.
        delivered_seconds: How long each of these lasts.
        delivered_forms: What is brought there, of `bench.stores.FORMS`.
        lengths: Lengths of single calls, in seconds, and how much faster than real
            time they pass.
    """

    budget: float
    function_seconds: float
    convert_seconds: tuple[float, ...]
    window: float
    settle: float = SETTLE
    margin: float = MARGIN
    counts: tuple[int, ...]
    alone: tuple[int, ...]
    peers: tuple[tuple[int, tuple[str, ...]], ...]
    tls: tuple[int, ...]
    frame_bytes: tuple[int, ...]
    frame_calls: int
    ticks: tuple[float, ...]
    tick_calls: int
    storm: int
    storm_life: float
    storm_servers: tuple[str, ...]
    long_calls: int
    long_speed: float
    delivered: int
    delivered_seconds: float
    delivered_forms: tuple[str, ...]
    lengths: tuple[tuple[float, float], ...]


FULL = Plan(
    budget=30 * MINUTES,
    function_seconds=0.2,
    convert_seconds=(1 * MINUTES, 10 * MINUTES, 1 * HOURS),
    window=6 * SECONDS,
    counts=(200, 1000, 3000, 5000, 10_000),
    alone=(5000,),
    peers=(
        # Those that may not carry more.
        (200, ("websockets-asyncio", "websockets-trio", "trio-websocket")),
        (1000, OTHERS),
        (3000, ("picows", "gorilla", "node")),
    ),
    tls=(1000, 3000),
    frame_bytes=(320, 1600, 3200, 64_000),
    frame_calls=500,
    ticks=(0.05, 0.1, 0.2, 0.4, 0.8),
    tick_calls=1000,
    storm=3000,
    storm_life=12 * SECONDS,
    storm_servers=(OURS, FLOOR, "picows", "gorilla", "node"),
    long_calls=250,
    long_speed=4.0,
    delivered=1000,
    delivered_seconds=45 * SECONDS,
    delivered_forms=("WAV and audio as received",),
    lengths=(
        (1 * MINUTES, 100.0),
        (10 * MINUTES, 100.0),
        (1 * HOURS, 100.0),
        (10 * HOURS, 1000.0),
    ),
)

QUICK = Plan(
    budget=2 * MINUTES,
    function_seconds=0.01,
    convert_seconds=(1 * MINUTES,),
    window=1 * SECONDS,
    settle=0.5 * SECONDS,
    margin=1.5 * SECONDS,
    counts=(50,),
    alone=(),
    peers=((50, OTHERS),),
    tls=(50,),
    frame_bytes=(16_000,),
    frame_calls=50,
    ticks=(0.1,),
    tick_calls=50,
    storm=200,
    storm_life=4 * SECONDS,
    storm_servers=(OURS, FLOOR),
    long_calls=0,
    long_speed=1.0,
    delivered=50,
    delivered_seconds=3 * SECONDS,
    delivered_forms=("WAV and audio as received",),
    lengths=((1 * MINUTES, 20.0),),
)


@dataclass(slots=True)
class Bench:
    """One run of the suite.

    Attributes:
        plan: How much is measured.
        cores: Where.
        results: Where it goes.
        servers: Those that are compared, of `SERVERS`.
        folder: Whose disk is written to; None for the system's temporary folder.
        rounds: How often servers are compared.
    """

    plan: Plan
    cores: Cores
    results: Results
    servers: Sequence[str] = tuple(SERVERS)
    folder: Path | None = None
    rounds: int = 1
    began_at: float = field(default_factory=time.monotonic)
    # Why a server cannot be had.
    _missing: dict[str, str] = field(default_factory=dict)
    # What a call has cost at most, in cores.
    _cost: dict[str, float] = field(default_factory=dict)

    @property
    def seconds_left(self) -> float:
        return self.began_at + self.plan.budget - time.monotonic()

    def steady(
        self,
        server: str,
        calls: int,
        *,
        tls: bool = False,
        **more: Any,  # noqa: ANN401 - passed on
    ) -> Case:
        """Make the usual case: calls that all last through the window."""
        plan = self.plan
        return Case(
            server=server,
            calls=calls,
            tls=tls,
            ramp=max(0.5, calls / (_TLS_CALLS_A_SECOND if tls else _CALLS_A_SECOND)),
            window=plan.window,
            settle=plan.settle,
            margin=plan.margin,
            **more,
        )

    def case(self, kind: str, case: Case, **facts: object) -> Record | None:
        """Measure a case, and take down what came of it.

        Args:
            kind: What it belongs to.
            case: What.
            **facts: What else is to be known about it.

        Returns:
            The figures; None if there are none, which is told.
        """
        what = f"{SERVERS[case.server].title}, {case.calls:,} calls"
        why = self._reason_against(case)
        if why is None:
            try:
                record = measure(case, self.cores, self.folder) | facts
            except MissingError as error:
                why = self._missing[case.server] = str(error)
            except (FailedError, OSError) as error:
                why = str(error)
            else:
                self._note_cost(case, record)
                self.results.add(kind, record)
                return record
        self.results.skip(kind, what, why)
        return None

    def _reason_against(self, case: Case) -> str | None:
        if case.server in self._missing:
            return self._missing[case.server]
        if self.seconds_left < 0:
            return "the time is over"
        wanted = self._cost.get(case.server, 0.0) * case.calls
        if case.server != OURS and wanted > _MOST_CORES:
            return f"it would need about {wanted:.1f} cores and has one"
        return None

    def _note_cost(self, case: Case, record: Record) -> None:
        if "cores" in record and case.speed == 1 and case.frame_bytes >= 1600:
            # With few calls what a server does anyway counts for more.
            self._cost[case.server] = record["cores"] / case.calls
