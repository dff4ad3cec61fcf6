"""What a peer says of its call, and how much of it is believed."""

from __future__ import annotations

from typing import Any

import pytest

from audiohook.protocol.events import (
    BinaryAccepted,
    CloseReceived,
    GapLimited,
    GapRecorded,
    OpenReceived,
    PauseBegan,
    PauseEnded,
    PositionDrift,
    Violation,
)
from audiohook.protocol.facts import MAX_FACTS
from audiohook.protocol.state import State
from audiohook.protocol.timeline import Gap, GapKind
from audiohook.protocol.wire import Fault
from tests.protocol.peer import MONO, STEREO, Peer, at

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
