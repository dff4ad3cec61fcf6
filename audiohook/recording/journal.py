"""What is known of a call, one line of JSON for each fact, in order of arrival.

A journal is only ever appended to. What all its facts together say is in
`audiohook.recording.record`; those about transcripts are in
`audiohook.recording.transcripts`.

Nothing here touches a disk or a clock.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeAlias

from audiohook.call_settings import CallSettings, read_call_settings
from audiohook.protocol.timeline import GapKind
from audiohook.protocol.wire import check_depth, finite
from audiohook.recording import transcripts
from audiohook.recording.fields import Fields
from audiohook.recording.render import Gaps, Layout
from audiohook.recording.transcripts import TranscriptFact
from audiohook.recording.wav import Encoding

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from _typeshed import DataclassInstance

_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_UTC: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{3}Z")
_CHANNELS: Final = (
    ("external",),
    ("internal",),
    ("external", "internal"),
    ("internal", "external"),
)


def is_uuid(text: str) -> bool:
    """Tell whether a text is a UUID in lower case with hyphens, and nothing else.

    Session ids come from the network and become names of folders; this is the
    last look at them before they do.
    """
    return _UUID.fullmatch(text) is not None


def utc_text(epoch: float) -> str:
    """Write a moment as the journal does.

    Args:
        epoch: Seconds since 1970, as `time.time` gives them.

    Returns:
        Such as ``2026-11-22T14:10:44.123Z``.
    """
    moment = datetime.fromtimestamp(epoch, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


@dataclass(frozen=True, slots=True)
class Participant:
    """The monitored party, as ``open`` named it.

    Attributes:
        id: UUID, or whatever else came.
        ani: Calling number, in any form, or empty.
        ani_name: Name that goes with it, or empty.
        dnis: Called number, in any form, or empty.
    """

    id: str
    ani: str
    ani_name: str
    dnis: str


@dataclass(frozen=True, slots=True)
class Media:
    """The audio that was agreed on.

    Attributes:
        format: ``PCMU``.
        channels: Names in the order of interleaving, one or two.
        rate: Samples a second.
    """

    format: str
    channels: tuple[str, ...]
    rate: int


@dataclass(frozen=True, slots=True)
class ContinuedSession:
    """An earlier session of the same conversation, where this one goes on."""

    id: str
    serverseq: int
    clientseq: int


@dataclass(frozen=True, slots=True)
class Opened:
    """A call began; always the first fact.

    Attributes:
        session_id: UUID in lower case; the call's folder is named after it.
        organization_id: As it came.
        correlation_id: As it came.
        conversation_id: As it came.
        participant: The monitored party.
        language: Language tag, or ``None``.
        custom_config: The administrator's JSON as it came, or ``None``.
        media: What is received.
        started_at: UTC with milliseconds, see `utc_text`.
        start_samples: Position of the first sample in the conversation.
        continued_sessions: Predecessors, if the client reconnected.
        key_label: Which API key let the call in; not the key itself.
        retry_attempt: How often the client had tried before, as it came.
        settings: What was decided on it; None leaves all to whoever finishes it.

    Raises:
        ValueError: An id, the time or the media cannot be used.
    """

    session_id: str
    organization_id: str
    correlation_id: str
    conversation_id: str
    participant: Participant
    language: str | None
    custom_config: object
    media: Media
    started_at: str
    start_samples: int = 0
    continued_sessions: tuple[ContinuedSession, ...] = ()
    key_label: str | None = None
    retry_attempt: int | None = None
    settings: CallSettings | None = None

    def __post_init__(self) -> None:
        if not is_uuid(self.session_id):
            raise ValueError("session id is not a UUID in lower case")
        if _UTC.fullmatch(self.started_at) is None:
            raise ValueError("start is not a UTC time with milliseconds")
        if self.media.channels not in _CHANNELS:
            raise ValueError("channels are not external, internal or both")


@dataclass(frozen=True, slots=True)
class GapFact:
    """A stretch of the call for which no audio is stored.

    Attributes:
        kind: Why.
        offset_samples: Samples of each channel that are stored before it.
        length_samples: Its length.
        by: Who asked for it, if it was somebody on our side.
        reason: What they said of it.
    """

    kind: GapKind
    offset_samples: int
    length_samples: int
    by: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class LanguageFact:
    """The client announced another language.

    Attributes:
        language: Language tag as it came.
        offset_samples: Samples of each channel that are stored before it.
    """

    language: str
    offset_samples: int


@dataclass(frozen=True, slots=True)
class PausedFact:
    """The client stopped or went on sending; the gap itself is a `GapFact`.

    Attributes:
        paused: Whether it stopped.
        offset_samples: Samples of each channel that are stored before it.
    """

    paused: bool
    offset_samples: int


@dataclass(frozen=True, slots=True)
class ControlFact:
    """Somebody on our side interfered with the call.

    Attributes:
        action: ``pause``, ``resume`` or ``end``.
        by: Who asked for it: the name of a token, not the token.
        reason: What they said of it, or ``None``.
        at: When they asked, in UTC with milliseconds, see `utc_text`.
        offset_samples: Samples of each channel that had come by then.
    """

    action: str
    by: str
    reason: str | None
    at: str
    offset_samples: int


@dataclass(frozen=True, slots=True)
class TextFact:
    """A text message that came or went, as it is kept.

    Attributes:
        direction: ``in`` or ``out``, see `audiohook.recording.dialogue.Direction`.
        at: When, in UTC with milliseconds, see `utc_text`.
        offset_samples: Samples of each channel that had come by then.
        message: Its JSON, without what must not be kept.
    """

    direction: str
    at: str
    offset_samples: int
    message: object


@dataclass(frozen=True, slots=True)
class ClosedFact:
    """The call is over, and this is all of it.

    Attributes:
        reason: How it ended, in one word.
        stored_bytes: Audio that counts; whole frames of all channels.
        ended_at: UTC with milliseconds, see `utc_text`.
        complete: Whether the client ended it and nothing can be missing.
    """

    reason: str
    stored_bytes: int
    ended_at: str
    complete: bool


@dataclass(frozen=True, slots=True)
class Planned:
    """What will be stored; kept so that a later process makes the same bytes.

    Attributes:
        name: Name of the recording, without the prefix.
        prefix: What keys begin with.
        encoding: How the WAV is encoded.
        layout: How channels are laid out.
        gaps: What becomes of gaps.
        keep_raw: Whether the audio as received is stored too.
        keep_peaks: Whether what a waveform is drawn from is stored too.
    """

    name: str
    prefix: str
    encoding: Encoding
    layout: Layout
    gaps: Gaps
    keep_raw: bool
    keep_peaks: bool = False


@dataclass(frozen=True, slots=True)
class UploadBegun:
    """An object is being uploaded in parts; an earlier upload no longer counts.

    Attributes:
        key: Where the object is to be.
        upload_id: The store's name for the upload.
        part_bytes: Size of its first part, from which those of all others follow.
    """

    key: str
    upload_id: str
    part_bytes: int


@dataclass(frozen=True, slots=True)
class PartStored:
    """The store has confirmed a part of an upload.

    Attributes:
        key: Where the object is to be.
        number: Which part, from 1 on.
        size: Bytes.
        etag: The store's name for its content.
        crc32: CRC-32 of its content, four bytes big-endian in base64.
    """

    key: str
    number: int
    size: int
    etag: str
    crc32: str


@dataclass(frozen=True, slots=True)
class UploadDropped:
    """An upload was given up, or was gone; nothing of it is left in the store.

    Attributes:
        key: Where the object was to be.
    """

    key: str


@dataclass(frozen=True, slots=True)
class Stored:
    """The store has confirmed one object.

    Attributes:
        key: Where.
        size: Bytes.
        sha256: Checksum, lower-case hexadecimal.
    """

    key: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class AudioDeleted:
    """An object with audio was deleted again, since only its transcript was wanted.

    Attributes:
        key: Where it was.
    """

    key: str


@dataclass(frozen=True, slots=True)
class Delivered:
    """The store has confirmed all of the call; only transcripts are missing.

    From here on the audio in the spool is not needed any more.
    """


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing is left to do; the call may leave the spool."""


