"""Empty folders in the spool for calls to come.

To make a folder is what a call's beginning costs most. So those of calls that are done
are kept, and some are made ahead, while the disk has nothing better to do.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

import trio

from audiohook.recording import disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

# Folders are made ahead so many at a time, and after each lot the disk is left alone
# for so many times as long as that took, and so long at least. From none to a
# thousand, a disk that makes one in 0.1 ms has it done in two seconds, and one that
# takes 2 ms in ten. Beside live calls it is a hundredth of a core: the folders of these
# come back when they end.
_AT_ONCE: Final = 32
_PAUSES: Final = 4
_PAUSES_BESIDE: Final = 99
_LEAST_PAUSE: Final = 0.05
# When a disk that did not make any is asked again.
_RETRY: Final = 10.0


class Demand(Enum):
    """What else the disk is there for at the moment."""

    NOTHING = "nothing"
    LIVE = "live calls"
    WAITING = "calls that wait for it"
    NO_ROOM = "it is full, or refuses"


class Spares:
    """The empty folders that this process has, each with a lock of ours.

    Args:
        limit: Most that are kept.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._kept: list[disk.Spare] = []
        # Beside these, how many the group that is at work has; and whether there may
        # be too few.
        self._lent = 0
        self._few = trio.Event()

    @property
    def names(self) -> list[str]:
        """Names of those that are not lent."""
        return [spare.name for spare in self._kept]

    @property
    def left(self) -> int:
        """How many there are, as far as is known."""
        return len(self._kept) + self._lent

    @property
    def wanted(self) -> int:
        """How many more would be kept."""
        return max(0, self.limit - self.left)

    def keep(self, spares: Iterable[disk.Spare]) -> None:
        """Take some in."""
        self._kept += spares
        # Several may have been at it; whoever looks for leftovers has the rest.
        while len(self._kept) > self.limit:
            self._kept.pop().lock.close()

    def lend(self) -> list[disk.Spare]:
        """Hand all of them to the group that is to use some."""
        lent, self._kept = self._kept, []
        self._lent = len(lent)
        return lent

    def take_back(self, spares: Sequence[disk.Spare], *, used: bool) -> None:
        """Take in what the group has left.

        Args:
            spares: These.
            used: Whether it may have used some up.
        """
        self._lent = 0
        self.keep(spares)
        if used:
            self._few.set()

    def close(self) -> None:
        """Give all of them up; the folders stay, for whoever finds them."""
        for spare in self._kept:
            spare.lock.close()
        self._kept = []

    async def make_ahead(
        self,
        wanted: int,
        spool_fd: int,
        demand: Callable[[], Demand],
        limiter: trio.CapacityLimiter,
    ) -> None:
        """Keep so many, whenever nobody waits for the disk; does not return.

        A file system that was busy deleting makes a folder in milliseconds, and then
        calls that come at once would wait for longer than their peers do.

        Args:
            wanted: How many; as many as `limit` at most.
            spool_fd: The spool's folder.
            demand: Tells what else the disk is there for.
            limiter: For the threads that make them.
        """
        wanted = min(wanted, self.limit)
        while True:
            while (missing := wanted - self.left) > 0:
                pause = await self.make_some(missing, spool_fd, demand(), limiter)
                if self.left < wanted:
                    await trio.sleep(pause)
            # Those of calls that end come back by themselves.
            while 2 * self.left >= wanted:
                self._few = trio.Event()
                await self._few.wait()

    async def make_some(
        self,
        missing: int,
        spool_fd: int,
        demand: Demand,
        limiter: trio.CapacityLimiter,
    ) -> float:
        """Make some if the disk has time for that.

        Args:
            missing: So many at most.
            spool_fd: The spool's folder.
            demand: What else the disk is there for.
            limiter: For the thread that makes them.

        Returns:
            For how many seconds the disk is to be left alone.
        """
        if demand is Demand.NO_ROOM:
            return _RETRY
        if demand is Demand.WAITING:
            return _LEAST_PAUSE
        began = trio.current_time()
        made, failure = await trio.to_thread.run_sync(
            disk.make_spares, spool_fd, min(missing, _AT_ONCE), limiter=limiter
        )
        self.keep(made)
        if failure is not None:
            # It shows again where a call is to be created.
            return _RETRY
        took = trio.current_time() - began
        pauses = _PAUSES_BESIDE if demand is Demand.LIVE else _PAUSES
        return max(_LEAST_PAUSE, pauses * took)
