"""Which plots there are, and from which results they are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bench.peers import FLOOR, OURS, SERVERS, short_title, title_of
from bench.plots import Axis, Bar, Line, bars, lines
from bench.records import cost

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.records import Run

_USUAL_CALLS = 1000
_KERNEL_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Chart:
    """One plot.

    Attributes:
        kind: Whose results it shows.
        name: Its file's, without the ending.
        alt: What it shows, for who cannot see it.
        draw: Draws it; empty if there is nothing to draw.
    """

    kind: str
    name: str
    alt: str
    draw: Callable[[Run], str]


def _cost(run: Run) -> str:
    counts = run.values("calls", "calls")
    drawn = []
    for server in SERVERS:
        # At the usual count, or the most that it was measured at below that.
        measured = [n for n in counts if n <= _USUAL_CALLS and cost(run, server, n)]
        if measured:
            cores = cost(run, server, measured[-1]) or 0.0
            text = f"{cores:.3f}"
            if measured[-1] != _USUAL_CALLS:
                text += f"  (at {measured[-1]:,} calls)"
            drawn.append(Bar(title_of(server), cores, text, server == OURS))
    tls = [n for n in counts if n <= _USUAL_CALLS and cost(run, OURS, n, tls=True)]
    if tls:
        cores = cost(run, OURS, tls[-1], tls=True) or 0.0
        drawn.append(Bar("audiohook, TLS", cores, f"{cores:.3f}", ours=True))
    if not drawn:
        return ""
    drawn.sort(key=lambda bar: bar.value)
    return bars(
        "What 1,000 live calls cost",
        "Cores of the server, 1,600-byte stereo frames, 10 a second a call;"
        " less is better",
        [("", drawn)],
    )


def _growth(run: Run) -> str:
    series = []
    for server in SERVERS:
        points = [
            (float(record["calls"]), float(record["cores"]))
            for n in run.values("calls", "calls")
            if (record := run.best("calls", server=server, calls=n)) is not None
        ]
        if points:
            series.append(Line(short_title(server), points, server == OURS))
    if not any(len(line.points) > 1 for line in series):
        return ""
    return lines(
        "How the cost grows with calls",
        "Cores of the server by live calls, both in equal factors; one core is all"
        " there is",
        Axis("live calls", log=True, ticks=run.values("calls", "calls")),
        Axis("cores", log=True),
        series,
    )


def _memory(run: Run) -> str:
    counts = [
        n
        for n in run.values("calls", "calls")
        if run.best("calls", server=FLOOR, calls=n)
    ]
    at = max((n for n in counts if n <= _USUAL_CALLS), default=0)
    drawn = [
        Bar(
            title_of(server),
            record["kib_per_call"],
            f"{record['kib_per_call']:.0f}",
            server == OURS,
        )
        for server in SERVERS
        if (record := run.best("calls", server=server, calls=at)) is not None
    ]
    if not drawn:
        return ""
    drawn.sort(key=lambda bar: bar.value)
    return bars(
        "Memory a live call",
        f"KiB resident in the server, above what it has with no call; {at:,} calls",
        [("", drawn)],
    )


def _storms(run: Run) -> str:
    records = run.records("storms")
    if not records:
        return ""
    groups = []
    for what in ("opened", "pong", "closed"):
        group = [
            Bar(
                title_of(record["server"]),
                worst / 1000,
                f"{worst / 1000:.2f} s",
                record["server"] == OURS,
            )
            for record in records
            if (worst := record["latency_ms"][what].get("max")) is not None
        ]
        groups.append((what, group))
    calls = records[0]["calls"]
    return bars(
        f"{calls:,} sessions in the same instant",
        "The longest that any of them waited for its answer, in seconds; Genesys"
        " waits 5 s, and 10 s for closed",
        [group for group in groups if group[1]],
    )


def _delivery(run: Run) -> str:
    groups = []
    for record in run.records("delivery"):
        spread = record["stored_after"]
        group = [
            Bar(name, spread[name], f"{spread[name]:.2f} s", ours=True)
            for name in ("p50", "p99", "max")
            if name in spread
        ]
        if group:
            words = f"{record['what']}: {record['cores']:.3f} cores"
            groups.append((words, group))
    if not groups:
        return ""
    calls = run.records("delivery")[0]["calls"]
    return bars(
        "From closed to the object in the bucket",
        f"Seconds, while {calls:,} calls live, end and are followed by others",
        groups,
    )


def _length(run: Run) -> str:
    records = run.records("length")
    if len(records) < 2:
        return ""
    points = [(each["length"] / 60, each["rss_peak_kib"] / 1024) for each in records]
    idle = [(each["length"] / 60, each["rss_idle_kib"] / 1024) for each in records]
    return lines(
        "Memory does not grow with the length of a call",
        "Memory of the server in MiB, by the length of one call that is brought to a"
        " bucket as it goes",
        Axis("minutes", log=True, ticks=[x for x, _ in points]),
        Axis("MiB", floor=0.0),
        [Line("at its peak", points, ours=True), Line("before it", idle, dashed=True)],
    )


def _frames(run: Run) -> str:
    series = []
    for server, name in ((OURS, "audiohook"), (FLOOR, "floor")):
        points = [
            (float(size), float(record["cores_per_1000_calls"]))
            for size in run.values("frames", "frame_bytes")
            if (record := run.best("frames", server=server, frame_bytes=size))
        ]
        if points:
            series.append(Line(name, points, server == OURS))
    if not any(len(line.points) > 1 for line in series):
        return ""
    return lines(
        "How the cost depends on the length of frames",
        "Cores per 1,000 live calls in real time; longer frames are fewer",
        Axis("bytes a frame", log=True, ticks=run.values("frames", "frame_bytes")),
        Axis("cores", floor=0.0),
        series,
    )


def _ticks(run: Run) -> str:
    records = run.records("ticks")
    if len(records) < 2:
        return ""
    points = [(each["tick"], each["cores_per_1000_calls"]) for each in records]
    return lines(
        "How the cost depends on the tick",
        "Cores per 1,000 live calls, by the seconds between two passes over all"
        " sockets; 0.2 is the default",
        Axis("seconds from pass to pass", log=True, ticks=[x for x, _ in points]),
        Axis("cores", floor=0.0),
        [Line("audiohook", points, ours=True)],
    )


def _kernel(run: Run) -> str:
    sizes = run.values("kernel", "bytes")
    if not sizes:
        return ""
    size = _KERNEL_BYTES if _KERNEL_BYTES in sizes else sizes[-1]
    groups = []
    for operation, heading in (
        ("decode", "decode"),
        ("split", "decode and split the channels"),
        ("mix", "decode and mix to mono"),
        ("encode", "encode"),
    ):
        group = [
            Bar(
                title_of_kernel(name),
                record["gb_per_second"],
                f"{record['gb_per_second']:.2f}",
                name == "kernel",
            )
            for name in ("kernel", "audioop", "numpy")
            if (
                record := run.best("kernel", name=name, operation=operation, bytes=size)
            )
        ]
        if group:
            groups.append((heading, group))
    return bars(
        "The kernel",
        f"GB of µ-law a second, {size:,} bytes at a time; more is better",
        groups,
    )


def title_of_kernel(name: str) -> str:
    """What people call one that decodes and encodes."""
    return {"kernel": "audiohook", "numpy": "NumPy"}.get(name, name)


def _diverter(run: Run) -> str:
    sizes = run.values("diverter", "frame_bytes")
    series = []
    for name in ("diverter", "aiohttp", "websockets", "wsproto"):
        points = [
            (float(size), float(record["frames_per_second"]))
            for size in sizes
            if (record := run.best("diverter", name=name, frame_bytes=size))
        ]
        if points:
            series.append(Line(name, points, name == "diverter"))
    if not series:
        return ""
    return lines(
        "Frames a second through the diverter",
        "And through other parsers, by the length of frames; both in equal factors",
        Axis("bytes a frame", log=True, ticks=sizes),
        Axis("frames a second", log=True),
        series,
    )


def _files(run: Run) -> str:
    lengths = run.values("files", "length")
    groups = []
    for length in lengths:
        group = [
            Bar(
                record["name"],
                record["cpu"],
                f"{record['cpu'] * 1000:,.0f} ms",
                record["name"] == "audiohook",
            )
            for record in sorted(
                run.records("files", length=length), key=lambda each: float(each["cpu"])
            )
        ]
        words = f"{length / 3600:g} h" if length >= 3600 else f"{length / 60:g} min"
        groups.append((f"a call of {words}", group))
    if not groups:
        return ""
    return bars(
        "A call's audio made into a WAV file",
        "Processor time; ffmpeg and sox are a process a call",
        groups,
    )


CHARTS: Final = (
    Chart("calls", "calls", "Cores per 1,000 live calls, by server", _cost),
    Chart("calls", "calls-growth", "Cores by live calls, by server", _growth),
    Chart("calls", "memory", "Memory a live call, by server", _memory),
    Chart("storms", "storms", "Worst answers in a storm, by server", _storms),
    Chart("delivery", "delivery", "Seconds from closed to the object", _delivery),
    Chart("length", "length", "Memory by the length of a call", _length),
    Chart("frames", "frames", "Cores by the length of frames", _frames),
    Chart("ticks", "ticks", "Cores by the time between passes", _ticks),
    Chart("kernel", "kernel", "GB a second of the kernel and others", _kernel),
    Chart("diverter", "diverter", "Frames a second by parser", _diverter),
    Chart("files", "files", "Processor time to convert a call", _files),
)
