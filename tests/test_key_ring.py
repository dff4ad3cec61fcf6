"""Keys that change while nobody stops: sources, failures, and who waits for them."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
import structlog
import structlog.testing
import trio
import trio.testing

from audiohook import settings
from audiohook.authentication import Authenticator, configured_keys
from audiohook.errors import ConfigError, UploadError
from audiohook.key_ring import KeyRing, gather_keys
from audiohook.keys import KeyRecord, label_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

A, B, C = "a2V5IGE=", "a2V5IGI=", "a2V5IGM="


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield cast("list[Any]", captured)


@pytest.fixture
def mock_clock() -> trio.testing.MockClock:
    """Stands still until it is told: threads take their own time."""
    return trio.testing.MockClock()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await trio.lowlevel.checkpoint()


async def pass_until(
    ring: Ring, clock: trio.testing.MockClock, condition: Callable[[], bool]
) -> None:
    """Lets time pass, but none of it while a thread is at work."""
    limiters = (ring.ring._disk, ring.ring._network)
    while not condition():
        await trio.lowlevel.checkpoint()
        if not any(limiter.borrowed_tokens for limiter in limiters):
            await trio.testing.wait_all_tasks_blocked()
            clock.jump(0.01)


async def jump(clock: trio.testing.MockClock, seconds: float) -> None:
    """Lets time pass once everybody waits."""
    await trio.testing.wait_all_tasks_blocked()
    clock.jump(seconds)


async def look_again(ring: Ring, clock: trio.testing.MockClock) -> None:
    """Asks as a request does that is refused, and waits as long as it has to."""
    asked = trio.Event()

    async def ask() -> None:
        await ring.ring.look_again()
        asked.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await pass_until(ring, clock, asked.is_set)


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


class Ring:
    """A ring, and what it reads from."""

    def __init__(self, folder: Path, vault: Vault | None = None) -> None:
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

    def write(self, *keys: str) -> None:
        self.file.write_text(json.dumps(dict.fromkeys(keys)))

    @property
    def labels(self) -> set[str]:
        return set(self.authenticator.records())

    def holds(self, *keys: str) -> bool:
        return self.labels == {label_of(key) for key in keys}


async def test_file_is_read_again_when_it_changes(
    tmp_path: Path,
    lines: list[Any],
    nursery: trio.Nursery,
    mock_clock: trio.testing.MockClock,
) -> None:
    ring = Ring(tmp_path)
    await nursery.start(ring.ring.run)
    assert ring.holds(A)
    ring.write(A, B)
    await pass_until(ring, mock_clock, lambda: ring.holds(A, B))
    ring.write(B)
    await pass_until(ring, mock_clock, lambda: ring.holds(B))
    changes = [line for line in lines if line["event"] == "keys_changed"]
    assert [line["added"] for line in changes] == [[label_of(B)], []]
    assert [line["removed"] for line in changes] == [[], [label_of(A)]]
    assert A not in str(lines)
    nursery.cancel_scope.cancel()


async def test_key_that_was_added_just_now_waits_for_no_interval(
    tmp_path: Path, nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    ring = Ring(tmp_path)
    await nursery.start(ring.ring.run)
    ring.write(B)
    await look_again(ring, mock_clock)
    assert ring.holds(B)
    assert trio.current_time() < 1.0
    nursery.cancel_scope.cancel()


async def test_many_refusals_share_one_look(
    tmp_path: Path, nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    ring = Ring(tmp_path)
    await nursery.start(ring.ring.run)
    ring.write(B)
    await look_again(ring, mock_clock)
    await trio.testing.wait_all_tasks_blocked()
    began = trio.current_time()
    ring.write(C)
    done = 0

    async def ask() -> None:
        nonlocal done
        await ring.ring.look_again()
        done += 1

    for _ in range(400):
        nursery.start_soon(ask)
    await trio.testing.wait_all_tasks_blocked()
    # More than may wait are told at once, and the others after the spacing.
    assert 400 - 256 <= done <= 400
    await pass_until(ring, mock_clock, lambda: done == 400)
    assert trio.current_time() - began < 1.0
    assert ring.holds(C)
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("text", ["", "{", "{}", '{"?": null}', '{"a": {}}'])
async def test_file_that_makes_no_sense_leaves_keys_and_is_told_once(
    tmp_path: Path,
    lines: list[Any],
    nursery: trio.Nursery,
    mock_clock: trio.testing.MockClock,
    text: str,
) -> None:
    ring = Ring(tmp_path)
    await nursery.start(ring.ring.run)
    ring.file.write_text(text)
    await look_again(ring, mock_clock)
    # For as long as it may be half written, and no longer.
    assert trio.current_time() >= 1.5
    await look_again(ring, mock_clock)
    assert ring.holds(A)
    ring.write(B)
    await look_again(ring, mock_clock)
    assert ring.holds(B)
    events = [line["event"] for line in lines]
    assert events == ["keys_not_read", "keys_changed", "keys_read_again"]
    nursery.cancel_scope.cancel()


async def test_request_waits_for_a_file_that_is_being_written(
    tmp_path: Path,
    lines: list[Any],
    nursery: trio.Nursery,
    mock_clock: trio.testing.MockClock,
) -> None:
    ring = Ring(tmp_path)
    await nursery.start(ring.ring.run)
    ring.file.unlink()
    asked = trio.Event()

    async def ask() -> None:
        await ring.ring.look_again()
        asked.set()

    nursery.start_soon(ask)
    for _ in range(5):
        await jump(mock_clock, 0.1)
    assert not asked.is_set()
    ring.write(B)
    await pass_until(ring, mock_clock, asked.is_set)
    assert ring.holds(B)
    assert [line["event"] for line in lines] == ["keys_changed"]
    nursery.cancel_scope.cancel()


async def test_same_size_and_time_is_read_all_the_same_while_it_is_young(
    tmp_path: Path, nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    ring = Ring(tmp_path)
    await nursery.start(ring.ring.run)
    ring.write(B)
    before = ring.file.stat()
    await look_again(ring, mock_clock)
    with ring.file.open("r+") as file:
        file.write(json.dumps({C: None}))
    os.utime(ring.file, ns=(before.st_atime_ns, before.st_mtime_ns))
    await pass_until(ring, mock_clock, lambda: ring.holds(C))
    nursery.cancel_scope.cancel()


# The secret


async def test_keys_of_both_sources_count(
    tmp_path: Path, nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    vault = Vault(B)
    ring = Ring(tmp_path, vault)
    await nursery.start(ring.ring.run)
    assert ring.holds(A, B)
    vault.hold(C)
    await jump(mock_clock, 299.0)
    await trio.testing.wait_all_tasks_blocked()
    assert vault.asked == 1
    await jump(mock_clock, 1.0)
    await until(lambda: ring.holds(A, C))
    nursery.cancel_scope.cancel()


async def test_unknown_keys_have_the_secret_read_once_a_minute(
    tmp_path: Path, nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    vault = Vault(B)
    ring = Ring(tmp_path, vault)
    await nursery.start(ring.ring.run)
    vault.hold(B, C)
    await _ask_often(ring, mock_clock)
    assert vault.asked == 1
    assert trio.current_time() < 60.0
    await jump(mock_clock, 60.0)
    await _ask_often(ring, mock_clock)
    assert vault.asked == 2
    assert ring.holds(A, B, C)
    nursery.cancel_scope.cancel()


async def _ask_often(ring: Ring, clock: trio.testing.MockClock) -> None:
    for _ in range(20):
        await look_again(ring, clock)


async def test_slow_secret_keeps_nobody_longer_than_two_seconds(
    tmp_path: Path, nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    vault = Vault(B)
    ring = Ring(tmp_path, vault)
    await nursery.start(ring.ring.run)
    vault.open.clear()
    vault.hold(C)
    await jump(mock_clock, 61.0)
    waited: list[float] = []

    async def ask() -> None:
        began = trio.current_time()
        await ring.ring.look_again()
        waited.append(trio.current_time() - began)

    nursery.start_soon(ask)
    await until(lambda: vault.asked == 2)
    await jump(mock_clock, 2.0)
    await until(lambda: bool(waited))
    assert waited == [2.0]
    assert ring.holds(A, B)
    vault.open.set()
    await until(lambda: ring.holds(A, C))
    nursery.cancel_scope.cancel()


async def test_secret_that_fails_leaves_its_last_keys_and_is_tried_soon(
    tmp_path: Path,
    lines: list[Any],
    nursery: trio.Nursery,
    mock_clock: trio.testing.MockClock,
) -> None:
    vault = Vault(B)
    ring = Ring(tmp_path, vault)
    await nursery.start(ring.ring.run)
    vault.fault = "cannot be read (ThrottlingException)"
    await jump(mock_clock, 300.0)
    await until(lambda: len(_told(lines)) == 1)
    vault.fault = ""
    vault.text = "nonsense"
    began = trio.current_time()
    await pass_until(ring, mock_clock, lambda: len(_told(lines)) == 2)
    assert trio.current_time() - began < 20.0
    assert ring.holds(A, B)
    vault.hold(C)
    await pass_until(ring, mock_clock, lambda: ring.holds(A, C))
    await until(lambda: lines[-1]["event"] == "keys_read_again")
    told = _told(lines)
    assert ["Throttling" in line["error"] for line in told] == [True, False]
    assert told[1]["error"].startswith("API_KEYS_SECRET: audiohook/keys is not JSON")
    nursery.cancel_scope.cancel()


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
    tmp_path: Path, nursery: trio.Nursery, lines: list[Any]
) -> None:
    vault = Vault()
    vault.fault = "cannot be read (EndpointConnectionError)"
    ring = Ring(tmp_path, vault)
    await nursery.start(ring.ring.run)
    assert ring.holds(A)
    assert [line["event"] for line in lines] == ["keys_not_read"]
    nursery.cancel_scope.cancel()


async def test_reload_has_the_secret_read_at_once(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    vault = Vault(B)
    ring = Ring(tmp_path, vault)
    await nursery.start(ring.ring.run)
    vault.hold(C)
    chosen = settings.load(
        env_file=Path(os.devnull), api_keys_file=ring.file, api_keys_secret="x"
    )
    ring.ring.take(chosen, {A: KeyRecord()})
    await until(lambda: ring.holds(A, C))
    nursery.cancel_scope.cancel()


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
    tmp_path: Path, nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    vault = Vault(B)
    vault.fault = "cannot be read (ThrottlingException)"
    ring = Ring(tmp_path, vault)
    await nursery.start(ring.ring.run)
    with pytest.raises(UploadError, match="were not read yet"):
        ring.ring.all_keys()
    vault.fault = ""
    await pass_until(ring, mock_clock, lambda: ring.holds(A, B))
    assert set(ring.ring.all_keys()) == {A, B}
    # What is known stays known.
    vault.fault = "cannot be read (ThrottlingException)"
    ring.ring._secret.urge()
    await until(lambda: vault.asked == 3)
    assert set(ring.ring.all_keys()) == {A, B}
    nursery.cancel_scope.cancel()
