"""Keys that come and go while clients connect, in a real process."""

from __future__ import annotations

import base64
import json
import math
import random
import signal
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import trio

from audiohook.protocol.signature import sign
from tests.house import ORGANIZATION, upgrade_request
from tests.moto_server import moto_server
from tests.slow.processes import Site, tell
from tests.slow.scale import scaled
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.slow.processes import Server

pytestmark = pytest.mark.slow

SEED = 5
SECONDS = scaled(8.0, 120.0)
CLIENTS_A_SECOND = 120
# A pause of the one who writes, in the middle of a file or between two.
WRITE_SECONDS = (0.005, 0.12)
# What is taken away is not good any more after this: the file is looked at every
# second, and the machine may be busy.
GRACE_SECONDS = 3.0
GENERATIONS = 2

STAYS = "c3RheXM="


@dataclass
class Life:
    """When a key with a certain secret was in the file, by when it was written.

    Attributes:
        key: It.
        secret: Its secret; None if requests need no signature.
        since: When the writing of the first file with it was done.
        until: When the writing of the first file without it was begun.
        gone: When that was done.
    """

    key: str
    secret: bytes | None
    since: float = math.inf
    until: float = math.inf
    gone: float = math.inf

    def verdict(self, sent: float, answered: float) -> bool | None:
        """Says whether a request must pass, or must not; None if either is right."""
        if self.since <= sent and answered < self.until:
            return True
        # It may have been read in the middle of its first writing, or of its last.
        return False if self.gone + GRACE_SECONDS < sent else None


@dataclass
class Ledger:
    """Who writes keys, and what must come of it."""

    path: Path
    draw: random.Random = field(default_factory=lambda: random.Random(SEED))
    lives: list[Life] = field(default_factory=list)
    current: list[Life] = field(default_factory=list)
    writes: dict[str, int] = field(default_factory=dict)

    def next_generation(self) -> list[Life]:
        """Makes up what the next file holds: one key more, and the oldest not."""
        number = len(self.lives)
        secret = None if number % 3 == 0 else self.draw.randbytes(24)
        fresh = Life(base64.b64encode(b"key %d" % number).decode(), secret)
        # The key that stays gets a new secret now and then; the old one is good
        # beside it for as long as it is among these.
        turned = Life(STAYS, self.draw.randbytes(24))
        self.lives += [fresh, turned]
        return [*self.current, fresh, turned][-2 * GENERATIONS :]

    def content(self, lives: list[Life]) -> bytes:
        keys: dict[str, object] = {}
        for life in lives:
            if life.key != STAYS:
                text = _base64(life.secret)
                keys[life.key] = text if self.draw.random() < 0.5 else {"secret": text}
        secrets = [_base64(life.secret) for life in lives if life.key == STAYS]
        keys[STAYS] = {"secret": secrets, "organization": ORGANIZATION}
        return json.dumps(keys, indent=self.draw.choice([None, 2])).encode()

    async def write(self) -> None:
        """Writes the next file, in one of the ways in which people do."""
        lives = self.next_generation()
        data = self.content(lives)
        how = self.draw.choice(["renamed", "truncated", "in place", "moved away"])
        self.writes[how] = self.writes.get(how, 0) + 1
        begun = time.monotonic()
        for life in self.current:
            if life not in lives:
                life.until = min(life.until, begun)
        await getattr(self, "_" + how.replace(" ", "_"))(data)
        done = time.monotonic()
        for life in lives:
            life.since = min(life.since, done)
        for life in self.current:
            if life not in lives:
                life.gone = min(life.gone, done)
        self.current = lives

    async def _pause(self) -> None:
        await trio.sleep(self.draw.uniform(*WRITE_SECONDS))

    async def _renamed(self, data: bytes) -> None:
        other = self.path.with_suffix(".new")
        other.write_bytes(data)
        other.replace(self.path)

    async def _truncated(self, data: bytes) -> None:
        with self.path.open("wb", buffering=0) as file:
            await self._pause()
            cut = self.draw.randrange(len(data))
            file.write(data[:cut])
            await self._pause()
            file.write(data[cut:])

    async def _in_place(self, data: bytes) -> None:
        with self.path.open("r+b", buffering=0) as file:
            cut = self.draw.randrange(len(data))
            file.write(data[:cut])
            await self._pause()
            file.write(data[cut:])
            file.truncate()

    async def _moved_away(self, data: bytes) -> None:
        self.path.unlink()
        await self._pause()
        self.path.write_bytes(data)


def _base64(secret: bytes | None) -> str | None:
    return None if secret is None else base64.b64encode(secret).decode()


