"""The page of what is not done yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio
from starlette.responses import RedirectResponse

from audiohook.admission import TokenBucket
from audiohook.setting_values import Rate

if TYPE_CHECKING:
    from starlette.responses import Response

    from audiohook.web.gate import Visit
    from audiohook.web.surroundings import Surroundings

# Calls that are shown one by one, of each kind.
_MOST_CALLS: Final = 50
# To try all again costs as many requests as there are calls.
_RETRIES: Final = Rate(0.2, 2)


class WaitingPages:
    """Shows what waits, and has it tried again.

    Args:
        surroundings: What the page knows of the service.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        self._around = surroundings
        self._retries: TokenBucket | None = None

    async def show(self, visit: Visit) -> Response:
        """Show all that waits."""
        view = await self._around.waiting(_MOST_CALLS)
        return visit.render(
            "waiting.html",
            found=view,
            index=self._around.index.statistics(),
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
