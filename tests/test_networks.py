"""Networks that may connect, and who is behind a proxy."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiohook.networks import Networks, address_of, client_of, read_networks_file

if TYPE_CHECKING:
    from pathlib import Path


def has(networks: Networks, text: str) -> bool:
    address = address_of(text)
    assert address is not None
    return address in networks


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("198.51.100.0", True),
        ("198.51.100.255", True),
        ("198.51.101.0", False),
        ("203.0.113.7", True),
        ("203.0.113.8", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("::ffff:198.51.100.9", True),
        ("::ffff:198.51.101.9", False),
        ("2001:db8::1%eth0", True),
        ("::1", False),
        ("0.0.0.0", False),
    ],
)
def test_address_is_in_a_network_or_not(address: str, inside: bool) -> None:
    networks = Networks(["198.51.100.0/24", "203.0.113.7", "2001:db8::/32"])
    assert has(networks, address) is inside


def test_mapped_network_is_one_of_ipv4() -> None:
    assert has(Networks(["::ffff:10.0.0.0/104"]), "10.1.2.3")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10.0.0.1/8", "entry 2 has bits beyond its length"),
        ("10.0.0.0/33", "entry 2 is no network"),
        ("example.com", "entry 2 is no network"),
        ("", "entry 2 is no network"),
    ],
)
def test_what_is_no_network_is_told_by_its_place(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}$"):
        Networks(["10.0.0.0/8", text])


NETWORK = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.integers(0, 32)),
    st.tuples(st.ip_addresses(v=6), st.integers(0, 128)),
).map(lambda pair: ipaddress.ip_network((pair[0], pair[1]), strict=False))


@given(st.lists(NETWORK, max_size=8), st.ip_addresses())
def test_answer_is_that_of_the_standard_library(
    networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network],
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    plain = [
        each
        for each in networks
        if getattr(each.network_address, "ipv4_mapped", None) is None
    ]
    made = Networks([str(each) for each in plain])
    assert (address in made) == any(address in each for each in plain)
    for each in plain:
        assert each.network_address in made
        assert each.broadcast_address in made


TRUSTED = Networks(["10.0.0.0/8", "2001:db8::/32"])


@pytest.mark.parametrize(
    ("values", "client"),
    [
        ([b"198.51.100.7"], "198.51.100.7"),
        ([b"1.1.1.1, 198.51.100.7"], "198.51.100.7"),
        ([b"1.1.1.1, 198.51.100.7, 10.0.0.4"], "198.51.100.7"),
        ([b"1.1.1.1", b"198.51.100.7", b"10.0.0.4,10.0.0.5"], "198.51.100.7"),
        ([b"198.51.100.7:443"], "198.51.100.7"),
        ([b"[2001:db9::7]:443, 2001:db8::1"], "2001:db9::7"),
        ([b"::ffff:198.51.100.7"], "198.51.100.7"),
        ([b"10.0.0.4"], "10.0.0.4"),
        ([b"198.51.100.7, nonsense"], None),
        ([b"198.51.100.7,"], None),
        ([b""], None),
        ([b"\xff"], None),
    ],
)
def test_client_is_the_last_that_is_no_proxy_of_ours(
    values: list[bytes], client: str | None
) -> None:
    found = client_of(values, TRUSTED)
    assert (None if found is None else str(found)) == client


@given(st.lists(st.binary(max_size=40), max_size=4))
def test_what_a_client_makes_up_never_counts(made_up: list[bytes]) -> None:
    found = client_of([*made_up, b"198.51.100.7, 10.0.0.4"], TRUSTED)
    assert str(found) == "198.51.100.7"


def test_file_has_a_network_a_line(tmp_path: Path) -> None:
    path = tmp_path / "networks"
    path.write_text("# Genesys\n198.51.100.0/24\n\n  2001:db8::/32  # of Frankfurt\n")
    networks = read_networks_file(path)
    assert len(networks) == 2
    assert has(networks, "2001:db8::9")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "holds no network"),
        (b"# nothing\n", "holds no network"),
        (b"10.0.0.0/8\nx\n", "entry 2 is no network"),
        (b"\xff", "is not UTF-8 text"),
        (b"1.1.1.1\n" * 20_001, "has more than 20000 networks"),
        (b" " * (1024 * 1024 + 1), "is longer than 1 MiB"),
    ],
)
def test_file_that_makes_no_sense_is_refused(
    tmp_path: Path, data: bytes, said: str
) -> None:
    path = tmp_path / "networks"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"^{said}$"):
        read_networks_file(path)
