"""The messages of an AudioHook session, both directions.

A text frame holds one JSON object: an envelope (``version``, ``id``, ``type``,
sequence numbers) and ``parameters``, an object that depends on ``type``.

The two directions are read by opposite rules. What a **client** sends is taken
with patience, because a refused message is a lost call: unknown types and fields
are passed over, odd values of optional fields become their defaults, and only
what cannot be worked with is refused. What a **server** sends is held to the
letter, because real clients end the session over one unknown field.

Strings that a client chooses are cut or dropped where they enter, so nothing
further in has to bound them again. Times on the wire are durations such as
``PT1.25S``; they stay text here and `audiohook.protocol.timeline` reads them.

Source: Genesys AudioHook protocol reference, protocol version 2.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel

from audiohook.errors import RemoteProtocolError
from audiohook.protocol.timeline import (
    DURATION_PATTERN,
    MAX_DURATION_CHARS,
    SAMPLE_RATE_HZ,
    is_duration,
)
from audiohook.protocol.wire import Fault, WireObject, decode

if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION: Final = "2"
NIL_UUID: Final = "00000000-0000-0000-0000-000000000000"

# Largest sequence number that survives a client counting in IEEE doubles.
MAX_SEQ: Final = 2**53 - 1
MAX_PARTICIPANT_CHARS: Final = 1_024
MAX_LANGUAGE_CHARS: Final = 64
MAX_WORD_CHARS: Final = 64
MAX_ERROR_CHARS: Final = 1_024
MAX_CONTINUED_SESSIONS: Final = 64
# A real client makes two or three. Each that cannot be read costs some 4 µs, and a
# message has room for 21,000.
MAX_OFFERS: Final = 64

_UUID_PATTERN: Final = r"^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
_UUID: Final = re.compile(_UUID_PATTERN)


class Channel(StrEnum):
    """One side of the call, as heard at the monitored party."""

    EXTERNAL = "external"
    INTERNAL = "internal"


class CloseReason(StrEnum):
    """Why a client says it closes; real ones may use other words too."""

    END = "end"
    ERROR = "error"
    DISCONNECT = "disconnect"
    RECONNECT = "reconnect"


class DisconnectReason(StrEnum):
    """Why a server asks the client to close."""

    COMPLETED = "completed"
    UNAUTHORIZED = "unauthorized"
    ERROR = "error"
    REJECTED = "rejected"


def canonical_uuid(text: str) -> str | None:
    """Return a UUID in its one canonical spelling, or None if it is no UUID.

    Only 8-4-4-4-12 ASCII hexadecimal digits count, of any version; the answer is in
    lower case, so it is safe as part of a path or a key.

    Args:
        text: Text of unknown origin.

    Returns:
        36 characters, or None.
    """
    # fullmatch, because `$` alone lets a trailing newline through.
    return text.lower() if _UUID.fullmatch(text) else None


# What a client may get away with: each takes whatever JSON held.


def _uuid(value: object) -> str | None:
    return canonical_uuid(value) if isinstance(value, str) else None


def _uuid_or_nil(value: object) -> str:
    return _uuid(value) or NIL_UUID


def _uuid_or_empty(value: object) -> str:
    return _uuid(value) or ""


def _object_or_empty(value: object) -> object:
    return value if isinstance(value, dict | BaseModel) else {}


def _object_or_none(value: object) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None


def _party_text(value: object) -> str:
    return value[:MAX_PARTICIPANT_CHARS] if isinstance(value, str) else ""


def _error_text(value: object) -> str:
    return value[:MAX_ERROR_CHARS] if isinstance(value, str) else ""


def _word(value: object) -> str:
    return value[:MAX_WORD_CHARS] if isinstance(value, str) else ""


def _language(value: object) -> str | None:
    if isinstance(value, str) and 0 < len(value) <= MAX_LANGUAGE_CHARS:
        return value
    return None


def _error_code(value: object) -> int:
    if isinstance(value, int) and 0 <= value <= MAX_SEQ:
        return int(value)
    return 0


def _flag(value: object) -> bool:
    return value is True


def _duration_or_none(value: object) -> str | None:
    return value if isinstance(value, str) and is_duration(value) else None


def _offers(value: object) -> object:
    if not isinstance(value, list | tuple):
        return value
    return tuple(_offer(entry) for entry in value[:MAX_OFFERS])


def _offer(entry: object) -> MediaParameter:
    if isinstance(entry, MediaParameter):
        return entry
    if not isinstance(entry, dict):
        return UNINTELLIGIBLE
    known = {name: entry.get(name) for name in MediaParameter.model_fields}
    try:
        return MediaParameter.model_validate(known)
    except ValidationError:
        return UNINTELLIGIBLE


def _predecessors(value: object) -> tuple[ContinuedSession, ...]:
    if not isinstance(value, list | tuple):
        return ()
    kept: list[ContinuedSession] = []
    for entry in value[:MAX_CONTINUED_SESSIONS]:
        try:
            kept.append(ContinuedSession.model_validate(entry))
        except ValidationError:
            continue
    return tuple(kept)


Duration = Annotated[
    str,
    StringConstraints(pattern=DURATION_PATTERN, max_length=MAX_DURATION_CHARS),
]
Seq = Annotated[StrictInt, Field(ge=0, le=MAX_SEQ)]
SessionId = Annotated[str, StringConstraints(pattern=_UUID_PATTERN)]


class _Part(BaseModel):
    """An object inside a client's message; unknown fields are passed over."""

    model_config = ConfigDict(
        frozen=True, alias_generator=to_camel, validate_by_name=True
    )


