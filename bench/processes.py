"""Processes that run side by side: a server on one core, its load on another."""

from __future__ import annotations

import ctypes
import http.client
import os
import resource
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.peers import SERVERS, Place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SECONDS = 1.0

START_LIMIT = 60 * SECONDS
STOP_LIMIT = 30 * SECONDS

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class FailedError(Exception):
    """A measurement came to nothing; the text says why, on one line."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core is whose."""

    server: int
    load: int


def find_cores() -> Cores:
    """Choose two cores.

    Raises:
        FailedError: There is one.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise FailedError("servers are measured on one core and loaded from another")
    return Cores(cores[0], cores[1])


def allow_many_files() -> int:
    """Raise our limit of open files, which processes inherit; give the new one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else sys.maxsize


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _settle_in(core: int) -> None:
    """Make ready, in a process that is just beginning.

    Source: prctl(2). Whatever becomes of us, none is left behind.
    """
    os.sched_setaffinity(0, {core})
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def start(
    command: Sequence[str],
    core: int,
    *,
    stdin: int = subprocess.DEVNULL,
    **options: Any,  # noqa: ANN401 - passed on
) -> subprocess.Popen[bytes]:
    """Start a process on a core; it does not outlive us."""
    return subprocess.Popen(
        command,
        stdin=stdin,
        # Two system calls, before it has threads, which inherit the core.
        preexec_fn=partial(_settle_in, core),
        **options,
    )


@dataclass(slots=True)
class Running:
    """A server that runs, in one process or several on the same port and core.

    Attributes:
        port: Where it listens.
        api_key: The key it accepts.
        log: Where its lines are.
        processes: Its processes.
        exit_codes: How they ended, once they have.
    """

    port: int
    api_key: str
    log: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    exit_codes: list[int] = field(default_factory=list)

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self.processes]

    def stop(self) -> None:
        """End it as an operator would."""
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                self.exit_codes.append(process.wait(STOP_LIMIT))
            except subprocess.TimeoutExpired:
                process.kill()
                self.exit_codes.append(process.wait())


@contextmanager
def running(
    name: str,
    folder: Path,
    core: int,
    *,
    settings: Mapping[str, str] | None = None,
    processes: int = 1,
) -> Iterator[Running]:
    """Run a server on a core of its own while the block lasts.

    Args:
        name: Which of `SERVERS`.
        folder: Where it stores and logs; no ``.env`` of ours is read there.
        core: The core it runs on.
        settings: Its environment, beside what it needs to be one.
        processes: How many of it share the port.

    Raises:
        MissingError: It cannot be had.
        FailedError: It did not come up, or takes any key.
    """
    (folder / "recordings").mkdir(exist_ok=True)
    server = Running(free_port(), secrets.token_hex(16), folder / "server.log")
    # Only what it needs: a bucket in our environment must not see the load.
    inherited = {
        name: os.environ[name]
        for name in ("PATH", "HOME", "LANG")
        if name in os.environ
    }
    with server.log.open("wb") as log:
        try:
            for _ in range(processes):
                launch = SERVERS[name].prepare(
                    Place(
                        port=server.port,
                        admin_port=free_port(),
                        api_key=server.api_key,
                        recordings=folder / "recordings",
                    )
                )
                environment = inherited | launch.environment | dict(settings or {})
                server.processes.append(
                    start(
                        launch.command,
                        core,
                        cwd=folder,
                        env=environment,
                        stdout=log,
                        stderr=log,
                    )
                )
            _wait_ready(server, tls="TLS_KEY" in (settings or {}))
            yield server
            server.stop()
        finally:
            for process in server.processes:
                if process.poll() is None:
                    process.kill()
                    process.wait()


def _wait_ready(server: Running, *, tls: bool) -> None:
    """Wait until all processes listen and one refuses a wrong key, as all must.

    Raises:
        FailedError: They do not.
    """
    until = time.monotonic() + START_LIMIT
    while time.monotonic() < until:
        if any(process.poll() is not None for process in server.processes):
            break
        if _listeners(server.port) >= len(server.processes):
            status = (
                http.HTTPStatus.UNAUTHORIZED
                if tls
                else _status_for_wrong_key(server.port)
            )
            if status == http.HTTPStatus.UNAUTHORIZED:
                return
            if status is not None:
                raise FailedError(f"a wrong API key was answered with {status}")
        time.sleep(0.1)
    said = server.log.read_text(errors="replace").strip().splitlines() or ["nothing"]
    raise FailedError(f"the server did not start: {said[-1]}")


def _listeners(port: int) -> int:
    """Count the sockets that listen on a port.

    Source: proc(5), ``/proc/net/tcp``; state 0A is LISTEN.
    """
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    states = [line.split()[1:4:2] for line in lines]
    wanted = f":{port:04X}"
    return sum(local.endswith(wanted) and state == "0A" for local, state in states)


def _status_for_wrong_key(port: int) -> int | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "X-API-KEY": "wrong",
    }
    try:
        connection.request("GET", "/", headers=headers)
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()