async def knock(port: int, key: str, secret: bytes | None) -> bool:
    """Asks for a session; whether it was let in."""
    key_line = b"X-API-KEY: " + key.encode() + b"\r\n"
    request = upgrade_request(key_line, session=str(uuid.uuid4()))
    if secret is not None:
        lines = request.split(b"\r\n")[1:-2]
        headers = [(n, v) for n, _, v in (line.partition(b": ") for line in lines)]
        signed = sign(headers, b"/", secret=secret, now=time.time())
        request = request[:-2] + b"".join(n + b": " + v + b"\r\n" for n, v in signed)
        request += b"\r\n"
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(request)
        answer = await stream.receive_some()
    assert answer.split()[1] in (b"101", b"401"), answer
    return answer.split()[1] == b"101"


async def test_keys_are_rotated_under_load(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = Ledger(tmp_path / "keys.json")
    ledger.path.write_bytes(ledger.content(ledger.next_generation()))
    ledger.current, ledger.lives = [], []
    await ledger.write()
    site = Site(tmp_path, {"API_KEYS_FILE": str(ledger.path)})
    wrong: list[tuple[Life, float, float, bool]] = []
    judged = {True: 0, False: 0, None: 0}
    draw = random.Random(SEED)

    async def connect(port: int) -> None:
        # Those of now, those of before, and secrets that never were.
        life = draw.choice(ledger.lives[-5 * GENERATIONS :])
        secret, never = life.secret, draw.random() < 0.1
        if never and secret is not None:
            secret = b"never was"
        sent = time.monotonic()
        passed = await knock(port, life.key, secret)
        answered = time.monotonic()
        verdict = life.verdict(sent, answered)
        if secret != life.secret:
            verdict = False
        judged[verdict] += 1
        if verdict is not None and verdict != passed:
            wrong.append((life, sent, answered, passed))

    async with site.serve() as server, trio.open_nursery() as nursery:
        began = trio.current_time()
        writer = trio.CancelScope()

        async def rotate() -> None:
            with writer:
                while True:
                    # Long enough, now and then, that what is gone must be refused.
                    lasting = ledger.draw.random() < 0.15
                    await trio.sleep(GRACE_SECONDS if lasting else 0.05)
                    with trio.CancelScope(shield=True):
                        await ledger.write()

        nursery.start_soon(rotate)
        for number in range(round(SECONDS * CLIENTS_A_SECOND)):
            await trio.sleep_until(began + number / CLIENTS_A_SECOND)
            nursery.start_soon(connect, server.port)
        writer.cancel()
        changes = len(server.lines("keys_changed"))
    tell(
        capsys,
        f"{sum(ledger.writes.values())} files of keys in {SECONDS:.0f} s"
        f" ({ledger.writes}), {changes} taken up; {judged[True]} requests that must"
        f" pass, {judged[False]} that must not, {judged[None]} in between:"
        f" {len(wrong)} wrong",
    )
    assert not wrong
    assert min(judged[True], judged[False]) > 50
    assert min(ledger.writes.values()) >= 2
    assert changes > 5


async def test_keys_come_from_secrets_manager(tmp_path: Path) -> None:
    old, new, newer = "b2xk", "bmV3", "bmV3ZXI="
    with moto_server(tmp_path) as moto:
        vault = moto.client("secretsmanager")
        vault.create_secret(Name="audiohook/keys", SecretString=json.dumps({old: ""}))

        def hold(*keys: str) -> None:
            text = json.dumps(dict.fromkeys(keys, ""))
            vault.put_secret_value(SecretId="audiohook/keys", SecretString=text)

        folder = tmp_path / "site"
        folder.mkdir()
        settings = {**moto.environment, "API_KEYS_SECRET": "audiohook/keys"}
        site = Site(folder, {**settings, "API_KEY": ""})
        async with site.serve() as server:
            assert await knock(server.port, old, None)
            await trio.to_thread.run_sync(hold, old, new)
            # It was read a moment ago, so that it is not read for this one.
            assert not await knock(server.port, new, None)
            await _hang_up(server, 2)
            assert await knock(server.port, new, None)
            await trio.to_thread.run_sync(hold, new)
            await _hang_up(server, 3)
            assert not await knock(server.port, old, None)
            vault.delete_secret(
                SecretId="audiohook/keys", ForceDeleteWithoutRecovery=True
            )
            server.process.send_signal(signal.SIGHUP)
            await wait_until(lambda: bool(server.lines("keys_not_read")))
            assert await knock(server.port, new, None)
            assert not await knock(server.port, newer, None)
            (line,) = server.lines("keys_not_read")
            assert "ResourceNotFoundException" in line["error"]
            assert line["keys_in_force"] == 1
            assert new not in server.log.read_text()
        done = await site.command("serve")
        assert done.returncode == 2
        assert "API_KEYS_SECRET: audiohook/keys cannot be read" in done.stderr.decode()


async def _hang_up(server: Server, changes: int) -> None:
    server.process.send_signal(signal.SIGHUP)
    await wait_until(lambda: len(server.lines("keys_changed")) == changes)
