"""What the service and its manager say to each other, over a real socket."""

from __future__ import annotations

import itertools
import json
import re
import signal
import ssl
from typing import TYPE_CHECKING

import pytest
import trio

from audiohook.simulator.client import place_call
from audiohook.simulator.options import CallOptions
from tests.house import KEY
from tests.slow.processes import Site, tell
from tests.slow.runners import BLOCKED_BY_SIGNAL
from tests.slow.scale import scaled
from tests.test_systemd import Manager
from tests.test_tls import AUTHORITY, write_pair
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from audiohook.simulator.report import CallReport
    from tests.slow.processes import Server

pytestmark = pytest.mark.slow

WATCHDOG_SECONDS = 4.0
BLOCKED_SECONDS = 3.0
LOAD_CALLS = scaled(150, 3000)
LOAD_SECONDS = scaled(8, 60)

NEW_KEY = "bmV3IGtleQ=="


class Ear:
    """Notes when the manager heard what."""

    def __init__(self, folder: Path) -> None:
        self._manager = Manager(str(folder / "notify"))
        self.address = self._manager.address
        self.heard: list[tuple[float, dict[str, str]]] = []

    def close(self) -> None:
        self._manager.close()

    async def listen(self) -> None:
        while True:
            now = trio.current_time()
            for datagram in self._manager.heard():
                fields = dict(line.split("=", 1) for line in datagram.splitlines())
                self.heard.append((now, fields))
            await trio.sleep(0.02)

    def times(self, name: str, since: float = 0.0) -> list[float]:
        return [at for at, fields in self.heard if name in fields and at >= since]

    def words(self, since: float = 0.0) -> list[str]:
        """Returns the changes of state, in order."""
        states = ("READY", "RELOADING", "STOPPING")
        return [
            name
            for at, fields in self.heard
            if at >= since
            for name in states
            if name in fields
        ]

    def status(self) -> str:
        return next(
            fields["STATUS"] for _, fields in reversed(self.heard) if "STATUS" in fields
        )

    def settings(self) -> dict[str, str]:
        return {
            "NOTIFY_SOCKET": self.address,
            "WATCHDOG_USEC": str(round(WATCHDOG_SECONDS * 1_000_000)),
        }

    def longest_silence(self, since: float, until: float) -> float:
        times = [since, *self.times("WATCHDOG", since), until]
        times = [at for at in times if at <= until]
        return max(b - a for a, b in itertools.pairwise(times))


@pytest.fixture
async def ear(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Ear]:
    ear = Ear(tmp_path)
    nursery.start_soon(ear.listen)
    yield ear
    nursery.cancel_scope.cancel()
    ear.close()


async def test_life_is_told_from_start_to_end(tmp_path: Path, ear: Ear) -> None:
    site = Site(tmp_path, ear.settings())
    async with site.serve() as server:
        await wait_until(lambda: ear.words() == ["READY"])
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                options = CallOptions(uri=server.uri, api_key=KEY, duration=6.0)
                nursery.start_soon(place_call, options)
            await wait_until(lambda: ear.status().startswith("3 calls live, "))
            server.process.send_signal(signal.SIGHUP)
            await wait_until(lambda: ear.words() == ["READY", "RELOADING", "READY"])
            (told,) = [each for _, each in ear.heard if "RELOADING" in each]
            assert re.fullmatch(r"[0-9]+", told["MONOTONIC_USEC"])
            server.terminate()
            await wait_until(lambda: ear.words()[-1] == "STOPPING")
            await wait_until(lambda: ear.status().startswith("draining: 3 calls live"))
            await wait_until(lambda: ear.times("EXTEND_TIMEOUT_USEC"))
            # A reload while it stops does not look as if it had started again.
            server.process.send_signal(signal.SIGHUP)
            await wait_until(lambda: len(server.lines("reloaded")) == 2)
        assert await server.wait() == 0
    assert ear.words() == ["READY", "RELOADING", "READY", "STOPPING"]
    began, ended = ear.times("READY")[0], ear.heard[-1][0]
    assert ear.longest_silence(began, ended) < WATCHDOG_SECONDS
    assert len(site.stored()) == 3


async def test_watchdog_starves_while_the_loop_is_blocked(
    tmp_path: Path, ear: Ear
) -> None:
    site = Site(tmp_path, ear.settings())
    runner = ("-c", BLOCKED_BY_SIGNAL.format(seconds=BLOCKED_SECONDS))
    async with site.serve(runner=runner) as server:
        await wait_until(lambda: len(ear.times("WATCHDOG")) >= 3)
        blocked_at = trio.current_time()
        server.process.send_signal(signal.SIGUSR1)
        await trio.sleep(BLOCKED_SECONDS + WATCHDOG_SECONDS)
        silence = ear.longest_silence(blocked_at, trio.current_time())
        assert silence >= BLOCKED_SECONDS - 0.2
        # It is over, and fed again.
        assert ear.times("WATCHDOG", blocked_at + BLOCKED_SECONDS)
        server.terminate()
        assert await server.wait() == 0


