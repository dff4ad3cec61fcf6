"""Facts as lines, and back."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from hypothesis import given

from audiohook.recording.journal import (
    Media,
    decode,
    encode,
    is_uuid,
    utc_text,
)
from tests.recording.factory import OpenedChanges, make_opened
from tests.recording.facts import (
    later_facts,
    opened_facts,
)

if TYPE_CHECKING:
    from audiohook.recording.journal import Fact


@given(fact=opened_facts | later_facts)
def test_decode_gives_back_what_was_encoded(fact: Fact) -> None:
    line = encode(fact)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line) == fact


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (OpenedChanges(session_id="11111111-1111-4111-8111-11111111111A"), "id"),
        (OpenedChanges(session_id="../../etc/passwd"), "session id"),
        (OpenedChanges(session_id=str(uuid.UUID(int=1)) + "\n"), "session id"),
        (OpenedChanges(started_at="2026-11-22 14:10:44"), "start is not"),
        (OpenedChanges(started_at="2026-11-22T14:10:44.123Z/../x"), "start is not"),
        (OpenedChanges(media=Media("PCMU", (), 8000)), "channels"),
        (OpenedChanges(media=Media("PCMU", ("external",) * 2, 8000)), "channels"),
        (OpenedChanges(media=Media("PCMU", ("../x",), 8000)), "channels"),
    ],
)
def test_opened_refuses_what_must_not_reach_a_path(
    change: OpenedChanges, fault: str
) -> None:
    with pytest.raises(ValueError, match=fault):
        make_opened(**change)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}])
def test_encode_refuses_what_json_cannot_say(value: object) -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode(make_opened(custom_config={"x": value}))


def test_encode_refuses_json_nested_beyond_reason() -> None:
    nested: object = None
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(ValueError, match="not JSON"):
        encode(make_opened(custom_config=nested))


def test_is_uuid_takes_one_form_only() -> None:
    good = "0123abcd-ef01-4234-9234-0123456789ab"
    assert is_uuid(good)
    for bad in (good.upper(), f"{{{good}}}", good.replace("-", ""), good + "\n", ""):
        assert not is_uuid(bad)


def test_utc_text_has_milliseconds_cut_off() -> None:
    assert utc_text(0.0) == "1970-01-01T00:00:00.000Z"
    assert utc_text(1_795_356_644.9996) == "2026-11-22T14:10:44.999Z"
