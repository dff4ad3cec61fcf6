"""The service: one root nursery that owns everything, from start to drain.

From the inside out there are three nurseries, so that each can stop while the
next goes on: the doors (listening sockets), the calls, and the foundation
(pump, spool, deliveries) that calls stand on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from audiohook.authentication import Authenticator
from audiohook.call import Surroundings
from audiohook.desk import CallDesk
from audiohook.errors import ConfigError, SpoolError
from audiohook.ingest.listener import Listener
from audiohook.ingest.pump import Pump
from audiohook.logs import Limiter
from audiohook.metrics import Metrics
from audiohook.protocol.messages import DisconnectReason
from audiohook.recording.render import Gaps, Layout
from audiohook.recording.spool import Spool
from audiohook.recording.wav import Encoding
from audiohook.storage.delivery import Deliveries
from audiohook.storage.folder import FolderStore
from audiohook.storage.s3 import S3Store
from audiohook.storage.s3_client import S3Options
from audiohook.storage.upload import Uploader

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from structlog.typing import FilteringBoundLogger

    from audiohook.ingest.pump import PumpStatistics
    from audiohook.settings import Settings
    from audiohook.storage.delivery import DeliveryStatistics

SECONDS = 1.0
MIB = 1024 * 1024

SPOOL_FOLDER = ".spool"

# Below this much room no new call is taken: an hour of 10 calls, and what the
# live ones still need.
_LOW_WATER_BYTES = 512 * MIB
# After ``disconnect`` a client closes within 10 s or not at all.
_GOODBYE_DEADLINE = 12 * SECONDS
# What is not stored by then is stored by the next start.
_SETTLE_DEADLINE = 30 * SECONDS
# How often leftovers of other processes are looked for, and when there are more.
_ADOPT_INTERVAL = 60 * SECONDS
_ADOPT_SOON = 1 * SECONDS
# A call has a socket, its audio and its journal open.
_FILES_PER_CALL = 3
_FILES_BESIDE = 256


@dataclass(frozen=True, slots=True)
class ServiceStatistics:
    """How the service does.

    Attributes:
        live: Sessions that are open.
        handshakes: Connections that have not asked for anything yet.
        draining: Whether new calls are sent away.
        pump: The ingest pass.
        deliveries: Calls on their way to the store.
        spool_free_bytes: Room left for recordings.
    """

    live: int
    handshakes: int
    draining: bool
    pump: PumpStatistics
    deliveries: DeliveryStatistics
    spool_free_bytes: int


class Service:
    """All of it.

    Args:
        settings: What the operator chose.
        keys: API keys and their client secrets.
        log: Where lines go.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        settings: Settings,
        keys: Mapping[str, bytes | None],
        *,
        log: FilteringBoundLogger,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._log = log
        self._draining = False
        self._stop_wanted = trio.Event()
        self._stopped = trio.Event()
        self._standing: list[trio.CancelScope] = []
        self.metrics = Metrics()
        self._noise = Limiter(log)
        self._pump = Pump(settings.ingest_interval)
        self._spool, self._store, uploader = make_storage(settings)
        self._deliveries = Deliveries(uploader, metrics=self.metrics, log=log)
        self._desk = CallDesk(
            Surroundings(
                authenticator=Authenticator(keys),
                pump=self._pump,
                spool=self._spool,
                metrics=self.metrics,
                log=log,
                noise=self._noise,
                refusal=self._refusal,
                opened=self._deliveries.watch,
                sealed=self._deliveries.add,
                clock=clock,
            )
        )
        tls = make_tls_context(settings)
        self._listener = Listener(
            self._desk.take,
            pump=self._pump,
            healthy=lambda: self._refusal() is None,
            refused=lambda reason: self.metrics.refused.labels(reason).inc(),
            tls_context=None if tls is None else lambda: tls,
        )

    def statistics(self) -> ServiceStatistics:
        """Returns how the service does."""
        return ServiceStatistics(
            live=len(self._desk),
            handshakes=self._listener.handshakes_in_flight,
            draining=self._draining,
            pump=self._pump.statistics(),
            deliveries=self._deliveries.statistics(),
            spool_free_bytes=self._spool.free_bytes,
        )

    def stop(self) -> None:
        """Begins to drain: no new calls, and live ones have a limited time."""
        self._stop_wanted.set()

    def hurry(self) -> None:
        """Leaves to the next start what cannot be sealed within two seconds."""
        self._desk.hurry()

    async def wait_stopped(self) -> None:
        """Waits until the service has drained and ended."""
        await self._stopped.wait()

    async def run(
        self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Runs until :meth:`stop`, and drains.

        Args:
            task_status: Told the port once calls are taken.

        Raises:
            ConfigError: The address cannot be listened on.
            SpoolError: The spool cannot be used.

        *Cancellation:* Live calls are sealed as far as they came, see
        :meth:`hurry`; what is not stored is left to the next start.
        """
        raise_file_limit(self._settings.max_calls)
        async with trio.open_nursery() as foundation:
            try:
                for work in (
                    self._spool.run,
                    self._pump.run,
                    self._deliveries.run,
                    self._desk.watch,
                ):
                    await foundation.start(self._stand, work)
                foundation.start_soon(self._adopt_leftovers)
                if isinstance(self._store, FolderStore):
                    foundation.start_soon(self._store.sweep)
                await self._serve_calls(task_status)
                with trio.move_on_after(_SETTLE_DEADLINE):
                    await self._deliveries.wait_settled()
            finally:
                for scope in self._standing:
                    scope.cancel()
                foundation.cancel_scope.cancel()
        if isinstance(self._store, S3Store):
            self._store.close()
        self._noise.flush()
        self._stopped.set()

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
                await self._open_doors(doors, calls, task_status)
                await self._stop_wanted.wait()
                await self._drain()
                doors.cancel_scope.cancel()
            calls.cancel_scope.cancel()

    async def _open_doors(
        self,
        doors: trio.Nursery,
        calls: trio.Nursery,
        task_status: trio.TaskStatus[int],
    ) -> None:
        settings = self._settings
        try:
            listeners = await trio.open_tcp_listeners(settings.port, host=settings.host)
        except OSError as error:
            raise ConfigError(_listen_fault(settings, error)) from error
        await doors.start(
            lambda task_status: self._listener.serve(
                listeners, handler_nursery=calls, task_status=task_status
            )
        )
        port: int = listeners[0].socket.getsockname()[1]
        self._log.info(
            "listening",
            host=settings.host or "all interfaces",
            port=port,
            tls=settings.tls_certificate is not None,
        )
        task_status.started(port)

    async def _drain(self) -> None:
        """Lets live calls go on for a while, then asks their peers to close."""
        self._draining = True
        self._log.info("draining", live=len(self._desk))
        with trio.move_on_after(self._settings.drain_timeout):
            await self._desk.wait_none_live()
        with trio.move_on_after(_GOODBYE_DEADLINE):
            self._desk.disconnect_all(DisconnectReason.COMPLETED, "Service stops")
            await self._desk.wait_none_live()

    async def _adopt_leftovers(self) -> None:
        """Takes over what other processes left in the spool, now and later.

        Another instance that shares the folder may die at any time; and what was
        too much to wait in memory comes back this way as well.
        """
        while True:
            room = self._deliveries.room
            found = []
            if room:
                try:
                    found = await self._spool.adopt(limit=room)
                except SpoolError as error:
                    self._log.error("cannot_adopt", error=str(error))
            for call in found:
                self._deliveries.add(call)
            more = bool(found) and len(found) == room
            await trio.sleep(_ADOPT_SOON if more else _ADOPT_INTERVAL)

    def _refusal(self) -> str | None:
        """Why no new call is welcome, in words for the peer; None if it is."""
        if self._draining:
            return "Service stops"
        most = self._settings.max_calls
        if most is not None and len(self._desk) > most:
            return "Too many calls"
        if not self._spool.can_record:
            return "Cannot record now"
        return None


async def serve(service: Service, started: Callable[[int], None]) -> None:
    """Runs a service until SIGTERM or SIGINT; the second one stops it at once.

    Args:
        service: What to run.
        started: Told the port once calls are taken.
    """
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                received = 0
                async for _ in signals:
                    received += 1
                    if received == 1:
                        service.stop()
                    else:
                        service.hurry()
                        nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            started(await nursery.start(service.run))
            await service.wait_stopped()
            nursery.cancel_scope.cancel()


async def recover(
    settings: Settings, *, log: FilteringBoundLogger
) -> DeliveryStatistics:
    """Finishes what earlier processes left in the spool, without serving.

    Calls that another process holds are left to it.

    Returns:
        What was stored, and what could not be (``waiting``).

    Raises:
        SpoolError: The spool cannot be used.
    """
    spool, _, uploader = make_storage(settings)
    raise_file_limit(settings.max_calls)
    deliveries = Deliveries(uploader, metrics=Metrics(), log=log)
    async with trio.open_nursery() as nursery:
        await nursery.start(spool.run)
        await nursery.start(deliveries.run)
        while room := deliveries.room:
            found = await spool.adopt(limit=room)
            if not found:
                break
            for call in found:
                deliveries.add(call)
            await deliveries.wait_settled()
        nursery.cancel_scope.cancel()
    return deliveries.statistics()


def make_store(settings: Settings) -> FolderStore | S3Store:
    """Makes the store that the settings name: a bucket, or else a folder."""
    if settings.s3_bucket is None:
        return FolderStore(settings.recordings_dir)
    return S3Store(
        settings.s3_bucket,
        options=S3Options(
            encryption=settings.s3_encryption,
            kms_key_id=settings.s3_kms_key_id,
            storage_class=settings.s3_storage_class,
            tags=settings.s3_tags,
        ),
    )


def make_storage(settings: Settings) -> tuple[Spool, FolderStore | S3Store, Uploader]:
    """Makes the spool, the store, and what brings calls from one to the other."""
    spool = Spool(
        settings.recordings_dir / SPOOL_FOLDER, low_water_bytes=_LOW_WATER_BYTES
    )
    store = make_store(settings)
    uploader = Uploader(
        store,
        spool,
        prefix=settings.s3_key_prefix,
        encoding=Encoding(settings.wav_encoding),
        layout=Layout(settings.channel_layout),
        gaps=Gaps(settings.gaps),
        keep_raw=settings.keep_raw,
    )
    return spool, store, uploader


def make_tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Loads the certificate, if there is to be TLS in the process.

    Raises:
        ConfigError: The certificate or its key cannot be used.
    """
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Each call is a connection of its own for hours: tickets would only cost work
    # in a storm, and a client that closes with one unread resets the connection.
    context.num_tickets = 0
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None) or error.strerror or "unusable"
        raise ConfigError(
            f"TLS_CERTIFICATE: cannot be used with TLS_KEY ({reason}); both must be"
            " PEM files, the certificate with its chain, the key without a password"
        ) from error
    return context