class _StrictPart(BaseModel):
    """An object inside a server's message; unknown fields are a fault."""

    model_config = ConfigDict(
        frozen=True, alias_generator=to_camel, validate_by_name=True, extra="forbid"
    )

    @model_validator(mode="before")
    @classmethod
    def _no_nulls(cls, value: object) -> object:
        # An optional field is left out, never null; None is how the models say so.
        if isinstance(value, WireObject) and None in value.values():
            msg = "null in place of a value"
            raise ValueError(msg)
        return value


class MediaParameter(_StrictPart):
    """One way to send the audio, as offered in ``open`` and echoed in ``opened``.

    Attributes:
        type: ``audio``.
        format: ``PCMU`` (G.711 µ-law) or ``L16``.
        channels: Sides of the call in the order in which samples are interleaved.
        rate: Samples a second of each channel.
    """

    type: str
    format: str
    channels: tuple[Channel, ...]
    rate: StrictInt


# Stands for an offered entry that cannot be read. It must count as an offer, since
# an empty list asks for a session without audio and an unusable one does not.
UNINTELLIGIBLE: Final = MediaParameter(type="", format="", channels=(), rate=0)


class NoParameters(_Part):
    """Parameters of a client's message that has none."""


class Participant(_Part):
    """The monitored party, usually the customer.

    Attributes:
        id: Canonical UUID; the nil UUID if the client sent none or another thing.
        ani: Calling number or address, as sent, at most 1,024 characters.
        ani_name: Name that goes with it, likewise.
        dnis: Called number or address, likewise.
    """

    id: Annotated[str, BeforeValidator(_uuid_or_nil)] = NIL_UUID
    ani: Annotated[str, BeforeValidator(_party_text)] = ""
    ani_name: Annotated[str, BeforeValidator(_party_text)] = ""
    dnis: Annotated[str, BeforeValidator(_party_text)] = ""


class ContinuedSession(_Part):
    """A session that this one continues after a reconnect.

    Attributes:
        id: Canonical UUID of the earlier session.
        serverseq: Last server message that its client processed.
        clientseq: Last message that its client sent.
    """

    id: Annotated[str, BeforeValidator(_uuid)]
    serverseq: Seq = 0
    clientseq: Seq = 0


