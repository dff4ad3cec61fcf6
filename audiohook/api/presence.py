"""Which calls are there just now: live here, on the local disk, in other processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from audiohook.protocol.state import State
from audiohook.recording.elsewhere import look_elsewhere

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from audiohook.api.surroundings import Surroundings
    from audiohook.call import Call
    from audiohook.recording.elsewhere import Elsewhere
    from audiohook.recording.record import CallRecord

# How old what is known of other processes may be, in seconds.
_FRESH: Final = 1.0


class Presence:
    """Tells which calls are there just now.

    Args:
        surroundings: What the API knows of the service.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        self._around = surroundings
        self._threads = trio.CapacityLimiter(1)
        self._elsewhere: dict[str, list[Elsewhere]] = {}
        self._looked_at = -_FRESH
        self._looking = trio.Lock()

    def live(self) -> list[Call]:
        """Return the live calls, without probes and those that were turned away."""
        return [
            call
            for call in self._around.live()
            if call.opened is not None
            and not call.opened.is_probe
            and call.state not in (State.REJECTING, State.ENDED)
        ]

    def live_of(self, conversation: str) -> list[Call]:
        """Return those of a conversation, by its id in lower case."""
        return [
            call
            for call in self.live()
            if call.opened is not None
            and call.opened.parameters.conversation_id == conversation
        ]

    def spooled_of(self, conversation: str) -> list[CallRecord]:
        """Return what is known of a conversation's calls on the local disk."""
        return [
            record
            for record in self._around.spooled()
            if record.opened.conversation_id == conversation
        ]

    async def elsewhere_of(self, conversation: str) -> Sequence[Elsewhere]:
        """Return what other processes that share the spool have of a conversation."""
        return (await self._look_elsewhere()).get(conversation, ())

    async def _look_elsewhere(self) -> Mapping[str, Sequence[Elsewhere]]:
        async with self._looking:
            if trio.current_time() - self._looked_at >= _FRESH:
                own = {record.opened.session_id for record in self._around.spooled()}
                self._elsewhere = await trio.to_thread.run_sync(
                    look_elsewhere, self._around.spool, own, limiter=self._threads
                )
                self._looked_at = trio.current_time()
            return self._elsewhere
