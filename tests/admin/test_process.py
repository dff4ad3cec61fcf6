from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

from audiohook.admin.process import OwnProcess

if TYPE_CHECKING:
    from pathlib import Path

NAMES = {
    "process_virtual_memory_bytes",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_max_fds",
}


def figures(process: OwnProcess) -> dict[str, float]:
    return {
        sample.name: sample.value
        for metric in process.collect()
        for sample in metric.samples
    }


def test_figures_that_all_processes_have() -> None:
    found = figures(OwnProcess())
    assert found.keys() == NAMES
    assert found["process_open_fds"] >= 3
    assert found["process_resident_memory_bytes"] > 1024 * 1024
    # Of the tests' own process, which runs already and not for long.
    assert time.time() - 3600 < found["process_start_time_seconds"] < time.time() + 1


def test_figures_where_the_machine_is_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with ``ProcSubset=pid``, where ``/proc`` holds processes only."""
    (tmp_path / "self").symlink_to(f"/proc/{os.getpid()}")
    process = OwnProcess()
    monkeypatch.setattr(process, "_proc", str(tmp_path))
    assert process._boot_time() == pytest.approx(_boot_time_of_the_kernel(), abs=2)
    assert figures(process).keys() == NAMES


def test_nothing_is_registered() -> None:
    registry = CollectorRegistry()
    OwnProcess()
    assert list(registry.collect()) == []


def _boot_time_of_the_kernel() -> float:
    with open("/proc/stat") as file:  # noqa: PTH123 - a test's own look
        return float(next(line for line in file if line.startswith("btime")).split()[1])
