from __future__ import annotations

import pytest

from audiohook.storage.s3_metadata import content_type, safe_metadata, safe_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain ~ text!", "plain ~ text!"),
        ("Zoë", "Zo%C3%AB"),
        ("a\r\nX-Amz-Acl: public-read", "a X-Amz-Acl: public-read"),
        ("  two   spaces ", "two spaces"),
        ("nul\0", "nul%00"),
        ("half \ud800", "half %3F"),
        ("100%", "100%"),
        ("", ""),
    ],
)
def test_value_becomes_printable_ascii(text: str, value: str) -> None:
    assert safe_value(text) == value


def test_value_is_not_cut_within_a_character() -> None:
    assert safe_value("ab€", limit=10) == "ab"
    assert safe_value("ab€", limit=11) == "ab%E2%82%AC"
    assert safe_value("ab", limit=-1) == ""


def test_metadata_fits_in_two_kib_the_first_names_first() -> None:
    kept = safe_metadata({"token": "t", "a": "x" * 3000, "b": "y", "empty": ""})
    assert kept == {"token": "t", "a": "x" * (2048 - 6 - 1)}
    assert sum(len(name) + len(value) for name, value in kept.items()) == 2048


def test_media_type_goes_by_the_ending() -> None:
    assert content_type("calls/x/audio/x.wav") == "audio/wav"
    assert content_type("calls/x/audio/x.raw") == "audio/basic"
    assert content_type("calls/x/call.json") == "application/json"
    assert content_type("calls/x/.check-1") == "application/octet-stream"
