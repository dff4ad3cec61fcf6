"""Erasure, put together from what the operator chose."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import trio

from audiohook.erasure.account import Account
from audiohook.erasure.eraser import Eraser
from audiohook.erasure.holdings import Latecomers
from audiohook.erasure.places import Place
from audiohook.missed.ledger import EVENTS_FOLDER, EventLedger
from audiohook.notify.event import Kind
from audiohook.storage.folder import FolderStore
from audiohook.storage.layout import split_bucket
from audiohook.storage.s3_buckets import S3Buckets
from audiohook.storing import SPOOL_FOLDER, make_ledger, places_of
from audiohook.transcription.assemblyai import AssemblyAI, make_client

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import httpx
    from structlog.typing import FilteringBoundLogger

    from audiohook.erasure.eraser import Holdings
    from audiohook.erasure.ledger import ErasureRecord
    from audiohook.erasure.order import Wanted
    from audiohook.erasure.round import IndexHold
    from audiohook.keys import KeyRecord
    from audiohook.notify.outbox import Outbox
    from audiohook.recording.spool import Spool
    from audiohook.settings import Settings
    from audiohook.storage.s3 import S3Store

SECONDS = 1.0
_GOODBYE_DEADLINE = 2 * SECONDS


@dataclass(frozen=True, slots=True)
class Erasing:
    """Erasure in this process.

    Attributes:
        eraser: Carries out orders.
        http: What it sends to the transcription service by; None without a key.
    """

    eraser: Eraser
    http: httpx.AsyncClient | None

    async def aclose(self) -> None:
        """Closes connections."""
        if self.http is not None:
            with trio.move_on_after(_GOODBYE_DEADLINE, shield=True):
                await self.http.aclose()


@dataclass(frozen=True, slots=True)
class ServiceErasing(Erasing):
    """Erasure in the service.

    Attributes:
        latecomers: Tells calls that turn up again.
    """

    latecomers: Latecomers


class OutboxTeller:
    """Has it told by notifications.

    Args:
        outbox: Keeps them.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    async def forget(self, conversation: str) -> None:
        """Tell nobody any more what was to be told of a conversation.

        Raises:
            OutboxError: It could not be done; ask again.
        """
        for each in dict.fromkeys((conversation, conversation.upper())):
            await self._outbox.erase(each)

    async def tell(self, wanted: Wanted, record: ErasureRecord) -> None:
        """Tell that it was erased."""
        await self._outbox.record(
            Kind.ERASED,
            conversation=wanted.conversation,
            session=wanted.session or "",
            about=f"{record.reference} {record.asked_at}",
            at=record.done_at,
            data={"reference": record.reference, "erased": asdict(record.counts)},
        )


class Places:
    """All that recordings may be in, as settings and API keys say now.

    Args:
        settings: What the operator chose.
        store: Where recordings are, in whichever bucket.
        keys: Returns the API keys that are known.
    """

    def __init__(
        self,
        settings: Settings,
        store: FolderStore | S3Store,
        keys: Callable[[], Mapping[str, KeyRecord]],
    ) -> None:
        self._store = store
        self._bucket = settings.s3_bucket
        self._starts = places_of(settings, keys)

    def __call__(self) -> list[Place]:
        """Return them."""
        return [self.at(start) for start in self._starts()]

    def at(self, start: str) -> Place:
        """Return one.

        Args:
            start: What keys there begin with, see `layout.in_bucket`.
        """
        bucket, prefix = split_bucket(start)
        store = self._store
        if isinstance(store, FolderStore):
            return Place("folder", store.traces, prefix, None)
        if isinstance(store, S3Buckets):
            store = store.store_of(bucket)
        name = f"bucket {bucket or self._bucket}"
        return Place(name, store.traces, prefix, bucket)


def make_eraser(
    settings: Settings,
    *,
    store: FolderStore | S3Store,
    index: IndexHold,
    log: FilteringBoundLogger,
    keys: Callable[[], Mapping[str, KeyRecord]],
    holdings: Holdings | None = None,
    outbox: Outbox | None = None,
    clock: Callable[[], float] = time.time,
) -> Erasing:
    """Makes what carries out orders of erasure, in whatever process.

    Args:
        settings: What the operator chose.
        store: Where recordings are.
        index: Has to forget.
        log: For lines that name no conversation.
        keys: Returns the API keys that are known.
        holdings: What this process has in hand, if it is the service.
        outbox: Keeps what is to be told, if anybody wants to know.
        clock: Unix time in seconds.
    """
    http, account = None, None
    if settings.assemblyai_api_key is not None:
        http = make_client(
            settings.assemblyai_base_url, settings.assemblyai_api_key.get_secret_value()
        )
        account = Account(AssemblyAI(http))
    places = Places(settings, store, keys)
    eraser = Eraser(
        make_ledger(settings),
        spool=settings.recordings_dir / SPOOL_FOLDER,
        places=places,
        index=index,
        account=account,
        log=log,
        holdings=holdings,
        teller=None if outbox is None else OutboxTeller(outbox),
        events=EventLedger(settings.recordings_dir / SPOOL_FOLDER / EVENTS_FOLDER),
        clock=clock,
    )
    return Erasing(eraser, http)


def make_erasing(
    settings: Settings,
    *,
    store: FolderStore | S3Store,
    index: IndexHold,
    log: FilteringBoundLogger,
    keys: Callable[[], Mapping[str, KeyRecord]],
    holdings: Holdings,
    spool: Spool,
    outbox: Outbox | None = None,
    clock: Callable[[], float] = time.time,
) -> ServiceErasing:
    """Makes erasure for the service; otherwise as `make_eraser`.

    Args:
        settings: What the operator chose.
        store: Where recordings are.
        index: Has to forget.
        log: For lines that name no conversation.
        keys: Returns the API keys that are known.
        holdings: What this process has in hand.
        spool: Where calls may turn up again.
        outbox: Keeps what is to be told, if anybody wants to know.
        clock: Unix time in seconds.
    """
    made = make_eraser(
        settings,
        store=store,
        index=index,
        log=log,
        keys=keys,
        holdings=holdings,
        outbox=outbox,
        clock=clock,
    )
    latecomers = Latecomers(make_ledger(settings), spool, log=log, clock=clock)
    return ServiceErasing(made.eraser, made.http, latecomers)
