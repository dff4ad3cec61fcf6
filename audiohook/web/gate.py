"""What every request for a page has to pass, and what becomes of faults."""

from __future__ import annotations

import hmac
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import parse_qsl, quote, urlsplit

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse

from audiohook.errors import CallIndexError, UploadError
from audiohook.logs import Limiter
from audiohook.web.access import SESSION_LIFE, Entrance, Rule

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request
    from starlette.responses import Response
    from structlog.typing import FilteringBoundLogger

    from audiohook.web.access import Access, Visitor
    from audiohook.web.pages import Pages

COOKIE: Final = "audiohook_session"
"""Name of the cookie."""

# Where somebody may be sent after logging in: on this port.
_OWN_PATH: Final = re.compile(r"/(?:[A-Za-z0-9_.~%:?=&+-][A-Za-z0-9/_.~%:?=&+-]*)?")
_LONGEST_PATH: Final = 2000
_MOST_FIELDS: Final = 20
# Pages that are made at a time, so that they cannot take the memory from the calls.
_IN_FLIGHT: Final = 64


@dataclass(frozen=True, slots=True)
class Visit:
    """A request that has passed.

    Attributes:
        request: It.
        visitor: Whose it is.
        form: What was sent with it.
    """

    request: Request
    visitor: Visitor
    form: Mapping[str, str]
    _pages: Pages

    def render(self, template: str, **more: Any) -> Response:  # noqa: ANN401 - context
        """Make the page that answers it; see `Pages.render`."""
        return self._pages.render(
            template, visitor=self.visitor, path=self.request.url.path, **more
        )


Handler: TypeAlias = "Callable[[Visit], Awaitable[Response]]"
"""Answers a request that has passed."""

_TEXTS: Final = {
    400: "The request makes no sense.",
    403: "This may only be done from a page of this service. Go back, load it again, and repeat.",
    404: "There is nothing here.",
    500: "This has failed, and the log says why. Calls are not affected.",
    503: "This cannot be had just now. Calls are not affected; try again in a while.",
}


