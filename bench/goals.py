"""The figures to reach: what was measured, and whether it is enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bench.peers import FLOOR, OURS, SERVERS, short_title
from bench.records import cost

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bench.measure import Record
    from bench.records import Run

SECONDS = 1.0
HOURS = 3600 * SECONDS

TIMES_FLOOR: Final = 1.15
TIMES_NODE: Final = 1 / 8
TIMES_PICOWS: Final = 1 / 2
TLS_CORES: Final = 0.10
MANY_CALLS: Final = 10_000
ANSWER: Final = 5 * SECONDS
MEMORY_KIB: Final = 64
MEMORY_CALLS: Final = 5000
STORM_CALLS: Final = 3000
STORM: Final = 4 * SECONDS
DELIVERY_CALLS: Final = 1000
DELIVERY_CORES: Final = 0.12
STORED: Final = 2 * SECONDS
TIMES_NUMPY: Final = 3.0
LONG: Final = 10 * HOURS
TIMES_MEMORY: Final = 1.1


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure.

    Attributes:
        figure: What it is of.
        goal: What it is to be.
        measured: What it is; empty if it was not measured.
        reached: Whether that is enough; None if it was not measured.
        beside: How others do, as ratios.
    """

    figure: str
    goal: str
    measured: str = ""
    reached: bool | None = None
    beside: str = ""

    @property
    def verdict(self) -> str:
        """Whether it is reached, in a word."""
        if self.reached is None:
            return "not measured"
        return "yes" if self.reached else "no"


def goals(run: Run) -> list[Goal]:
    """Judge all figures, in their order."""
    return [
        *_processor(run),
        *(_tls(run, calls) for calls in (1000, 3000)),
        _many(run),
        _memory(run),
        _storm(run),
        _delivery(run),
        _stored(run),
        *(_kernel(run, operation) for operation in ("decode", "split")),
        _long_call(run),
    ]


def _processor(run: Run) -> Iterator[Goal]:
    for calls in (1000, 3000):
        for peer, most, words in (
            (FLOOR, TIMES_FLOOR, "1.15 times plain C that does the same"),
            ("node", TIMES_NODE, "1/8 of Node + ws"),
            ("picows", TIMES_PICOWS, "1/2 of picows + uvloop"),
        ):
            figure = f"server's cores per 1,000 calls, {calls:,} live"
            goal = f"at most {words}"
            ours, theirs, at = _both(run, peer, calls)
            if ours is None or theirs is None:
                yield Goal(figure, goal)
                continue
            place = "" if at == calls else f" (both at {at:,})"
            measured = f"{ours:.3f}: {ours / theirs:.2f} times{place}"
            beside = _ratios(run, calls) if peer == FLOOR else ""
            yield Goal(figure, goal, measured, ours <= most * theirs, beside)


def _both(run: Run, peer: str, calls: int) -> tuple[float | None, float | None, int]:
    """What ours and a peer cost at so many calls, or at most that many.

    A peer that cannot carry so many is compared where it can.
    """
    if cost(run, OURS, calls) is None:
        return None, None, calls
    for count in sorted(run.values("calls", "calls"), reverse=True):
        if count <= calls:
            ours, theirs = cost(run, OURS, count), cost(run, peer, count)
            if ours is not None and theirs is not None:
                return ours, theirs, count
    return None, None, calls


def _ratios(run: Run, calls: int) -> str:
    words = []
    for peer in SERVERS:
        ours, theirs, at = _both(run, peer, calls)
        if peer != OURS and ours is not None and theirs is not None:
            place = "" if at == calls else f" (at {at:,})"
            words.append(f"{ours / theirs:.2f} {short_title(peer)}{place}")
    return "; ".join(words)


def _tls(run: Run, calls: int) -> Goal:
    figure = f"the same with TLS in the process, {calls:,} live"
    goal = f"at most {TLS_CORES:.2f} cores per 1,000 calls"
    ours = cost(run, OURS, calls, tls=True)
    if ours is None:
        return Goal(figure, goal)
    plain = cost(run, OURS, calls)
    beside = "" if plain is None else f"{ours / plain:.2f} without TLS"
    return Goal(figure, goal, f"{ours:.3f}", ours <= TLS_CORES, beside)


def _many(run: Run) -> Goal:
    figure = "live calls on one core, nothing lost, answers within 5 s"
    goal = f"{MANY_CALLS:,}"
    found = [
        record
        for record in run.records("calls", server=OURS, tls=False)
        if _worst(record, ("opened", "closed")) <= ANSWER
    ]
    tried = [record["calls"] for record in run.tried("calls", server=OURS)]
    if not found or max(tried) < MANY_CALLS:
        return Goal(figure, goal)
    best = max(found, key=lambda record: int(record["calls"]))
    worst = _worst(best, ("opened", "closed"))
    measured = (
        f"{best['calls']:,}: server {best['cores']:.2f} cores, load"
        f" {best['load_cores']:.2f}, answers within {worst:.1f} s"
    )
    if best["processes"] > 1:
        measured += f", {best['processes']} processes on the core"
    return Goal(figure, goal, measured, best["calls"] >= MANY_CALLS)


def _memory(run: Run) -> Goal:
    figure = f"memory a live call, {MEMORY_CALLS:,} calls"
    goal = f"at most {MEMORY_KIB} KiB"
    ours = run.best("calls", server=OURS, calls=MEMORY_CALLS)
    if ours is None:
        return Goal(figure, goal)
    words = [
        f"{ratio:.1f} {short_title(peer)} (at {at:,})"
        for peer in SERVERS
        if peer != OURS
        for ratio, at in _memory_ratios(run, peer)[:1]
    ]
    kib = ours["kib_per_call"]
    return Goal(figure, goal, f"{kib:.0f} KiB", kib <= MEMORY_KIB, "; ".join(words))


