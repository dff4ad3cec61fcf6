"""The session by itself: what it says, and what it holds against a server."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from audiohook.errors import LocalProtocolError
from audiohook.protocol.messages import Channel, CloseReason
from audiohook.simulator.options import STEREO, CallOptions
from audiohook.simulator.rules import Breach, Rule
from audiohook.simulator.session import ClientSession, State, offers

SESSION_ID = "30b0e395-84d3-4570-ac13-9a62d8f514c0"
OTHER_ID = "00000000-84d3-4570-ac13-9a62d8f514c0"
STEREO_MEDIA = {
    "type": "audio",
    "format": "PCMU",
    "channels": ["external", "internal"],
    "rate": 8000,
}


class Wire:
    """A session with a server's hand to play it."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - passed on
        call = CallOptions(uri="ws://h/", session_id=SESSION_ID, **options)
        self.session = ClientSession(call, STEREO, now=0.0)
        self.now = 0.0
        self.seq = 0

    def sent(self) -> list[Any]:
        """Take what the session sends: parsed texts, and audio as it is."""
        out: list[Any] = []
        while (message := self.session.next_to_send()) is not None:
            out.append(json.loads(message) if isinstance(message, str) else message)
        return out

    def kinds(self) -> list[str]:
        return [message["type"] for message in self.sent()]

    def take(
        self, kind: str, parameters: object = None, *, clientseq: int, **changes: object
    ) -> None:
        self.seq += 1
        message: dict[str, object] = {
            "version": "2",
            "id": SESSION_ID,
            "type": kind,
            "seq": self.seq,
            "clientseq": clientseq,
            "parameters": {} if parameters is None else parameters,
        }
        message |= changes
        message = {name: value for name, value in message.items() if value is not ...}
        self.session.receive_text(json.dumps(message), now=self.now)

    def at(self, now: float) -> None:
        self.now = now
        self.session.handle_timeout(now=now)

    def rules(self) -> list[Rule]:
        return [breach.rule for breach in self.session.breaches]

    def open(self, **parameters: object) -> None:
        self.session.open(now=self.now)
        self.take("opened", {"media": [STEREO_MEDIA]} | parameters, clientseq=1)
        self.sent()


@pytest.fixture
def wire() -> Wire:
    opened = Wire()
    opened.open()
    return opened


def test_open_holds_what_genesys_sends() -> None:
    wire = Wire(
        organization_id="o",
        conversation_id="c",
        participant_id="p",
        language="de-AT",
        custom_config={"a": [1]},
        supported_languages=True,
    )
    wire.session.open(now=0.0)
    [message] = wire.sent()
    assert message == {
        "version": "2",
        "id": SESSION_ID,
        "type": "open",
        "seq": 1,
        "serverseq": 0,
        "position": "PT0S",
        "parameters": {
            "organizationId": "o",
            "conversationId": "c",
            "participant": {
                "id": "p",
                "ani": "tel:+15550100",
                "aniName": "Simulated Caller",
                "dnis": "tel:+15550199",
            },
            "media": [
                STEREO_MEDIA,
                STEREO_MEDIA | {"channels": ["external"]},
                STEREO_MEDIA | {"channels": ["internal"]},
            ],
            "language": "de-AT",
            "supportedLanguages": True,
            "customConfig": {"a": [1]},
        },
    }


@pytest.mark.parametrize(
    ("channels", "only", "expected"),
    [
        (
            ("internal", "external"),
            None,
            [["internal", "external"], ["internal"], ["external"]],
        ),
        (("external",), None, [["external"]]),
        (("external", "internal"), "internal", [["internal"]]),
    ],
)
def test_offers_follow_the_channels(
    channels: tuple[str, ...], only: str | None, expected: list[list[str]]
) -> None:
    offered = offers(
        tuple(Channel(name) for name in channels),
        None if only is None else Channel(only),
    )
    assert [list(media.channels) for media in offered] == expected


