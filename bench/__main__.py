"""All benchmarks: peers installed, everything measured, tables and plots made.

    make bench             all of it, half an hour at most
    make bench-quick       some of it, about two minutes
    python -m bench --only calls --servers ours,plain-interval-3 --rounds 3

Results are written as they come, so that what ends early leaves what there was.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench import calls, files, functions, growth, stores, storms
from bench.peers import PROJECT, SERVERS
from bench.peers.install import FOLDER as BUILT
from bench.peers.install import NO_APT
from bench.plan import FULL, OTHERS, QUICK, Bench
from bench.processes import FailedError, find_cores
from bench.report import show, write_charts, write_readme
from bench.results import FOLDER, Results

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# In the order in which they are run; what has no end of servers comes last.
KINDS: dict[str, Callable[[Bench], None]] = {
    functions.KERNEL: functions.run_kernel,
    functions.DIVERTER: functions.run_diverter,
    files.KIND: files.run,
    storms.KIND: storms.run,
    stores.PARTS: stores.run_parts,
    stores.DELIVERY: stores.run_delivery,
    stores.LENGTH: stores.run_length,
    growth.FRAMES: growth.run_frames,
    growth.TICKS: growth.run_ticks,
    calls.KIND: calls.run,
}


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(
                    f"{name!r} is none of {', '.join(known)}"
                )
        return names

    return parse


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="two minutes, no apt-get")
    parser.add_argument(
        "--only",
        type=_names(list(KINDS)),
        default=list(KINDS),
        metavar="KIND,KIND",
        help=f"of {', '.join(KINDS)}",
    )
    parser.add_argument(
        "--servers",
        type=_names(list(SERVERS)),
        default=list(SERVERS),
        metavar="NAME,NAME",
        help=f"of {', '.join(SERVERS)}",
    )
    parser.add_argument("--counts", metavar="CALLS,CALLS", help="live calls at a time")
    parser.add_argument("--window", type=float, help="seconds that are looked at")
    parser.add_argument("--rounds", type=int, default=1, help="of live calls")
    parser.add_argument("--folder", type=Path, help="where to record; on which disk")
    parser.add_argument(
        "--results",
        type=Path,
        help="folder for the results; bench/results, or build/bench/quick",
    )
    arguments = parser.parse_args(argv)
    if arguments.results is None:
        arguments.results = BUILT / "quick" if arguments.quick else FOLDER
    return arguments


def make_bench(arguments: argparse.Namespace) -> Bench:
    """Make what the command line asks for.

    Raises:
        FailedError: There are no two cores.
    """
    plan = QUICK if arguments.quick else FULL
    if arguments.counts:
        counts = tuple(int(count) for count in arguments.counts.split(","))
        peers = tuple((calls, OTHERS) for calls in counts)
        plan = replace(plan, counts=counts, peers=peers)
    if arguments.window:
        plan = replace(plan, window=arguments.window)
    words = " ".join(sys.argv[1:])
    return Bench(
        plan,
        find_cores(),
        Results(arguments.results, f"python -m bench {words}".strip(), tell, BUILT),
        servers=arguments.servers,
        folder=arguments.folder,
        rounds=arguments.rounds,
    )


def tell(line: str) -> None:
    """Say a line as it comes."""
    print(line, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what the command line asks for.

    Returns:
        0 if all went well; 1 if ours failed calls or stored them not as sent, or
        the suite itself is broken.
    """
    arguments = _parse(argv)
    # As Ctrl-C, so that everything that was started is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if arguments.quick:
        os.environ.setdefault(NO_APT, "1")
    try:
        bench = make_bench(arguments)
    except FailedError as error:
        print(error, file=sys.stderr)
        return 1
    # Whatever we do ourselves is not done on the server's core.
    os.sched_setaffinity(0, {bench.cores.load})
    for kind in arguments.only:
        if bench.seconds_left < 0:
            bench.results.skip(kind, kind, "the time is over")
            continue
        try:
            KINDS[kind](bench)
        except Exception as error:  # noqa: BLE001 - the edge: the other kinds go on
            traceback.print_exc()
            bench.results.fail(kind, f"{type(error).__name__}: {error}")
    show(arguments.results)
    if arguments.results == FOLDER:
        write_charts(FOLDER, FOLDER.parent / "plots")
        write_readme(FOLDER, PROJECT / "bench" / "README.md")
    else:
        write_charts(arguments.results, arguments.results / "plots")
    return 1 if bench.results.faulty else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
