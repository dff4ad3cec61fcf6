"""The session: every state against every input, and what may never happen."""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from audiohook.errors import LocalProtocolError
from audiohook.protocol.events import (
    BinaryAccepted,
    CloseReceived,
    Ended,
    GapLimited,
    GapRecorded,
    LanguageChanged,
    OpenReceived,
    PauseBegan,
    PauseEnded,
    PeerErrorReceived,
    PositionDrift,
    SessionEvent,
    SessionFault,
    TimedOut,
    Timer,
    Violation,
)
from audiohook.protocol.messages import (
    NIL_UUID,
    Closed,
    Disconnect,
    DisconnectReason,
    MediaParameter,
    Opened,
    Pong,
    ServerMessage,
    Updated,
    negotiate,
    parse_server_message,
)
from audiohook.protocol.session import (
    MAX_BINARY_BYTES,
    MAX_FACTS,
    MAX_HELD,
    Session,
    Timers,
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
from audiohook.protocol.timeline import Gap, GapKind
from audiohook.protocol.wire import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SESSION = "e160e428-53e2-487c-977d-96989bf5c99d"
OTHER = "30b0e395-84d3-4570-ac13-9a62d8f514c0"
ORGANIZATION = "d7934305-0972-4844-938e-9060eef73d05"
CONVERSATION = "090eaa2f-72fa-480a-83e0-8667ff89c0ec"

STEREO = {
    "type": "audio",
    "format": "PCMU",
    "channels": ["external", "internal"],
    "rate": 8000,
}
INVERTED = {**STEREO, "channels": ["internal", "external"]}
MONO = {**STEREO, "channels": ["external"]}
L16 = {**STEREO, "format": "L16"}

PARAMETERS: dict[str, dict[str, Any]] = {
    "ping": {"rtt": "PT0.1S"},
    "close": {"reason": "end"},
    "resumed": {"start": "PT0S", "discarded": "PT0.5S"},
    "discarded": {"start": "PT0S", "discarded": "PT0.25S"},
    "update": {"language": "de-DE"},
    "error": {"code": 500, "message": "oops"},
}


def open_parameters(**changes: object) -> dict[str, Any]:
    return {
        "organizationId": ORGANIZATION,
        "conversationId": CONVERSATION,
        "participant": {"id": OTHER, "ani": "", "aniName": "", "dnis": ""},
        "media": [STEREO, MONO],
        **changes,
    }


@dataclass
class Peer:
    """A client that numbers its messages, and a recorder of what it is told."""

    session: Session = field(
        default_factory=lambda: Session(
            session_id=SESSION, organization_id=ORGANIZATION, now=100.0
        )
    )
    now: float = 100.0
    seq: int = 0
    audio_bytes: int = 0
    heard: list[ServerMessage] = field(default_factory=list)

    def say(
        self, kind: str, parameters: object = None, **changes: object
    ) -> list[SessionEvent]:
        self.seq += 1
        default = open_parameters() if kind == "open" else PARAMETERS.get(kind, {})
        message = {
            "version": "2",
            "id": SESSION,
            "type": kind,
            "seq": self.seq,
            "serverseq": len(self.heard),
            "position": "PT0S",
            "parameters": default if parameters is None else parameters,
            **changes,
        }
        return self.say_text(json.dumps(message))

    def say_text(self, text: str) -> list[SessionEvent]:
        events = self.session.receive_text(
            text, now=self.now, audio_bytes=self.audio_bytes
        )
        self.listen()
        return events

    def send_audio(self, length_bytes: int) -> list[SessionEvent]:
        return self.session.receive_binary(length_bytes, now=self.now)

    def listen(self) -> list[ServerMessage]:
        new = [parse_server_message(text) for text in self.session.data_to_send()]
        self.heard += new
        return new

    def open(self, **changes: object) -> OpenReceived:
        (event,) = self.say("open", open_parameters(**changes))
        assert isinstance(event, OpenReceived)
        return event

    def start(self, **changes: object) -> Opened:
        """Open and accept; return what the server said to it."""
        event = self.open(**changes)
        self.session.accept(event.media)
        (opened,) = self.listen()
        assert isinstance(opened, Opened)
        return opened

    def types(self) -> list[str]:
        return [message.type for message in self.heard]


def at(state: State) -> Peer:
    """Lead a session into a state."""
    peer = Peer()
    if state is State.CONNECTED:
        return peer
    if state is State.REJECTING:
        peer.session.disconnect(DisconnectReason.ERROR)
    elif state is State.ENDED:
        peer.session.receive_end(now=peer.now)
    else:
        peer.open()
    if state in (State.OPEN, State.DISCONNECTING, State.CLOSING, State.CLOSED):
        peer.session.accept(negotiate([stereo()]))
    if state is State.DISCONNECTING:
        peer.session.disconnect(DisconnectReason.COMPLETED)
    if state in (State.CLOSING, State.CLOSED):
        peer.say("close")
    if state is State.CLOSED:
        peer.session.closed()
    peer.listen()
    assert peer.session.state is state
    return peer


def stereo() -> MediaParameter:
    return MediaParameter.model_validate(STEREO)


# Every state against every message. What should happen is written down once more here,
# apart from the table: (state after it, types sent, events).

Outcome = tuple[State, list[str], list[type[Any]]]
KINDS = (
    "open",
    "ping",
    "close",
    "paused",
    "resumed",
    "discarded",
    "update",
    "error",
    "dtmf",
)


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


CALLS: dict[str, Callable[[Session], None]] = {
    "accept": lambda session: session.accept(None),
    "disconnect": lambda session: session.disconnect(DisconnectReason.ERROR),
    "closed": lambda session: session.closed(),
}
# What is sent, or None if the call is a mistake of ours.
SENT: dict[State, dict[str, list[str] | None]] = {
    State.CONNECTED: {"accept": None, "disconnect": ["disconnect"], "closed": None},
    State.OPENING: {
        "accept": ["opened"],
        "disconnect": ["disconnect"],
        "closed": None,
    },
    State.OPEN: {"accept": None, "disconnect": ["disconnect"], "closed": None},
    State.REJECTING: {"accept": [], "disconnect": [], "closed": None},
    State.DISCONNECTING: {"accept": None, "disconnect": [], "closed": None},
    State.CLOSING: {"accept": [], "disconnect": [], "closed": ["closed"]},
    State.CLOSED: {"accept": [], "disconnect": [], "closed": []},
    State.ENDED: {"accept": [], "disconnect": [], "closed": []},
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
    ours = {Input.ACCEPT, Input.DISCONNECT, Input.CLOSED}
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


# Opening.


def test_opened_echoes_the_offer_chosen_and_is_the_first_message() -> None:
    peer = Peer()
    event = peer.open(media=[MONO, L16, INVERTED, STEREO])
    assert event.media == MediaParameter.model_validate(INVERTED)
    assert not event.is_probe
    peer.session.accept(event.media)
    (text,) = peer.session.data_to_send()
    assert json.loads(text) == {
        "version": "2",
        "id": SESSION,
        "type": "opened",
        "seq": 1,
        "clientseq": 1,
        "parameters": {"media": [INVERTED]},
    }
    assert peer.session.media == event.media
    assert peer.session.data_to_send() == []


def test_session_id_is_answered_in_the_spelling_of_the_messages() -> None:
    peer = Peer()
    peer.say("open", id=SESSION.upper())
    peer.session.accept(None)
    (opened,) = peer.listen()
    assert opened.id == SESSION.upper()


@pytest.mark.parametrize(("asked", "told"), [(True, ()), (False, None), (None, None)])
def test_languages_are_listed_only_if_asked_for(
    asked: object, told: tuple[str, ...] | None
) -> None:
    opened = Peer().start(supportedLanguages=asked)
    assert opened.parameters.supported_languages == told


def test_probe_is_opened_and_nothing_of_it_is_recorded() -> None:
    peer = Peer()
    opened = peer.start(conversationId=NIL_UUID)
    assert peer.session.is_probe
    assert len(opened.parameters.media) == 1
    assert peer.send_audio(0) == []
    assert peer.say("ping") == []
    for kind in ("paused", "resumed", "discarded", "update"):
        assert peer.say(kind) == []
    assert peer.session.timeline.gaps == ()
    assert peer.say("close") == [CloseReceived("end", 0)]
    peer.session.closed()
    peer.listen()
    assert peer.types() == ["opened", "pong", "updated", "closed"]


def test_probe_is_not_recorded_before_it_is_opened_either() -> None:
    peer = Peer()
    peer.open(conversationId=NIL_UUID)
    for kind in ("paused", "resumed", "discarded", "update"):
        assert peer.say(kind) == []


def test_probe_that_offers_nothing_usable_is_opened() -> None:
    opened = Peer().start(conversationId=NIL_UUID, media=[L16])
    assert opened.parameters.media == ()


def test_open_without_offers_is_opened_without_audio() -> None:
    peer = Peer()
    assert peer.open(media=[]).media is None
    peer.session.accept(None)
    (opened,) = peer.listen()
    assert isinstance(opened, Opened)
    assert opened.parameters.media == ()
    # Audio that nobody asked for is dropped, not a fault.
    assert peer.send_audio(1601) == []
    assert peer.say("discarded") == []


def disconnect_of(peer: Peer) -> tuple[DisconnectReason, str | None]:
    (message,) = [m for m in peer.heard if isinstance(m, Disconnect)]
    return message.parameters.reason, message.parameters.info


@pytest.mark.parametrize("offers", [[L16], [{**STEREO, "rate": 16000}], [None], ["x"]])
def test_open_that_offers_nothing_usable_is_rejected(offers: list[object]) -> None:
    peer = Peer()
    assert peer.say("open", open_parameters(media=offers)) == [
        Violation(SessionFault.MEDIA, answered=True)
    ]
    assert disconnect_of(peer) == (DisconnectReason.ERROR, SessionFault.MEDIA)


@pytest.mark.parametrize("organization", [OTHER, "", None, "x", NIL_UUID])
@pytest.mark.parametrize("conversation", [CONVERSATION, NIL_UUID])
def test_open_of_another_organization_is_unauthorized(
    organization: object, conversation: str
) -> None:
    peer = Peer()
    parameters = open_parameters(
        organizationId=organization, conversationId=conversation
    )
    assert peer.say("open", parameters) == [
        Violation(SessionFault.ORGANIZATION, answered=True)
    ]
    reason, _ = disconnect_of(peer)
    assert reason is DisconnectReason.UNAUTHORIZED


def test_organization_that_is_no_uuid_equals_none() -> None:
    session = Session(session_id=SESSION, organization_id="", now=0.0)
    peer = Peer(session)
    peer.say("open", open_parameters(organizationId=""))
    assert disconnect_of(peer)[0] is DisconnectReason.UNAUTHORIZED


def test_organization_is_compared_without_regard_to_case() -> None:
    event = Peer().open(organizationId=ORGANIZATION.upper())
    assert event.parameters.organization_id == ORGANIZATION


def test_session_id_must_be_a_uuid() -> None:
    with pytest.raises(ValueError, match="UUID"):
        Session(session_id="../x", organization_id=ORGANIZATION, now=0.0)


def test_media_that_was_not_offered_cannot_be_accepted() -> None:
    peer = Peer()
    peer.open(media=[MONO])
    with pytest.raises(LocalProtocolError, match="offered"):
        peer.session.accept(stereo())
    assert peer.session.state is State.OPENING


def test_reconnected_session_starts_where_its_window_starts() -> None:
    peer = Peer()
    continued = [{"id": OTHER, "serverseq": 4, "clientseq": 9}]
    (event,) = peer.say(
        "open", open_parameters(continuedSessions=continued), position="PT15.000125S"
    )
    assert isinstance(event, OpenReceived)
    assert event.start_samples == 120_001
    assert event.parameters.continued_sessions[0].id == OTHER
    assert peer.session.timeline.position_at(8000) == 128_001


def test_start_position_past_all_sense_is_refused() -> None:
    peer = Peer()
    assert peer.say("open", position="PT" + "9" * 30 + "S") == [
        Violation(Fault.MALFORMED, answered=True)
    ]


def test_open_that_names_no_call_is_refused() -> None:
    peer = Peer()
    assert peer.say("open", {"media": []}) == [
        Violation(Fault.PARAMETERS, answered=True)
    ]


# Replies.


def test_pings_before_opened_are_answered_after_it() -> None:
    peer = Peer()
    peer.say("ping")
    event = peer.open()
    peer.say("ping")
    peer.say("update")
    assert peer.heard == []
    peer.session.accept(event.media)
    peer.listen()
    assert [(m.type, m.seq, m.clientseq) for m in peer.heard] == [
        ("opened", 1, 4),
        ("pong", 2, 1),
        ("pong", 3, 3),
        ("updated", 4, 4),
    ]


def test_pings_before_a_rejection_are_answered_after_it() -> None:
    peer = Peer()
    peer.say("ping")
    peer.session.disconnect(DisconnectReason.ERROR)
    peer.listen()
    assert peer.types() == ["disconnect", "pong"]


def test_pings_before_a_close_without_opened_are_not_answered() -> None:
    peer = Peer()
    peer.open()
    peer.say("ping")
    peer.say("close")
    peer.session.accept(stereo())
    peer.session.closed()
    peer.listen()
    assert peer.types() == ["closed"]
    assert (peer.heard[0].seq, peer.heard[0].clientseq) == (1, 3)


def test_pings_before_opened_are_held_in_bounds() -> None:
    peer = Peer()
    for _ in range(MAX_HELD + 50):
        peer.say("ping")
    peer.open()
    peer.session.accept(None)
    peer.listen()
    assert peer.types() == ["opened", *["pong"] * MAX_HELD]


def test_ping_and_close_back_to_back_are_both_answered() -> None:
    peer = Peer()
    peer.start()
    ping, close = (
        json.dumps(
            {
                "version": "2",
                "id": SESSION,
                "type": kind,
                "seq": seq,
                "serverseq": 1,
                "position": "PT0S",
                "parameters": PARAMETERS[kind],
            }
        )
        for kind, seq in (("ping", 2), ("close", 3))
    )
    peer.session.receive_text(ping, now=101.0, audio_bytes=0)
    peer.session.receive_text(close, now=101.0, audio_bytes=0)
    peer.session.closed()
    sent = [parse_server_message(text) for text in peer.session.data_to_send()]
    assert [(m.type, m.seq, m.clientseq) for m in sent] == [
        ("pong", 2, 2),
        ("closed", 3, 3),
    ]


def test_closed_answers_the_close_and_not_what_came_after_it() -> None:
    peer = at(State.OPEN)
    peer.say("close")
    peer.say("ping")
    peer.session.closed()
    (closed,) = peer.listen()
    assert isinstance(closed, Closed)
    assert closed.clientseq == 2


@pytest.mark.parametrize("reason", ["end", "error", "disconnect", "reconnect", "moved"])
def test_close_is_reported_with_its_word_and_the_audio_before_it(reason: str) -> None:
    peer = at(State.OPEN)
    peer.audio_bytes = 16_000
    events = peer.say("close", {"reason": reason}, position="PT1S")
    assert events == [CloseReceived(reason, 16_000)]
    assert peer.session.deadline == math.inf


def test_error_then_close_is_closed() -> None:
    peer = at(State.OPEN)
    assert peer.say("error", {"code": 408, "message": "late"}) == [
        PeerErrorReceived(408, "late")
    ]
    assert peer.say("close", {"reason": "error"}) == [CloseReceived("error", 0)]
    peer.session.closed()
    assert [message.type for message in peer.listen()] == ["closed"]


def test_close_before_open_is_closed_without_opened() -> None:
    peer = Peer()
    peer.say("close")
    peer.session.closed()
    (closed,) = peer.listen()
    assert (closed.type, closed.seq, closed.clientseq) == ("closed", 1, 1)


def test_disconnect_is_sent_once_with_its_reason() -> None:
    peer = at(State.OPEN)
    peer.session.disconnect(DisconnectReason.COMPLETED, "draining")
    peer.session.disconnect(DisconnectReason.ERROR, "again")
    (message,) = peer.listen()
    assert isinstance(message, Disconnect)
    assert disconnect_of(peer) == (DisconnectReason.COMPLETED, "draining")


def test_texts_not_sent_when_the_socket_ended_are_dropped() -> None:
    peer = at(State.OPENING)
    peer.session.accept(stereo())
    peer.session.receive_end(now=101.0)
    assert peer.session.data_to_send() == []


@pytest.mark.parametrize("odd", [{}, {"language": 5}, {"language": "x" * 65}])
def test_update_of_nothing_is_answered_and_not_reported(odd: dict[str, Any]) -> None:
    peer = at(State.OPEN)
    assert peer.say("update", odd) == []
    assert isinstance(peer.heard[-1], Updated)


# Faults.


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"seq": 1}, SessionFault.SEQ),
        ({"seq": 0}, SessionFault.SEQ),
        ({"seq": 4}, SessionFault.SEQ),
        ({"serverseq": 2}, SessionFault.SERVERSEQ),
        ({"id": OTHER}, SessionFault.IDENTIFIER),
    ],
)
def test_fault_of_the_envelope_is_signalled_once(
    changes: dict[str, Any], fault: SessionFault
) -> None:
    peer = at(State.OPEN)
    first = peer.say("ping", **changes)
    assert first == [Violation(fault, answered=True)]
    assert peer.types() == ["opened", "disconnect", "pong"]
    assert disconnect_of(peer) == (DisconnectReason.ERROR, fault)
    again = peer.say("ping", seq=77)
    assert again == [Violation(SessionFault.SEQ, answered=False)]
    # The number is adopted: what follows from it is in order.
    peer.seq = 77
    assert peer.say("close") == [CloseReceived("end", 0)]
    peer.session.closed()
    (closed,) = peer.listen()
    assert closed.clientseq == 78


