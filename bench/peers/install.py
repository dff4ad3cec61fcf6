"""What the peers are made of, fetched and built when it is first asked for.

All of it goes below ``build/bench``; only Debian's packages go where they belong.
Nothing of it is needed to run or to test what is measured.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FOLDER = Path(__file__).resolve().parents[2] / "build" / "bench"

SECONDS = 1.0
_FETCH_LIMIT = 180 * SECONDS
_APT_LIMIT = 300 * SECONDS
_BUILD_LIMIT = 120 * SECONDS

_C_FLAGS = ("-O3", "-std=gnu11", "-Wall", "-Wextra")
_GORILLA = Path("/usr/share/gocode/src/github.com/gorilla/websocket")
# Set where installing by Debian's packages would take too long.
NO_APT = "AUDIOHOOK_BENCH_NO_APT"


class MissingError(Exception):
    """Something cannot be had here; the text says what and why, on one line."""


def _run(
    command: Sequence[str],
    limit: float,
    *,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a command to its good end.

    Raises:
        MissingError: It is not there, takes too long, or fails.
    """
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
            stdin=subprocess.DEVNULL,
            env=None if environment is None else {**os.environ, **environment},
        )
    except FileNotFoundError as error:
        raise MissingError(f"there is no {name}") from error
    except subprocess.TimeoutExpired as error:
        raise MissingError(f"{name} took more than {limit:.0f} s") from error
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        telling = [line for line in said if "error" in line.lower()] or said or ["?"]
        raise MissingError(f"{name} failed: {telling[-1]}")


@functools.cache
def debian_packages(*names: str) -> None:
    """Install packages of Debian, if we may.

    Raises:
        MissingError: They cannot be had.
    """
    words = " ".join(names)
    if shutil.which("apt-get") is None or os.environ.get(NO_APT):
        raise MissingError(f"not installed here: {words}")
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive"]
    _run([*sudo, "apt-get", "update", "-qq"], _APT_LIMIT)
    _run([*sudo, *quiet, "apt-get", "install", "-y", "-qq", *names], _APT_LIMIT)


def program(name: str, *packages: str) -> str:
    """Find a program, which these packages of Debian bring along.

    Raises:
        MissingError: It cannot be had.
    """
    if shutil.which(name) is None:
        debian_packages(*packages)
    found = shutil.which(name)
    if found is None:
        raise MissingError(f"there is no {name}")
    return found


@functools.cache
def python_packages(*names: str) -> Path:
    """Install packages for Python beside ours, not among them.

    Returns:
        What belongs into ``PYTHONPATH``.

    Raises:
        MissingError: They cannot be had.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = FOLDER / f"python{version}" / "-".join(names)
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        target = Path(scratch) / "packages"
        pip = [sys.executable, "-m", "pip", "install", "-q", "--target", str(target)]
        _run([*pip, "--disable-pip-version-check", *names], _FETCH_LIMIT)
        target.rename(folder)
    return folder


@functools.cache
def node_packages(*names: str) -> tuple[str, Path]:
    """Install packages for Node.

    Returns:
        Node, and what belongs into ``NODE_PATH``.

    Raises:
        MissingError: They cannot be had.
    """
    node = program("node", "nodejs", "npm")
    folder = FOLDER / "node" / "-".join(names)
    if not folder.exists():
        npm = program("npm", "npm")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            target = Path(scratch) / "packages"
            target.mkdir()
            flags = ["--no-audit", "--no-fund", "--loglevel=error"]
            _run(
                [npm, "install", *flags, "--prefix", str(target), *names], _FETCH_LIMIT
            )
            target.rename(folder)
    return node, folder / "node_modules"


@functools.cache
def build_c(source: Path) -> Path:
    """Compile a C program of one file, unless it is there already.

    Returns:
        The program.

    Raises:
        MissingError: It cannot be compiled.
    """
    compiler = os.environ.get("CC", "cc")
    return _build(source, [compiler, *_C_FLAGS, "-o", "{made}", str(source)])


@functools.cache
def build_go(source: Path) -> Path:
    """Compile a Go program of one file that needs gorilla's WebSocket.

    Returns:
        The program.

    Raises:
        MissingError: It cannot be compiled.
    """
    names = ("golang-go", "golang-github-gorilla-websocket-dev")
    go = program("go", *names)
    if not _GORILLA.is_dir():
        debian_packages(*names)
    # Debian's packages are sources, as Go had them before it had modules.
    environment = {
        "GO111MODULE": "off",
        "GOPATH": "/usr/share/gocode",
        "GOCACHE": str(FOLDER / "go"),
    }
    return _build(source, [go, "build", "-o", "{made}", str(source)], environment)


def _build(
    source: Path, command: Sequence[str], environment: Mapping[str, str] | None = None
) -> Path:
    recipe = " ".join(command).encode() + source.read_bytes()
    name = f"{source.stem}-{hashlib.sha256(recipe).hexdigest()[:16]}"
    made = FOLDER / "programs" / name
    if made.exists():
        return made
    made.parent.mkdir(parents=True, exist_ok=True)
    # Complete or not there at all, should two builds meet or one be stopped.
    with tempfile.TemporaryDirectory(dir=made.parent) as scratch:
        draft = Path(scratch) / source.stem
        words = [str(draft) if word == "{made}" else word for word in command]
        _run(words, _BUILD_LIMIT, environment=environment)
        draft.replace(made)
    return made
