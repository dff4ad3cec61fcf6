"""The servers that can be measured: ours, and others that do the same work.

Each takes audio in at a port of the loopback interface, knows one API key (or
any, if that is empty), answers ``GET /health``, ends with 0 on SIGTERM, and keeps
the audio of a call, as it came, in
``<recordings>/calls/<start>_<conversation>_<participant>/audio/<any>.raw``.
"""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_HERE = Path(__file__).resolve().parent
_PROJECT = _HERE.parent.parent

# Seconds from pass to pass, as is our default.
_INTERVAL = "0.2"
_C_FLAGS = ("-O3", "-std=gnu11", "-Wall", "-Wextra")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a server is to run.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        admin_port: A second free port, for one that needs it.
        api_key: The key it accepts.
        recordings: An empty folder for what it stores.
    """

    port: int
    admin_port: int
    api_key: str
    recordings: Path


@dataclass(frozen=True, slots=True)
class Launch:
    """How a server is started.

    Attributes:
        command: Program and arguments.
        environment: Variables that it needs beside ``PATH`` and the like.
    """

    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)


def _ours(place: Place) -> Launch:
    return Launch(
        [sys.executable, "-m", "audiohook", "serve"],
        {
            "PYTHONPATH": str(_PROJECT),
            "HOST": "127.0.0.1",
            "PORT": str(place.port),
            "ADMIN_PORT": str(place.admin_port),
            "API_KEY": place.api_key,
            "RECORDINGS_DIR": str(place.recordings),
            "LOG_FORMAT": "json",
        },
    )


def _plain(*form: str) -> Callable[[Place], Launch]:
    def prepare(place: Place) -> Launch:
        command = [str(build(_HERE / "plain.c")), *form]
        command += ["--port", str(place.port), "--recordings", str(place.recordings)]
        return Launch(command, {"API_KEY": place.api_key})

    return prepare


# How to prepare each server, by name. A first call may have to compile it.
SERVERS: Mapping[str, Callable[[Place], Launch]] = {
    "ours": _ours,
    # Reads, unmasks and writes, all calls in one pass: the floor for this work.
    "plain-interval": _plain("--interval", _INTERVAL),
    # The same, but writes at every other pass.
    "plain-interval-2": _plain("--interval", _INTERVAL, "--write-every", "2"),
    # The same, but writes at every third pass, as we do.
    "plain-interval-3": _plain("--interval", _INTERVAL, "--write-every", "3"),
    # A read and a write for each readiness.
    "plain-epoll": _plain("--epoll"),
}


@functools.cache
def build(source: Path) -> Path:
    """Compile a C program of one file, unless the cache has it.

    Args:
        source: The file.

    Returns:
        The program.

    Raises:
        RuntimeError: It cannot be compiled.
    """
    compiler = os.environ.get("CC", "cc")
    recipe = " ".join((compiler, *_C_FLAGS)).encode() + source.read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "audiohook-bench"
    program = folder / f"{source.stem}-{hashlib.sha256(recipe).hexdigest()[:16]}"
    if program.exists():
        return program
    folder.mkdir(parents=True, exist_ok=True)
    # Complete or not there at all, should two builds meet or one be stopped.
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = Path(scratch) / source.stem
        try:
            subprocess.run(
                [compiler, *_C_FLAGS, "-o", str(made), str(source)],
                check=True,
                capture_output=True,
                text=True,
            )
        except FileNotFoundError as error:
            raise RuntimeError(f"there is no C compiler {compiler!r}") from error
        except subprocess.CalledProcessError as error:
            raise RuntimeError(f"{source} does not compile:\n{error.stderr}") from error
        made.replace(program)
    return program
