"""The JSON of a call in the store, kept true as its transcripts come.

The process that recorded the call makes it anew from the journal. Whoever has the
call transcribed elsewhere changes what it says of one transcript, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from audiohook.errors import KeyExistsError, SpoolError, UploadError
from audiohook.recording.journal import Stored
from audiohook.recording.transcripts import JobStatus
from audiohook.storage.base import BytesBlob
from audiohook.storage.layout import (
    dialogue_key,
    peaks_key,
    raw_key,
    split_bucket,
    summary_key,
    summary_key_of,
    wav_files,
)
from audiohook.storage.summary import (
    AudioState,
    metadata,
    session_of,
    summarize,
    transcript_entry,
    written,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from audiohook.recording.journal import Planned
    from audiohook.recording.record import CallRecord
    from audiohook.recording.render import Rendering
    from audiohook.recording.spool import Spool
    from audiohook.recording.spooled import SpooledCall
    from audiohook.recording.transcripts import JobRecord
    from audiohook.storage.base import Store, VersionedStore

# How often others may be faster with a change of theirs.
_TRIES: Final = 10
# How we say that a transcript is not ours to see to, and what they say in its place.
_LEFT: Final = frozenset({JobStatus.ELSEWHERE, JobStatus.OFF, JobStatus.SKIPPED})
_SAID_BY_OTHERS: Final = frozenset(
    {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.PARKED}
)

Noted: TypeAlias = "Callable[[str, bytes], None]"
"""Told where the JSON of a call is in the store, and what it says."""


def _not_noted(_key: str, _summary: bytes) -> None:
    """Leave it at that."""


async def update(
    store: Store, spool: Spool, call: SpooledCall, *, noted: Noted = _not_noted
) -> None:
    """Bring the JSON of a call up to date, once all of its audio is stored.

    Args:
        store: Where it goes.
        spool: Where the call is.
        call: Delivered.
        noted: Told once it is there.

    Raises:
        UploadError: The store did not do as asked; try again later.
        SpoolError: The call was given up, or its audio is not in the store.
    """
    record, plan = call.record, call.record.planned
    if plan is None:
        raise SpoolError(f"call {call.folder.name} is not planned")
    wavs = wav_files(record, call, record.timeline(), plan)
    keys = [*wavs, raw_key(plan)] if plan.keep_raw else list(wavs)
    if plan.keep_peaks:
        keys += [peaks_key(key) for key in wavs]
    if record.texts:
        keys.append(dialogue_key(plan))
    try:
        objects = [record.stored[key] for key in keys]
    except KeyError as exc:
        raise SpoolError(f"call {call.folder.name}: {exc} is not stored") from exc
    await write(store, spool, call, plan, list(wavs.values()), objects, noted=noted)


async def write(
    store: Store,
    spool: Spool,
    call: SpooledCall,
    plan: Planned,
    wavs: Sequence[Rendering],
    objects: Sequence[Stored],
    *,
    noted: Noted = _not_noted,
) -> bool:
    """Store the JSON of a call, unless it is there as it should be.

    It follows from the journal alone, so there is nothing to be noted but what
    the store has confirmed.

    Args:
        store: Where it goes.
        spool: Where the call is.
        call: Sealed.
        plan: How it is stored.
        wavs: Its WAV files.
        objects: What was stored of it.
        noted: Told once it is there, also if it was there before.

    Returns:
        Whether anything had to be stored.

    Raises:
        KeyExistsError: There is the JSON of another call.
        UploadError: The store did not do as asked; try again later.
        SpoolError: The call was given up.
    """
    record = call.record
    summary = summarize(record, wavs, plan, objects)
    key, token = summary_key(plan), record.opened.session_id
    known = record.stored.get(key)
    if known is not None:
        if known.sha256 == hashlib.sha256(summary).hexdigest():
            noted(key, summary)
            return False
        if _is_left_to_others(record):
            # Nothing of ours changes any more: they have said something since.
            return False
    about = metadata(record, wavs)
    write = store.put if known is None else store.replace
    try:
        stored = await write(key, BytesBlob(summary), metadata=about, token=token)
    except KeyExistsError:
        there = await store.read(key)
        # One of this session may be replaced, no other.
        if session_of(there) != token:
            raise
        summary = _with_theirs(summary, there)
        stored = await store.replace(
            key, BytesBlob(summary), metadata=about, token=token
        )
    spool.append(call, Stored(stored.key, stored.size, stored.sha256))
    noted(key, summary)
    return True


def _is_left_to_others(record: CallRecord) -> bool:
    """Tell whether all transcripts of a call are for others to see to."""
    jobs = record.jobs.values()
    return bool(jobs) and all(job.status in _LEFT for job in jobs)


def _with_theirs(summary: bytes, there: bytes | None) -> bytes:
    """Let stand what others have said of transcripts that are left to them.

    The store's answer may be lost for so long that they are done before the same
    JSON is stored again; and they say it once.

    Args:
        summary: What is to be stored.
        there: What is there, of the same session.
    """
    ours, known = _parsed(summary), _parsed(there or b"null")
    told = {
        each.get("audio"): each
        for each in _objects(known, "transcripts")
        if each.get("status") in _SAID_BY_OTHERS
    }
    entries = ours["transcripts"]
    theirs = [
        told.get(each["audio"]) if each["status"] in _LEFT else None for each in entries
    ]
    if not any(theirs):
        return summary
    ours["transcripts"] = [
        mine if other is None else other
        for mine, other in zip(entries, theirs, strict=True)
    ]
    for each in _objects(known, "objects"):
        if each.get("deleted") is True:
            _mark_deleted(ours, str(each.get("key")))
    return written(ours)


async def tell(store: VersionedStore, job: JobRecord) -> bool:
    """Have the JSON of a call say how the transcript of one of its files stands.

    Args:
        store: Where the call is.
        job: Of that file, which the JSON has to name already.

    Returns:
        Whether it says so now; there may be no JSON, or none of ours.

    Raises:
        UploadError: The store did not do as asked; try again later.
    """
    entry = transcript_entry(job)

    def change(summary: dict[str, Any]) -> bool:
        entries = summary.get("transcripts")
        for number, each in enumerate(entries if isinstance(entries, list) else ()):
            if isinstance(each, dict) and each.get("audio") == entry["audio"]:
                summary["transcripts"][number] = entry
                return True
        return False

    return await _change(store, job.planned.key, change)


async def tell_deleted(store: VersionedStore, wav_key: str) -> None:
    """Have the JSON of a call say that one of its files was deleted.

    Args:
        store: Where the call is.
        wav_key: That file.

    Raises:
        UploadError: The store did not do as asked; try again later.
    """
    _, plain = split_bucket(wav_key)
    await _change(store, wav_key, lambda summary: _mark_deleted(summary, plain))


async def _change(
    store: VersionedStore, wav_key: str, change: Callable[[dict[str, Any]], bool]
) -> bool:
    """Change the JSON of a call, if there is any, and undo no change of another's.

    Args:
        store: Where the call is.
        wav_key: One of its files.
        change: Changes the JSON; returns whether it is one of ours.

    Returns:
        What `change` did; False if there is no JSON.

    Raises:
        UploadError: The store did not do as asked.
    """
    key = summary_key_of(wav_key)
    for _ in range(_TRIES):
        found = await store.fetch(key)
        summary = {} if found is None else _parsed(found.data)
        if found is None or not change(summary):
            return False
        told = written(summary)
        if told == found.data:
            return True
        try:
            await store.swap(key, told, found.tag, metadata=found.metadata)
        except KeyExistsError:
            continue
        return True
    raise UploadError(f"{key} changes too often")


def _mark_deleted(summary: dict[str, Any], key: str) -> bool:
    """Mark a WAV file as deleted; False if the JSON is none of ours."""
    if not isinstance(summary.get("objects"), list):
        return False
    waves = [
        each
        for each in _objects(summary, "objects")
        if str(each.get("key")).endswith(".wav")
    ]
    for each in waves:
        if each["key"] == key:
            each["deleted"] = True
    if all(each.get("deleted") for each in waves):
        summary["audio"] = AudioState.DELETED
    return True


def _parsed(summary: bytes) -> dict[str, Any]:
    """Read the JSON of a call; an empty object if it is none."""
    try:
        value = json.loads(summary)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _objects(summary: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the objects in a list of the JSON of a call, whatever else is in it."""
    value = summary.get(name)
    return [
        each
        for each in (value if isinstance(value, list) else ())
        if isinstance(each, dict)
    ]
