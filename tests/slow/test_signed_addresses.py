"""Addresses signed with credentials that expire before the audio is fetched."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
import structlog
import trio

from audiohook.simulator.assemblyai import Endpoint, Fault, StandIn
from audiohook.simulator.assemblyai import Pace as JobPace
from audiohook.storage.base import BytesBlob
from audiohook.storage.s3 import S3Store
from audiohook.transcription.assemblyai import AssemblyAI, make_client
from audiohook.transcription.errand import Errands, Outcome, Patience
from audiohook.transcription.pace import Pace
from audiohook.transcription.parameters import Parameters
from audiohook.transcription.steps import Steps, Terms
from tests.simulator.assemblyai.tools import TALK
from tests.storage.fake_s3 import FakeS3

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

KEY = "stand-in-key"
BUCKET = "recordings"
# Every character that a key may have, and that is escaped in an address.
NAME = "2026-11-22T14-10-44.123Z_a_b"
WAV = f"calls/caller's (eu)*!/{NAME}/audio/{NAME}.wav".replace(" ", "_")
LIFE = timedelta(hours=1)
_STAMP = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class Credentials:
    """Temporary ones."""

    number: int
    until: datetime

    @property
    def process_output(self) -> str:
        """As a process prints them that hands out credentials."""
        return json.dumps(
            {
                "Version": 1,
                "AccessKeyId": f"ASIA{self.number}",
                "SecretAccessKey": f"secret {self.number}",
                "SessionToken": f"token/{self.number}+=",
                "Expiration": self.until.isoformat(),
            }
        )


@dataclass
class Vault:
    """Serves audio to whoever comes with an address that is signed as it should be.

    Source: Amazon S3 API reference, "Authenticating requests: using query parameters".

    Attributes:
        known: Credentials by access key.
        answers: Status and access key of each request.
    """

    known: dict[str, Credentials] = field(default_factory=dict)
    answers: list[tuple[int, str]] = field(default_factory=list)
    lives: list[int] = field(default_factory=list)

    def issue(self, path: Path, number: int, life: timedelta) -> None:
        """Has the process hand out other credentials from now on."""
        credentials = Credentials(number, datetime.now(UTC) + life)
        self.known[f"ASIA{number}"] = credentials
        path.write_text(credentials.process_output)

    async def serve(self, stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            more = await stream.receive_some()
            if not more:
                return
            head += more
        text = head.decode("ascii")
        target = text.split(" ")[1]
        match = re.search(r"\r\nhost: (\S+)", text, re.IGNORECASE)
        assert match is not None
        status = self._judge(target, match[1])
        body = TALK if status == 200 else b"<Error/>"
        await stream.send_all(
            b"HTTP/1.1 %d x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
            % (status, len(body))
            + body
        )
        await stream.aclose()

    def _judge(self, target: str, host: str) -> int:
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query, strict_parsing=True))
        access_key = query["X-Amz-Credential"].split("/")[0]
        credentials = self.known[access_key]
        now = datetime.now(UTC)
        signed_at = datetime.strptime(query["X-Amz-Date"], _STAMP).replace(tzinfo=UTC)
        life = int(query["X-Amz-Expires"])
        self.lives.append(life)
        good = (
            query.pop("X-Amz-Signature") == sign(parts.path, query, host, credentials)
            and query["X-Amz-Security-Token"] == f"token/{credentials.number}+="
            and now < signed_at + timedelta(seconds=life)
            and now < credentials.until
        )
        self.answers.append((200 if good else 403, access_key))
        return self.answers[-1][0]


def sign(path: str, query: dict[str, str], host: str, credentials: Credentials) -> str:
    """Signs a request as the page says, without any of AWS's own code."""
    _, day, region, service, end = query["X-Amz-Credential"].split("/")
    pairs = sorted(
        (quote(k, safe="-_.~"), quote(v, safe="-_.~")) for k, v in query.items()
    )
    canonical = "\n".join(
        (
            *("GET", path, "&".join(f"{k}={v}" for k, v in pairs)),
            *(f"host:{host}", "", "host", "UNSIGNED-PAYLOAD"),
        )
    )
    scope = "/".join((day, region, service, end))
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", query["X-Amz-Date"], scope, digest])
    key = f"AWS4secret {credentials.number}".encode()
    for part in (day, region, service, end):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


