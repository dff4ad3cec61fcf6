"""What a live call costs the server: processor, memory, and that nothing is lost.

    python -m bench.measure_server --calls 1000 --duration 60

Starts ``audiohook serve``, or with ``--server`` one of `bench.peers`, pinned to one
core and `bench.load` pinned to another, reads the server's processor time while
all calls are open and streaming, and compares every recording with what was sent,
to the byte.
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

from bench.peers import SERVERS, Place

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

START_SECONDS = 20.0
STOP_SECONDS = 30.0
# After all calls have opened, this long is left out: their opening is over then.
SETTLE_SECONDS = 2.0
PER_CALLS = 1000

# Columns of /proc/stat that are no work: idle, iowait; and guest, guest_nice, which
# are in user and nice already.
_BUSY_COLUMNS = (0, 1, 2, 5, 6, 7)


@dataclass(frozen=True, slots=True)
class Sample:
    """A process at one moment.

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
        server: The server.
        load: The load generator.
        machine: Seconds of processor time used so far, by all there is.
    """

    server: Sample
    load: Sample
    machine: float


def sample(pid: int) -> Sample:
    """Look at a process.

    Source: clock_getcpuclockid(3), which has no name in Python: the clock of a
    process counts nanoseconds where /proc/PID/stat counts hundredths of a second.
    proc(5), ``/proc/pid/statm``.
    """
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return Sample(
        time.monotonic(),
        time.clock_gettime(~pid << 3 | 2),
        pages * os.sysconf("SC_PAGE_SIZE"),
    )


def moment(server_pid: int, load_pid: int) -> Moment:
    """Look at both processes, and at the machine.

    Source: proc(5), ``/proc/stat``.
    """
    columns = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    ticks = sum(int(columns[column]) for column in _BUSY_COLUMNS)
    return Moment(
        sample(server_pid), sample(load_pid), ticks / os.sysconf("SC_CLK_TCK")
    )


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def start_server(
    folder: Path, port: int, api_key: str, core: int, *, name: str = "ours"
) -> subprocess.Popen[bytes]:
    """Start a server on a core of its own, and wait until it answers.

    Args:
        folder: Where it stores and logs; no ``.env`` of ours is read there.
        port: Where it listens.
        api_key: The key it accepts.
        core: The core it runs on.
        name: Which of `SERVERS`.

    Raises:
        RuntimeError: It did not come up.
    """
    launch = SERVERS[name](
        Place(
            port=port,
            admin_port=free_port(),
            api_key=api_key,
            recordings=folder / "recordings",
        )
    )
    # Only what it needs: a bucket in our environment must not see the load.
    environment = {
        name: os.environ[name]
        for name in ("PATH", "HOME", "LANG")
        if name in os.environ
    }
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            launch.command,
            cwd=folder,
            env=environment | launch.environment,
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
    """End a server as an operator would; its exit code."""
    server.send_signal(signal.SIGTERM)
    try:
        return server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        return server.wait()


def run_load(
    arguments: argparse.Namespace, folder: Path, uri: str, api_key: str, pid: int
) -> tuple[dict[str, object], list[Moment]]:
    """Run the load, looking at both ends of its steady phase.

    Returns:
        The load's figures, and the two moments; none if it was never steady.
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
    moments: list[Moment] = []
    with load:
        assert load.stderr is not None
        for line in load.stderr:
            word = line.strip()
            if word == "steady":
                time.sleep(SETTLE_SECONDS)
                moments.append(moment(pid, load.pid))
            elif word == "closing":
                moments.append(moment(pid, load.pid))
            else:
                print(word, file=sys.stderr)
    if not report.exists():
        raise RuntimeError("the load came to nothing")
    figures: dict[str, object] = json.loads(report.read_text())
    return figures, moments if len(moments) == 2 else []


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Measure once.

    Args:
        arguments: What to run.
        folder: An empty folder for all that is written.

    Raises:
        RuntimeError: The server or the load did not come to run.
    """
    (folder / "recordings").mkdir()
    port, api_key = free_port(), secrets.token_hex(16)
    server = start_server(
        folder, port, api_key, arguments.server_core, name=arguments.server
    )
    try:
        idle = sample(server.pid)
        figures, moments = run_load(
            arguments, folder, f"ws://127.0.0.1:{port}/", api_key, server.pid
        )
        done = sample(server.pid)
    finally:
        code = stop_server(server)
    result: dict[str, object] = {
        "server": arguments.server,
        "load": figures,
        "exit_code": code,
        "rss_idle_kib": idle.rss_bytes // 1024,
        "cpu_in_all": round(done.cpu - idle.cpu, 2),
    }
    if moments:
        result |= steady_figures(arguments, idle, *moments)
    return result


def steady_figures(
    arguments: argparse.Namespace, idle: Sample, first: Moment, last: Moment
) -> dict[str, object]:
    """Work out what the calls cost between two moments.

    ``elsewhere_cores`` is what neither the server nor the load used: if it is
    more than a little, the figures are not to be trusted.
    """
    calls: int = arguments.calls
    seconds = last.server.at - first.server.at
    cpu = last.server.cpu - first.server.cpu
    load_cpu = last.load.cpu - first.load.cpu
    elsewhere = last.machine - first.machine - cpu - load_cpu
    return {
        "steady_seconds": round(seconds, 2),
        "cores": round(cpu / seconds, 4),
        "cores_per_1000_calls": round(cpu / seconds / calls * PER_CALLS, 4),
        "cpu_us_per_frame": round(cpu / (arguments.rate * calls * seconds) * 1e6, 2),
        "rss_kib_per_call": round(
            (last.server.rss_bytes - idle.rss_bytes) / 1024 / calls, 1
        ),
        "elsewhere_cores": round(max(0.0, elsewhere) / seconds, 3),
    }


def faults_of(result: Mapping[str, object]) -> list[str]:
    """Say why a measurement does not count; empty if it does."""
    load = result["load"]
    assert isinstance(load, dict)
    faults = [f"{count} calls: {what}" for what, count in load["failures"].items()]
    if load["fell_behind"]:
        faults.append("the load fell behind")
    faults += load["faults"]
    if "cores" not in result:
        faults.append("not all calls were open at a time")
    if result["exit_code"]:
        faults.append(f"the server ended with {result['exit_code']}")
    return faults


def add_load_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says how to measure, whichever the server."""
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--duration", type=float, default=60.0, help="seconds a call")
    parser.add_argument("--ramp", type=float, default=10.0, help="seconds to begin in")
    parser.add_argument("--frame-bytes", type=int, default=1600)
    parser.add_argument("--rate", type=float, default=10.0, help="frames a second")
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where to record; on which disk")
    parser.add_argument("--json", type=Path, help="write the figures here")


def parse(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> argparse.Namespace:
    """Parse the command line, and check what `add_load_arguments` added."""
    arguments = parser.parse_args(argv)
    if arguments.ramp + SETTLE_SECONDS >= arguments.duration:
        parser.error("the duration must exceed the ramp by more than 2 s")
    if not {arguments.server_core, arguments.load_core} <= os.sched_getaffinity(0):
        parser.error("there are no such cores to pin to")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Measure as the command line asks; 0 if nothing failed or was lost."""
    parser = argparse.ArgumentParser(
        prog="bench.measure_server", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--server", choices=SERVERS, default="ours")
    add_load_arguments(parser)
    arguments = parse(parser, argv)
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
    return 1 if faults_of(result) else 0


if __name__ == "__main__":
    sys.exit(main())