def test_close_with_a_wrong_number_is_still_answered() -> None:
    peer = at(State.OPEN)
    events = peer.say("close", seq=9)
    assert events == [
        Violation(SessionFault.SEQ, answered=True),
        CloseReceived("end", 0),
    ]
    peer.session.closed()
    peer.listen()
    assert peer.types() == ["opened", "disconnect", "closed"]
    assert [m.seq for m in peer.heard] == [1, 2, 3]
    assert peer.heard[-1].clientseq == 9


def test_open_with_a_wrong_number_is_rejected() -> None:
    peer = Peer()
    assert peer.say("open", seq=2) == [Violation(SessionFault.SEQ, answered=True)]
    assert peer.session.state is State.REJECTING
    assert [(m.type, m.seq, m.clientseq) for m in peer.heard] == [("disconnect", 1, 2)]


def test_gap_with_a_wrong_number_is_still_recorded() -> None:
    peer = at(State.OPEN)
    violation, gap = peer.say("discarded", seq=9)
    assert isinstance(violation, Violation)
    assert isinstance(gap, GapRecorded)


def test_serverseq_may_lag() -> None:
    peer = at(State.OPEN)
    peer.say("ping")
    assert peer.say("ping", serverseq=0) == []
    assert peer.session.state is State.OPEN