class OpenParameters(_Part):
    """What the call is.

    Attributes:
        organization_id: Canonical UUID; empty if the client sent none or another
            thing, so that it equals no organization.
        conversation_id: Canonical UUID; the nil UUID marks a connection probe.
        participant: The monitored party.
        media: Offers in the client's order of preference, possibly none; of a great
            many the first.
        language: Language tag as sent, at most 64 characters, unchecked.
        supported_languages: True if the client asks for the list in ``opened``.
        continued_sessions: Predecessors, only after a reconnect.
        custom_config: The administrator's own JSON object, unaltered.
    """

    organization_id: Annotated[str, BeforeValidator(_uuid_or_empty)] = ""
    conversation_id: Annotated[str, BeforeValidator(_uuid)]
    participant: Annotated[Participant, BeforeValidator(_object_or_empty)] = (
        Participant()
    )
    media: Annotated[tuple[MediaParameter, ...], BeforeValidator(_offers)]
    language: Annotated[str | None, BeforeValidator(_language)] = None
    supported_languages: Annotated[bool, BeforeValidator(_flag)] = False
    continued_sessions: Annotated[
        tuple[ContinuedSession, ...], BeforeValidator(_predecessors)
    ] = ()
    custom_config: Annotated[
        dict[str, Any] | None, BeforeValidator(_object_or_none)
    ] = None

    @property
    def is_probe(self) -> bool:
        """True if this only tries the connection, so nothing may be recorded."""
        return self.conversation_id == NIL_UUID


class PingParameters(_Part):
    """Round trip of the ping before, None if unknown."""

    rtt: Annotated[str | None, BeforeValidator(_duration_or_none)] = None


class CloseParameters(_Part):
    """Why the client closes: any word, see `CloseReason` for the documented ones."""

    reason: Annotated[str, BeforeValidator(_word)] = ""


class GapParameters(_Part):
    """A stretch of the stream that was not sent.

    Attributes:
        start: Position where it began; real clients are not exact about it.
        discarded: Its length; None if the client sent no readable one.
    """

    start: Annotated[str | None, BeforeValidator(_duration_or_none)] = None
    discarded: Annotated[str | None, BeforeValidator(_duration_or_none)] = None


class UpdateParameters(_Part):
    """What changed; None if the language sent cannot be a language tag."""

    language: Annotated[str | None, BeforeValidator(_language)] = None


class PeerErrorParameters(_Part):
    """What went wrong at the client: a code after HTTP's, 0 if unreadable, and text."""

    code: Annotated[int, BeforeValidator(_error_code)] = 0
    message: Annotated[str, BeforeValidator(_error_text)] = ""


class EmptyParameters(_StrictPart):
    """Parameters of a server's message that must have none."""


class OpenedParameters(_StrictPart):
    """How the server takes the call.

    Attributes:
        media: The offer taken, unchanged; none means that no audio is wanted.
        start_paused: True to hold the audio back until ``resume``.
        discard_to: Position before which audio is not wanted.
        supported_languages: Only if the client asked for it.
    """

    media: Annotated[tuple[MediaParameter, ...], Field(max_length=1)]
    start_paused: StrictBool | None = None
    discard_to: Duration | None = None
    supported_languages: tuple[str, ...] | None = None


class Entity(_StrictPart):
    """One item of an ``event``."""

    type: str
    data: Any


class EventParameters(_StrictPart):
    """Items of an ``event``, at least one."""

    entities: Annotated[tuple[Entity, ...], Field(min_length=1)]


class DisconnectParameters(_StrictPart):
    """Why the session should end; ``info`` is logged at the client's side."""

    reason: DisconnectReason
    info: str | None = None


class ReconnectParameters(_StrictPart):
    """Why the client should open a new session that continues this one."""

    info: str | None = None


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True)

    version: Literal["2"] = VERSION
    id: SessionId

    def to_text(self) -> str:
        """Return the message as one line of JSON, fields without a value left out."""
        return self.model_dump_json(by_alias=True, exclude_none=True)


class _ClientMessage(_Message):
    """Envelope of a client's message.

    Attributes:
        version: Protocol version.
        id: UUID of the session, in the client's spelling.
        seq: Number of this message, counted from 1.
        serverseq: Last server message that the client has processed.
        position: Stream position as a duration.
    """

    seq: Seq
    serverseq: Seq
    position: Duration


