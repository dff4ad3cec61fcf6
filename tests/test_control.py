"""Pausing, resuming and ending live calls, with a whole service and its clients."""

from __future__ import annotations

import io
import json
import uuid
import wave
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from rich.console import Console

from audiohook import control
from audiohook.control import Asker, CallControl, ControlFault, Held, Pauses
from audiohook.errors import ControlError
from audiohook.protocol.messages import NIL_UUID, DisconnectReason
from audiohook.protocol.state import State as SessionState
from audiohook.simulator.client import place_call
from audiohook.simulator.dialogue import Dialogue
from audiohook.simulator.options import CallOptions
from tests.house import KEY, House, house
from tests.protocol.peer import Peer, at
from tests.reference_ulaw import decode
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from audiohook.call import Call
    from audiohook.protocol.session import Session
    from audiohook.simulator.report import CallReport

CONVERSATION = str(uuid.UUID(int=7, version=4))
DESK = Asker("payment-desk", "card number")


class Wire(Dialogue):
    """Notes audio and words of a client in the order in which they were sent."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True))
        self.said: list[dict[str, Any]] = []
        self.heard: list[str] = []
        self.audio = bytearray()
        # By the message: how much audio had been sent before it.
        self.before: list[tuple[str, int]] = []

    def sent(self, message: str | bytes, at: float) -> None:
        if isinstance(message, bytes):
            self.audio += message
            return
        parsed = json.loads(message)
        self.said.append(parsed)
        self.before.append((parsed["type"], len(self.audio)))

    def received(self, message: str | bytes, at: float) -> None:
        assert isinstance(message, str)
        self.heard.append(json.loads(message)["type"])


class Caller:
    """A call under way."""

    def __init__(self, house: House, nursery: trio.Nursery) -> None:
        self.house = house
        self.wire = Wire()
        self.report: CallReport | None = None
        self._nursery = nursery

    async def begin(self, **options: Any) -> Call:  # noqa: ANN401 - they differ
        """Calls, and waits until the call streams."""
        chosen = CallOptions(
            **{
                "uri": self.house.uri,
                "api_key": KEY,
                "conversation_id": CONVERSATION,
                "duration": 30.0,
                "frame_ms": 20,
                **options,
            }
        )

        async def run() -> None:
            self.report = await place_call(chosen, dialogue=self.wire)

        self._nursery.start_soon(run)
        await wait_until(lambda: len(self.wire.audio) > 3200)
        (call,) = self.house.service.desk.live_calls()
        return call


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as running:
        yield running


async def test_span_of_a_pause_is_in_no_file(it: House, nursery: trio.Nursery) -> None:
    caller = Caller(it, nursery)
    call = await caller.begin()
    standing = await call.control.pause(DESK)
    assert (standing.held, standing.asker) == (Held.PAUSED, DESK)
    # From here on, whatever is said is not even sent.
    sent_bytes = len(caller.wire.audio)
    await trio.sleep(0.7)
    assert len(caller.wire.audio) == sent_bytes
    standing = await call.control.resume(DESK)
    assert (standing.held, standing.asker) == (Held.RECORDING, None)
    await wait_until(lambda: len(caller.wire.audio) > sent_bytes + 3200)
    ended = await call.control.end(Asker("night-shift", None))
    assert ended.held is Held.ENDED
    await it.settle()
    await wait_until(lambda: caller.report is not None)
    assert caller.report is not None
    assert caller.report.ok, caller.report.breaches
    (recording,) = it.recordings()
    facts = recording.facts
    # All that was sent is there, in its place, and nothing else.
    raw = recording.audio(".raw")
    assert raw == bytes(caller.wire.audio)
    (cut,) = (size for kind, size in caller.wire.before if kind == "paused")
    assert cut == sent_bytes
    (gap,) = facts["gaps"]
    (resumed,) = (each for each in caller.wire.said if each["type"] == "resumed")
    assert gap["kind"] == "paused"
    assert (gap["by"], gap["reason"]) == ("payment-desk", "card number")
    assert gap["storedSamplesBefore"] == cut // 2
    assert (
        f"PT{gap['length']:.6f}".rstrip("0").rstrip(".") + "S"
        == (resumed["parameters"]["discarded"])
    )
    assert gap["length"] >= 0.7
    silence = bytes(4 * gap["lengthSamples"])
    with wave.open(io.BytesIO(recording.audio(".wav"))) as wav:
        samples = wav.readframes(10_000_000)
    assert samples == decode(raw[:cut]) + silence + decode(raw[cut:])
    controls = [(each["action"], each["by"]) for each in facts["controls"]]
    assert controls == [
        ("pause", "payment-desk"),
        ("resume", "payment-desk"),
        ("end", "night-shift"),
    ]
    # The client's own position is where we say the audio goes on.
    (closing,) = (each for each in caller.wire.said if each["type"] == "close")
    assert closing["parameters"]["reason"] == "disconnect"
    assert abs(float(closing["position"][2:-1]) - facts["duration"]) < 0.001
    assert caller.wire.heard.count("pause") == caller.wire.heard.count("resume") == 1


async def test_fifty_who_ask_at_once_make_one_pause(
    it: House, nursery: trio.Nursery
) -> None:
    caller = Caller(it, nursery)
    call = await caller.begin()
    standings = []

    async def ask(action: str, number: int) -> None:
        method = getattr(call.control, action)
        standings.append(await method(Asker(f"desk-{number}", None)))

    for action, held in (("pause", Held.PAUSED), ("resume", Held.RECORDING)):
        standings.clear()
        async with trio.open_nursery() as asking:
            for number in range(50):
                asking.start_soon(ask, action, number)
        assert len(standings) == 50
        assert {each.held for each in standings} == {held}
        # All are told the same one, who came first.
        assert len({each.asker for each in standings}) == 1
    await call.control.end(DESK)
    await it.settle()
    assert caller.wire.heard.count("pause") == caller.wire.heard.count("resume") == 1
    (recording,) = it.recordings()
    assert len(recording.facts["gaps"]) == 1
    assert len(recording.facts["controls"]) == 3


async def test_pause_and_resume_in_turns_keep_the_rate(
    it: House, nursery: trio.Nursery
) -> None:
    caller = Caller(it, nursery)
    call = await caller.begin()
    for _ in range(6):
        assert (await call.control.pause(DESK)).held is Held.PAUSED
        assert (await call.control.resume(DESK)).held is Held.RECORDING
    await call.control.end(DESK)
    await it.settle()
    await wait_until(lambda: caller.report is not None)
    # The client holds us to the rates, and says so here.
    assert caller.report is not None
    assert caller.report.ok, caller.report.breaches
    (recording,) = it.recordings()
    assert len(recording.facts["gaps"]) == 6


async def test_call_that_ends_while_it_is_paused(
    it: House, nursery: trio.Nursery
) -> None:
    caller = Caller(it, nursery)
    call = await caller.begin()
    await call.control.pause(DESK)
    sent_bytes = len(caller.wire.audio)
    assert (await call.control.end(DESK)).held is Held.ENDED
    with pytest.raises(ControlError, match="over"):
        await call.control.pause(DESK)
    with pytest.raises(ControlError, match="over"):
        await call.control.resume(DESK)
    # To end it again is no fault: that is done.
    assert (await call.control.end(DESK)).held is Held.ENDED
    await it.settle()
    (recording,) = it.recordings()
    assert len(recording.audio(".raw")) == sent_bytes
    assert recording.facts["ended"]["paused"] is True


async def test_pause_while_the_client_pauses_itself(
    it: House, nursery: trio.Nursery
) -> None:
    caller = Caller(it, nursery)
    call = await caller.begin(pauses=((1.0, 2.0),))
    await wait_until(lambda: call.control.standing.held is Held.PAUSED_BY_CLIENT)
    assert (await call.control.pause(DESK)).held is Held.PAUSED
    # The client's pause is not ours to end.
    assert (await call.control.resume(DESK)).held is Held.PAUSED_BY_CLIENT
    await wait_until(lambda: call.control.standing.held is Held.RECORDING)
    await call.control.end(DESK)
    await it.settle()
    (recording,) = it.recordings()
    (gap,) = recording.facts["gaps"]
    assert gap["by"] == "payment-desk"
    assert gap["length"] >= 2.0


async def test_session_that_goes_on_where_a_paused_one_was_cut_off(
    it: House, nursery: trio.Nursery
) -> None:
    async with trio.open_nursery() as connection:
        call = await Caller(it, connection).begin()
        await call.control.pause(DESK)
        connection.cancel_scope.cancel()
    await wait_until(lambda: not it.service.desk.live_calls())
    second = Caller(it, nursery)
    chosen = CallOptions(
        uri=it.uri,
        api_key=KEY,
        conversation_id=CONVERSATION,
        duration=30.0,
        frame_ms=20,
    )

    async def come_again() -> None:
        second.report = await place_call(chosen, dialogue=second.wire)

    nursery.start_soon(come_again)
    await wait_until(it.service.desk.live_calls)
    (again,) = it.service.desk.live_calls()
    await wait_until(lambda: again.control.standing.held is Held.PAUSED)
    assert again.control.standing.asker == DESK
    await trio.sleep(0.3)
    assert second.wire.audio == b""
    assert (await again.control.resume(DESK)).held is Held.RECORDING
    await wait_until(lambda: len(second.wire.audio) > 1000)
    await again.control.end(DESK)
    await it.settle()
    await wait_until(lambda: second.report is not None)
    assert second.report is not None
    assert second.report.ok, second.report.breaches
    _, later = it.recordings()
    assert [each["by"] for each in later.facts["gaps"]] == ["payment-desk"]
    assert later.audio(".raw") == bytes(second.wire.audio)
    # It is over: a third one is not paused.
    third = Caller(it, nursery)
    call = await third.begin()
    assert call.control.standing.held is Held.RECORDING
    await call.control.end(DESK)


def test_pause_waits_only_so_long_for_another_session() -> None:
    pauses = Pauses()
    pauses.come("a")
    pauses.begin("a", DESK)
    assert pauses.take("a", 0.0) == DESK
    pauses.leave("a", 10.0)
    pauses.come("a")
    assert pauses.take("a", 100.0) == DESK
    # While a session is there it does not end by itself.
    assert pauses.take("a", 10_000.0) == DESK
    pauses.leave("a", 10_000.0)
    assert pauses.take("a", 10_301.0) is None
    pauses.come("b")
    pauses.come("c")
    pauses.begin("b", DESK)
    pauses.leave("b", 0.0)
    pauses.leave("c", 301.0)
    assert (len(pauses._askers), len(pauses._until), len(pauses._here)) == (0, 0, 0)


async def test_pause_outlasts_other_sessions_of_its_conversation(
    it: House, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of another participant; and one that its client gave up may end late."""
    monkeypatch.setattr(control, "_COMES_AGAIN", 0.0)
    call = partial(it.call, conversation_id=CONVERSATION, duration=60.0, fast=False)
    first = await Caller(it, nursery).begin()
    async with trio.open_nursery() as connection:
        connection.start_soon(call)
        await it.wait_streaming(2)
        await first.control.pause(DESK)
        connection.cancel_scope.cancel()
    await wait_until(lambda: len(it.service.desk) == 1)
    nursery.start_soon(call)
    await it.wait_streaming(2)
    third, again = it.service.desk.newest_calls(2)
    assert again is first
    assert third.control.asker == DESK


