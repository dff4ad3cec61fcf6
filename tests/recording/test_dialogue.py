from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiohook.recording.dialogue import (
    MOST_BYTES,
    Dialogue,
    Direction,
    Keep,
    as_kept,
    lines_of,
)
from audiohook.recording.journal import decode, encode

if TYPE_CHECKING:
    from audiohook.recording.journal import TextFact

ID = "e160e428-53b2-487c-977d-96989bf5c99d"
OPEN = {
    "version": "2",
    "id": ID,
    "type": "open",
    "seq": 1,
    "serverseq": 0,
    "position": "PT0S",
    "parameters": {
        "organizationId": ID,
        "participant": {
            "id": ID,
            "ani": "tel:+491701234567",
            "aniName": "Ida Muster",
            "dnis": "sip:4930@example.com",
        },
        "media": [{"type": "audio", "format": "PCMU", "rate": 8000}],
        "customConfig": {"crm": "4711", "deep": [{"x": 12}], "apiKey": "hush"},
        "at": "2026-11-22T14:10:44.123Z",
    },
}


def note(dialogue: Dialogue, text: str) -> TextFact | None:
    return dialogue.note(
        Direction.IN, text, at="2026-11-22T14:10:44.123Z", offset_samples=8000
    )


def test_masked_message_has_no_numbers_no_names_and_nothing_of_others() -> None:
    kept = json.dumps(as_kept(json.dumps(OPEN), Keep.MASKED), ensure_ascii=False)
    for word in ("170", "Ida", "example.com", "4711", "12}", "hush"):
        assert word not in kept
    for word in (ID, "PT0S", "8000", "PCMU", "2026-11-22T14:10:44.123Z", "tel:•"):
        assert word in kept


def test_full_message_has_all_but_secrets() -> None:
    kept = as_kept(json.dumps(OPEN), Keep.FULL)
    expected = json.loads(json.dumps(OPEN))
    expected["parameters"]["customConfig"]["apiKey"] = "•"
    assert kept == expected


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("call +49 (170) 123-4567 back", "call • back"),
        ("write to ida.muster@example.com", "write to •"),
        ("code 1234 is short", "code 1234 is short"),
        ("PT1H2M33.123S", "PT1H2M33.123S"),
        (f"session {ID} is gone", f"session {ID} is gone"),
    ],
)
def test_numbers_within_texts_are_put_out_of_sight(text: str, kept: str) -> None:
    said = json.dumps({"parameters": {"message": text}})
    assert as_kept(said, Keep.MASKED) == {"parameters": {"message": kept}}
    assert as_kept(said, Keep.FULL) == {"parameters": {"message": text}}


@pytest.mark.parametrize("text", ["not JSON +491701234567", "[" * 5000, '{"a": NaN}'])
def test_what_is_no_message_is_told_by_its_length(text: str) -> None:
    assert as_kept(text, Keep.MASKED) == {"unreadable": f"{len(text)} characters"}
    assert as_kept(text, Keep.FULL) == {"unreadable": text[:4096]}


@given(st.text() | st.recursive(st.none() | st.text(), st.lists).map(json.dumps))
def test_whatever_comes_can_be_kept_and_read_again(text: str) -> None:
    for keep in (Keep.MASKED, Keep.FULL):
        fact = note(Dialogue(keep), text)
        assert fact is not None
        line = encode(fact)
        assert decode(line) == fact
        (shown,) = lines_of(b'{"fact":"done"}\n' + line).splitlines()
        assert json.loads(shown) == {
            "at": fact.at,
            "direction": "in",
            "samples": 8000,
            "message": fact.message,
        }


def test_dialogue_has_an_end() -> None:
    dialogue = Dialogue(Keep.FULL)
    text = json.dumps({"a": ["x" * 4000] * 15})
    facts = []
    while (fact := note(dialogue, text)) is not None:
        facts.append(fact)
    assert sum(len(encode(fact)) for fact in facts) < MOST_BYTES + 64 * 1024
    assert facts[-1].message == {
        "cut": f"the dialogue is longer than {MOST_BYTES} bytes"
    }


def test_message_that_is_too_long_is_told_by_its_length() -> None:
    text = json.dumps({"type": "open", "padding": "x" * 70_000})
    for keep in (Keep.MASKED, Keep.FULL):
        assert as_kept(text, keep) == {"unreadable": f"{len(text)} characters"}


@pytest.mark.parametrize(
    ("number", "hidden"),
    [("", ""), ("sips:Ida@example.com", "sips:•"), ("+4930123", "•"), (4930123, "•")],
)
def test_number_is_masked_whatever_it_is(number: object, hidden: str) -> None:
    text = json.dumps({"parameters": {"participant": {"ani": number}}})
    assert as_kept(text, Keep.MASKED) == {
        "parameters": {"participant": {"ani": hidden}}
    }


def test_what_others_have_put_in_is_masked_to_the_last_value() -> None:
    foreign = {"a": [True, None, 1, 1.5, "x", ""], "b": {"c": 2}}
    text = json.dumps({"customConfig": foreign})
    assert as_kept(text, Keep.MASKED) == {
        "customConfig": {"a": [True, None, "•", "•", "•", ""], "b": {"c": "•"}}
    }
    assert as_kept(text, Keep.FULL) == {"customConfig": foreign}
