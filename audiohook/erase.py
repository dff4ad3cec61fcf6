"""``audiohook erase``: has calls erased, with a service running or without."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

import trio

from audiohook.erasing import Places, make_eraser
from audiohook.erasure import local
from audiohook.erasure.order import Wanted
from audiohook.erasure.places import Search
from audiohook.errors import ErasureError
from audiohook.key_ring import gather_keys
from audiohook.notifying import make_outbox
from audiohook.recording.journal import utc_text
from audiohook.storage.s3 import S3Store
from audiohook.storing import SPOOL_FOLDER, make_index, make_ledger, make_store

if TYPE_CHECKING:
    from rich.console import Console
    from structlog.typing import FilteringBoundLogger

    from audiohook.erasing import Erasing
    from audiohook.erasure.eraser import Standing
    from audiohook.settings import Settings

SECONDS = 1.0
MINUTES = 60 * SECONDS

DEFAULT_WAIT = 10 * MINUTES
"""How long the command waits, if nobody says otherwise."""

_BY = "the command line"
# It looks done to whoever has mistyped an id.
_NOTHING = (
    "  Nothing was found of it: is the id that of the conversation, and are these the"
    " settings of the service?"
)
# Later than any call, in the year 2242.
_FAR = 2.0**33


@dataclass(frozen=True, slots=True)
class Demand:
    """What somebody wants.

    Attributes:
        conversation: What is to be erased; None for what is under way.
        session: Only this session of it.
        end: Whether a live call is to be ended for it.
        wait: How long to wait, in seconds.
    """

    conversation: str | None
    session: str | None
    end: bool
    wait: float


async def erase(
    settings: Settings, demand: Demand, console: Console, *, log: FilteringBoundLogger
) -> int:
    """Has calls erased, and says what came of it.

    Returns:
        0 if nothing is left, 1 if something is, which is said.

    Raises:
        ErasureError: The call is live, or the disk refused.
        ConfigError: The API keys cannot be read, so nobody knows all buckets.
    """
    keys = await trio.to_thread.run_sync(gather_keys, settings)
    store = make_store(settings, lambda: keys)
    index = make_index(settings, store, lambda: keys, log=log)
    outbox = make_outbox(settings, log=log)
    erasing = make_eraser(
        settings,
        store=store,
        index=index,
        log=log,
        keys=lambda: keys,
        outbox=outbox,
    )
    try:
        async with trio.open_nursery() as nursery:
            if outbox is not None:
                # The service sends what is told.
                await nursery.start(outbox.run)
            left = await _erase(settings, demand, erasing, console)
            nursery.cancel_scope.cancel()
        return left
    finally:
        await erasing.aclose()
        index.close()
        if isinstance(store, S3Store):
            store.close()


async def _erase(
    settings: Settings, demand: Demand, erasing: Erasing, console: Console
) -> int:
    if demand.conversation is None:
        references = make_ledger(settings).pending()
    else:
        references = [await _order(demand, demand.conversation, erasing)]
    left = 0
    for reference in references:
        standing = None
        with trio.move_on_after(demand.wait):
            standing = await erasing.eraser.pursue(reference)
        standing = standing or await erasing.eraser.standing(reference)
        if standing is not None:
            left += not standing.done
            _tell(standing, console)
    if not references:
        console.print("no erasure is under way", markup=False)
    return 1 if left else 0


async def _order(demand: Demand, conversation: str, erasing: Erasing) -> str:
    try:
        return await erasing.eraser.order(
            conversation, demand.session, by=_BY, end=demand.end
        )
    except ErasureError as error:
        if error.live:
            raise ErasureError(
                "the call is live: wait until it is over, or add --end to have it"
                " ended first",
                live=True,
            ) from error
        raise


async def show(settings: Settings, demand: Demand, console: Console) -> int:
    """Says what would be erased, and changes nothing.

    Returns:
        0.

    Raises:
        ErasureError: The spool cannot be read.
        UploadError: The store did not do as asked.
        ConfigError: The API keys cannot be read.
    """
    keys = await trio.to_thread.run_sync(gather_keys, settings)
    store = make_store(settings, lambda: keys)
    try:
        places = Places(settings, store, lambda: keys)
        await _show(settings, demand, places, console)
    finally:
        if isinstance(store, S3Store):
            store.close()
    return 0


async def _show(
    settings: Settings, demand: Demand, places: Places, console: Console
) -> None:
    # Whenever it began.
    wanted = Wanted(demand.conversation or "", demand.session, utc_text(_FAR))
    search = Search(places)
    found = await search.find(wanted)
    spooled = await trio.to_thread.run_sync(
        local.look, settings.recordings_dir / SPOOL_FOLDER, wanted
    )
    things = size_bytes = 0
    for named in found.named:
        place = search.place(named.place)
        assert place is not None
        for each in await place.traces.below(named.folder):
            things, size_bytes = things + 1, size_bytes + each.size
            version = f" (version {each.version})" if each.version else ""
            console.print(
                f"{each.kind} {each.key}{version}, {each.size:,} bytes", markup=False
            )
    for kept in found.doubtful:
        console.print(
            f"{kept.trace.kind} {kept.trace.key}: nobody can tell which session it is"
            " of, so it would stay",
            markup=False,
        )
    for kind, names in (
        ("live call", spooled.live),
        ("call in the spool, in some process's hand", spooled.held),
        ("call in the spool", spooled.free),
    ):
        for name in names:
            things += 1
            console.print(f"{kind}: {name}", markup=False)
    console.print(f"{things} things, {size_bytes:,} bytes", markup=False)
    if not things:
        console.print(_NOTHING, markup=False)


def _tell(standing: Standing, console: Console) -> None:
    counts = standing.counts
    word = "erased" if standing.done else "so far"
    console.print(
        f"{standing.reference[:16]}… {word}: {counts.recordings} recordings"
        f" ({counts.versions} versions of objects, {counts.markers} delete markers,"
        f" {counts.uploads} unfinished uploads), {counts.spooled} calls in the spool,"
        f" {counts.transcripts} transcripts at AssemblyAI, {counts.bytes:,} bytes",
        markup=False,
    )
    if standing.done and not any(astuple(counts)):
        console.print(_NOTHING, markup=False)
    for line in standing.kept:
        console.print(f"  kept: {line}", markup=False)
    if not standing.done:
        console.print(
            f"  waits: {standing.waits_for or 'another process is at it'}", markup=False
        )
        console.print(
            "  The service goes on with it, or `audiohook erase --pending`.",
            markup=False,
        )
