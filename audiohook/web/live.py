"""The pages of what goes on now: the newest calls as they go on, and all of them."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import trio

from audiohook.web.feed import Feed, new_fields
from audiohook.web.surroundings import LivePlace
from audiohook.web.text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.responses import Response

    from audiohook.web.feed import State
    from audiohook.web.gate import Visit
    from audiohook.web.pages import Pages
    from audiohook.web.surroundings import LiveCall, LiveView, Surroundings

SECONDS = 1.0

MOST_CALLS: Final = 50
"""Calls that are shown one by one, on a page."""

# An average over a longer time would say nothing of now.
_LONGEST_AVERAGE: Final = 5 * SECONDS
_LONGEST_WANTED: Final = 200
_AFTER: Final = re.compile(r"([0-9a-f-]{36})\.([0-9]{1,16})")


class LiveSight:
    """Puts together what a page of live calls shows.

    Args:
        surroundings: What the page knows of the service.
        pages: Knows what may be shown.
    """

    def __init__(self, surroundings: Surroundings, pages: Pages) -> None:
        self._around = surroundings
        self._pages = pages
        self._looked_at = -math.inf
        self._audio_bytes = 0

    async def look(self) -> State:
        """Look once: ``totals`` and, by their sessions, the newest ``calls``."""
        elapsed = trio.current_time() - self._looked_at
        view = await self._around.live(MOST_CALLS)
        rate = None
        if elapsed <= _LONGEST_AVERAGE:
            rate = round((view.audio_bytes - self._audio_bytes) / elapsed)
        self._looked_at = trio.current_time()
        self._audio_bytes = view.audio_bytes
        return self._state_of(view, rate)

    def row(self, call: LiveCall) -> Mapping[str, Any]:
        """Return what is shown of a call."""
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
            "calls": {each.session: self.row(each) for each in view.calls},
        }


def difference(old: State, new: State) -> State:
    """Return what changes the one state of live calls into the other.

    Each call has the fields that are new; one that is gone has None. The order of
    the calls follows from when they began.
    """
    calls: State = dict.fromkeys(old["calls"].keys() - new["calls"].keys())
    for session, row in new["calls"].items():
        if fields := new_fields(old["calls"].get(session, {}), row):
            calls[session] = fields
    totals = new_fields(old["totals"], new["totals"])
    change: State = {}
    if totals:
        change["totals"] = totals
    if calls:
        change["calls"] = calls
    return change


class LivePages:
    """Shows what goes on.

    Args:
        surroundings: What the page knows of the service.
        pages: Knows what may be shown.
    """

    def __init__(self, surroundings: Surroundings, pages: Pages) -> None:
        self._around = surroundings
        self._sight = LiveSight(surroundings, pages)
        self.feed = Feed(self._sight.look, difference)

    async def show(self, visit: Visit) -> Response:
        """Show the newest calls, as they are now; a script goes on from there."""
        frame = await self.feed.latest()
        return visit.render("live.html", **frame.state)

    async def find(self, visit: Visit) -> Response:
        """Show all calls, a page at a time, or those that somebody looks for."""
        given = visit.request.query_params
        wanted, place = given.get("find", "").strip(), _place_of(given.get("after", ""))
        fault = ""
        if len(wanted) > _LONGEST_WANTED:
            wanted, fault = "", f"More than {_LONGEST_WANTED} characters are too many."
        found = await self._around.find_live(wanted, place, MOST_CALLS)
        kept = {"find": wanted} if wanted else {}
        after = found.next
        older = None
        if after is not None:
            mark = f"{after.session}.{round(after.began * 1000)}"
            older = f"/live?{urlencode({**kept, 'after': mark})}"
        return visit.render(
            "live_all.html",
            status=400 if fault else 200,
            calls={each.session: self._sight.row(each) for each in found.calls},
            totals={"now": round(self._around.clock())},
            listed=found.listed,
            matching=found.matching,
            is_first=place is None,
            newest=f"/live?{urlencode(kept)}" if kept else "/live",
            older=older,
            wanted=wanted,
            fault=fault,
        )


def _place_of(text: str) -> LivePlace | None:
    match = _AFTER.fullmatch(text)
    return None if match is None else LivePlace(match[1], int(match[2]) / 1000)
