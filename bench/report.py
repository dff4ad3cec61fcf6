"""Results as tables: in the terminal, and in the README between its two marks.

python -m bench.report         makes plots and README anew from bench/results
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table as RichTable

from bench.charts import CHARTS, title_of_kernel
from bench.goals import goals
from bench.peers import FLOOR, OURS, SERVERS, title_of
from bench.records import Run, cost
from bench.results import FOLDER, read, reasons_against

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from bench.measure import Record

BEGIN: Final = "<!-- Made by `python -m bench.report`; do not edit. -->"
END: Final = "<!-- The end of what is made. -->"
NONE: Final = "-"
_FILE_WIDTH: Final = 160


@dataclass(frozen=True, slots=True)
class Table:
    """Some results, laid out.

    Attributes:
        title: What they are.
        head: Titles of the columns.
        rows: Lines; the first column names them.
        notes: What has to be known about them.
        bold: First cells of lines that are ours.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    bold: Sequence[str] = field(default=("audiohook", "diverter"))

    def to_markdown(self) -> str:
        lines = [
            f"| {' | '.join(self.head)} |",
            f"|{'|'.join(['---', *['---:'] * (len(self.head) - 1)])}|",
        ]
        for row in self.rows:
            mark = "**" if row[0].startswith(tuple(self.bold)) else ""
            cells = [f"{mark}{cell}{mark}" if cell else "" for cell in row]
            lines.append(f"| {' | '.join(cells)} |")
        parts = [f"{self.title}:", "\n".join(lines), *self.notes]
        return "\n\n".join(parts)

    def to_rich(self) -> RichTable:
        table = RichTable(title=self.title, title_justify="left")
        for number, name in enumerate(self.head):
            table.add_column(name, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*row)
        return table


# What each kind comes to.


def _calls(run: Run) -> Iterable[Table]:
    counts = run.values("calls", "calls")
    yield Table(
        "Server's cores per 1,000 live calls, by how many there are",
        ["", *(f"{count:,}" for count in counts)],
        [
            [name, *(_number(cost(run, key, count, tls), 3) for count in counts)]
            for key, tls, name in _call_rows(run)
        ],
    )
    few = [count for count in counts if run.best("calls", server=FLOOR, calls=count)]
    usual = 1000 if 1000 in few else max(few, default=0)
    rows = []
    for key, tls, name in _call_rows(run):
        record = run.best("calls", server=key, calls=usual, tls=tls)
        if record is not None:
            pong = record["latency_ms"]["pong"]
            rows.append(
                [
                    name,
                    _number(record["us_per_frame"], 1),
                    _times(cost(run, key, usual, tls), cost(run, FLOOR, usual)),
                    _number(record["kib_per_call"], 0),
                    *(_number(pong.get(name), 0) for name in ("p50", "p99", "max")),
                ]
            )
    yield Table(
        f"At {usual:,} calls",
        [
            *("", "µs a frame", "times the floor", "KiB a call"),
            *("pong p50, ms", "p99", "max"),
        ],
        rows,
    )
    yield Table(
        "Both sides, ours: whose limit was it",
        [
            *("calls", "server's cores", "load's cores", "load's lag p99, ms", "limit"),
            *("opened max, ms", "pong max", "closed max", "KiB a call", "processes"),
        ],
        [
            [
                f"{record['calls']:,}" + (" TLS" if record["tls"] else ""),
                _number(record.get("cores"), 3),
                _number(record.get("load_cores"), 3),
                _number(record["lag_ms"].get("p99"), 1),
                record.get("limit", NONE),
                *(_worst(record, what) for what in ("opened", "pong", "closed")),
                _number(record.get("kib_per_call"), 0),
                str(record["processes"]),
            ]
            for record in run.records("calls", server=OURS)
        ],
    )


def _call_rows(run: Run) -> list[tuple[str, bool, str]]:
    """Servers that were measured: name, TLS, title."""
    return [
        (key, tls, title_of(key) + (", TLS" if tls else ""))
        for key in SERVERS
        for tls in (False, True)
        if run.records("calls", server=key, tls=tls)
    ]


def _storms(run: Run) -> Iterable[Table]:
    rows = []
    for record in run.records("storms"):
        worst = (
            _worst(record, what) for what in ("upgraded", "opened", "pong", "closed")
        )
        rows.append(
            [
                title_of(record["server"]),
                f"{record['calls']:,}",
                _number(record["all_open_after"], 2),
                *worst,
                _number(record["turn_ms"]["max"], 0),
            ]
        )
    yield Table(
        "Sessions opened in the same instant, and closed in the same; the worst of all",
        [
            *("", "sessions", "all open after, s", "upgraded, ms", "opened, ms"),
            *("pong, ms", "closed, ms", "load's own turn, ms"),
        ],
        rows,
    )


