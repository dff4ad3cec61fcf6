"""The page of what goes on now."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.responses import Response

    from audiohook.web.gate import Visit
    from audiohook.web.surroundings import Surroundings


class LivePages:
    """Shows what goes on.

    Args:
        surroundings: What the page knows of the service.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        self._around = surroundings

    async def show(self, visit: Visit) -> Response:
        """Show all of it, as it is now."""
        return visit.render("live.html", found=self._around.statistics())
