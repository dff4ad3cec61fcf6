from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiohook.index.entry import (
    RecordingState,
    entry_of,
    number_key,
    spoken,
    words_of,
)
from tests.index.recordings import summary


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("tel:+49 30 123456", "+4930123456"),
        ("+4930123456", "004930123456"),
        ("sip:+4930123456@example.com", "+49 (30) 12-34-56"),
        ("tel:+4930123456;ext=5", "+4930123456"),
        ("SIP:Anna@Example.com", "sip:anna@example.com"),
        ("000", "000"),
    ],
)
def test_numbers_that_are_the_same(one: str, other: str) -> None:
    assert number_key(one) == number_key(other) != ""


def test_end_of_a_number_is_how_its_key_begins() -> None:
    assert number_key("+4930123456").startswith(number_key("030 123456"))
    assert not number_key("+4930123456").startswith(number_key("123"))


@pytest.mark.parametrize("number", ["", "  ", "tel:"])
def test_nothing_to_look_for(number: str) -> None:
    assert number_key(number) == ""


@given(st.text(st.characters(exclude_categories=()), max_size=300))
def test_any_text_has_a_key_that_can_be_stored(text: str) -> None:
    key = number_key(text)
    key.encode()
    assert len(key) <= 201


@pytest.mark.parametrize(
    ("statuses", "state"),
    [
        ([], RecordingState.STORED),
        (["off"], RecordingState.STORED),
        (["skipped", "completed"], RecordingState.TRANSCRIBED),
        (["completed", "submitted"], RecordingState.TRANSCRIBING),
        (["pending"], RecordingState.TRANSCRIBING),
        (["completed", "parked"], RecordingState.PARKED),
        (["failed", "completed"], RecordingState.FAILED),
    ],
)
def test_state_of_a_recording(statuses: list[str], state: RecordingState) -> None:
    transcripts = [{"status": each, "objects": []} for each in statuses]
    data = json.dumps(summary(1, transcripts=transcripts)).encode()
    assert entry_of("calls/x/call.json", data).state is state


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"a": 1}',
        json.dumps(summary(1, start="yesterday")).encode(),
        json.dumps(summary(1, start="1066-10-14T09:00:00.000Z")).encode(),
        json.dumps(summary(1, start="2026-11-22T14:10:44")).encode(),
        json.dumps(summary(1, duration="long")).encode(),
        json.dumps(summary(1, transcripts=[5])).encode(),
        json.dumps(summary(1, participant=None)).encode(),
        json.dumps(summary(1)).encode().replace(b"12.5", b"1e999"),
    ],
)
def test_json_that_is_no_call(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        entry_of("calls/x/call.json", data)


def test_texts_are_bounded_and_can_be_stored() -> None:
    party = {"id": "p", "ani": "\ud800" + "9" * 5000, "aniName": "", "dnis": ""}
    entry = entry_of(
        "calls/x/call.json", json.dumps(summary(1, participant=party)).encode()
    )
    assert len(entry.ani) == 200
    entry.ani.encode()


def test_words_are_without_times_and_speakers() -> None:
    text = b"[00:00:01] customer: Good morning\n[01:02:03] agent: at [00:00:01] x: y\n"
    assert spoken(text) == "Good morning\nat [00:00:01] x: y\n"
    assert words_of(" a\u202eb\x00 c\u2028 d* ") == ["a", "b", "c", "d*"]