# Without a service: what a client does not do of itself.


class Desk:
    """A control of a session that somebody else speaks for."""

    def __init__(self, peer: Peer | None = None) -> None:
        self.peer = at(SessionState.OPEN) if peer is None else peer
        self.facts: list[Any] = []
        self.held: list[Asker | None] = []
        self.session: Session = self.peer.session
        self.control = CallControl(
            self.session,
            say=lambda: None,
            disconnect=lambda: self.session.disconnect(DisconnectReason.COMPLETED),
            note=self.facts.append,
            held=self.held.append,
            samples=lambda: 5,
            clock=lambda: 1_800_000_000.0,
        )


async def test_client_that_does_not_answer(autojump_clock: object) -> None:
    desk = Desk()
    faults = []

    async def ask() -> None:
        with pytest.raises(ControlError) as caught:
            await desk.control.pause(DESK)
        faults.append(caught.value.fault)

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(ask)
    assert trio.current_time() - began == control.ANSWER_DEADLINE
    assert faults == [ControlFault.NO_ANSWER] * 50
    # Asked again now and then, and written down once.
    assert [message.type for message in desk.peer.listen()] == ["pause"] * 3
    assert len(desk.facts) == 1
    # It answers late: nobody asks it again.
    desk.peer.say("paused")
    assert (await desk.control.pause(DESK)).held is Held.PAUSED
    assert desk.peer.listen() == []


