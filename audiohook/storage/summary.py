"""What is said about a call beside its audio: its name, metadata, and JSON."""

from __future__ import annotations

import json
from enum import StrEnum
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from audiohook.call_settings import Mode
from audiohook.protocol.timeline import SAMPLE_RATE_HZ, GapKind
from audiohook.recording.journal import is_uuid
from audiohook.recording.transcripts import JobStatus
from audiohook.storage.layout import split_bucket
from audiohook.storage.s3_metadata import safe_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from audiohook.protocol.timeline import Gap
    from audiohook.recording.journal import (
        ClosedFact,
        ControlFact,
        Opened,
        Planned,
        Stored,
    )
    from audiohook.recording.record import CallRecord
    from audiohook.recording.render import Rendering
    from audiohook.recording.transcripts import JobRecord

SCHEMA_VERSION: Final = 1

_NIL: Final = "00000000-0000-0000-0000-000000000000"
# Source: Amazon S3 User Guide, "Working with object metadata": 2 KB for all.
METADATA_LIMIT: Final = 120
"""Most characters of a value that is kept beside an object."""


def recording_name(opened: Opened) -> str:
    """Name a recording: start, conversation and participant.

    An id that is not a UUID in lower case never gets into a key; the nil UUID
    stands for it.

    Returns:
        ``2026-11-22T14-10-44.123Z_<conversation id>_<participant id>``.
    """
    start = opened.started_at.replace(":", "-")
    ids = (opened.conversation_id, opened.participant.id)
    return "_".join([start, *(each if is_uuid(each) else _NIL for each in ids)])


