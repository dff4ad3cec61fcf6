"""Ways not to get a WebSocket; each must be told in one clear line."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from audiohook.errors import ConfigError
from audiohook.simulator.client import place_call
from audiohook.simulator.connection import HANDSHAKE_SECONDS
from audiohook.simulator.options import CallOptions
from audiohook.simulator.rules import Rule

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

URI = "ws://127.0.0.1:9/"


async def outcome(
    answer: Callable[[trio.abc.Stream], Awaitable[None]],
) -> tuple[Rule, str]:
    """Call a peer that does `answer` when the request has come."""
    ours, theirs = trio.testing.memory_stream_pair()

    async def dial(_options: CallOptions) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return ours

    async def peer() -> None:
        request = await theirs.receive_some()
        assert request.startswith(b"GET / HTTP/1.1\r\n")
        await answer(theirs)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer)
        report = await place_call(CallOptions(uri=URI), dialer=dial)
        nursery.cancel_scope.cancel()
    [breach] = report.breaches
    assert breach.text.isprintable()
    return breach.rule, breach.text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (
            b"",
            (
                "the server ended the connection without an answer; if it speaks TLS there,"
                " write wss:// for ws://"
            ),
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the server does not speak HTTP"),
        (
            b"\x15\x03\x01\x00\x02\x02\x16",
            "the server speaks TLS there: write wss:// for ws://",
        ),
        (
            (
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Accept: wrong\r\n\r\n"
            ),
            "the answer to the upgrade is not a valid WebSocket handshake",
        ),
        (
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
            "the upgrade was answered with 404 Not Found",
        ),
        # No length and cut short: the library never sees the end of it.
        (
            b"HTTP/1.1 502 Bad\x1b[2J Gateway\r\n\r\n<html>",
            "the upgrade was answered with 502 Bad\\x1b[2J Gateway",
        ),
        (b"HTTP/1.1 204\r\n\r\n", "the upgrade was answered with 204"),
        (
            b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
            (
                "the upgrade was answered with 401 Unauthorized; --api-key and"
                " --client-secret have to be those of the server"
            ),
        ),
    ],
)
async def test_answer_that_is_no_websocket(
    autojump_clock: trio.testing.MockClock, data: bytes, text: str
) -> None:
    async def answer(stream: trio.abc.Stream) -> None:
        await stream.send_all(data)
        await stream.aclose()

    assert await outcome(answer) == (Rule.UPGRADE, text)


async def test_no_answer_at_all(autojump_clock: trio.testing.MockClock) -> None:
    async def answer(stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    rule, text = await outcome(answer)
    assert rule is Rule.UPGRADE
    assert text == f"no answer to the upgrade within {HANDSHAKE_SECONDS:g} s"


async def failure(uri: str, **options: Any) -> str:  # noqa: ANN401 - passed on
    report = await place_call(CallOptions(uri=uri, duration=0.1, **options))
    [breach] = report.breaches
    assert breach.rule is Rule.REACHABLE
    assert not report.ok
    return breach.text


class _NoNames(trio.abc.HostnameResolver):
    async def getaddrinfo(self, *_args: object, **_kwargs: object) -> list[Any]:
        await trio.lowlevel.checkpoint()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, *_args: object) -> tuple[str, str]:
        raise AssertionError("nobody asks for names")


async def test_unknown_host() -> None:
    trio.socket.set_custom_hostname_resolver(_NoNames())
    text = await failure("ws://nowhere.test/")
    assert text == "no such host: nowhere.test (Name or service not known)"


async def test_nobody_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{bound.getsockname()[1]}"
        text = await failure(f"ws://{where}/")
    assert text == f"cannot connect to {where}: connection refused"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            "the server speaks none there: write ws:// for wss://",
        ),
        (b"", "the connection ended; if it speaks none there, write ws:// for wss://"),
    ],
)
async def test_tls_with_a_plain_server(data: bytes, words: str) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(data)

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        port = listener.socket.getsockname()[1]
        text = await failure(f"wss://127.0.0.1:{port}/")
        nursery.cancel_scope.cancel()
    assert text.startswith(f"TLS with 127.0.0.1:{port} failed: ")
    assert text.endswith(words)


async def test_certificate_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    with pytest.raises(ConfigError, match="No such file"):
        await place_call(CallOptions(uri="wss://127.0.0.1:9/", ca_file=path))
    path.write_text("not a certificate")
    with pytest.raises(ConfigError, match=str(path)):
        await place_call(CallOptions(uri="wss://127.0.0.1:9/", ca_file=path))
