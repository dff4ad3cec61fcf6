"""Our own pause: what the peer is asked, how often, and when it has answered."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiohook.protocol._pong import Allowance
from audiohook.protocol.events import GapRecorded, HoldAnswered, PauseBegan, PauseEnded
from audiohook.protocol.hold import PAUSES_BURST, TEXTS_BURST, TEXTS_PER_SECOND
from audiohook.protocol.messages import Opened
from audiohook.protocol.state import State
from audiohook.protocol.timeline import Gap, GapKind
from tests.protocol.peer import Peer, at

RESUMED = {"start": "PT1S", "discarded": "PT3S"}


def ask(peer: Peer, kind: str) -> float:
    """Asks the peer, which takes it in."""
    wait: float = getattr(peer.session, kind)(now=peer.now)
    peer.listen()
    return wait


def test_pause_on_our_word_leaves_a_gap_where_the_peer_stopped() -> None:
    peer = at(State.OPEN)
    assert ask(peer, "pause") == 0
    assert peer.types() == ["opened", "pause"]
    assert (peer.session.is_held, peer.session.has_answered) == (True, False)
    # What was under way is audio of the call, up to the peer's word.
    peer.audio_bytes = 16_000
    assert peer.say("paused") == [PauseBegan(8000), HoldAnswered(True, True, 8000)]
    assert (peer.session.is_held, peer.session.has_answered) == (True, True)
    peer.now += 3
    assert ask(peer, "resume") == 0
    assert (peer.session.is_held, peer.session.has_answered) == (False, False)
    assert peer.say("resumed", RESUMED) == [
        PauseEnded(8000),
        GapRecorded(Gap(GapKind.PAUSED, 8000, 24_000)),
        HoldAnswered(False, False, 8000),
    ]
    assert peer.types() == ["opened", "pause", "resume"]


def test_session_that_is_held_from_the_start() -> None:
    peer = Peer()
    event = peer.open()
    peer.session.accept(event.media, hold=True)
    (opened,) = peer.listen()
    assert isinstance(opened, Opened)
    assert opened.parameters.start_paused is True
    assert peer.session.is_held
    assert peer.say("paused") == [PauseBegan(0), HoldAnswered(True, True, 0)]
    ask(peer, "resume")
    peer.now += 3
    assert peer.say("resumed", RESUMED)[-1] == HoldAnswered(False, False, 0)


def test_peers_own_pause_before_it_took_ours_in_is_no_answer() -> None:
    peer = at(State.OPEN)
    ask(peer, "pause")
    assert peer.say("paused", serverseq=1) == [PauseBegan(0)]
    assert not peer.session.has_answered
    assert peer.say("paused") == [HoldAnswered(True, True, 0)]


@pytest.mark.parametrize("kind", ["ping", "error", "update"])
def test_silent_peer_that_goes_on_after_our_pause_has_answered(kind: str) -> None:
    peer = at(State.OPEN)
    peer.say("paused")
    ask(peer, "pause")
    assert not any(
        isinstance(event, HoldAnswered) for event in peer.say(kind, serverseq=1)
    )
    assert peer.say(kind)[-1] == HoldAnswered(True, True, 0)


def test_ping_alone_answers_nothing_while_audio_flows() -> None:
    peer = at(State.OPEN)
    ask(peer, "pause")
    assert peer.say("ping") == []
    assert not peer.session.has_answered


def test_ping_that_is_dealt_with_at_once_answers_too() -> None:
    peer = at(State.OPEN)
    peer.say("paused")
    ask(peer, "pause")
    text = (
        f'{{"version":"2","id":"{peer.heard[0].id}","type":"ping","seq":{peer.seq + 1},'
        '"serverseq":2,"position":"PT0S","parameters":{}}'
    )
    events = peer.session.receive_ping(text, now=peer.now, audio_bytes=0)
    assert events == [HoldAnswered(True, True, 0)]


def test_resume_while_the_peer_pauses_itself_is_answered_and_stays_silent() -> None:
    peer = at(State.OPEN)
    peer.say("paused")
    ask(peer, "pause")
    peer.say("paused")
    ask(peer, "resume")
    # A ping may come before its answer.
    assert peer.say("ping") == []
    assert peer.say("paused") == [HoldAnswered(False, True, 0)]
    assert peer.session.is_paused


def test_resume_that_was_not_needed_is_answered() -> None:
    peer = at(State.OPEN)
    ask(peer, "resume")
    nothing_lost = {"start": "PT0S", "discarded": "PT0S"}
    assert peer.say("resumed", nothing_lost) == [HoldAnswered(False, False, 0)]


@pytest.mark.parametrize("kind", ["pause", "resume"])
def test_each_kind_goes_out_twice_a_second_after_a_burst(kind: str) -> None:
    peer = at(State.OPEN)
    assert [ask(peer, kind) for _ in range(PAUSES_BURST)] == [0] * PAUSES_BURST
    assert ask(peer, kind) == 0.5
    assert peer.types().count(kind) == PAUSES_BURST
    peer.now += 0.5
    assert ask(peer, kind) == 0
    assert ask(peer, kind) == 0.5


def test_answers_count_among_all_texts_but_never_wait() -> None:
    peer = at(State.OPEN)
    for _ in range(TEXTS_BURST + 10):
        peer.say("ping")
    assert peer.types().count("pong") == TEXTS_BURST + 10
    # 11 too many, with `opened`, and one for the pause itself.
    assert ask(peer, "pause") == pytest.approx(12 / TEXTS_PER_SECOND)
    assert "pause" not in peer.types()
    peer.now += 12 / TEXTS_PER_SECOND
    assert ask(peer, "pause") == 0


@pytest.mark.parametrize("state", [State.CLOSING, State.ENDED, State.DISCONNECTING])
def test_session_that_ends_is_not_asked(state: State) -> None:
    peer = at(state)
    for _ in range(PAUSES_BURST + 1):
        assert ask(peer, "pause") == 0
    assert "pause" not in peer.types()
    assert not peer.session.is_held


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=60))
def test_no_window_of_time_holds_more_than_is_allowed(
    steps: list[tuple[float, bool]],
) -> None:
    allowance = Allowance(2.0, 4, 0.0)
    now, said = 0.0, []
    for seconds, back in steps:
        now += seconds
        # A clock may be read late, and so go back a little.
        if allowance.wait(now - back * 0.1) == 0:
            allowance.spend(now)
            said.append(now)
    for first, began in enumerate(said):
        for last, ended in enumerate(said[first:], start=1):
            assert last <= 4 + 2.0 * (ended - began) + 1e-6


def test_facts_of_the_session_do_not_change_by_asking() -> None:
    peer = at(State.OPEN)
    before: Any = (peer.session.deadline, peer.session.state, peer.session.is_paused)
    ask(peer, "pause")
    after = (peer.session.deadline, peer.session.state, peer.session.is_paused)
    assert before == after
