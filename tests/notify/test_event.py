from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiohook.notify.event import CONTENT_TYPE, Event, Kind, plain_id
from tests.notify.reader import data_of, read

CONVERSATION = "8a1f1b52-77a5-4a7e-9f3e-1f2b3c4d5e6f"
SESSION = "22222222-2222-4222-8222-222222222222"
TIME = "2026-11-22T14:10:44.123Z"


def event(kind: Kind = Kind.STORED, **changes: object) -> Event:
    values = {"conversation": CONVERSATION, "session": SESSION, "time": TIME}
    return Event(kind, **{**values, **changes})  # type: ignore[arg-type]  # as said


def test_reader_of_cloudevents_finds_all_that_was_said() -> None:
    made = event(data={"seconds": 2.5})
    found = read({"content-type": CONTENT_TYPE}, made.body("s3://bucket"))
    assert found.get_specversion() == "1.0"
    assert found.get_id() == made.id
    assert found.get_source() == "s3://bucket"
    assert found.get_type() == "org.audiohook.call.stored.v1"
    assert found.get_subject() == CONVERSATION
    time = found.get_time()
    assert time is not None
    assert time.isoformat() == "2026-11-22T14:10:44.123000+00:00"
    assert found.get_datacontenttype() == "application/json"
    assert data_of(found) == {
        "conversationId": CONVERSATION,
        "sessionId": SESSION,
        "seconds": 2.5,
    }


def test_id_is_that_of_what_is_told_and_not_of_when_or_how() -> None:
    assert event().id == event(time="2026-11-22T15:00:00.000Z", data={"a": 1}).id
    others = [
        event(Kind.OPENED),
        event(about="b"),
        event(session=""),
        event(conversation=""),
        event(conversation=CONVERSATION + "\n" + SESSION, session=""),
    ]
    assert len({each.id for each in [event(), *others]}) == 6


@given(st.text(max_size=400), st.text(max_size=400))
def test_whatever_the_network_gives_for_ids_becomes_an_event(
    conversation: str, session: str
) -> None:
    made = event(conversation=conversation, session=session)
    found = read({"content-type": CONTENT_TYPE}, made.body("/x"))
    assert found.get_subject() in (None, conversation)
    assert made.stream.isascii()
    assert len(made.stream) <= 128


@pytest.mark.parametrize("text", ["\ud800", "é", "\x00", CONVERSATION])
def test_plain_id_can_be_kept_by_any_database(text: str) -> None:
    assert json.loads(json.dumps(plain_id(text))).encode("ascii").isascii()
