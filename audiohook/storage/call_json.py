"""The JSON of a call in the store, kept true as its transcripts come."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from audiohook.errors import KeyExistsError, SpoolError
from audiohook.recording.journal import Stored
from audiohook.storage.base import BytesBlob
from audiohook.storage.layout import raw_key, summary_key, wav_files
from audiohook.storage.summary import metadata, session_of, summarize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from audiohook.recording.journal import Planned
    from audiohook.recording.render import Rendering
    from audiohook.recording.spool import Spool
    from audiohook.recording.spooled import SpooledCall
    from audiohook.storage.base import Store


async def update(store: Store, spool: Spool, call: SpooledCall) -> None:
    """Bring the JSON of a call up to date, once all of its audio is stored.

    Args:
        store: Where it goes.
        spool: Where the call is.
        call: Delivered.

    Raises:
        UploadError: The store did not do as asked; try again later.
        SpoolError: The call was given up, or its audio is not in the store.
    """
    record, plan = call.record, call.record.planned
    if plan is None:
        raise SpoolError(f"call {call.folder.name} is not planned")
    wavs = wav_files(record, call, record.timeline(), plan)
    keys = [*wavs, raw_key(plan)] if plan.keep_raw else list(wavs)
    try:
        objects = [record.stored[key] for key in keys]
    except KeyError as exc:
        raise SpoolError(f"call {call.folder.name}: {exc} is not stored") from exc
    await write(store, spool, call, plan, list(wavs.values()), objects)


async def write(
    store: Store,
    spool: Spool,
    call: SpooledCall,
    plan: Planned,
    wavs: Sequence[Rendering],
    objects: Sequence[Stored],
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
    return True
