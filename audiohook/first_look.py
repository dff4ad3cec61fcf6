"""Whether the store answers at all, looked at after the start.

A wrong bucket or region would otherwise show when the first call is to be stored,
and that may be next Monday. It is one request, for an object that is not there; the
start does not wait for it, and nothing depends on what comes of it.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import trio

from audiohook.errors import UploadError
from audiohook.storage.policy import CHECK_NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

    from audiohook.storage.base import Store

SECONDS = 1.0
MINUTES = 60 * SECONDS

# Until it is looked at again: this, then longer.
_FIRST_PAUSE: Final = 5 * SECONDS
_LONGEST_PAUSE: Final = 10 * MINUTES


class FirstLook:
    """Asks a store until it has answered once.

    Args:
        store: What is asked.
        prefix: What keys begin with that may be asked for.
        has_stored: Tells whether it has stored a call by now, which answers as well.
        log: For what an operator must see.
        jitter: Returns numbers from 0 up to 1.

    Attributes:
        fault: Why it has not answered yet, and how that is mended; None if it has,
            or was not asked yet.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        *,
        has_stored: Callable[[], bool],
        log: FilteringBoundLogger,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.fault: str | None = None
        self._store = store
        # Whoever may store and read is told of it that it is not there.
        self._key = f"{prefix}{CHECK_NAME}none"
        self._has_stored = has_stored
        self._log = log
        self._jitter = jitter

    async def run(self) -> None:
        """Asks with growing pauses until the store answers, or until cancelled.

        There is a line in the log for each new reason, not for each try.

        *Cancellation:* A request may be under way; it changes nothing.
        """
        pause = _FIRST_PAUSE
        while (fault := await self._look()) is not None:
            if fault != self.fault:
                self.fault = fault
                self._log.warning("store_not_ready", error=fault)
            await trio.sleep(pause * (0.5 + self._jitter() / 2))
            pause = min(2 * pause, _LONGEST_PAUSE)
        if self.fault is not None:
            self.fault = None
            self._log.info("store_ready")

    async def _look(self) -> str | None:
        """Ask once; return why there was no answer."""
        if self._has_stored():
            return None
        try:
            await self._store.read(self._key)
        except UploadError as error:
            return str(error)
        except Exception:  # noqa: BLE001 - the edge: it must not cost a call
            self._log.exception("store_not_ready")
            return "unexpected failure: see the log"
        return None
