"""What the service has in hand of a call that is to be erased, and gives up."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from audiohook.control import Asker
from audiohook.erasure.local import facts_of
from audiohook.errors import ControlError, ErasureError, SpoolError
from audiohook.recording.journal import utc_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

    from audiohook.call import Call
    from audiohook.desk import CallDesk
    from audiohook.erasure.ledger import Ledger
    from audiohook.erasure.order import OrderFact, Wanted
    from audiohook.recording.spool import Spool
    from audiohook.recording.spooled import SpooledCall
    from audiohook.storage.delivery import Deliveries
    from audiohook.transcription.scheduler import Transcriptions

REASON: Final = "to be erased"
"""Why a live call is ended for it; Genesys does not get to see it."""


class ServiceHoldings:
    """The calls of this process, wherever they wait.

    Args:
        desk: Knows the live ones.
        spool: Has them all.
        deliveries: Has those that wait to be stored.
        jobs: Has those that wait for transcripts, if any do.
    """

    def __init__(
        self,
        *,
        desk: CallDesk,
        spool: Spool,
        deliveries: Deliveries,
        jobs: Transcriptions | None,
    ) -> None:
        self._desk = desk
        self._spool = spool
        self._deliveries = deliveries
        self._jobs = jobs
        self._threads = trio.CapacityLimiter(1)

    async def give_up(
        self, wanted: Wanted, note: Callable[[list[OrderFact]], object], *, end: str
    ) -> None:
        """Give up calls that are meant, and end live ones; see `eraser.Holdings`.

        What is busy at this moment has to be asked for again.

        Raises:
            ErasureError: What is known of a call could not be written down.
        """
        if end:
            async with trio.open_nursery() as nursery:
                for call in self._live(wanted):
                    nursery.start_soon(_end, call, Asker(end, REASON))

        def is_meant(call: SpooledCall) -> bool:
            return wanted.matches(call.record.opened)

        taken = self._deliveries.take_out(is_meant)
        if self._jobs is not None:
            taken += self._jobs.take_out(is_meant)
        await remove(self._spool, taken, note, self._threads)

    def _live(self, wanted: Wanted) -> list[Call]:
        return [
            call
            for call in self._desk.live_calls()
            if call.opened is not None
            and not call.opened.is_probe
            and wanted.is_of(call.opened.parameters.conversation_id, call.session_id)
        ]


async def remove(
    spool: Spool,
    calls: list[SpooledCall],
    note: Callable[[list[OrderFact]], object],
    threads: trio.CapacityLimiter,
) -> None:
    """Remove calls from the spool, once what is known of them is written down.

    Whatever happens, those that are not removed are released, and stay for whoever
    looks next.

    Raises:
        ErasureError: It could not be written down.
    """
    left = list(calls)
    try:
        while left:
            facts = _facts(left[0])
            await trio.to_thread.run_sync(partial(note, facts), limiter=threads)
            # The next look finds it.
            with suppress(SpoolError):
                await spool.remove(left[0])
            left.pop(0).release()
    finally:
        for each in left:
            each.release()


class Latecomers:
    """Tells calls that turn up again although they were to be erased.

    A spool that comes back from a copy of the disk may hold some, or one that
    somebody has moved back from where it was put aside.

    Args:
        ledger: Knows what was to be erased.
        spool: Where calls turn up.
        log: For what an operator must see; nothing in it names a call.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        ledger: Ledger,
        spool: Spool,
        *,
        log: FilteringBoundLogger,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._ledger = ledger
        self._spool = spool
        self._log = log
        self._threads = trio.CapacityLimiter(1)

    async def turn_away(self, calls: list[SpooledCall]) -> list[SpooledCall]:
        """Remove those of some calls that were to be erased.

        Returns:
            The others. One that was to be erased and could not be now is not among
            them: it is released, and the next look finds it.

        Raises:
            ErasureError: Nobody could be asked; all calls are released.
        """

        def find() -> list[SpooledCall]:
            return [
                call
                for call in calls
                if self._ledger.is_erased(
                    call.record.opened.conversation_id,
                    call.record.opened.session_id,
                    call.record.opened.started_at,
                )
            ]

        try:
            erased = await trio.to_thread.run_sync(find, limiter=self._threads)
            for call in erased:
                self._log.warning("erased_call_turned_up_again")
                await self._remove(call)
        except BaseException:
            for call in calls:
                call.release()
            raise
        return [call for call in calls if call not in erased]

    async def _remove(self, call: SpooledCall) -> None:
        opened = call.record.opened
        try:
            # Its jobs may be there again as well, or for the first time.
            await trio.to_thread.run_sync(
                partial(
                    self._ledger.reopen,
                    opened.conversation_id,
                    opened.session_id,
                    utc_text(self._clock()),
                    _facts(call),
                ),
                limiter=self._threads,
            )
            await self._spool.remove(call)
        except (ErasureError, SpoolError) as error:
            # The others must not wait for it.
            self._log.error("erasure_fails", error=str(error))
        finally:
            call.release()


def _facts(call: SpooledCall) -> list[OrderFact]:
    # Once it is delivered, its audio is counted where it is.
    audio_bytes = 0 if call.record.delivered else call.size_bytes
    return facts_of(call.record, audio_bytes)


async def _end(call: Call, asker: Asker) -> None:
    try:
        await call.control.end(asker)
    except ControlError:
        # Not open yet, or over: the next look finds it.
        return
