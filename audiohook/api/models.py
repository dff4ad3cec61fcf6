"""What is asked of the API and what it answers; its document is made of these."""

from __future__ import annotations

import unicodedata
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, RootModel
from pydantic.alias_generators import to_camel

from audiohook.control import Held  # noqa: TC001 - pydantic reads it
from audiohook.index.entry import RecordingState
from audiohook.missed.events import MOST_AT_ONCE
from audiohook.missed.review import Finding  # noqa: TC001 - pydantic reads it

UUID_PATTERN: Final = (
    "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
)
REFERENCE_PATTERN: Final = "^[0-9a-f]{64}$"
NAME_PATTERN: Final = r"^[0-9]{4}-[A-Za-z0-9_.-]{1,255}$"
FILE_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,255}$"
_TIME_PATTERN: Final = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"
    r"(Z|[+-][0-9]{2}:[0-9]{2})$"
)
MOST_IN_A_PAGE: Final = 200
_PAGE: Final = 50


class CallState(StrEnum):
    """How far a session has come."""

    LIVE = "live"
    """It is going on, in this instance."""
    ELSEWHERE = "elsewhere"
    """It is going on, or waits to be stored, in another instance."""
    SPOOLED = "spooled"
    """It is over, and on the local disk until the store has it."""
    STORED = RecordingState.STORED.value
    TRANSCRIBING = RecordingState.TRANSCRIBING.value
    TRANSCRIBED = RecordingState.TRANSCRIBED.value
    PARKED = RecordingState.PARKED.value
    FAILED = RecordingState.FAILED.value


class _Model(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, frozen=True, extra="forbid"
    )


def _printable(text: str) -> str:
    """Take out what a person could not see: controls, overrides, half characters."""
    kept = "".join(
        " " if unicodedata.category(each)[0] in "CZ" else each for each in text
    )
    return " ".join(kept.split())


def _time(text: str) -> str:
    datetime.fromisoformat(text)
    return text


def _day(text: str) -> str:
    # One that ends in the year 10000 has no end.
    if date.fromisoformat(text) == date.max:
        raise ValueError("too late")
    return text


def milliseconds_of(text: str) -> int:
    """Turn a time of a request into milliseconds since 1970, not less than 0."""
    moment = datetime.fromisoformat(text)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return max(0, round((moment - epoch).total_seconds() * 1000))


Uuid = Annotated[str, Field(pattern=UUID_PATTERN)]
Time = Annotated[
    str,
    Field(
        pattern=_TIME_PATTERN,
        max_length=40,
        json_schema_extra={"format": "date-time"},
    ),
    AfterValidator(_time),
]
Day = Annotated[
    str,
    Field(pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}$", json_schema_extra={"format": "date"}),
    AfterValidator(_day),
]
Cursor = Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,64}$")]
Reason = Annotated[str, Field(max_length=200), AfterValidator(_printable)]


# Requests


class FindQuery(_Model):
    """What recordings are looked for; all that is given must hold."""

    conversation: Uuid | None = Field(None, description="Conversation id")
    participant: Uuid | None = Field(None, description="Participant id")
    number: Annotated[str, Field(min_length=1, max_length=100)] | None = Field(
        None, description="Calling or called number, in any form, or the end of one"
    )
    since: Time | None = Field(None, description="Began at that time or later")
    until: Time | None = Field(None, description="Began before that time")
    text: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        None,
        description="Words of the transcript, all of them; a word may end in a star",
    )
    limit: int = Field(
        _PAGE, ge=1, le=MOST_IN_A_PAGE, description="Most recordings of a page"
    )
    cursor: Cursor | None = Field(None, description="`next` of the page before")


class MissedQuery(_Model):
    """Which day."""

    day: Day | None = Field(None, description="In UTC; today without it")


Json = dict[str, Any]


class GenesysEvents(
    RootModel[Json | Annotated[list[Json], Field(max_length=MOST_AT_ONCE)]]
):
    """Operational events of Genesys, in whatever envelope they come."""

    root: Json | Annotated[list[Json], Field(max_length=MOST_AT_ONCE)] = Field(
        default_factory=dict
    )


class LiveQuery(_Model):
    """A page of the live calls."""

    limit: int = Field(
        _PAGE, ge=1, le=MOST_IN_A_PAGE, description="Most calls of a page"
    )
    cursor: Cursor | None = Field(None, description="`next` of the page before")


class ControlRequest(_Model):
    """Why it is done."""

    reason: Reason | None = Field(
        None,
        description="Kept with the call: no card numbers, nothing personal",
        examples=["card payment"],
    )


