"""What is known of the transcripts of a call: facts of its journal.

There is one job for each WAV file, and its key in the store is the job's name.
All that may cost money is written down before it is asked for, so that whoever
comes after a crash knows what to look for before he asks again.

Nothing here touches a disk, a network or a clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final, TypeAlias

from audiohook.recording.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import JsonValue


class Choice(StrEnum):
    """What was decided on a WAV file when its call was stored."""

    TRANSCRIBE = "transcribe"
    """It gets a transcript."""
    SKIP = "skip"
    """It is not worth one; the reason says why."""
    OFF = "off"
    """Transcription is off."""
    ELSEWHERE = "elsewhere"
    """Somebody else has it transcribed, who watches the store."""


class JobStatus(StrEnum):
    """How a job stands, in the words of ``call.json``."""

    PENDING = "pending"
    SUBMITTED = "submitted"
    COMPLETED = "completed"
    FAILED = "failed"
    PARKED = "parked"
    SKIPPED = "skipped"
    OFF = "off"
    ELSEWHERE = "elsewhere"


@dataclass(frozen=True, slots=True)
class TranscriptPlanned:
    """It was decided what becomes of a WAV file; kept for a later process.

    What is asked for besides is up to the settings of the process that asks, so
    that one with better settings mends what was refused to another.

    Attributes:
        key: Of the WAV file.
        choice: What was decided.
        reason: Why, unless it gets a transcript.
        channels: Names of the file's channels, in order.
        language: Language tag of the call, or ``None``.
        chosen_language: What this call has in place of TRANSCRIBE_LANGUAGE.
        parameters: Laid over those of all jobs; None takes one away.
        deletes_audio: Whether the file is deleted once its transcript is stored.
    """

    key: str
    choice: Choice
    reason: str | None = None
    channels: tuple[str, ...] = ()
    language: str | None = None
    chosen_language: str | None = None
    parameters: Mapping[str, JsonValue] = field(default_factory=dict)
    deletes_audio: bool = False


@dataclass(frozen=True, slots=True)
class AudioUploaded:
    """The service for transcripts has the audio; it keeps it for a day.

    Attributes:
        key: Of the WAV file.
        url: Where it has it; of no use without our key.
    """

    key: str
    url: str


@dataclass(frozen=True, slots=True)
class TranscriptIntended:
    """A transcript is about to be asked for, which may cost money.

    Attributes:
        key: Of the WAV file.
        audio_url: Address of the audio, without a signature.
        at: UTC with milliseconds, see `audiohook.recording.journal.utc_text`.
    """

    key: str
    audio_url: str
    at: str

    @property
    def epoch(self) -> float:
        """When, in seconds since 1970."""
        return datetime.fromisoformat(self.at).timestamp()


@dataclass(frozen=True, slots=True)
class TranscriptRefused:
    """What was asked for last did not come to be: no job was made of it.

    Attributes:
        key: Of the WAV file.
    """

    key: str


@dataclass(frozen=True, slots=True)
class TranscriptSubmitted:
    """There is a job.

    Attributes:
        key: Of the WAV file.
        transcript_id: The service's name for it.
    """

    key: str
    transcript_id: str


@dataclass(frozen=True, slots=True)
class TranscriptFailed:
    """A job has ended without a transcript; another one may be asked for.

    Attributes:
        key: Of the WAV file.
        transcript_id: The service's name for it.
        fault: What kind of failure, in one word.
        reason: What was said of it.
    """

    key: str
    transcript_id: str
    fault: str
    reason: str


@dataclass(frozen=True, slots=True)
class TranscriptParked:
    """A job waits until somebody has mended something, or goes on.

    Attributes:
        key: Of the WAV file.
        reason: What is to be mended; ``None`` if it goes on.
    """

    key: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class TranscriptGivenUp:
    """There will be no transcript.

    Attributes:
        key: Of the WAV file.
        reason: Why.
    """

    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class TranscriptObject:
    """One form of a transcript, as the store has confirmed it.

    Attributes:
        key: Where.
        size: Bytes.
        sha256: Checksum, lower-case hexadecimal.
    """

    key: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class TranscriptStored:
    """The store has confirmed all forms of a transcript.

    Attributes:
        key: Of the WAV file.
        transcript_id: The service's name for it.
        model: What made it, if that was said.
        objects: All forms.
    """

    key: str
    transcript_id: str
    model: str | None
    objects: tuple[TranscriptObject, ...]


@dataclass(frozen=True, slots=True)
class TranscriptDeleted:
    """The service has nothing of a job any more.

    Attributes:
        key: Of the WAV file.
        transcript_id: Its name for it.
    """

    key: str
    transcript_id: str


@dataclass(frozen=True, slots=True)
class TranscriptAgain:
    """Somebody wants another transcript, whatever became of the last.

    What was paid for before is known still, so that it is not taken for the new one.

    Attributes:
        key: Of the WAV file.
    """

    key: str


TranscriptFact: TypeAlias = (
    TranscriptPlanned
    | AudioUploaded
    | TranscriptIntended
    | TranscriptRefused
    | TranscriptSubmitted
    | TranscriptFailed
    | TranscriptParked
    | TranscriptGivenUp
    | TranscriptStored
    | TranscriptDeleted
    | TranscriptAgain
)


class JobRecord:
    """Everything the facts so far say about the transcript of one WAV file.

    Attributes:
        planned: What was decided.
        upload_url: Where the service has the audio, if it was sent there.
        intent: What was asked for last, while it is not known whether there is
            a job now.
        current: Id of the job that runs.
        ids: Ids of all jobs, in order.
        failures: How many jobs have failed.
        last_fault: How the last of them did.
        last_reason: What was said of that.
        parked: What is to be mended.
        given_up: Why there will be no transcript.
        stored: The transcript.
        deleted: Ids of jobs of which the service has nothing any more.
    """

    __slots__ = (
        "current",
        "deleted",
        "failures",
        "given_up",
        "ids",
        "intent",
        "last_fault",
        "last_reason",
        "parked",
        "planned",
        "stored",
        "upload_url",
    )

    def __init__(self, planned: TranscriptPlanned) -> None:
        self.planned = planned
        self.upload_url: str | None = None
        self.intent: TranscriptIntended | None = None
        self.current: str | None = None
        self.ids: tuple[str, ...] = ()
        self.failures = 0
        self.last_fault: str | None = None
        self.last_reason: str | None = None
        self.parked: str | None = None
        self.given_up: str | None = None
        self.stored: TranscriptStored | None = None
        self.deleted: frozenset[str] = frozenset()

    @property
    def is_final(self) -> bool:
        """Whether there is nothing left to be asked for."""
        return (
            self.planned.choice is not Choice.TRANSCRIBE
            or self.stored is not None
            or self.given_up is not None
        )

    @property
    def status(self) -> JobStatus:
        """How it stands."""
        if self.planned.choice is not Choice.TRANSCRIBE:
            return _WITHOUT_JOB[self.planned.choice]
        if self.stored is not None:
            return JobStatus.COMPLETED
        if self.given_up is not None:
            return JobStatus.FAILED
        if self.parked is not None:
            return JobStatus.PARKED
        return JobStatus.PENDING if self.current is None else JobStatus.SUBMITTED

    @property
    def reason(self) -> str | None:
        """Why it stands so, if there is anything to say."""
        if self.planned.choice is not Choice.TRANSCRIBE:
            return self.planned.reason
        if self.stored is not None:
            return None
        # Of a job that has failed, until there is another.
        failed = self.last_reason if self.current is None else None
        return self.given_up or self.parked or failed

    def apply(self, fact: TranscriptFact) -> None:
        """Take in one more fact."""
        match fact:
            case TranscriptPlanned():
                self.planned = fact
            case AudioUploaded(_, url):
                self.upload_url = url
            case TranscriptParked(_, reason):
                self.parked = reason
            case TranscriptGivenUp(_, reason):
                self.given_up = reason
            case TranscriptStored():
                self.stored = fact
            case TranscriptDeleted(_, transcript_id):
                self.deleted |= {transcript_id}
            case TranscriptAgain():
                self._begin_anew()
            case _:
                self._apply_to_job(fact)

    def _begin_anew(self) -> None:
        self.upload_url = self.current = self.intent = None
        self.failures = 0
        self.last_fault = self.last_reason = self.parked = self.given_up = None
        self.stored = None

    def _apply_to_job(
        self,
        fact: (
            TranscriptIntended
            | TranscriptRefused
            | TranscriptSubmitted
            | TranscriptFailed
        ),
    ) -> None:
        match fact:
            case TranscriptIntended():
                self.intent = fact
            case TranscriptRefused():
                self.intent = None
            case TranscriptSubmitted(_, transcript_id):
                self.intent = self.parked = None
                self.current = transcript_id
                if transcript_id not in self.ids:
                    self.ids = (*self.ids, transcript_id)
            case TranscriptFailed():
                self.current = None
                self.failures += 1
                self.last_fault = fact.fault
                self.last_reason = fact.reason
                # Whatever was wrong with it, the next job had better not depend
                # on it.
                self.upload_url = None


_WITHOUT_JOB: Final[Mapping[Choice, JobStatus]] = {
    Choice.SKIP: JobStatus.SKIPPED,
    Choice.OFF: JobStatus.OFF,
    Choice.ELSEWHERE: JobStatus.ELSEWHERE,
}


def _read_planned(fields: Fields) -> TranscriptPlanned:
    return TranscriptPlanned(
        key=fields.text("key"),
        choice=Choice(fields.text("choice")),
        reason=fields.optional_text("reason"),
        channels=tuple(str(name) for name in fields.items("channels")),
        language=fields.optional_text("language"),
        chosen_language=fields.optional_text("chosen_language"),
        parameters=fields.optional_object("parameters"),
        deletes_audio=fields.anything("deletes_audio") is True,
    )


def _read_uploaded(fields: Fields) -> AudioUploaded:
    return AudioUploaded(fields.text("key"), fields.text("url"))


def _read_intended(fields: Fields) -> TranscriptIntended:
    fact = TranscriptIntended(
        fields.text("key"), fields.text("audio_url"), fields.text("at")
    )
    # To be found out now, not when it is needed.
    if datetime.fromisoformat(fact.at).tzinfo is None:
        raise ValueError("at is not in UTC")
    return fact


def _read_refused(fields: Fields) -> TranscriptRefused:
    return TranscriptRefused(fields.text("key"))


def _read_submitted(fields: Fields) -> TranscriptSubmitted:
    return TranscriptSubmitted(fields.text("key"), fields.text("transcript_id"))


def _read_failed(fields: Fields) -> TranscriptFailed:
    return TranscriptFailed(
        fields.text("key"),
        fields.text("transcript_id"),
        fields.text("fault"),
        fields.text("reason"),
    )


def _read_parked(fields: Fields) -> TranscriptParked:
    return TranscriptParked(fields.text("key"), fields.optional_text("reason"))


def _read_given_up(fields: Fields) -> TranscriptGivenUp:
    return TranscriptGivenUp(fields.text("key"), fields.text("reason"))


def _read_object(value: object) -> TranscriptObject:
    fields = Fields(value)
    return TranscriptObject(
        fields.text("key"), fields.count("size"), fields.text("sha256")
    )


def _read_stored(fields: Fields) -> TranscriptStored:
    return TranscriptStored(
        key=fields.text("key"),
        transcript_id=fields.text("transcript_id"),
        model=fields.optional_text("model"),
        objects=tuple(_read_object(value) for value in fields.items("objects")),
    )


def _read_again(fields: Fields) -> TranscriptAgain:
    return TranscriptAgain(fields.text("key"))


def _read_deleted(fields: Fields) -> TranscriptDeleted:
    return TranscriptDeleted(fields.text("key"), fields.text("transcript_id"))


READERS: Final[Mapping[str, Callable[[Fields], TranscriptFact]]] = {
    "transcript_planned": _read_planned,
    "audio_uploaded": _read_uploaded,
    "transcript_intended": _read_intended,
    "transcript_refused": _read_refused,
    "transcript_submitted": _read_submitted,
    "transcript_failed": _read_failed,
    "transcript_parked": _read_parked,
    "transcript_given_up": _read_given_up,
    "transcript_stored": _read_stored,
    "transcript_deleted": _read_deleted,
    "transcript_again": _read_again,
}
"""What reads each of these facts, by its word in the journal."""

WORDS: Final[Mapping[type, str]] = {
    TranscriptPlanned: "transcript_planned",
    AudioUploaded: "audio_uploaded",
    TranscriptIntended: "transcript_intended",
    TranscriptRefused: "transcript_refused",
    TranscriptSubmitted: "transcript_submitted",
    TranscriptFailed: "transcript_failed",
    TranscriptParked: "transcript_parked",
    TranscriptGivenUp: "transcript_given_up",
    TranscriptStored: "transcript_stored",
    TranscriptDeleted: "transcript_deleted",
    TranscriptAgain: "transcript_again",
}
"""The word of each of these facts."""