def _parts(run: Run) -> Iterable[Table]:
    yield Table(
        "Long calls, of which parts are uploaded while they live",
        [
            *("what is stored", "calls", "times real time", "server's cores"),
            *("per 1,000 calls' audio", "load's cores", "elsewhere, S3 among it"),
        ],
        [
            [
                record["what"],
                f"{record['calls']:,}",
                f"{record['speed']:g}",
                _number(record["cores"], 3),
                _number(record["cores_per_1000_calls"] / record["speed"], 3),
                _number(record["load_cores"], 3),
                _number(record["elsewhere_cores"], 3),
            ]
            for record in run.records("parts")
        ],
    )


def _delivery(run: Run) -> Iterable[Table]:
    yield Table(
        "Calls that end, are uploaded, and are followed by others",
        [
            *("what is stored", "calls at a time", "calls in all", "server's cores"),
            *("per 1,000 calls", "stored after closed p50, s", "p99", "max"),
            "all ended at once, max",
        ],
        [
            [
                record["what"],
                f"{record['calls']:,}",
                f"{record['calls_made']:,}",
                _number(record.get("cores"), 3),
                _number(record.get("cores_per_1000_calls"), 3),
                *(
                    _number(record["stored_after"].get(name), 2)
                    for name in ("p50", "p99", "max")
                ),
                _number(record["stored_after_storm"].get("max"), 1),
            ]
            for record in run.records("delivery")
        ],
    )


def _length(run: Run) -> Iterable[Table]:
    yield Table(
        "One call, faster than real time, brought to a bucket while it lives",
        [
            *("length", "times real time", "memory at its peak, MiB"),
            *("of it before the call", "stored after closed, s"),
        ],
        [
            [
                _duration(record["length"]),
                f"{record['speed']:g}",
                _number(record["rss_peak_kib"] / 1024, 1),
                _number(record["rss_idle_kib"] / 1024, 1),
                _number(record["stored_after"].get("max"), 2),
            ]
            for record in run.records("length")
        ],
    )


def _frames(run: Run) -> Iterable[Table]:
    rows = []
    for frame_bytes in run.values("frames", "frame_bytes"):
        ours, floor = (
            run.best("frames", server=server, frame_bytes=frame_bytes)
            for server in (OURS, FLOOR)
        )
        rows.append(
            [
                f"{frame_bytes:,}",
                *(
                    _number(_field(record, "cores_per_1000_calls"), 4)
                    for record in (ours, floor)
                ),
                _times(
                    _field(ours, "cores_per_1000_calls"),
                    _field(floor, "cores_per_1000_calls"),
                ),
            ]
        )
    yield Table(
        "Server's cores per 1,000 live calls, by the length of frames",
        ["bytes a frame", "audiohook", "floor", "times the floor"],
        rows,
        bold=(),
    )


def _ticks(run: Run) -> Iterable[Table]:
    yield Table(
        "Server's cores per 1,000 live calls, by the time between passes",
        ["s from pass to pass", "cores", "pong p50, ms", "p99", "max", "KiB a call"],
        [
            [
                f"{record['tick']:g}",
                _number(record.get("cores_per_1000_calls"), 4),
                *(
                    _number(record["latency_ms"]["pong"].get(name), 0)
                    for name in ("p50", "p99", "max")
                ),
                _number(record.get("kib_per_call"), 0),
            ]
            for record in run.records("ticks")
        ],
        bold=(),
    )


def _kernel(run: Run) -> Iterable[Table]:
    sizes = run.values("kernel", "bytes")
    rows = []
    for operation in ("decode", "split", "mix", "encode"):
        for name in ("kernel", "audioop", "numpy"):
            found = [
                run.best("kernel", name=name, operation=operation, bytes=size)
                for size in sizes
            ]
            rates = [_number(_field(each, "gb_per_second"), 2) for each in found]
            rows.append([f"{title_of_kernel(name)}: {operation}", *rates])
    yield Table(
        "GB of µ-law a second, by the bytes at a time",
        ["", *(f"{size:,}" for size in sizes)],
        rows,
    )


def _diverter(run: Run) -> Iterable[Table]:
    sizes = run.values("diverter", "frame_bytes")
    rows = []
    for name in ("diverter", "aiohttp", "websockets", "wsproto"):
        found = [run.best("diverter", name=name, frame_bytes=size) for size in sizes]
        if any(found):
            rates = [_field(each, "frames_per_second") for each in found]
            rows.append(
                [name, *(NONE if rate is None else f"{rate:,.0f}" for rate in rates)]
            )
    yield Table(
        "Frames a second, by their bytes", ["", *(f"{s:,}" for s in sizes)], rows
    )


def _files(run: Run) -> Iterable[Table]:
    lengths = run.values("files", "length")
    rows = []
    for name in dict.fromkeys(record["name"] for record in run.records("files")):
        found = [run.best("files", name=name, length=length) for length in lengths]
        cells = [
            _number(_field(each, what, 1000), 1)
            for what in ("seconds", "cpu")
            for each in found
        ]
        rows.append([name, *cells])
    yield Table(
        "Milliseconds to make a call's audio into a PCM16 WAV file, and of processor time",
        [
            "",
            *(_duration(length) for length in lengths),
            *(f"{_duration(length)}, cpu" for length in lengths),
        ],
        rows,
    )


