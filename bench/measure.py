"""Processes measured side by side: a server on one core, its load on another.

What a live call costs is read from the server's processor clock while all calls are
open and streaming. Both sides are looked at, so that it can be said which of them
was at its limit; and every recording is compared with what was sent.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiohook.protocol.timeline import SAMPLE_RATE_HZ
from audiohook.simulator.options import MAX_CHANNELS
from bench.peers import OURS, PROJECT, SERVERS
from bench.processes import (
    SECONDS,
    FailedError,
    allow_many_files,
    running,
    start,
)
from bench.samples import moment, peak_rss_bytes, sample

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.processes import Cores, Running
    from bench.samples import Moment, Sample

# Once all calls are open this long is left out: their opening is over then.
SETTLE = 2 * SECONDS
# By this much the calls are longer than what is measured of them.
MARGIN = 3 * SECONDS
# For what a load does beside its calls: starting, closing, comparing.
_BESIDE = 90 * SECONDS
# What storing may take, at least; and how many seconds of calls in a second.
_STORE_LIMIT = 60 * SECONDS
_STORED_A_SECOND = 2000

PER_CALLS = 1000
BUSY_CORES = 0.9
"""A process that uses more of its core is at its limit."""

_BYTES_A_SECOND = SAMPLE_RATE_HZ * MAX_CHANNELS
_FILES_BESIDE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One measurement.

    Times are seconds as they pass here.

    Attributes:
        server: Which of `SERVERS`.
        calls: Calls at a time.
        window: How long the server is looked at; 0 for not at all.
        ramp: How long calls take to begin.
        settle: What is left out before the window.
        margin: By how much calls outlast it.
        frame_bytes: Length of a stereo frame.
        speed: How much faster than real time.
        lengths: Length of calls, one that ends being followed by another until the
            window is over; None for calls that all last through it.
        together: Whether all calls end in the same instant.
        tls: Whether TLS ends in the server.
        settings: The server's, beside what it needs.
        store: Where its recordings are to be found; None for its own folder.
        raw_only: Whether audio as received is all that is looked at there.
        compare: How many recordings are looked at at most.
        load_environment: What the comparison needs to reach the store.
    """

    server: str = OURS
    calls: int
    window: float
    ramp: float
    settle: float = SETTLE
    margin: float = MARGIN
    frame_bytes: int = 1600
    speed: float = 1.0
    lengths: str | None = None
    together: bool = False
    tls: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    store: str | None = None
    raw_only: bool = True
    compare: int = sys.maxsize
    load_environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """About how long it takes, from the first call to the end of the last."""
        return self.ramp + self.settle + self.window + self.margin

    @property
    def store_limit(self) -> float:
        """How long to wait for the recordings."""
        return _STORE_LIMIT + self.calls * self.seconds * self.speed / _STORED_A_SECOND

    @property
    def frames_per_second(self) -> float:
        """Frames of all calls."""
        return self.calls * self.speed * _BYTES_A_SECOND / self.frame_bytes

    def processes(self, most_files: int) -> int:
        """How many processes of the server it takes to have files enough."""
        needed = self.calls * SERVERS[self.server].files_a_call
        return max(1, math.ceil(needed / max(1, most_files - _FILES_BESIDE)))

    def task(self, running: Running, folder: Path) -> dict[str, object]:
        """Write down the load, as `bench.load` takes it."""
        scheme = "wss" if self.tls else "ws"
        # A call is whole frames long and ends with the last, whenever that is due.
        length = self.seconds * self.speed + 2 * self.frame_bytes / _BYTES_A_SECOND
        if self.together:
            length -= self.ramp * self.speed
        return {
            "uri": f"{scheme}://127.0.0.1:{running.port}/",
            "api_key": running.api_key,
            "insecure": self.tls,
            "calls": self.calls,
            "ramp": self.ramp,
            "lengths": self.lengths or str(length),
            # Until it is told to stop.
            "keep": 2 * self.seconds if self.lengths else None,
            "together": self.together,
            "frame_bytes": self.frame_bytes,
            "speed": self.speed,
            "store": self.store or str(folder / "recordings"),
            "raw_only": self.raw_only,
            "wait": self.store_limit,
            "compare": self.compare,
        }


Record = dict[str, Any]
"""What a measurement came to."""


