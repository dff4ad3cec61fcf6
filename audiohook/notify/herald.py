"""What is said of calls to whoever wants to know.

Ids and keys, states and times; no names and no numbers, unless the operator wants
them to be said.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from audiohook.notify.event import Kind
from audiohook.recording.journal import is_uuid
from audiohook.recording.transcripts import JobStatus
from audiohook.storage.layout import split_bucket, summary_key, summary_key_of

if TYPE_CHECKING:
    from audiohook.notify.outbox import Outbox
    from audiohook.recording.record import CallRecord
    from audiohook.recording.transcripts import JobRecord

# Source: RFC 5646, "Syntax"; what could be a name is no tag.
_LANGUAGE_TAG: Final = re.compile(r"[A-Za-z0-9]{1,8}(?:-[A-Za-z0-9]{1,8}){0,8}")
_NAME: Final = re.compile(r"[^_]+_([0-9a-f-]{36})_([0-9a-f-]{36})(?:_[0-9]{1,3})?")
_NIL: Final = "00000000-0000-0000-0000-000000000000"
# Source: ITU-T E.164 and E.123; a SIP address is longer.
_LONGEST_TEXT: Final = 256


class CallHerald:
    """Puts into the outbox what becomes of calls, see `audiohook.recording.herald`.

    Args:
        outbox: Where it goes.
        with_participants: Whether numbers and names are said.
    """

    def __init__(self, outbox: Outbox, *, with_participants: bool = False) -> None:
        self._outbox = outbox
        self._with_participants = with_participants

    def opened(self, record: CallRecord) -> None:
        """Note that a call is being recorded."""
        opened = record.opened
        self._outbox.note(
            Kind.OPENED,
            conversation=opened.conversation_id,
            session=opened.session_id,
            at=opened.started_at,
            data={
                **self._call(record),
                "continuedSessionIds": [
                    each.id for each in opened.continued_sessions if is_uuid(each.id)
                ],
            },
        )

    async def stored(self, record: CallRecord) -> None:
        """Note that all audio of a call is stored; return once that is on disk."""
        opened, closed, planned = record.opened, record.closed, record.planned
        if closed is None or planned is None:
            return
        summary = summary_key(planned)
        await self._outbox.record(
            Kind.STORED,
            conversation=opened.conversation_id,
            session=opened.session_id,
            about=planned.name,
            data={
                **self._call(record),
                "endedAt": closed.ended_at,
                "ended": closed.reason,
                "complete": closed.complete,
                "seconds": round(
                    closed.stored_bytes / record.frame_bytes / opened.media.rate, 3
                ),
                "summary": shown_key(summary),
                "files": [
                    {
                        "key": shown_key(each.key),
                        "bytes": each.size,
                        "sha256": each.sha256,
                    }
                    for each in record.stored.values()
                    # It changes with the transcripts.
                    if each.key != summary
                ],
                "transcripts": [
                    {"audio": shown_key(key), "status": str(job.status)}
                    for key, job in record.jobs.items()
                ],
            },
        )

    async def transcribed(self, record: CallRecord, job: JobRecord) -> None:
        """Note that a job of a call is at its end; return once that is on disk."""
        opened = record.opened
        await self._settled(opened.conversation_id, opened.session_id, job)

    async def transcribed_elsewhere(self, job: JobRecord) -> None:
        """Note the same of a call of which only its files are known.

        Their names have the conversation, but not the session.
        """
        name = PurePosixPath(summary_key_of(job.planned.key)).parent.name
        match = _NAME.fullmatch(name)
        conversation = "" if match is None or match[1] == _NIL else match[1]
        await self._settled(conversation, "", job)

    async def _settled(self, conversation: str, session: str, job: JobRecord) -> None:
        kind = {
            JobStatus.COMPLETED: Kind.TRANSCRIBED,
            JobStatus.FAILED: Kind.FAILED,
        }.get(job.status)
        if kind is None:
            return
        key, stored = job.planned.key, job.stored
        transcript = stored.transcript_id if stored else (job.ids or ["-"])[-1]
        data: dict[str, object] = {
            "summary": shown_key(summary_key_of(key)),
            "audio": shown_key(key),
            "transcriptId": None if transcript == "-" else transcript,
            "status": str(job.status),
        }
        if kind is Kind.FAILED:
            data |= {"what": "transcript", "reason": (job.reason or "")[:_LONGEST_TEXT]}
        else:
            data["files"] = [
                {"key": shown_key(each.key), "bytes": each.size, "sha256": each.sha256}
                for each in (stored.objects if stored else ())
            ]
        await self._outbox.record(
            kind,
            conversation=conversation,
            session=session,
            about=f"{key}\n{transcript}",
            data=data,
        )

    def _call(self, record: CallRecord) -> dict[str, object]:
        """Say what is known of a call from its beginning."""
        opened = record.opened
        language = opened.language or ""
        said: dict[str, object] = {
            "organizationId": _uuid(opened.organization_id),
            "correlationId": _uuid(opened.correlation_id),
            "participantId": _uuid(opened.participant.id),
            "startedAt": opened.started_at,
            "language": language if _LANGUAGE_TAG.fullmatch(language) else None,
            "channels": list(opened.media.channels),
        }
        if self._with_participants:
            party = opened.participant
            said["participant"] = {
                "ani": party.ani[:_LONGEST_TEXT],
                "aniName": party.ani_name[:_LONGEST_TEXT],
                "dnis": party.dnis[:_LONGEST_TEXT],
            }
        return said


def shown_key(key: str) -> str:
    """Write a key as others may read it: one in a bucket of its own says which."""
    bucket, rest = split_bucket(key)
    return rest if bucket is None else f"s3://{bucket}/{rest}"


def _uuid(text: str) -> str | None:
    return text if is_uuid(text.lower()) else None