class Open(_ClientMessage):
    """First message of a session."""

    type: Literal["open"] = "open"
    parameters: OpenParameters


class Ping(_ClientMessage):
    """Asks for a `Pong`."""

    type: Literal["ping"] = "ping"
    parameters: PingParameters


class Close(_ClientMessage):
    """Ends the session; no audio follows. Asks for a `Closed`."""

    type: Literal["close"] = "close"
    parameters: CloseParameters


class Paused(_ClientMessage):
    """Audio is held back from here on."""

    type: Literal["paused"] = "paused"
    parameters: NoParameters


class Resumed(_ClientMessage):
    """Audio flows again; the parameters say how much of the stream is missing."""

    type: Literal["resumed"] = "resumed"
    parameters: GapParameters


class Discarded(_ClientMessage):
    """The client dropped audio."""

    type: Literal["discarded"] = "discarded"
    parameters: GapParameters


class Update(_ClientMessage):
    """The language changed. Asks for an `Updated`."""

    type: Literal["update"] = "update"
    parameters: UpdateParameters


class PeerError(_ClientMessage):
    """The client met an error; if it was fatal, `Close` comes next."""

    type: Literal["error"] = "error"
    parameters: PeerErrorParameters


class UnknownMessage(_ClientMessage):
    """A message of a type that this version of the protocol does not know."""

    type: Annotated[str, BeforeValidator(_word)]
    parameters: NoParameters


ClientMessage = (
    Open
    | Ping
    | Close
    | Paused
    | Resumed
    | Discarded
    | Update
    | PeerError
    | UnknownMessage
)