def measure(case: Case, cores: Cores, folder: Path | None = None) -> Record:
    """Measure once.

    Args:
        case: What.
        cores: Where.
        folder: Whose disk is written to; None for the system's temporary folder.

    Returns:
        The figures. ``faults`` and ``doubts`` say why they do not count, if so.

    Raises:
        MissingError: The server cannot be had.
        FailedError: It came to nothing.
    """
    with ExitStack() as stack:
        scratch = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(dir=folder, prefix="audiohook-bench-")
            )
        )
        settings = dict(case.settings)
        if case.tls:
            settings |= _make_certificate(scratch)
        processes = case.processes(allow_many_files())
        if processes > 1:
            if not SERVERS[case.server].shares_port:
                raise FailedError(
                    f"it may open {allow_many_files():,} files, and needs more"
                )
            settings["REUSE_PORT"] = "true"
        server = stack.enter_context(
            running(
                case.server,
                scratch,
                cores.server,
                settings=settings,
                processes=processes,
            )
        )
        idle = sample(*server.pids)
        figures, moments = _run_load(case, server, cores, scratch)
        done = sample(*server.pids)
        record = {
            "server": case.server,
            "calls": case.calls,
            "frame_bytes": case.frame_bytes,
            "tls": case.tls,
            "processes": processes,
            "rss_idle_kib": idle.rss_bytes // 1024,
            "rss_peak_kib": peak_rss_bytes(*server.pids) // 1024,
            "cpu_in_all": round(done.cpu - idle.cpu, 2),
        }
        server.stop()
        record |= _window_figures(case, idle, moments)
        record |= _load_figures(figures)
        record |= faults_of(case, figures, moments, server.exit_codes)
        if case.server == OURS:
            record |= _stored_figures(
                server.log, figures["closed_at"], moments if case.lengths else []
            )
    return record


def _make_certificate(folder: Path) -> dict[str, str]:
    import trustme

    certificate = trustme.CA().issue_cert("127.0.0.1")
    chain, key = folder / "chain.pem", folder / "key.pem"
    for number, pem in enumerate(certificate.cert_chain_pems):
        pem.write_to_path(str(chain), append=number > 0)
    certificate.private_key_pem.write_to_path(str(key))
    return {"TLS_CERTIFICATE": str(chain), "TLS_KEY": str(key)}


