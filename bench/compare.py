"""Several servers under the same load, one after another, in turns.

    python -m bench.compare --servers ours,plain-interval,plain-epoll --rounds 3

Each round measures every server once (`bench.measure_server`), so that what else
changes on the machine in the meantime meets all of them. What a server costs is
also given as a ratio to the floor's: that can be carried to another machine, a
time cannot. What disturbs a measurement only ever adds to it, so that on a busy
machine the least of many rounds says more than their median.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.measure_server import add_load_arguments, faults_of, measure, parse
from bench.peers import SERVERS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FLOOR = "plain-interval"
# With more than this going on beside it, a round is marked.
QUIET_CORES = 0.1

# What one measurement came to: the names of `bench.measure_server`.
Result = dict[str, Any]


def run_rounds(arguments: argparse.Namespace) -> tuple[list[dict[str, Result]], bool]:
    """Measure each server once a round.

    Returns:
        For each round the results that count, by server; and whether all did.
    """
    rounds: list[dict[str, Result]] = []
    sound = True
    for number in range(1, arguments.rounds + 1):
        results: dict[str, Result] = {}
        rounds.append(results)
        for server in arguments.servers:
            result, faults = _run(arguments, server)
            if faults:
                sound = False
                words = "; ".join(faults[:3])
                print(f"round {number}: {server}: {words}", file=sys.stderr)
                continue
            results[server] = result
            print(_line(number, server, result), file=sys.stderr, flush=True)
    return rounds, sound


def _run(arguments: argparse.Namespace, server: str) -> tuple[Result, list[str]]:
    one = argparse.Namespace(**vars(arguments), server=server)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        try:
            result = measure(one, Path(folder))
        except (OSError, RuntimeError) as error:
            # It may quote a whole log, of which the end says what went wrong.
            return {}, [str(error).strip().rpartition("\n")[2]]
    return result, faults_of(result)


def _line(number: int, server: str, result: Result) -> str:
    elsewhere = result["elsewhere_cores"]
    remark = f" ({elsewhere} cores busy elsewhere)" if elsewhere > QUIET_CORES else ""
    cores = result["cores_per_1000_calls"]
    return f"round {number}: {server}: {cores:.4f} cores per 1,000 calls{remark}"


def summarise(
    rounds: Sequence[Mapping[str, Result]], servers: Sequence[str], floor: str
) -> list[dict[str, Any]]:
    """Sum up all rounds, one record a server.

    Args:
        rounds: Results by server, for each round.
        servers: In which order.
        floor: Whose cost is 1.

    Returns:
        Records. ``ratio_min`` compares the least of all rounds, ``ratio_median``
        is the median of the ratios within a round; None if there is none.
    """
    least = {
        server: min(
            results[server]["cpu_us_per_frame"]
            for results in rounds
            if server in results
        )
        for server in {server for results in rounds for server in results}
    }
    records = []
    for server in servers:
        results = [results[server] for results in rounds if server in results]
        if not results:
            continue
        cores = [result["cores_per_1000_calls"] for result in results]
        ratios = [
            results[server]["cpu_us_per_frame"] / results[floor]["cpu_us_per_frame"]
            for results in rounds
            if server in results and floor in results
        ]
        records.append(
            {
                "server": server,
                "rounds": len(results),
                "cores_min": min(cores),
                "cores_median": round(statistics.median(cores), 4),
                "us_per_frame": _median(results, "cpu_us_per_frame"),
                "ratio_min": (
                    round(least[server] / least[floor], 2) if floor in least else None
                ),
                "ratio_median": round(statistics.median(ratios), 2) if ratios else None,
                "rss_kib_per_call": _median(results, "rss_kib_per_call"),
                "pong_p50_ms": _latency(results, "pong", "p50"),
                "closed_max_ms": _latency(results, "closed", "max"),
            }
        )
    return records


def _median(results: Sequence[Result], name: str) -> float:
    values: list[float] = [result[name] for result in results]
    return round(statistics.median(values), 2)


def _latency(results: Sequence[Result], what: str, share: str) -> float:
    values: list[float] = [
        result["load"]["latency_ms"][what][share] for result in results
    ]
    return round(statistics.median(values), 1)


_COLUMNS = {
    "server": "server",
    "cores_min": "cores per 1,000 calls, min",
    "cores_median": "median",
    "us_per_frame": "µs a frame",
    "ratio_min": "ratio to {floor}, min",
    "ratio_median": "median of ratios",
    "rss_kib_per_call": "RSS a call, KiB",
    "pong_p50_ms": "pong p50, ms",
    "closed_max_ms": "closed max, ms",
}


def table(records: Sequence[Mapping[str, Any]], floor: str) -> str:
    """Lay the records out as a Markdown table."""
    heads = [head.format(floor=floor) for head in _COLUMNS.values()]
    lines = [heads] + [
        ["" if record[name] is None else str(record[name]) for name in _COLUMNS]
        for record in records
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| "
        + " | ".join(
            cell.ljust(width) for cell, width in zip(line, widths, strict=True)
        )
        + " |"
        for line in lines
    )


def machine() -> dict[str, object]:
    """Say what it was measured on."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _servers(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in SERVERS:
            raise argparse.ArgumentTypeError(
                f"{name!r} is none of {', '.join(SERVERS)}"
            )
    if len(set(names)) < len(names):
        raise argparse.ArgumentTypeError("name each server once")
    return names


def main(argv: Sequence[str] | None = None) -> int:
    """Compare as the command line asks; 0 if every measurement counted."""
    parser = argparse.ArgumentParser(
        prog="bench.compare", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "--servers",
        type=_servers,
        default=list(SERVERS),
        metavar="NAME,NAME",
        help=f"of {', '.join(SERVERS)}",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--floor", choices=SERVERS, default=FLOOR)
    add_load_arguments(parser)
    arguments = parse(parser, argv)
    rounds, sound = run_rounds(arguments)
    records = summarise(rounds, arguments.servers, arguments.floor)
    if arguments.json is not None:
        load = ("calls", "duration", "ramp", "frame_bytes", "rate")
        report = {
            "machine": machine(),
            "load": {name: getattr(arguments, name) for name in load},
            "floor": arguments.floor,
            "servers": records,
            "rounds": rounds,
        }
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    print(table(records, arguments.floor))
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