@dataclass(frozen=True, slots=True)
class Chapter:
    """One kind of results in the README."""

    kind: str
    title: str
    tables: Callable[[Run], Iterable[Table]]


CHAPTERS: Final = (
    Chapter("calls", "Live calls", _calls),
    Chapter("storms", "Storms", _storms),
    Chapter("parts", "Long calls on their way to the bucket", _parts),
    Chapter("delivery", "From the wire to the bucket", _delivery),
    Chapter("length", "Length of a call", _length),
    Chapter("frames", "Length of frames", _frames),
    Chapter("ticks", "The tick", _ticks),
    Chapter("kernel", "Kernel", _kernel),
    Chapter("diverter", "Diverter", _diverter),
    Chapter("files", "Whole calls into files", _files),
)


# Cells.


def _field(record: Record | None, name: str, factor: float = 1) -> float | None:
    return None if record is None else float(record[name]) * factor


def _number(value: float | None, digits: int) -> str:
    return NONE if value is None else f"{value:,.{digits}f}"


def _times(value: float | None, other: float | None) -> str:
    return f"{value / other:.2f}" if value and other else NONE


def _worst(record: dict[str, Any], what: str) -> str:
    return _number(record["latency_ms"][what].get("max"), 0)


def _duration(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:g} h"
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"


# All of it.


def goals_table(run: Run) -> Table:
    """Lay out which figures are reached."""
    return Table(
        "Figures to reach",
        ["figure", "goal", "measured", "reached", "beside others"],
        [
            [goal.figure, goal.goal, goal.measured, goal.verdict, goal.beside]
            for goal in goals(run)
        ],
        bold=(),
    )


def show(folder: Path, console: Console | None = None) -> None:
    """Print all tables, the one of the figures to reach last."""
    # Where nobody looks at once, lines may be long.
    out = console or Console()
    if not out.is_terminal:
        out.width = _FILE_WIDTH
    run = Run(read(folder))
    for chapter in CHAPTERS:
        if chapter.kind in run.kinds:
            for table in chapter.tables(run):
                if table.rows:
                    out.print(table.to_rich())
    for kind in run.kinds:
        for line in _left_out(run, kind):
            out.print(f"{kind}: {line}", markup=False, soft_wrap=True)
    out.print(goals_table(run).to_rich())


def _left_out(run: Run, kind: str) -> list[str]:
    lines = [
        f"left out: {each['what']}: {each['why']}"
        for each in run.kinds[kind]["skipped"]
    ]
    for record in run.kinds[kind]["records"]:
        for reason in reasons_against(record):
            name = record.get("server") or record.get("name", "")
            lines.append(
                f"does not count: {name}, {record.get('calls', 1):,} calls: {reason}"
            )
    return lines


def _origin(value: dict[str, Any]) -> str:
    machine, versions = value["machine"], value["versions"]
    words = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"`{value['command']}`, {value['date'].replace('+00:00', ' UTC')},"
        f" {value['commit'] or 'unknown state'}; {machine['processor']},"
        f" {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['kernel']};"
        f" {words}."
    )


def to_markdown(run: Run) -> str:
    """Write all results down, as the README has them."""
    parts = [goals_table(run).to_markdown()]
    origins: dict[str, list[str]] = {}
    for chapter in CHAPTERS:
        if chapter.kind not in run.kinds:
            continue
        parts.append(f"### {chapter.title}")
        parts += [
            f"![{chart.alt}](plots/{chart.name}.svg)"
            for chart in CHARTS
            if chart.kind == chapter.kind and chart.draw(run)
        ]
        parts += [table.to_markdown() for table in chapter.tables(run) if table.rows]
        left_out = _left_out(run, chapter.kind)
        if left_out:
            parts.append("\n".join(f"- {line}" for line in left_out))
        origin = _origin(run.kinds[chapter.kind])
        origins.setdefault(origin, []).append(chapter.title)
    parts.append("### Measured with")
    parts += [f"{', '.join(titles)}: {origin}" for origin, titles in origins.items()]
    return "\n\n".join(parts)


def write_readme(folder: Path, readme: Path) -> None:
    """Put the results of a folder into the README, between its marks."""
    text = readme.read_text()
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{readme.name} has lost its marks")
    made = to_markdown(Run(read(folder)))
    readme.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{after}")


def write_charts(results: Path, folder: Path) -> None:
    """Draw all charts for which there is something."""
    run = Run(read(results))
    folder.mkdir(parents=True, exist_ok=True)
    for chart in CHARTS:
        drawn = chart.draw(run)
        if drawn:
            (folder / f"{chart.name}.svg").write_text(drawn)


def main() -> int:
    """Make plots and README anew."""
    write_charts(FOLDER, FOLDER.parent / "plots")
    write_readme(FOLDER, FOLDER.parent / "README.md")
    show(FOLDER)
    return 0


if __name__ == "__main__":
    sys.exit(main())