def _run_load(
    case: Case, server: Running, cores: Cores, folder: Path
) -> tuple[Record, list[Moment]]:
    """Run the load, looking at both ends of the window.

    Returns:
        The load's figures, and the two moments; none if it was never steady.

    Raises:
        FailedError: It came to nothing.
    """
    task = json.dumps(case.task(server, folder))
    load = start(
        [sys.executable, "-m", "bench.load", task],
        cores.load,
        cwd=PROJECT,
        env={**os.environ, **case.load_environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    limit = 2 * case.seconds + 2 * case.store_limit + _BESIDE
    watchdog = threading.Timer(limit, load.kill)
    watchdog.start()
    moments: list[Moment] = []
    line = b""
    try:
        assert load.stdin is not None
        assert load.stdout is not None
        assert load.stderr is not None
        for line in load.stdout:
            if line == b"steady\n" and case.window:
                moments = _look(case, server, load.pid)
                if case.lengths:
                    load.stdin.write(b"stop\n")
                    load.stdin.flush()
        said = load.stderr.read().decode(errors="replace").strip()
    finally:
        watchdog.cancel()
        load.kill()
        load.communicate()
    if any(process.poll() is not None for process in server.processes):
        raise FailedError(f"the server ended: {_last_line(server.log)}")
    if not line.startswith(b"{"):
        raise FailedError(said.rpartition("\n")[2] or "the load came to nothing")
    figures: Record = json.loads(line)
    return figures, moments


def _look(case: Case, server: Running, load_pid: int) -> list[Moment]:
    """Look twice; nothing if one of the processes has ended meanwhile."""
    time.sleep(case.settle)
    try:
        first = moment(server.pids, load_pid)
        time.sleep(case.window)
        return [first, moment(server.pids, load_pid)]
    except OSError:
        return []


def _last_line(log: Path) -> str:
    return log.read_text(errors="replace").strip().rpartition("\n")[2][-300:]


def _window_figures(case: Case, idle: Sample, moments: Sequence[Moment]) -> Record:
    """Work out what the calls cost between two moments.

    ``elsewhere_cores`` is what neither the server nor the load used: if it is more
    than a little, the figures are not to be trusted.
    """
    if not moments:
        return {}
    first, last = moments
    seconds = last.server.at - first.server.at
    cpu = last.server.cpu - first.server.cpu
    load_cpu = last.load.cpu - first.load.cpu
    elsewhere = last.machine - first.machine - cpu - load_cpu
    cores, load_cores = cpu / seconds, load_cpu / seconds
    return {
        "window": round(seconds, 2),
        "cores": round(cores, 4),
        "load_cores": round(load_cores, 4),
        "elsewhere_cores": round(max(0.0, elsewhere) / seconds, 3),
        "cores_per_1000_calls": round(cores / case.calls * PER_CALLS, 4),
        "us_per_frame": round(cores / case.frames_per_second * 1e6, 2),
        "kib_per_call": round(
            (last.server.rss_bytes - idle.rss_bytes) / 1024 / case.calls, 1
        ),
        "limit": (
            "server"
            if cores > BUSY_CORES
            else "load"
            if load_cores > BUSY_CORES
            else "none"
        ),
    }


def _load_figures(figures: Record) -> Record:
    open_after = figures.get("steady_at", math.inf) - figures["began_at"]
    return {
        "latency_ms": figures["latency_ms"],
        "lag_ms": figures["lag_ms"],
        "turn_ms": figures["turn_ms"],
        "held_frames": figures["held_frames"],
        "calls_made": figures["calls"],
        "compared": figures["compared"],
        "verified": figures["verified"],
        "compared_bytes": figures["compared_bytes"],
        "all_open_after": round(open_after, 3) if open_after < math.inf else None,
    }


def faults_of(
    case: Case,
    figures: Record,
    moments: Sequence[Moment],
    exit_codes: Sequence[int],
) -> dict[str, list[str]]:
    """Say why a measurement does not count.

    Args:
        case: What was measured.
        figures: The load's.
        moments: Both ends of the window.
        exit_codes: How the server ended.

    Returns:
        ``faults``, which the server has, and ``doubts``, which a machine with other
        things to do can cause; both are empty if it counts.
    """
    faults = [
        f"{count} calls failed: {figures['examples'][what]}"
        for what, count in figures["failures"].items()
    ]
    faults += figures["faults"][:3]
    if figures["verified"] != figures["compared"]:
        missing = figures["compared"] - figures["verified"]
        faults.append(f"{missing} recordings are not as sent")
    faults += [f"the server ended with {code}" for code in exit_codes if code]
    doubts: list[str] = []
    if figures["fell_behind"]:
        lag = figures["lag_ms"]
        doubts.append(
            f"the load fell behind: lag p99 {lag['p99']} ms, at most {lag['max']} ms"
        )
    if "steady_at" not in figures or (case.window and not moments):
        doubts.append("not all calls were open at a time")
    elif (
        moments
        and not case.lengths
        and figures.get("closing_at", math.inf) < moments[-1].load.at
    ):
        doubts.append("calls ended while they were measured")
    return {"faults": faults, "doubts": doubts}


def _stored_figures(
    log: Path, closed_at: Mapping[str, float | None], moments: Sequence[Moment]
) -> Record:
    """Tell how long after `closed` recordings were in the store.

    Those of calls that were ended by us, all together, are counted apart.
    """
    times = stored_after(log.read_text(errors="replace"), closed_at)
    if not moments:
        return {"stored_after": seconds_spread(list(times.values()))}
    # The same moment on the clock that is set.
    until = time.time() - time.monotonic() + moments[-1].load.at
    within = {
        session: seconds
        for session, seconds in times.items()
        if (closed_at[session] or math.inf) + seconds < until
    }
    rest = [times[session] for session in times.keys() - within.keys()]
    return {
        "stored_after": seconds_spread(list(within.values())),
        "stored_after_storm": seconds_spread(rest),
    }


def stored_after(log: str, closed_at: Mapping[str, float | None]) -> dict[str, float]:
    """Read from our log how long after `closed` each recording was in the store.

    Args:
        log: Lines of JSON, and others.
        closed_at: When the client got `closed`, by session, in seconds since 1970.

    Returns:
        Seconds by session, of those that were closed and are stored.
    """
    times: dict[str, float] = {}
    for line in log.splitlines():
        if '"call_stored"' not in line:
            continue
        entry = json.loads(line)
        closed = closed_at.get(entry["session"])
        if closed is not None:
            stored = datetime.fromisoformat(entry["timestamp"]).timestamp()
            times[entry["session"]] = max(0.0, stored - closed)
    return times


def seconds_spread(times: Sequence[float]) -> Record:
    """Tell how times are spread, in seconds; nothing if there are none."""
    if not times:
        return {}
    ordered = sorted(times)
    last = len(ordered) - 1
    figures = {
        "p50": ordered[last // 2],
        "p99": ordered[min(last, len(ordered) * 99 // 100)],
        "max": ordered[-1],
    }
    rounded = {name: round(seconds, 3) for name, seconds in figures.items()}
    return {"count": len(ordered)} | rounded
