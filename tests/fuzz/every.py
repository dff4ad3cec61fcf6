"""Fuzzes every target for a while: ``python -m tests.fuzz.every SECONDS [TARGET…]``.

Seconds are for each target. It ends with 1 if any of them found something.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys

from tests.fuzz.targets import TARGETS

_RUNS = re.compile(r"^Done (\d+) runs", re.MULTILINE)
_COVERED = re.compile(r" cov: (\d+) ")


def main(seconds: int, names: list[str]) -> int:
    if importlib.util.find_spec("atheris") is None:
        print(
            f"atheris has no wheel for {sys.version.split()[0]} here: nothing is fuzzed"
        )
        return 1 if os.environ.get("AUDIOHOOK_FORBID_SKIPS") else 0
    faults = [name for name in names or TARGETS if not fuzz(name, seconds)]
    if faults:
        print(f"what was found is in .fuzz: {', '.join(faults)}")
    return 1 if faults else 0


def fuzz(name: str, seconds: int) -> bool:
    """Fuzzes one target; tells whether nothing was found."""
    command = [sys.executable, "-m", "tests.fuzz.run", name]
    done = subprocess.run(
        [*command, f"-max_total_time={seconds}"],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    runs, covered = _RUNS.search(done.stderr), _COVERED.findall(done.stderr)
    good = done.returncode == 0 and runs is not None
    if good and runs is not None:
        print(f"{name:12} {int(runs[1]):>12,} runs {covered[-1]:>6} edges", flush=True)
    else:
        print(done.stderr[-4000:])
    return good


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