def test_seq_and_serverseq_count_texts_alone(wire: Wire) -> None:
    wire.session.send_audio(b"12")
    wire.session.update("en-GB", now=0.0)
    wire.session.send_audio(b"3456")
    wire.take("updated", clientseq=2)
    wire.session.discard(8, now=0.0)
    first, update, second, discarded = wire.sent()
    assert (first, second) == (b"12", b"3456")
    assert [update[name] for name in ("seq", "serverseq", "position")] == [
        2,
        1,
        "PT0.000125S",
    ]
    assert [discarded[name] for name in ("seq", "serverseq", "position")] == [
        3,
        2,
        "PT0.001375S",
    ]
    assert wire.rules() == []


def test_deadlines_follow_the_state() -> None:
    wire = Wire()
    assert wire.session.deadline == math.inf
    wire.session.open(now=10.0)
    assert wire.session.deadline == 15.0
    wire.now = 12.0
    wire.take("opened", {"media": [STEREO_MEDIA]}, clientseq=1)
    assert wire.session.deadline == 13.0
    wire.at(13.0)
    assert wire.session.deadline == 18.0
    wire.session.close(CloseReason.END, now=14.0)
    assert wire.session.deadline == 24.0
    wire.take("pong", clientseq=2)
    wire.take("closed", clientseq=3)
    assert wire.session.deadline == math.inf
    assert wire.rules() == []


# What arrives in an open session; the rule it breaks; the code of the `error`
# that is sent for it; whether `close` follows.
MESSAGES: list[tuple[dict[str, object], Rule, int | None, bool]] = [
    ({"kind": "pong", "clientseq": 1}, Rule.PONG, 409, False),
    ({"kind": "updated", "clientseq": 1}, Rule.UPDATED, None, False),
    ({"kind": "closed", "clientseq": 1}, Rule.STATE, 409, True),
    (
        {"kind": "opened", "parameters": {"media": []}, "clientseq": 1},
        Rule.STATE,
        409,
        True,
    ),
    ({"kind": "pause", "clientseq": 1, "seq": 3}, Rule.SEQ, 500, True),
    ({"kind": "pause", "clientseq": 1, "seq": 1}, Rule.SEQ, 500, True),
    ({"kind": "pause", "clientseq": 1, "id": OTHER_ID}, Rule.ID, 400, True),
    ({"kind": "pause", "clientseq": 2}, Rule.CLIENTSEQ, 400, True),
    ({"kind": "pause", "clientseq": 1, "version": "1"}, Rule.MESSAGE, 400, True),
    ({"kind": "pause", "clientseq": 1, "position": "PT0S"}, Rule.MESSAGE, 400, True),
    ({"kind": "pause", "clientseq": ...}, Rule.MESSAGE, 400, True),
    (
        {"kind": "pause", "clientseq": 1, "parameters": {"a": 1}},
        Rule.MESSAGE,
        400,
        True,
    ),
    ({"kind": "resumed", "clientseq": 1}, Rule.MESSAGE, 400, True),
    (
        {"kind": "event", "clientseq": 1, "parameters": {"entities": []}},
        Rule.MESSAGE,
        400,
        True,
    ),
]


@pytest.mark.parametrize(("message", "rule", "code", "closes"), MESSAGES)
def test_faulty_message_while_open(
    wire: Wire, message: dict[str, Any], rule: Rule, code: int | None, closes: bool
) -> None:
    wire.take(**message)
    assert wire.rules() == [rule]
    sent = wire.sent()
    errors = [item["parameters"]["code"] for item in sent if item["type"] == "error"]
    closings = [item["parameters"] for item in sent if item["type"] == "close"]
    assert errors == ([] if code is None else [code])
    assert closings == ([{"reason": "error"}] if closes else [])
    assert wire.session.state is (State.CLOSING if closes else State.OPEN)
    assert wire.session.breaches[0].text.isprintable()


