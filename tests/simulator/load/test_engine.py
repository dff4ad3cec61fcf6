"""Calls to servers on loopback, good ones and others. Frames come fast here."""

from __future__ import annotations

import ssl
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trustme

from audiohook.errors import ConfigError
from audiohook.protocol.timeline import format_duration
from audiohook.simulator.load._frames import audio
from audiohook.simulator.load.engine import Watcher
from audiohook.simulator.load.figures import MAX_LAG
from audiohook.simulator.load.manifest import SentGap
from audiohook.simulator.load.shelf import open_shelf
from audiohook.simulator.load.verify import verify
from tests.simulator.fake_server import FakeServer, Message
from tests.simulator.load.recorder import Recorder, Studio, serving
from tests.simulator.load.runs import Run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trio_websocket import WebSocketRequest

FAST = 20.0


async def make_calls(
    make: Callable[[], FakeServer],
    **options: Any,  # noqa: ANN401 - passed on
) -> tuple[Run, list[FakeServer]]:
    servers: list[FakeServer] = []

    def remember() -> FakeServer:
        servers.append(make())
        return servers[-1]

    async with serving(remember) as uri:
        run = Run(uri, **{"speed": FAST, "length": "2", **options})
        await run.make()
    return run, servers


async def test_calls_are_made_as_genesys_makes_them() -> None:
    # Two and a half seconds: pings come after one, and the next after six. So a busy
    # machine has the time to answer the first.
    run, servers = await make_calls(FakeServer, calls=5, api_key="key", length="50")
    assert [call.ending for call in run.calls] == ["closed"] * 5
    assert run.figures.endings == Counter(closed=5)
    assert run.figures.failed == 0
    assert run.figures.peak == 5
    assert run.figures.frames == 5 * 500
    sessions = {server.headers["audiohook-session-id"] for server in servers}
    assert sessions == {call.session for call in run.calls}
    sent = {call.session: call for call in run.calls}
    for server in servers:
        assert server.path == "/hook?tenant=1"
        assert server.headers["x-api-key"] == "key"
        assert server.kinds() == ["open", "ping", "ping", "close"]
        opening, *_, closing = (message for _, message in server.texts)
        call = sent[opening["id"]]
        assert opening["parameters"]["conversationId"] == call.conversation
        assert closing["position"] == "PT50S"
        assert server.frame_sizes == [1600] * 500
        assert server.audio == audio(call.voice, 0, 100_000)
        # No status, as Genesys closes.
        assert server.close_code == 1005
    times = run.figures.times
    assert times["opened"].total == times["closed"].total == 5
    assert times["pong"].total == 10


async def test_requests_are_signed() -> None:
    run, servers = await make_calls(
        FakeServer, api_key="key", client_secret="c2VjcmV0", length="0.1"
    )
    assert run.figures.failed == 0
    assert 'keyid="key"' in servers[0].headers["signature-input"]


class Patient(FakeServer):
    """Tells how long the sending of the audio took."""

    def __init__(self) -> None:
        super().__init__()
        self.opened_at = 0.0
        self.last_frame_at = 0.0

    async def on_open(self, message: Message) -> None:
        self.opened_at = trio.current_time()
        await super().on_open(message)

    async def on_audio(self, data: bytes) -> None:
        self.last_frame_at = trio.current_time()


async def test_frames_come_in_real_time() -> None:
    _, servers = await make_calls(Patient, speed=1.0, length="1", frame_bytes=1600)
    (server,) = servers
    assert isinstance(server, Patient)
    # A busy machine may take longer, but none is faster.
    assert server.last_frame_at - server.opened_at > 0.85


async def test_gaps_are_told_and_noted() -> None:
    run, servers = await make_calls(FakeServer, calls=4, pause=1.0, discard=1.0)
    sent = {call.session: call for call in run.calls}
    assert run.figures.failed == 0
    for server in servers:
        call = sent[server.of_kind("open")[0]["id"]]
        assert sorted(gap.kind for gap in call.gaps) == ["discarded", "paused"]
        told = [*server.of_kind("discarded"), *server.of_kind("resumed")]
        lengths = [
            round(float(each["parameters"]["discarded"][2:-1]) * 8000) for each in told
        ]
        assert sorted(lengths) == sorted(gap.length_samples for gap in call.gaps)
        assert len(server.of_kind("paused")) == 1
        total = 16_000 + sum(lengths)
        assert server.of_kind("close")[0]["position"] == format_duration(total)
        assert len(server.audio) == call.audio_bytes == 32_000


