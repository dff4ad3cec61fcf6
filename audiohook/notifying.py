"""Notifications, put together from what the operator chose."""

from __future__ import annotations

import contextlib
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from audiohook.errors import OutboxError
from audiohook.notify.event import Kind
from audiohook.notify.herald import CallHerald
from audiohook.notify.outbox import OUTBOX_FOLDER, Outbox
from audiohook.notify.receiver import Receiver, make_client
from audiohook.notify.sender import PARALLEL, Sender
from audiohook.recording.herald import Nobody
from audiohook.setting_values import decode_notify_secrets
from audiohook.storing import SPOOL_FOLDER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    import httpx
    from structlog.typing import FilteringBoundLogger

    from audiohook.metrics import Metrics
    from audiohook.recording.herald import Herald
    from audiohook.settings import Settings

SECONDS = 1.0
_GOODBYE_DEADLINE: Final = 2 * SECONDS
# What is not told by then is told by the next process.
_LAST_WORDS_DEADLINE: Final = 5 * SECONDS

FOLDER_SOURCE: Final = "/audiohook/recordings"
"""Source of events whose keys are paths in the folder of recordings."""


@dataclass(frozen=True, slots=True)
class Notifying:
    """Notifications in this process.

    Attributes:
        outbox: Keeps what is to be told.
        herald: Is told what becomes of calls.
        sender: Sends it.
        receiver: Whom it is sent to.
        http: What it is sent by.
    """

    outbox: Outbox
    herald: Herald
    sender: Sender
    receiver: Receiver
    http: httpx.AsyncClient

    async def settle(self) -> None:
        """Waits until all is sent that can be sent now."""
        with contextlib.suppress(OutboxError):
            await self.outbox.flush()
            await self.sender.wait_settled()

    async def aclose(self) -> None:
        """Closes connections."""
        with trio.move_on_after(_GOODBYE_DEADLINE, shield=True):
            await self.http.aclose()


def outbox_folder(settings: Settings) -> Path:
    """Returns where the outbox is."""
    return settings.recordings_dir / SPOOL_FOLDER / OUTBOX_FOLDER


def make_outbox(
    settings: Settings,
    *,
    log: FilteringBoundLogger,
    clock: Callable[[], float] = time.time,
) -> Outbox | None:
    """Makes what keeps notifications; None if nobody wants any."""
    if settings.notify_url is None:
        return None
    bucket = settings.s3_bucket
    return Outbox(
        outbox_folder(settings),
        source=FOLDER_SOURCE if bucket is None else f"s3://{bucket}",
        kinds=[Kind(each) for each in settings.notify_kinds],
        log=log,
        clock=clock,
    )


def make_herald(settings: Settings, outbox: Outbox | None) -> Herald:
    """Makes what is told what becomes of calls."""
    if outbox is None:
        return Nobody()
    return CallHerald(outbox, with_participants=settings.notify_participants)


def make_notifying(
    settings: Settings,
    *,
    metrics: Metrics,
    log: FilteringBoundLogger,
    clock: Callable[[], float] = time.time,
) -> Notifying | None:
    """Makes what tells of calls; None if nobody wants to know."""
    outbox = make_outbox(settings, log=log, clock=clock)
    if outbox is None or settings.notify_url is None:
        return None
    url = settings.notify_url.get_secret_value()
    http = make_client(url, connections=PARALLEL)
    receiver = Receiver(url, notify_secrets(settings), http, clock=clock)
    herald = make_herald(settings, outbox)
    sender = Sender(outbox, receiver, metrics=metrics, log=log)
    return Notifying(outbox, herald, sender, receiver, http)


@asynccontextmanager
async def telling(
    settings: Settings, *, metrics: Metrics, log: FilteringBoundLogger
) -> AsyncIterator[Herald]:
    """Tells of calls while the block lasts, and a little longer if need be.

    Yields:
        Who is told what becomes of calls.
    """
    made = make_notifying(settings, metrics=metrics, log=log)
    if made is None:
        yield Nobody()
        return
    async with trio.open_nursery() as nursery:
        await nursery.start(made.outbox.run)
        await nursery.start(made.sender.run)
        try:
            yield made.herald
            with trio.move_on_after(_LAST_WORDS_DEADLINE):
                await made.settle()
        finally:
            nursery.cancel_scope.cancel()
            await made.aclose()


def notify_secrets(settings: Settings) -> list[bytes]:
    """Returns what notifications are signed with."""
    secret = settings.notify_secret
    return [] if secret is None else decode_notify_secrets(secret.get_secret_value())
