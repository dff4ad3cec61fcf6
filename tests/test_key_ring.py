"""Keys that change while nobody stops: sources, failures, and who waits for them."""

from __future__ import annotations

import json
import os
import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog
import trio
import trio.testing

from audiohook import settings
from audiohook.authentication import Authenticator
from audiohook.errors import ConfigError, UploadError
from audiohook.key_ring import KeyRing, gather_keys
from audiohook.keys import KeyRecord, configured_keys, label_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

A, B, C = "a2V5IGE=", "a2V5IGI=", "a2V5IGM="


@pytest.fixture
def mock_clock() -> trio.testing.MockClock:
    """Stands still until it is told: threads take their own time."""
    return trio.testing.MockClock()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await trio.lowlevel.checkpoint()


class Vault:
    """A secret, and how whoever keeps it behaves."""

    def __init__(self, *keys: str) -> None:
        self.text = ""
        self.asked = 0
        self.fault = ""
        self.open = threading.Event()
        self.open.set()
        self.hold(*keys)

    def hold(self, *keys: str) -> None:
        self.text = json.dumps(dict.fromkeys(keys))

    def fetch(self, name: str) -> bytes:
        self.asked += 1
        self.open.wait(10)
        if self.fault:
            raise ConfigError(f"API_KEYS_SECRET: {name} {self.fault}")
        return self.text.encode()


@dataclass
class Request:
    """One that was refused, and waits for newer keys.

    Attributes:
        waited: For how long, in seconds; None while it does.
    """

    waited: float | None = None


class Rig:
    """A ring that turns, and what it reads from."""

    def __init__(
        self,
        folder: Path,
        clock: trio.testing.MockClock,
        vault: Vault | None,
        nursery: trio.Nursery,
    ) -> None:
        self.clock = clock
        self.file = folder / "keys.json"
        self.write(A)
        flags: dict[str, object] = {"api_keys_file": self.file}
        if vault is not None:
            flags["api_keys_secret"] = "audiohook/keys"
        chosen = settings.load(env_file=Path(os.devnull), **flags)
        keys = configured_keys(chosen)
        self.authenticator = Authenticator(keys)
        self.ring = KeyRing(
            chosen,
            keys,
            self.authenticator,
            log=structlog.get_logger("audiohook"),
            fetch=(vault or Vault()).fetch,
            jitter=lambda: 0.5,
        )
        self._nursery = nursery

    def write(self, *keys: str) -> None:
        self.file.write_text(json.dumps(dict.fromkeys(keys)))

    def holds(self, *keys: str) -> bool:
        return set(self.authenticator.records()) == {label_of(key) for key in keys}

    def refuse(self) -> Request:
        """Begins to ask as a request does that is refused."""
        request = Request()
        self._nursery.start_soon(self._ask, request)
        return request

    async def _ask(self, request: Request) -> None:
        began = trio.current_time()
        await self.ring.look_again()
        request.waited = trio.current_time() - began

    async def look_again(self) -> None:
        """Asks, and waits as long as it has to."""
        request = self.refuse()
        await self.pass_until(lambda: request.waited is not None)

    async def jump(self, seconds: float) -> None:
        """Lets time pass once everybody waits."""
        await trio.testing.wait_all_tasks_blocked()
        self.clock.jump(seconds)

    async def pass_until(self, condition: Callable[[], bool]) -> None:
        """Lets time pass, but none of it while a thread is at work."""
        limiters = (self.ring._disk, self.ring._network)
        while not condition():
            await trio.lowlevel.checkpoint()
            if not any(limiter.borrowed_tokens for limiter in limiters):
                await trio.testing.wait_all_tasks_blocked()
                self.clock.jump(0.01)


@asynccontextmanager
async def turning(
    folder: Path, clock: trio.testing.MockClock, vault: Vault | None = None
) -> AsyncIterator[Rig]:
    """Runs a ring while the block lasts."""
    async with trio.open_nursery() as nursery:
        rig = Rig(folder, clock, vault, nursery)
        await nursery.start(rig.ring.run)
        yield rig
        nursery.cancel_scope.cancel()


