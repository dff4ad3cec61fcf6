from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from audiohook.errors import RemoteProtocolError
from audiohook.ingest import http
from audiohook.ingest.http import parse_head
from tests.house import upgrade_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from audiohook.ingest.http import RequestHead

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
    assert head.upgrade_fault is not None
    assert head.upgrade_fault.status == status


@pytest.mark.parametrize(
    "key",
    [
        b"abc",
        b"AAAAAAAAAAAAAAAAAAAAAA",
        b"AAAAAAAAAAAAAAAAAAAAAAA=",  # 17 bytes
        b"AAAAAAAAAAAAAAAAAAAA",  # 15 bytes
        b"AAAAAAAAAAAAAAAAAAAA-_==",  # another alphabet
        b"AAAAAAAAAAAA AAAAAAAAA==",
        b"AAAAAAAAAAAAAAAAAAAAAA==, AAAAAAAAAAAAAAAAAAAAAA==",
    ],
)
def test_key_that_is_not_16_bytes_is_named(key: bytes) -> None:
    fault = parse_head(changed(b"AAAAAAAAAAAAAAAAAAAAAA==", key)).upgrade_fault
    assert fault is not None
    assert fault.status == 400
    assert b"Sec-WebSocket-Key" in fault.text
    assert key not in fault.text


@given(st.binary(max_size=40))
def test_key_is_in_order_if_it_is_16_bytes(data: bytes) -> None:
    key = base64.b64encode(data)
    head = parse_head(changed(b"AAAAAAAAAAAAAAAAAAAAAA==", key))
    assert (head.upgrade_fault is None) == (len(data) == 16)


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


# What is left to the library, and what is not


def _plain(headers: list[tuple[str, str]], target: str) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"GET {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")


_TOKENS = st.text("!#$%&'*+-.^_`|~09AZaz", min_size=1, max_size=8)
_NAMES = st.one_of(
    st.sampled_from(
        ["Host", "host", "Content-Length", "Transfer-Encoding", "Upgrade", "X-API-KEY"]
    ),
    _TOKENS,
)
_VALUES = st.one_of(
    st.sampled_from(["x", "0", "chunked", "websocket", "a: b", "", " ", "a ", " a"]),
    st.text(st.characters(codec="latin-1"), max_size=8),
)
_HEADS = st.builds(
    _plain,
    st.lists(st.tuples(_NAMES, _VALUES), max_size=6),
    st.sampled_from(["/", "/a?b=c", "*", "", "a b", "/ü", "http://x/"]),
)


def _outcome(parse: Callable[[bytes], RequestHead | None], data: bytes) -> object:
    try:
        return parse(data)
    except RemoteProtocolError:
        return "refused"


@given(_HEADS, st.integers(0, 60), st.binary(max_size=2))
@example(upgrade_request(), 0, b"")
def test_usual_heads_are_read_as_the_library_reads_them(
    data: bytes, place: int, dirt: bytes
) -> None:
    for each in (data, data[:place] + dirt + data[place + len(dirt) :]):
        usual = http._parse_usual_head(each)
        if usual is not None:
            assert _outcome(http._parse_any_head, each) == usual


def test_head_as_genesys_makes_it_is_a_usual_one() -> None:
    assert http._parse_usual_head(upgrade_request()) is not None


@pytest.mark.parametrize(
    "spoilt",
    [
        b"GET / HTTP/1.1\r\nA: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nB: c\r\n d\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nB : c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nB: c \r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\nB: c\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_head_with_anything_else_is_left_to_the_library(spoilt: bytes) -> None:
    assert http._parse_usual_head(spoilt) is None
