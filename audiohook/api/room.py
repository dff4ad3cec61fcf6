"""The API as a room of the admin port: its operations, put together."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import TYPE_CHECKING, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from audiohook.api.calls import Calls
from audiohook.api.controls import Controls
from audiohook.api.erasures import Erasures
from audiohook.api.models import (
    FILE_PATTERN,
    NAME_PATTERN,
    REFERENCE_PATTERN,
    UUID_PATTERN,
    Controlled,
    ControlRequest,
    Conversation,
    EraseQuery,
    Erasure,
    FindQuery,
    GenesysEvents,
    LivePage,
    LiveQuery,
    MissedCalls,
    MissedQuery,
    RecordingPage,
    TakenEvents,
)
from audiohook.api.openapi import document
from audiohook.api.operations import Gate, Operation
from audiohook.api.presence import Presence
from audiohook.api.problems import Code, ProblemError
from audiohook.api.tokens import Scope

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from starlette.types import Receive, Send
    from starlette.types import Scope as AsgiScope
    from structlog.typing import FilteringBoundLogger

    from audiohook.api.missed import Missed
    from audiohook.api.operations import Ask
    from audiohook.api.surroundings import Surroundings
    from audiohook.api.tokens import Tokens

BASE: Final = "/api/v1"
"""Where the API is on the admin port."""

# As much as the port lets through.
_LONGEST_EVENTS: Final = 64 * 1024

_CONVERSATION: Final = {"conversation": UUID_PATTERN}
# What may come of every search in the index.
_SEARCH: Final = (Code.TOO_COSTLY, Code.INDEX)
_CONTROL: Final = (
    Code.NOT_FOUND,
    Code.PROBE,
    Code.NOT_OPEN,
    Code.NOT_RECORDED,
    Code.OVER,
    Code.ELSEWHERE,
    Code.NO_ANSWER,
    Code.TOO_OFTEN,
    *_SEARCH,
)


def make_room(
    surroundings: Surroundings,
    tokens: Tokens,
    *,
    missed: Missed,
    log: FilteringBoundLogger,
) -> Mount:
    """Makes what is mounted on the admin port.

    Args:
        surroundings: What it knows of the service.
        tokens: Who may ask.
        missed: Knows of calls that Genesys could not deliver.
        log: For what should not happen.
    """
    gate = Gate(tokens, log=log)
    presence = Presence(surroundings)
    operations = operations_of(
        Calls(surroundings, presence),
        Controls(surroundings, presence),
        Erasures(surroundings.eraser),
        missed,
    )
    methods: dict[str, dict[str, Callable[[Request], Awaitable[Response]]]] = {}
    for each in operations:
        methods.setdefault(each.path, {})[each.method] = gate.endpoint(each)
    routes = [
        Route(path, _Methods(endpoints), methods=None)
        for path, endpoints in methods.items()
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _refuse})
    app.router.redirect_slashes = False
    return _Room(BASE, app=app)


class _Room(Mount):
    """Takes all that begins with its path, also with the end of a line in it.

    Otherwise such a request would be answered by the port, in another form.
    """

    def __init__(self, path: str, app: Starlette) -> None:
        super().__init__(path, app=app)
        self.path_regex = re.compile(self.path_regex.pattern, re.DOTALL)


class _Methods:
    """Takes a request to the operation of its method. An ASGI application."""

    def __init__(
        self, endpoints: dict[str, Callable[[Request], Awaitable[Response]]]
    ) -> None:
        self._endpoints = endpoints

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        request = Request(scope, receive)
        endpoint = self._endpoints.get(request.method)
        if endpoint is None:
            allowed = ", ".join(sorted(self._endpoints))
            problem = ProblemError(Code.METHOD, headers={"allow": allowed})
            response = problem.response()
        else:
            response = await endpoint(request)
        await response(scope, receive, send)


async def _refuse(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = Code.NOT_FOUND if error.status_code == 404 else Code.INVALID
    return ProblemError(code).response()


def operations_of(
    calls: Calls, controls: Controls, erasures: Erasures, missed: Missed
) -> Sequence[Operation]:
    """Lists all that the API can do, and the document that says so."""
    operations = [
        *_of_calls(calls),
        *_of_controls(controls),
        *_of_erasures(erasures),
        *_of_files(calls),
        *_of_missed(missed),
    ]

    async def show_document(_ask: Ask) -> Response:
        return Response(text, media_type="application/json")

    operations.append(
        Operation(
            id="showDocument",
            method="GET",
            path="/openapi.json",
            summary="Show this document",
            tag="document",
            handler=show_document,
        )
    )
    text = json.dumps(document(operations, BASE), indent=2) + "\n"
    return operations


def _of_calls(calls: Calls) -> Iterator[Operation]:
    read = partial(Operation, method="GET", tag="calls", scope=Scope.READ)
    yield read(
        id="findCalls",
        path="/calls",
        summary="Find recorded calls, the newest first",
        handler=calls.find,
        query=FindQuery,
        answer=RecordingPage,
        problems=_SEARCH,
    )
    yield read(
        id="listLive",
        path="/live",
        summary="List the live calls of this instance",
        handler=calls.live,
        query=LiveQuery,
        answer=LivePage,
    )
    yield read(
        id="showCall",
        path="/calls/{conversation}",
        summary="Show a conversation: its sessions, their states and files",
        handler=calls.show,
        parameters=_CONVERSATION,
        answer=Conversation,
        problems=(Code.NOT_FOUND, Code.STORE, *_SEARCH),
    )


def _of_controls(controls: Controls) -> Iterator[Operation]:
    for action, summary in (
        ("pause", "Pause the recording of a live call"),
        ("resume", "Resume the recording of a live call"),
        ("end", "End the session of a live call, not the call itself"),
    ):
        yield Operation(
            id=f"{action}Call",
            method="POST",
            path=f"/calls/{{conversation}}/{action}",
            summary=summary,
            tag="control",
            handler=getattr(controls, action),
            scope=Scope.CONTROL,
            parameters=_CONVERSATION,
            body=ControlRequest,
            answer=Controlled,
            problems=_CONTROL,
        )


def _of_erasures(erasures: Erasures) -> Iterator[Operation]:
    erase = partial(Operation, tag="erasure", scope=Scope.ERASE, answer=Erasure)
    yield erase(
        id="eraseCall",
        method="DELETE",
        path="/calls/{conversation}",
        summary="Have every trace of a conversation erased",
        handler=erasures.erase,
        parameters=_CONVERSATION,
        query=EraseQuery,
        status=202,
        problems=(Code.LIVE, Code.ERASURES),
    )
    yield erase(
        id="showErasure",
        method="GET",
        path="/erasures/{reference}",
        summary="Show how an erasure stands",
        handler=erasures.show,
        parameters={"reference": REFERENCE_PATTERN},
        problems=(Code.NOT_FOUND, Code.ERASURES),
    )


def _of_files(calls: Calls) -> Iterator[Operation]:
    for name, method, summary in (
        ("fetchFile", "GET", "Fetch a file of a recording, or a part of it"),
        ("lookAtFile", "HEAD", "Ask what a file of a recording is"),
    ):
        yield Operation(
            id=name,
            method=method,
            path="/recordings/{name}/{file}",
            summary=summary,
            tag="files",
            handler=calls.file,
            scope=Scope.READ,
            parameters={"name": NAME_PATTERN, "file": FILE_PATTERN},
            is_file=True,
            problems=(Code.NOT_FOUND, Code.RANGE, Code.STORE),
        )


def _of_missed(missed: Missed) -> Iterator[Operation]:
    yield Operation(
        id="listMissed",
        method="GET",
        path="/missed",
        summary="List what Genesys reports of a day, and what became of those calls",
        tag="missed",
        handler=missed.list,
        scope=Scope.READ,
        query=MissedQuery,
        answer=MissedCalls,
        problems=_SEARCH,
    )
    yield Operation(
        id="takeGenesysEvents",
        method="POST",
        path="/genesys/events",
        summary="Hand in operational events of Genesys",
        tag="missed",
        handler=missed.take,
        scope=Scope.REPORT,
        body=GenesysEvents,
        answer=TakenEvents,
        longest_body=_LONGEST_EVENTS,
        problems=(Code.INDEX,),
    )
