"""What is to be erased, and what is known of how far that has come.

An order's file holds one line of JSON for each fact, like the journal of a call.
Several processes may write to it, each line in one go; a line that was cut off is
passed over. It names the conversation, since nobody could go on without; so it is
removed when all is done, and what stays is a record that names nobody.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from audiohook.recording.fields import Fields
from audiohook.recording.journal import is_uuid
from audiohook.storage.traces import Trace, TraceKind
from audiohook.transcription.base import is_transcript_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from audiohook.recording.journal import Opened

ID_LIMIT: Final = 200
"""Longest id of a conversation; one of Genesys is a UUID."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be erased.

    Attributes:
        conversation: All of this conversation;
        session: or of that one session of it.
        at: When that was asked for, in UTC: what began later is not meant.
    """

    conversation: str
    session: str | None
    at: str

    def matches(self, opened: Opened) -> bool:
        """Tell whether a call is meant."""
        ours = self.is_of(opened.conversation_id, opened.session_id)
        return ours and opened.started_at <= self.at

    def is_of(self, conversation: object, session: object) -> bool:
        """Tell whether a call with these ids is meant, whenever it began."""
        return (
            isinstance(conversation, str)
            and conversation.lower() == self.conversation.lower()
            and (self.session is None or session == self.session)
        )


@dataclass(frozen=True, slots=True)
class Ordered:
    """Somebody wants something erased; always the first fact.

    Attributes:
        conversation: See `Wanted`.
        session: See `Wanted`.
        at: When, in UTC: what began later is not meant.
        by: Name of the token, or of the command.
        end: Whether a live call is to be ended for it.
    """

    conversation: str
    session: str | None
    at: str
    by: str
    end: bool


@dataclass(frozen=True, slots=True)
class Named:
    """A recording that is meant.

    Attributes:
        place: Name of the store that it is in.
        folder: Where it is there, such as ``calls/NAME``.
    """

    place: str
    folder: str


@dataclass(frozen=True, slots=True)
class Listed:
    """Something that there was of it.

    Attributes:
        kind: See `Trace`.
        key: See `Trace`.
        version: See `Trace`.
        size: See `Trace`.
    """

    kind: str
    key: str
    version: str
    size: int


@dataclass(frozen=True, slots=True)
class Spooled:
    """A call on the local disk that was meant, and is going.

    Attributes:
        session: Its session.
        size: Bytes of its audio.
    """

    session: str
    size: int


@dataclass(frozen=True, slots=True)
class Transcript:
    """A job at the transcription service.

    Attributes:
        id: The service's name for it.
    """

    id: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A job that may be there, as nobody knows what came of the request.

    Attributes:
        audio_url: What it would be of, without a query.
        at: When it was asked for, in seconds since 1970.
    """

    audio_url: str
    at: float


@dataclass(frozen=True, slots=True)
class TranscriptGone:
    """The service has nothing of a job any more.

    Attributes:
        id: The service's name for it.
    """

    id: str


@dataclass(frozen=True, slots=True)
class Verified:
    """Nothing of it was found any more.

    Attributes:
        at: When, in UTC.
    """

    at: str


@dataclass(frozen=True, slots=True)
class Waits:
    """Something keeps it from being done.

    Attributes:
        why: What, for a person; empty if nothing does any more.
        kept: What could not be removed, a line each.
    """

    why: str
    kept: tuple[str, ...]


OrderFact: TypeAlias = (
    Ordered
    | Named
    | Listed
    | Spooled
    | Transcript
    | Asked
    | TranscriptGone
    | Verified
    | Waits
)


@dataclass(frozen=True, slots=True)
class Counts:
    """What was removed.

    Attributes:
        recordings: Recordings in the store.
        objects: Different keys in the store.
        versions: Objects and versions of them.
        markers: Delete markers.
        uploads: Unfinished uploads.
        bytes: Of all versions, and on the local disk.
        spooled: Calls on the local disk.
        transcripts: Jobs at the transcription service.
    """

    recordings: int
    objects: int
    versions: int
    markers: int
    uploads: int
    bytes: int
    spooled: int
    transcripts: int


