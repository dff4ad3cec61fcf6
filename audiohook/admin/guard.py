"""What every request to the admin port has to pass, whatever it asks for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

from audiohook.hosts import is_loopback

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

KIB: Final = 1024

_LONGEST_BODY: Final = 64 * KIB
_LENGTH: Final = re.compile(r"[0-9]{1,9}")
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_CLOSE: Final = {"connection": "close"}
_HEADERS: Final = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
}


def hosts_for(host: str) -> Collection[str] | None:
    """Returns the names under which a port on that address may be asked for.

    Args:
        host: Address that is listened on.

    Returns:
        The names, without a port; None for any, where we cannot know them.
    """
    return {*_LOOPBACK, host.lower()} if is_loopback(host) else None


class Guard:
    """Refuses requests that no honest client makes.

    A page of any website may send its reader's browser to a name of its own that
    has been made to lead to 127.0.0.1, and may read what is answered there. Such a
    request has that name in its ``Host`` header.

    Args:
        app: What is behind it.
        hosts: Names that may be in ``Host``; None for any. A request without one is
            let through, since no browser makes any.
        longest_body: Most bytes of a body; it must say how long it is.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Collection[str] | None,
        longest_body: int = _LONGEST_BODY,
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._longest_body = longest_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request through, or answers it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return

        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        app = self._refuse(Headers(scope=scope)) or self._app
        await app(scope, receive, send_more)

    def _refuse(self, headers: Headers) -> ASGIApp | None:
        """Returns the answer to a request that must not go on."""
        host = headers.get("host", "")
        if self._hosts is not None and host and _name_of(host) not in self._hosts:
            return PlainTextResponse("wrong host\n", 421)
        if "transfer-encoding" in headers:
            return PlainTextResponse("length required\n", 411, _CLOSE)
        length = headers.get("content-length", "0")
        if not _LENGTH.fullmatch(length) or int(length) > self._longest_body:
            return PlainTextResponse("too long\n", 413, _CLOSE)
        return None


def _name_of(host: str) -> str:
    """Takes the port off a ``Host`` header."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
