from __future__ import annotations

import pytest

from audiohook.errors import RemoteProtocolError
from audiohook.ingest.http import parse_head
from tests.house import upgrade_request

GOOD = upgrade_request()


def changed(old: bytes, new: bytes) -> bytes:
    assert old in GOOD
    return GOOD.replace(old, new)


def with_line(line: bytes) -> bytes:
    return GOOD[:-2] + line + b"\r\n\r\n"


@pytest.mark.parametrize(
    "data",
    [
        GOOD,
        changed(b"Connection: Upgrade", b"Connection: keep-alive, upgrade"),
        with_line(b"Connection: keep-alive"),
        with_line(b"Content-Length: 0"),
        with_line(b"Sec-WebSocket-Extensions: permessage-deflate"),
        with_line(b"X-Folded: a\r\n b"),
        changed(b"GET /", b"GET http://x/"),
    ],
)
def test_upgrade_in_order_has_no_fault(data: bytes) -> None:
    head = parse_head(data)
    assert head.asks_for_websocket
    assert head.upgrade_fault is None


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (changed(b"GET", b"POST"), 400),
        (changed(b"GET /", b"CONNECT x:443"), 400),
        (with_line(b"Content-Length: 5"), 400),
        (with_line(b"Transfer-Encoding: chunked"), 400),
        (changed(b"Connection: Upgrade\r\n", b""), 400),
        (changed(b"Connection: Upgrade", b"Connection: upgrades"), 400),
        (changed(b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", b""), 400),
        (changed(b"AAAAAAAAAAAAAAAAAAAAAA==", b""), 400),
        (with_line(b"Sec-WebSocket-Key: BBBBBBBBBBBBBBBBBBBBBB=="), 400),
        (changed(b"Version: 13", b"Version: 8"), 426),
        (changed(b"Sec-WebSocket-Version: 13\r\n", b""), 426),
        (with_line(b"Sec-WebSocket-Version: 13"), 426),
    ],
)
def test_upgrade_out_of_order_has_a_status(data: bytes, status: int) -> None:
    head = parse_head(data)
    assert head.asks_for_websocket
    assert head.upgrade_fault == status


@pytest.mark.parametrize("version", [b"1.0", b"2.0"])
def test_upgrade_of_another_http_is_none(version: bytes) -> None:
    assert not parse_head(changed(b"HTTP/1.1", b"HTTP/" + version)).asks_for_websocket


@pytest.mark.parametrize(
    "data",
    [
        changed(b"Host: x\r\n", b""),
        with_line(b"Host: y"),
        with_line(b"Content-Length: 5\r\nContent-Length: 6"),
        with_line(b"Content-Length: +5"),
        with_line(b"Transfer-Encoding: identity, chunked"),
        with_line(b"X-A: a\0b"),
        with_line(b"X-A: a\rX-B: b"),
        with_line(b"X\0: a"),
        changed(b"X-API-KEY: ", b"X-API-KEY : "),
        changed(b"GET /", b"GET /\0"),
        changed(b"GET /", b"GET /\xc3\xbc"),
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + GOOD,
        b"\r\n\r\n",
    ],
)
def test_what_proxies_read_in_two_ways_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_head(data)