class PausesOnce(FakeServer):
    """Has the client pause for a moment, in the middle of the audio."""

    async def on_audio(self, data: bytes) -> None:
        if len(self.frame_sizes) == 5:
            await self.send("pause")

    async def on_other(self, message: Message) -> None:
        if message["type"] == "paused":
            self.audio_when_paused = len(self.audio)
            await trio.sleep(0.05)
            assert len(self.audio) == self.audio_when_paused
            await self.send("resume")


async def test_server_may_pause() -> None:
    run, servers = await make_calls(PausesOnce, length="1")
    (server,), (call,) = servers, run.calls
    assert call.faults == ()
    assert isinstance(server, PausesOnce)
    assert server.audio == audio(call.voice, 0, 2000)
    (gap,) = call.gaps
    # 50 ms have passed, and what the machine took.
    assert gap == SentGap("paused", server.audio_when_paused // 2, gap.length_samples)
    assert gap.length_samples >= 400


class Mono(FakeServer):
    async def on_open(self, message: Message) -> None:
        await self.send("opened", {"media": message["parameters"]["media"][1:2]})


async def test_server_may_take_one_channel() -> None:
    run, servers = await make_calls(Mono, length="1")
    assert (run.calls[0].channels, run.calls[0].frame_bytes) == (1, 800)
    assert servers[0].audio == audio(run.calls[0].voice, 0, 1000)
    assert servers[0].of_kind("close")[0]["position"] == "PT1S"


class Deaf(FakeServer):
    async def on_open(self, message: Message) -> None:
        await self.send("opened", {"media": []})


async def test_server_may_want_no_audio() -> None:
    run, servers = await make_calls(Deaf)
    assert (run.calls[0].ending, run.calls[0].channels) == ("closed", 0)
    assert servers[0].frame_sizes == []


async def test_probes_and_lost_connections_are_made() -> None:
    run, servers = await make_calls(FakeServer, calls=3, hang_up=1.0)
    assert run.figures.endings == Counter({"hung-up": 3})
    for server in servers:
        assert "close" not in server.kinds()
        assert server.close_code == 1006
        assert len(server.audio) == 32_000
    run, servers = await make_calls(FakeServer, calls=3, probe=1.0)
    assert run.figures.endings == Counter(probed=3)
    for server in servers:
        assert server.kinds() == ["open", "close"]
        nil = "00000000-0000-0000-0000-000000000000"
        assert server.of_kind("open")[0]["parameters"]["conversationId"] == nil
        assert server.frame_sizes == [0]


async def test_calls_end_in_the_same_instant_when_asked_to() -> None:
    ends: list[float] = []

    class Noting(FakeServer):
        async def on_close(self, message: Message) -> None:
            ends.append(trio.current_time())
            await super().on_close(message)

    asked_at = trio.current_time()
    run, _ = await make_calls(Noting, calls=8, ramp=1.0, length="10", together=True)
    assert run.figures.failed == 0
    # None before the last could have said all that there is to say.
    assert min(ends) - asked_at >= 1.0 + 10 / FAST
    # And each by then: those that began later had less to say.
    assert len({call.audio_bytes for call in run.calls}) > 4


async def test_call_that_ends_is_followed() -> None:
    run, servers = await make_calls(FakeServer, calls=2, total=6, length="0.2")
    assert len(servers) == 6
    assert (run.figures.begun, run.figures.peak) == (6, 2)
    assert sorted(call.number for call in run.calls) == list(range(6))


# What servers do wrong.


class Refusing(FakeServer):
    async def on_request(self, request: WebSocketRequest) -> bool:
        await request.reject(503)
        return False


class WrongSeq(FakeServer):
    async def on_open(self, message: Message) -> None:
        media = message["parameters"]["media"][:1]
        await self.send("opened", {"media": media}, seq=2)


class Disconnecting(FakeServer):
    async def on_open(self, message: Message) -> None:
        await self.send("disconnect", {"reason": "error", "info": "no room"})


class Leaving(FakeServer):
    async def on_audio(self, data: bytes) -> None:
        if len(self.frame_sizes) == 3:
            await self.websocket.aclose(1011)


class LeavingAfterClosed(FakeServer):
    async def on_close(self, message: Message) -> None:
        await super().on_close(message)
        await self.websocket.aclose(1000)


class Talking(FakeServer):
    async def on_audio(self, data: bytes) -> None:
        if len(self.frame_sizes) == 3:
            await self.send_raw(b"\xff" * 16)


class NotJson(FakeServer):
    async def on_open(self, message: Message) -> None:
        await self.send_raw("opened")


@pytest.mark.parametrize(
    ("server", "rule", "words"),
    [
        (Refusing, "upgrade", "answered with 503"),
        (WrongSeq, "seq", "opened has seq 2, not 1"),
        (Disconnecting, "disconnect", "no room"),
        (Leaving, "socket", "before closed, while open: WebSocket closed with code"),
        (LeavingAfterClosed, "socket", "instead of leaving that to the client"),
        (Talking, "binary", "a binary message of 16 bytes"),
        (NotJson, "message", "'opened'"),
    ],
)
async def test_fault_of_a_server_is_told(
    server: type[FakeServer], rule: str, words: str
) -> None:
    run, _ = await make_calls(server, calls=2)
    assert run.figures.failures == Counter({rule: 2})
    assert words in run.figures.examples[rule]
    assert run.figures.endings == Counter(failed=2)
    for call in run.calls:
        assert call.ending == "failed"
        assert words in call.faults[0]


class Nonsense(FakeServer):
    """Sends what is no frame."""

    async def serve(self, stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"220 smtp.example.com ready\r\n")
        await stream.aclose()


class Silent(FakeServer):
    async def serve(self, stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.aclose()


@pytest.mark.parametrize(
    ("server", "words"),
    [(Nonsense, "does not speak HTTP"), (Silent, "the connection was lost")],
)
async def test_what_is_no_server_is_told(server: type[FakeServer], words: str) -> None:
    run, _ = await make_calls(server)
    assert run.figures.failures == Counter(upgrade=1)
    assert words in run.figures.examples["upgrade"]


async def test_nobody_there_is_told() -> None:
    async with serving(FakeServer) as uri:
        pass
    run = Run(uri, calls=2)
    await run.make()
    assert run.figures.failures == Counter(reachable=2)
    assert "connection refused" in run.figures.examples["reachable"]


def test_unknown_host_is_told_before_anything_is_sent() -> None:
    with pytest.raises(ConfigError, match="no such host"):
        Run("ws://host.invalid/")


# TLS.


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


async def test_calls_are_made_over_tls(
    authority: trustme.CA, tls: ssl.SSLContext, tmp_path: Path
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    studio = Studio(tmp_path)
    async with serving(partial(Recorder, studio), tls) as uri:
        run = Run(uri, calls=5, length="25", speed=FAST, ca_file=tmp_path / "ca.pem")
        await run.make()
    assert [call.faults for call in run.calls] == [()] * 5
    verdict = await verify(run.calls, open_shelf(str(tmp_path)), raw_only=True)
    assert (verdict.sound, verdict.faults) == (5, [])
    assert run.figures.held_frames == 0


async def test_certificate_that_is_not_trusted_is_told(tls: ssl.SSLContext) -> None:
    async with serving(FakeServer, tls) as uri:
        run = Run(uri)
        await run.make()
        trusting = Run(uri, insecure=True, length="0.1")
        await trusting.make()
    assert run.figures.failures == Counter(reachable=1)
    assert "--insecure" in run.figures.examples["reachable"]
    assert trusting.figures.failed == 0


# Stopping, and lateness.


async def test_stopped_load_ends_its_calls_as_they_should() -> None:
    class Stopping(Watcher):
        run: Run

        def steady(self) -> None:
            self.run.engine.stop()

    watcher = Stopping()
    async with serving(FakeServer) as uri:
        run = watcher.run = Run(uri, calls=4, keep=3600.0, length="3600")
        run.engine._watcher = watcher
        watcher.ended = run.ended  # type: ignore[method-assign]
        with trio.fail_after(20):
            await run.make()
    assert [call.ending for call in run.calls] == ["closed"] * 4
    assert all(call.audio_bytes < 160_000 for call in run.calls)


async def test_generator_that_stands_still_says_so() -> None:
    class Stalling(Watcher):
        def steady(self) -> None:
            # As if the machine had other things to do.
            time.sleep(MAX_LAG + 0.1)

    async with serving(FakeServer) as uri:
        run = Run(uri, calls=2, length="2")
        run.engine._watcher = Stalling()
        await run.make()
    assert run.figures.failed == 0
    assert run.figures.fell_behind
    assert run.figures.lag.largest > MAX_LAG
    assert run.figures.turns.largest > MAX_LAG
