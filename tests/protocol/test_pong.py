"""Pings answered in the sweep, against the way that every message can take."""

from __future__ import annotations

import inspect
import json
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from audiohook._divert import Fleet, Lane
from audiohook.errors import LocalProtocolError
from audiohook.protocol.messages import DisconnectReason, negotiate
from audiohook.protocol.session import Session
from audiohook.protocol.state import State
from audiohook.protocol.timeline import SAMPLE_RATE_HZ
from tests.fuzz.bytes_reader import BytesReader
from tests.protocol.peer import SESSION, at, stereo
from tests.reference_frames import TEXT, frame
from tests.twins import MASK, Driver, Twins, texts_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def twins() -> Iterator[Twins]:
    with Twins() as twins:
        yield twins


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_both_ways_come_to_the_same(data: bytes) -> None:
    with Twins() as twins:
        Driver(twins, BytesReader(data)).run()
        event("some in the sweep" if twins.answered else "none in the sweep")


def test_usual_pings_are_all_answered_in_the_sweep(twins: Twins) -> None:
    for _ in range(200):
        twins.now += 5
        twins.arrive(twins.audio(40) + twins.message("ping"))
    assert twins.answered == 200
    assert len(twins.short.said) == 200
    last = json.loads(twins.short.said[-1])
    assert (last["seq"], last["clientseq"]) == (201, 201)
    assert twins.short.session.deadline == twins.now + 20


def test_pings_are_answered_in_the_sweep_while_the_client_pauses(twins: Twins) -> None:
    twins.arrive(twins.message("paused"))
    twins.position_samples += 100 * SAMPLE_RATE_HZ
    twins.arrive(twins.message("ping"))
    assert twins.answered == 1


@pytest.mark.parametrize("off", [-8000, -7999, -7998, 0, 7998, 7999, 8000, 8001])
def test_drift_that_may_be_told_of_is_left_to_the_session(
    twins: Twins, off: int
) -> None:
    twins.arrive(twins.audio(3_900) + twins.audio(3_900) + twins.audio(3_900))
    position = (twins.position_samples + off) / SAMPLE_RATE_HZ
    twins.arrive(twins.message("ping", position=f"PT{position:.6f}S"))
    assert twins.answered == (abs(off) < 7998)
    assert len(twins.short.events) == (abs(off) >= SAMPLE_RATE_HZ)


def test_drift_that_was_told_of_is_what_is_expected_from_then_on(twins: Twins) -> None:
    twins.position_samples += 20_000
    for _ in range(3):
        twins.arrive(twins.message("ping"))
    assert twins.answered == 2
    assert len(twins.short.events) == 1


def test_gap_noted_by_somebody_else_counts_for_the_next_ping(twins: Twins) -> None:
    twins.arrive(twins.audio(500))
    twins.do(lambda session: session.add_lost(500, 20_000))
    twins.position_samples += 20_000
    twins.arrive(twins.message("ping"))
    assert (twins.answered, twins.short.events) == (1, [])


def test_gap_beyond_the_audio_so_far_is_left_to_the_session(twins: Twins) -> None:
    twins.do(lambda session: session.add_lost(500, 20_000))
    twins.arrive(twins.message("ping"))
    assert twins.answered == 0


def test_our_own_pause_is_settled_before_pings_are_answered_again(twins: Twins) -> None:
    twins.do(lambda session: session.pause(now=twins.now))
    twins.arrive(twins.message("ping"))
    assert twins.answered == 0
    twins.arrive(twins.message("paused"))
    twins.arrive(twins.message("ping"))
    assert twins.answered == 1
    assert [json.loads(text)["type"] for text in twins.short.said] == [
        "pause",
        "pong",
        "pong",
    ]


SAYS_SOMETHING: dict[str, Callable[[Session], object]] = {
    "receive_text": lambda s: s.receive_text("", now=100, audio_bytes=0),
    "receive_ping": lambda s: s.receive_ping("", now=100, audio_bytes=0),
    "receive_binary": lambda s: s.receive_binary(0, now=100),
    "receive_end": lambda s: s.receive_end(now=100),
    "handle_timeout": lambda s: s.handle_timeout(now=100, audio_bytes=0),
    "accept": lambda s: s.accept(negotiate([stereo()])),
    "closed": lambda s: s.closed(),
    "disconnect": lambda s: s.disconnect(DisconnectReason.COMPLETED),
    "pause": lambda s: s.pause(now=100),
    "resume": lambda s: s.resume(now=100),
    "add_lost": lambda s: s.add_lost(0, 1),
    "stop_listening": lambda s: s.stop_listening(),
}


def test_every_method_is_known_here() -> None:
    methods = {
        name
        for name, _ in inspect.getmembers(Session, inspect.isfunction)
        if not name.startswith("_")
    }
    assert methods == {*SAYS_SOMETHING, "data_to_send", "listen"}


