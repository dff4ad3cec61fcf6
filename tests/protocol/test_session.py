"""The session: how it opens, answers, finds fault, and waits."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from audiohook.errors import LocalProtocolError
from audiohook.protocol.events import (
    BinaryAccepted,
    CloseReceived,
    GapRecorded,
    OpenReceived,
    PeerErrorReceived,
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
    Updated,
    parse_server_message,
)
from audiohook.protocol.session import MAX_BINARY_BYTES, MAX_HELD, Session, Timers
from audiohook.protocol.state import State
from audiohook.protocol.wire import Fault
from tests.protocol.peer import (
    CONVERSATION,
    INVERTED,
    L16,
    MONO,
    ORGANIZATION,
    OTHER,
    PARAMETERS,
    SESSION,
    STEREO,
    Peer,
    at,
    disconnect_of,
    open_parameters,
    stereo,
)

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
