from __future__ import annotations

import pytest

from audiohook.hosts import is_loopback, is_private


@pytest.mark.parametrize(
    ("host", "loopback", "private"),
    [
        ("127.0.0.1", True, True),
        ("127.8.9.1", True, True),
        ("::1", True, True),
        ("localhost", True, True),
        ("LocalHost", True, True),
        ("0.0.0.0", False, True),
        ("::", False, True),
        ("10.0.0.1", False, True),
        ("printer.local", False, True),
        ("8.8.8.8", False, False),
        ("example.com", False, False),
        ("localhost.example", False, False),
    ],
)
def test_who_can_reach_a_host(host: str, loopback: bool, private: bool) -> None:
    assert is_loopback(host) is loopback
    assert is_private(host) is private
