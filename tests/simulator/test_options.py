from __future__ import annotations

from typing import Any

import pytest

from audiohook.errors import ConfigError
from audiohook.protocol.messages import Channel
from audiohook.simulator.options import (
    CallOptions,
    Endpoint,
    parse_channels,
    parse_custom_config,
    parse_span,
    parse_uri,
)


@pytest.mark.parametrize(
    ("uri", "endpoint"),
    [
        ("ws://h", Endpoint("h", 80, False, "h", "/")),
        ("WS://H:80/a", Endpoint("h", 80, False, "h", "/a")),
        (
            "ws://h:3000/a%20b?x=1&y=%C3",
            Endpoint("h", 3000, False, "h:3000", "/a%20b?x=1&y=%C3"),
        ),
        ("wss://h:443/", Endpoint("h", 443, True, "h", "/")),
        ("wss://[::1]:8443/", Endpoint("::1", 8443, True, "[::1]:8443", "/")),
        ("wss://h:80/", Endpoint("h", 80, True, "h:80", "/")),
    ],
)
def test_uri(uri: str, endpoint: Endpoint) -> None:
    assert parse_uri(uri) == endpoint


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("http://h:1/x", "ws://h:1/x"),
        ("https://h/x", "wss://h/x"),
        ("h:3000", "not a WebSocket URI"),
        ("ws://", "not a WebSocket URI"),
        ("", "not a WebSocket URI"),
        ("ws://h:99999/", "not a URI"),
        ("ws://[h/", "not a URI"),
        ("ws://me@h/", "user name"),
        ("ws://h/#x", "fragment"),
        ("ws://h/a b", "percent-encode"),
        ("ws://h/ü", "percent-encode"),
    ],
)
def test_bad_uri(uri: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        CallOptions(uri=uri)
    assert "\n" not in str(caught.value)


def test_span() -> None:
    assert parse_span("2:1.5") == (2.0, 1.5)
    for text in ("", "2", "2:", ":2", "-1:2", "1:-2", "1:nan", "inf:1", "1:2:3"):
        with pytest.raises(ConfigError, match="AT:LENGTH"):
            parse_span(text)


def test_custom_config() -> None:
    assert parse_custom_config('{"a": {"b": [1, null]}}') == {"a": {"b": [1, None]}}
    for text in ("", "[]", "{", "[" * 100_000):
        with pytest.raises(ConfigError, match=r"^--custom-config: is not (a )?JSON"):
            parse_custom_config(text)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"frame_ms": 0}, "--frame-ms: must be from 1 to 4000"),
        ({"frame_ms": 4001}, "--frame-ms: must be from 1 to 4000"),
        ({"frame_samples": (0,)}, "frames have between 1 and 32,000 samples"),
        ({"frame_samples": (32_001,)}, "frames have between 1 and 32,000 samples"),
        ({"duration": -1.0}, "--duration: times must be"),
        ({"duration": float("nan")}, "--duration: times must be"),
        ({"pauses": ((0.0, -1.0),)}, "--pause: times must be"),
        ({"discards": ((float("inf"), 1.0),)}, "--discard: times must be"),
        ({"updates": ((-1.0, "en"),)}, "updates: times must be"),
        ({"errors": ((-1.0, 400, ""),)}, "errors: times must be"),
        ({"hang_up_at": -0.1}, "--hang-up-at: times must be"),
        ({"client_secret": "YWJj"}, "--client-secret: a client secret needs"),
        ({"api_key": "ü"}, "no header can carry the characters of the API key"),
        ({"api_key": "a\nb"}, "no header can carry the characters of the API key"),
        ({"session_id": "a\r\nX: y"}, "no header can carry .* session id"),
        (
            {"channels": (Channel.EXTERNAL, Channel.EXTERNAL)},
            "--channels: cannot have the same name twice",
        ),
        ({"custom_config": {"a": "x" * 60_000}}, "--custom-config: is longer than"),
    ],
)
def test_bad_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=f"^{words}") as caught:
        CallOptions(uri="ws://h/", **options)
    assert "\n" not in str(caught.value)


def test_ids_differ_from_call_to_call() -> None:
    first, second = CallOptions(uri="ws://h/"), CallOptions(uri="ws://h/")
    ids = {
        getattr(options, name)
        for options in (first, second)
        for name in (
            "organization_id",
            "session_id",
            "correlation_id",
            "conversation_id",
            "participant_id",
        )
    }
    assert len(ids) == 10


def test_channels_are_offered_in_the_order_in_which_they_are_named() -> None:
    inverted = (Channel.INTERNAL, Channel.EXTERNAL)
    assert parse_channels("internal, external") == inverted
    with pytest.raises(ConfigError, match="for example internal,external"):
        parse_channels("internal,")
