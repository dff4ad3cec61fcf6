"""The header that says who is behind a proxy."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiohook.errors import RemoteProtocolError
from audiohook.ingest.proxy_header import (
    FIXED_BYTES,
    MOST_BYTES,
    SIGNATURE,
    read_fixed,
    read_source,
)

if TYPE_CHECKING:
    from audiohook.networks import Address


def proxy_header(
    source: str, *, command: int = 1, extra: bytes = b"", family: int | None = None
) -> bytes:
    """Makes a header as a proxy does, by the text of its specification."""
    address = ipaddress.ip_address(source)
    size = len(address.packed)
    rest = address.packed + bytes(size) + b"\x30\x39\x01\xbb" + extra
    kind = family if family is not None else (0x11 if size == 4 else 0x21)
    return (
        SIGNATURE + bytes([0x20 | command, kind]) + len(rest).to_bytes(2, "big") + rest
    )


def read(data: bytes) -> Address | None:
    fixed = read_fixed(data[:FIXED_BYTES])
    return read_source(fixed, data[FIXED_BYTES : FIXED_BYTES + fixed.rest_bytes])


@pytest.mark.parametrize("source", ["198.51.100.7", "2001:db8::7"])
@pytest.mark.parametrize("extra", [b"", b"\x03\0\x04abcd" * 9])
def test_source_is_read(source: str, extra: bytes) -> None:
    assert str(read(proxy_header(source, extra=extra))) == source


def test_mapped_source_is_one_of_ipv4() -> None:
    assert str(read(proxy_header("::ffff:198.51.100.7"))) == "198.51.100.7"


def test_proxy_that_speaks_for_itself_has_no_source() -> None:
    assert read(proxy_header("198.51.100.7", command=0)) is None
    # A family that is not known, and sockets of a machine.
    assert read(proxy_header("198.51.100.7", family=0x00)) is None
    assert read(proxy_header("198.51.100.7", family=0x31)) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 198.51",
        SIGNATURE,
        SIGNATURE + b"\x11\x11\0\x0c",
        SIGNATURE + b"\x22\x11\0\x0c",
        SIGNATURE + b"\x21\x11" + (MOST_BYTES + 1).to_bytes(2, "big"),
        SIGNATURE + b"\x21\x11\0\x0b" + bytes(11),
        SIGNATURE + b"\x21\x21\0\x0c" + bytes(12),
        proxy_header("198.51.100.7")[:-1],
    ],
)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read(data)


@given(st.ip_addresses(), st.binary(max_size=300))
def test_every_source_comes_through(source: Address, extra: bytes) -> None:
    expected = getattr(source, "ipv4_mapped", None) or source
    assert read(proxy_header(str(source), extra=extra)) == expected


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda b: SIGNATURE + b))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        found = read(data)
    except RemoteProtocolError:
        return
    assert found is None or found.version in (4, 6)
