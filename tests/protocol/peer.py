"""A client of the tests: it numbers its messages, and keeps what it is told."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from audiohook.protocol.events import OpenReceived, SessionEvent
from audiohook.protocol.messages import (
    Disconnect,
    DisconnectReason,
    MediaParameter,
    Opened,
    ServerMessage,
    negotiate,
    parse_server_message,
)
from audiohook.protocol.session import Session
from audiohook.protocol.state import State

if TYPE_CHECKING:
    from collections.abc import Callable

SESSION = "e160e428-53e2-487c-977d-96989bf5c99d"
OTHER = "30b0e395-84d3-4570-ac13-9a62d8f514c0"
ORGANIZATION = "d7934305-0972-4844-938e-9060eef73d05"
CONVERSATION = "090eaa2f-72fa-480a-83e0-8667ff89c0ec"

STEREO = {
    "type": "audio",
    "format": "PCMU",
    "channels": ["external", "internal"],
    "rate": 8000,
}
INVERTED = {**STEREO, "channels": ["internal", "external"]}
MONO = {**STEREO, "channels": ["external"]}
L16 = {**STEREO, "format": "L16"}

PARAMETERS: dict[str, dict[str, Any]] = {
    "ping": {"rtt": "PT0.1S"},
    "close": {"reason": "end"},
    "resumed": {"start": "PT0S", "discarded": "PT0.5S"},
    "discarded": {"start": "PT0S", "discarded": "PT0.25S"},
    "update": {"language": "de-DE"},
    "error": {"code": 500, "message": "oops"},
}


def open_parameters(**changes: object) -> dict[str, Any]:
    return {
        "organizationId": ORGANIZATION,
        "conversationId": CONVERSATION,
        "participant": {"id": OTHER, "ani": "", "aniName": "", "dnis": ""},
        "media": [STEREO, MONO],
        **changes,
    }


@dataclass
class Peer:
    """A client that numbers its messages, and a recorder of what it is told."""

    session: Session = field(
        default_factory=lambda: Session(
            session_id=SESSION, organization_id=ORGANIZATION, now=100.0
        )
    )
    now: float = 100.0
    seq: int = 0
    audio_bytes: int = 0
    heard: list[ServerMessage] = field(default_factory=list)

    def say(
        self, kind: str, parameters: object = None, **changes: object
    ) -> list[SessionEvent]:
        self.seq += 1
        default = open_parameters() if kind == "open" else PARAMETERS.get(kind, {})
        message = {
            "version": "2",
            "id": SESSION,
            "type": kind,
            "seq": self.seq,
            "serverseq": len(self.heard),
            "position": "PT0S",
            "parameters": default if parameters is None else parameters,
            **changes,
        }
        return self.say_text(json.dumps(message))

    def say_text(self, text: str) -> list[SessionEvent]:
        events = self.session.receive_text(
            text, now=self.now, audio_bytes=self.audio_bytes
        )
        self.listen()
        return events

    def send_audio(self, length_bytes: int) -> list[SessionEvent]:
        return self.session.receive_binary(length_bytes, now=self.now)

    def listen(self) -> list[ServerMessage]:
        new = [parse_server_message(text) for text in self.session.data_to_send()]
        self.heard += new
        return new

    def open(self, **changes: object) -> OpenReceived:
        (event,) = self.say("open", open_parameters(**changes))
        assert isinstance(event, OpenReceived)
        return event

    def start(self, **changes: object) -> Opened:
        """Open and accept; return what the server said to it."""
        event = self.open(**changes)
        self.session.accept(event.media)
        (opened,) = self.listen()
        assert isinstance(opened, Opened)
        return opened

    def types(self) -> list[str]:
        return [message.type for message in self.heard]


def at(state: State) -> Peer:
    """Lead a session into a state."""
    peer = Peer()
    if state is State.CONNECTED:
        return peer
    if state is State.REJECTING:
        peer.session.disconnect(DisconnectReason.ERROR)
    elif state is State.ENDED:
        peer.session.receive_end(now=peer.now)
    else:
        peer.open()
    if state in (State.OPEN, State.DISCONNECTING, State.CLOSING, State.CLOSED):
        peer.session.accept(negotiate([stereo()]))
    if state is State.DISCONNECTING:
        peer.session.disconnect(DisconnectReason.COMPLETED)
    if state in (State.CLOSING, State.CLOSED):
        peer.say("close")
    if state is State.CLOSED:
        peer.session.closed()
    peer.listen()
    assert peer.session.state is state
    return peer


def stereo() -> MediaParameter:
    return MediaParameter.model_validate(STEREO)


KINDS = (
    "open",
    "ping",
    "close",
    "paused",
    "resumed",
    "discarded",
    "update",
    "error",
    "dtmf",
)


CALLS: dict[str, Callable[[Session], object]] = {
    "accept": lambda session: session.accept(None),
    "disconnect": lambda session: session.disconnect(DisconnectReason.ERROR),
    "closed": lambda session: session.closed(),
    "pause": lambda session: session.pause(now=100.0),
    "resume": lambda session: session.resume(now=100.0),
}


def disconnect_of(peer: Peer) -> tuple[DisconnectReason, str | None]:
    (message,) = [m for m in peer.heard if isinstance(m, Disconnect)]
    return message.parameters.reason, message.parameters.info
