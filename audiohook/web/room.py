"""The page as a room of the admin port: its paths, put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from audiohook.web.call import CallPages
from audiohook.web.gate import Gate
from audiohook.web.live import LivePages
from audiohook.web.pages import Pages
from audiohook.web.recordings import RecordingPages
from audiohook.web.waiting import WaitingPages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.routing import BaseRoute

    from audiohook.web.access import Access
    from audiohook.web.surroundings import Surroundings


def make_routes(
    surroundings: Surroundings, access: Access, *, show_numbers: bool
) -> Sequence[BaseRoute]:
    """Make what is added to the admin port.

    Args:
        surroundings: What the page knows of the service.
        access: Who may see it.
        show_numbers: Whether numbers of callers are shown.
    """
    pages = Pages(show_numbers=show_numbers)
    gate = Gate(access, pages, log=surroundings.log)
    live = LivePages(surroundings, pages)
    waiting = WaitingPages(surroundings, pages)
    recordings = RecordingPages(surroundings)
    calls = CallPages(surroundings, pages)
    return [
        Route("/", gate.endpoint(live.show)),
        Route("/live", gate.endpoint(live.find)),
        Route("/live/events", gate.endpoint(live.feed.answer)),
        Route("/waiting", gate.endpoint(waiting.show)),
        Route("/waiting/events", gate.endpoint(waiting.feed.answer)),
        Route("/waiting/retry", gate.endpoint(waiting.retry), methods=["POST"]),
        Route("/recordings", gate.endpoint(recordings.show)),
        Route("/calls/{name}", gate.endpoint(calls.show)),
        Route("/calls/{name}/files/{file}", gate.endpoint(calls.file)),
        Route("/calls/{name}/turns/{audio}", gate.endpoint(calls.turns)),
        Route("/login", gate.login, methods=["GET", "POST"]),
        Route("/logout", gate.endpoint(gate.logout), methods=["POST"]),
        Route("/static/{version}/{file}", pages.file),
    ]
