"""A wall clock that is wrong for one process, and can be set while it runs."""

from __future__ import annotations

import os
import shlex
import struct
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("wall_clock.c")
_SECONDS = struct.Struct("=q")


class WallClock:
    """The clock of those processes that are started with its settings.

    Only what it says of the date is wrong; time passes as it should. It takes a C
    compiler, as building the package does.

    Args:
        folder: An empty folder of its own.
        ahead_seconds: How far it is ahead of the right one; behind, if negative.
    """

    def __init__(self, folder: Path, ahead_seconds: int) -> None:
        self._library = folder / "wall_clock.so"
        self._file = folder / "ahead"
        self._file.write_bytes(_SECONDS.pack(ahead_seconds))
        subprocess.run(
            [
                *shlex.split(os.environ.get("CC", "cc")),
                *("-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"),
                *("-o", str(self._library), str(_SOURCE), "-ldl"),
            ],
            check=True,
        )

    @property
    def settings(self) -> dict[str, str]:
        """Environment of a process that is to go by it."""
        return {
            "LD_PRELOAD": str(self._library),
            "WALL_CLOCK_FILE": str(self._file),
        }

    def correct(self) -> None:
        """Sets it right."""
        with self._file.open("r+b") as file:
            file.write(_SECONDS.pack(0))
