"""The page of what is not done yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio
from starlette.responses import RedirectResponse

from audiohook.rate import Rate, TokenBucket
from audiohook.web.feed import Feed

if TYPE_CHECKING:
    from starlette.responses import Response

    from audiohook.web.feed import State
    from audiohook.web.gate import Visit
    from audiohook.web.pages import Pages
    from audiohook.web.surroundings import Surroundings

# Calls that are shown one by one, of each kind.
_MOST_CALLS: Final = 50
# To try all again costs as many requests as there are calls.
_RETRIES: Final = Rate(0.2, 2)
# Parts of the page, by the blocks of its template, that are sent when they change.
_PARTS: Final = ("faults", "figures", "parked", "oldest")


class WaitingPages:
    """Shows what waits as it changes, and has it tried again.

    What changes is sent as HTML: it is the same template that makes the page, so
    what calls say is escaped in one place.

    Args:
        surroundings: What the page knows of the service.
        pages: Makes pages.
    """

    def __init__(self, surroundings: Surroundings, pages: Pages) -> None:
        self._around = surroundings
        self._pages = pages
        self._retries: TokenBucket | None = None
        self.feed = Feed(self._look)

    async def show(self, visit: Visit) -> Response:
        """Show all that waits; a script goes on from there."""
        frame = await self.feed.latest()
        return visit.render(
            "waiting.html",
            parts=frame.state,
            tried=visit.request.query_params.get("tried", ""),
        )

    async def retry(self, _visit: Visit) -> Response:
        """Have all of it tried again at once."""
        now = trio.current_time()
        if self._retries is None:
            self._retries = TokenBucket(_RETRIES, now)
        if not self._retries.take(now):
            return RedirectResponse("/waiting?tried=soon", 303)
        self._around.retry()
        self._around.log.info("retry_asked")
        return RedirectResponse("/waiting?tried=yes", 303)

    async def _look(self) -> State:
        """Look once: ``now``, and the parts of the page by their names."""
        view = await self._around.waiting(_MOST_CALLS)
        now = self._around.clock()
        return {
            "now": round(now),
            **{
                name: self._pages.part(
                    "waiting_parts.html",
                    name,
                    found=view,
                    index=self._around.index.statistics(),
                    now=now,
                )
                for name in _PARTS
            },
        }
