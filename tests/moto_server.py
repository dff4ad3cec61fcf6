"""moto's server: buckets that tell queues what comes, on one machine.

It answers as S3, SQS and the Parameter Store do, and delivers events from bucket to
queue, which SeaweedFS does not. It checks neither credentials nor checksums.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from tests.aws import ALONE, REGION, environment
from tests.ports import reserved_ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A guard against hanging.
_START_SECONDS = 120.0
KEYS = ("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")

# At Amazon, a stack that is deployed by a change set, as the aws command does it, has the
# outputs of its template; moto leaves it without any.
_PROGRAM = """
from moto.cloudformation.models import ChangeSet
from moto.server import main
apply = ChangeSet.apply
def apply_with_outputs(self):
    apply(self)
    self.stack.template_dict = self.template_dict
    self.stack.output_map = self.stack._create_output_map()
ChangeSet.apply = apply_with_outputs
main()
"""


@dataclass(frozen=True)
class Moto:
    """A running server.

    Attributes:
        port: Where it listens on loopback.
        region: In which everything is.
        clients: By service.
    """

    port: int
    region: str = REGION
    clients: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Has boto3 find it."""
        return environment(
            self.url,
            KEYS,
            AWS_ENDPOINT_URL=self.url,
            AWS_DEFAULT_REGION=self.region,
        )

    def client(self, service: str) -> Any:  # noqa: ANN401 - boto3 has no types
        """Returns the client for a service; to make one takes long."""
        if service not in self.clients:
            self.clients[service] = self._new_client(service)
        return self.clients[service]

    def _new_client(self, service: str) -> Any:  # noqa: ANN401 - boto3 has no types
        return boto3.session.Session().client(
            service,
            endpoint_url=self.url,
            region_name=self.region,
            aws_access_key_id=KEYS[0],
            aws_secret_access_key=KEYS[1],
        )


@contextmanager
def moto_server(folder: Path, region: str = REGION) -> Iterator[Moto]:
    """Runs a server of its own while the block lasts."""
    pytest.importorskip("moto.server", reason="moto[server] is not installed")
    with reserved_ports(1) as (port,):
        log = folder / "moto.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, "-H", "127.0.0.1", "-p", str(port)],
                env={"PATH": os.environ["PATH"], **ALONE},
                stdout=stream,
                stderr=stream,
            )
        try:
            _wait_until_up(process, port, log)
            server = Moto(port, region)
            yield server
            for client in server.clients.values():
                client.close()
        finally:
            process.kill()
            process.wait()


def _wait_until_up(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.05)
    raise RuntimeError(f"moto did not start: {log.read_text()}")