def _memory_ratios(run: Run, peer: str) -> list[tuple[float, int]]:
    """Ours as a part of a peer's, and at how many calls; most calls first."""
    ratios = []
    for calls in sorted(run.values("calls", "calls"), reverse=True):
        ours = run.best("calls", server=OURS, calls=calls)
        theirs = run.best("calls", server=peer, calls=calls)
        if ours and theirs and theirs["kib_per_call"] > 0:
            ratios.append((ours["kib_per_call"] / theirs["kib_per_call"], calls))
    return ratios


def _storm(run: Run) -> Goal:
    figure = f"{STORM_CALLS:,} sessions opened, and closed, at the same instant"
    goal = f"every opened and closed within {STORM:.0f} s"
    ours = next(iter(run.records("storms", server=OURS, calls=STORM_CALLS)), None)
    if ours is None:
        return Goal(figure, goal)
    words = []
    for record in run.records("storms", calls=STORM_CALLS):
        if record["server"] != OURS:
            opened, closed = _storm_times(record)
            words.append(
                f"{short_title(record['server'])} {opened:.1f} and {closed:.1f} s"
            )
    opened, closed = _storm_times(ours)
    return Goal(
        figure,
        goal,
        f"all opened after {opened:.1f} s, all closed after {closed:.1f} s",
        max(opened, closed) <= STORM,
        "; ".join(words),
    )


def _storm_times(record: Record) -> tuple[float, float]:
    """From the instant to the last `opened`, connecting and all, and to `closed`."""
    return float(record["all_open_after"]), _worst(record, ["closed"])


def _worst(record: Record, names: Iterable[str]) -> float:
    """The longest of some answers, in seconds."""
    spreads = [record["latency_ms"][name] for name in names]
    return float(max(spread.get("max", 0.0) for spread in spreads)) / 1000


def _delivery(run: Run) -> Goal:
    figure = f"end to end at {DELIVERY_CALLS:,} calls: spool, PCM16, upload to S3"
    goal = f"at most {DELIVERY_CORES} cores"
    found = [
        record
        for record in run.records("parts")
        if record["calls"] * record["speed"] == DELIVERY_CALLS
    ]
    if not found:
        return Goal(figure, goal)
    measured = "; ".join(f"{each['what']}: {each['cores']:.3f}" for each in found)
    if found[0]["speed"] != 1:
        measured += f" ({found[0]['calls']:,} at {found[0]['speed']:g} times the pace)"
    short = "; ".join(
        f"{each['what']} {each['cores']:.2f}"
        for each in run.records("delivery", calls=DELIVERY_CALLS)
    )
    beside = f"calls of less than a minute: {short}" if short else ""
    # The figure was set for the WAV alone, of calls that are sent in parts.
    return Goal(figure, goal, measured, found[0]["cores"] <= DELIVERY_CORES, beside)


def _stored(run: Run) -> Goal:
    figure = "WAV in the store after closed, whatever the call's length"
    goal = f"within {STORED:.0f} s"
    found = [
        *run.records("length"),
        *run.records("delivery", calls=DELIVERY_CALLS),
    ]
    times = [
        record["stored_after"]["max"] for record in found if record.get("stored_after")
    ]
    if not times:
        return Goal(figure, goal)
    single = [
        record["stored_after"]["max"]
        for record in run.records("length")
        if record.get("stored_after")
    ]
    words = f"{max(times):.1f} s at most"
    if single:
        words += f"; single calls {max(single):.1f} s"
    return Goal(figure, goal, words, max(times) <= STORED)


def _kernel(run: Run, operation: str) -> Goal:
    name = {"decode": "decode", "split": "decode and split"}[operation]
    figure = f"kernel: {name}"
    goal = "at least as fast as audioop, 3 times NumPy"
    ratios: dict[str, list[float]] = {"audioop": [], "numpy": []}
    for size in run.values("kernel", "bytes"):
        of_size = {"operation": operation, "bytes": size}
        ours = run.best("kernel", name="kernel", **of_size)
        for peer, found in ratios.items():
            theirs = run.best("kernel", name=peer, **of_size)
            if ours is not None and theirs is not None:
                found.append(ours["gb_per_second"] / theirs["gb_per_second"])
    if not ratios["numpy"]:
        return Goal(figure, goal)
    words = {peer: f"{min(found):.1f}" for peer, found in ratios.items() if found}
    reached = min(ratios["numpy"]) >= TIMES_NUMPY
    if ratios["audioop"]:
        reached = reached and min(ratios["audioop"]) >= 1
    measured = ", ".join(f"{times} times {peer}" for peer, times in words.items())
    measured = measured.replace("numpy", "NumPy")
    return Goal(figure, goal, f"at least {measured}", reached)


def _long_call(run: Run) -> Goal:
    figure = "memory of a call of 10 hours"
    goal = "does not grow with length"
    found = run.records("length")
    long = [record for record in found if record["length"] >= LONG]
    short = [record for record in found if HOURS / 10 <= record["length"] < LONG]
    if not long or not short:
        return Goal(figure, goal)
    peaks = [
        max(each["rss_peak_kib"] for each in some) / 1024 for some in (long, short)
    ]
    measured = f"{peaks[0]:.0f} MiB at its peak, {peaks[1]:.0f} for shorter ones"
    return Goal(figure, goal, measured, peaks[0] <= TIMES_MEMORY * peaks[1])
