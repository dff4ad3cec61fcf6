"""Results as they could have been, to be reported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.peers import FLOOR, OURS
from bench.records import Run

if TYPE_CHECKING:
    from bench.measure import Record

SPREAD = {"p50": 100.0, "p95": 150.0, "p99": 180.0, "max": 200.0}


def live(server: str, calls: int, cores: float, **changes: Any) -> Record:  # noqa: ANN401 - passed on
    """Makes a measurement of live calls.

    Args:
        server: Whose.
        calls: How many.
        cores: Per 1,000 calls.
        **changes: Other values of it.
    """
    record = {
        "server": server,
        "calls": calls,
        "frame_bytes": 1600,
        "tls": False,
        "processes": 1,
        "cores": cores * calls / 1000,
        "load_cores": calls / 10_000,
        "elsewhere_cores": 0.1,
        "cores_per_1000_calls": cores,
        "us_per_frame": cores * 100,
        "kib_per_call": 50.0,
        "limit": "none",
        "rss_idle_kib": 50_000,
        "rss_peak_kib": 90_000,
        "latency_ms": {
            name: dict(SPREAD) for name in ("upgraded", "opened", "pong", "closed")
        },
        "lag_ms": {"p99": 3.0, "max": 9.0},
        "turn_ms": {"max": 12.0},
        "all_open_after": 1.5,
        "calls_made": calls,
        "faults": [],
        "doubts": [],
    }
    return record | changes


def kernel(name: str, operation: str, rate: float) -> Record:
    return {
        "name": name,
        "operation": operation,
        "bytes": 65_536,
        "gb_per_second": rate,
    }


def kind(name: str, *records: Record) -> dict[str, Any]:
    """Makes what is in a file."""
    return {
        "kind": name,
        "date": "2026-11-25T20:00:00+00:00",
        "command": "python -m bench",
        "commit": "abcdef0",
        "machine": {
            "processor": "A processor",
            "cores": 2,
            "memory_gib": 8.0,
            "kernel": "Linux 6.1",
        },
        "versions": {"python": "3.11.7"},
        "records": list(records),
        "skipped": [],
    }


def good_run() -> Run:
    """Makes a run in which all figures are reached."""
    storm = {"opened": {"max": 1500.0}, "pong": {"max": 900.0}}
    storm |= {"closed": {"max": 2500.0}, "upgraded": {"max": 800.0}}
    stored = {"count": 9, "p50": 0.1, "p99": 0.3, "max": 0.4}
    parts = live(OURS, 250, 0.44) | {"what": "WAV alone", "speed": 4.0}
    delivery = live(OURS, 1000, 0.11) | {
        "what": "WAV alone",
        "stored_after": stored,
        "stored_after_storm": {"max": 9.0},
    }
    single = live(OURS, 1, 0.1) | {"stored_after": stored}
    kinds = [
        kind(
            "calls",
            *(live(OURS, calls, 0.04) for calls in (200, 1000, 3000, 5000, 10_000)),
            *(live(FLOOR, calls, 0.04) for calls in (200, 1000, 3000, 10_000)),
            *(live("node", calls, 0.5) for calls in (200, 1000)),
            *(live("picows", calls, 0.15) for calls in (200, 1000, 3000)),
            *(live(OURS, calls, 0.09, tls=True) for calls in (1000, 3000)),
        ),
        kind("storms", live(OURS, 3000, 0.1, latency_ms=storm)),
        kind("parts", parts),
        kind("delivery", delivery),
        kind(
            "length",
            single | {"length": 60.0, "speed": 100.0},
            single | {"length": 3600.0, "speed": 100.0},
            single | {"length": 36_000.0, "speed": 1000.0},
        ),
        kind(
            "kernel",
            *(
                kernel(name, operation, rate)
                for operation in ("decode", "split")
                for name, rate in (("kernel", 6.0), ("audioop", 2.0), ("numpy", 1.5))
            ),
        ),
        kind(
            "frames",
            live(OURS, 500, 0.09, frame_bytes=320),
            live(FLOOR, 500, 0.08, frame_bytes=320),
            live(OURS, 500, 0.02, frame_bytes=64_000),
        ),
        kind(
            "ticks",
            live(OURS, 1000, 0.06) | {"tick": 0.1},
            live(OURS, 1000, 0.04) | {"tick": 0.2},
        ),
        kind(
            "diverter",
            {"name": "diverter", "frame_bytes": 320, "frames_per_second": 9e6},
            {"name": "diverter", "frame_bytes": 1600, "frames_per_second": 6e6},
            {"name": "wsproto", "frame_bytes": 320, "frames_per_second": 5e4},
            {"name": "wsproto", "frame_bytes": 1600, "frames_per_second": 4e4},
        ),
        kind(
            "files",
            {"name": "audiohook", "length": 60.0, "seconds": 0.001, "cpu": 0.001},
            {"name": "ffmpeg", "length": 60.0, "seconds": 0.1, "cpu": 0.08},
        ),
    ]
    return Run({value["kind"]: value for value in kinds})
