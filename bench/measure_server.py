"""What a live call costs the server: processor, memory, and that nothing is lost.

    python -m bench.measure_server --calls 1000 --duration 60

Starts ``audiohook serve`` pinned to one core and `bench.load` pinned to another,
reads the server's processor time from /proc while all calls are open and
streaming, and compares every recording with what was sent, to the byte.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

START_SECONDS = 20.0
STOP_SECONDS = 30.0
# After all calls have opened, this long is left out: their opening is over then.
SETTLE_SECONDS = 2.0
PER_CALLS = 1000

# Fields of /proc/PID/stat after the command, which is in parentheses.
_UTIME, _STIME = 11, 12


@dataclass(frozen=True, slots=True)
class Sample:
    """The server at one moment.

    Attributes:
        at: Seconds on the monotonic clock.
        cpu: Seconds of processor time used so far, all threads.
        rss_bytes: Memory resident now.
    """

    at: float
    cpu: float
    rss_bytes: int


def sample(pid: int) -> Sample:
    """Look at a process through /proc.

    Source: proc(5), ``/proc/pid/stat`` and ``/proc/pid/statm``.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[_UTIME]) + int(fields[_STIME])
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return Sample(
        time.monotonic(),
        ticks / os.sysconf("SC_CLK_TCK"),
        pages * os.sysconf("SC_PAGE_SIZE"),
    )


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def start_server(
    folder: Path, port: int, api_key: str, core: int
) -> subprocess.Popen[bytes]:
    """Start the service on a core of its own, and wait until it answers.

    Args:
        folder: Where it stores and logs; no ``.env`` of ours is read there.
        port: Where it listens.
        api_key: The key it accepts.
        core: The core it runs on.

    Raises:
        RuntimeError: It did not come up.
    """
    # Only what it needs: a bucket in our environment must not see the load.
    environment = {
        name: os.environ[name]
        for name in ("PATH", "HOME", "LANG")
        if name in os.environ
    }
    environment |= {
        "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "ADMIN_PORT": str(free_port()),
        "API_KEY": api_key,
        "RECORDINGS_DIR": str(folder / "recordings"),
        "LOG_FORMAT": "json",
    }
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "audiohook", "serve"],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
        )
    # Before it has threads, which inherit this.
    os.sched_setaffinity(server.pid, {core})
    until = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < until:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == http.client.OK:
                return server
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    server.kill()
    server.wait()
    raise RuntimeError(
        f"the server did not start: {(folder / 'server.log').read_text()}"
    )


def stop_server(server: subprocess.Popen[bytes]) -> int:
    """End the service as an operator would; its exit code."""
    server.send_signal(signal.SIGTERM)
    try:
        return server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        return server.wait()


def run_load(
    arguments: argparse.Namespace, folder: Path, uri: str, api_key: str, pid: int
) -> tuple[dict[str, object], list[Sample]]:
    """Run the load, sampling the server at both ends of its steady phase.

    Returns:
        The load's figures, and the two samples; fewer if it was never steady.
    """
    report = folder / "load.json"
    command = [sys.executable, "-m", "bench.load", uri, "--api-key", api_key]
    for name in ("calls", "duration", "ramp", "frame_bytes", "rate"):
        command += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    command += ["--json", str(report), "--verify", str(folder / "recordings")]
    load = subprocess.Popen(
        command,
        cwd=Path(__file__).resolve().parent.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.sched_setaffinity(load.pid, {arguments.load_core})
    samples: list[Sample] = []
    with load:
        assert load.stderr is not None
        for line in load.stderr:
            word = line.strip()
            if word == "steady":
                time.sleep(SETTLE_SECONDS)
                samples.append(sample(pid))
            elif word == "closing":
                samples.append(sample(pid))
            else:
                print(word, file=sys.stderr)
    if not report.exists():
        raise RuntimeError("the load came to nothing")
    figures: dict[str, object] = json.loads(report.read_text())
    return figures, samples if len(samples) == 2 else []


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Measure once.

    Args:
        arguments: What to run.
        folder: An empty folder for all that is written.
    """
    (folder / "recordings").mkdir()
    port, api_key = free_port(), secrets.token_hex(16)
    server = start_server(folder, port, api_key, arguments.server_core)
    try:
        idle = sample(server.pid)
        figures, samples = run_load(
            arguments, folder, f"ws://127.0.0.1:{port}/", api_key, server.pid
        )
        done = sample(server.pid)
    finally:
        code = stop_server(server)
    calls: int = arguments.calls
    result: dict[str, object] = {
        "load": figures,
        "exit_code": code,
        "rss_idle_kib": idle.rss_bytes // 1024,
        "cpu_in_all": round(done.cpu - idle.cpu, 2),
    }
    if samples:
        first, last = samples
        cores = (last.cpu - first.cpu) / (last.at - first.at)
        frames = arguments.rate * calls * (last.at - first.at)
        result |= {
            "steady_seconds": round(last.at - first.at, 2),
            "cores": round(cores, 4),
            "cores_per_1000_calls": round(cores / calls * PER_CALLS, 4),
            "cpu_us_per_frame": round((last.cpu - first.cpu) / frames * 1e6, 2),
            "rss_kib_per_call": round(
                (last.rss_bytes - idle.rss_bytes) / 1024 / calls, 1
            ),
        }
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Measure as the command line asks; 0 if nothing failed or was lost."""
    parser = argparse.ArgumentParser(
        prog="bench.measure_server", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--duration", type=float, default=60.0, help="seconds a call")
    parser.add_argument("--ramp", type=float, default=10.0, help="seconds to begin in")
    parser.add_argument("--frame-bytes", type=int, default=1600)
    parser.add_argument("--rate", type=float, default=10.0, help="frames a second")
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where to record; on which disk")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args(argv)
    if arguments.ramp + SETTLE_SECONDS >= arguments.duration:
        parser.error("the duration must exceed the ramp by more than 2 s")
    if not {arguments.server_core, arguments.load_core} <= os.sched_getaffinity(0):
        parser.error("there are no such cores to pin to")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        try:
            result = measure(arguments, Path(folder))
        except (OSError, RuntimeError) as error:
            print(error, file=sys.stderr)
            return 1
    text = json.dumps(result, indent=2)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")
    print(text)
    load = result["load"]
    assert isinstance(load, dict)
    bad = load["failed"] or load["fell_behind"] or load["faults"]
    return 1 if bad or "cores" not in result or result["exit_code"] else 0


if __name__ == "__main__":
    sys.exit(main())