@pytest.mark.parametrize("length", [1, 1599, 1601])
def test_audio_that_holds_no_whole_samples_is_refused(length: int) -> None:
    peer = at(State.OPEN)
    assert peer.send_audio(length) == [
        Violation(SessionFault.AUDIO_FRAME, answered=True)
    ]


def test_audio_of_one_channel_may_have_any_length() -> None:
    peer = Peer()
    peer.start(media=[MONO])
    assert peer.send_audio(1601) == [BinaryAccepted(1601)]


def test_audio_is_bounded() -> None:
    peer = at(State.OPEN)
    assert peer.send_audio(MAX_BINARY_BYTES) == [BinaryAccepted(MAX_BINARY_BYTES)]
    assert peer.send_audio(MAX_BINARY_BYTES + 2) == [
        Violation(SessionFault.AUDIO_SIZE, answered=True)
    ]


@pytest.mark.parametrize("state", State)
def test_empty_audio_is_nothing_in_any_state(state: State) -> None:
    peer = at(state)
    assert peer.send_audio(0) == []
    assert peer.session.state is state
    assert peer.listen() == []


# Pauses and gaps.


@pytest.mark.parametrize(("offer", "channels"), [(STEREO, 2), (MONO, 1)])
def test_gap_lies_where_the_audio_before_it_ends(
    offer: dict[str, Any], channels: int
) -> None:
    peer = Peer()
    peer.start(media=[offer])
    peer.audio_bytes = 8000 * channels
    (event,) = peer.say("discarded", {"start": "PT9S", "discarded": "PT0.3S"})
    gap = Gap(GapKind.DISCARDED, 8000, 2400)
    assert event == GapRecorded(gap)
    assert peer.session.timeline.gaps == (gap,)


