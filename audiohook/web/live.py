"""The page of what goes on now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse, StreamingResponse

from audiohook.web.feed import MOST_VIEWERS

if TYPE_CHECKING:
    from starlette.responses import Response

    from audiohook.web.feed import Feed
    from audiohook.web.gate import Visit


class LivePages:
    """Shows what goes on.

    Args:
        feed: Looks.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    async def show(self, visit: Visit) -> Response:
        """Show all of it, as it is now; a script goes on from there."""
        frame = await self._feed.latest()
        return visit.render("live.html", **frame.state)

    async def events(self, visit: Visit) -> Response:
        """Send what changes, once a second."""
        if visit.request.method == "HEAD":
            # A script asks whether it would be let in.
            return PlainTextResponse("")
        if self._feed.viewers >= MOST_VIEWERS:
            return PlainTextResponse("too many viewers\n", 503, {"retry-after": "10"})
        return StreamingResponse(
            self._feed.events(),
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
            media_type="text/event-stream",
        )
