"""The mistakes of a first hour that take somebody else to make: a store, a certificate.

Those that do not are in tests/test_first_hour.py.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from audiohook.simulator.assemblyai import StandIn
from audiohook.simulator.client import place_call
from audiohook.simulator.options import CallOptions
from tests.checks.certificates import Authorities
from tests.documents import shown
from tests.forked import Outcome, type_all
from tests.house import KEY
from tests.mounted import mounted
from tests.printed import assert_printed
from tests.seaweed import OWNER, READER
from tests.slow.bucket import Bucket, aws_settings
from tests.slow.processes import STORE_SECONDS, Site
from tests.test_cli import clean_environment
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.seaweed import Seaweed

pytestmark = pytest.mark.slow

FAST = ("--fast", "--duration", "3")


def closed_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


async def call(uri: str) -> None:
    """Makes a call that must go well."""
    report = await place_call(CallOptions(uri=uri, api_key=KEY, duration=3, fast=True))
    assert report.ok, report


async def refusals(site: Site, *uris: str) -> list[str]:
    """Types a call to each of these, which must fail; the one line that says why."""
    orders = [
        (site.work, ["call", uri, "--api-key", KEY, *FAST], site.environment())
        for uri in uris
    ]
    found = []
    for outcome in await trio.to_thread.run_sync(type_all, orders):
        assert outcome.code == 1, outcome
        (line,) = outcome.lines
        found.append(line)
    return found


# The store.

STORES = {
    "nobody listens": (
        {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:{closed}"},
        r"127\.0\.0\.1:\d+.*AWS_ENDPOINT_URL_S3",
    ),
    "no such name": (
        {"AWS_ENDPOINT_URL_S3": "http://nobody.invalid:{port}"},
        r"nobody\.invalid.*AWS_ENDPOINT_URL_S3",
    ),
    "TLS where there is none": (
        {"AWS_ENDPOINT_URL_S3": "https://127.0.0.1:{port}"},
        r"AWS_ENDPOINT_URL_S3",
    ),
    "wrong bucket": (
        {"S3_BUCKET": "nonesuch"},
        r"bucket nonesuch does not exist .*: create it or correct S3_BUCKET",
    ),
    "wrong key": (
        {"AWS_ACCESS_KEY_ID": "AKIDNOBODY"},
        r"correct AWS_ACCESS_KEY_ID",
    ),
    "wrong secret": (
        {"AWS_SECRET_ACCESS_KEY": "hush"},
        r"correct AWS_SECRET_ACCESS_KEY",
    ),
    "no keys at all": (
        {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
        r"AWS_ACCESS_KEY_ID",
    ),
    "may only read": (
        {"AWS_ACCESS_KEY_ID": READER[0], "AWS_SECRET_ACCESS_KEY": READER[1]},
        r"is denied: allow it to this user or role",
    ),
}
# Those of docs/s3.md, in its order.
SHOWN = ("may only read", "wrong secret", "wrong bucket")


def check_stores(folder: Path, store: Seaweed, bucket: str) -> dict[str, Outcome]:
    orders = []
    for number, (settings, _) in enumerate(STORES.values()):
        (place := folder / str(number)).mkdir()
        given = {
            name: value.format(port=store.port, closed=closed_port())
            for name, value in settings.items()
        }
        environment = {
            **clean_environment(),
            **aws_settings(store.url, bucket),
            **given,
        }
        orders.append((place, ["check", "--only", "storage"], environment))
    return dict(zip(STORES, type_all(orders), strict=True))


def test_check_says_what_is_wrong_with_a_real_store(
    tmp_path: Path, seaweed: Seaweed, bucket: Bucket
) -> None:
    outcomes = check_stores(tmp_path, seaweed, bucket.name)
    for name, (_, mend) in STORES.items():
        outcome = outcomes[name]
        assert outcome.code == 1, (name, outcome)
        assert outcome.err == "", (name, outcome)
        assert outcome.lines[0] == "✗ write an object", (name, outcome)
        assert re.match(rf"  → .*{mend}", outcome.lines[1]), (name, outcome)
        assert len(outcome.lines) == 2, (name, outcome)
        assert OWNER[1] not in outcome.out
        assert "hush" not in outcome.out
    page = shown("docs/s3.md", "✗ write an object").text.split("\n\n")
    for name, sample in zip(SHOWN, page, strict=True):
        sample = sample.replace("bucket my-recordings", f"bucket {bucket.name}")
        assert_printed(sample, outcomes[name].out)


# AssemblyAI.


async def test_wrong_key_of_assemblyai_is_named_and_costs_no_transcript(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    standin = StandIn(keys=("right",))
    url = await nursery.start(standin.serve)
    site = Site(tmp_path, {"ASSEMBLYAI_BASE_URL": url, "ASSEMBLYAI_API_KEY": "wrong"})
    check = await site.command("check", "--only", "transcription")
    assert check.returncode == 1
    assert (
        "does not accept the key (401): correct ASSEMBLYAI_API_KEY"
        in check.stdout.decode()
    )
    async with site.serve() as server:
        await call(server.uri)
        await wait_until(
            lambda: bool(server.lines("transcription_needs_mending")), STORE_SECONDS
        )
        (line,) = server.lines("transcription_needs_mending")
        assert (
            "does not accept the key (401): correct ASSEMBLYAI_API_KEY" in line["error"]
        )
        # The recording does not wait for it.
        (recording,) = next(iter(site.stored().values()))
        assert recording.audio(".wav")
        server.terminate()
        assert await server.wait() == 0
    async with site.serve(ASSEMBLYAI_API_KEY="right") as server:
        await wait_until(lambda: bool(server.lines("call_transcribed")), STORE_SECONDS)
        await site.wait_stored()


# TLS.


async def test_certificate_or_scheme_that_will_not_do_is_one_line_to_a_caller(
    tmp_path: Path,
) -> None:
    for name in ("tls", "site", "plain"):
        (tmp_path / name).mkdir()
    chain, key = Authorities(tmp_path / "tls").issue(self_signed=True)
    tls = {"TLS_CERTIFICATE": str(chain), "TLS_KEY": str(key)}
    site, plain = Site(tmp_path / "site", tls), Site(tmp_path / "plain")
    async with site.serve() as secure, plain.serve() as open_to_all:
        lines = await refusals(
            plain,
            f"wss://localhost:{secure.port}/",
            f"ws://localhost:{secure.port}/",
            f"wss://localhost:{open_to_all.port}/",
        )
        ends = (
            "self-signed certificate (see --ca-file and --insecure)",
            "if it speaks TLS there, write wss:// for ws://",
            "if it speaks none there, write ws:// for wss://",
        )
        for line, end in zip(lines, ends, strict=True):
            assert line.endswith(end), lines
        trusting = CallOptions(
            uri=f"wss://localhost:{secure.port}/",
            api_key=KEY,
            duration=3,
            fast=True,
            insecure=True,
        )
        assert (await place_call(trusting)).ok


# The spool.


async def test_two_services_on_one_spool_store_each_call_once(tmp_path: Path) -> None:
    site = Site(tmp_path)
    async with site.serve() as one, site.serve() as other:
        for server in (one, other, one):
            await call(server.uri)
        await site.wait_stored()
        stored = [one.lines("call_stored"), other.lines("call_stored")]
        assert [len(lines) for lines in stored] == [2, 1]
    assert [len(found) for found in site.stored().values()] == [1, 1, 1]
    assert site.strays() == []


async def test_disk_that_is_read_only_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site", {"RECORDINGS_DIR": str(tmp_path / "disk")})
    with mounted(tmp_path / "disk", "ro"):
        served, checked = await trio.to_thread.run_sync(
            type_all,
            [
                (site.work, words.split(), site.environment())
                for words in ("serve", "check --only spool")
            ],
        )
    assert served.code == 2
    (line,) = served.lines
    assert "RECORDINGS_DIR: " in line
    assert "Read-only file system" in line
    assert "name a folder" in line
    assert checked.code == 1
    assert "on a disk that is not read-only" in checked.out


# The shell.


def test_bash_completes_what_has_been_installed(tmp_path: Path) -> None:
    # As readline does it: the function that is registered, with the line so far.
    script = r"""
        audiohook --install-completion bash >/dev/null
        source ~/.bashrc
        complete_line() {
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
            local registered; registered=$(complete -p audiohook)
            registered=${registered##*-F }
            ${registered%% *} "$1" "${@: -1}" "${@: -2:1}"
            echo "${COMPREPLY[*]}"
        }
        complete_line audiohook ser
        complete_line audiohook check --from
    """
    done = subprocess.run(
        ["bash", "--norc", "-euc", script],
        env={
            "HOME": str(tmp_path),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LANG": "C.UTF-8",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines() == ["serve", "--from-outside"], done