def test_pause_is_reported_once_and_leaves_a_gap() -> None:
    peer = at(State.OPEN)
    peer.audio_bytes = 240_000
    assert peer.say("paused") == [PauseBegan(120_000)]
    assert peer.say("paused") == []
    assert peer.session.is_paused
    # What was under way when the pause began is still audio.
    assert peer.send_audio(1600) == [BinaryAccepted(1600)]
    peer.audio_bytes += 1600
    resumed = {"start": "PT15S", "discarded": "PT8S"}
    assert peer.say("resumed", resumed) == [
        PauseEnded(120_800),
        GapRecorded(Gap(GapKind.PAUSED, 120_800, 64_000)),
    ]
    assert not peer.session.is_paused


def test_resumed_without_a_pause_or_loss_is_nothing() -> None:
    peer = at(State.OPEN)
    assert peer.say("resumed", {"start": "PT0S", "discarded": "PT0S"}) == []
    assert peer.session.timeline.gaps == ()


@pytest.mark.parametrize(
    "odd",
    [{}, {"discarded": "PT1M"}, {"discarded": 5}, {"discarded": "PT" + "9" * 99 + "S"}],
)
@pytest.mark.parametrize("kind", ["resumed", "discarded"])
def test_gap_of_unknown_length_does_not_end_the_call(
    kind: str, odd: dict[str, Any]
) -> None:
    peer = at(State.OPEN)
    peer.say("paused")
    events = peer.say(kind, odd)
    assert events[-1] == Violation(Fault.PARAMETERS, answered=False)
    assert peer.session.state is State.OPEN
    assert peer.session.is_paused is (kind == "discarded")
    assert peer.types() == ["opened"]