Fact: TypeAlias = (
    Opened
    | GapFact
    | LanguageFact
    | PausedFact
    | ControlFact
    | TextFact
    | ClosedFact
    | Planned
    | UploadBegun
    | PartStored
    | UploadDropped
    | Stored
    | AudioDeleted
    | Delivered
    | Done
    | TranscriptFact
)


def _read_media(fields: Fields) -> Media:
    channels = tuple(str(channel) for channel in fields.items("channels"))
    return Media(fields.text("format"), channels, fields.count("rate"))


def _read_predecessor(value: object) -> ContinuedSession:
    fields = Fields(value)
    return ContinuedSession(
        fields.text("id"), fields.count("serverseq"), fields.count("clientseq")
    )


def _read_opened(fields: Fields) -> Opened:
    party = fields.nested("participant")
    return Opened(
        session_id=fields.text("session_id"),
        organization_id=fields.text("organization_id"),
        correlation_id=fields.text("correlation_id"),
        conversation_id=fields.text("conversation_id"),
        participant=Participant(
            id=party.text("id"),
            ani=party.text("ani"),
            ani_name=party.text("ani_name"),
            dnis=party.text("dnis"),
        ),
        language=fields.optional_text("language"),
        custom_config=fields.anything("custom_config"),
        media=_read_media(fields.nested("media")),
        started_at=fields.text("started_at"),
        start_samples=fields.count("start_samples"),
        continued_sessions=tuple(
            _read_predecessor(value) for value in fields.items("continued_sessions")
        ),
        key_label=fields.optional_text("key_label"),
        retry_attempt=fields.optional_count("retry_attempt"),
        settings=None
        if fields.anything("settings") is None
        else read_call_settings(fields.nested("settings")),
    )