class EraseQuery(_Model):
    """What of a conversation is to be erased, and how."""

    session: Uuid | None = Field(None, description="Only this session of it")
    end: bool = Field(False, description="End the call first if it is live")


# Answers


class RecordingItem(_Model):
    """A recording in a list."""

    name: str = Field(description="Name in the store, without the prefix")
    state: RecordingState
    session: str
    conversation: str
    participant: str
    ani: str
    ani_name: str
    dnis: str
    language: str | None
    started_at: str
    duration: float = Field(description="Seconds, gaps included")
    complete: bool = Field(description="Whether nothing can be missing")
    audio_removed_at: str | None = Field(
        description="When its audio was removed, as it was kept for its time"
    )
    transcripts_removed_at: str | None = Field(
        description="The same of its transcripts"
    )


class RecordingPage(_Model):
    """Recordings, the newest first."""

    recordings: list[RecordingItem]
    next: str | None = Field(description="Cursor of the next page; null after the last")


class LiveItem(_Model):
    """A call that is going on in this instance."""

    session: str
    conversation: str
    participant: str
    ani: str
    ani_name: str
    dnis: str
    language: str | None
    channels: list[str]
    age: float = Field(description="Seconds since it was opened")
    held: Held
    paused_by: str | None = Field(description="Name of the token that asked for it")
    paused_since: str | None


class LivePage(_Model):
    """Live calls, by their sessions."""

    calls: list[LiveItem]
    total: int
    next: str | None = Field(description="Cursor of the next page; null after the last")


class Link(_Model):
    """Where a file is to be fetched."""

    file: str
    href: str = Field(
        description="Below this server, with the token; or at the bucket, without one"
    )
    bytes: int | None = None
    sha256: str | None = None
    expires_in: int | None = Field(
        None, description="Seconds for which the address is good; null if for ever"
    )


class SessionItem(_Model):
    """One session of a conversation: a participant's call, or its continuation."""

    session: str
    state: CallState
    started_at: str | None
    live: LiveItem | None = None
    recording: RecordingItem | None = None
    links: list[Link] = []
    call: dict[str, Any] | None = Field(
        None, description="`call.json` as it is stored; null if there is none yet"
    )


class Conversation(_Model):
    """All that is known of a conversation, the newest session first."""

    conversation: str
    sessions: list[SessionItem]
    more: bool = Field(description="Whether there are more sessions than are shown")


class ControlledSession(_Model):
    """How a session stands after what was asked."""

    session: str
    held: Held
    since: str | None = Field(description="When somebody asked for that")
    by: str | None = Field(description="Name of the token by which it was asked for")
    reason: str | None


class Controlled(_Model):
    """How a conversation stands after what was asked."""

    conversation: str
    sessions: list[ControlledSession]


class ErasedItem(_Model):
    """What an erasure has found and removed so far."""

    recordings: int
    objects: int = Field(description="Different keys in the store")
    versions: int = Field(description="Objects and versions of them")
    markers: int = Field(description="Delete markers")
    uploads: int = Field(description="Unfinished uploads")
    bytes: int
    spooled: int = Field(description="Calls on the local disk")
    transcripts: int = Field(description="Jobs at AssemblyAI")


class Erasure(_Model):
    """How an erasure stands."""

    reference: str = Field(
        description="A hash that stands for what is erased, and names nobody"
    )
    done: bool = Field(description="Whether nothing was found any more")
    asked_at: str
    done_at: str | None
    erased: ErasedItem
    waits_for: str | None = Field(description="What keeps it from being done")
    kept: list[str] = Field(description="What cannot be removed, and why")


class Problem(BaseModel):
    """Why something was not done. Source: RFC 9457."""

    model_config = ConfigDict(extra="forbid")

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="The same for the same fault, for programs")


class TakenEvents(_Model):
    """What came of events."""

    taken: int = Field(description="That were not known yet")
    known: int = Field(description="That had come before")
    ignored: int = Field(description="That have no code of AudioHook's")


class ReportedEvent(_Model):
    """An event of Genesys, and what became of its call."""

    at: Time
    code: str = Field(description="Such as AUDIOHOOK-0006")
    conversation: Uuid | None
    text: str = Field(description="What Genesys says of it")
    finding: Finding


class MissedCalls(_Model):
    """Calls of a day that Genesys could not deliver, or not whole."""

    day: Day
    missed: list[Uuid] = Field(description="Conversations without any recording")
    events: list[ReportedEvent]