async def test_watchdog_is_fed_under_load(
    tmp_path: Path, ear: Ear, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(tmp_path, ear.settings() | {"KEEP_RAW": "false"})
    async with site.serve() as server:
        await wait_until(lambda: ear.words() == ["READY"])
        began = trio.current_time()
        ended = await site.command(
            *("load", server.uri, "--calls", str(LOAD_CALLS)),
            *("--duration", str(LOAD_SECONDS), "--together"),
            seconds=LOAD_SECONDS + 120,
        )
        silence = ear.longest_silence(began, trio.current_time())
        tell(capsys, f"{LOAD_CALLS} calls: longest silence {silence:.2f} s")
        assert b" failed 0 " in ended.stderr + ended.stdout
        assert len(server.lines("call_opened")) == LOAD_CALLS
        assert silence < WATCHDOG_SECONDS
        assert server.lines("calls_are_not_read") == []


async def test_manager_that_goes_away_costs_no_call(tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "notify"))
    site = Site(tmp_path, {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "400000"})
    async with site.serve() as server:
        await wait_until(lambda: any("READY" in each for each in manager.heard()))
        manager.close()
        (tmp_path / "notify").unlink()
        report = await place_call(CallOptions(uri=server.uri, api_key=KEY, fast=True))
        assert report.ok, report.breaches
        back = Manager(str(tmp_path / "notify"))
        server.terminate()
        assert await server.wait() == 0
        assert any("STOPPING" in each for each in back.heard())
        back.close()


# Odd moments.


@pytest.mark.parametrize("times", [1, 2])
async def test_sigterm_during_the_start_ends_it(tmp_path: Path, times: int) -> None:
    site = Site(tmp_path)
    async with site.start("serve") as server:
        # As early as it is heard: before that, the kernel ends the process.
        await wait_until(lambda: server.lines("admin_listening"))
        for _ in range(times):
            server.terminate()
        with trio.fail_after(20):
            assert await server.wait() == 0
    assert site.strays() == []


async def test_sigterms_in_the_same_millisecond_end_it_once(tmp_path: Path) -> None:
    site = Site(tmp_path, {"DRAIN_TIMEOUT": "1"})
    async with site.serve() as server:
        reports: list[CallReport] = []

        async def call() -> None:
            options = CallOptions(uri=server.uri, api_key=KEY, duration=30.0)
            reports.append(await place_call(options))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await wait_until(lambda: server.lines("call_opened"))
            for _ in range(5):
                server.terminate()
            with trio.fail_after(25):
                assert await server.wait() == 0
    assert (await site.command("recover")).returncode == 0
    assert len(site.stored()) == 1
    assert site.spooled() == []


async def test_service_without_standard_input_starts(tmp_path: Path) -> None:
    site = Site(tmp_path)
    runner = ("-c", "import os; os.close(0)\n" + BLOCKED_BY_SIGNAL.format(seconds=0))
    async with site.serve(runner=runner) as server:
        server.process.send_signal(signal.SIGHUP)
        await wait_until(lambda: server.lines("reloaded"))
        server.terminate()
        assert await server.wait() == 0


# Reading settings anew, while people talk.


def write_keys(path: Path, *keys: str) -> None:
    path.write_text(json.dumps(dict.fromkeys(keys)))


def certificate_at(port: int) -> str:
    return ssl.get_server_certificate(("127.0.0.1", port), timeout=10)


async def reload(server: Server, event: str, times: int) -> None:
    server.process.send_signal(signal.SIGHUP)
    await wait_until(lambda: len(server.lines(event)) == times)


async def test_reload_does_not_touch_live_calls(tmp_path: Path) -> None:
    keys, ca = tmp_path / "keys.json", tmp_path / "ca.pem"
    write_keys(keys, KEY)
    AUTHORITY.cert_pem.write_to_path(ca)
    chain, private = write_pair(tmp_path)
    site = Site(
        tmp_path,
        {
            "API_KEY": "",
            "API_KEYS_FILE": str(keys),
            "TLS_CERTIFICATE": str(chain),
            "TLS_KEY": str(private),
        },
    )
    env_file = site.work / ".env"
    async with site.serve() as server:
        uri = server.uri.replace("ws:", "wss:")

        async def call(key: str, duration: float = 0.5) -> CallReport:
            options = CallOptions(
                uri=uri, api_key=key, ca_file=ca, duration=duration, fast=duration < 1
            )
            return await place_call(options)

        async def certificate() -> str:
            return await trio.to_thread.run_sync(certificate_at, server.port)

        reports: list[CallReport] = []
        before = await certificate()
        async with trio.open_nursery() as nursery:

            async def live() -> None:
                reports.append(await call(KEY, 12.0))

            nursery.start_soon(live)
            await wait_until(lambda: server.lines("call_opened"))
            assert not (await call(NEW_KEY)).ok

            write_keys(keys, KEY, NEW_KEY)
            env_file.write_text("LOG_LEVEL=debug\n")
            write_pair(tmp_path)
            await reload(server, "reloaded", 1)
            assert server.lines("reloaded")[0]["log_level"] == "debug"
            assert (await call(NEW_KEY)).ok
            assert await certificate() != before

            keys.write_text("{")
            write_pair(tmp_path)
            current = await certificate()
            await reload(server, "reload_failed", 1)
            assert (await call(NEW_KEY)).ok
            assert (await call(KEY)).ok
            assert await certificate() == current

            write_keys(keys, NEW_KEY)
            await reload(server, "reloaded", 2)
            assert not (await call(KEY)).ok
            assert (await call(NEW_KEY)).ok
            assert await certificate() != current
            assert reports == []
        env_file.unlink()
        server.terminate()
        assert await server.wait() == 0
    (report,) = reports
    assert report.ok, report.breaches
    recording = site.stored()[report.session_id][0]
    assert recording.facts["ended"]["complete"] is True
    assert len(recording.audio(".raw")) == report.audio_bytes