class _ServerMessage(_Message):
    """Envelope of a server's message.

    Attributes:
        version: Protocol version.
        id: UUID of the session.
        seq: Number of this message, counted from 1.
        clientseq: Last client message that the server has processed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seq: Annotated[StrictInt, Field(ge=1, le=MAX_SEQ)]
    clientseq: Seq


class Opened(_ServerMessage):
    """Accepts the session."""

    type: Literal["opened"] = "opened"
    parameters: OpenedParameters


class Pong(_ServerMessage):
    """Answers `Ping`; ``clientseq`` is the ``seq`` of that ping."""

    type: Literal["pong"] = "pong"
    parameters: EmptyParameters = EmptyParameters()


class Closed(_ServerMessage):
    """Answers `Close`; the last message of a server."""

    type: Literal["closed"] = "closed"
    parameters: EmptyParameters = EmptyParameters()


class Updated(_ServerMessage):
    """Answers `Update`."""

    type: Literal["updated"] = "updated"
    parameters: EmptyParameters = EmptyParameters()


class Pause(_ServerMessage):
    """Asks the client to hold the audio back."""

    type: Literal["pause"] = "pause"
    parameters: EmptyParameters = EmptyParameters()


class Resume(_ServerMessage):
    """Takes `Pause` back."""

    type: Literal["resume"] = "resume"
    parameters: EmptyParameters = EmptyParameters()


class Event(_ServerMessage):
    """Data for the client; AudioHook Monitor discards it."""

    type: Literal["event"] = "event"
    parameters: EventParameters


class Disconnect(_ServerMessage):
    """Asks the client to close."""

    type: Literal["disconnect"] = "disconnect"
    parameters: DisconnectParameters


class Reconnect(_ServerMessage):
    """Asks the client to go on in a new session."""

    type: Literal["reconnect"] = "reconnect"
    parameters: ReconnectParameters = ReconnectParameters()


ServerMessage = (
    Opened | Pong | Closed | Updated | Pause | Resume | Event | Disconnect | Reconnect
)

_CLIENT_MODELS: Final[dict[str, type[ClientMessage]]] = {
    "open": Open,
    "ping": Ping,
    "close": Close,
    "paused": Paused,
    "resumed": Resumed,
    "discarded": Discarded,
    "update": Update,
    "error": PeerError,
}

_SERVER_MODELS: Final[dict[str, type[ServerMessage]]] = {
    "opened": Opened,
    "pong": Pong,
    "closed": Closed,
    "updated": Updated,
    "pause": Pause,
    "resume": Resume,
    "event": Event,
    "disconnect": Disconnect,
    "reconnect": Reconnect,
}


def parse_client_message(text: str) -> ClientMessage:
    """Read a message of a client.

    Args:
        text: Content of one text frame.

    Returns:
        The message; `UnknownMessage` if its type is not known.

    Raises:
        RemoteProtocolError: The message cannot be worked with. The text is one of
            `Fault` and quotes nothing of the message.
    """
    wire = decode(text)
    kind = wire.get("type")
    if not isinstance(kind, str) or "version" not in wire:
        raise RemoteProtocolError(Fault.MALFORMED)
    model = _CLIENT_MODELS.get(kind, UnknownMessage)
    try:
        return model.model_validate(wire, by_alias=True, by_name=False)
    except ValidationError as error:
        # Not chained: the cause quotes the peer's text, which may hold a name.
        raise RemoteProtocolError(_blame(error)) from None


def _blame(error: ValidationError) -> Fault:
    places = [
        item["loc"] for item in error.errors(include_url=False, include_input=False)
    ]
    inside = all(len(place) > 1 and place[0] == "parameters" for place in places)
    return Fault.PARAMETERS if inside else Fault.MALFORMED


def parse_server_message(text: str) -> ServerMessage:
    """Read a message of a server, to the letter.

    Args:
        text: Content of one text frame.

    Returns:
        The message.

    Raises:
        RemoteProtocolError: The message is not exactly as the protocol has it; the
            text says what is wrong and where.
    """
    wire = decode(text)
    kind = wire.get("type")
    model = _SERVER_MODELS.get(kind) if isinstance(kind, str) else None
    if model is None:
        msg = f"type: not a message of a server: {str(kind)[:MAX_WORD_CHARS]!r}"
        raise RemoteProtocolError(msg)
    # These have defaults, for those who write messages.
    for name in ("version", "parameters"):
        if name not in wire:
            msg = f"{kind}: {name}: Field required"
            raise RemoteProtocolError(msg)
    try:
        return model.model_validate(wire, by_alias=True, by_name=False)
    except ValidationError as error:
        faults = (
            f"{kind}: {'.'.join(map(str, item['loc']))}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)
        )
        raise RemoteProtocolError("; ".join(faults)) from error


def pong_text(session_id: str, seq: int, clientseq: int) -> str:
    """Return what ``Pong(…).to_text()`` returns, without building the model.

    Pongs are nearly all that a server says: 2,000 a second at 10,000 calls. Measured:
    0.2 µs, against 3.4 µs by way of the model.

    Args:
        session_id: UUID of the session; it is not checked and not escaped.
        seq: Number of the message.
        clientseq: ``seq`` of the ping.
    """
    return (
        f'{{"version":"2","id":"{session_id}","seq":{seq},"clientseq":{clientseq},'
        '"type":"pong","parameters":{}}'
    )


def negotiate(offers: Sequence[MediaParameter]) -> MediaParameter | None:
    """Choose how the audio shall be sent.

    The first µ-law offer with both sides of the call wins, else the first µ-law one.
    ``L16`` is never taken: AudioHook Monitor does not offer it, and its byte order is
    disputed.

    Args:
        offers: Entries of ``open`` in the client's order.

    Returns:
        One of the entries, unchanged, or None if none is usable.
    """
    usable = [offer for offer in offers if _is_usable(offer)]
    both = (offer for offer in usable if len(offer.channels) == len(Channel))
    return next(both, usable[0] if usable else None)


def _is_usable(offer: MediaParameter) -> bool:
    distinct = len(set(offer.channels)) == len(offer.channels) > 0
    return (
        offer.type == "audio"
        and offer.format == "PCMU"
        and offer.rate == SAMPLE_RATE_HZ
        and distinct
    )
