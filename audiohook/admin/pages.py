"""The pages of the admin port, as one ASGI application.

Other rooms are mounted on the same application: they come after the pages here,
and behind the same guard.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from typing import TYPE_CHECKING, Any, Final

import trio
from prometheus_client import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from audiohook import __version__
from audiohook.admin.figures import Lookout
from audiohook.admin.gauges import Gauges
from audiohook.admin.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from prometheus_client import CollectorRegistry
    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from audiohook.admin.figures import Watched

SECONDS = 1.0

# Source: Prometheus documentation, "Exposition formats".
_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
_OPENMETRICS: Final = "application/openmetrics-text"
_OPENMETRICS_TEXT: Final = f"{_OPENMETRICS}; version=1.0.0; charset=utf-8"

_ENCODERS: Final[Mapping[str, Callable[[CollectorRegistry], bytes]]] = {
    _TEXT: generate_latest,
    _OPENMETRICS_TEXT: openmetrics.generate_latest,
}

# However many ask, the figures are put together this often at most.
_SAME_PAGE: Final = 1 * SECONDS


def make_app(
    watched: Watched,
    *,
    spool: Path,
    hosts: Collection[str] | None = None,
    rooms: Sequence[BaseRoute] = (),
    lookout: Lookout | None = None,
    clock: Callable[[], float] = time.time,
) -> Starlette:
    """Makes the application of the admin port.

    Args:
        watched: The service that is shown; its registry gets the figures that are
            read when somebody asks.
        spool: Folder of its spool.
        hosts: Names by which the port may be asked for, see `Guard`; None for any.
        rooms: What else is to be found there.
        lookout: What is looked up beside the service, if a room looks there too.
        clock: Unix time in seconds.
    """
    lookout = lookout or Lookout(watched, spool, clock=clock)
    pages = _Pages(watched, lookout, clock)
    routes: list[BaseRoute] = [
        Route("/health", pages.health),
        Route("/ready", pages.ready),
        Route("/stats", pages.stats),
        Route("/metrics", pages.metrics),
        *rooms,
    ]
    return Starlette(routes=routes, middleware=[Middleware(Guard, hosts=hosts)])


class _Pages:
    """What is asked for, and what is said."""

    def __init__(
        self, watched: Watched, lookout: Lookout, clock: Callable[[], float]
    ) -> None:
        self._watched = watched
        self._lookout = lookout
        self._clock = clock
        self._began = clock()
        # By content type: when it was made, and what.
        self._rendered: dict[str, tuple[float, bytes]] = {}
        watched.metrics.registry.register(Gauges(watched, lookout))

    async def health(self, _: Request) -> Response:
        """Says whether the process does its work, or should be left to end."""
        found = self._watched.statistics()
        if found.draining:
            return PlainTextResponse("draining\n", 503)
        if not found.can_record:
            return PlainTextResponse("cannot record\n", 503)
        return PlainTextResponse("ok\n")

    async def ready(self, _: Request) -> Response:
        """Says whether a new call is welcome, and why not."""
        refusal = self._watched.statistics().refusal
        if refusal is not None:
            return PlainTextResponse(f"{refusal}\n", 503)
        return PlainTextResponse("ready\n")

    async def stats(self, _: Request) -> Response:
        """Shows how the service does, for a person or a script."""
        await self._lookout.look()
        found: Any = self._watched.statistics()
        spool = self._lookout.latest.spool
        shown = {
            "version": __version__,
            "uptime_seconds": round(self._clock() - self._began, 3),
            "live_by_state": dict(self._watched.desk.live_by_state()),
            **_plain(dataclasses.asdict(found)),
            "spool_survey": None if spool is None else dataclasses.asdict(spool),
        }
        text = json.dumps(shown, indent=2, ensure_ascii=False, default=str)
        return Response(text + "\n", media_type="application/json")

    async def metrics(self, request: Request) -> Response:
        """Shows all figures, in whichever form the asker reads."""
        await self._lookout.look()
        # Not by the library's own choice, which repeats what the asker wrote.
        wanted = request.headers.get("accept", "")
        content_type = _OPENMETRICS_TEXT if _OPENMETRICS in wanted else _TEXT
        made_at, body = self._rendered.get(content_type, (-math.inf, b""))
        now = trio.current_time()
        if now - made_at >= _SAME_PAGE:
            self._watched.desk.count_audio()
            body = _ENCODERS[content_type](self._watched.metrics.registry)
            self._rendered[content_type] = now, body
        return Response(body, headers={"content-type": content_type})


def _plain(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Replaces numbers that JSON has not."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