def _read_gap(fields: Fields) -> GapFact:
    return GapFact(
        GapKind(fields.text("kind")),
        fields.count("offset_samples"),
        fields.count("length_samples"),
        fields.optional_text("by"),
        fields.optional_text("reason"),
    )


def _read_language(fields: Fields) -> LanguageFact:
    return LanguageFact(fields.text("language"), fields.count("offset_samples"))


def _read_paused(fields: Fields) -> PausedFact:
    return PausedFact(fields.flag("paused"), fields.count("offset_samples"))


def _read_control(fields: Fields) -> ControlFact:
    return ControlFact(
        action=fields.text("action"),
        by=fields.text("by"),
        reason=fields.optional_text("reason"),
        at=fields.text("at"),
        offset_samples=fields.count("offset_samples"),
    )


def _read_text(fields: Fields) -> TextFact:
    return TextFact(
        direction=fields.text("direction"),
        at=fields.text("at"),
        offset_samples=fields.count("offset_samples"),
        message=fields.anything("message"),
    )


def _read_closed(fields: Fields) -> ClosedFact:
    return ClosedFact(
        reason=fields.text("reason"),
        stored_bytes=fields.count("stored_bytes"),
        ended_at=fields.text("ended_at"),
        complete=fields.flag("complete"),
    )


def _read_planned(fields: Fields) -> Planned:
    return Planned(
        name=fields.text("name"),
        prefix=fields.text("prefix"),
        encoding=Encoding(fields.text("encoding")),
        layout=Layout(fields.text("layout")),
        gaps=Gaps(fields.text("gaps")),
        keep_raw=fields.flag("keep_raw"),
        # Calls of versions that knew of none have none.
        keep_peaks=fields.anything("keep_peaks") is not None
        and fields.flag("keep_peaks"),
    )


