"""What goes on, for any number of viewers at the cost of one.

There is a look a second while somebody looks, and none otherwise. Whoever comes
first makes it, and the others take what came of it: all of it as they begin, and
then what has changed.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import trio
from starlette.responses import PlainTextResponse, StreamingResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.responses import Response

    from audiohook.web.gate import Visit

SECONDS = 1.0

MOST_VIEWERS: Final = 20
"""Who may look at a time."""

_INTERVAL: Final = 1 * SECONDS
# After that a browser comes again, and has to show its cookie again.
_LIFE: Final = 50 * SECONDS
# A viewer that takes no more for so long is not waited for.
_PATIENCE: Final = 2 * SECONDS

State = dict[str, Any]
"""What is shown, as JSON has it."""


@dataclass(eq=False, slots=True)
class Frame:
    """One look.

    Attributes:
        number: Counts them.
        state: What there was to see.
        change: What has changed since the look before.
    """

    number: int
    state: State
    change: State
    _texts: dict[str, bytes] = field(default_factory=dict)

    def text_for(self, seen: int) -> bytes:
        """Return the event for a viewer who has seen the look of that number."""
        is_next = 0 < seen == self.number - 1
        name, data = ("change", self.change) if is_next else ("whole", self.state)
        text = self._texts.get(name)
        if text is None:
            # ASCII alone, so that no line in it ends where we do not see it.
            body = json.dumps(data, separators=(",", ":"))
            text = f"event: {name}\ndata: {body}\n\n".encode("ascii")
            self._texts[name] = text
        return text


def new_fields(old: State, new: State) -> State:
    """Return the fields of a state that are not as they were."""
    return {name: value for name, value in new.items() if old.get(name, ...) != value}


class Feed:
    """Looks for all viewers.

    Args:
        look: Looks once.
        difference: Tells what changes one state into the next.
    """

    def __init__(
        self,
        look: Callable[[], Awaitable[State]],
        difference: Callable[[State, State], State] = new_fields,
    ) -> None:
        self._look_once = look
        self._difference = difference
        self._lock = trio.Lock()
        self._latest: Frame | None = None
        self._looked_at = -math.inf
        self.viewers = 0

    async def latest(self) -> Frame:
        """Return a look that is not older than a second."""
        async with self._lock:
            if trio.current_time() - self._looked_at >= _INTERVAL:
                await self._look()
            assert self._latest is not None
            return self._latest

    async def after(self, seen: int) -> Frame:
        """Wait for the next look after that of a number; one a second."""
        async with self._lock:
            latest = self._latest
            if latest is None or latest.number <= seen:
                await trio.sleep_until(self._looked_at + _INTERVAL)
                await self._look()
            assert self._latest is not None
            return self._latest

    async def answer(self, visit: Visit) -> Response:
        """Send a viewer what changes, once a second."""
        if visit.request.method == "HEAD":
            # A script asks whether it would be let in.
            return PlainTextResponse("")
        if self.viewers >= MOST_VIEWERS:
            return PlainTextResponse("too many viewers\n", 503, {"retry-after": "10"})
        return StreamingResponse(
            self.events(),
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
            media_type="text/event-stream",
        )

    async def events(self) -> AsyncIterator[bytes]:
        """Yield server-sent events for one viewer, for a while."""
        self.viewers += 1
        try:
            began = trio.current_time()
            frame = await self.latest()
            seen = 0
            # When a browser comes again after we have ended.
            yield b"retry: 1000\n\n"
            while True:
                before = trio.current_time()
                yield frame.text_for(seen)
                now = trio.current_time()
                if now - before > _PATIENCE or now - began > _LIFE:
                    return
                seen = frame.number
                frame = await self.after(seen)
        finally:
            self.viewers -= 1

    async def _look(self) -> None:
        before = self._latest
        state = await self._look_once()
        self._looked_at = trio.current_time()
        number = 1 if before is None else before.number + 1
        change = {} if before is None else self._difference(before.state, state)
        self._latest = Frame(number, state, change)
