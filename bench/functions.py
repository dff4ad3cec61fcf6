"""The kernel and the diverter, function by function, by pytest-benchmark.

What is timed is in ``test_kernel.py`` and ``test_divert.py``; here it is run, and its
results are taken over.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench.peers import PROJECT
from bench.peers.install import MissingError, python_packages

if TYPE_CHECKING:
    from bench.plan import Bench

KERNEL = "kernel"
DIVERTER = "diverter"

SECONDS = 1.0
_LIMIT = 300 * SECONDS


def run_kernel(bench: Bench) -> None:
    """Time decoding, splitting, mixing and encoding."""
    _run(bench, KERNEL, "test_kernel.py", [])


def run_diverter(bench: Bench) -> None:
    """Time the parsing of frames."""
    folders = []
    for package in ("websockets", "aiohttp"):
        try:
            folders.append(str(python_packages(package)))
        except MissingError as error:
            bench.results.skip(DIVERTER, f"the parser of {package}", str(error))
    _run(bench, DIVERTER, "test_divert.py", folders)


def _run(bench: Bench, kind: str, file: str, folders: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="audiohook-bench-") as scratch:
        report = Path(scratch) / "report.json"
        command = [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            str(Path(__file__).with_name(file)),
            "--benchmark-only",
            f"--benchmark-json={report}",
            f"--benchmark-max-time={bench.plan.function_seconds}",
            "--benchmark-min-rounds=3",
            "--benchmark-warmup=off",
        ]
        path = ":".join([str(PROJECT), *folders])
        # On the server's core, where nothing else is.
        pin = ["taskset", "-c", str(bench.cores.server)]
        try:
            done = subprocess.run(
                [*pin, *command],
                cwd=PROJECT,
                env={**os.environ, "PYTHONPATH": path},
                capture_output=True,
                text=True,
                timeout=_LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            bench.results.skip(kind, file, f"took more than {_LIMIT:.0f} s")
            return
        if done.returncode or not report.exists():
            last = done.stdout.strip().rpartition("\n")[2]
            bench.results.skip(kind, file, f"pytest failed: {last}")
            return
        for benchmark in json.loads(report.read_text())["benchmarks"]:
            bench.results.add(kind, benchmark["extra_info"])