class Gate:
    """Lets requests through to their handlers, and makes pages of what goes wrong.

    Args:
        access: Who may see pages.
        pages: Makes them.
        log: For what an operator must see.
    """

    def __init__(
        self, access: Access, pages: Pages, *, log: FilteringBoundLogger
    ) -> None:
        self._access = access
        self._pages = pages
        self._log = log
        # For what somebody who is not let in can cause at will.
        self._noise = Limiter(log)
        self._in_flight = 0

    def endpoint(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """Make what Starlette calls for a page."""

        async def answer(request: Request) -> Response:
            visitor = self._access.visitor(request.cookies.get(COOKIE))
            if visitor is None:
                return self._send_to_login(request)
            return await self._guarded(request, visitor, handler)

        return answer

    async def _guarded(
        self, request: Request, visitor: Visitor, handler: Handler
    ) -> Response:
        if self._in_flight >= _IN_FLIGHT:
            return self._fault(503, visitor, request, {"retry-after": "1"})
        self._in_flight += 1
        try:
            form: Mapping[str, str] = {}
            if request.method == "POST":
                form = await read_form(request)
                if not is_own(request, form, visitor.token):
                    return self._fault(403, visitor, request)
            return await handler(Visit(request, visitor, form, self._pages))
        except HTTPException as fault:
            return self._fault(fault.status_code, visitor, request)
        except UploadError as error:
            self._noise.write(logging.WARNING, "page_store_fails", error=str(error))
            return self._fault(503, visitor, request)
        except CallIndexError as error:
            self._noise.write(logging.WARNING, "page_index_fails", error=str(error))
            return self._fault(503, visitor, request)
        except Exception:  # noqa: BLE001 - the edge: it must not cost a call
            self._log.exception("page_failed")
            return self._fault(500, visitor, request)
        finally:
            self._in_flight -= 1

    def _fault(
        self,
        status: int,
        visitor: Visitor | None,
        request: Request,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        return self._pages.render(
            "fault.html",
            status=status,
            headers=headers,
            visitor=visitor,
            path=request.url.path,
            text=_TEXTS.get(status, _TEXTS[400]),
        )

    # Coming and going

    def _send_to_login(self, request: Request) -> Response:
        if self._access.rule is Rule.SHUT:
            return self._pages.render(
                "shut.html", status=403, visitor=None, path=request.url.path
            )
        if request.method != "GET":
            return self._login_page("/", status=403)
        wanted = request.url.path
        if request.url.query:
            wanted += f"?{request.url.query}"
        return RedirectResponse(f"/login?next={quote(own_path(wanted), safe='')}", 303)

    async def login(self, request: Request) -> Response:
        """Ask for the password, or take it."""
        if self._access.rule is Rule.SHUT:
            return self._send_to_login(request)
        if self._access.visitor(request.cookies.get(COOKIE)) is not None:
            return RedirectResponse("/", 303)
        if request.method == "GET":
            return self._login_page(own_path(request.query_params.get("next", "/")))
        form = await read_form(request)
        goal = own_path(form.get("next", "/"))
        if not is_own(request, form, self._access.token_of("")):
            return self._login_page(goal, status=403, fault=_TEXTS[403])
        address = request.client.host if request.client else ""
        came, cookie = await self._access.enter(form.get("password", ""), address)
        if came is Entrance.TOO_OFTEN:
            self._noise.write(logging.WARNING, "page_login_limited")
            return self._login_page(
                goal, status=429, fault="Too many tries. Wait for a minute."
            )
        if came is Entrance.WRONG:
            self._noise.write(logging.WARNING, "page_login_failed")
            return self._login_page(goal, status=403, fault="That is not the password.")
        self._log.info("page_login")
        response = RedirectResponse(goal, 303)
        response.set_cookie(
            COOKIE,
            cookie,
            max_age=int(SESSION_LIFE),
            path="/",
            secure=_came_by_tls(request),
            httponly=True,
            samesite="strict",
        )
        return response

    async def logout(self, visit: Visit) -> Response:
        """End the visitor's session."""
        self._access.leave(visit.request.cookies.get(COOKIE, ""))
        response = RedirectResponse("/login", 303)
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
        return response

    def _login_page(self, goal: str, *, status: int = 200, fault: str = "") -> Response:
        return self._pages.render(
            "login.html",
            status=status,
            visitor=None,
            path="/login",
            goal=goal,
            fault=fault,
            token=self._access.token_of(""),
        )


async def read_form(request: Request) -> Mapping[str, str]:
    """Read the fields of a form; none if it is not one.

    The port's guard has seen to it that the body is short.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        return {}
    try:
        text = (await request.body()).decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        return {}
    return dict(pairs)


def is_own(request: Request, form: Mapping[str, str], token: str) -> bool:
    """Tell whether a form was sent by one of our own pages.

    The browser says where it comes from: in ``Sec-Fetch-Site``, but not over plain
    HTTP from another machine, and in ``Origin``. The token says it once more.

    Source: Fetch Metadata Request Headers; RFC 6454, section 7.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is not None and site != "same-origin":
        return False
    if site is None:
        host = request.headers.get("host", "").lower()
        if not host or not origin or urlsplit(origin).netloc.lower() != host:
            return False
    return hmac.compare_digest(form.get("token", "").encode(), token.encode())


def own_path(text: str) -> str:
    """Return a path on this port as it is, and the first page for anything else."""
    return text if len(text) <= _LONGEST_PATH and _OWN_PATH.fullmatch(text) else "/"


def _came_by_tls(request: Request) -> bool:
    # Whoever lies about the second only keeps the cookie from himself.
    forwarded = request.headers.get("x-forwarded-proto", "")
    return request.url.scheme == "https" or forwarded == "https"
