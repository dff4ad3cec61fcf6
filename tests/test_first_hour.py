"""The mistakes of a first hour: each is one line that says what to do.

Every command is typed for real, in an empty folder, as `tests.forked` does it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import wave
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.checks.certificates import Authorities
from tests.children import child
from tests.forked import Outcome, type_all
from tests.test_cli import clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[1]
USAGE = 2


@dataclass(frozen=True)
class Mistake:
    """What is typed, and what the one line says.

    Attributes:
        arguments: Of the command; ``{port}`` is one that somebody else has.
        line: Pattern of the line.
        settings: In the environment.
        env: What stands in ``.env``.
        code: How it ends.
    """

    arguments: str
    line: str
    settings: Mapping[str, str] = field(default_factory=dict)
    env: bytes | None = None
    code: int = USAGE


MISTAKES = {
    # Settings
    "port is no number": Mistake(
        "serve", r"PORT: .*; for example PORT=3000", {"PORT": "x"}
    ),
    "half a pair of the store": Mistake(
        "serve", "AWS_ACCESS_KEY_ID: goes with AWS_SEC", {"AWS_ACCESS_KEY_ID": "AKIA"}
    ),
    "half a pair of the call": Mistake(
        "serve", "CLIENT_SECRET: goes with API_KEY", env=b"CLIENT_SECRET=c2VjcmV0\n"
    ),
    "secret is not base64": Mistake(
        "serve",
        "CLIENT_SECRET: is not base64; for example",
        {"API_KEY": "a", "CLIENT_SECRET": "hush!"},
    ),
    "misspelt name in .env": Mistake(
        "serve", r"S3_BUKET: .*\(.env\); did you mean S3_BUCKET\?", env=b"S3_BUKET=hush"
    ),
    "line without a sign": Mistake(
        "serve",
        r"\.env: line 2 is not of the form NAME=",
        env=b"GAPS=cut\nAPI_KEY hush",
    ),
    ".env of another encoding": Mistake(
        "serve", r"\.env: is not UTF-8 text", env="API_KEY=hüsh".encode("utf-16")
    ),
    "quotes in the environment": Mistake(
        "serve",
        "API_KEY: stands in quotes, which are part of it",
        {"API_KEY": '"hush"'},
    ),
    "space in the environment": Mistake(
        "serve", "RECORDINGS_DIR: has a space or a line's end", {"RECORDINGS_DIR": "x "}
    ),
    "line's end in the environment": Mistake(
        "serve", "GAPS: has a space or a line's end", {"GAPS": "cut\r"}
    ),
    "bucket as an address": Mistake(
        "serve", r"S3_BUCKET: .*\(no s3://", {"S3_BUCKET": "s3://hush/x"}
    ),
    "time that is none": Mistake(
        "serve", "DRAIN_TIMEOUT: .* number; .*=300", {"DRAIN_TIMEOUT": "5m"}
    ),
    "endless time": Mistake(
        "serve", "DRAIN_TIMEOUT: .*; for example", {"DRAIN_TIMEOUT": "inf"}
    ),
    "one port for two": Mistake(
        "serve",
        "ADMIN_PORT: must not be the same as PORT",
        {"PORT": "7000", "ADMIN_PORT": "7000"},
    ),
    "more calls than files": Mistake(
        "serve",
        r"MAX_CALLS: .* lower it to \d+ or raise LimitNOFILE",
        {"MAX_CALLS": "900000000"},
    ),
    "env file is a folder": Mistake("serve --env-file .", r"\.: cannot be read"),
    # Files
    "keys file is absent": Mistake(
        "serve", "API_KEYS_FILE: no.json cannot be read", {"API_KEYS_FILE": "no.json"}
    ),
    "keys file is not JSON": Mistake(
        "serve", r"API_KEYS_FILE: \.env is not JSON", {"API_KEYS_FILE": ".env"}, b"A=b"
    ),
    "certificate without key": Mistake(
        "serve", "TLS_CERTIFICATE: goes with TLS_KEY", {"TLS_CERTIFICATE": "chain.pem"}
    ),
    "key without certificate": Mistake(
        "serve", "TLS_KEY: goes with TLS_CERTIFICATE", {"TLS_KEY": "key.pem"}
    ),
    "key with a passphrase": Mistake(
        "serve",
        "TLS_KEY: key.pem is protected by a passphrase.* openssl pkey",
        {"TLS_CERTIFICATE": "chain.pem", "TLS_KEY": "key.pem"},
    ),
    "certificate twice": Mistake(
        "serve",
        r"TLS_CERTIFICATE: .* \(one of the two is no PEM file\)",
        {"TLS_CERTIFICATE": "call.wav", "TLS_KEY": "call.wav"},
    ),
    # Folders
    "folder is a file": Mistake(
        "serve",
        "RECORDINGS_DIR: .* Not a directory .*; name",
        {"RECORDINGS_DIR": ".env"},
        env=b"",
    ),
    "folder cannot be written to": Mistake(
        "serve",
        "RECORDINGS_DIR: /proc/x/.spool cannot be used: .* name a folder",
        {"RECORDINGS_DIR": "/proc/x"},
    ),
    "folder of recover": Mistake(
        "recover", "RECORDINGS_DIR: /proc/x", {"RECORDINGS_DIR": "/proc/x"}
    ),
    "folder of the index": Mistake(
        "index", "RECORDINGS_DIR: /proc/x", {"RECORDINGS_DIR": "/proc/x"}
    ),
    # Ports
    "port is taken": Mistake(
        "serve --port {port}", r"PORT: \d+ is in use; choose another, such as PORT="
    ),
    "admin port is taken": Mistake(
        "serve --port 0", r"ADMIN_PORT: \d+ is in use; choose", {"ADMIN_PORT": "{port}"}
    ),
    "address of another machine": Mistake(
        "serve --port 0 --host 192.0.2.1", "HOST: is no address of this machine"
    ),
    # Without what a command needs
    "no key to transcribe": Mistake(
        "transcribe calls/x", "ASSEMBLYAI_API_KEY: is not set, .* example"
    ),
    "no bucket for permissions": Mistake("check --iam", "S3_BUCKET: is not set"),
    # Calls
    "wav of 44.1 kHz": Mistake(
        "call ws://127.0.0.1:1/ --wav cd.wav", "cd.wav: its rate is 44100 Hz, .* sox "
    ),
    "wav of 8 bits": Mistake(
        "call ws://127.0.0.1:1/ --wav low.wav",
        "low.wav: .* with 8 bits; .* sox low.wav",
    ),
    "wav of three channels": Mistake(
        "call ws://127.0.0.1:1/ --wav three.wav", "three.wav: it has 3 channels; one or"
    ),
    "no wav at all": Mistake(
        "call ws://127.0.0.1:1/ --wav chain.pem", "chain.pem: not a WAV file"
    ),
    "wav is absent": Mistake("call ws://127.0.0.1:1/ --wav no.wav", r"no\.wav"),
    "URI of the web": Mistake(
        "call https://example.com/x", "needs a WebSocket: wss://example.com/x"
    ),
    "URI without a scheme": Mistake(
        "call 127.0.0.1:3000", "is not a WebSocket URI; write ws://127.0.0.1:3000/"
    ),
    "secret without its key": Mistake(
        "call ws://127.0.0.1:1/ --client-secret eHg=",
        "a client secret needs the API key",
    ),
    "secret of a call is not base64": Mistake(
        "call ws://127.0.0.1:1/ --client-secret hush! --api-key a",
        "the client secret is not base64",
    ),
    "nobody is there": Mistake(
        "call ws://127.0.0.1:1/ --fast --duration 1", "connection refused", code=1
    ),
    "URI without a path": Mistake(
        "call ws://127.0.0.1:1 --fast --duration 1", "connection refused", code=1
    ),
    "web address from outside": Mistake(
        "check --from-outside https://example.com/x --api-key a",
        "needs a WebSocket: wss://example.com/x",
    ),
    "load to the web": Mistake("load http://127.0.0.1/", "needs a WebSocket: ws://127"),
    "load to nowhere": Mistake("load", "name the server to call"),
}


def environment(settings: Mapping[str, str], port: int) -> dict[str, str]:
    given = {name: value.format(port=port) for name, value in settings.items()}
    return {"PORT": "0", "LOG_FORMAT": "json", **clean_environment(), **given}


def furnish(folder: Path) -> None:
    """Puts the files of a first hour into a folder."""
    Authorities(folder).issue(passphrase=b"hush")
    for name, rate, channels, width in (
        ("cd.wav", 44_100, 2, 2),
        ("low.wav", 8000, 1, 1),
        ("three.wav", 8000, 3, 2),
        ("call.wav", 8000, 2, 2),
    ):
        with wave.open(str(folder / name), "wb") as file:
            file.setnchannels(channels)
            file.setsampwidth(width)
            file.setframerate(rate)
            file.writeframes(bytes(rate * channels * width // 10))


def type_mistakes(base: Path) -> list[Outcome]:
    orders = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for number, mistake in enumerate(MISTAKES.values()):
            folder = base / str(number)
            folder.mkdir(parents=True)
            furnish(folder)
            if mistake.env is not None:
                (folder / ".env").write_bytes(mistake.env)
            arguments = mistake.arguments.format(port=port).split()
            orders.append((folder, arguments, environment(mistake.settings, port)))
        return type_all(orders)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What comes of all mistakes, typed once for all processes that run tests."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    path = base / "mistakes.json"
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        text = file.read()
        if not text:
            text = json.dumps(type_mistakes(base / "mistakes"))
            file.write(text)
    return dict(zip(MISTAKES, (Outcome(*x) for x in json.loads(text)), strict=True))


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_one_line_that_says_what_to_do(
    outcomes: dict[str, Outcome], name: str
) -> None:
    mistake, outcome = MISTAKES[name], outcomes[name]
    assert outcome.code == mistake.code, outcome
    assert len(outcome.lines) == 1, outcome
    assert re.search(mistake.line, outcome.lines[0]), outcome
    assert "Traceback" not in outcome.err + outcome.out
    assert "hush" not in outcome.err + outcome.out


GOOD = {
    "mark of an editor": b"\xef\xbb\xbfAPI_KEY=abc\nCLIENT_SECRET=eHg=\n",
    "lines of Windows": b"API_KEY=abc\r\nCLIENT_SECRET=eHg=\r\n",
    "quotes": b"API_KEY='abc'\nCLIENT_SECRET=\"eHg=\"\n",
    "spaces": b"API_KEY = abc  \n  CLIENT_SECRET=eHg= \n",
    "export": b"export API_KEY=abc\nexport CLIENT_SECRET=eHg=\n",
    "comments": b"# a key\nAPI_KEY=abc # mine\n\nCLIENT_SECRET=eHg= # its secret\n",
    "names of others": b"NODE_ENV=x\nAPI_KEY=abc\nCLIENT_SECRET=eHg=\nS3_BUCKET=\n",
}


def test_env_file_is_read_however_it_was_written(tmp_path: Path) -> None:
    orders = []
    for number, text in enumerate(GOOD.values()):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / ".env").write_bytes(text)
        orders.append((folder, ["check", "--only", "keys"], environment({}, 0)))
    for name, outcome in zip(GOOD, type_all(orders), strict=True):
        assert outcome.lines == ["✓ API keys: 1, of which 1 with a client secret"], name
        assert outcome.code == 0


@pytest.mark.parametrize(
    "module", ["click", "trio", "pydantic", "audiohook.service", "botocore"]
)
def test_ctrl_c_while_modules_are_read_is_no_traceback(module: str) -> None:
    program = (
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}: raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from audiohook.__main__ import main\n"
        "sys.argv = ['audiohook', 'serve']\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@contextmanager
def serve(folder: Path, **settings: str) -> Iterator[subprocess.Popen[str]]:
    with child(
        [sys.executable, "-m", "audiohook", "serve", "--port", "0"],
        cwd=folder,
        env={**clean_environment(), "LOG_FORMAT": "json", **settings},
        stderr=subprocess.PIPE,
        # Whoever runs the tests in the background has it ignored, and so would it be
        # here until the service listens for it.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as process:
        yield process


def test_ctrl_c_at_the_first_word_ends_well(tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        assert server.stderr is not None
        first = server.stderr.readline()
        server.send_signal(signal.SIGINT)
        _, rest = server.communicate(timeout=30)
    assert server.returncode in {0, 130}
    assert "Traceback" not in first + rest


def test_start_in_another_folder_tells_where_it_looked(tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        assert server.stderr is not None
        for line in server.stderr:
            if line.startswith("No API_KEY is set"):
                break
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=30)
    assert server.returncode == 0
    assert f"(there is no {tmp_path}/.env)" in line


def test_start_on_a_disk_without_room_says_that_calls_are_turned_away(
    tmp_path: Path,
) -> None:
    settings = {"API_KEY": "a", "SPOOL_LOW_WATER_MIB": "100000000"}
    with serve(tmp_path, **settings) as server:
        assert server.stderr is not None
        for line in server.stderr:
            if json.loads(line)["event"] == "cannot_record":
                break
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=30)
    assert server.returncode == 0
    assert "SPOOL_LOW_WATER_MIB" in json.loads(line)["error"]


def warnings_at_start(folder: Path, **settings: str) -> list[dict[str, str]]:
    """Returns the warnings that a service writes until it listens."""
    found = []
    with serve(folder, **settings) as server:
        assert server.stderr is not None
        for text in server.stderr:
            line = json.loads(text)
            if line["level"] == "warning":
                found.append(line)
            if line["event"] == "listening":
                break
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=30)
    assert server.returncode == 0
    return found


def test_start_names_files_with_secrets_that_others_may_read(tmp_path: Path) -> None:
    (env := tmp_path / ".env").write_text("API_KEY=hush\nCLIENT_SECRET=eHg=\n")
    (keys := tmp_path / "keys.json").write_text('{"another": "eHg="}')
    env.chmod(0o644)
    keys.chmod(0o646)
    lines = warnings_at_start(tmp_path, API_KEYS_FILE="keys.json")
    told = [line for line in lines if line["event"] == "secrets_exposed"]
    assert [(line["error"], line["mend"]) for line in told] == [
        ("everybody on this machine may read it", "chmod 600 .env"),
        ("everybody on this machine may change it", "chmod 600 keys.json"),
    ]
    assert "hush" not in str(lines)
    for path in (env, keys):
        path.chmod(0o600)
    lines = warnings_at_start(tmp_path, API_KEYS_FILE="keys.json")
    assert "secrets_exposed" not in {line["event"] for line in lines}
    told_of_root = "runs_as_root" in {line["event"] for line in lines}
    assert told_of_root == (os.geteuid() == 0)


# Before there is anything of ours: make.


def make(
    folder: Path, python: str, **settings: str
) -> subprocess.CompletedProcess[str]:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{python}\n")
    path.chmod(0o755)
    return subprocess.run(
        ["make", "build", f"PYTHON={path}", f"VENV={folder / 'venv'}"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("found", ["old", "none"])
def test_python_of_the_path_that_will_not_do_is_one_line(
    tmp_path: Path, found: str
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("make", "sh", "find", "touch"):
        path = shutil.which(name)
        assert path is not None
        (tools / name).symlink_to(path)
    if found == "old":
        # What 3.9 says of itself; all that is asked of it are such questions.
        old = tools / "python3"
        old.write_text(
            f'#!/bin/sh\n"{sys.executable}" -c "import sys;'
            ' sys.version_info = (3, 9, 2); exec(sys.argv[1])" "$2"\n'
        )
        old.chmod(0o755)
    done = subprocess.run(
        ["make", "build", f"VENV={tmp_path / 'venv'}"],
        cwd=ROOT,
        env={"PATH": str(tools), "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    first = done.stderr.splitlines()[0]
    assert first.startswith("Python 3.11 or newer is missing; install it, or name it")


REAL = f'exec "{sys.executable}" "$@"'
PYTHONS = {
    "old Python": ("exit 1", "Python 3.11 or newer is missing; install it, or name it"),
    "no venv": (
        f'case "$2" in *venv*) exit 1;; esac; {REAL}',
        "Python's venv module is missing; on Debian: apt-get install python3-venv",
    ),
    "no headers": (
        f'case "$2" in *Python.h*) exit 1;; esac; {REAL}',
        "Python's C headers are missing; on Debian: apt-get install python3-dev",
    ),
}


@pytest.mark.parametrize("name", PYTHONS)
def test_python_that_will_not_do_is_one_line(tmp_path: Path, name: str) -> None:
    script, line = PYTHONS[name]
    done = make(tmp_path, script)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0].startswith(line)


def test_missing_compiler_is_one_line(tmp_path: Path) -> None:
    done = make(tmp_path, REAL, CC="no-such-compiler")
    assert done.returncode == 2
    assert done.stderr.startswith("A C compiler is missing; on Debian: apt-get install")
