"""Branches that the fast tests take, by room; fails where too few are.

Usage: branches.py COVERAGE.json
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

# What a call's bytes depend on. The rest is shown, and has no bound.
BOUND = 95.0
BOUND_FOR = (
    "protocol/",
    "recording/",
    "storage/upload.py",
    "transcription/job.py",
)
PACKAGE = "audiohook/"
GROUND_FLOOR = "(ground floor)"


def places(name: str) -> list[str]:
    """Where a file is counted: its room, and itself if there is a bound for it."""
    below = name.partition(PACKAGE)[2]
    room, slash, _ = below.partition("/")
    return [room + slash if slash else GROUND_FLOOR] + [below] * (below in BOUND_FOR)


def main() -> int:
    """Print a line a room. Returns 1 if too few branches are taken somewhere."""
    files = json.loads(Path(sys.argv[1]).read_text())["files"]
    taken: Counter[str] = Counter()
    there: Counter[str] = Counter()
    for name, file in files.items():
        for place in places(name):
            taken[place] += file["summary"]["covered_branches"]
            there[place] += file["summary"]["num_branches"]
    too_few = [place for place in BOUND_FOR if not there[place]]
    lines = []
    for place in sorted(there):
        share = 100 * taken[place] / there[place] if there[place] else 100.0
        bound = f"  at least {BOUND:.0f}" if place in BOUND_FOR else ""
        lines.append(
            f"{place:24} {taken[place]:6,} of {there[place]:6,}  {share:5.1f} %{bound}"
        )
        if bound and share < BOUND:
            too_few.append(place)
    sys.stdout.write("\n".join(lines) + "\n")
    if too_few:
        sys.stderr.write(f"too few branches are taken in {', '.join(too_few)}\n")
    return bool(too_few)


if __name__ == "__main__":
    sys.exit(main())