@pytest.mark.parametrize("kind", ["pong", "updated", "pause", "resume", "closed"])
def test_message_before_opened(kind: str) -> None:
    wire = Wire()
    wire.session.open(now=0.0)
    wire.take(kind, clientseq=1)
    assert wire.rules() == [Rule.STATE]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"\\ud800"', "[" * 5000])
def test_text_that_is_no_message(wire: Wire, text: str) -> None:
    wire.session.receive_text(text, now=0.0)
    assert wire.rules() == [Rule.MESSAGE]
    assert wire.kinds() == ["error", "close"]
    assert wire.session.breaches[0].text.isprintable()


def test_message_beyond_the_size_limit(wire: Wire) -> None:
    wire.session.receive_text('{"x": "' + "ü" * 32_000 + '"}', now=0.0)
    assert wire.rules() == [Rule.SIZE]


def test_more_messages_than_the_rate_allows(wire: Wire) -> None:
    # An event, since nothing else may be said so often.
    said = {"entities": [{"type": "x", "data": 1}]}
    wire.at(0.5)
    for _ in range(26):
        wire.take("event", said, clientseq=1)
    assert wire.rules() == [Rule.RATE]
    wire.now = 0.75
    wire.take("event", said, clientseq=1)
    assert wire.rules() == [Rule.RATE]


@pytest.mark.parametrize("kind", ["pause", "resume"])
def test_more_pauses_than_the_rate_allows(wire: Wire, kind: str) -> None:
    wire.at(0.5)
    for _ in range(4):
        wire.take(kind, clientseq=1)
    assert wire.rules() == []
    wire.take(kind, clientseq=1)
    assert wire.rules() == [Rule.RATE]
    # One of the other kind is not meant by that.
    wire.take("resume" if kind == "pause" else "pause", clientseq=1)
    assert wire.rules() == [Rule.RATE]
    wire.now = 1.1
    wire.take(kind, clientseq=1)
    assert wire.rules() == [Rule.RATE]


@pytest.mark.parametrize(
    ("parameters", "rule"),
    [
        ({"media": [STEREO_MEDIA | {"format": "L16"}]}, Rule.MEDIA),
        (
            {"media": [STEREO_MEDIA | {"channels": ["internal", "external"]}]},
            Rule.MEDIA,
        ),
        ({"media": [STEREO_MEDIA | {"rate": 16000}]}, Rule.MEDIA),
        ({"media": [STEREO_MEDIA] * 2}, Rule.MESSAGE),
        ({"media": [STEREO_MEDIA | {"codec": "PCMU"}]}, Rule.MESSAGE),
        ({}, Rule.MESSAGE),
        ({"media": [], "supportedLanguages": ["en"]}, Rule.LANGUAGES),
    ],
)
def test_faulty_opened(parameters: dict[str, object], rule: Rule) -> None:
    wire = Wire()
    wire.session.open(now=0.0)
    wire.take("opened", parameters, clientseq=1)
    assert wire.rules() == [rule]
    assert wire.session.is_streaming is False


def test_languages_that_were_asked_for_must_come() -> None:
    silent, telling = Wire(supported_languages=True), Wire(supported_languages=True)
    silent.open()
    assert silent.rules() == [Rule.LANGUAGES]
    telling.open(supportedLanguages=[])
    assert telling.rules() == []


def test_pong_for_another_message_leaves_the_ping_open(wire: Wire) -> None:
    wire.at(1.0)
    wire.take("pong", clientseq=1)
    assert wire.rules() == [Rule.PONG]
    assert wire.session.state is State.OPEN
    wire.at(6.0)
    assert wire.rules() == [Rule.PONG, Rule.PONG]
    assert wire.kinds() == ["ping", "error", "error", "close"]


def test_opened_that_crossed_our_close_is_no_fault() -> None:
    wire = Wire()
    wire.session.open(now=0.0)
    wire.session.close(CloseReason.END, now=1.0)
    wire.take("opened", {"media": [STEREO_MEDIA]}, clientseq=1)
    wire.take("closed", clientseq=2)
    assert wire.rules() == []
    assert wire.session.is_over


