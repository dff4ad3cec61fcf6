"""Whole calls, over memory streams and a clock that does not wait."""

from __future__ import annotations

import io
import socket
import ssl
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
import trustme
from rich.console import Console
from trio_websocket import WebSocketRequest, serve_websocket

from audiohook.errors import ConfigError
from audiohook.protocol.messages import Channel
from audiohook.protocol.signature import fold, verify
from audiohook.protocol.timeline import SAMPLE_RATE_HZ, parse_duration
from audiohook.simulator import client
from audiohook.simulator.client import (
    EXIT_BREACHES,
    EXIT_OK,
    EXIT_USAGE,
    place_call,
    request_headers,
    run_call,
)
from audiohook.simulator.options import CallOptions
from audiohook.simulator.rules import Rule
from tests.simulator.fake_server import (
    URI,
    FakeServer,
    Message,
    call,
    rules_of,
    write_ulaw_wav,
)

if TYPE_CHECKING:
    from fractions import Fraction
    from pathlib import Path


SECRET = "TXlTdXBlclNlY3JldEtleVRlbGxOby0xITJAMyM0JDU="


def positions(server: FakeServer) -> list[tuple[str, Fraction | int]]:
    """Kinds and positions of all messages, in samples."""
    return [
        (message["type"], parse_duration(message["position"]) * SAMPLE_RATE_HZ)
        for _, message in server.texts
    ]


async def serve_one(request: WebSocketRequest) -> None:
    server = FakeServer()
    async with trio.open_nursery() as server.nursery:
        server.websocket = await request.accept()
        await server._converse()


# A good server.


async def test_the_file_arrives_to_the_byte(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    audio = write_ulaw_wav(tmp_path / "call.wav", channels=2, samples=20_001)
    server = FakeServer()
    report = await call(server, wav=tmp_path / "call.wav")
    assert bytes(server.audio) == audio
    assert server.frame_sizes == [3200] * 12 + [2 * 801]
    assert report.breaches == ()
    assert (report.frames, report.audio_bytes) == (13, 40_002)
    assert report.audio_samples == report.position_samples == 20_001
    assert report.channels == ("external", "internal")


async def test_real_time_means_a_frame_when_it_was_spoken(
    autojump_clock: trio.testing.MockClock,
) -> None:
    arrivals: list[float] = []

    class Server(FakeServer):
        async def on_audio(self, data: bytes) -> None:
            arrivals.append(trio.current_time() - self._began_at)

    server = Server()
    report = await call(server, duration=1.1)
    assert arrivals == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.1])
    assert report.duration == pytest.approx(1.1 + 0.25)


async def test_audio_from_before_opened_is_caught_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    arrivals: list[float] = []

    class Server(FakeServer):
        async def on_open(self, message: Message) -> None:
            await trio.sleep(3)
            await super().on_open(message)

        async def on_audio(self, data: bytes) -> None:
            arrivals.append(trio.current_time() - self._began_at)

    report = await call(Server(), duration=3.4)
    assert report.ok
    assert report.opened_latency == pytest.approx(3)
    assert arrivals == pytest.approx([3.0] * 15 + [3.2, 3.4])