async def test_file_is_read_again_when_it_changes(
    tmp_path: Path,
    lines: list[Any],
    mock_clock: trio.testing.MockClock,
) -> None:
    async with turning(tmp_path, mock_clock) as rig:
        assert rig.holds(A)
        rig.write(A, B)
        await rig.pass_until(lambda: rig.holds(A, B))
        rig.write(B)
        await rig.pass_until(lambda: rig.holds(B))
        changes = [line for line in lines if line["event"] == "keys_changed"]
        assert [line["added"] for line in changes] == [[label_of(B)], []]
        assert [line["removed"] for line in changes] == [[], [label_of(A)]]
        assert A not in str(lines)


async def test_key_that_was_added_just_now_waits_for_no_interval(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    async with turning(tmp_path, mock_clock) as rig:
        rig.write(B)
        await rig.look_again()
        assert rig.holds(B)
        assert trio.current_time() < 1.0


async def test_many_refusals_share_one_look(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    async with turning(tmp_path, mock_clock) as rig:
        rig.write(B)
        await rig.look_again()
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        rig.write(C)
        requests = [rig.refuse() for _ in range(400)]
        await trio.testing.wait_all_tasks_blocked()
        # More than may wait are told at once, and the others after the spacing.
        assert sum(each.waited is not None for each in requests) >= 400 - 256
        await rig.pass_until(lambda: all(each.waited is not None for each in requests))
        assert trio.current_time() - began < 1.0
        assert rig.holds(C)


@pytest.mark.parametrize("text", ["", "{", "{}", '{"?": null}', '{"a": {}}'])
async def test_file_that_makes_no_sense_leaves_keys_and_is_told_once(
    tmp_path: Path,
    lines: list[Any],
    mock_clock: trio.testing.MockClock,
    text: str,
) -> None:
    async with turning(tmp_path, mock_clock) as rig:
        rig.file.write_text(text)
        await rig.look_again()
        # For as long as it may be half written, and no longer.
        assert trio.current_time() >= 1.5
        await rig.look_again()
        assert rig.holds(A)
        rig.write(B)
        await rig.look_again()
        assert rig.holds(B)
        events = [line["event"] for line in lines]
        assert events == ["keys_not_read", "keys_changed", "keys_read_again"]


async def test_request_waits_for_a_file_that_is_being_written(
    tmp_path: Path,
    lines: list[Any],
    mock_clock: trio.testing.MockClock,
) -> None:
    async with turning(tmp_path, mock_clock) as rig:
        rig.file.unlink()
        request = rig.refuse()
        for _ in range(5):
            await rig.jump(0.1)
        assert request.waited is None
        rig.write(B)
        await rig.pass_until(lambda: request.waited is not None)
        assert rig.holds(B)
        assert [line["event"] for line in lines] == ["keys_changed"]


async def test_same_size_and_time_is_read_all_the_same_while_it_is_young(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    async with turning(tmp_path, mock_clock) as rig:
        rig.write(B)
        before = rig.file.stat()
        await rig.look_again()
        with rig.file.open("r+") as file:
            file.write(json.dumps({C: None}))
        os.utime(rig.file, ns=(before.st_atime_ns, before.st_mtime_ns))
        await rig.pass_until(lambda: rig.holds(C))


# The secret


async def test_keys_of_both_sources_count(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    vault = Vault(B)
    async with turning(tmp_path, mock_clock, vault) as rig:
        assert rig.holds(A, B)
        vault.hold(C)
        await rig.jump(299.0)
        await trio.testing.wait_all_tasks_blocked()
        assert vault.asked == 1
        await rig.jump(1.0)
        await until(lambda: rig.holds(A, C))


async def test_unknown_keys_have_the_secret_read_once_a_minute(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    vault = Vault(B)
    async with turning(tmp_path, mock_clock, vault) as rig:
        vault.hold(B, C)
        await _ask_often(rig)
        assert vault.asked == 1
        assert trio.current_time() < 60.0
        await rig.jump(60.0)
        await _ask_often(rig)
        assert vault.asked == 2
        assert rig.holds(A, B, C)


async def _ask_often(rig: Rig) -> None:
    for _ in range(20):
        await rig.look_again()


async def test_slow_secret_keeps_nobody_longer_than_two_seconds(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    vault = Vault(B)
    async with turning(tmp_path, mock_clock, vault) as rig:
        vault.open.clear()
        vault.hold(C)
        await rig.jump(61.0)
        request = rig.refuse()
        await until(lambda: vault.asked == 2)
        await rig.jump(2.0)
        await until(lambda: request.waited is not None)
        assert request.waited == 2.0
        assert rig.holds(A, B)
        vault.open.set()
        await until(lambda: rig.holds(A, C))


async def test_secret_that_fails_leaves_its_last_keys_and_is_tried_soon(
    tmp_path: Path,
    lines: list[Any],
    mock_clock: trio.testing.MockClock,
) -> None:
    vault = Vault(B)
    async with turning(tmp_path, mock_clock, vault) as rig:
        vault.fault = "cannot be read (ThrottlingException)"
        await rig.jump(300.0)
        await until(lambda: len(_told(lines)) == 1)
        vault.fault = ""
        vault.text = "nonsense"
        began = trio.current_time()
        await rig.pass_until(lambda: len(_told(lines)) == 2)
        assert trio.current_time() - began < 20.0
        assert rig.holds(A, B)
        vault.hold(C)
        await rig.pass_until(lambda: rig.holds(A, C))
        await until(lambda: lines[-1]["event"] == "keys_read_again")
        told = _told(lines)
        assert ["Throttling" in line["error"] for line in told] == [True, False]
        assert told[1]["error"].startswith(
            "API_KEYS_SECRET: audiohook/keys is not JSON"
        )


def _told(lines: list[Any]) -> list[Any]:
    return [line for line in lines if line["event"] == "keys_not_read"]


async def test_without_any_key_a_secret_that_fails_stops_the_start() -> None:
    vault = Vault()
    vault.fault = "cannot be read (AccessDeniedException)"
    chosen = settings.load(env_file=Path(os.devnull), api_keys_secret="x")
    ring = KeyRing(
        chosen,
        {},
        Authenticator({}),
        log=structlog.get_logger("audiohook"),
        fetch=vault.fetch,
    )
    with pytest.raises(ConfigError, match="AccessDenied"):
        await ring.run()


async def test_with_another_key_it_does_not(
    tmp_path: Path, lines: list[Any], mock_clock: trio.testing.MockClock
) -> None:
    vault = Vault()
    vault.fault = "cannot be read (EndpointConnectionError)"
    async with turning(tmp_path, mock_clock, vault) as rig:
        assert rig.holds(A)
        assert [line["event"] for line in lines] == ["keys_not_read"]


async def test_reload_has_the_secret_read_at_once(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    vault = Vault(B)
    async with turning(tmp_path, mock_clock, vault) as rig:
        vault.hold(C)
        chosen = settings.load(
            env_file=Path(os.devnull), api_keys_file=rig.file, api_keys_secret="x"
        )
        rig.ring.take(chosen, {A: KeyRecord()})
        await until(lambda: rig.holds(A, C))


def test_who_needs_keys_once_gets_those_of_all_sources_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({A: "", B: ""}))
    chosen = settings.load(
        env_file=Path(os.devnull),
        api_keys_file=file,
        api_keys_secret="name",
        s3_bucket="main",
    )
    held = {B: {"secret": "", "bucket": "acme"}, C: ""}
    monkeypatch.setattr(
        "audiohook.key_ring.fetch_secret", lambda _: json.dumps(held).encode()
    )
    found = gather_keys(chosen)
    assert set(found) == {A, B, C}
    assert found[B].bucket == "acme"

    def deny(_: str) -> bytes:
        raise ConfigError("API_KEYS_SECRET: name cannot be read (Denied)")

    monkeypatch.setattr("audiohook.key_ring.fetch_secret", deny)
    with pytest.raises(ConfigError, match="cannot be read"):
        gather_keys(chosen)


async def test_nobody_passes_over_a_secret_that_was_never_read(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    vault = Vault(B)
    vault.fault = "cannot be read (ThrottlingException)"
    async with turning(tmp_path, mock_clock, vault) as rig:
        with pytest.raises(UploadError, match="were not read yet"):
            rig.ring.all_keys()
        vault.fault = ""
        await rig.pass_until(lambda: rig.holds(A, B))
        assert set(rig.ring.all_keys()) == {A, B}
        # What is known stays known.
        vault.fault = "cannot be read (ThrottlingException)"
        rig.ring._secret.urge()
        await until(lambda: vault.asked == 3)
        assert set(rig.ring.all_keys()) == {A, B}