@pytest.mark.parametrize("name", SAYS_SOMETHING)
def test_whatever_is_asked_of_a_session_ends_its_listening(name: str) -> None:
    session = at(State.OPEN).session
    session.listen()
    assert session._is_listening
    with suppress(LocalProtocolError):
        SAYS_SOMETHING[name](session)
    assert not session._is_listening


@pytest.mark.parametrize("state", [each for each in State if each is not State.OPEN])
def test_only_an_open_session_listens(state: State) -> None:
    session = at(state).session
    session.listen()
    assert not session._is_listening


def test_session_with_something_to_say_does_not_listen() -> None:
    session = at(State.OPEN).session
    session.receive_text("", now=100, audio_bytes=0)
    session.listen()
    assert not session._is_listening


# A lane with a socket that will not take an answer.


def ping(**changes: object) -> bytes:
    message = {
        "version": "2",
        "id": SESSION,
        "type": "ping",
        "seq": 2,
        "serverseq": 1,
        "position": "PT0S",
        "parameters": {},
        **changes,
    }
    return frame(TEXT, json.dumps(message).encode(), mask=MASK)


class Line:
    """A session behind a lane in a fleet, and its client's socket."""

    def __init__(self) -> None:
        self.client, self.server = socket.socketpair()
        self.server.setblocking(False)
        self.session = at(State.OPEN).session
        self.fleet = Fleet()
        self.lane = Lane(self.server.fileno(), owner=self)
        self.lane.start_frames(0)
        self.lane.keep(2)
        self.lane.hearer = self.session
        self.fleet.add(self.lane)
        self.session.listen()

    def fill(self) -> int:
        """Has the kernel take no more; returns how much it has taken."""
        taken = 0
        with suppress(BlockingIOError):
            while True:
                taken += self.server.send(bytes(4096))
        return taken


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    with line.client, line.server:
        yield line


def test_answer_comes_from_the_sweep_and_wakes_nobody(line: Line) -> None:
    line.client.sendall(ping())
    assert line.fleet.sweep(101.0) == []
    assert line.fleet.answered == 1
    (text,) = texts_in(line.client.recv(1000))
    assert json.loads(text)["clientseq"] == 2
    assert (line.lane.rest_bytes, line.lane.pop_mark()) == (0, 0)


def test_answer_that_the_kernel_does_not_take_is_left_to_the_task(line: Line) -> None:
    before = line.session.deadline
    line.fill()
    line.client.sendall(ping())
    assert line.fleet.sweep(101.0) == [line.lane]
    assert line.fleet.answered == 0
    assert line.lane.peek_text() is not None
    assert (line.lane.error, line.session.deadline) == (0, before)


def test_peer_that_went_away_breaks_the_lane(line: Line) -> None:
    line.client.sendall(ping())
    line.client.close()
    assert line.fleet.sweep(101.0) == [line.lane]
    assert line.lane.error == 32
    assert line.lane.broken


def test_end_behind_a_ping_is_told_and_the_ping_answered(line: Line) -> None:
    line.client.sendall(ping())
    line.client.shutdown(socket.SHUT_WR)
    # A read that does not fill the buffer is the last one of a sweep.
    assert line.fleet.sweep(101.0) == []
    assert line.fleet.answered == 1
    assert line.fleet.sweep(102.0) == [line.lane]
    assert line.lane.eof
    assert line.lane.peek_text() is None


def test_lane_without_hearer_hands_pings_on(line: Line) -> None:
    line.lane.hearer = None
    line.client.sendall(ping())
    assert line.fleet.sweep(101.0) == [line.lane]
    assert line.lane.peek_text() is not None


def test_answer_by_another_way_has_no_effect_if_it_cannot_go(line: Line) -> None:
    sent: list[bytes] = []
    line.lane.feed(ping())
    before = line.session.deadline
    assert not line.lane.answer(lambda _: False, 101.0)
    assert line.session.deadline == before

    def send(data: bytes) -> bool:
        sent.append(data)
        return True

    assert line.lane.answer(send, 101.0)
    assert not line.lane.answer(send, 102.0)
    (text,) = texts_in(sent[0])
    assert json.loads(text)["seq"] == 2
    assert line.session.deadline == 121.0


def test_text_longer_than_any_ping_is_left_alone(line: Line) -> None:
    line.client.sendall(ping(parameters={"rtt": "x" * 500}))
    assert line.fleet.sweep(101.0) == [line.lane]
    assert line.fleet.answered == 0


def test_long_answer_has_a_long_head(line: Line) -> None:
    # Numbers as long as they may be make an answer of more than 125 bytes.
    line.session._seq = line.session._peer_seq = 10**14
    line.session.listen()
    line.client.sendall(ping(seq=10**14 + 1, serverseq=10**14))
    assert line.fleet.sweep(101.0) == []
    (text,) = texts_in(line.client.recv(1000))
    assert len(text) >= 126
    assert json.loads(text)["clientseq"] == 10**14 + 1