class SignedBucket(FakeS3):
    """Objects in memory, whose addresses are signed as those of a real bucket."""

    def __init__(self) -> None:
        super().__init__()
        self.signer = S3Store(BUCKET)

    async def presign(self, key: str, seconds: int) -> str:
        return await self.signer.presign(key, seconds)


@pytest.fixture
def issued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the process prints that hands out credentials."""
    path = tmp_path / "credentials.json"
    config = tmp_path / "config"
    config.write_text(f"[default]\ncredential_process = /bin/cat {path}\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    return path


@pytest.fixture
async def vault(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> Vault:
    vault = Vault()
    serve = partial(trio.serve_tcp, vault.serve, 0, host="127.0.0.1")
    (listener,) = await nursery.start(serve)
    port = listener.socket.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{port}")
    return vault


async def make_bucket() -> SignedBucket:
    bucket = SignedBucket()
    entry = {"audio": WAV, "status": "elsewhere", "reason": None, "id": None}
    call: dict[str, Any] = {
        "sessionId": "s",
        "language": None,
        "languageChanges": [],
        "media": {"channels": ["external", "internal"]},
        "recording": {"layout": "stereo"},
        "transcripts": [entry],
    }
    summary = WAV.rsplit("/audio/", 1)[0] + "/call.json"
    for key, data in ((WAV, TALK), (summary, json.dumps(call).encode())):
        await bucket.replace(
            key, BytesBlob(data), metadata={"session-id": "s"}, token="t"
        )
    return bucket


def worker(standin: StandIn, bucket: SignedBucket, http: Any) -> Errands:  # noqa: ANN401
    return Errands(
        Steps(AssemblyAI(http), Terms(Parameters()), Pace()),
        store=bucket,
        pace=Pace(),
        parameters=Parameters(),
        log=structlog.get_logger(),
    )


async def test_expired_credentials_cost_another_address_and_no_money(
    issued: Path, vault: Vault, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (
        ("_FIRST_POLL", 0.1),
        ("_FIRST_RESUBMIT", 0.1),
        ("_LOOK_EARLY", 0.1),
    ):
        monkeypatch.setattr(f"audiohook.transcription.job.{name}", seconds)
    # The queue at the service is longer than the credentials live.
    standin = StandIn(keys=(KEY,), pace=JobPace(queued=4.0))
    await nursery.start(standin.serve)
    bucket = await make_bucket()
    # They are good for long enough to sign with.
    vault.issue(issued, 1, timedelta(seconds=3))
    http = make_client(standin.base_url, KEY)
    async with aclosing(http), trio.open_nursery() as renewing:

        async def renew() -> None:
            while not standin.statistics().submitted:  # noqa: ASYNC110 - another's figures
                await trio.sleep(0.05)
            vault.issue(issued, 2, LIFE)
            # And the answer to the second request gets lost.
            standin.faults.script(Endpoint.SUBMIT, Fault.LOST)

        renewing.start_soon(renew)
        with trio.fail_after(60):
            outcome = await worker(standin, bucket, http).see_to(WAV, Patience())
    bucket.signer.close()
    assert outcome is Outcome.COMPLETED
    assert vault.answers == [(403, "ASIA1"), (200, "ASIA2")]
    # However long the address is to live, it dies with what it was signed with.
    assert vault.lives == [12 * 3600] * 2
    statistics = standin.statistics()
    assert (statistics.submitted, statistics.billed) == (2, 1)
