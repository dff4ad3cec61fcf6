"""Whatever comes: what a session may never do."""

from __future__ import annotations

import contextlib
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
    GapRecorded,
    LanguageChanged,
    OpenReceived,
    PauseBegan,
    PauseEnded,
    SessionEvent,
    TimedOut,
    Violation,
)
from audiohook.protocol.messages import NIL_UUID, Pong, ServerMessage
from audiohook.protocol.state import MISUSE, TRANSITIONS, Input, State
from tests.protocol.peer import (
    CALLS,
    CONVERSATION,
    INVERTED,
    KINDS,
    L16,
    MONO,
    ORGANIZATION,
    OTHER,
    SESSION,
    STEREO,
    Peer,
    open_parameters,
    stereo,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        if "disconnect" in types:
            after = types[types.index("disconnect") :]
            assert not {"pause", "resume"} & set(after)
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