def test_opened_as_an_answer_to_close_is_a_fault() -> None:
    wire = Wire()
    wire.session.open(now=0.0)
    wire.session.close(CloseReason.END, now=1.0)
    wire.take("opened", {"media": [STEREO_MEDIA]}, clientseq=2)
    assert wire.rules() == [Rule.STATE]


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"clientseq": 1}, Rule.CLIENTSEQ),
        ({"clientseq": 2, "seq": 7}, Rule.SEQ),
        ({"clientseq": 2, "extra": 1}, Rule.MESSAGE),
        ({"clientseq": 2, "id": OTHER_ID}, Rule.ID),
    ],
)
def test_faulty_closed_ends_the_session_all_the_same(
    wire: Wire, changes: dict[str, Any], rule: Rule
) -> None:
    wire.session.close(CloseReason.END, now=0.0)
    wire.sent()
    wire.take("closed", **changes)
    assert wire.rules() == [rule]
    assert wire.session.state is State.CLOSED
    assert wire.sent() == []


def test_what_was_not_answered_before_closed_is_told(wire: Wire) -> None:
    wire.session.update("en-GB", now=0.0)
    wire.at(1.0)
    wire.session.close(CloseReason.END, now=2.0)
    wire.take("closed", clientseq=4)
    assert wire.rules() == [Rule.PONG, Rule.UPDATED]


def test_disconnect_is_forgiven_what_it_cut_short(wire: Wire) -> None:
    wire.at(1.0)
    wire.take("disconnect", {"reason": "completed"}, clientseq=1)
    wire.take("closed", clientseq=3)
    assert wire.rules() == []


def test_gap_in_seq_is_one_complaint(wire: Wire) -> None:
    wire.seq = 4
    wire.take("pause", clientseq=1)
    wire.take("closed", clientseq=3)
    assert wire.rules() == [Rule.SEQ]
    assert wire.session.state is State.CLOSED


def test_redundant_resume_is_answered_with_nothing_lost(wire: Wire) -> None:
    wire.session.send_audio(bytes(1600))
    wire.take("resume", clientseq=1)
    _, resumed = wire.sent()
    assert resumed["parameters"] == {"start": "PT0.1S", "discarded": "PT0S"}
    assert wire.session.is_streaming


def test_our_pause_counts_in_full_even_if_it_took_no_time(wire: Wire) -> None:
    wire.session.begin_pause(8000, now=0.0)
    wire.take("pause", clientseq=1)
    wire.session.end_pause(now=0.0)
    assert not wire.session.is_streaming
    wire.take("resume", clientseq=1)
    assert wire.session.position_samples == 8000
    assert wire.session.is_streaming


def test_no_audio_while_paused_or_in_pieces(wire: Wire) -> None:
    with pytest.raises(LocalProtocolError, match="3 bytes"):
        wire.session.send_audio(b"123")
    wire.take("pause", clientseq=1)
    with pytest.raises(LocalProtocolError):
        wire.session.send_audio(b"12")


def test_misuse_is_refused(wire: Wire) -> None:
    with pytest.raises(LocalProtocolError):
        wire.session.open(now=0.0)
    with pytest.raises(LocalProtocolError):
        wire.session.end_pause(now=0.0)
    wire.session.close(CloseReason.END, now=0.0)
    with pytest.raises(LocalProtocolError):
        wire.session.discard(1, now=0.0)
    wire.session.close(CloseReason.ERROR, now=0.0)
    assert wire.kinds() == ["close"]


def test_audio_of_the_session_ends_with_the_connection(wire: Wire) -> None:
    wire.session.send_audio(b"12")
    wire.session.receive_end("lost", now=3.0)
    assert wire.session.state is State.ENDED
    assert not wire.session.has_to_send
    text = "the server ended the connection before closed, while open: lost"
    assert wire.session.breaches == [Breach(Rule.SOCKET, text, 3.0)]
    wire.session.receive_end("again", now=4.0)
    assert len(wire.session.breaches) == 1
