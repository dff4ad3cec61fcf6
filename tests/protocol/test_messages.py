"""Messages of a client: patience with it, and no surprises for us."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiohook.errors import RemoteProtocolError
from audiohook.protocol.messages import (
    MAX_CONTINUED_SESSIONS,
    MAX_OFFERS,
    MAX_SEQ,
    NIL_UUID,
    ClientMessage,
    Close,
    Discarded,
    MediaParameter,
    Open,
    Paused,
    PeerError,
    Ping,
    Resumed,
    UnknownMessage,
    Update,
    canonical_uuid,
    negotiate,
    parse_client_message,
)
from audiohook.protocol.wire import MAX_DEPTH, MAX_TEXT_CHARS, Fault
from tests.protocol.peer import CONVERSATION, ORGANIZATION, SESSION, STEREO

PARTICIPANT = "883efee8-3d6c-4537-b500-6d7ca4b92fa0"

EXTERNAL = {**STEREO, "channels": ["external"]}
INTERNAL = {**STEREO, "channels": ["internal"]}


def client(kind: str, parameters: object = None, **changes: object) -> dict[str, Any]:
    return {
        "version": "2",
        "id": SESSION,
        "type": kind,
        "seq": 1,
        "serverseq": 0,
        "position": "PT0S",
        "parameters": {} if parameters is None else parameters,
        **changes,
    }


def open_parameters(**changes: object) -> dict[str, Any]:
    return {
        "organizationId": ORGANIZATION,
        "conversationId": CONVERSATION,
        "participant": {
            "id": PARTICIPANT,
            "ani": "tel:+15551234567",
            "aniName": "Ada",
            "dnis": "+15557654321",
        },
        "media": [STEREO, EXTERNAL, INTERNAL],
        "language": "en-US",
        **changes,
    }


def parse_open(**changes: object) -> Open:
    text = json.dumps(client("open", open_parameters(**changes)))
    message = parse_client_message(text)
    assert isinstance(message, Open)
    return message


def fault_of(text: str) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_client_message(text)
    assert caught.value.__cause__ is None
    return caught.value.info


# Client messages that are in order.


def test_open_gives_all_it_says() -> None:
    parameters = parse_open(
        supportedLanguages=True,
        continuedSessions=[{"id": SESSION.upper(), "serverseq": 4, "clientseq": 9}],
        customConfig={"a": [1, {"b": None}]},
    ).parameters
    assert parameters.organization_id == ORGANIZATION
    assert parameters.conversation_id == CONVERSATION
    assert parameters.participant.id == PARTICIPANT
    assert parameters.participant.ani == "tel:+15551234567"
    assert parameters.participant.ani_name == "Ada"
    assert parameters.participant.dnis == "+15557654321"
    assert [media.model_dump(mode="json") for media in parameters.media] == [
        STEREO,
        EXTERNAL,
        INTERNAL,
    ]
    assert parameters.language == "en-US"
    assert parameters.supported_languages is True
    (predecessor,) = parameters.continued_sessions
    assert predecessor.id == SESSION
    assert (predecessor.serverseq, predecessor.clientseq) == (4, 9)
    assert parameters.custom_config == {"a": [1, {"b": None}]}
    assert not parameters.is_probe


@pytest.mark.parametrize(
    ("kind", "parameters", "model"),
    [
        ("ping", {"rtt": "PT0.001453849S"}, Ping),
        ("ping", {}, Ping),
        ("close", {"reason": "end"}, Close),
        ("paused", {}, Paused),
        ("resumed", {"start": "PT1S", "discarded": "PT2.5S"}, Resumed),
        ("discarded", {"start": "PT0S", "discarded": "PT2.4S"}, Discarded),
        ("update", {"language": "de-DE"}, Update),
        ("error", {"code": 408, "message": "Timed out"}, PeerError),
        ("dtmf", {"digit": "1"}, UnknownMessage),
    ],
)
def test_each_type_is_recognised(
    kind: str, parameters: dict[str, Any], model: type[Any]
) -> None:
    message = parse_client_message(
        json.dumps(client(kind, parameters, seq=7, serverseq=3, position="PT12.5S"))
    )
    assert type(message) is model
    assert message.type == kind
    assert (message.seq, message.serverseq, message.position) == (7, 3, "PT12.5S")


def test_client_message_written_is_read_back() -> None:
    first = parse_open(customConfig={"x": 1})
    assert parse_client_message(first.to_text()) == first


@pytest.mark.parametrize("position", ["PT0S", "PT0.0S", "PT1.234S", "PT.5S", "PT007S"])
def test_position_takes_every_spelling_of_the_protocol(position: str) -> None:
    message = parse_client_message(json.dumps(client("ping", position=position)))
    assert message.position == position


# Patience.


def test_unknown_fields_are_passed_over_everywhere() -> None:
    extra: dict[str, Any] = {"news": {"a": [1]}}
    message = parse_client_message(
        json.dumps(
            client(
                "open",
                open_parameters(
                    participant={"id": PARTICIPANT, **extra},
                    media=[{**STEREO, **extra}],
                    **extra,
                ),
                **extra,
            )
        )
    )
    assert isinstance(message, Open)
    assert message.parameters.media[0].model_dump(mode="json") == STEREO


def test_open_without_optional_fields_is_taken() -> None:
    text = json.dumps(
        client("open", {"conversationId": CONVERSATION, "media": []}),
    )
    message = parse_client_message(text)
    assert isinstance(message, Open)
    parameters = message.parameters
    assert parameters.organization_id == ""
    assert parameters.participant.id == NIL_UUID
    assert parameters.participant.ani == ""
    assert parameters.media == ()
    assert parameters.language is None
    assert parameters.supported_languages is False
    assert parameters.continued_sessions == ()
    assert parameters.custom_config is None


@pytest.mark.parametrize("odd", [None, 5, "x", [], [1], True, {"id": 7, "ani": 5}])
def test_odd_participant_becomes_an_empty_one(odd: object) -> None:
    participant = parse_open(participant=odd).parameters.participant
    assert participant.id == NIL_UUID
    assert (participant.ani, participant.ani_name, participant.dnis) == ("", "", "")


@pytest.mark.parametrize(
    "odd",
    [
        "",
        "../../etc/passwd",
        f"{PARTICIPANT}/",
        f"{PARTICIPANT}\n",
        f"{{{PARTICIPANT}}}",
    ],
)
def test_participant_id_that_is_no_uuid_becomes_nil(odd: str) -> None:
    assert parse_open(participant={"id": odd}).parameters.participant.id == NIL_UUID


def test_participant_texts_are_cut() -> None:
    participant = parse_open(
        participant={"id": PARTICIPANT, "ani": "1" * 5000, "aniName": "ä" * 1024}
    ).parameters.participant
    assert participant.ani == "1" * 1024
    assert participant.ani_name == "ä" * 1024


@pytest.mark.parametrize("language", ["es-419", "zh-Hans-CN", "EN-us", "x", "tlh" * 21])
def test_language_is_taken_as_sent(language: str) -> None:
    assert parse_open(language=language).parameters.language == language


@pytest.mark.parametrize("odd", [None, "", "x" * 65, 5, ["en-US"], {}])
def test_odd_language_is_left_out(odd: object) -> None:
    assert parse_open(language=odd).parameters.language is None


@pytest.mark.parametrize("odd", [None, False, 1, "true", [], {}])
def test_supported_languages_counts_only_if_true(odd: object) -> None:
    assert parse_open(supportedLanguages=odd).parameters.supported_languages is False


@pytest.mark.parametrize("odd", [None, "text", 5, [], [1], True])
def test_custom_config_that_is_no_object_is_left_out(odd: object) -> None:
    assert parse_open(customConfig=odd).parameters.custom_config is None


def test_predecessors_that_cannot_be_read_are_left_out() -> None:
    good = {"id": SESSION, "serverseq": 1, "clientseq": 2}
    odd = [{}, 5, None, {"id": "../x"}, {**good, "serverseq": -1}]
    (kept,) = parse_open(continuedSessions=[*odd, good]).parameters.continued_sessions
    assert kept.id == SESSION
    assert parse_open(continuedSessions="x").parameters.continued_sessions == ()


def test_offers_are_bounded() -> None:
    media = parse_open(media=[STEREO, *[{}] * 300]).parameters.media
    assert len(media) == MAX_OFFERS
    assert negotiate(media) is media[0]


def test_predecessors_are_bounded() -> None:
    many = [{"id": SESSION, "serverseq": 1, "clientseq": 2}] * 300
    parameters = parse_open(continuedSessions=many).parameters
    assert len(parameters.continued_sessions) == MAX_CONTINUED_SESSIONS


@pytest.mark.parametrize(
    "odd",
    [
        None,
        5,
        "PCMU",
        [],
        {},
        {**STEREO, "rate": "8000"},
        {**STEREO, "rate": True},
        {**STEREO, "channels": ["left", "right"]},
        {**STEREO, "channels": "external"},
        {**STEREO, "format": None},
    ],
)
def test_offer_that_cannot_be_read_counts_but_is_not_usable(odd: object) -> None:
    media = parse_open(media=[odd, EXTERNAL]).parameters.media
    assert len(media) == 2
    chosen = negotiate(media)
    assert chosen is media[1]
    assert negotiate(media[:1]) is None


@pytest.mark.parametrize("odd", [{}, {"reason": None}, {"reason": 5}])
def test_close_without_a_word_is_a_close(odd: dict[str, Any]) -> None:
    message = parse_client_message(json.dumps(client("close", odd)))
    assert isinstance(message, Close)
    assert message.parameters.reason == ""


def test_close_reason_may_be_any_word() -> None:
    text = json.dumps(client("close", {"reason": "moved" * 100}))
    message = parse_client_message(text)
    assert isinstance(message, Close)
    assert message.parameters.reason == ("moved" * 100)[:64]


@pytest.mark.parametrize(
    "odd",
    [
        None,
        5,
        1.5,
        "",
        "1",
        "PT1M",
        "PT-1S",
        "PT1e3S",
        "pt1s",
        "PT1S\n",
        "PT\u0661S",
        "PT1.S",
        "PT" + "1" * 70 + "S",
        [],
        {},
    ],
)
def test_gap_length_that_cannot_be_read_is_none(odd: object) -> None:
    for kind in ("resumed", "discarded"):
        parameters = {"start": odd, "discarded": odd}
        message = parse_client_message(json.dumps(client(kind, parameters)))
        assert isinstance(message, Resumed | Discarded)
        assert message.parameters.start is None
        assert message.parameters.discarded is None


def test_peer_error_takes_anything() -> None:
    odd: dict[str, Any]
    for odd in ({}, {"code": "408"}, {"code": -1}, {"code": None, "message": 5}):
        message = parse_client_message(json.dumps(client("error", odd)))
        assert isinstance(message, PeerError)
        assert (message.parameters.code, message.parameters.message) == (0, "")
    long = client("error", {"code": 500, "message": "x" * 5000})
    message = parse_client_message(json.dumps(long))
    assert isinstance(message, PeerError)
    assert message.parameters.message == "x" * 1024


def test_probe_is_told_by_the_conversation() -> None:
    assert parse_open(conversationId=NIL_UUID).parameters.is_probe


def test_conversation_id_is_put_into_lower_case() -> None:
    parameters = parse_open(conversationId=CONVERSATION.upper()).parameters
    assert parameters.conversation_id == CONVERSATION


def test_fields_have_the_names_of_the_protocol_only() -> None:
    parameters = parse_open(
        participant={"ani_name": "Ada"}, custom_config={"a": 1}, organizationId=None
    ).parameters
    assert parameters.participant.ani_name == ""
    assert parameters.custom_config is None


def test_repeated_key_in_custom_config_is_no_fault() -> None:
    text = json.dumps(client("open", open_parameters(customConfig={"first": 1})))
    message = parse_client_message(text.replace('"first": 1', '"a": 1, "a": 2'))
    assert isinstance(message, Open)
    assert message.parameters.custom_config == {"a": 2}


# What cannot be worked with.


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "nonsense",
        "null",
        "true",
        "5",
        '"open"',
        "[]",
        "[{}]",
        "\ufeff{}",
        "{} {}",
        "{'a': 1}",
        '{"a": NaN}',
        '{"a": Infinity}',
        '{"a": -Infinity}',
        '{"a": 1e999}',
        '"\\ud800"',
        '{"a": "\ud800"}',
        '{"a": "\x00"}',
        "\x00",
        "[" * 60_000,
        '{"a":' * 10_000,
        '{"a":' * 10_000 + "1" + "}" * 10_000,
        "[" * 30_000 + "]" * 30_000,
        '{"a": ' + "9" * 60_000 + "}",
        '{"a": -' + "9" * 60_000 + "}",
    ],
    ids=lambda text: repr(text[:20]),
)
def test_text_that_is_no_object_is_refused(text: str) -> None:
    assert fault_of(text) == Fault.NOT_JSON


@pytest.mark.parametrize(
    ("escaped", "read"),
    [
        (r"Zo\ud83d", "Zo\ufffd"),
        (r"\uDE00\ud83d\ude00", "\ufffd\U0001f600"),
        (r"\\ud83d", r"\ud83d"),
    ],
)
def test_half_a_surrogate_pair_is_no_reason_to_lose_a_call(
    escaped: str, read: str
) -> None:
    """A name that is cut off in the middle of an emoji ends in one."""
    config = {"NAME": {"NAME": ["NAME"]}}
    bare = json.dumps(client("open", open_parameters(customConfig=config)))
    message = parse_client_message(bare.replace("NAME", escaped))
    assert isinstance(message, Open)
    assert message.parameters.custom_config == {read: {read: [read]}}
    json.dumps(message.parameters.custom_config, ensure_ascii=False).encode()


def test_text_over_the_limit_is_refused_and_one_at_it_is_not() -> None:
    bare = json.dumps(client("open", open_parameters(customConfig={"x": ""})))
    room = MAX_TEXT_CHARS - len(bare)
    at_limit = bare.replace('"x": ""', '"x": "' + "y" * room + '"')
    assert len(at_limit) == MAX_TEXT_CHARS
    assert isinstance(parse_client_message(at_limit), Open)
    assert fault_of(at_limit + " ") == Fault.TOO_LARGE


def nested(depth: int) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for _ in range(depth - 1):
        config = {"a": config}
    return config


def test_nesting_is_bounded_where_it_can_be_written_again() -> None:
    # The message and its parameters are two levels themselves.
    deepest = nested(MAX_DEPTH - 2)
    message = parse_open(customConfig=deepest)
    assert message.parameters.custom_config == deepest
    assert message.to_text()
    text = json.dumps(client("open", open_parameters(customConfig=nested(MAX_DEPTH))))
    assert fault_of(text) == Fault.NOT_JSON


def test_many_brackets_side_by_side_are_not_nesting() -> None:
    wide: dict[str, Any] = {"a": [[] for _ in range(1000)]}
    assert parse_open(customConfig=wide).parameters.custom_config == wide


def test_nesting_is_refused_without_room_on_the_stack() -> None:
    def descend(frames: int) -> str:
        return descend(frames - 1) if frames else fault_of("[" * 60_000)

    assert descend(sys.getrecursionlimit() // 2) == Fault.NOT_JSON


@pytest.mark.parametrize(
    "change",
    [
        {"version": "1"},
        {"version": 2},
        {"version": None},
        {"id": ""},
        {"id": 5},
        {"id": None},
        {"id": "../../etc/passwd"},
        {"id": f"{SESSION}\n"},
        {"id": f"{{{SESSION}}}"},
        {"id": SESSION.replace("-", "")},
        {"type": None},
        {"type": 5},
        {"type": []},
        {"type": {}},
        {"seq": None},
        {"seq": "1"},
        {"seq": 1.0},
        {"seq": True},
        {"seq": -1},
        {"seq": MAX_SEQ + 1},
        {"seq": 10**900},
        {"seq": []},
        {"serverseq": "0"},
        {"serverseq": 0.0},
        {"serverseq": False},
        {"serverseq": -1},
        {"position": None},
        {"position": 0},
        {"position": ""},
        {"position": "PT1M"},
        {"position": "PT0S\n"},
        {"position": "PT\u0661S"},
        {"position": "PT" + "0" * 70 + "S"},
        {"parameters": None},
        {"parameters": []},
        {"parameters": "x"},
        {"parameters": 0},
    ],
    ids=repr,
)
@pytest.mark.parametrize("kind", ["ping", "close", "news"])
def test_envelope_that_is_not_in_order_is_refused(
    kind: str, change: dict[str, Any]
) -> None:
    assert fault_of(json.dumps({**client(kind), **change})) == Fault.MALFORMED


@pytest.mark.parametrize(
    "name", ["version", "id", "type", "seq", "serverseq", "position", "parameters"]
)
def test_envelope_that_lacks_a_field_is_refused(name: str) -> None:
    message = client("ping")
    del message[name]
    assert fault_of(json.dumps(message)) == Fault.MALFORMED


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ('"seq": 1', '"seq": 1, "seq": 1'),
        ('"parameters": {}', '"parameters": {}, "parameters": {}'),
        ('"parameters": {}', '"parameters": {"rtt": "PT1S", "rtt": "PT2S"}'),
        ('"parameters": {}', '"parameters": {"\\u0061": 1, "a": 2}'),
    ],
)
def test_repeated_key_is_refused(one: str, two: str) -> None:
    text = json.dumps(client("ping")).replace(one, two)
    assert fault_of(text) == Fault.MALFORMED


@pytest.mark.parametrize(
    "change",
    [
        {"conversationId": None},
        {"conversationId": ""},
        {"conversationId": 5},
        {"conversationId": "../../etc/passwd"},
        {"conversationId": f"{CONVERSATION}/.."},
        {"conversationId": f"{CONVERSATION}\n"},
        {"media": None},
        {"media": {}},
        {"media": "PCMU"},
        {"media": 5},
    ],
    ids=repr,
)
def test_open_that_names_no_call_or_no_list_is_refused(change: dict[str, Any]) -> None:
    text = json.dumps(client("open", open_parameters(**change)))
    assert fault_of(text) == Fault.PARAMETERS


def test_open_without_parameters_of_its_own_is_refused() -> None:
    assert fault_of(json.dumps(client("open"))) == Fault.PARAMETERS


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([SESSION, NIL_UUID, "2", "PT1S", "open", "close", "update"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    [*client("open"), "reason", "discarded", "start", "language", *open_parameters()]
)


def message_or_fault(text: str) -> ClientMessage | Fault:
    try:
        return parse_client_message(text)
    except RemoteProtocolError as error:
        return Fault(error.info)


@given(
    kind=st.sampled_from(
        ["open", "ping", "close", "paused", "resumed", "discarded", "update", "error"]
    ),
    parameters=st.dictionaries(FIELDS, JSON_VALUES),
    changes=st.dictionaries(FIELDS, JSON_VALUES, max_size=2),
)
def test_any_json_is_a_message_or_a_fault(
    kind: str, parameters: dict[str, Any], changes: dict[str, Any]
) -> None:
    text = json.dumps({**client(kind, parameters), **changes})
    outcome = message_or_fault(text)
    assert isinstance(outcome, Fault) or outcome.to_text().encode()


@given(st.text())
def test_any_text_is_a_message_or_a_fault(text: str) -> None:
    message_or_fault(text)


# Negotiation and identifiers.


def media(*channels: str, **changes: object) -> MediaParameter:
    return MediaParameter.model_validate({**STEREO, "channels": channels, **changes})


BOTH = media("external", "internal")
INVERTED = media("internal", "external")
ONLY_EXTERNAL = media("external")
ONLY_INTERNAL = media("internal")
L16 = media("external", "internal", format="L16")


@pytest.mark.parametrize(
    ("offers", "chosen"),
    [
        ([BOTH, ONLY_EXTERNAL, ONLY_INTERNAL], BOTH),
        ([ONLY_EXTERNAL, ONLY_INTERNAL, BOTH], BOTH),
        ([INVERTED, BOTH], INVERTED),
        ([L16, ONLY_INTERNAL, ONLY_EXTERNAL], ONLY_INTERNAL),
        ([ONLY_EXTERNAL], ONLY_EXTERNAL),
        ([], None),
        ([L16], None),
        ([media("external", "internal", rate=16000)], None),
        ([media("external", "internal", type="video")], None),
        ([media()], None),
        ([media("external", "external")], None),
        ([media("external", "internal", "external"), ONLY_EXTERNAL], ONLY_EXTERNAL),
    ],
)
def test_negotiation_prefers_both_sides_then_the_order_of_the_client(
    offers: list[MediaParameter], chosen: MediaParameter | None
) -> None:
    assert negotiate(offers) is chosen


@pytest.mark.parametrize(
    ("text", "uuid"),
    [
        (SESSION, SESSION),
        (SESSION.upper(), SESSION),
        (NIL_UUID, NIL_UUID),
        ("", None),
        (SESSION[:-1], None),
        (SESSION + "0", None),
        (SESSION + "\n", None),
        ("\n" + SESSION, None),
        (SESSION.replace("-", ""), None),
        (SESSION.replace("e", "g"), None),
        (f"urn:uuid:{SESSION}", None),
        (f"{{{SESSION}}}", None),
        (SESSION.replace("1", "\u0661"), None),
        ("../" + SESSION[3:], None),
    ],
)
def test_canonical_uuid_takes_one_spelling_only(text: str, uuid: str | None) -> None:
    assert canonical_uuid(text) == uuid
