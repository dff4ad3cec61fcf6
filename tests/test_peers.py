"""The peers that we are measured against do the work, or they prove nothing."""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from typing import TYPE_CHECKING

import pytest
from bench.compare import summarise, table
from bench.measure_server import free_port, start_server, stop_server

from audiohook.simulator.load.framing import Opcode, masked_frame
from audiohook.simulator.load.shelf import open_shelf, recordings
from audiohook.simulator.load.verify import verify
from bench.peers import SERVERS, build
from tests.simulator.load.runs import Run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PEERS = [name for name in SERVERS if name != "ours"]
KEY = "0123456789abcdef"


@pytest.fixture(params=PEERS)
def port(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    (tmp_path / "recordings").mkdir()
    number = free_port()
    core = min(os.sched_getaffinity(0))
    server = start_server(tmp_path, number, KEY, core, name=request.param)
    yield number
    assert stop_server(server) == 0, (tmp_path / "server.log").read_text()


def make_load(port: int, *, calls: int, api_key: str = KEY) -> Run:
    uri = f"ws://127.0.0.1:{port}/"
    return Run(uri, calls=calls, length="1.5", ramp=0.1, api_key=api_key)


@pytest.mark.slow
async def test_peer_stores_every_byte(port: int, tmp_path: Path) -> None:
    # Enough to end together by the dozen, and long enough for pings.
    load = make_load(port, calls=30)
    await load.make()
    assert [call.faults for call in load.calls] == [()] * 30
    assert load.figures.times["pong"].total >= 30
    shelf = open_shelf(str(tmp_path / "recordings"))
    verdict = await verify(load.calls, shelf, raw_only=True)
    assert (verdict.sound, verdict.faults) == (30, [])


@pytest.mark.slow
async def test_peer_refuses_another_key(port: int) -> None:
    load = make_load(port, calls=1, api_key=KEY[:-1] + "e")
    await load.make()
    (fault,) = load.calls[0].faults
    assert fault.startswith("upgrade: the upgrade was answered with 401")


@pytest.mark.slow
def test_peer_keeps_what_came_before_a_lost_socket(port: int, tmp_path: Path) -> None:
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
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.settimeout(5)
        peer.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nx-api-key:  " + KEY.encode() + b" \r\n"
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


def test_build_says_why_it_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "broken.c"
    source.write_text("int main(void) { return nothing; }\n")
    with pytest.raises(RuntimeError, match="nothing"):
        build(source)
    assert list((tmp_path / "audiohook-bench").iterdir()) == []
    monkeypatch.setenv("CC", str(tmp_path / "no-compiler"))
    build.cache_clear()
    with pytest.raises(RuntimeError, match="there is no C compiler"):
        build(source)


def result(cores: float) -> dict[str, object]:
    spread = {"p50": 1.0, "max": 2.0}
    return {
        "cores_per_1000_calls": cores,
        "cpu_us_per_frame": cores * 100,
        "rss_kib_per_call": 50.0,
        "load": {"latency_ms": {"pong": spread, "closed": spread}},
    }


def test_ratio_is_taken_within_a_round() -> None:
    rounds = [
        {"ours": result(0.06), "floor": result(0.05)},
        {"ours": result(0.12), "floor": result(0.10)},
        {"floor": result(0.04)},
    ]
    ours, floor = summarise(rounds, ["ours", "floor", "absent"], "floor")
    assert (ours["ratio_median"], ours["ratio_min"]) == (1.2, 1.5)
    assert (ours["rounds"], ours["cores_min"], ours["cores_median"]) == (2, 0.06, 0.09)
    assert (floor["ratio_median"], floor["ratio_min"]) == (1.0, 1.0)


def test_table_without_the_floor_has_no_ratio() -> None:
    records = summarise([{"ours": result(0.06)}], ["ours"], "floor")
    head, rule, line = table(records, "floor").splitlines()
    assert "ratio to floor" in head
    assert len(head) == len(rule) == len(line)
    assert "None" not in line
