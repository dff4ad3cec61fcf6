"""The ports that calls come in by, and whose they are while the service stops.

A port of its own stays open to the end, so that whoever comes is told to try again.
One that others listen on too is left to them at once: no new call comes here, and
none is refused anywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from audiohook.errors import ConfigError
from audiohook.ingest.listener import adopt_listeners, listen_fault, open_listeners

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    import trio
    from structlog.typing import FilteringBoundLogger

    from audiohook.settings import Settings


class Doors:
    """Listening sockets, opened as the settings say or taken over.

    Args:
        settings: Which address, and whether others share it.
        inherited: Sockets that the service manager has opened and keeps; if there
            are any, the settings' address is not used.
        log: Where lines go.

    Attributes:
        listeners: The sockets; whoever serves them closes them.
    """

    def __init__(
        self,
        settings: Settings,
        inherited: Sequence[socket.socket],
        *,
        log: FilteringBoundLogger,
    ) -> None:
        self._settings = settings
        self._inherited = inherited
        self._log = log
        self.listeners: list[trio.SocketListener] = []

    @property
    def hands_over(self) -> bool:
        """Whether somebody else takes, or will take, who comes after we stop."""
        return bool(self._inherited) or self._settings.reuse_port

    @property
    def sweeps(self) -> bool:
        """Whether connections that nobody has accepted would be lost with us.

        The kernel deals connections out to those that share a port before they are
        accepted. An inherited socket has one queue, which stays.
        """
        return self._settings.reuse_port and not self._inherited

    @property
    def port(self) -> int:
        """The port of the first of them."""
        port: int = self.listeners[0].socket.getsockname()[1]
        return port

    async def open(self) -> None:
        """Opens them.

        Raises:
            ConfigError: The address cannot be listened on.
        """
        settings = self._settings
        if self._inherited:
            self.listeners = adopt_listeners(self._inherited)
        else:
            try:
                self.listeners = await open_listeners(
                    settings.port, settings.host, share=settings.reuse_port
                )
            except OSError as error:
                raise ConfigError(
                    listen_fault(error, settings.port, names=("HOST", "PORT"))
                ) from error
        host = "inherited" if self._inherited else settings.host or "all interfaces"
        self._log.info(
            "listening",
            host=host,
            port=self.port,
            tls=settings.tls_certificate is not None,
        )