def test_gap_is_rounded_to_the_nearest_sample() -> None:
    peer = at(State.OPEN)
    (event,) = peer.say("discarded", {"start": "PT0S", "discarded": "PT0.0000625S"})
    assert event == GapRecorded(Gap(GapKind.DISCARDED, 0, 1))


def test_gaps_cannot_outgrow_the_call() -> None:
    peer = at(State.OPEN)
    peer.now += 10.0
    endless = {"start": "PT0S", "discarded": "PT999999999S"}
    room = 8000 * (10 + 60)
    assert peer.say("discarded", endless) == [
        GapRecorded(Gap(GapKind.DISCARDED, 0, room)),
        GapLimited(8000 * 999_999_999 - room),
    ]
    assert peer.say("resumed", endless) == [GapLimited(8000 * 999_999_999)]
    peer.now += 1.0
    assert peer.say("discarded", {"start": "PT0S", "discarded": "PT1S"}) == [
        GapRecorded(Gap(GapKind.DISCARDED, 0, 8000))
    ]
    assert peer.session.timeline.gap_samples == room + 8000


def test_gaps_are_measured_against_the_time_since_open() -> None:
    peer = Peer()
    peer.now += 8.0
    peer.start()
    (gap, _) = peer.say("discarded", {"start": "PT0S", "discarded": "PT999S"})
    assert gap == GapRecorded(Gap(GapKind.DISCARDED, 0, 8000 * 60))


def test_gaps_of_a_long_call_are_not_limited() -> None:
    peer = at(State.OPEN)
    for hour in range(1, 11):
        peer.now = 100.0 + 3600 * hour
        peer.say("paused")
        events = peer.say("resumed", {"start": "PT0S", "discarded": "PT3600S"})
        assert [type(event) for event in events] == [PauseEnded, GapRecorded]


def test_number_of_gaps_is_bounded() -> None:
    peer = at(State.OPEN)
    peer.now += 1e6
    tiny = {"start": "PT0S", "discarded": "PT0.000125S"}
    for _ in range(MAX_FACTS):
        peer.say("discarded", tiny)
    assert peer.say("discarded", tiny) == [GapLimited(1)]
    assert peer.session.timeline.gap_samples == MAX_FACTS


