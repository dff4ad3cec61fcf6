"""What a session tells its owner."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from audiohook.protocol.messages import MediaParameter, OpenParameters
    from audiohook.protocol.timeline import Gap


class SessionFault(StrEnum):
    """What is wrong with a message that is well formed; safe to send to the peer."""

    SEQ = "Invalid seq value"
    SERVERSEQ = "Invalid serverseq value"
    IDENTIFIER = "Session identifier mismatch"
    ORGANIZATION = "Organization identifier mismatch"
    MEDIA = "No supported media offered"
    NOT_OPEN = "Message is not allowed before open"
    EARLY_AUDIO = "Audio is not allowed before opened"
    AUDIO_SIZE = "Audio message is too large"
    AUDIO_FRAME = "Audio message does not hold whole samples"


class Timer(StrEnum):
    """What the session was waiting for in vain."""

    OPEN = "open"
    IDLE = "idle"
    CLOSING = "closing"


@dataclass(frozen=True, slots=True)
class OpenReceived:
    """The session can be opened; answer with `Session.accept` or `disconnect`.

    Attributes:
        parameters: What the call is.
        media: The offer to accept; None if there is none, which leaves a session
            without audio.
        is_probe: True if this only tries the connection: accept, record nothing.
        start_samples: Stream position at which the audio starts, past 0 only after a
            reconnect.
    """

    parameters: OpenParameters
    media: MediaParameter | None
    is_probe: bool
    start_samples: int


@dataclass(frozen=True, slots=True)
class GapRecorded:
    """Audio is missing; the gap is in the session's time line already."""

    gap: Gap


@dataclass(frozen=True, slots=True)
class GapLimited:
    """The peer claimed a gap longer than can be; the rest was not recorded.

    Attributes:
        ignored_samples: Samples per channel that were left out.
    """

    ignored_samples: int


@dataclass(frozen=True, slots=True)
class LanguageChanged:
    """The peer named another language, at most 64 characters, unchecked."""

    language: str


@dataclass(frozen=True, slots=True)
class PauseBegan:
    """The peer holds its audio back, after so many samples per channel."""

    offset_samples: int


@dataclass(frozen=True, slots=True)
class PauseEnded:
    """The peer's audio flows again; if some is missing, a gap event follows."""

    offset_samples: int


@dataclass(frozen=True, slots=True)
class HoldAnswered:
    """The peer has dealt with our ``pause`` or ``resume``.

    Attributes:
        wanted: True if it was ``pause``.
        paused: True if its audio is held back now, on our word or its own.
        offset_samples: Samples per channel that had come by then.
    """

    wanted: bool
    paused: bool
    offset_samples: int


@dataclass(frozen=True, slots=True)
class PeerErrorReceived:
    """The peer met an error, which by itself ends nothing.

    Attributes:
        code: After HTTP's codes; 0 if it sent none that can be read.
        message: Its text, at most 1,024 characters.
    """

    code: int
    message: str


@dataclass(frozen=True, slots=True)
class PositionDrift:
    """The peer's stream position moved away from ours by another second or more.

    Attributes:
        samples: Its position minus ours.
    """

    samples: int


@dataclass(frozen=True, slots=True)
class BinaryAccepted:
    """The binary message is audio of this call; append it."""

    length_bytes: int


@dataclass(frozen=True, slots=True)
class CloseReceived:
    """The call is over; make it durable, then answer with `Session.closed`.

    Attributes:
        reason: The peer's word for it, at most 64 characters, possibly empty.
        audio_bytes: Audio received before, which is all there will be.
    """

    reason: str
    audio_bytes: int


@dataclass(frozen=True, slots=True)
class Violation:
    """The peer broke the protocol; the message at fault did nothing else.

    Only a fault in the envelope's numbers or ids leaves its message in force.

    Attributes:
        info: Fixed words, one of `SessionFault` or `audiohook.protocol.wire.Fault`.
        answered: True if a `disconnect` was queued for it.
    """

    info: str
    answered: bool


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The peer did not do its part in time; close the socket now."""

    what: Timer


@dataclass(frozen=True, slots=True)
class Ended:
    """The socket is gone.

    Attributes:
        orderly: True if `closed` had been sent, so the whole dialogue took place.
    """

    orderly: bool


SessionEvent = (
    OpenReceived
    | GapRecorded
    | GapLimited
    | LanguageChanged
    | PauseBegan
    | PauseEnded
    | HoldAnswered
    | PeerErrorReceived
    | PositionDrift
    | BinaryAccepted
    | CloseReceived
    | Violation
    | TimedOut
    | Ended
)