def summarize(
    record: CallRecord,
    wavs: Sequence[Rendering],
    plan: Planned,
    objects: Sequence[Stored],
) -> bytes:
    """Make a call's JSON. It depends on the journal alone, to the last byte.

    Times within the call are seconds since its first sample, gaps included,
    whether or not the WAV has them cut out.

    Args:
        record: The call, closed.
        wavs: Its WAV files.
        plan: How it is stored.
        objects: What was stored of it.

    Returns:
        UTF-8.

    Raises:
        ValueError: The call is not closed.
    """
    opened, closed = record.opened, _closed(record)
    summary = {
        "schemaVersion": SCHEMA_VERSION,
        "sessionId": opened.session_id,
        "conversationId": opened.conversation_id,
        "organizationId": opened.organization_id,
        "correlationId": opened.correlation_id,
        "participant": {
            "id": opened.participant.id,
            "ani": opened.participant.ani,
            "aniName": opened.participant.ani_name,
            "dnis": opened.participant.dnis,
        },
        "language": opened.language,
        "languageChanges": _language_changes(record),
        "customConfig": opened.custom_config,
        "media": {
            "format": opened.media.format,
            "rate": opened.media.rate,
            "channels": opened.media.channels,
        },
        "settings": None if opened.settings is None else opened.settings.describe(),
        "key": opened.key_label,
        "recording": {
            "encoding": plan.encoding,
            "layout": plan.layout,
            "gaps": plan.gaps,
        },
        "start": opened.started_at,
        "end": closed.ended_at,
        "startPosition": _seconds(opened.start_samples),
        "duration": _duration(wavs),
        "audioDuration": _seconds(closed.stored_bytes // record.frame_bytes),
        "audioBytes": closed.stored_bytes,
        "ended": {
            "reason": closed.reason,
            "complete": closed.complete,
            "paused": record.paused,
        },
        "gaps": _gaps(record),
        "controls": _controls(record),
        "audio": _audio(record, wavs),
        "objects": [
            {
                "key": split_bucket(each.key)[1],
                "bytes": each.size,
                "sha256": each.sha256,
                **({"deleted": True} if each.key in record.deleted else {}),
            }
            for each in objects
        ],
        "transcripts": [transcript_entry(job) for job in record.jobs.values()],
        "continuedSessions": [
            {"id": each.id, "serverseq": each.serverseq, "clientseq": each.clientseq}
            for each in opened.continued_sessions
        ],
    }
    return written(summary)


def written(summary: object) -> bytes:
    """Write the JSON of a call, for people to read.

    Args:
        summary: What JSON can say.

    Returns:
        UTF-8.
    """
    try:
        return (json.dumps(summary, indent=2, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:
        # Half a surrogate pair, which JSON can carry only as an escape.
        return (json.dumps(summary, indent=2) + "\n").encode()


def metadata(record: CallRecord, wavs: Sequence[Rendering]) -> dict[str, str]:
    """Describe a call in the names that users of buckets know.

    Metadata is ASCII and short; what does not fit is in the call's JSON, whole.
    What is not known yet of a call that lives is left to the JSON too, since
    metadata is fixed when an upload begins.

    Args:
        record: The call.
        wavs: Its WAV files, if it is closed.

    Source: AssemblyAI's guide for Genesys Cloud, `server.js`.
    """
    opened, closed = record.opened, record.closed
    languages = [opened.language, *(change.language for change in record.languages)]
    values = {
        "session-id": opened.session_id,
        "conversation-id": opened.conversation_id,
        "participant-id": opened.participant.id,
        "ani": opened.participant.ani,
        "dnis": opened.participant.dnis,
        "audio-format": opened.media.format,
        "sample-rate": str(opened.media.rate),
        "channels": ",".join(opened.media.channels),
        "language": languages[-1] or "",
        "duration-seconds": "" if closed is None else str(_duration(wavs)),
        "start-time": opened.started_at,
        "bytes": "" if closed is None else str(closed.stored_bytes),
    }
    return {
        name: safe_value(value, limit=METADATA_LIMIT) or "unknown"
        for name, value in values.items()
    }


def session_of(summary: bytes | None) -> object:
    """Tell whose a call's JSON is; ``None`` if it is none that we know."""
    try:
        value = json.loads(summary or b"null")
    except (ValueError, RecursionError):
        return None
    return value.get("sessionId") if isinstance(value, dict) else None


def _closed(record: CallRecord) -> ClosedFact:
    if record.closed is None:
        raise ValueError("the call is not closed")
    return record.closed


def _seconds(samples: int) -> float:
    return samples / SAMPLE_RATE_HZ


def _duration(wavs: Sequence[Rendering]) -> float:
    """Seconds of a call's files, which are all of one length."""
    return _seconds(wavs[0].frames)


class AudioState(StrEnum):
    """What becomes of the audio of a call that is stored."""

    STORED = "stored"
    """It stays."""
    WAITS = "deleted once transcribed"
    """It is deleted when all transcripts of the call are stored."""
    DELETED = "deleted"
    """Its transcripts are stored, and it is not there any more."""
    KEPT = "kept"
    """It was to be deleted, but there is no transcript."""


def _audio(record: CallRecord, wavs: Sequence[Rendering]) -> AudioState:
    own = record.opened.settings
    if own is None or own.mode is not Mode.TRANSCRIBE:
        return AudioState.STORED
    if len(record.deleted) >= len(wavs):
        return AudioState.DELETED
    jobs = record.jobs.values()
    if any(job.is_final and job.stored is None for job in jobs):
        # Whoever sees to it elsewhere says what came of it.
        elsewhere = any(job.status is JobStatus.ELSEWHERE for job in jobs)
        return AudioState.WAITS if elsewhere else AudioState.KEPT
    return AudioState.WAITS


def transcript_entry(job: JobRecord) -> dict[str, object]:
    """Say in a call's JSON how the transcript of one of its files stands."""
    stored = job.stored
    return {
        "audio": split_bucket(job.planned.key)[1],
        "id": job.current if stored is None else stored.transcript_id,
        "status": job.status,
        "reason": job.reason,
        "model": None if stored is None else stored.model,
        "objects": [
            {
                "key": split_bucket(each.key)[1],
                "bytes": each.size,
                "sha256": each.sha256,
            }
            for each in (() if stored is None else stored.objects)
        ],
    }


def _gaps(record: CallRecord) -> list[dict[str, object]]:
    gaps = record.timeline().gaps
    before = accumulate((gap.length_samples for gap in gaps), initial=0)
    return [
        {
            "kind": gap.kind,
            "start": _seconds(gap.offset_samples + passed),
            "length": _seconds(gap.length_samples),
            "startSamples": gap.offset_samples + passed,
            "lengthSamples": gap.length_samples,
            "storedSamplesBefore": gap.offset_samples,
            **_asker(record, gap),
        }
        for gap, passed in zip(gaps, before, strict=False)
    ]


def _asker(record: CallRecord, gap: Gap) -> dict[str, str | None]:
    """Say who on our side asked for a gap, if anybody did."""
    fact = record.askers.get(gap.offset_samples)
    if fact is None or gap.kind is not GapKind.PAUSED:
        return {}
    return {"by": fact.by, "reason": fact.reason}


def _controls(record: CallRecord) -> list[dict[str, object]]:
    timeline = record.timeline()
    start = timeline.start_samples

    def position(control: ControlFact) -> int:
        offset = control.offset_samples
        if control.action == "pause" and offset:
            # Where the audio stops, and not where it goes on.
            return timeline.position_at(offset - 1) + 1 - start
        return timeline.position_at(offset) - start

    return [
        {
            "action": each.action,
            "by": each.by,
            "reason": each.reason,
            "at": each.at,
            "position": _seconds(position(each)),
        }
        for each in record.controls
    ]


def _language_changes(record: CallRecord) -> list[dict[str, object]]:
    timeline = record.timeline()
    return [
        {
            "language": change.language,
            "at": _seconds(
                timeline.position_at(change.offset_samples) - timeline.start_samples
            ),
        }
        for change in record.languages
    ]