def raise_file_limit(max_calls: int | None) -> None:
    """Raises the limit of open files as far as is allowed.

    Args:
        max_calls: Most calls at a time; None if there is no such limit.

    Raises:
        ConfigError: Even so there are too few for so many calls.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if max_calls is None:
        return
    needed = max_calls * _FILES_PER_CALL + _FILES_BESIDE
    if soft != resource.RLIM_INFINITY and soft < needed:
        raise ConfigError(
            f"MAX_CALLS: {max_calls} calls need {needed} open files and the limit is"
            f" {soft}; lower it to {max(1, (soft - _FILES_BESIDE) // _FILES_PER_CALL)}"
            f" or raise LimitNOFILE (ulimit -Hn) to {needed}"
        )


def _listen_fault(settings: Settings, error: OSError) -> str:
    causes = [error, *getattr(error.__cause__, "exceptions", ())]
    numbers = {cause.errno for cause in causes if isinstance(cause, OSError)}
    if errno.EADDRINUSE in numbers:
        return f"PORT: {settings.port} is in use; choose another, such as PORT=3001"
    if errno.EACCES in numbers:
        return (
            f"PORT: {settings.port} may not be listened on without privileges;"
            " choose one above 1023, such as PORT=3000"
        )
    if errno.EADDRNOTAVAIL in numbers:
        return "HOST: is no address of this machine; for example HOST=127.0.0.1"
    text = os.strerror(error.errno) if error.errno else str(error)
    return f"HOST: cannot be listened on ({text}); for example HOST=127.0.0.1"
