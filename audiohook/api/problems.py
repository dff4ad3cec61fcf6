"""What is said when something is not done. Source: RFC 9457."""

from __future__ import annotations

import json
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Mapping

PROBLEM_JSON: Final = "application/problem+json"


class Code(StrEnum):
    """What is wrong, for programs."""

    OFF = "off"
    NOT_FOUND = "not_found"
    METHOD = "method_not_allowed"
    UNAUTHORIZED = "unauthorized"
    SCOPE = "insufficient_scope"
    INVALID = "invalid"
    MEDIA_TYPE = "media_type"
    RANGE = "range"
    TOO_COSTLY = "too_costly"
    TOO_MANY = "too_many_requests"
    BUSY = "busy"
    STORE = "store"
    INDEX = "index"
    INTERNAL = "internal"
    # Of the control of calls.
    PROBE = "probe"
    NOT_OPEN = "not_open"
    NOT_RECORDED = "not_recorded"
    OVER = "over"
    ELSEWHERE = "elsewhere"
    NO_ANSWER = "no_answer"
    TOO_OFTEN = "too_often"
    # Of erasure.
    LIVE = "live"
    ERASURES = "erasures"


_TEXTS: Final[Mapping[Code, tuple[int, str]]] = {
    Code.OFF: (404, "There is no API here: API_TOKENS_FILE is not set."),
    Code.NOT_FOUND: (404, "There is no such thing."),
    Code.METHOD: (405, "That cannot be done with it."),
    Code.UNAUTHORIZED: (401, "Send a known token: Authorization: Bearer …"),
    Code.SCOPE: (403, "The token is not good for that."),
    Code.INVALID: (400, "The request cannot be understood."),
    Code.MEDIA_TYPE: (415, "A body must be application/json."),
    Code.RANGE: (416, "The file does not reach so far."),
    Code.TOO_COSTLY: (422, "That takes too long to find; ask more narrowly."),
    Code.TOO_MANY: (429, "Too many requests."),
    Code.BUSY: (503, "Too many requests are being answered."),
    Code.STORE: (503, "The store does not answer; its fault is in the log."),
    Code.INDEX: (503, "The index cannot be read; its fault is in the log."),
    Code.INTERNAL: (500, "That should not have happened; it is in the log."),
    Code.PROBE: (409, "That is a connection probe, of which nothing is recorded."),
    Code.NOT_OPEN: (409, "The call is not open yet; try again."),
    Code.NOT_RECORDED: (409, "Nothing is recorded of the call."),
    Code.OVER: (409, "The call is over."),
    Code.ELSEWHERE: (409, "Another instance has the call; ask that one."),
    Code.NO_ANSWER: (
        504,
        "Genesys has not answered in time; it may still do so. Ask again.",
    ),
    Code.TOO_OFTEN: (409, "The call was paused too often."),
    Code.LIVE: (409, "The call is live; ask with end=true to have it ended first."),
    Code.ERASURES: (503, "No erasure can be begun now; why is in the log."),
}


def status_of(code: Code) -> int:
    """Return the HTTP status that goes with a code."""
    return _TEXTS[code][0]


class ProblemError(Exception):
    """Something is not done.

    Attributes:
        code: What is wrong.
        detail: More of it; nothing personal, and nothing of the request's text.
        headers: What goes with it.
    """

    def __init__(
        self,
        code: Code,
        detail: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail
        self.headers = headers

    def response(self) -> Response:
        """Return what is sent."""
        status, text = _TEXTS[self.code]
        body = {
            "type": "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": text if self.detail is None else f"{text} {self.detail}",
            "code": self.code,
        }
        return Response(
            json.dumps(body) + "\n",
            status,
            headers=None if self.headers is None else dict(self.headers),
            media_type=PROBLEM_JSON,
        )
