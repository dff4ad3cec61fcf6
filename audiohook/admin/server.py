"""The admin port: Hypercorn with a bound on what it can do to the calls.

It runs in the same event loop as they do. Whatever happens to it is logged, and it
is started anew; the calls go on.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
from typing import TYPE_CHECKING, Final, cast

import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from audiohook.errors import ConfigError
from audiohook.hosts import is_loopback
from audiohook.ingest.listener import adopt_listeners, listen_fault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypercorn.typing import ASGIFramework
    from starlette.types import ASGIApp
    from structlog.typing import FilteringBoundLogger

SECONDS = 1.0
KIB = 1024

# What a client may leave unread before its connection is dropped. Hypercorn shields
# its sending from cancellation, so nothing but the kernel can end it.
_UNREAD: Final = 3 * SECONDS
# A request's head, and what comes between two requests, take no longer.
_IDLE: Final = 5 * SECONDS
# Nor does a client that has said nothing for so long keep its connection, not even
# while it is being answered.
_SILENT: Final = 60 * SECONDS
# What an answer gets when the port closes.
_GRACE: Final = 1 * SECONDS
_RESTART_PAUSE: Final = 1 * SECONDS
_LONGEST_HEAD: Final = 16 * KIB
_STREAMS: Final = 8


class AdminServer:
    """Serves an application to whoever watches the service.

    Args:
        app: What is served.
        host: Address to listen on.
        port: Port; 0 takes any that is free.
        log: For lines about the port.
        inherited: Listening sockets to use instead, which are owned from now on.
        tls: What TLS is spoken by; None if it is not.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        host: str,
        port: int,
        log: FilteringBoundLogger,
        inherited: Sequence[socket.socket] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._app = app
        self._host = host
        self._port = port
        self._log = log
        self._inherited = inherited
        self._tls = tls

    async def run(
        self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serves until cancelled.

        Args:
            task_status: Told the port once it is open.

        Raises:
            ConfigError: The address cannot be listened on.

        *Cancellation:* What is being answered gets a second to be sent.
        """
        try:
            listeners = adopt_listeners(
                self._inherited
            ) or await trio.open_tcp_listeners(self._port, host=self._host)
        except OSError as error:
            raise ConfigError(
                listen_fault(error, self._port, names=("ADMIN_HOST", "ADMIN_PORT"))
            ) from error
        sockets = [listener.socket for listener in listeners]
        try:
            for each in sockets:
                # What is accepted inherits it.
                each.setsockopt(
                    socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(_UNREAD * 1000)
                )
            port: int = sockets[0].getsockname()[1]
            if not is_loopback(self._host) and not self._asks_for_certificates():
                self._log.warning(
                    "admin_port_exposed",
                    host=self._host,
                    port=port,
                    open_to_all="/health /ready /stats /metrics",
                    mend="let a firewall decide who reaches it",
                )
            self._log.info(
                "admin_listening",
                host=self._host,
                port=port,
                **({} if self._tls is None else {"tls": True}),
            )
            task_status.started(port)
            await self._serve_for_ever(sockets)
        finally:
            for each in sockets:
                each.close()

    def _asks_for_certificates(self) -> bool:
        return self._tls is not None and self._tls.verify_mode is ssl.CERT_REQUIRED

    async def _serve_for_ever(self, sockets: Sequence[trio.socket.SocketType]) -> None:
        while True:
            try:
                await self._serve(sockets)
            except* Exception:  # noqa: BLE001 - the edge: the calls must not notice
                self._log.exception("admin_port_failed")
            await trio.sleep(_RESTART_PAUSE)

    async def _serve(self, sockets: Sequence[trio.socket.SocketType]) -> None:
        """Runs Hypercorn, and ends it in its own way when we are cancelled.

        If it is cancelled in the middle it leaves sockets open.
        """
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_set_when_cancelled, stop)
            with trio.CancelScope(shield=True):
                # Each library has types of its own for the same protocol.
                app = cast("ASGIFramework", self._app)
                await serve(
                    app, _config(sockets, self._tls), shutdown_trigger=stop.wait
                )
            nursery.cancel_scope.cancel()


async def _set_when_cancelled(stop: trio.Event) -> None:
    try:
        await trio.sleep_forever()
    finally:
        stop.set()


class _Config(Config):
    """Takes TLS as we have it, in place of files."""

    tls: ssl.SSLContext | None = None

    @property
    def ssl_enabled(self) -> bool:
        """Whether TLS is spoken."""
        return self.tls is not None

    def create_ssl_context(self) -> ssl.SSLContext | None:
        """Returns what it is spoken by."""
        return self.tls


def _config(
    sockets: Sequence[trio.socket.SocketType], tls: ssl.SSLContext | None
) -> Config:
    config = _Config()
    config.tls = tls
    # Copies, which it closes; so it can be started again, and on the same port.
    config.bind = [f"fd://{os.dup(each.fileno())}" for each in sockets]
    # Heard from WARNING on, in our handler; it would make one of its own.
    config.errorlog = logging.getLogger("hypercorn.error")
    config.accesslog = None
    config.include_server_header = False
    config.h11_max_incomplete_size = _LONGEST_HEAD
    config.h2_max_header_list_size = _LONGEST_HEAD
    config.h2_max_concurrent_streams = _STREAMS
    config.keep_alive_timeout = _IDLE
    # It takes what `trio.fail_after` does.
    config.read_timeout = cast("int", _SILENT)
    config.graceful_timeout = _GRACE
    config.shutdown_timeout = _GRACE
    return config
