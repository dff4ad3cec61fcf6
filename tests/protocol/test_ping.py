"""The usual ping's short way, against the long way that every message can take."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiohook.protocol._ping import read_usual_ping
from audiohook.protocol.messages import Ping, parse_client_message
from audiohook.protocol.state import State
from tests.protocol.insides import insides
from tests.protocol.peer import OTHER, SESSION, at

if TYPE_CHECKING:
    from collections.abc import Sequence

USUAL: dict[str, object] = {
    "version": "2",
    "id": SESSION,
    "type": "ping",
    "seq": 2,
    "serverseq": 1,
    "position": "PT5.5S",
    "parameters": {"rtt": "PT0.03S"},
}


def read(text: str, *, seq: int = 2, serverseq: int = 1) -> str | None:
    return read_usual_ping(text, SESSION, seq, serverseq)


@pytest.mark.parametrize("indent", [None, 0, 2, "\t"])
@pytest.mark.parametrize("names", [list(USUAL), list(reversed(USUAL))])
@pytest.mark.parametrize("parameters", [{}, {"rtt": "PT1S"}, {"rtt": ""}])
def test_usual_ping_is_read_in_any_order_and_spacing(
    indent: int | str | None, names: list[str], parameters: dict[str, str]
) -> None:
    message = {name: USUAL[name] for name in names} | {"parameters": parameters}
    text = json.dumps(message, indent=indent)
    assert read(text) == "PT5.5S"
    assert read(f" \r\n{text}\t") == "PT5.5S"


LEFT_ALONE = {
    "another version": {"version": "1"},
    "a version that is a number": {"version": 2},
    "another session": {"id": SESSION.upper()},
    "another message": {"type": "pong"},
    "a seq out of turn": {"seq": 3},
    "a seq with a point": {"seq": 2.0},
    "a seq that is text": {"seq": "2"},
    "a serverseq not sent yet": {"serverseq": 2},
    "a serverseq below zero": {"serverseq": -1},
    "no duration": {"position": "5.5"},
    "a duration without digits": {"position": "PTS"},
    "a duration that ends in a point": {"position": "PT5.S"},
    "a duration with two points": {"position": "PT5.5.5S"},
    "a duration in minutes": {"position": "PT5M"},
    "a long duration": {"position": f"PT{'1' * 40}S"},
    "a name": {"parameters": {"rtt": "Zoë"}},
    "an escape": {"parameters": {"rtt": "\n"}},
    "another parameter": {"parameters": {"other": "PT1S"}},
    "a round trip that is no text": {"parameters": {"rtt": 1}},
    "two parameters": {"parameters": {"rtt": "PT1S", "other": ""}},
    "parameters in a list": {"parameters": []},
    "another member": {"other": 1},
}


@pytest.mark.parametrize("changes", LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_what_is_not_just_as_it_should_be_is_left_alone(
    changes: dict[str, object],
) -> None:
    assert read(json.dumps(USUAL | changes, ensure_ascii=False)) is None


@pytest.mark.parametrize("name", USUAL)
def test_ping_that_lacks_a_member_or_has_it_twice_is_left_alone(name: str) -> None:
    less = {other: value for other, value in USUAL.items() if other != name}
    assert read(json.dumps(less)) is None
    more = json.dumps(USUAL)[:-1] + f",{json.dumps({name: USUAL[name]})[1:]}"
    assert json.loads(more) == USUAL
    assert read(more) is None


def test_every_ping_that_is_cut_off_or_goes_on_is_left_alone() -> None:
    text = json.dumps(USUAL)
    assert read(text) is not None
    for end in range(len(text)):
        assert read(text[:end]) is None
    for more in '{}[],:"x0\\\0\x7f\xa0':
        assert read(text + more) is None


@pytest.mark.parametrize("number", ["02", "+2", "2e0", "2.", "2 0", "0x2", "", "٢"])
def test_numbers_are_those_of_json(number: str) -> None:
    assert read(json.dumps(USUAL).replace('"seq": 2', f'"seq": {number}')) is None


def test_numbers_as_long_as_can_be_are_exact() -> None:
    longest = 10**15 - 1
    text = json.dumps(USUAL | {"seq": longest, "serverseq": 0})
    assert read(text, seq=longest, serverseq=0) == "PT5.5S"
    assert read(text, seq=longest - 1, serverseq=0) is None
    text = json.dumps(USUAL | {"seq": longest + 1})
    assert read(text, seq=longest + 1) is None


NUMBERS = st.one_of(st.integers(0, 6), st.integers(), st.floats(), st.text(max_size=2))
MEMBERS = st.fixed_dictionaries(
    {},
    optional={
        "version": st.sampled_from(["2", "1", 2, None]),
        "id": st.sampled_from([SESSION, SESSION.upper(), "", None]),
        "type": st.sampled_from(["ping", "ping", "paused", "update", "x"]),
        "seq": NUMBERS,
        "serverseq": NUMBERS,
        "position": st.one_of(
            st.integers(0, 10**6).map(lambda n: f"PT{n / 1000}S"),
            st.from_regex(r"PT[0-9]{0,3}\.?[0-9]{0,3}S?", fullmatch=True),
            st.text(max_size=6),
        ),
        "parameters": st.one_of(
            st.just({}),
            st.dictionaries(st.sampled_from(["rtt", "y"]), st.text(max_size=4)),
            st.none(),
        ),
        "other": st.integers(),
    },
)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """A ping that is as it should be but for a few members, in any spelling."""
    message = USUAL | {"seq": draw(st.integers(1, 6))}
    message |= draw(st.one_of(st.just({}), MEMBERS))
    for name in draw(st.sets(st.sampled_from(sorted(message)), max_size=1)):
        if draw(st.booleans()):
            del message[name]
    items = draw(st.permutations(list(message.items())))
    text = json.dumps(
        dict(items),
        indent=draw(st.sampled_from([None, None, 1])),
        ensure_ascii=draw(st.booleans()),
    )
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        place = draw(st.integers(0, len(text)))
        letter = draw(st.sampled_from('{}[]",:.0123456789 \\uPTS\0é'))
        text = text[:place] + letter + text[place + draw(st.integers(0, 1)) :]
    return text


@settings(max_examples=500)
@given(st.lists(texts(), min_size=1, max_size=5), st.booleans())
def test_short_way_and_long_way_come_to_the_same(
    said: Sequence[str], paused: bool
) -> None:
    long, short = at(State.OPEN), at(State.OPEN)
    if paused:
        long.say("paused")
        short.say("paused")
    for number, text in enumerate(said):
        now, audio_bytes = 101.0 + number, 32_000 * number
        expected = long.session.receive_text(text, now=now, audio_bytes=audio_bytes)
        events = short.session.receive_ping(text, now=now, audio_bytes=audio_bytes)
        if events is None:
            events = short.session.receive_text(text, now=now, audio_bytes=audio_bytes)
        assert events == expected
        assert insides(short.session) == insides(long.session)


@settings(max_examples=500)
@given(texts(), st.integers(1, 6), st.integers(0, 6))
def test_what_is_read_the_short_way_is_the_same_ping_the_long_way(
    text: str, seq: int, serverseq: int
) -> None:
    position = read(text, seq=seq, serverseq=serverseq)
    if position is not None:
        ping = parse_client_message(text)
        assert isinstance(ping, Ping)
        assert (ping.position, ping.id, ping.seq) == (position, SESSION, seq)
        assert ping.serverseq <= serverseq


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
