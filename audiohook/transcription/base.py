"""What the transcription service says, in words of ours, and how it can fail.

Nothing here sends anything, so that whatever decides about jobs need not know how
they are sent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

MESSAGE_LIMIT: Final = 300
"""Most characters of a message of the service that are shown."""

DELETED_TEXT: Final = "Deleted by user."
DELETED_URL: Final = "http://deleted_by_user"

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
# The query of a signed address opens the recording to anybody. An address may have
# lost its beginning, or be escaped; then a query is known by its equals sign.
_QUERY: Final = re.compile(
    r"(?<=://)([^\s?#]*)[?#]\S*|(?:\?|%3[Ff])[^\s?]{0,2048}?(?:=|%3[Dd])\S*"
)
_USER: Final = re.compile(r"//[^\s/@]{1,256}@")
_NOT_ASCII_SPACE: Final = re.compile(r"[^!-~]+")
# A message is searched no further, however long it is.
_SEARCH_LIMIT: Final = 4 * 1024


class TranscriptFault(StrEnum):
    """Kinds of failure, as `audiohook.errors.TranscriptError.fault` has them."""

    AWAY = "away"
    """It cannot be reached, fails to do its work, or does not answer sensibly."""
    BUSY = "busy"
    """It asks for fewer requests."""
    BAD_KEY = "bad_key"
    """It does not accept our key."""
    MISLED = "misled"
    """Whoever answers there is somebody else."""
    BALANCE = "balance"
    """The account has no money left."""
    BAD_REQUEST = "bad_request"
    """It does not accept the parameters: a model, a language, a word."""
    NOT_FOUND = "not_found"
    """It knows no such transcript, or not with our key, or it is not done."""
    DOWNLOAD = "download"
    """It could not get at the audio: it needs a fresh address."""
    MEDIA = "media"
    """The audio itself is of no use to it."""
    THEIRS = "theirs"
    """It failed in the middle; another try lands on another machine."""
    OTHER = "other"
    """Anything else."""


RETRYABLE: Final = frozenset(
    {
        TranscriptFault.AWAY,
        TranscriptFault.BUSY,
        TranscriptFault.DOWNLOAD,
        TranscriptFault.THEIRS,
    }
)
"""Faults that may be gone the next time, without anybody's help."""


class TranscriptStatus(StrEnum):
    """How far a job is. Source: AssemblyAI's OpenAPI, `TranscriptStatus`."""

    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    ERROR = "error"
    UNKNOWN = "unknown"
    """None of theirs: a word that they had not when this was written."""

    @classmethod
    def _missing_(cls, value: object) -> TranscriptStatus:
        return cls.UNKNOWN

    @classmethod
    def of(cls, word: object) -> TranscriptStatus:
        """Return the status that a word of the service's JSON stands for."""
        return cls(word) if isinstance(word, str) else cls.UNKNOWN


@dataclass(frozen=True, slots=True)
class Transcript:
    """A job as the service knows it.

    Attributes:
        id: Its id, fit for a path, see `is_transcript_id`.
        status: How far it is.
        error: Why it failed, see `plain_message`; None if it did not.
        audio_url: Where its audio is, without the query, see `without_query`;
            empty if it does not say.
        body: The whole answer.
    """

    id: str
    status: TranscriptStatus
    error: str | None
    audio_url: str
    body: Mapping[str, Any] = field(repr=False)

    @property
    def deleted(self) -> bool:
        """True if somebody had it deleted: its status still says that it is done."""
        if self.audio_url.rstrip("/") == DELETED_URL:
            return True
        return self.body.get("text") == DELETED_TEXT and not self.body.get("words")

    @property
    def usable(self) -> bool:
        """True if it is done and its text is that of the call."""
        return self.status is TranscriptStatus.COMPLETED and not self.deleted

    @property
    def fault(self) -> TranscriptFault | None:
        """What kind of failure it is; None if it did not fail."""
        if self.status is not TranscriptStatus.ERROR:
            return None
        return classify_error_text(self.error or "")


@dataclass(frozen=True, slots=True)
class ListedTranscript:
    """A job as it stands in the account's list.

    Attributes:
        id: As in `Transcript`.
        status: As in `Transcript`.
        created: When it was submitted, in the service's own words; it names no zone.
        audio_url: As in `Transcript`.
    """

    id: str
    status: TranscriptStatus
    created: str
    audio_url: str


@dataclass(frozen=True, slots=True)
class TranscriptPage:
    """A page of the account's list, newest first.

    Attributes:
        items: Its jobs.
        before_id: What to ask for to get the next, older page; None if this is
            the last one.
    """

    items: tuple[ListedTranscript, ...]
    before_id: str | None


# What they say of a job that failed. The first that matches counts.
# Source: AssemblyAI's documentation, "Troubleshoot common errors", "Implement retry
# server error logic", "Speech threshold", "Automatic language detection".
_ERROR_TEXTS: Final = (
    (
        TranscriptFault.DOWNLOAD,
        ("download error", "unable to download", "cannot access uploaded file"),
    ),
    (
        TranscriptFault.MEDIA,
        (
            "does not appear to contain audio",
            "duration is too short",
            "no spoken audio",
            "speech threshold",
            "confidence threshold",
        ),
    ),
    (TranscriptFault.BALANCE, ("account balance", "insufficient funds")),
    (
        TranscriptFault.BAD_REQUEST,
        (
            "not available in this language",
            "unsupported characters",
            "deprecated",
            "speech_model",
            "not supported",
        ),
    ),
    (TranscriptFault.MEDIA, ("transcoding failed", "duration is too long", "corrupt")),
    (
        TranscriptFault.THEIRS,
        (
            "server error",
            "upload failed",
            "please retry",
            "try again",
            "timed out",
            "timeout",
        ),
    ),
)


def classify_error_text(text: str) -> TranscriptFault:
    """Say what kind of failure a job's ``error`` tells of.

    Args:
        text: The service's own words.
    """
    text = text[:_SEARCH_LIMIT].lower()
    for fault, signs in _ERROR_TEXTS:
        if any(sign in text for sign in signs):
            return fault
    return TranscriptFault.OTHER


def is_transcript_id(text: object) -> bool:
    """Tell whether something can be an id, and may stand in a path or a key."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None


def without_query(text: str) -> str:
    """Take the query out of every address in a text, and the name of its user.

    Args:
        text: An address, or any text with addresses in it.

    Returns:
        The text, with nothing left in it that would open what it points at.
    """
    if "?" not in text and "%" not in text and "//" not in text:
        return text
    return _USER.sub("//", _QUERY.sub(r"\1", text))


def plain_message(text: str, *, secret: str = "") -> str:
    """Make a message of the service fit for a log and for a call's JSON.

    Args:
        text: Its own words.
        secret: What must not be shown, should it be in there.

    Returns:
        One line of printable ASCII, of at most `MESSAGE_LIMIT` characters, without
        the query of any address.
    """
    text = text[:_SEARCH_LIMIT]
    if secret:
        text = text.replace(secret, "…")
    text = _NOT_ASCII_SPACE.sub(" ", without_query(text)).strip()
    return text[:MESSAGE_LIMIT].rstrip()
