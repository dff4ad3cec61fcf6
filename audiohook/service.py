"""The service: one root nursery that owns everything, from start to drain.

From the inside out there are three nurseries, so that each can stop while the
next goes on: the doors (listening sockets), the calls, and the foundation
(pump, spool, deliveries) that calls stand on.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import trio

from audiohook.admin.figures import Lookout
from audiohook.admin.guard import hosts_for
from audiohook.admin.pages import make_app
from audiohook.admin.server import AdminServer
from audiohook.admission import Admission, TurnedAway
from audiohook.allow_list import AllowList
from audiohook.api.missed import Missed
from audiohook.api.room import BASE, make_room
from audiohook.api.surroundings import Surroundings as ApiSurroundings
from audiohook.api.tokens import Tokens
from audiohook.authentication import Authenticator
from audiohook.backlog import Backlog
from audiohook.call import SEAL_DEADLINE
from audiohook.call_settings import Chooser
from audiohook.call_surroundings import Surroundings
from audiohook.desk import CallDesk
from audiohook.doors import Doors
from audiohook.erasing import Places, make_erasing
from audiohook.erasure.holdings import ServiceHoldings
from audiohook.errors import ErasureError, SpoolError
from audiohook.facing import make_page
from audiohook.file_limit import handshakes_within, raise_file_limit
from audiohook.first_look import FirstLook
from audiohook.glance import Glance
from audiohook.heartbeat import Heartbeat, Vitals
from audiohook.ingest.listener import HandshakeLimits, Listener
from audiohook.ingest.pump import Pump
from audiohook.key_ring import KeyRing
from audiohook.logs import Limiter
from audiohook.metrics import Metrics
from audiohook.missed.ledger import EVENTS_FOLDER, EventLedger
from audiohook.notifying import make_notifying
from audiohook.protocol.messages import DisconnectReason
from audiohook.recording.dialogue import Keep
from audiohook.recording.elsewhere import look_elsewhere
from audiohook.recording.herald import Nobody
from audiohook.recovery import adopt
from audiohook.reload import Reloader, configured_tokens
from audiohook.retention.keeper import Retention
from audiohook.retention.terms import keeps_of
from audiohook.storage.folder import FolderStore
from audiohook.storage.s3 import S3Store
from audiohook.storing import SPOOL_FOLDER, make_deliveries, make_index, make_storage
from audiohook.systemd import ADMIN_SOCKETS, SERVICE_SOCKETS, Notifier
from audiohook.transcribing import make_transcribing
from audiohook.web.surroundings import Surroundings as WebSurroundings

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from audiohook.index.keeper import IndexStatistics
    from audiohook.ingest.pump import PumpStatistics
    from audiohook.keys import KeyRecord
    from audiohook.networks import Address
    from audiohook.notify.sender import NotificationStatistics
    from audiohook.recording.spool import SpoolStatistics
    from audiohook.recording.spooled import SpooledCall
    from audiohook.settings import Settings
    from audiohook.storage.delivery import DeliveryStatistics
    from audiohook.transcription.scheduler import (
        Transcriptions,
        TranscriptionStatistics,
    )

SECONDS = 1.0

# Not `sys.stdin`, which is missing if whoever started us has closed it.
_STANDARD_INPUT = 0
# After ``disconnect`` a client closes within 10 s or not at all.
_GOODBYE_DEADLINE = 12 * SECONDS
# What is not stored by then is stored by the next start.
_SETTLE_DEADLINE = 30 * SECONDS
# Requests that cost money are better not cut off.
_LAST_REQUESTS_DEADLINE = 5 * SECONDS
# What is not told by then is told by the next start.
_LAST_WORDS_DEADLINE = 5 * SECONDS
# How often leftovers of other processes are looked for, and when there are more.
_ADOPT_INTERVAL = 60 * SECONDS
_ADOPT_SOON = 1 * SECONDS


@dataclass(frozen=True, slots=True)
class Standing:
    """How the service stands: what is known without counting anything.

    Attributes:
        handshakes: Connections that have not asked for anything yet.
        draining: Whether the service is about to stop.
        can_record: Whether the disk takes new calls.
        refusal: Why no new call is welcome, for whatever reason; None if it is.
        pump: The ingest pass.
    """

    handshakes: int
    draining: bool
    can_record: bool
    refusal: str | None
    pump: PumpStatistics


@dataclass(frozen=True, slots=True)
class ServiceStatistics(Standing):
    """How the service does: how it stands, and more.

    Attributes:
        live: Sessions that are open.
        spool: Calls on the local disk.
        deliveries: Calls on their way to the store.
        store_fault: Why the store is not used but for trials, or has not answered
            since the start; None if neither is so.
        transcriptions: Calls that wait for their transcripts; None if transcription
            is off.
        index: What recordings are found by.
        notifications: Who is told what becomes of calls; None if nobody is.
    """

    live: int
    spool: SpoolStatistics
    deliveries: DeliveryStatistics
    store_fault: str | None
    transcriptions: TranscriptionStatistics | None
    index: IndexStatistics
    notifications: NotificationStatistics | None


class Service:
    """All of it.

    Args:
        settings: What the operator chose.
        keys: API keys and what goes with them.
        log: Where lines go.
        clock: Unix time in seconds.
        read_settings: Finds the settings anew, for `reload`. It may block, and raise
            `ConfigError`.
        notifier: Reaches the service manager, if there is one.
        inherited: Listening sockets that the service manager has handed over, see
            `audiohook.systemd.inherited_sockets`.

    Attributes:
        metrics: What it counts.
        desk: Where its calls come in.
        index: What recordings are found by.
        admin_port: The other port, for health and metrics; 0 until it is open.

    Raises:
        ConfigError: The certificate, its key or the file of tokens cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        keys: Mapping[str, KeyRecord],
        *,
        log: FilteringBoundLogger,
        clock: Callable[[], float] = time.time,
        read_settings: Callable[[], Settings] | None = None,
        notifier: Notifier | None = None,
        inherited: Mapping[str, Sequence[socket.socket]] | None = None,
    ) -> None:
        self._settings = settings
        self._log = log
        self._draining = False
        self._stop_wanted = trio.Event()
        self._stopped = trio.Event()
        self._standing: list[trio.CancelScope] = []
        self.metrics = Metrics()
        self._noise = Limiter(log)
        self._pump = Pump(settings.ingest_interval, late=self.metrics.pump_lag.observe)
        self._spool, self._store, uploader = make_storage(settings, self._keys_now)
        self.index = make_index(settings, self._store, self._keys_now, log=log)
        uploader.noted = self.index.note
        self._notifying = make_notifying(
            settings, metrics=self.metrics, log=log, clock=clock
        )
        self._herald = Nobody() if self._notifying is None else self._notifying.herald
        uploader.herald = self._herald
        self._transcribing = make_transcribing(
            settings,
            spool=self._spool,
            store=self._store,
            metrics=self.metrics,
            log=log,
            noted=self.index.note,
            herald=self._herald,
        )
        self._deliveries = make_deliveries(
            uploader, self._transcribing, metrics=self.metrics, log=log
        )
        self._first_look = FirstLook(
            self._store,
            settings.s3_key_prefix,
            has_stored=lambda: self._deliveries.statistics().stored > 0,
            log=log,
        )
        self._told_of_untranscribed = False
        self._admission = Admission(
            calls_per_key=settings.max_calls_per_key,
            new_calls_per_key=settings.new_calls_per_key,
        )
        authenticator = Authenticator(keys)
        self._keys = KeyRing(settings, keys, authenticator, log=log)
        tokens = Tokens(configured_tokens(settings))
        self._reloader = Reloader(
            settings,
            read_settings or (lambda: settings),
            keys=self._keys,
            tokens=tokens,
            log=log,
        )
        self.desk = CallDesk(
            Surroundings(
                authenticator=authenticator,
                pump=self._pump,
                spool=self._spool,
                metrics=self.metrics,
                log=log,
                noise=self._noise,
                refusal=self._refuse_call,
                opened=self._opened,
                sealed=self._deliveries.add,
                admission=self._admission,
                choose=Chooser(settings).choose,
                look_again=self._keys.look_again,
                clock=clock,
                keep_dialogue=Keep(settings.keep_dialogue),
            )
        )
        self._allow_list = AllowList(settings, log=log)
        self._listener = Listener(
            self.desk.take,
            pump=self._pump,
            healthy=lambda: self._refusal() is None,
            refused=lambda reason: self.metrics.refused.labels(reason).inc(),
            limits=HandshakeLimits(
                in_flight=handshakes_within(settings.max_handshakes)
            ),
            tls_context=self._reloader.tls_context,
            origins=self._allow_list.origins(self._note_refused_origin),
            post_desk=None
            if self._transcribing is None
            else self._transcribing.webhooks,
        )
        sockets = inherited or {}
        self._doors = Doors(settings, sockets.get(SERVICE_SOCKETS, ()), log=log)
        self._heartbeat = Heartbeat(
            notifier or Notifier(),
            self._vitals,
            log=log,
            longest_drain=settings.drain_timeout
            + _GOODBYE_DEADLINE
            + SEAL_DEADLINE
            + _SETTLE_DEADLINE
            + _LAST_REQUESTS_DEADLINE
            + _LAST_WORDS_DEADLINE,
        )
        self._erasing = make_erasing(
            settings,
            store=self._store,
            index=self.index,
            log=log,
            keys=self._keys.all_keys,
            holdings=ServiceHoldings(
                desk=self.desk,
                spool=self._spool,
                deliveries=self._deliveries,
                jobs=self._jobs,
            ),
            spool=self._spool,
            outbox=None if self._notifying is None else self._notifying.outbox,
            clock=clock,
        )
        self._retention = Retention(
            self._store,
            lambda: keeps_of(settings, authenticator.records().values()),
            place=Places(settings, self._store, authenticator.records).at,
            index=self.index,
            spool=self._spool_folder,
            log=log,
            clock=clock,
        )
        self._admin = self._make_admin(
            tokens, sockets.get(ADMIN_SOCKETS, ()), clock=clock
        )
        self.admin_port = 0

    def _make_admin(
        self,
        tokens: Tokens,
        inherited: Sequence[socket.socket],
        *,
        clock: Callable[[], float],
    ) -> AdminServer:
        """Makes the other port, with all that is to be seen and asked there.

        Args:
            tokens: Those of the API.
            inherited: Listening sockets for it that the service manager has handed
                over.
            clock: Unix time in seconds.
        """
        settings = self._settings
        api = make_room(
            ApiSurroundings(
                live=self.desk.live_calls,
                spooled=self._spool.records,
                index=self.index,
                store=self._store,
                prefix=settings.s3_key_prefix,
                spool=self._spool_folder,
                base=BASE,
                log=self._log,
                eraser=self._erasing.eraser,
            ),
            tokens,
            missed=Missed(
                EventLedger(self._spool_folder / EVENTS_FOLDER),
                self.index,
                waiting=self._waiting_conversations,
                metrics=self.metrics,
                log=self._log,
                clock=clock,
            ),
            log=self._log,
        )
        lookout = Lookout(self, self._spool_folder, clock=clock)
        glance = Glance(self.desk, self.metrics, self.standing, clock=clock)
        backlog = Backlog(
            self._deliveries, self._jobs, lookout, store_fault=self._store_fault
        )
        page = make_page(
            settings,
            WebSurroundings(
                live=glance.look,
                find_live=glance.find,
                waiting=backlog.look,
                retry=backlog.retry,
                index=self.index,
                store=self._store,
                prefix=settings.s3_key_prefix,
                log=self._log,
                clock=clock,
            ),
            inherited,
            log=self._log,
        )
        return AdminServer(
            make_app(
                self,
                spool=self._spool_folder,
                hosts=hosts_for(settings.admin_host),
                rooms=[api, *page],
                lookout=lookout,
                clock=clock,
            ),
            host=settings.admin_host,
            port=settings.admin_port,
            inherited=inherited,
            tls=self._reloader.admin_tls_context(),
            log=self._log,
        )

    @property
    def _spool_folder(self) -> Path:
        return self._settings.recordings_dir / SPOOL_FOLDER

    @property
    def _jobs(self) -> Transcriptions | None:
        """What sees to transcripts; None if transcription is off."""
        return None if self._transcribing is None else self._transcribing.jobs

    def statistics(self) -> ServiceStatistics:
        """Returns how the service does."""
        return ServiceStatistics(
            live=len(self.desk),
            handshakes=self._listener.handshakes_in_flight,
            draining=self._draining,
            can_record=self._spool.can_record,
            refusal=self._refusal(),
            pump=self._pump.statistics(),
            spool=self._spool.statistics(),
            deliveries=self._deliveries.statistics(),
            store_fault=self._store_fault(),
            transcriptions=None if self._jobs is None else self._jobs.statistics(),
            index=self.index.statistics(),
            notifications=None
            if self._notifying is None
            else self._notifying.sender.statistics(),
        )

    def standing(self) -> Standing:
        """Returns how the service stands; cheaper than `statistics`."""
        return Standing(
            handshakes=self._listener.handshakes_in_flight,
            draining=self._draining,
            can_record=self._spool.can_record,
            refusal=self._refusal(),
            pump=self._pump.statistics(),
        )

    def stop(self) -> None:
        """Begins to drain: no new calls, and live ones have a limited time."""
        self._stop_wanted.set()

    def hurry(self) -> None:
        """Leaves to the next start what cannot be sealed within two seconds."""
        self.desk.hurry()

    async def reload(self) -> None:
        """Reads keys, certificate and log level anew; live calls do not notice."""
        self._heartbeat.reloading()
        done = await self._reloader.reload()
        self._heartbeat.reloaded(failed=not done)

    async def wait_stopped(self) -> None:
        """Waits until the service has drained and ended."""
        await self._stopped.wait()

    async def run(
        self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Runs until `stop`, and drains.

        Args:
            task_status: Told the port once calls are taken.

        Raises:
            ConfigError: An address cannot be listened on.
            SpoolError: The spool cannot be used.

        *Cancellation:* Live calls are sealed as far as they came, see `hurry`; what
        is not stored is left to the next start.
        """
        raise_file_limit(self._settings.max_calls)
        async with trio.open_nursery() as foundation:
            try:
                works = [
                    self._keys.run,
                    self._allow_list.run,
                    *self._notifiers(),
                    partial(self._spool.run, ahead=self._settings.spool_places),
                    self._pump.run,
                    self._deliveries.run,
                    self.desk.watch,
                    self.index.run,
                    self._erasing.eraser.run,
                ]
                if self._jobs is not None:
                    works.append(self._jobs.run)
                for work in works:
                    await foundation.start(self._stand, work)
                self.admin_port = await foundation.start(self._admin.run)
                await foundation.start(self._stand, self._heartbeat.run)
                foundation.start_soon(self._adopt_leftovers)
                foundation.start_soon(self._retention.run)
                if isinstance(self._store, FolderStore):
                    foundation.start_soon(self._store.sweep)
                else:
                    foundation.start_soon(self._first_look.run)
                await self._serve_calls(task_status)
                with trio.move_on_after(_SETTLE_DEADLINE):
                    await self._deliveries.wait_settled()
                if self._jobs is not None:
                    with trio.move_on_after(_LAST_REQUESTS_DEADLINE):
                        await self._jobs.stop()
                if self._notifying is not None:
                    with trio.move_on_after(_LAST_WORDS_DEADLINE):
                        await self._notifying.settle()
            finally:
                for scope in self._standing:
                    scope.cancel()
                foundation.cancel_scope.cancel()
                if self._transcribing is not None:
                    await self._transcribing.aclose()
                await self._erasing.aclose()
                if self._notifying is not None:
                    await self._notifying.aclose()
        if isinstance(self._store, S3Store):
            self._store.close()
        self._noise.flush()
        self._stopped.set()

    def _store_fault(self) -> str | None:
        return self._deliveries.statistics().fault or self._first_look.fault

    def _keys_now(self) -> Mapping[str, KeyRecord]:
        return self._keys.keys

    async def _waiting_conversations(self) -> set[str]:
        """Which conversations are live, or wait to be stored, here or beside us."""
        records = self._spool.records()
        own = {record.opened.session_id for record in records}
        others = await trio.to_thread.run_sync(look_elsewhere, self._spool_folder, own)
        here = {record.opened.conversation_id.lower() for record in records}
        return here | {each.lower() for each in others}

    def _notifiers(self) -> list[Callable[..., Awaitable[None]]]:
        if self._notifying is None:
            return []
        return [self._notifying.outbox.run, self._notifying.sender.run]

    def _opened(self, call: SpooledCall, settled_bytes: Callable[[], int]) -> None:
        """Takes note of a call that has begun."""
        self._deliveries.watch(call, settled_bytes)
        self._herald.opened(call.record)

    async def _stand(
        self,
        work: Callable[..., Awaitable[None]],
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        """Keeps a part of the foundation up until the last call is sealed.

        A cancelled call seals its recording on its way out, which takes the pump
        and the spool. They are shielded from that cancellation, and cancelled on
        their own once all calls are gone; each call has a deadline for that.
        """
        with trio.CancelScope(shield=True) as scope:
            self._standing.append(scope)
            await work(task_status=task_status)

    async def _serve_calls(self, task_status: trio.TaskStatus[int]) -> None:
        async with trio.open_nursery() as calls:
            async with trio.open_nursery() as doors:
                await self._doors.open()
                await doors.start(
                    lambda task_status: self._listener.serve(
                        self._doors.listeners,
                        handler_nursery=calls,
                        sweep=self._doors.sweeps,
                        task_status=task_status,
                    )
                )
                if not self._spool.can_record:
                    self._log.error(
                        "cannot_record",
                        error="the spool's disk refuses, or has less room than"
                        " SPOOL_LOW_WATER_MIB; calls are turned away meanwhile",
                    )
                self._heartbeat.ready()
                task_status.started(self._doors.port)
                await self._stop_wanted.wait()
                self._heartbeat.stopping()
                if not self._doors.hands_over:
                    await self._drain()
                doors.cancel_scope.cancel()
            if self._doors.hands_over:
                # Who has come in stays; the others come to whoever listens now.
                await self._listener.wait_no_handshakes()
                await self._drain()
            calls.cancel_scope.cancel()

    async def _drain(self) -> None:
        """Lets live calls go on for a while, then asks their peers to close."""
        self._draining = True
        self._log.info("draining", live=len(self.desk))
        with trio.move_on_after(self._settings.drain_timeout):
            await self.desk.wait_none_live()
        with trio.move_on_after(_GOODBYE_DEADLINE):
            self.desk.disconnect_all(DisconnectReason.COMPLETED, "Service stops")
            await self.desk.wait_none_live()

    async def _adopt_leftovers(self) -> None:
        """Takes over what other processes left in the spool, now and later.

        Another instance that shares the folder may die at any time; and what was
        too much to wait in memory comes back this way as well.
        """
        while True:
            more = False
            try:
                more = await adopt(
                    self._spool,
                    self._deliveries,
                    self._transcribing,
                    self._herald,
                    self._erasing.latecomers,
                )
            except (SpoolError, ErasureError) as error:
                self._log.error("cannot_adopt", error=str(error))
            self._tell_of_untranscribed()
            await trio.sleep(_ADOPT_SOON if more else _ADOPT_INTERVAL)

    def _tell_of_untranscribed(self) -> None:
        """Says once that calls wait for transcripts which nobody makes."""
        calls = self._spool.passed_over_delivered
        if calls and self._transcribing is None and not self._told_of_untranscribed:
            self._told_of_untranscribed = True
            self._log.warning(
                "transcripts_wait_for_key",
                calls=calls,
                mend="set ASSEMBLYAI_API_KEY again; they stay in the spool until then",
            )

    def _note_refused_origin(self, why: str, whose: Address | None) -> None:
        self._noise.write(
            logging.WARNING,
            "connection_refused",
            reason=why,
            client=None if whose is None else str(whose),
        )

    def _vitals(self) -> Vitals:
        pump, deliveries = self._pump.statistics(), self._deliveries.statistics()
        return Vitals(
            live=len(self.desk),
            backlog=deliveries.waiting + deliveries.active,
            lanes=pump.lanes,
            passes=pump.passes,
            can_record=self._spool.can_record,
            store_fails=self._store_fault() is not None,
        )

    def _refusal(self) -> TurnedAway | None:
        """Why a call that came now would not be taken; None if it would be."""
        most = self._settings.max_calls
        if self._draining:
            return TurnedAway.DRAINING
        if most is not None and self._admission.live >= most:
            return TurnedAway.MAX_CALLS
        return None if self._spool.can_record else TurnedAway.DISK

    def _refuse_call(self) -> TurnedAway | None:
        """Why a call that is there, and counted, is not taken; None if it is."""
        most = self._settings.max_calls
        # Who came before the doors were closed is welcome: nobody else has it.
        if self._draining and not self._doors.hands_over:
            return TurnedAway.DRAINING
        if most is not None and self._admission.live > most:
            return TurnedAway.MAX_CALLS
        return None if self._spool.can_record else TurnedAway.DISK


async def serve(service: Service, started: Callable[[int], None]) -> None:
    """Runs a service until SIGTERM or SIGINT; the second one stops it at once.

    SIGHUP has settings read anew, unless it says that the terminal is gone.

    Args:
        service: What to run.
        started: Told the port once calls are taken.
    """
    in_terminal = os.isatty(_STANDARD_INPUT)
    wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    with trio.open_signal_receiver(*wanted) as signals:
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                stops = 0
                async for number in signals:
                    hung_up = in_terminal and not os.isatty(_STANDARD_INPUT)
                    if number == signal.SIGHUP and not hung_up:
                        nursery.start_soon(service.reload)
                        continue
                    stops += 1
                    if stops == 1:
                        service.stop()
                    else:
                        service.hurry()
                        nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            started(await nursery.start(service.run))
            await service.wait_stopped()
            nursery.cancel_scope.cancel()
