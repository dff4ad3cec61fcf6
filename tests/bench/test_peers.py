"""The peers that we are measured against do the work, or they prove nothing."""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from typing import TYPE_CHECKING

import pytest

from audiohook.simulator.load.framing import Opcode, masked_frame
from audiohook.simulator.load.shelf import open_shelf, recordings
from audiohook.simulator.load.verify import verify
from bench.peers import PLAIN
from bench.processes import running
from tests.simulator.load.runs import Run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.processes import Running

# The others are compiled or fetched by `make bench`, and checked in the same run.


@pytest.fixture(params=PLAIN)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    core = min(os.sched_getaffinity(0))
    # It has refused a wrong key before it is taken for running.
    with running(request.param, tmp_path, core) as peer:
        yield peer
        peer.stop()
        assert peer.exit_codes == [0], peer.log.read_text()


def make_load(server: Running, *, calls: int, api_key: str | None = None) -> Run:
    uri = f"ws://127.0.0.1:{server.port}/"
    key = server.api_key if api_key is None else api_key
    return Run(uri, calls=calls, length="1.5", ramp=0.1, api_key=key)


@pytest.mark.slow
async def test_peer_stores_every_byte(server: Running, tmp_path: Path) -> None:
    # Enough to end together by the dozen, and long enough for pings.
    load = make_load(server, calls=30)
    await load.make()
    assert [call.faults for call in load.calls] == [()] * 30
    assert load.figures.times["pong"].total >= 30
    shelf = open_shelf(str(tmp_path / "recordings"))
    verdict = await verify(load.calls, shelf, raw_only=True)
    assert (verdict.sound, verdict.faults) == (30, [])


@pytest.mark.slow
async def test_peer_refuses_another_key(server: Running) -> None:
    another = server.api_key[:-1] + ("0" if server.api_key[-1] != "0" else "1")
    load = make_load(server, calls=1, api_key=another)
    await load.make()
    (fault,) = load.calls[0].faults
    assert fault.startswith("upgrade: the upgrade was answered with 401")


@pytest.mark.slow
def test_peer_keeps_what_came_before_a_lost_socket(
    server: Running, tmp_path: Path
) -> None:
    conversation, session = str(uuid.uuid4()), str(uuid.uuid4())
    audio = bytes(range(256)) * 4
    opening = {
        "parameters": {
            "conversationId": conversation,
            "participant": {"ani": 'a "}]{', "id": session},
            "media": [{"type": "audio"}, {"type": "none"}],
        },
        "type": "open",
        "id": session,
        "seq": 1,
    }
    with socket.create_connection(("127.0.0.1", server.port)) as peer:
        peer.settimeout(5)
        peer.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nx-api-key:  "
            + server.api_key.encode()
            + b" \r\n"
            b"UPGRADE: WebSocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        # RFC 6455, section 1.3.
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in peer.recv(4096)
        peer.sendall(masked_frame(Opcode.TEXT, json.dumps(opening).encode()))
        assert b'"media":[{"type": "audio"}]' in peer.recv(4096)
        # A message in two fragments with a ping between, and one that never ends.
        first = bytearray(masked_frame(Opcode.BINARY, audio[:301]))
        first[0] &= 0x7F
        second = masked_frame(Opcode.PING, b"ping")
        second += masked_frame(Opcode.CONTINUATION, audio[301:])
        peer.sendall(first + second + b"\x82\xc01234" + bytes(63))
        assert peer.recv(4096) == b"\x8a\x04ping"
    (folder,) = recordings(open_shelf(str(tmp_path / "recordings")))[conversation]
    path = tmp_path / "recordings" / str(folder.raw)
    until = time.monotonic() + 5
    while path.stat().st_size < len(audio) and time.monotonic() < until:
        time.sleep(0.05)
    assert path.read_bytes() == audio
