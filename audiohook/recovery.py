"""Finishing what other processes left in the spool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from audiohook.erasure.holdings import Latecomers
from audiohook.file_limit import raise_file_limit
from audiohook.key_ring import keys_to_store_by
from audiohook.metrics import Metrics
from audiohook.notifying import make_herald, make_outbox
from audiohook.storing import make_deliveries, make_ledger, make_storage
from audiohook.transcribing import make_transcribing

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from audiohook.recording.herald import Herald
    from audiohook.recording.spool import Spool
    from audiohook.settings import Settings
    from audiohook.storage.delivery import Deliveries
    from audiohook.transcribing import Transcribing

SECONDS = 1.0
MINUTES = 60 * SECONDS

# How long `recover` waits for transcripts once all calls are stored.
_RECOVER_DEADLINE = 30 * MINUTES
# Most calls of each kind that are taken over at a time.
_ADOPT_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Recovered:
    """What `recover` has done.

    Attributes:
        stored: Calls that were stored.
        waiting: Calls that could not be stored.
        transcribed: Files of which the transcript was stored.
        untranscribed: Calls that are stored and still wait for transcripts.
    """

    stored: int
    waiting: int
    transcribed: int
    untranscribed: int


async def recover(settings: Settings, *, log: FilteringBoundLogger) -> Recovered:
    """Finishes what earlier processes left in the spool, without serving.

    Calls that another process holds are left to it. All calls are stored first.
    Transcripts are then waited for, for half an hour at most, and not at all for
    what somebody has to mend first.

    Returns:
        What was done, and what is left in the spool.

    Raises:
        SpoolError: The spool cannot be used.
        ConfigError: The file of API keys cannot be used.
    """
    keys = await keys_to_store_by(settings, log=log)
    spool, store, uploader = make_storage(settings, lambda: keys)
    raise_file_limit(settings.max_calls)
    metrics = Metrics()
    outbox = make_outbox(settings, log=log)
    herald = make_herald(settings, outbox)
    uploader.herald = herald
    transcribing = make_transcribing(
        settings, spool=spool, store=store, metrics=metrics, log=log, herald=herald
    )
    deliveries = make_deliveries(uploader, transcribing, metrics=metrics, log=log)
    latecomers = Latecomers(make_ledger(settings), spool, log=log)
    async with trio.open_nursery() as nursery:
        if outbox is not None:
            await nursery.start(outbox.run)
        await nursery.start(spool.run)
        await nursery.start(deliveries.run)
        if transcribing is not None:
            await nursery.start(transcribing.jobs.run)
        more = True
        while more:
            more = await adopt(spool, deliveries, transcribing, herald, latecomers)
            await deliveries.wait_settled()
        done = deliveries.statistics()
        transcribed, untranscribed = 0, spool.passed_over_delivered
        if transcribing is not None:
            with trio.move_on_after(_RECOVER_DEADLINE):
                await transcribing.jobs.wait_settled()
            jobs = transcribing.jobs.statistics()
            transcribed, untranscribed = jobs.completed, untranscribed + jobs.calls
        nursery.cancel_scope.cancel()
    if transcribing is not None:
        await transcribing.aclose()
    return Recovered(done.stored, done.waiting, transcribed, untranscribed)


async def adopt(
    spool: Spool,
    deliveries: Deliveries,
    transcribing: Transcribing | None,
    herald: Herald,
    latecomers: Latecomers,
) -> bool:
    """Takes over calls that nobody holds any more, as many as there is room for.

    Args:
        spool: Where they are.
        deliveries: Takes those that are to be stored.
        transcribing: Takes those that wait for their transcripts.
        herald: Told that they were opened: who recorded them may have died before
            that was on disk.
        latecomers: Removes those that were to be erased.

    Returns:
        Whether it is worth looking for more at once.

    Raises:
        SpoolError: The spool cannot be read.
        ErasureError: Nobody can tell which of them were to be erased.
    """
    room = min(_ADOPT_LIMIT, deliveries.room)
    jobs_room = 0 if transcribing is None else min(_ADOPT_LIMIT, transcribing.jobs.room)
    if not room and not jobs_room:
        return False
    found = await spool.adopt(limit=room, delivered_limit=jobs_room)
    delivered = [call for call in found if call.record.delivered]
    for call in await latecomers.turn_away(found):
        if not call.record.delivered:
            herald.opened(call.record)
            deliveries.add(call)
        elif transcribing is not None:
            transcribing.jobs.add(call)
    return (0 < room == len(found) - len(delivered)) or (
        0 < jobs_room == len(delivered)
    )
