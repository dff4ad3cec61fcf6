from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiohook.missed.events import GenesysEvent, read_events

NOW = 1_795_000_000.0
CONVERSATION = "34c18827-77a6-4970-ad66-6f2966c85bad"
AT = "2026-11-22T14:10:44.123Z"
EPOCH = 1_795_356_644.123

BARE: dict[str, Any] = {
    "eventEntity": {
        "id": "AUDIOHOOK-0006",
        "name": "AudioHook integration error",
        "description": "The server did not answer a ping.",
    },
    "conversationId": CONVERSATION,
    "entityType": "integration",
    "entityId": "0f8f91f9-a27d-4ddf-9026-7e1e3a8d73a6",
    "timestamp": AT,
}
NOTIFICATION = {"topicName": "v2.operations.events", "version": "2", "eventBody": BARE}
EVENT_BRIDGE = {
    "version": "0",
    "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
    "detail-type": "v2.operations.events",
    "source": "aws.partner/genesys.com/cloud/x",
    "time": "2026-11-22T14:10:59Z",
    "detail": NOTIFICATION,
}
OTHER_NAMES = {
    "event_id": "audiohook-0006",
    "conversation_id": CONVERSATION.upper(),
    "eventTime": 1_795_356_644_123,
    "message": "The server did not answer a ping.",
}


@pytest.mark.parametrize(
    "value",
    [BARE, NOTIFICATION, EVENT_BRIDGE, {"body": json.dumps(EVENT_BRIDGE)}, OTHER_NAMES],
    ids=["bare", "notification", "eventbridge", "text", "other names"],
)
def test_event_is_found_in_any_envelope(value: dict[str, Any]) -> None:
    (event,) = read_events(value, now=NOW * 2)
    assert event.code == "AUDIOHOOK-0006"
    assert event.conversation == CONVERSATION
    assert event.at == pytest.approx(EPOCH, abs=0.01)
    assert "did not answer a ping" in event.text
    assert read_events([value, value], now=NOW * 2) == [event, event]


def test_id_is_that_of_the_delivery_or_else_of_what_is_said() -> None:
    (bridge,) = read_events(EVENT_BRIDGE, now=NOW)
    assert bridge.id == EVENT_BRIDGE["id"]
    (bare,) = read_events(BARE, now=NOW)
    (again,) = read_events(NOTIFICATION, now=NOW)
    (other,) = read_events({**BARE, "timestamp": "2026-11-22T15:00:00Z"}, now=NOW)
    assert bare.id == again.id != other.id


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        {"eventEntity": {"id": "PLATFORM-0001"}},
        {"eventEntity": {"id": "AUDIOHOOK-1"}},
        {"eventEntity": "AUDIOHOOK-0001"},
        {"detail": {"detail": {"detail": {"detail": {"detail": {"detail": BARE}}}}}},
        [None, 1, "AUDIOHOOK-0001", [BARE]],
    ],
)
def test_what_is_no_event_of_ours_is_passed_over(value: object) -> None:
    assert read_events(value, now=NOW) == []


def test_event_without_conversation_or_time_is_of_now() -> None:
    (event,) = read_events(
        {"code": "AUDIOHOOK-0001", "conversationId": "../x"}, now=NOW
    )
    assert event == GenesysEvent(event.id, NOW, "AUDIOHOOK-0001", "", "")


def test_event_of_the_future_is_of_now() -> None:
    (event,) = read_events(BARE, now=NOW)
    assert event.at == NOW


def test_text_is_short_and_can_be_shown() -> None:
    spoilt = {"code": "AUDIOHOOK-0001", "message": "a\x1b[31m\u202eb\n" + "x" * 10_000}
    (event,) = read_events(spoilt, now=NOW)
    assert event.text.startswith("a [31m b x")
    assert len(event.text) <= 300


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["id", "detail", "eventEntity", "time", "timestamp", "message"]
            )
            | st.text(max_size=5),
            inner | st.just("AUDIOHOOK-0004"),
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_whatever_comes_is_read_or_passed_over(value: object) -> None:
    for event in read_events(value, now=NOW):
        assert 0 <= event.at <= NOW
        assert event.id.isascii()
        event.text.encode()
