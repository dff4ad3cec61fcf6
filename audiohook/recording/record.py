"""What the facts in a call's journal say together.

Replaying a journal gives the `CallRecord` that the live call had, so a call that
was cut off is finished by the same code as one that ended well. A last line without
its newline was being written when the process died; it is not a fact yet. Facts of a
type that this version does not know stay in the file and are passed over.

Nothing here touches a disk or a clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from audiohook.protocol.timeline import Gap, Timeline
from audiohook.recording.journal import (
    AudioDeleted,
    ClosedFact,
    ControlFact,
    Delivered,
    Done,
    GapFact,
    LanguageFact,
    Opened,
    PartStored,
    PausedFact,
    Planned,
    Stored,
    TextFact,
    UploadBegun,
    UploadDropped,
    decode,
)
from audiohook.recording.transcripts import JobRecord, TranscriptPlanned

if TYPE_CHECKING:
    from audiohook.recording.journal import Fact
    from audiohook.recording.transcripts import TranscriptFact


@dataclass(slots=True)
class OpenUpload:
    """An upload in parts that has not become an object yet.

    Attributes:
        upload_id: The store's name for it.
        part_bytes: Size of its first part.
        parts: What the store has confirmed, by number.
    """

    upload_id: str
    part_bytes: int
    parts: dict[int, PartStored] = field(default_factory=dict)


class CallRecord:
    """Everything the facts so far say about one call.

    Attributes:
        opened: How it began.
        gaps: Gaps in order of arrival.
        languages: Changes of language in order of arrival.
        paused: Whether the client has stopped sending.
        controls: What somebody on our side did to the call, in order.
        texts: How many text messages are kept; they stay in the journal.
        askers: Gaps that somebody on our side asked for, by their offsets.
        closed: How it ended; ``None`` while it lives or if it was cut off. The
            last such fact counts.
        planned: What to store; the last such fact counts.
        uploads: Uploads under way, by key.
        stored: What the store has confirmed, by key.
        jobs: What is known of the transcripts, by the keys of the WAV files.
        deleted: Keys of objects with audio that were deleted again.
        delivered: Whether the store has confirmed all but transcripts.
        done: Whether the call may leave the spool.
    """

    __slots__ = (
        "askers",
        "closed",
        "controls",
        "deleted",
        "delivered",
        "done",
        "gaps",
        "jobs",
        "languages",
        "opened",
        "paused",
        "planned",
        "stored",
        "texts",
        "uploads",
    )

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        self.gaps: list[Gap] = []
        self.languages: list[LanguageFact] = []
        self.paused = False
        self.controls: list[ControlFact] = []
        self.texts = 0
        self.askers: dict[int, GapFact] = {}
        self.closed: ClosedFact | None = None
        self.planned: Planned | None = None
        self.uploads: dict[str, OpenUpload] = {}
        self.stored: dict[str, Stored] = {}
        self.jobs: dict[str, JobRecord] = {}
        self.deleted: frozenset[str] = frozenset()
        self.delivered = False
        self.done = False

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels; a µ-law sample is one byte."""
        return len(self.opened.media.channels)

    def whole_frames(self, size_bytes: int) -> int:
        """Round a number of bytes down to whole frames."""
        return size_bytes - size_bytes % self.frame_bytes

    def apply(self, fact: Fact) -> None:
        """Take in one more fact.

        Raises:
            ValueError: A call cannot begin twice.
        """
        match fact:
            case Opened():
                raise ValueError("opened twice")
            case GapFact() | LanguageFact() | PausedFact() | ControlFact():
                self._apply_to_audio(fact)
            case TextFact():
                self.texts += 1
            case ClosedFact():
                self.closed = fact
            case Planned():
                self.planned = fact
                # They were for files under another name.
                self.jobs.clear()
            case AudioDeleted(key):
                self.deleted |= {key}
            case Delivered():
                self.delivered = True
            case Done():
                self.done = True
            case UploadBegun() | PartStored() | UploadDropped() | Stored():
                self._apply_to_object(fact)
            case _:
                self._apply_to_job(fact)

    def _apply_to_audio(
        self, fact: GapFact | LanguageFact | PausedFact | ControlFact
    ) -> None:
        match fact:
            case GapFact(kind, offset_samples, length_samples, by):
                self.gaps.append(Gap(kind, offset_samples, length_samples))
                if by is not None:
                    self.askers[offset_samples] = fact
            case LanguageFact():
                self.languages.append(fact)
            case PausedFact(paused):
                self.paused = paused
            case ControlFact():
                self.controls.append(fact)

    def _apply_to_object(
        self, fact: UploadBegun | PartStored | UploadDropped | Stored
    ) -> None:
        match fact:
            case UploadBegun(key, upload_id, part_bytes):
                self.uploads[key] = OpenUpload(upload_id, part_bytes)
            case PartStored(key, number):
                if key in self.uploads:
                    self.uploads[key].parts[number] = fact
            case UploadDropped(key):
                self.uploads.pop(key, None)
            case Stored(key):
                self.uploads.pop(key, None)
                self.stored[key] = fact

    def _apply_to_job(self, fact: TranscriptFact) -> None:
        job = self.jobs.get(fact.key)
        if job is not None:
            job.apply(fact)
        elif isinstance(fact, TranscriptPlanned):
            self.jobs[fact.key] = JobRecord(fact)

    def timeline(self) -> Timeline:
        """Place the gaps over the audio that is really there.

        After a crash the journal may speak of gaps past the end of the audio;
        what is missing before them becomes a gap too, so that the length of
        the call is right.

        Raises:
            ValueError: The call is not closed.
        """
        if self.closed is None:
            raise ValueError("the call is not closed")
        whole = Timeline(start_samples=self.opened.start_samples, gaps=self.gaps)
        return whole.clamped(self.closed.stored_bytes // self.frame_bytes)


def replay(data: bytes) -> tuple[CallRecord | None, int]:
    """Build the record of a call from its journal.

    Args:
        data: The whole file.

    Returns:
        The record, ``None`` if not one whole line is there; and the length in
        bytes of all whole lines, where the next one is to be written.

    Raises:
        ValueError: A line before the last cannot be understood, or facts
            contradict each other; the text says which line and why.
    """
    *lines, torn = data.split(b"\n")
    record: CallRecord | None = None
    for number, line in enumerate(lines, start=1):
        try:
            record = _advance(record, decode(line))
        except ValueError as exc:
            raise ValueError(f"journal line {number}: {exc}") from exc
    return record, len(data) - len(torn)


def _advance(record: CallRecord | None, fact: Fact | None) -> CallRecord:
    if record is None:
        if not isinstance(fact, Opened):
            raise ValueError("the first fact is not `opened`")
        return CallRecord(fact)
    if fact is not None:
        record.apply(fact)
    return record
