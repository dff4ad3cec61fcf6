"""The JSON of a call in the store, kept true as its transcripts come.

The process that recorded the call makes it anew from the journal. Whoever has the
call transcribed elsewhere changes what it says of one transcript, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Final, TypeAlias

from audiohook.errors import KeyExistsError, SpoolError, UploadError
from audiohook.recording.journal import Stored
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
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from audiohook.recording.journal import Planned
    from audiohook.recording.render import Rendering
    from audiohook.recording.spool import Spool
    from audiohook.recording.spooled import SpooledCall
    from audiohook.recording.transcripts import JobRecord
    from audiohook.storage.base import Store, VersionedStore

# How often others may be faster with a change of theirs.
_TRIES: Final = 10


Noted: TypeAlias = "Callable[[str, bytes], None]"
"""Told where the JSON of a call is in the store, and what it says."""


def _not_noted(_key: str, _summary: bytes) -> None:
    """Leaves it at that."""


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
    if known is not None and known.sha256 == hashlib.sha256(summary).hexdigest():
        noted(key, summary)
        return False
    blob, about = BytesBlob(summary), metadata(record, wavs)
    if known is not None:
        stored = await store.replace(key, blob, metadata=about, token=token)
    else:
        try:
            stored = await store.put(key, blob, metadata=about, token=token)
        except KeyExistsError:
            # One of this session may be replaced, no other.
            if session_of(await store.read(key)) != token:
                raise
            stored = await store.replace(key, blob, metadata=about, token=token)
    spool.append(call, Stored(stored.key, stored.size, stored.sha256))
    noted(key, summary)
    return True


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
    key = summary_key_of(job.planned.key)
    for _ in range(_TRIES):
        found = await store.fetch(key)
        if found is None:
            return False
        told = _with_entry(found.data, transcript_entry(job))
        if told is None:
            return False
        if told == found.data:
            return True
        try:
            await store.swap(key, told, found.tag, metadata=found.metadata)
        except KeyExistsError:
            continue
        return True
    raise UploadError(f"{key} changes too often")


async def tell_deleted(store: VersionedStore, wav_key: str) -> None:
    """Have the JSON of a call say that one of its files was deleted.

    Args:
        store: Where the call is.
        wav_key: That file.

    Raises:
        UploadError: The store did not do as asked; try again later.
    """
    key = summary_key_of(wav_key)
    for _ in range(_TRIES):
        found = await store.fetch(key)
        told = None if found is None else _without_audio(found.data, wav_key)
        if found is None or told is None or told == found.data:
            return
        try:
            await store.swap(key, told, found.tag, metadata=found.metadata)
        except KeyExistsError:
            continue
        return
    raise UploadError(f"{key} changes too often")


def _without_audio(summary: bytes, wav_key: str) -> bytes | None:
    """Mark a file as deleted; None if the JSON is none of ours."""
    try:
        value = json.loads(summary)
    except (ValueError, RecursionError):
        return None
    objects = value.get("objects") if isinstance(value, dict) else None
    if not isinstance(objects, list):
        return None
    _, plain = split_bucket(wav_key)
    waves = [
        each
        for each in objects
        if isinstance(each, dict) and str(each.get("key")).endswith(".wav")
    ]
    for each in waves:
        if each["key"] == plain:
            each["deleted"] = True
    if all(each.get("deleted") for each in waves):
        value["audio"] = AudioState.DELETED
    return _written(value)


def _written(value: object) -> bytes:
    try:
        return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:
        # Half a surrogate pair, which JSON can carry only as an escape.
        return (json.dumps(value, indent=2) + "\n").encode()


def _with_entry(summary: bytes, entry: dict[str, object]) -> bytes | None:
    """Put an entry in place of that on the same file; None if there is none."""
    try:
        value = json.loads(summary)
    except (ValueError, RecursionError):
        return None
    entries = value.get("transcripts") if isinstance(value, dict) else None
    if not isinstance(entries, list):
        return None
    for number, each in enumerate(entries):
        if isinstance(each, dict) and each.get("audio") == entry["audio"]:
            entries[number] = entry
            break
    else:
        return None
    return _written(value)
