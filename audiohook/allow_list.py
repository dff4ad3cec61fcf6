"""The networks that may connect, as the settings and a file have them now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from audiohook.errors import ConfigError, in_one_line
from audiohook.ingest.origin import Origins
from audiohook.networks import Networks, read_networks_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

    from audiohook.networks import Address
    from audiohook.settings import Settings

SECONDS = 1.0

_INTERVAL: Final = 2 * SECONDS
# A file that is being written makes no sense for a moment; so often in a row does.
_TELL_AFTER: Final = 2


class AllowList:
    """Knows who may connect.

    Args:
        settings: Name networks, a file of them, or neither.
        log: Where lines go.

    Raises:
        ConfigError: The file cannot be used.
    """

    def __init__(self, settings: Settings, *, log: FilteringBoundLogger) -> None:
        self._settings = settings
        self._path = settings.allow_from_file
        self._log = log
        # A disk that hangs keeps nobody else waiting.
        self._threads = trio.CapacityLimiter(1)
        self._faults, self._told = 0, ""
        self._from_file: Networks | None = None
        if self._path is not None:
            try:
                self._from_file = read_networks_file(self._path)
            except ValueError as error:
                raise ConfigError(self._fault(error)) from None

    def origins(self, told: Callable[[str, Address | None], None]) -> Origins:
        """Returns what lets in who may.

        Args:
            told: See `Origins`.
        """
        return Origins(
            admits=self.admits,
            trusted=self._settings.trusted_proxies,
            proxy_protocol=self._settings.proxy_protocol is not None,
            told=told,
        )

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Reads the file again when it changes, until cancelled."""
        task_status.started()
        if self._path is None:
            await trio.sleep_forever()
        while True:
            await trio.sleep(_INTERVAL)
            await self.look()

    async def look(self) -> None:
        """Reads the file; what makes no sense leaves all as it was."""
        assert self._path is not None
        try:
            found = await trio.to_thread.run_sync(
                read_networks_file,
                self._path,
                abandon_on_cancel=True,
                limiter=self._threads,
            )
        except ValueError as error:
            self._faults += 1
            text = self._fault(error)
            if self._faults >= _TELL_AFTER and self._told != text:
                self._told = text
                self._log.error("networks_not_read", error=text)
            return
        self._faults, self._told = 0, ""
        if found != self._from_file:
            self._from_file = found
            self._log.info("networks_changed", networks=len(found))

    def admits(self, address: Address) -> bool:
        """Tells whether an address may connect."""
        lists = (self._settings.allow_from, self._from_file)
        given = [each for each in lists if each is not None]
        return not given or any(address in each for each in given)

    def _fault(self, error: ValueError) -> str:
        assert self._path is not None
        return (
            f"ALLOW_FROM_FILE: {in_one_line(self._path)} {error}; for example a line"
            " 198.51.100.0/24"
        )