@pytest.mark.parametrize(
    ("state", "fault"),
    [
        (SessionState.CONNECTED, ControlFault.NOT_OPEN),
        (SessionState.OPENING, ControlFault.NOT_OPEN),
        (SessionState.REJECTING, ControlFault.OVER),
        (SessionState.DISCONNECTING, ControlFault.OVER),
        (SessionState.CLOSING, ControlFault.OVER),
        (SessionState.CLOSED, ControlFault.OVER),
        (SessionState.ENDED, ControlFault.OVER),
    ],
)
@pytest.mark.parametrize("action", ["pause", "resume"])
async def test_call_that_cannot_be_paused(
    state: SessionState, fault: ControlFault, action: str
) -> None:
    desk = Desk(at(state))
    with pytest.raises(ControlError) as caught:
        await getattr(desk.control, action)(DESK)
    assert caught.value.fault == fault
    assert desk.facts == []


@pytest.mark.parametrize("parameters", [{"media": []}, {"conversationId": NIL_UUID}])
async def test_session_of_which_nothing_is_recorded(
    parameters: dict[str, Any],
) -> None:
    peer = Peer()
    event = peer.open(**parameters)
    peer.session.accept(event.media)
    desk = Desk(peer)
    with pytest.raises(ControlError, match="not_recorded"):
        await desk.control.pause(DESK)


async def test_call_that_ends_while_somebody_waits(autojump_clock: object) -> None:
    desk = Desk()

    async def end() -> None:
        await trio.sleep(1)
        desk.peer.say("close")
        desk.control.over()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end)
        with pytest.raises(ControlError, match="over"):
            await desk.control.pause(DESK)
    assert trio.current_time() < control.ANSWER_DEADLINE


async def test_end_that_is_not_answered_is_told_as_it_is(
    autojump_clock: object,
) -> None:
    desk = Desk()
    assert (await desk.control.end(DESK)).held is Held.ENDING
    assert (await desk.control.end(DESK)).held is Held.ENDING
    assert [message.type for message in desk.peer.listen()] == ["disconnect"]
    assert [fact.action for fact in desk.facts] == ["end"]


async def test_more_pauses_than_any_real_call_has(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_MOST_FACTS", 1)
    desk = Desk()

    async def answer() -> None:
        await trio.sleep(0.1)
        desk.peer.listen()
        desk.peer.say("paused")
        desk.control.answered()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        await desk.control.pause(DESK)
    with pytest.raises(ControlError, match="too_often"):
        await desk.control.resume(DESK)
    # An end is always possible.
    assert (await desk.control.end(DESK)).held is Held.ENDING