def _read_upload_begun(fields: Fields) -> UploadBegun:
    part_bytes = fields.count("part_bytes")
    if part_bytes == 0:
        raise ValueError("parts of no bytes")
    return UploadBegun(fields.text("key"), fields.text("upload_id"), part_bytes)


def _read_part_stored(fields: Fields) -> PartStored:
    return PartStored(
        key=fields.text("key"),
        number=fields.count("number"),
        size=fields.count("size"),
        etag=fields.text("etag"),
        crc32=fields.text("crc32"),
    )


def _read_upload_dropped(fields: Fields) -> UploadDropped:
    return UploadDropped(fields.text("key"))


def _read_stored(fields: Fields) -> Stored:
    return Stored(fields.text("key"), fields.count("size"), fields.text("sha256"))


def _read_audio_deleted(fields: Fields) -> AudioDeleted:
    return AudioDeleted(fields.text("key"))


def _read_delivered(_fields: Fields) -> Delivered:
    return Delivered()


def _read_done(_fields: Fields) -> Done:
    return Done()


_READERS: Final[Mapping[str, Callable[[Fields], Fact]]] = {
    "opened": _read_opened,
    "gap": _read_gap,
    "language": _read_language,
    "paused": _read_paused,
    "control": _read_control,
    "text": _read_text,
    "closed": _read_closed,
    "planned": _read_planned,
    "upload_begun": _read_upload_begun,
    "part_stored": _read_part_stored,
    "upload_dropped": _read_upload_dropped,
    "stored": _read_stored,
    "audio_deleted": _read_audio_deleted,
    "delivered": _read_delivered,
    "done": _read_done,
    **transcripts.READERS,
}
_WORDS: Final[Mapping[type[Fact], str]] = {
    Opened: "opened",
    GapFact: "gap",
    LanguageFact: "language",
    PausedFact: "paused",
    ControlFact: "control",
    TextFact: "text",
    ClosedFact: "closed",
    Planned: "planned",
    UploadBegun: "upload_begun",
    PartStored: "part_stored",
    UploadDropped: "upload_dropped",
    Stored: "stored",
    AudioDeleted: "audio_deleted",
    Delivered: "delivered",
    Done: "done",
    **transcripts.WORDS,
}


def _as_object(value: DataclassInstance) -> dict[str, object]:
    """Turn a dataclass into a JSON object, one level deep; `json` asks again."""
    return {name: getattr(value, name) for name in _names_of(type(value))}


@functools.cache
def _names_of(kind: type[DataclassInstance]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


_ENCODER: Final = json.JSONEncoder(
    default=_as_object, separators=(",", ":"), allow_nan=False
)


def encode(fact: Fact) -> bytes:
    """Write a fact as a line.

    Only ASCII is written: a lone surrogate, which JSON from the network may
    hold, survives as an escape but could not be encoded as UTF-8.

    Returns:
        One line of JSON with its newline.

    Raises:
        ValueError: The administrator's JSON holds what JSON cannot say.
    """
    line = {"fact": _WORDS[type(fact)], **_as_object(fact)}
    try:
        text = _ENCODER.encode(line)
    except (TypeError, RecursionError) as exc:
        raise ValueError(f"not JSON: {exc}") from exc
    return text.encode("ascii") + b"\n"


def decode(line: bytes) -> Fact | None:
    """Read a line.

    Args:
        line: A line with or without its newline.

    Returns:
        The fact; ``None`` for a type that this version does not know.

    Raises:
        ValueError: The line is not JSON that can be written again, or a field is
            missing or wrong.
    """
    text = line.decode()
    try:
        value = json.loads(text, parse_float=finite, parse_constant=finite)
        # What came from the wire is not as deep; what is could be replayed, and
        # then fail to be written into the call's JSON.
        check_depth(text, value)
    except RecursionError as exc:
        raise ValueError("JSON is nested too deeply") from exc
    fields = Fields(value)
    reader = _READERS.get(fields.text("fact"))
    return None if reader is None else reader(fields)
