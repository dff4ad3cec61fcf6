"""A sealed call becomes objects in the store, once, however often it is tried.

What is to be stored is written into the call's journal first, then each object
that the store has confirmed. So any process can go on where another was stopped,
with the settings of the first, and makes the same bytes.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from audiohook.errors import KeyExistsError, SpoolError, UploadError
from audiohook.protocol.timeline import SAMPLE_RATE_HZ
from audiohook.recording.journal import Done, Planned, Stored, is_uuid
from audiohook.recording.render import renderings
from audiohook.storage.base import BytesBlob

if TYPE_CHECKING:
    from collections.abc import Mapping

    from audiohook.recording.journal import CallRecord, ClosedFact, Opened
    from audiohook.recording.render import Gaps, Layout, Rendering
    from audiohook.recording.spool import Spool, SpooledCall
    from audiohook.recording.wav import Encoding
    from audiohook.storage.base import Blob, Store, StoredObject

SCHEMA_VERSION: Final = 1

_NIL: Final = "00000000-0000-0000-0000-000000000000"
# Sessions of one conversation and participant that began in one millisecond.
_NAMES_LIMIT: Final = 100
# Source: Amazon S3 User Guide, "Working with object metadata": 2 KB for all.
_METADATA_LIMIT: Final = 120
_NOT_PLAIN: Final = re.compile(r"[^ -~]")
# At the end of a name; no UUID ends in so few digits after an underscore.
_NUMBER: Final = re.compile(r"_([0-9]{1,3})\Z")


class Uploader:
    """Brings calls to the store; one call at a time may be tried by one task.

    Args:
        store: Where they go.
        spool: Where they are.
        prefix: What all keys begin with, such as ``calls/``.
        encoding: How the WAV is encoded.
        layout: What becomes of two channels.
        gaps: What becomes of gaps.
        keep_raw: Whether the audio as received is stored beside the WAV.
    """

    def __init__(
        self,
        store: Store,
        spool: Spool,
        *,
        prefix: str,
        encoding: Encoding,
        layout: Layout,
        gaps: Gaps,
        keep_raw: bool,
    ) -> None:
        self._store = store
        self._spool = spool
        self._prefix = prefix
        self._encoding = encoding
        self._layout = layout
        self._gaps = gaps
        self._keep_raw = keep_raw

    async def finish(self, call: SpooledCall) -> None:
        """Store all of a call and remove it from the spool.

        Args:
            call: Sealed. Whatever an earlier attempt has done is not done again.

        Raises:
            UploadError: The store did not do as asked; try again later.
            SpoolError: The local disk did not do as asked, or the call is not
                sealed.

        *Cancellation:* The next attempt goes on from there.
        """
        if call.record.closed is None:
            raise SpoolError(f"call {call.folder.name} is not sealed")
        if not call.record.done:
            await self._store_all(call)
            # On disk before anything is deleted, or a crash could leave a call
            # without audio that looks as if it had never been stored.
            await self._spool.commit(call, Done())
        await self._spool.remove(call)

    async def _store_all(self, call: SpooledCall) -> None:
        plan = call.record.planned
        if plan is None:
            plan = await self._plan(call, recording_name(call.record.opened))
        while True:
            try:
                await self._store_objects(call, plan)
            except KeyExistsError as exc:
                name = _next_name(plan.name)
                if name is None:
                    raise UploadError(f"no free name for {plan.name}") from exc
                plan = await self._plan(call, name)
            else:
                return

    async def _plan(self, call: SpooledCall, name: str) -> Planned:
        """Write down what is to be stored; settings of a first plan are kept."""
        if call.record.planned is not None:
            plan = replace(call.record.planned, name=name)
        else:
            plan = Planned(
                name=name,
                prefix=self._prefix,
                encoding=self._encoding,
                layout=self._layout,
                gaps=self._gaps,
                keep_raw=self._keep_raw,
            )
        await self._spool.commit(call, plan)
        return plan

    async def _store_objects(self, call: SpooledCall, plan: Planned) -> None:
        wavs = _wavs(call, plan)
        folder, name = f"{plan.prefix}{plan.name}", plan.name
        about = _metadata(call.record, _duration(wavs))
        about_wav = {**about, "converted": "true", "original-file": f"{name}.raw"}
        objects = [
            await self._store_blob(
                call, f"{folder}/audio/{name}{suffix}.wav", wav, about_wav
            )
            for suffix, wav in wavs.items()
        ]
        if plan.keep_raw:
            key = f"{folder}/audio/{name}.raw"
            objects.append(await self._store_blob(call, key, call, about))
        # Last, so that where it is, all the rest is.
        key = f"{folder}/call.json"
        if key not in call.record.stored:
            summary = summarize(call.record, wavs, plan, objects)
            await self._store_summary(call, key, summary, about)

    async def _store_blob(
        self, call: SpooledCall, key: str, blob: Blob, metadata: Mapping[str, str]
    ) -> Stored:
        known = call.record.stored.get(key)
        if known is not None:
            return known
        confirmed = await self._store.put(
            key, blob, metadata=metadata, token=call.record.opened.session_id
        )
        return self._note(call, confirmed)

    async def _store_summary(
        self, call: SpooledCall, key: str, summary: bytes, metadata: Mapping[str, str]
    ) -> None:
        """Store the JSON; one of this session may be replaced, no other."""
        blob, token = BytesBlob(summary), call.record.opened.session_id
        try:
            confirmed = await self._store.put(key, blob, metadata=metadata, token=token)
        except KeyExistsError:
            if _session_of(await self._store.read(key)) != token:
                raise
            confirmed = await self._store.replace(
                key, blob, metadata=metadata, token=token
            )
        self._note(call, confirmed)

    def _note(self, call: SpooledCall, confirmed: StoredObject) -> Stored:
        stored = Stored(confirmed.key, confirmed.size, confirmed.sha256)
        self._spool.append(call, stored)
        return stored


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
    wavs: Mapping[str, Rendering],
    plan: Planned,
    objects: list[Stored],
) -> bytes:
    """Make a call's JSON. It depends on the journal alone, to the last byte.

    Times within the call are seconds since its first sample, gaps included,
    whether or not the WAV has them cut out.

    Args:
        record: The call, closed.
        wavs: Its WAV files, by what is added to their names.
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
        "objects": [
            {"key": each.key, "bytes": each.size, "sha256": each.sha256}
            for each in objects
        ],
        "continuedSessions": [
            {"id": each.id, "serverseq": each.serverseq, "clientseq": each.clientseq}
            for each in opened.continued_sessions
        ],
    }
    try:
        return (json.dumps(summary, indent=2, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:
        # Half a surrogate pair, which JSON can carry only as an escape.
        return (json.dumps(summary, indent=2) + "\n").encode()


def _closed(record: CallRecord) -> ClosedFact:
    if record.closed is None:
        raise ValueError("the call is not closed")
    return record.closed


def _seconds(samples: int) -> float:
    return samples / SAMPLE_RATE_HZ


def _duration(wavs: Mapping[str, Rendering]) -> float:
    """Seconds of a call's files, which are all of one length."""
    return _seconds(next(iter(wavs.values())).frames)


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
        }
        for gap, passed in zip(gaps, before, strict=False)
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


def _wavs(call: SpooledCall, plan: Planned) -> dict[str, Rendering]:
    return renderings(
        call,
        call.record.timeline(),
        channel_names=call.record.opened.media.channels,
        encoding=plan.encoding,
        layout=plan.layout,
        gaps=plan.gaps,
    )


def _metadata(record: CallRecord, duration: float) -> dict[str, str]:
    """Describe a call in the names that users of buckets know.

    Metadata is ASCII and short; what does not fit is in the call's JSON, whole.
    Source: AssemblyAI's guide for Genesys Cloud, `server.js`.
    """
    opened = record.opened
    values = {
        "session-id": opened.session_id,
        "conversation-id": opened.conversation_id,
        "participant-id": opened.participant.id,
        "ani": opened.participant.ani,
        "dnis": opened.participant.dnis,
        "audio-format": opened.media.format,
        "sample-rate": str(opened.media.rate),
        "channels": ",".join(opened.media.channels),
        "language": opened.language or "",
        "duration-seconds": str(duration),
        "start-time": opened.started_at,
        "bytes": str(_closed(record).stored_bytes),
    }
    return {
        name: _NOT_PLAIN.sub("?", value)[:_METADATA_LIMIT].strip() or "unknown"
        for name, value in values.items()
    }


def _next_name(name: str) -> str | None:
    """Give a name the next number; ``None`` after the last."""
    match = _NUMBER.search(name)
    number = 2 if match is None else int(match[1]) + 1
    if number > _NAMES_LIMIT:
        return None
    return f"{_NUMBER.sub('', name)}_{number}"


def _session_of(summary: bytes | None) -> object:
    """Whose a call's JSON is; ``None`` if it is none that we know."""
    try:
        value = json.loads(summary or b"null")
    except (ValueError, RecursionError):
        return None
    return value.get("sessionId") if isinstance(value, dict) else None
