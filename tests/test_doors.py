from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from audiohook import settings
from audiohook.doors import Doors
from audiohook.errors import ConfigError
from audiohook.ingest.listener import Listener
from audiohook.ingest.pump import Pump
from tests.house import KEY

HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


def make(*inherited: socket.socket, **flags: object) -> Doors:
    chosen = settings.load(
        env_file=Path(os.devnull),
        **{"api_key": KEY, "host": "127.0.0.1", "port": 0, **flags},
    )
    return Doors(chosen, inherited, log=structlog.get_logger("audiohook"))


def listening() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    sock.setblocking(False)
    return sock


async def close(doors: Doors) -> None:
    for listener in doors.listeners:
        await listener.aclose()


async def test_port_of_its_own_stays_open_while_it_stops(lines: list[Any]) -> None:
    doors = make()
    await doors.open()
    assert doors.port > 0
    assert not doors.hands_over
    assert not doors.sweeps
    assert lines == [
        {
            "event": "listening",
            "host": "127.0.0.1",
            "port": doors.port,
            "tls": False,
            "log_level": "info",
        }
    ]
    await close(doors)


async def test_port_that_is_shared_is_left_to_the_others(lines: list[Any]) -> None:
    first = make(reuse_port=True)
    await first.open()
    second = make(reuse_port=True, port=first.port)
    await second.open()
    assert second.port == first.port
    assert first.hands_over
    assert first.sweeps
    # Who does not ask to share does not get in.
    with pytest.raises(ConfigError, match=f"PORT: {first.port} is in use"):
        await make(port=first.port).open()
    await close(first)
    await close(second)


async def test_inherited_sockets_are_taken_in_place_of_the_port(
    lines: list[Any],
) -> None:
    sockets = [listening(), listening()]
    ports = [each.getsockname()[1] for each in sockets]
    doors = make(*sockets, port=1, reuse_port=True)
    await doors.open()
    assert [each.socket.getsockname()[1] for each in doors.listeners] == ports
    assert doors.port == ports[0]
    assert doors.hands_over
    # One queue, which stays.
    assert not doors.sweeps
    assert lines[0]["host"] == "inherited"
    await close(doors)


async def test_all_addresses_of_the_machine(lines: list[Any]) -> None:
    doors = make(host=None)
    await doors.open()
    assert lines[0]["host"] == "all interfaces"
    families = {listener.socket.family for listener in doors.listeners}
    assert socket.AF_INET in families
    await close(doors)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ({"host": "192.0.2.1"}, "HOST: is no address of this machine"),
        ({"host": "no-such-host.invalid"}, "HOST: cannot be listened on"),
    ],
)
async def test_address_that_cannot_be_is_one_line(
    flags: dict[str, Any], line: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        await make(**flags).open()
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


# What becomes of those who have connected and were not accepted yet.


async def serve_once_queued(doors: Doors, clients: int) -> list[bytes]:
    """Lets clients queue up, and serves only for the blink in which it stops."""
    listener = Listener(
        _nobody,
        pump=Pump(0.2),
        healthy=lambda: True,
        refused=lambda _: None,
    )
    heard: list[bytes] = []
    async with trio.open_nursery() as handlers:
        streams = [
            await trio.open_tcp_stream("127.0.0.1", doors.port) for _ in range(clients)
        ]
        for stream in streams:
            await stream.send_all(HEALTH)
        with trio.CancelScope() as scope:
            scope.cancel()
            await listener.serve(
                doors.listeners, handler_nursery=handlers, sweep=doors.sweeps
            )
        await listener.wait_no_handshakes()
        for stream in streams:
            with trio.move_on_after(0.2):
                heard.append(await _rest(stream))
            await trio.aclose_forcefully(stream)
    return heard


async def _nobody(*_: object) -> None:
    raise AssertionError("no call was made")


async def _rest(stream: trio.SocketStream) -> bytes:
    try:
        return await stream.receive_some()
    except trio.BrokenResourceError:
        return b"reset"


async def test_queue_of_a_shared_port_is_swept(lines: list[Any]) -> None:
    doors = make(reuse_port=True)
    await doors.open()
    heard = await serve_once_queued(doors, 20)
    assert len(heard) == 20
    assert all(each.startswith(b"HTTP/1.1 200 ") for each in heard)


async def test_queue_of_an_inherited_socket_waits_for_who_comes_next(
    lines: list[Any],
) -> None:
    kept = listening()
    doors = make(kept.dup())
    await doors.open()
    client = await trio.open_tcp_stream(*kept.getsockname())
    await client.send_all(HEALTH)
    assert await serve_once_queued(doors, 0) == []
    # The manager has the socket still, and hands it to the next process.
    next_doors = make(kept)
    await next_doors.open()
    listener = Listener(
        _nobody, pump=Pump(0.2), healthy=lambda: True, refused=lambda _: None
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            lambda: listener.serve(next_doors.listeners, handler_nursery=nursery)
        )
        assert (await client.receive_some()).startswith(b"HTTP/1.1 200 ")
        nursery.cancel_scope.cancel()
    await trio.aclose_forcefully(client)
