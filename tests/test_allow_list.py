"""Who may connect: networks, proxies, and what those say, against a whole service."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from audiohook import settings
from audiohook.allow_list import AllowList
from audiohook.errors import ConfigError
from audiohook.networks import Networks, address_of
from tests.house import KEY, House, house, upgrade_request
from tests.ingest.test_proxy_header import proxy_header
from tests.test_tls import client_context, write_pair

LOOPBACK = Networks(["127.0.0.0/8"])
GENESYS = Networks(["198.51.100.0/24"])
UPGRADE = upgrade_request()


def forwarded(*values: str) -> bytes:
    fields = "".join(f"X-Forwarded-For: {value}\r\n" for value in values)
    return upgrade_request(b"X-API-KEY: " + KEY.encode() + b"\r\n" + fields.encode())


async def ask(place: House, data: bytes) -> bytes:
    """Sends something, and returns the first line of the answer; empty if none."""
    async with await trio.open_tcp_stream("127.0.0.1", place.port) as stream:
        try:
            await stream.send_all(data)
            with trio.fail_after(30):
                return (await stream.receive_some()).split(b"\r\n")[0]
        except trio.BrokenResourceError:
            return b""


IN = b"HTTP/1.1 101 "
OUT = b""


async def test_address_that_is_not_allowed_is_cut_off_and_told(
    tmp_path: Path, lines: list[Any]
) -> None:
    async with house(tmp_path, allow_from=GENESYS) as place:
        for _ in range(30):
            assert await ask(place, UPGRADE) == OUT
        count = place.service.metrics.refused.labels("network")._value.get()
        assert count == 30
        told = [each for each in lines if each["event"] == "connection_refused"]
        assert 1 <= len(told) < 30
        assert (told[0]["reason"], told[0]["client"]) == ("network", "127.0.0.1")


async def test_address_that_is_allowed_gets_in_and_is_in_the_log(
    tmp_path: Path, lines: list[Any]
) -> None:
    async with house(tmp_path, allow_from=LOOPBACK) as place:
        report = await place.call(duration=0.2)
        assert report.ok
        await place.settle()
    (line,) = [each for each in lines if each["event"] == "call_opened"]
    assert line["client"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (proxy_header("198.51.100.7") + UPGRADE, IN),
        (proxy_header("::ffff:198.51.100.7", extra=b"\x04\0\0") + UPGRADE, IN),
        (proxy_header("203.0.113.7") + UPGRADE, OUT),
        (proxy_header("2001:db8::7") + UPGRADE, OUT),
        (UPGRADE, OUT),
        # What a client says behind a proxy that says it otherwise.
        (proxy_header("203.0.113.7") + forwarded("198.51.100.7"), OUT),
        (b"PROXY TCP4 198.51.100.7 10.0.0.1 1 2\r\n" + UPGRADE, OUT),
        # A look at our health by the proxy itself.
        (
            proxy_header("198.51.100.7", command=0)
            + b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
            b"HTTP/1.1 200 ",
        ),
    ],
)
async def test_proxy_protocol_says_who_connects(
    tmp_path: Path, data: bytes, answer: bytes
) -> None:
    options: dict[str, Any] = {
        "allow_from": GENESYS,
        "trusted_proxies": LOOPBACK,
        "proxy_protocol": "v2",
    }
    async with house(tmp_path, **options) as place:
        got = await ask(place, data)
        assert got.startswith(answer)
        assert bool(got) == bool(answer)


async def test_header_of_somebody_else_is_not_believed(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "trusted_proxies": Networks(["10.0.0.0/8"]),
        "proxy_protocol": "v2",
    }
    async with house(tmp_path, **options) as place:
        assert await ask(place, proxy_header("198.51.100.7") + UPGRADE) == OUT
        refused = place.service.metrics.refused.labels("not_a_proxy")
        assert refused._value.get() == 1


async def test_header_comes_before_tls_and_in_pieces(tmp_path: Path) -> None:
    chain, key = write_pair(tmp_path)
    options: dict[str, Any] = {
        "allow_from": GENESYS,
        "trusted_proxies": LOOPBACK,
        "proxy_protocol": "v2",
        "tls_certificate": chain,
        "tls_key": key,
    }
    async with house(tmp_path / "x", **options) as place:
        tcp = await trio.open_tcp_stream("127.0.0.1", place.port)
        for byte in proxy_header("198.51.100.7"):
            await tcp.send_all(bytes([byte]))
        stream = trio.SSLStream(tcp, client_context(), server_hostname="127.0.0.1")
        await stream.send_all(UPGRADE)
        assert (await stream.receive_some()).startswith(IN)
        await trio.aclose_forcefully(stream)


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (forwarded("198.51.100.7"), IN),
        (forwarded("1.2.3.4, 198.51.100.7"), IN),
        (forwarded("198.51.100.7, 127.0.0.9"), IN),
        (forwarded("198.51.100.7", "203.0.113.9"), b"HTTP/1.1 401 "),
        (forwarded("198.51.100.7, 203.0.113.9"), b"HTTP/1.1 401 "),
        (forwarded("nonsense"), b"HTTP/1.1 401 "),
        # A proxy that does not say it is no way in.
        (UPGRADE, b"HTTP/1.1 401 "),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 200 "),
    ],
)
async def test_proxy_says_who_sends_a_request(
    tmp_path: Path, data: bytes, answer: bytes
) -> None:
    options: dict[str, Any] = {"allow_from": GENESYS, "trusted_proxies": LOOPBACK}
    async with house(tmp_path, **options) as place:
        assert (await ask(place, data)).startswith(answer)


async def test_nobody_else_is_believed_what_he_forwards(tmp_path: Path) -> None:
    async with house(tmp_path, allow_from=GENESYS) as place:
        assert await ask(place, forwarded("198.51.100.7")) == OUT


async def test_file_is_read_again_and_keeps_its_last_good_state(
    tmp_path: Path, lines: list[Any]
) -> None:
    path = tmp_path / "networks"
    path.write_text("198.51.100.0/24\n")
    chosen = settings.load(env_file=Path(os.devnull), allow_from_file=path)
    allowed = AllowList(chosen, log=structlog.get_logger("audiohook"))
    address = address_of("203.0.113.9")
    assert address is not None
    assert not allowed.admits(address)
    path.write_text("nonsense\n")
    await allowed.look()
    await allowed.look()
    await allowed.look()
    assert not allowed.admits(address)
    path.write_text("203.0.113.0/24 # another\n")
    await allowed.look()
    assert allowed.admits(address)
    events = [line["event"] for line in lines]
    assert events == ["networks_not_read", "networks_changed"]


def test_file_that_makes_no_sense_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "networks"
    path.write_text("10.0.0.1/8\n")
    chosen = settings.load(env_file=Path(os.devnull), allow_from_file=path)
    with pytest.raises(ConfigError) as caught:
        AllowList(chosen, log=structlog.get_logger("audiohook"))
    assert str(caught.value) == (
        f"ALLOW_FROM_FILE: {path} entry 1 has bits beyond its length; for example a"
        " line 198.51.100.0/24"
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"allow_from": "10.0.0.1/8"}, "ALLOW_FROM: entry 1 has bits beyond"),
        ({"trusted_proxies": "10.0.0.0/8,x"}, "TRUSTED_PROXIES: entry 2 is no network"),
        ({"proxy_protocol": "v2"}, "PROXY_PROTOCOL: goes with TRUSTED_PROXIES"),
        ({"proxy_protocol": "v1"}, "PROXY_PROTOCOL: "),
    ],
)
def test_setting_that_makes_no_sense_stops_the_start(
    flags: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{said}"):
        settings.load(env_file=Path(os.devnull), **flags)