async def test_pings_come_after_a_second_then_at_once_then_every_five(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Server(FakeServer):
        async def on_ping(self, message: Message) -> None:
            await trio.sleep(0.125)
            await super().on_ping(message)

    server = Server()
    report = await call(server, duration=12)
    assert server.times("ping") == pytest.approx([1.0, 1.125, 6.125, 11.125])
    rtts = [message["parameters"]["rtt"] for message in server.of_kind("ping")]
    assert rtts[0] == "PT0S"
    assert [float(parse_duration(rtt)) for rtt in rtts[1:]] == pytest.approx(
        [0.125] * 3
    )
    assert report.ok
    assert report.pong_latencies == pytest.approx([0.125] * 4)


async def test_fast_takes_no_time(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    audio = write_ulaw_wav(tmp_path / "call.wav", channels=2, samples=80_000)
    server = FakeServer()
    report = await call(
        server, wav=tmp_path / "call.wav", fast=True, pauses=((1.0, 30.0),)
    )
    assert report.duration == pytest.approx(0.25)
    assert bytes(server.audio) == audio
    assert report.position_samples == 80_000 + 240_000
    assert report.ok


async def test_gaps_move_the_position_and_not_the_audio(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    audio = write_ulaw_wav(tmp_path / "call.wav", channels=2, samples=24_000)
    server = FakeServer()
    report = await call(
        server,
        wav=tmp_path / "call.wav",
        pauses=((0.5, 0.7), (0.0, 0.3)),
        discards=((1.5, 2.000125),),
    )
    assert report.ok
    assert bytes(server.audio) == audio
    gaps = [
        (kind, position)
        for kind, position in positions(server)
        if kind not in {"ping", "open"}
    ]
    assert gaps == [
        ("paused", 0),
        ("resumed", 2400),
        ("paused", 4000),
        ("resumed", 9600),
        ("discarded", 12_000 + 16_001),
        ("close", 24_000 + 2400 + 5600 + 16_001),
    ]
    assert server.of_kind("resumed")[1]["parameters"] == {
        "start": "PT0.5S",
        "discarded": "PT0.7S",
    }
    assert server.of_kind("discarded")[0]["parameters"] == {
        "start": "PT1.5S",
        "discarded": "PT2.000125S",
    }
    assert server.times("resumed") == pytest.approx([0.3, 1.2])
    assert server.times("discarded") == pytest.approx([3.500125])
    assert server.times("close") == pytest.approx([report.position_samples / 8000])


async def test_a_pause_keeps_pinging_and_counts_its_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = FakeServer()
    report = await call(server, duration=1, pauses=((0.5, 8.0),))
    assert report.ok
    pings = [at for kind, at in positions(server) if kind == "ping"]
    assert pings == [8000, 8000, 48_000]


async def test_odd_frame_sizes_lose_nothing(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    audio = write_ulaw_wav(tmp_path / "call.wav", channels=2, samples=9_000)
    listed, drawn, again = FakeServer(), FakeServer(), FakeServer()
    wav = tmp_path / "call.wav"
    await call(listed, wav=wav, frame_samples=(1, 4000, 799), fast=True)
    assert listed.frame_sizes == [2, 8000, 1598, 2, 8000, 398]
    await call(drawn, wav=wav, frame_seed=7, fast=True)
    await call(again, wav=wav, frame_seed=7, fast=True)
    assert len(set(drawn.frame_sizes)) > 2
    assert drawn.frame_sizes == again.frame_sizes
    assert bytes(listed.audio) == bytes(drawn.audio) == audio


async def test_the_channel_that_the_server_takes_is_sent_alone(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    class Server(FakeServer):
        async def on_open(self, message: Message) -> None:
            internal = message["parameters"]["media"][2]
            await self.send("opened", {"media": [internal]})

    audio = write_ulaw_wav(tmp_path / "call.wav", channels=2, samples=8000)
    server = Server()
    report = await call(server, wav=tmp_path / "call.wav", fast=True)
    assert report.channels == ("internal",)
    assert bytes(server.audio) == audio[1::2]
    assert report.audio_samples == 8000


async def test_no_media_keeps_the_session_without_audio(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Server(FakeServer):
        async def on_open(self, message: Message) -> None:
            await self.send("opened", {"media": []})

    server = Server()
    report = await call(server, duration=7)
    assert report.ok
    assert server.frame_sizes == []
    assert server.kinds() == ["open", "ping", "ping", "ping", "close"]
    assert server.times("close") == pytest.approx([7])


async def test_probe_sends_one_empty_frame_and_closes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = FakeServer()
    report = await call(server, probe=True)
    nil = "00000000-0000-0000-0000-000000000000"
    assert report.ok
    assert server.frame_sizes == [0]
    assert server.kinds() == ["open", "close"]
    opened = server.of_kind("open")[0]["parameters"]
    assert opened["conversationId"] == nil
    assert opened["participant"] == {
        "id": nil,
        "ani": "",
        "aniName": "",
        "dnis": "",
    }


async def test_the_client_closes_the_websocket_without_a_code(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = FakeServer()
    await call(server, duration=0.2)
    assert server.close_code == 1005


async def test_hanging_up_leaves_no_last_word(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    audio = write_ulaw_wav(tmp_path / "call.wav", channels=2, samples=16_000)
    early, late = FakeServer(), FakeServer()
    wav = tmp_path / "call.wav"
    report = await call(early, wav=wav, hang_up_at=0.5)
    assert report.ok
    assert (early.kinds(), early.close_code) == (["open"], 1006)
    assert bytes(early.audio) == audio[:8000]
    report = await call(late, wav=wav, hang_up=True)
    assert report.ok
    assert (late.kinds(), late.close_code) == (["open", "ping", "ping"], 1006)
    assert bytes(late.audio) == audio


async def test_language_and_errors_are_told_in_their_place(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = FakeServer()
    report = await call(
        server,
        duration=1,
        fast=True,
        updates=((0.5, "es-419"),),
        errors=((1.0, 500, "out of order"),),
    )
    assert report.ok
    assert server.kinds() == ["open", "update", "error", "close"]
    assert server.of_kind("update")[0]["parameters"] == {"language": "es-419"}
    assert server.of_kind("error")[0]["parameters"] == {
        "code": 500,
        "message": "out of order",
    }
    assert [at for _, at in positions(server)] == [0, 4000, 8000, 8000]


# A server that pauses.


async def test_pause_and_resume_are_obeyed_and_accounted_for(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    class Server(FakeServer):
        async def on_audio(self, data: bytes) -> None:
            if len(self.frame_sizes) == 2:
                await self.send("pause")
                self.nursery.start_soon(self.later, 1.5, "resume")

    audio = write_ulaw_wav(tmp_path / "call.wav", channels=2, samples=8000)
    server = Server()
    report = await call(server, wav=tmp_path / "call.wav")
    assert report.ok
    assert bytes(server.audio) == audio
    assert server.of_kind("resumed")[0]["parameters"] == {
        "start": "PT0.4S",
        "discarded": "PT1.5S",
    }
    assert report.position_samples == 8000 + 12_000
    assert server.times("close") == pytest.approx([2.5])


async def test_start_paused_holds_all_audio_until_resume(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Server(FakeServer):
        async def on_open(self, message: Message) -> None:
            media = message["parameters"]["media"][:1]
            await self.send("opened", {"media": media, "startPaused": True})
            self.nursery.start_soon(self.later, 1.2, "resume")

        async def on_other(self, message: Message) -> None:
            if message["type"] == "resumed":
                assert not self.audio

    server = Server()
    report = await call(server, duration=0.4)
    assert report.ok
    assert server.kinds() == ["open", "paused", "ping", "ping", "resumed", "close"]
    assert server.of_kind("resumed")[0]["position"] == "PT1.2S"
    assert len(server.audio) == 6400


async def test_two_pauses_at_once_end_with_the_later(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Server(FakeServer):
        async def on_other(self, message: Message) -> None:
            if self.kinds().count("paused") == 1 and message["type"] == "paused":
                self.nursery.start_soon(self.later, 0.5, "pause")
                self.nursery.start_soon(self.later, 3.0, "resume")

    server = Server()
    report = await call(server, duration=1, pauses=((0.5, 2.0),))
    assert report.ok
    assert server.kinds().count("paused") == 2
    assert [m["parameters"] for m in server.of_kind("resumed")] == [
        {"start": "PT0.5S", "discarded": "PT3S"}
    ]


async def test_resume_during_our_own_pause_is_answered_with_paused(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Server(FakeServer):
        async def on_other(self, message: Message) -> None:
            if self.kinds().count("paused") == 1 and message["type"] == "paused":
                await self.send("pause")
                self.nursery.start_soon(self.later, 0.5, "resume")

    server = Server()
    report = await call(server, duration=0.8, pauses=((0.4, 1.0),))
    assert report.ok
    kinds = [kind for kind in server.kinds() if kind != "ping"]
    assert kinds == ["open", "paused", "paused", "paused", "resumed", "close"]
    assert server.of_kind("resumed")[0]["parameters"] == {
        "start": "PT0.4S",
        "discarded": "PT1S",
    }


# The handshake.


async def test_headers_are_those_of_genesys_and_the_signature_holds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = FakeServer()
    organization = "d7934305-0972-4844-938e-9060eef73d05"
    report = await call(
        server,
        duration=0.2,
        api_key="SGVsbG8",
        client_secret=SECRET.rstrip("="),
        organization_id=organization,
    )
    assert report.ok
    assert server.path == "/hook?tenant=1"
    assert server.headers["audiohook-organization-id"] == organization
    assert server.headers["audiohook-session-id"] == report.session_id
    assert server.headers["audiohook-retry-attempt"] == "0"
    assert server.headers["x-api-key"] == "SGVsbG8"
    assert {"audiohook-correlation-id", "signature", "signature-input"} <= set(
        server.headers
    )
    opened = server.of_kind("open")[0]
    assert opened["id"] == report.session_id
    assert opened["parameters"]["organizationId"] == organization
    options = CallOptions(uri=URI, api_key="SGVsbG8", client_secret=SECRET)
    headers = request_headers(options, now=1_700_000_000)
    headers.append((b"host", b"audiohook.test"))
    verify(
        fold(headers),
        b"/hook?tenant=1",
        secret=b"MySuperSecretKeyTellNo-1!2@3#4$5",
        now=1_700_000_001,
    )


async def test_without_a_key_there_is_neither_key_nor_signature(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = FakeServer()
    await call(server, duration=0.2)
    assert not {"x-api-key", "signature", "signature-input"} & set(server.headers)


@pytest.mark.parametrize(("status", "body"), [(401, b""), (503, b"full")])
async def test_refusal_says_the_status(
    autojump_clock: trio.testing.MockClock, status: int, body: bytes
) -> None:
    class Server(FakeServer):
        async def on_request(self, request: WebSocketRequest) -> bool:
            await request.reject(status, body=body)
            return False

    report = await call(Server())
    assert rules_of(report) == [Rule.UPGRADE]
    assert str(status) in report.breaches[0].text


# The command.


def test_run_call_returns_one_and_a_line_when_nobody_listens() -> None:
    console = Console(file=io.StringIO(), width=60)
    # Bound but not listening, so that nobody else can get the port.
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        options = CallOptions(uri=f"ws://127.0.0.1:{port}/", duration=0.2)
        assert run_call(options, console) == EXIT_BREACHES
    assert isinstance(console.file, io.StringIO)
    [line] = console.file.getvalue().splitlines()
    assert f"cannot connect to 127.0.0.1:{port}: connection refused" in line


def test_run_call_returns_two_for_options_that_cannot_be() -> None:
    console = Console(file=io.StringIO(), width=60)
    options = CallOptions(uri=URI, duration=1, pauses=((5.0, 1.0),))
    assert run_call(options, console) == EXIT_USAGE
    assert isinstance(console.file, io.StringIO)
    assert len(console.file.getvalue().splitlines()) == 1


async def test_run_call_returns_zero_when_all_is_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "LINGER_SECONDS", 0.0)
    out = io.StringIO()
    async with trio.open_nursery() as nursery:
        listening = await nursery.start(
            serve_websocket, serve_one, "127.0.0.1", 0, None
        )
        uri = f"ws://127.0.0.1:{listening.port}/"
        options = CallOptions(uri=uri, duration=2, fast=True)
        code = await trio.to_thread.run_sync(
            run_call, options, Console(file=out, width=60)
        )
        nursery.cancel_scope.cancel()
    assert code == EXIT_OK
    assert out.getvalue().splitlines()[-1] == "the server kept to the protocol"


async def test_tls_is_verified_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "LINGER_SECONDS", 0.0)
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    async with trio.open_nursery() as nursery:
        listening = await nursery.start(
            serve_websocket, serve_one, "127.0.0.1", 0, context
        )
        uri = f"wss://localhost:{listening.port}/"
        trusted = await place_call(
            CallOptions(uri=uri, duration=0.2, fast=True, ca_file=ca_file)
        )
        insecure = await place_call(
            CallOptions(uri=uri, duration=0.2, fast=True, insecure=True)
        )
        unknown = await place_call(CallOptions(uri=uri, duration=0.2))
        nursery.cancel_scope.cancel()
    assert trusted.ok
    assert insecure.ok
    assert rules_of(unknown) == [Rule.REACHABLE]
    assert "certificate" in unknown.breaches[0].text


async def test_a_channel_that_is_not_there_cannot_be_offered(tmp_path: Path) -> None:
    write_ulaw_wav(tmp_path / "mono.wav", channels=1, samples=10)
    options = CallOptions(uri=URI, wav=tmp_path / "mono.wav", only=Channel.INTERNAL)
    with pytest.raises(ConfigError, match="internal"):
        await place_call(options)
