"""What a server does wrong: that it is noted, and how a client takes it."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from audiohook.simulator.client import place_call
from audiohook.simulator.options import CallOptions
from audiohook.simulator.rules import Rule
from tests.simulator.fake_server import URI, FakeServer, Message, call, rules_of


async def test_no_opened(autojump_clock: trio.testing.MockClock) -> None:
    class Server(FakeServer):
        async def on_open(self, message: Message) -> None:
            pass

    server = Server()
    report = await call(server)
    assert rules_of(report) == [Rule.OPENED]
    assert server.kinds() == ["open", "error", "close"]
    assert server.of_kind("error")[0]["parameters"]["code"] == 408
    assert server.of_kind("close")[0]["parameters"] == {"reason": "error"}
    assert server.times("close") == pytest.approx([5])
    assert report.closed_latency is not None


async def test_opened_too_late(autojump_clock: trio.testing.MockClock) -> None:
    class Server(FakeServer):
        async def on_open(self, message: Message) -> None:
            await trio.sleep(6)
            await super().on_open(message)

    report = await call(Server())
    assert rules_of(report) == [Rule.OPENED]
    assert report.opened_latency == pytest.approx(6)
    assert report.frames == 0


async def test_no_pong(autojump_clock: trio.testing.MockClock) -> None:
    class Server(FakeServer):
        async def on_ping(self, message: Message) -> None:
            pass

    server = Server()
    report = await call(server, duration=20, frame_ms=350)
    assert rules_of(report) == [Rule.PONG]
    assert server.times("close") == pytest.approx([6])
    assert server.of_kind("error")[0]["parameters"]["code"] == 408
    assert report.audio_samples == 17 * 2800


async def test_no_closed(autojump_clock: trio.testing.MockClock) -> None:
    class Server(FakeServer):
        async def on_close(self, message: Message) -> None:
            pass

    server = Server()
    report = await call(server, duration=0.2)
    assert rules_of(report) == [Rule.CLOSED]
    assert report.duration == pytest.approx(0.2 + 10)
    assert server.kinds() == ["open", "close", "error"]
    assert server.close_code == 1006


async def test_text_after_closed(autojump_clock: trio.testing.MockClock) -> None:
    class Server(FakeServer):
        async def on_close(self, message: Message) -> None:
            await self.send("closed")
            await self.send("pong")

    report = await call(Server(), duration=0.2)
    assert rules_of(report) == [Rule.AFTER_CLOSED]


@pytest.mark.parametrize("moment", ["open", "ping", "close", "closed"])
async def test_the_server_closes_the_socket(
    autojump_clock: trio.testing.MockClock, moment: str
) -> None:
    class Server(FakeServer):
        async def on_open(self, message: Message) -> None:
            await super().on_open(message)
            if moment == "open":
                await self.websocket.aclose(1011, "Oops\n")

        async def on_ping(self, message: Message) -> None:
            await self.websocket.aclose(1000)

        async def on_close(self, message: Message) -> None:
            if moment == "closed":
                await super().on_close(message)
            await self.websocket.aclose(1000)

    report = await call(Server(), duration=0.2 if "close" in moment else 5)
    assert rules_of(report) == [Rule.SOCKET]
    assert ("after closed" in report.breaches[0].text) is (moment == "closed")
    assert report.breaches[0].text.isprintable()


async def test_the_connection_is_lost(autojump_clock: trio.testing.MockClock) -> None:
    class Server(FakeServer):
        async def on_ping(self, message: Message) -> None:
            await self.websocket._stream.aclose()

    report = await call(Server())
    assert rules_of(report) == [Rule.SOCKET]
    assert "lost" in report.breaches[0].text


async def test_binary_frame(autojump_clock: trio.testing.MockClock) -> None:
    class Server(FakeServer):
        async def on_audio(self, data: bytes) -> None:
            await self.send_raw(b"\xff\xff")

    server = Server()
    report = await call(server)
    assert rules_of(report) == [Rule.BINARY]
    assert server.of_kind("error")[0]["parameters"]["code"] == 415


@pytest.mark.parametrize("reason", ["completed", "unauthorized", "error"])
async def test_disconnect_is_answered_with_close(
    autojump_clock: trio.testing.MockClock, reason: str
) -> None:
    class Server(FakeServer):
        async def on_open(self, message: Message) -> None:
            await self.send("disconnect", {"reason": reason, "info": "no\nmore"})

    server = Server()
    report = await call(server)
    assert rules_of(report) == ([] if reason == "completed" else [Rule.DISCONNECT])
    assert report.disconnect_reason == reason
    assert server.of_kind("close")[0]["parameters"] == {"reason": "disconnect"}
    assert report.closed_latency is not None


async def test_no_answer_to_the_closing_handshake(
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Server(FakeServer):
        async def on_close(self, message: Message) -> None:
            await super().on_close(message)
            deaf = self.websocket._wsproto
            monkeypatch.setattr(deaf, "receive_data", lambda _: None)

    report = await call(Server(), duration=0.2)
    assert rules_of(report) == [Rule.SOCKET]
    assert report.duration == pytest.approx(0.2 + 0.25 + 5)


async def test_a_server_that_stops_reading_is_noticed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    # With memory streams that hand over only what is received.
    ours, theirs = trio.testing.lockstep_stream_pair()

    class Server(FakeServer):
        async def on_audio(self, data: bytes) -> None:
            await trio.sleep_forever()

    async def dial(_options: CallOptions) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return ours

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Server().serve, theirs)
        report = await place_call(CallOptions(uri=URI), dialer=dial)
        nursery.cancel_scope.cancel()
    assert rules_of(report) == [Rule.PONG, Rule.CLOSED]


async def test_reconnect_closes_only_where_it_is_enabled(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Server(FakeServer):
        async def on_ping(self, message: Message) -> None:
            await super().on_ping(message)
            await self.send("reconnect", {"info": "redeploy"})

    enabled, disabled = Server(), Server()
    assert (await call(enabled, duration=3, reconnections=True)).ok
    assert (await call(disabled, duration=3)).ok
    assert enabled.of_kind("close")[0]["parameters"] == {"reason": "reconnect"}
    assert disabled.of_kind("close")[0]["parameters"] == {"reason": "end"}


async def test_events_are_counted_and_discarded(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Server(FakeServer):
        async def on_audio(self, data: bytes) -> None:
            await self.send("event", {"entities": [{"type": "x", "data": {}}]})

    report = await call(Server(), duration=0.6)
    assert report.ok
    assert report.events_received == 3
