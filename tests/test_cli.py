from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from audiohook import __version__
from audiohook.api.tokens import Tokens, read_tokens_file
from audiohook.cli.app import app, counted
from audiohook.errors import ConfigError
from tests.children import child
from tests.index.recordings import Shelf

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


def shell(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Runs a line of shell, in which ``$AUDIOHOOK`` is the command."""
    command = f"{shlex.quote(sys.executable)} -m audiohook"
    return subprocess.run(
        ["sh", "-c", text],
        cwd=folder,
        env={**clean_environment(), "AUDIOHOOK": command},
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


def test_service_that_needs_a_key_makes_up_none(tmp_path: Path) -> None:
    """Under systemd nobody would know it, and every call would be refused."""
    absent = tmp_path / "audiohook.env"
    serve = ("serve", "--require-key", "--port", "0", "--env-file", str(absent))
    done = run(tmp_path, *serve)
    assert done.returncode == 2
    (line,) = (line for line in done.stderr.splitlines() if "API_KEY" in line)
    assert line.startswith("audiohook: API_KEY: is not set, and neither are")
    assert line.endswith(f"(there is no {absent})")
    absent.write_text("PORT=0\n")
    done = run(tmp_path, *serve)
    assert done.returncode == 2
    assert f"(settings are in {absent})" in done.stderr


def test_env_file_of_others_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "audiohook.env"
    file.write_text("PORT=0\n")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(type(file), "open", refuse)
    found = CliRunner().invoke(app, ["serve", "--env-file", str(file)])
    assert isinstance(found.exception, ExceptionGroup), found.output
    (fault,) = found.exception.exceptions
    assert isinstance(fault, ConfigError)
    assert re.fullmatch(
        rf"{file}: cannot be read \(Permission denied\); hand it to the group that this"
        rf" runs as: chgrp \S+ {file} && chmod 640 {file}",
        str(fault),
    )


def test_one_is_no_plural() -> None:
    assert [counted(count, "call") for count in (0, 1, 2)] == [
        "0 calls",
        "1 call",
        "2 calls",
    ]


def test_version_and_help(tmp_path: Path) -> None:
    assert run(tmp_path, "--version").stdout == f"audiohook {__version__}\n"
    shown = run(tmp_path, "--help").stdout
    for command in ("serve", "recover", "call", "demo"):
        assert command in shown


def test_terminal_that_lacks_a_mark_ends_no_command(tmp_path: Path) -> None:
    found = run(tmp_path, "check", PYTHONIOENCODING="ascii")
    assert "Traceback" not in found.stderr
    assert "transcribed" in found.stdout


@pytest.mark.parametrize("arguments", ["--help", "demo"])
def test_output_that_is_full_ends_a_command_in_one_line(
    tmp_path: Path, arguments: str
) -> None:
    found = shell(tmp_path, f"exec $AUDIOHOOK {arguments} > /dev/full")
    assert found.returncode == 1
    assert found.stderr == (
        "audiohook: cannot write (No space left on device): is the disk of the output"
        " full?\n"
    )


@pytest.mark.parametrize("arguments", ["--help", "demo"])
def test_output_that_nobody_reads_on_ends_a_command_quietly(
    tmp_path: Path, arguments: str
) -> None:
    found = shell(tmp_path, f"$AUDIOHOOK {arguments} | head -n 1")
    assert "Traceback" not in found.stderr
    assert "Exception" not in found.stderr


@pytest.mark.parametrize("errno", ["EPIPE", "ENOSPC"])
def test_what_is_no_fault_of_the_output_is_not_hidden(
    tmp_path: Path, errno: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import errno\n"
        "from audiohook.cli import main\n"
        "def fail():\n"
        f"    raise OSError(errno.{errno}, 'a connection of ours')\n"
        "main.__globals__['app'] = fail\n"
        "main()\n"
    )
    found = shell(tmp_path, f"exec {shlex.quote(sys.executable)} script.py")
    assert found.returncode == 1
    assert found.stderr.rstrip().endswith("a connection of ours")


def test_closed_standard_streams_do_not_become_files_of_ours(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import atexit, os, pathlib, sys\n"
        "from audiohook.__main__ import main\n"
        "def note():\n"
        "    links = [os.readlink(f'/proc/self/fd/{n}') for n in range(3)]\n"
        "    pathlib.Path('links').write_text(' '.join(links))\n"
        "atexit.register(note)\n"
        "sys.argv = ['audiohook', 'recover']\n"
        "main()\n"
    )
    command = f"exec {shlex.quote(sys.executable)} script.py <&- >&- 2>&-"
    assert shell(tmp_path, command).returncode == 0
    assert (tmp_path / "links").read_text() == "/dev/null /dev/null /dev/null"


@pytest.mark.parametrize(
    ("arguments", "environment", "line"),
    [
        (["serve"], {"PORT": "x"}, r"PORT: .*; for example PORT=3000"),
        (["serve"], {"CLIENT_SECRET": "c2VjcmV0"}, r"CLIENT_SECRET: goes with API_KEY"),
        (["serve"], {"WAV_ENCODING": "mp3"}, r"WAV_ENCODING: "),
        (["serve", "--host", "192.0.2.1"], {}, r"HOST: is no address of this machine"),
        (["transcribe", "calls/x"], {}, r"ASSEMBLYAI_API_KEY: is not set, .* example"),
        (["call", "ws://x/", "--channels", "left"], {}, r"example internal,external"),
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


@pytest.mark.parametrize("way", ["--dry-run", "--yes"])
def test_an_id_that_is_nowhere_is_told_from_one_that_was_erased(
    tmp_path: Path, way: str
) -> None:
    result = run(tmp_path, "erase", str(uuid.uuid4()), way)
    assert result.returncode == 0, result.stderr
    assert "Nothing was found of it: is the id that of the" in result.stdout


def test_first_call_with_the_line_that_serve_prints(tmp_path: Path) -> None:
    with child(
        [sys.executable, "-m", "audiohook", "serve", "--port", "0"],
        cwd=tmp_path,
        # Another program of the machine may have the port of the figures.
        env=clean_environment() | {"ADMIN_PORT": "0"},
        stderr=subprocess.PIPE,
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


def test_key_and_secret_are_those_of_env_where_none_is_given(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "API_KEY=a-key-of-the-file\nCLIENT_SECRET=TXlTdXBlclNlY3JldA==\n"
    )
    with child(
        [sys.executable, "-m", "audiohook", "serve", "--port", "0"],
        cwd=tmp_path,
        env=clean_environment() | {"HOST": "127.0.0.1", "LOG_FORMAT": "json"},
        stderr=subprocess.PIPE,
    ) as server:
        assert server.stderr is not None
        for line in server.stderr:
            if '"event": "listening"' in line:
                break
        uri = f"ws://127.0.0.1:{json.loads(line)['port']}/"
        call = run(tmp_path, "call", uri, "--fast", "--duration", "1")
        assert call.returncode == 0, call.stdout + call.stderr
        load = ("load", uri, "--calls", "1", "--duration", "1", "--ramp", "0")
        done = run(tmp_path, *load, "--speed", "10")
        # Its exit code also says whether this machine kept up with the load.
        assert ": 1 closed\n" in done.stdout, done.stdout + done.stderr
        # What is given goes before, and the secret of another key does not go with it.
        refused = run(tmp_path, "call", uri, "--api-key", "another-key", "--fast")
        assert refused.returncode == 1
        assert "401 Unauthorized; --api-key and --client-secret" in refused.stdout
        server.send_signal(signal.SIGTERM)
        server.stderr.read()
        assert server.wait(30) == 0


@pytest.mark.slow
def test_demo_shows_a_call_of_two_speakers_and_what_came_of_it(tmp_path: Path) -> None:
    # Whoever has settings of his own gets no demonstration in his bucket.
    result = run(tmp_path, "demo", S3_BUCKET="not-there", KEEP_RAW="false")
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"external .* 10\.000 s", result.stdout)
    turn = re.compile(r"^\[00:00:\d\d\] (customer|agent): \w+", re.MULTILINE)
    turns = turn.findall(result.stdout)
    assert set(turns) == {"customer", "agent"}
    (folder,) = tmp_path.glob("recordings/calls/*")
    shown = {line.split("  ")[0] for line in result.stdout.splitlines()}
    files = {str(p.relative_to(tmp_path)) for p in folder.rglob("*") if p.is_file()}
    assert {name.rpartition(".")[2] for name in files} == {
        *("wav", "raw", "dat", "json", "txt", "srt", "vtt")
    }
    assert len(files) == 8
    assert files <= shown
    # Nothing is left beside the recording.
    assert [p.name for p in (tmp_path / "recordings").iterdir()] == ["calls"]


@pytest.mark.slow
def test_demo_leaves_alone_what_waits_in_the_same_folder(tmp_path: Path) -> None:
    waiting = tmp_path / "recordings" / ".spool" / str(uuid.uuid4())
    waiting.mkdir(parents=True)
    journal = waiting / "journal.jsonl"
    journal.write_text("{}\n")
    assert run(tmp_path, "demo").returncode == 0
    assert journal.read_text() == "{}\n"


def test_demo_in_a_folder_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "recordings").write_text("in the way")
    result = run(tmp_path, "demo")
    assert result.returncode == 2
    assert re.fullmatch(
        r"audiohook: --recordings-dir: .*, for example recordings\n", result.stderr
    )


def test_token_is_shown_once_with_the_line_to_add(tmp_path: Path) -> None:
    done = run(tmp_path, "token", "crm", "--scope", "read", "--scope", "control")
    assert done.returncode == 0
    (token,) = re.findall(r"ah_\S{43}", done.stdout)
    (entry,) = re.findall(r'"crm": \{.*\}', done.stdout)
    path = tmp_path / "tokens.json"
    path.write_text("{" + entry + "}")
    found = Tokens(read_tokens_file(path)).find(token)
    assert found is not None
    assert sorted(found.scopes) == ["control", "read"]
    assert run(tmp_path, "token", "a b", "--scope", "read").returncode == 2
    assert run(tmp_path, "token", "crm").returncode == 2
    assert run(tmp_path, "token", "crm", "--scope", "all").returncode == 2


def test_index_is_made_of_the_store(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "recordings")
    for number in range(3):
        shelf.add(number)
    done = run(tmp_path, "index")
    assert done.stdout == "3 recordings in the index, 0 that are gone taken out\n"
    assert done.returncode == 0
    broken = tmp_path / "recordings" / "calls" / "2026-x"
    broken.mkdir()
    (broken / "call.json").write_text("{")
    done = run(tmp_path, "index")
    assert done.returncode == 1
    assert "1 have a call.json that cannot be read" in done.stdout


def test_file_of_tokens_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    done = run(tmp_path, "serve", API_TOKENS_FILE="none.json", PORT="0", ADMIN_PORT="0")
    assert done.returncode == 2
    assert "API_TOKENS_FILE: none.json cannot be read" in done.stderr
