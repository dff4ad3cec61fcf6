"""The figures that all processes have, also where the machine is hidden from them."""

from __future__ import annotations

import time

from prometheus_client import ProcessCollector


class OwnProcess(ProcessCollector):
    """Figures of this process.

    The library reads from ``/proc/stat`` when the machine was started, and without
    that gives no figures at all. Our unit has ``ProcSubset=pid``, where there is no
    such file, so the clocks are asked.
    """

    def __init__(self) -> None:
        """Look at nothing yet, and register nowhere."""
        super().__init__(registry=None)

    def _boot_time(self) -> float:
        # Source: clock_gettime(2): CLOCK_BOOTTIME counts from the machine's start.
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
