"""The page of one recording."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from starlette.responses import Response

    from audiohook.web.gate import Visit
    from audiohook.web.surroundings import Surroundings

_NAME: Final = re.compile(r"[0-9]{4}-[A-Za-z0-9_.-]{1,255}")


class CallPages:
    """Shows recordings, one at a time.

    Args:
        surroundings: What the page knows of the service.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        self._around = surroundings

    async def show(self, visit: Visit) -> Response:
        """Show one."""
        name = visit.request.path_params["name"]
        if not _NAME.fullmatch(name):
            raise HTTPException(404)
        found = await self._around.index.by_name(name, self._around.prefix)
        if found is None:
            raise HTTPException(404)
        return visit.render("call.html", recording=found.entry)