@dataclass(slots=True)
class OrderRecord:
    """Everything the facts so far say of one order.

    Attributes:
        ordered: What is wanted.
        named: Recordings that are meant.
        listed: What there was of them.
        spooled: Calls on the local disk.
        transcripts: Ids of jobs at the service.
        asked: Jobs that may be there.
        gone: Ids of jobs that are not there any more.
        verified: When nothing was found any more.
        waits: What keeps it from being done.
    """

    ordered: Ordered
    named: dict[Named, None] = field(default_factory=dict)
    listed: dict[Listed, None] = field(default_factory=dict)
    spooled: dict[str, int] = field(default_factory=dict)
    transcripts: dict[str, None] = field(default_factory=dict)
    asked: dict[Asked, None] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    verified: str | None = None
    waits: Waits = Waits("", ())

    @property
    def wanted(self) -> Wanted:
        """What is to be erased."""
        return Wanted(self.ordered.conversation, self.ordered.session, self.ordered.at)

    @property
    def leads(self) -> frozenset[Named | str | Asked]:
        """All that has to be looked for elsewhere."""
        return frozenset({*self.named, *self.transcripts, *self.asked})

    @property
    def counts(self) -> Counts:
        """What there was of it."""
        kinds = [each.kind for each in self.listed]
        return Counts(
            recordings=len(self.named),
            objects=len({each.key for each in self.listed}),
            versions=kinds.count(TraceKind.OBJECT),
            markers=kinds.count(TraceKind.MARKER),
            uploads=kinds.count(TraceKind.UPLOAD),
            bytes=sum(each.size for each in self.listed) + sum(self.spooled.values()),
            spooled=len(self.spooled),
            transcripts=len(self.gone),
        )

    def apply(self, fact: OrderFact) -> None:
        """Take in one more fact."""
        match fact:
            case Ordered():
                # Asked for once more: it means what began meanwhile as well.
                end = fact.end or self.ordered.end
                if fact.at > self.ordered.at:
                    self.ordered, self.verified = fact, None
                self.ordered = replace(self.ordered, end=end)
            case Verified(at):
                self.verified = at
            case Waits():
                self.waits = fact
            case Spooled(session, size):
                self.spooled[session] = max(size, self.spooled.get(session, 0))
            case Named():
                self.named[fact] = None
            case Listed():
                self.listed[fact] = None
            case _:
                self._apply_to_jobs(fact)

    def _apply_to_jobs(self, fact: Transcript | Asked | TranscriptGone) -> None:
        match fact:
            case Transcript(transcript_id):
                self.transcripts[transcript_id] = None
            case Asked():
                self.asked[fact] = None
            case TranscriptGone(transcript_id):
                self.gone.add(transcript_id)


def encode(facts: Iterable[OrderFact]) -> bytes:
    """Write facts as lines; a blank one first ends a line that was cut off."""
    lines = [json.dumps({"fact": _WORDS[type(fact)], **asdict(fact)}) for fact in facts]
    return ("\n" + "\n".join(lines) + "\n").encode()


def replay(data: bytes) -> OrderRecord | None:
    """Build the record of an order from its file; None if it is none."""
    record: OrderRecord | None = None
    for line in data.split(b"\n"):
        try:
            fact = _read(json.loads(line))
        except (ValueError, RecursionError):
            # Blank, cut off, or of a later version.
            continue
        if record is not None:
            record.apply(fact)
        elif isinstance(fact, Ordered):
            record = OrderRecord(fact)
    return record


def listed(trace: Trace) -> Listed:
    """Make a fact of a trace."""
    return Listed(trace.kind, trace.key, trace.version, trace.size)


def check_id(conversation: str) -> bool:
    """Tell whether something may be the id of a conversation."""
    return 0 < len(conversation) <= ID_LIMIT and conversation.isprintable()


def _read(value: object) -> OrderFact:
    fields = Fields(value)
    reader = _READERS.get(fields.text("fact"))
    if reader is None:
        raise ValueError("a fact of another version")
    return reader(fields)


def _read_ordered(fields: Fields) -> Ordered:
    session = fields.optional_text("session")
    conversation = fields.text("conversation")
    if not check_id(conversation) or not (session is None or is_uuid(session)):
        raise ValueError("not an id")
    return Ordered(
        conversation, session, fields.text("at"), fields.text("by"), fields.flag("end")
    )


def _read_transcript(fields: Fields) -> Transcript:
    return Transcript(_id(fields))


def _read_gone(fields: Fields) -> TranscriptGone:
    return TranscriptGone(_id(fields))


def _id(fields: Fields) -> str:
    found = fields.text("id")
    if not is_transcript_id(found):
        raise ValueError("not an id")
    return found


def _read_asked(fields: Fields) -> Asked:
    at: Any = fields.anything("at")
    return Asked(fields.text("audio_url"), float(at))


_WORDS: Final[Mapping[type, str]] = {
    Ordered: "ordered",
    Named: "named",
    Listed: "listed",
    Spooled: "spooled",
    Transcript: "transcript",
    Asked: "asked",
    TranscriptGone: "transcript_gone",
    Verified: "verified",
    Waits: "waits",
}
_READERS: Final[Mapping[str, Callable[[Fields], OrderFact]]] = {
    "ordered": _read_ordered,
    "named": lambda fields: Named(fields.text("place"), fields.text("folder")),
    "listed": lambda fields: Listed(
        TraceKind(fields.text("kind")),
        fields.text("key"),
        fields.text("version"),
        fields.count("size"),
    ),
    "spooled": lambda fields: Spooled(fields.text("session"), fields.count("size")),
    "transcript": _read_transcript,
    "asked": _read_asked,
    "transcript_gone": _read_gone,
    "verified": lambda fields: Verified(fields.text("at")),
    "waits": lambda fields: Waits(
        fields.text("why"), tuple(str(each) for each in fields.items("kept"))
    ),
}