def test_number_of_facts_is_bounded() -> None:
    peer = at(State.OPEN)
    told = 0
    for number in range(MAX_FACTS // 3 + 10):
        told += len(peer.say("update", {"language": f"x-{number}"}))
        told += len(peer.say("paused"))
        told += len(peer.say("resumed", {"start": "PT0S", "discarded": "PT0S"}))
    assert told == MAX_FACTS
    assert peer.session.state is State.OPEN
    assert not peer.session.is_paused


@pytest.mark.parametrize(
    ("state", "answered"), [(State.OPEN, True), (State.DISCONNECTING, False)]
)
def test_audio_from_before_opened_is_a_fault(state: State, answered: bool) -> None:
    peer = at(state)
    assert peer.session.receive_binary(0, now=peer.now, is_early=True) == []
    for length, fault in ((7, SessionFault.AUDIO_FRAME), (6, SessionFault.EARLY_AUDIO)):
        peer = at(state)
        assert peer.session.receive_binary(length, now=peer.now, is_early=True) == [
            Violation(str(fault), answered)
        ]


def test_lost_audio_becomes_a_gap() -> None:
    peer = at(State.OPEN)
    peer.session.add_lost(800, 1600)
    assert peer.session.timeline.gaps == (Gap(GapKind.LOST, 800, 1600),)


def test_drift_is_reported_when_it_has_moved_by_a_second() -> None:
    peer = at(State.OPEN)
    peer.audio_bytes = 2 * 80_000
    assert peer.say("ping", position="PT10.9S") == []
    assert peer.say("ping", position="PT11.5S") == [PositionDrift(12_000)]
    assert peer.say("ping", position="PT12S") == []
    assert peer.say("ping", position="PT9S") == [PositionDrift(-8000)]
    assert peer.say("close", position="PT10S") == [
        PositionDrift(0),
        CloseReceived("end", 160_000),
    ]


def test_drift_is_not_measured_while_paused() -> None:
    peer = at(State.OPEN)
    peer.say("paused")
    assert peer.say("ping", position="PT500S") == []


def test_drift_takes_gaps_and_the_start_into_account() -> None:
    peer = Peer()
    (event,) = peer.say("open", position="PT15S")
    assert isinstance(event, OpenReceived)
    peer.session.accept(event.media)
    peer.listen()
    peer.say("discarded", {"start": "PT15S", "discarded": "PT5S"}, position="PT15S")
    peer.audio_bytes = 16_000
    assert peer.say("ping", position="PT21S") == []


# Time.


def test_open_is_waited_for_whatever_else_is_said() -> None:
    peer = Peer()
    assert peer.session.deadline == 110.0
    peer.now = 109.0
    peer.say("ping")
    peer.say("error")
    assert peer.session.deadline == 110.0
    assert peer.session.handle_timeout(now=109.9, audio_bytes=0) == []
    assert peer.session.handle_timeout(now=110.0, audio_bytes=0) == [
        TimedOut(Timer.OPEN)
    ]
    assert peer.session.state is State.ENDED
    assert peer.session.receive_end(now=111.0) == []


def test_our_own_work_has_no_deadline_here() -> None:
    for state in (State.OPENING, State.CLOSING, State.ENDED):
        peer = at(state)
        assert peer.session.deadline == math.inf
        assert peer.session.handle_timeout(now=1e9, audio_bytes=0) == []
        assert peer.session.state is state


def test_open_session_ends_when_nothing_is_heard() -> None:
    peer = at(State.OPEN)
    peer.now = 105.0
    peer.say("dtmf")
    assert peer.session.deadline == 125.0
    assert peer.session.handle_timeout(now=125.0, audio_bytes=0) == [
        TimedOut(Timer.IDLE)
    ]


def test_audio_alone_keeps_a_session_open() -> None:
    peer = at(State.OPEN)
    now = 100.0
    for audio_bytes in (1600, 3200, 4800):
        now = peer.session.deadline
        assert peer.session.handle_timeout(now=now, audio_bytes=audio_bytes) == []
        assert peer.session.deadline == now + 10.0
    now = peer.session.deadline
    assert peer.session.handle_timeout(now=now, audio_bytes=4800) == [
        TimedOut(Timer.IDLE)
    ]


def test_audio_before_the_last_text_is_no_later_sign_of_life() -> None:
    peer = at(State.OPEN)
    peer.audio_bytes = 1600
    peer.say("ping")
    assert peer.session.handle_timeout(now=120.0, audio_bytes=1600) == [
        TimedOut(Timer.IDLE)
    ]


def test_slow_path_audio_is_a_sign_of_life() -> None:
    peer = at(State.OPEN)
    peer.now = 110.0
    peer.send_audio(1600)
    assert peer.session.deadline == 130.0


def test_peer_has_so_long_to_close_after_disconnect() -> None:
    peer = at(State.OPEN)
    peer.session.disconnect(DisconnectReason.COMPLETED, now=200.0)
    assert peer.session.deadline == 212.0
    peer.now = 205.0
    peer.say("ping")
    assert peer.session.deadline == 212.0
    assert peer.session.handle_timeout(now=212.0, audio_bytes=9999) == [
        TimedOut(Timer.CLOSING)
    ]


def test_peer_has_so_long_to_hang_up_after_closed() -> None:
    peer = at(State.CLOSING)
    peer.session.closed(now=300.0)
    assert peer.session.deadline == 312.0
    assert peer.session.handle_timeout(now=312.0, audio_bytes=0) == [
        TimedOut(Timer.CLOSING)
    ]


def test_time_of_the_last_input_stands_in_for_one_not_given() -> None:
    peer = at(State.OPEN)
    peer.now = 150.0
    peer.say("close")
    peer.session.closed()
    assert peer.session.deadline == 162.0


def test_timers_can_be_set() -> None:
    timers = Timers(open=1.0, idle=2.0, closing=3.0)
    peer = Peer(
        Session(
            session_id=SESSION, organization_id=ORGANIZATION, now=100.0, timers=timers
        )
    )
    assert peer.session.deadline == 101.0
    peer.start()
    assert peer.session.deadline == 102.0
    peer.session.disconnect(DisconnectReason.ERROR)
    assert peer.session.deadline == 103.0


# Whatever comes.

PROBABLE = st.sampled_from
VALUES: st.SearchStrategy[Any] = PROBABLE(
    [None, 0, -1, 5, 1.5, True, "", "x", "PT1S", "PT9999999S", SESSION, [], {}, [5]]
)
ENVELOPES = st.fixed_dictionaries(
    {},
    optional={
        "seq": st.integers(-1, 20) | VALUES,
        "serverseq": st.integers(-1, 20) | VALUES,
        "id": PROBABLE([SESSION, SESSION.upper(), OTHER]) | VALUES,
        "version": PROBABLE(["2", "1"]) | VALUES,
        "position": PROBABLE(["PT0S", "PT3.5S", "PT99999999999S"]) | VALUES,
    },
)
GOOD: st.SearchStrategy[Any] = st.tuples(
    st.just("say"), PROBABLE(KINDS), st.none(), st.just({})
)
OPENS = st.tuples(
    st.just("say"),
    st.just("open"),
    st.fixed_dictionaries(
        {},
        optional={
            "media": st.lists(PROBABLE([STEREO, MONO, L16, INVERTED, None, 5])),
            "conversationId": PROBABLE([CONVERSATION, NIL_UUID, "x"]),
            "organizationId": PROBABLE([ORGANIZATION, OTHER]),
            "supportedLanguages": VALUES,
            "participant": VALUES,
        },
    ).map(lambda changes: open_parameters(**changes)),
    st.just({}),
)
BAD = st.tuples(
    st.just("say"),
    PROBABLE(KINDS),
    st.none()
    | VALUES
    | st.dictionaries(
        PROBABLE(["discarded", "start", "language", "reason", "code", "media"]), VALUES
    ),
    ENVELOPES,
)
STEPS = st.one_of(
    GOOD,
    GOOD,
    OPENS,
    BAD,
    st.tuples(st.just("text"), st.text(max_size=20)),
    st.tuples(st.just("audio"), PROBABLE([0, 1, 1600, 1601, 64_000, 70_000])),
    st.tuples(st.just("wait"), st.floats(-5, 40)),
    st.tuples(st.just("call"), PROBABLE(["accept", "accept media", *CALLS])),
    st.tuples(st.just("answer")),
    st.tuples(st.just("end")),
)


class Watch:
    """Drives a session step by step and holds it to what may never happen."""

    def __init__(self) -> None:
        self.peer = Peer()
        self.events: list[SessionEvent] = []
        self.said: list[tuple[str, object]] = []

    def run(self, steps: Sequence[tuple[Any, ...]]) -> None:
        for name, *arguments in steps:
            before = self.peer.session.state
            getattr(self, f"do_{name}")(*arguments)
            self.peer.listen()
            self.check(before)

    def do_say(self, kind: str, parameters: object, changes: dict[str, Any]) -> None:
        seq = changes.get("seq", self.peer.seq + 1)
        self.said.append((kind, seq))
        self.events += self.peer.say(kind, parameters, **changes)

    def do_text(self, text: str) -> None:
        self.events += self.peer.say_text(text)

    def do_audio(self, length_bytes: int) -> None:
        for event in self.peer.send_audio(length_bytes):
            self.events.append(event)
            if isinstance(event, BinaryAccepted):
                self.peer.audio_bytes += event.length_bytes

    def do_wait(self, seconds: float) -> None:
        self.peer.now += seconds
        self.events += self.peer.session.handle_timeout(
            now=self.peer.now, audio_bytes=self.peer.audio_bytes
        )

    def do_call(self, name: str) -> None:
        session = self.peer.session
        what = Input(name.split()[0])
        call = CALLS[name] if name in CALLS else lambda s: s.accept(stereo())
        if TRANSITIONS[session.state][what] is MISUSE:
            with pytest.raises(LocalProtocolError):
                call(session)
        else:
            # Media that was not offered is as much our mistake as a wrong moment.
            with contextlib.suppress(LocalProtocolError):
                call(session)

    def do_answer(self) -> None:
        """What the call does with its events, so that long dialogues come about."""
        session = self.peer.session
        if session.state is State.OPENING:
            opens = [e for e in self.events if isinstance(e, OpenReceived)]
            session.accept(opens[-1].media, now=self.peer.now)
        elif session.state is State.CLOSING:
            session.closed(now=self.peer.now)

    def do_end(self) -> None:
        self.events += self.peer.session.receive_end(now=self.peer.now)

    def check(self, before: State) -> None:
        order = list(State)
        assert order.index(self.peer.session.state) >= order.index(before)
        heard = self.peer.heard
        types = self.peer.types()
        assert [message.seq for message in heard] == list(range(1, len(heard) + 1))
        assert all(message.id.lower() == SESSION for message in heard)
        numbers = {0} | {seq for _, seq in self.said if isinstance(seq, int)}
        assert all(message.clientseq in numbers for message in heard)
        assert types[:1] in ([], ["opened"], ["disconnect"], ["closed"])
        assert types.count("opened") <= 1
        assert types.count("disconnect") <= 1
        closes = [e for e in self.events if isinstance(e, CloseReceived)]
        assert types.count("closed") <= len(closes) <= 1
        assert "closed" not in types[:-1]
        self.check_replies(heard)
        self.check_events()

    def check_replies(self, heard: Sequence[ServerMessage]) -> None:
        pings = [seq for kind, seq in self.said if kind == "ping"]
        for message in heard:
            if isinstance(message, Pong):
                assert message.clientseq in pings
                pings.remove(message.clientseq)

    def check_events(self) -> None:
        kinds = [type(event) for event in self.events]
        for kind in (OpenReceived, CloseReceived, TimedOut, Ended):
            assert kinds.count(kind) <= 1
        answered = [e for e in self.events if isinstance(e, Violation) and e.answered]
        assert len(answered) <= 1
        about_the_call = {GapRecorded, PauseBegan, PauseEnded, LanguageChanged}
        if OpenReceived not in kinds:
            assert not about_the_call & set(kinds)
        pauses = [k for k in kinds if k in (PauseBegan, PauseEnded)]
        assert all(one is not two for one, two in pairwise(pauses))


@settings(max_examples=300)
@given(st.lists(STEPS, max_size=30))
@example([("say", "open", None, {}), ("answer",), ("wait", 25.0), ("end",)])
def test_whatever_comes_the_server_keeps_the_protocol(
    steps: list[tuple[Any, ...]],
) -> None:
    Watch().run(steps)


@settings(max_examples=200)
@given(st.lists(STEPS, max_size=20))
def test_whatever_came_in_an_open_session_close_is_answered(
    steps: list[tuple[Any, ...]],
) -> None:
    watch = Watch()
    watch.run([("say", "open", None, {}), ("answer",), *steps])
    closes = [e for e in watch.events if isinstance(e, CloseReceived)]
    if watch.peer.session.state is State.ENDED:
        return
    # However wrong the numbers were, one close is understood and answered.
    if not closes:
        watch.peer.seq = 1000
        watch.run([("say", "close", None, {"serverseq": 0})])
    watch.peer.session.closed()
    watch.peer.listen()
    assert watch.peer.types()[-1] == "closed"


PING_TEXTS = [
    {"type": "ping"},
    {"type": "ping", "parameters": {}},
    {"type": "ping", "seq": 7},
    {"type": "ping", "id": OTHER},
    {"type": "ping", "serverseq": 50},
    {"type": "ping", "position": "PT90S"},
]


@pytest.mark.parametrize("changes", PING_TEXTS)
def test_ping_taken_in_on_the_short_way_does_what_any_ping_does(
    changes: dict[str, object],
) -> None:
    usual, short = at(State.OPEN), at(State.OPEN)
    text = json.dumps(
        {
            "version": "2",
            "id": SESSION,
            "seq": 2,
            "serverseq": 1,
            "position": "PT0S",
            "parameters": {"rtt": "PT0.1S"},
            **changes,
        }
    )
    events = short.session.receive_ping(text, now=101.0, audio_bytes=0)
    assert events == usual.session.receive_text(text, now=101.0, audio_bytes=0)
    assert short.session.data_to_send() == usual.session.data_to_send() != []
    assert short.session.deadline == usual.session.deadline


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize(
    "text",
    [
        '{"type": "ping"',
        '["ping"]',
        json.dumps({"type": "close", "parameters": {"reason": '"ping"'}}),
        json.dumps({"type": "ping", "version": "1"}),
        "",
    ],
)
def test_what_is_no_ping_has_no_effect_on_the_short_way(
    state: State, text: str
) -> None:
    peer = at(state)
    deadline = peer.session.deadline
    assert peer.session.receive_ping(text, now=101.0, audio_bytes=10) is None
    assert (peer.session.state, peer.session.deadline) == (state, deadline)
    assert peer.session.data_to_send() == []
