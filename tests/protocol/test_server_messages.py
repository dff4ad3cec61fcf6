"""Messages of a server: exactly as the protocol has them, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from audiohook.errors import RemoteProtocolError
from audiohook.protocol.messages import (
    MAX_SEQ,
    Channel,
    Closed,
    Disconnect,
    DisconnectParameters,
    DisconnectReason,
    Entity,
    Event,
    EventParameters,
    MediaParameter,
    Opened,
    OpenedParameters,
    Pause,
    Pong,
    Reconnect,
    ReconnectParameters,
    Resume,
    ServerMessage,
    Updated,
    parse_server_message,
    pong_text,
)
from tests.protocol.peer import MONO, SESSION, STEREO

PCMU_STEREO = MediaParameter(
    type="audio",
    format="PCMU",
    channels=(Channel.EXTERNAL, Channel.INTERNAL),
    rate=8000,
)


def server(kind: str, parameters: object) -> dict[str, Any]:
    return {
        "version": "2",
        "id": SESSION,
        "type": kind,
        "seq": 3,
        "clientseq": 5,
        "parameters": parameters,
    }


SERVER_MESSAGES: list[tuple[ServerMessage, dict[str, Any]]] = [
    (
        Opened(
            id=SESSION,
            seq=3,
            clientseq=5,
            parameters=OpenedParameters(media=(PCMU_STEREO,)),
        ),
        server("opened", {"media": [STEREO]}),
    ),
    (
        Opened(
            id=SESSION,
            seq=3,
            clientseq=5,
            parameters=OpenedParameters(
                media=(),
                start_paused=True,
                discard_to="PT1.5S",
                supported_languages=(),
            ),
        ),
        server(
            "opened",
            {
                "media": [],
                "startPaused": True,
                "discardTo": "PT1.5S",
                "supportedLanguages": [],
            },
        ),
    ),
    (Pong(id=SESSION, seq=3, clientseq=5), server("pong", {})),
    (Closed(id=SESSION, seq=3, clientseq=5), server("closed", {})),
    (Updated(id=SESSION, seq=3, clientseq=5), server("updated", {})),
    (Pause(id=SESSION, seq=3, clientseq=5), server("pause", {})),
    (Resume(id=SESSION, seq=3, clientseq=5), server("resume", {})),
    (
        Event(
            id=SESSION,
            seq=3,
            clientseq=5,
            parameters=EventParameters(entities=(Entity(type="x", data={"y": 1}),)),
        ),
        server("event", {"entities": [{"type": "x", "data": {"y": 1}}]}),
    ),
    (
        Disconnect(
            id=SESSION,
            seq=3,
            clientseq=5,
            parameters=DisconnectParameters(
                reason=DisconnectReason.ERROR, info='a "b" \n ü'
            ),
        ),
        server("disconnect", {"reason": "error", "info": 'a "b" \n ü'}),
    ),
    (
        Disconnect(
            id=SESSION,
            seq=3,
            clientseq=5,
            parameters=DisconnectParameters(reason=DisconnectReason.COMPLETED),
        ),
        server("disconnect", {"reason": "completed"}),
    ),
    (Reconnect(id=SESSION, seq=3, clientseq=5), server("reconnect", {})),
    (
        Reconnect(
            id=SESSION,
            seq=3,
            clientseq=5,
            parameters=ReconnectParameters(info="soon"),
        ),
        server("reconnect", {"info": "soon"}),
    ),
]


@pytest.mark.parametrize(
    ("message", "wire"), SERVER_MESSAGES, ids=[m.type for m, _ in SERVER_MESSAGES]
)
def test_server_message_has_exactly_the_fields_of_the_protocol(
    message: ServerMessage, wire: dict[str, Any]
) -> None:
    assert json.loads(message.to_text()) == wire
    assert parse_server_message(message.to_text()) == message


@pytest.mark.parametrize("seq", [1, 2, MAX_SEQ])
@pytest.mark.parametrize("clientseq", [0, 17])
def test_pong_text_is_that_of_the_model(seq: int, clientseq: int) -> None:
    model = Pong(id=SESSION, seq=seq, clientseq=clientseq)
    assert pong_text(SESSION, seq, clientseq) == model.to_text()


@pytest.mark.parametrize(
    ("wire", "word"),
    [
        ({**server("pong", {}), "position": "PT0S"}, "position"),
        ({**server("pong", {}), "serverseq": 0}, "serverseq"),
        ({**server("pong", {}), "seq": 0}, "seq"),
        ({**server("pong", {}), "seq": "1"}, "seq"),
        ({**server("pong", {}), "version": "1"}, "version"),
        ({**server("pong", {}), "id": "x"}, "id"),
        ({**server("pong", {}), "clientseq": 1.0}, "clientseq"),
        (server("pong", {"rtt": "PT0S"}), "rtt"),
        (server("pong", None), "parameters"),
        (server("closed", {"reason": "end"}), "reason"),
        (server("opened", {}), "media"),
        (server("opened", {"media": None}), "parameters"),
        (server("opened", {"media": [STEREO, MONO]}), "media"),
        (server("opened", {"media": [{**STEREO, "codec": "PCMU"}]}), "codec"),
        (server("opened", {"media": [{**STEREO, "rate": "8000"}]}), "rate"),
        (server("opened", {"media": [{**STEREO, "channels": ["left"]}]}), "channels"),
        (server("opened", {"media": [], "startPaused": "no"}), "startPaused"),
        (server("opened", {"media": [], "startPaused": None}), "parameters"),
        (server("opened", {"media": [], "discardTo": "1e-05"}), "discardTo"),
        (server("opened", {"media": [], "start_paused": True}), "start_paused"),
        (server("disconnect", {"reason": "tired"}), "reason"),
        (server("disconnect", {"info": "x"}), "reason"),
        (server("event", {"entities": []}), "entities"),
        (server("event", {"entities": [{"type": "x"}]}), "data"),
        (server("resumed", {}), "resumed"),
        (server("error", {}), "error"),
        ({"type": 5}, "type"),
        ({"type": ["pong"]}, "type"),
    ],
    ids=repr,
)
def test_server_message_out_of_order_is_refused_and_the_place_named(
    wire: dict[str, Any], word: str
) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_server_message(json.dumps(wire))
    assert word in caught.value.info


@pytest.mark.parametrize(
    "name", ["version", "id", "type", "seq", "clientseq", "parameters"]
)
def test_server_message_that_lacks_a_field_is_refused(name: str) -> None:
    wire = server("pong", {})
    del wire[name]
    with pytest.raises(RemoteProtocolError, match=name):
        parse_server_message(json.dumps(wire))


def test_server_text_that_is_no_object_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="JSON"):
        parse_server_message("[]")
