"""What processes, and the machine, have taken up to a moment."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Columns of /proc/stat that are no work: idle, iowait; and guest, guest_nice, which
# are in user and nice already.
_BUSY_COLUMNS = (0, 1, 2, 5, 6, 7)


@dataclass(frozen=True, slots=True)
class Sample:
    """A process, or some together, at one moment.

    Attributes:
        at: Seconds on the monotonic clock.
        cpu: Seconds of processor time used so far, all threads.
        rss_bytes: Memory resident now.
    """

    at: float
    cpu: float
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class Moment:
    """Everything at one moment.

    Attributes:
        server: The server's processes together.
        load: The load generator.
        machine: Seconds of processor time used so far, by all there is.
    """

    server: Sample
    load: Sample
    machine: float


def sample(*pids: int) -> Sample:
    """Look at processes.

    Source: clock_getcpuclockid(3), which has no name in Python: the clock of a
    process counts nanoseconds where /proc/PID/stat counts hundredths of a second.
    proc(5), ``/proc/pid/statm``.
    """
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return Sample(
        time.monotonic(),
        sum(time.clock_gettime(~pid << 3 | 2) for pid in pids),
        pages * os.sysconf("SC_PAGE_SIZE"),
    )


def peak_rss_bytes(*pids: int) -> int:
    """Most memory that was resident at a time, of each process, added up.

    Source: proc(5), ``VmHWM``.
    """
    lines = [
        line
        for pid in pids
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    ]
    return sum(int(line.split()[1]) for line in lines) * 1024


def moment(server_pids: Sequence[int], load_pid: int) -> Moment:
    """Look at both sides, and at the machine.

    Source: proc(5), ``/proc/stat``.
    """
    columns = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    ticks = sum(int(columns[column]) for column in _BUSY_COLUMNS)
    return Moment(
        sample(*server_pids), sample(load_pid), ticks / os.sysconf("SC_CLK_TCK")
    )
