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

from audiohook.web.text import visible

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from audiohook.web.pages import Pages
    from audiohook.web.surroundings import LiveCall, LiveView, Surroundings

SECONDS = 1.0

MOST_CALLS: Final = 50
"""Calls that are shown one by one."""

MOST_VIEWERS: Final = 20
"""Who may look at a time."""

_INTERVAL: Final = 1 * SECONDS
# After that a browser comes again, and has to show its cookie again.
_LIFE: Final = 50 * SECONDS
# A viewer that takes no more for so long is not waited for.
_PATIENCE: Final = 2 * SECONDS
# An average over a longer time would say nothing of now.
_LONGEST_AVERAGE: Final = 5 * SECONDS

State = dict[str, Any]
"""What is shown, as JSON has it: ``totals`` and, by their sessions, ``calls``."""


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


class Feed:
    """Looks for all viewers.

    Args:
        surroundings: What the page knows of the service.
        pages: Knows what may be shown.
    """

    def __init__(self, surroundings: Surroundings, pages: Pages) -> None:
        self._around = surroundings
        self._pages = pages
        self._lock = trio.Lock()
        self._latest: Frame | None = None
        self._looked_at = -math.inf
        self._audio_bytes = 0
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
        before, elapsed = self._latest, trio.current_time() - self._looked_at
        view = await self._around.live(MOST_CALLS)
        rate = None
        if elapsed <= _LONGEST_AVERAGE:
            rate = round((view.audio_bytes - self._audio_bytes) / elapsed)
        self._looked_at = trio.current_time()
        self._audio_bytes = view.audio_bytes
        state = self._state_of(view, rate)
        number = 1 if before is None else before.number + 1
        change = {} if before is None else difference(before.state, state)
        self._latest = Frame(number, state, change)

    def _state_of(self, view: LiveView, rate: int | None) -> State:
        return {
            "totals": {
                "now": round(self._around.clock()),
                "live": view.live,
                "shown": len(view.calls),
                "handshakes": view.handshakes,
                "refused": {name: n for name, n in view.refused.items() if n},
                "turnedAway": {name: n for name, n in view.turned_away.items() if n},
                "rate": rate,
                "lag": round(view.lag, 3),
                "worstLag": round(view.worst_lag, 3),
                "draining": view.draining,
                "canRecord": view.can_record,
                "refusal": view.refusal,
            },
            "calls": {each.session: self._row(each) for each in view.calls},
        }

    def _row(self, call: LiveCall) -> Mapping[str, Any]:
        return {
            "conversation": visible(call.conversation),
            "participant": visible(call.participant),
            "from": self._pages.number(call.ani),
            "name": self._pages.name(call.ani_name),
            "to": self._pages.number(call.dnis),
            "language": visible(call.language or ""),
            "state": call.state,
            "held": call.held,
            "began": round(call.began),
            "pinged": None if call.pinged is None else round(call.pinged),
            "gaps": call.gaps,
            "gapSeconds": round(call.gap_seconds, 1),
            "lostSeconds": round(call.lost_seconds, 1),
            "levels": [[each.channel, each.peak, each.rms] for each in call.levels],
        }


def difference(old: State, new: State) -> State:
    """Return what changes the one state into the other.

    Each call has the fields that are new; one that is gone has None. The order of
    the calls follows from when they began.
    """
    calls: State = dict.fromkeys(old["calls"].keys() - new["calls"].keys())
    for session, row in new["calls"].items():
        known = old["calls"].get(session, {})
        fields = {
            name: value for name, value in row.items() if known.get(name, ...) != value
        }
        if fields:
            calls[session] = fields
    totals = {
        name: value
        for name, value in new["totals"].items()
        if old["totals"].get(name, ...) != value
    }
    change: State = {}
    if totals:
        change["totals"] = totals
    if calls:
        change["calls"] = calls
    return change
