"""The table of transitions: every state against every input."""

from __future__ import annotations

import math
from typing import Any

import pytest

from audiohook.errors import LocalProtocolError
from audiohook.protocol.events import (
    BinaryAccepted,
    CloseReceived,
    Ended,
    GapRecorded,
    LanguageChanged,
    OpenReceived,
    PauseBegan,
    PeerErrorReceived,
    SessionEvent,
    SessionFault,
    Violation,
)
from audiohook.protocol.state import (
    IGNORE,
    MISUSE,
    REFUSE,
    TRANSITIONS,
    Input,
    State,
    Verdict,
)
from audiohook.protocol.wire import Fault
from tests.protocol.peer import CALLS, KINDS, at

# Every state against every message. What should happen is written down once more here,
# apart from the table: (state after it, types sent, events).

Outcome = tuple[State, list[str], list[type[Any]]]


def refused(after: State) -> Outcome:
    return (after, ["disconnect"], [Violation])


def nothing(state: State) -> Outcome:
    return (state, [], [])


CLOSES: Outcome = (State.CLOSING, [], [CloseReceived])

OUTCOMES: dict[State, dict[str, Outcome]] = {
    State.CONNECTED: {
        "open": (State.OPENING, [], [OpenReceived]),
        "ping": nothing(State.CONNECTED),
        "close": CLOSES,
        "paused": refused(State.REJECTING),
        "resumed": refused(State.REJECTING),
        "discarded": refused(State.REJECTING),
        "update": refused(State.REJECTING),
        "error": (State.CONNECTED, [], [PeerErrorReceived]),
        "dtmf": nothing(State.CONNECTED),
    },
    State.OPENING: {
        "open": nothing(State.OPENING),
        "ping": nothing(State.OPENING),
        "close": CLOSES,
        "paused": (State.OPENING, [], [PauseBegan]),
        "resumed": (State.OPENING, [], [GapRecorded]),
        "discarded": (State.OPENING, [], [GapRecorded]),
        "update": (State.OPENING, [], [LanguageChanged]),
        "error": (State.OPENING, [], [PeerErrorReceived]),
        "dtmf": nothing(State.OPENING),
    },
    State.OPEN: {
        "open": nothing(State.OPEN),
        "ping": (State.OPEN, ["pong"], []),
        "close": CLOSES,
        "paused": (State.OPEN, [], [PauseBegan]),
        "resumed": (State.OPEN, [], [GapRecorded]),
        "discarded": (State.OPEN, [], [GapRecorded]),
        "update": (State.OPEN, ["updated"], [LanguageChanged]),
        "error": (State.OPEN, [], [PeerErrorReceived]),
        "dtmf": nothing(State.OPEN),
    },
    State.REJECTING: {
        "open": nothing(State.REJECTING),
        "ping": (State.REJECTING, ["pong"], []),
        "close": CLOSES,
        "paused": nothing(State.REJECTING),
        "resumed": nothing(State.REJECTING),
        "discarded": nothing(State.REJECTING),
        "update": nothing(State.REJECTING),
        "error": (State.REJECTING, [], [PeerErrorReceived]),
        "dtmf": nothing(State.REJECTING),
    },
    State.DISCONNECTING: {
        "open": nothing(State.DISCONNECTING),
        "ping": (State.DISCONNECTING, ["pong"], []),
        "close": CLOSES,
        "paused": (State.DISCONNECTING, [], [PauseBegan]),
        "resumed": (State.DISCONNECTING, [], [GapRecorded]),
        "discarded": (State.DISCONNECTING, [], [GapRecorded]),
        "update": (State.DISCONNECTING, ["updated"], [LanguageChanged]),
        "error": (State.DISCONNECTING, [], [PeerErrorReceived]),
        "dtmf": nothing(State.DISCONNECTING),
    },
    State.CLOSING: {kind: nothing(State.CLOSING) for kind in KINDS},
    State.CLOSED: {kind: nothing(State.CLOSED) for kind in KINDS},
    State.ENDED: {kind: nothing(State.ENDED) for kind in KINDS},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("state", State)
def test_message_in_a_state(state: State, kind: str) -> None:
    peer = at(state)
    before = len(peer.heard)
    events = peer.say(kind)
    after, sent, reported = OUTCOMES[state][kind]
    assert peer.session.state is after
    assert peer.types()[before:] == sent
    assert [type(event) for event in events] == reported


AUDIO: dict[State, tuple[State, list[SessionEvent]]] = {
    State.CONNECTED: (
        State.REJECTING,
        [Violation(SessionFault.EARLY_AUDIO, answered=True)],
    ),
    State.OPENING: (
        State.REJECTING,
        [Violation(SessionFault.EARLY_AUDIO, answered=True)],
    ),
    State.OPEN: (State.OPEN, [BinaryAccepted(1600)]),
    State.REJECTING: (State.REJECTING, []),
    State.DISCONNECTING: (State.DISCONNECTING, [BinaryAccepted(1600)]),
    State.CLOSING: (State.CLOSING, []),
    State.CLOSED: (State.CLOSED, []),
    State.ENDED: (State.ENDED, []),
}


@pytest.mark.parametrize("state", State)
def test_audio_in_a_state(state: State) -> None:
    peer = at(state)
    after, reported = AUDIO[state]
    assert peer.send_audio(1600) == reported
    assert peer.session.state is after


@pytest.mark.parametrize("state", State)
def test_text_that_is_no_message_in_a_state(state: State) -> None:
    peer = at(state)
    before = len(peer.heard)
    events = peer.say_text("nonsense")
    if state in (State.CONNECTED, State.OPENING, State.OPEN):
        assert events == [Violation(Fault.NOT_JSON, answered=True)]
        assert peer.types()[before:] == ["disconnect"]
    elif state in (State.REJECTING, State.DISCONNECTING):
        assert events == [Violation(Fault.NOT_JSON, answered=False)]
        assert peer.types()[before:] == []
    else:
        assert events == []
        assert peer.types()[before:] == []


@pytest.mark.parametrize("state", State)
def test_end_of_the_socket_in_a_state(state: State) -> None:
    peer = at(state)
    events = peer.session.receive_end(now=peer.now)
    ended = [] if state is State.ENDED else [Ended(orderly=state is State.CLOSED)]
    assert events == ended
    assert peer.session.state is State.ENDED
    assert peer.session.deadline == math.inf


# What is sent, or None if the call is a mistake of ours.
SENT: dict[State, dict[str, list[str] | None]] = {
    State.CONNECTED: {
        "accept": None,
        "disconnect": ["disconnect"],
        "closed": None,
        "pause": None,
        "resume": None,
    },
    State.OPENING: {
        "accept": ["opened"],
        "disconnect": ["disconnect"],
        "closed": None,
        "pause": None,
        "resume": None,
    },
    State.OPEN: {
        "accept": None,
        "disconnect": ["disconnect"],
        "closed": None,
        "pause": ["pause"],
        "resume": ["resume"],
    },
    State.REJECTING: {
        "accept": [],
        "disconnect": [],
        "closed": None,
        "pause": [],
        "resume": [],
    },
    State.DISCONNECTING: {
        "accept": None,
        "disconnect": [],
        "closed": None,
        "pause": [],
        "resume": [],
    },
    State.CLOSING: {
        "accept": [],
        "disconnect": [],
        "closed": ["closed"],
        "pause": [],
        "resume": [],
    },
    State.CLOSED: {
        "accept": [],
        "disconnect": [],
        "closed": [],
        "pause": [],
        "resume": [],
    },
    State.ENDED: {
        "accept": [],
        "disconnect": [],
        "closed": [],
        "pause": [],
        "resume": [],
    },
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("state", State)
def test_call_of_ours_in_a_state(state: State, name: str) -> None:
    peer = at(state)
    expected = SENT[state][name]
    if expected is None:
        with pytest.raises(LocalProtocolError, match=state):
            CALLS[name](peer.session)
        assert peer.session.state is state
        expected = []
    else:
        CALLS[name](peer.session)
    assert [message.type for message in peer.listen()] == expected


def test_table_is_complete() -> None:
    for state in State:
        assert set(TRANSITIONS[state]) == set(Input)


def test_table_keeps_its_rules() -> None:
    ours = {
        Input.ACCEPT,
        Input.DISCONNECT,
        Input.CLOSED,
        Input.PAUSE,
        Input.RESUME,
    }
    for state, row in TRANSITIONS.items():
        for what, step in row.items():
            assert (step is MISUSE) <= (what in ours)
            assert (step is REFUSE) <= (what not in ours)
            # No way back, and none past `closing` but through it.
            if isinstance(step, State) and state in (State.CLOSED, State.CLOSING):
                assert step in (State.CLOSED, State.ENDED)
        assert row[Input.END] is (IGNORE if state is State.ENDED else State.ENDED)
        assert isinstance(row[Input.DISCONNECT], State | Verdict)
    closings = [
        state for state, row in TRANSITIONS.items() if row[Input.CLOSE] is State.CLOSING
    ]
    assert set(closings) == set(State) - {State.CLOSING, State.CLOSED, State.ENDED}
