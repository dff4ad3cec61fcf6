from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from audiohook import __version__

if TYPE_CHECKING:
    from pathlib import Path


def run(
    folder: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs the command as a person would, in an empty folder."""
    return subprocess.run(
        [sys.executable, "-m", "audiohook", *arguments],
        cwd=folder,
        env={**clean_environment(), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def clean_environment() -> dict[str, str]:
    kept = ("PATH", "HOME", "LANG", "PYTHONPATH", "VIRTUAL_ENV")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        "PYTHONPATH": os.pathsep.join(sys.path),
        # The port that it has by default may be somebody's.
        "ADMIN_PORT": "0",
        "COLUMNS": "200",
    }


def test_version_and_help(tmp_path: Path) -> None:
    assert run(tmp_path, "--version").stdout == f"audiohook {__version__}\n"
    shown = run(tmp_path, "--help").stdout
    for command in ("serve", "recover", "call", "demo"):
        assert command in shown


@pytest.mark.parametrize(
    ("arguments", "environment", "line"),
    [
        (["serve"], {"PORT": "x"}, r"PORT: .*; for example PORT=3000"),
        (["serve"], {"CLIENT_SECRET": "c2VjcmV0"}, r"CLIENT_SECRET: goes with API_KEY"),
        (["serve"], {"WAV_ENCODING": "mp3"}, r"WAV_ENCODING: "),
        (["serve", "--host", "192.0.2.1"], {}, r"HOST: is no address of this machine"),
        (["call", "http://127.0.0.1/"], {}, r"web address; AudioHook needs .*ws://"),
        (["call", "ws://x/", "--pause", "5"], {}, r"'5' is not AT:LENGTH"),
        (["call", "ws://x/", "--custom-config", "["], {}, r"is not JSON"),
        (["call", "ws://127.0.0.1:1/", "--wav", "no.wav"], {}, r"no\.wav"),
    ],
)
def test_mistake_is_one_line_that_names_it(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], line: str
) -> None:
    result = run(tmp_path, *arguments, **environment)
    assert result.returncode == 2
    said = [each for each in (result.stderr + result.stdout).splitlines() if each]
    fault = [each for each in said if not each.startswith("{")]
    assert len(fault) == 1, said
    assert re.search(line, fault[0])


def test_nobody_there_is_one_line(tmp_path: Path) -> None:
    result = run(tmp_path, "call", "ws://127.0.0.1:1/", "--fast")
    assert result.returncode == 1
    assert "refused" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


def test_recover_with_nothing_to_do(tmp_path: Path) -> None:
    result = run(tmp_path, "recover")
    assert result.returncode == 0
    assert result.stdout == "0 calls stored, 0 left in the spool\n"


def test_first_call_with_the_line_that_serve_prints(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "audiohook", "serve", "--port", "0"],
        cwd=tmp_path,
        # Another program of the machine may have the port of the figures.
        env=clean_environment() | {"ADMIN_PORT": "0"},
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stderr is not None
        for line in server.stderr:
            if match := re.search(r" call (ws://\S+) --api-key (\S+)", line):
                break
        uri, key = match.groups()  # type: ignore[union-attr]
        result = run(
            tmp_path, "call", uri, "--api-key", key, "--duration", "1", "--fast"
        )
        assert result.returncode == 0, result.stdout
        assert "the server kept to the protocol" in result.stdout
        assert run(tmp_path, "call", uri, "--api-key", "no").returncode == 1
        server.send_signal(signal.SIGTERM)
        rest = server.stderr.read()
        assert server.wait(30) == 0
    assert key not in rest
    assert len(list(tmp_path.glob("recordings/calls/*/audio/*.wav"))) == 1


@pytest.mark.slow
def test_demo_plays_a_call_and_shows_what_came_out(tmp_path: Path) -> None:
    result = run(tmp_path, "demo")
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"external .* 10\.000 s", result.stdout)
    (wav,) = tmp_path.glob("recordings/calls/*/audio/*.wav")
    assert str(wav.relative_to(tmp_path)) in result.stdout
