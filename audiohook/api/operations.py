"""What every request has to pass: token, limits, and a form that is understood.

An operation says all that there is to know of one method of one path, once: the
route is made of it, and so is the document.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

import trio
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from audiohook.api.problems import Code, ProblemError
from audiohook.errors import CallIndexError, ErasureError, UploadError
from audiohook.rate import Rate, TokenBucket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request
    from structlog.typing import FilteringBoundLogger

    from audiohook.api.tokens import Scope, Token, Tokens

KIB: Final = 1024

_LONGEST_BODY: Final = 4 * KIB
# Of one token, and of all who have none.
_RATE: Final = Rate(50.0, 200)
_STRANGERS_RATE: Final = Rate(20.0, 50)
# Requests that are answered at a time, so that they cannot take the memory from
# the calls. One who waits for a pause takes five seconds.
_IN_FLIGHT: Final = 128


Handler: TypeAlias = "Callable[[Ask], Awaitable[Response | BaseModel]]"
"""Answers a request that has passed, or returns what the answer is made of."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    Attributes:
        id: Its name.
        method: Such as ``GET``.
        path: Below the room's own, with ``{parameters}``.
        summary: What it does, in a line.
        tag: What it is about.
        handler: Does it.
        scope: What a token has to be good for; None if there need be none.
        parameters: Patterns of those of the path.
        query: Those of the query.
        body: What may be sent.
        answer: What comes back, if it is one of our own.
        status: With which status.
        is_file: Whether a file comes back.
        longest_body: Most bytes of what may be sent.
        problems: What may go wrong, besides what may always.
    """

    id: str
    method: str
    path: str
    summary: str
    tag: str
    handler: Handler
    scope: Scope | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    answer: type[BaseModel] | None = None
    status: int = 200
    is_file: bool = False
    longest_body: int = _LONGEST_BODY
    problems: tuple[Code, ...] = ()


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that has passed.

    Attributes:
        request: It.
        token: Whose it is; the name is empty where none is needed.
        path: Parameters of the path, which fit their patterns.
        query: Those of the query.
        body: What was sent.
    """

    request: Request
    token: str
    path: Mapping[str, str]
    query: BaseModel | None
    body: BaseModel | None


class Gate:
    """Lets requests through to their operations, and makes answers of what comes.

    Args:
        tokens: Who may ask.
        log: For what should not happen.
    """

    def __init__(self, tokens: Tokens, *, log: FilteringBoundLogger) -> None:
        self._tokens = tokens
        self._log = log
        # By the names of the tokens, of which there is a bounded number.
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()
        self._strangers = TokenBucket(_STRANGERS_RATE, 0.0)
        self._in_flight = 0

    def endpoint(
        self, operation: Operation
    ) -> Callable[[Request], Awaitable[Response]]:
        """Makes what Starlette calls for an operation."""

        async def answer(request: Request) -> Response:
            try:
                return await self._answer(operation, request)
            except ProblemError as problem:
                return problem.response()
            except UploadError as error:
                self._log.warning("api_store_fails", error=str(error))
                return ProblemError(Code.STORE).response()
            except CallIndexError as error:
                if error.costly:
                    return ProblemError(Code.TOO_COSTLY).response()
                self._log.warning("api_index_fails", error=str(error))
                return ProblemError(Code.INDEX).response()
            except ErasureError as error:
                if error.live:
                    return ProblemError(Code.LIVE).response()
                self._log.warning("api_erasure_fails", error=str(error))
                return ProblemError(Code.ERASURES).response()
            except Exception:  # noqa: BLE001 - the edge: it must not cost a call
                self._log.exception("api_failed", operation=operation.id)
                return ProblemError(Code.INTERNAL).response()

        return answer

    async def _answer(self, operation: Operation, request: Request) -> Response:
        token = self._pass(operation, request)
        if self._in_flight >= _IN_FLIGHT:
            raise ProblemError(Code.BUSY, headers={"retry-after": "1"})
        self._in_flight += 1
        try:
            ask = Ask(
                request,
                token,
                _path(operation, request),
                _query(operation, request),
                await _body(operation, request),
            )
            found = await operation.handler(ask)
        finally:
            self._in_flight -= 1
        if isinstance(found, BaseModel):
            text = found.model_dump_json(by_alias=True)
            return Response(text, operation.status, media_type="application/json")
        return found

    def _pass(self, operation: Operation, request: Request) -> str:
        """Tell whose a request is.

        Raises:
            ProblemError: It must not go on.
        """
        if not self._tokens.exist:
            raise ProblemError(Code.OFF)
        now = trio.current_time()
        token = self._token_of(request)
        if token is None:
            self._limit(self._strangers, now)
            if operation.scope is None:
                return ""
            raise ProblemError(
                Code.UNAUTHORIZED, headers={"www-authenticate": "Bearer"}
            )
        bucket = self._buckets.get(token.name)
        if bucket is None:
            bucket = self._buckets[token.name] = TokenBucket(_RATE, now)
        self._limit(bucket, now)
        if operation.scope is not None and operation.scope not in token.scopes:
            challenge = f'Bearer error="insufficient_scope", scope="{operation.scope}"'
            raise ProblemError(
                Code.SCOPE,
                f"It needs the scope {operation.scope}.",
                headers={"www-authenticate": challenge},
            )
        return token.name

    def _token_of(self, request: Request) -> Token | None:
        scheme, _, presented = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not presented:
            return None
        return self._tokens.find(presented.strip())

    def _limit(self, bucket: TokenBucket, now: float) -> None:
        if not bucket.take(now):
            raise ProblemError(Code.TOO_MANY, headers={"retry-after": "1"})


def _path(operation: Operation, request: Request) -> Mapping[str, str]:
    for name, pattern in operation.parameters.items():
        # `$` alone lets a newline through.
        if not re.fullmatch(pattern.removesuffix("$"), request.path_params[name]):
            raise ProblemError(Code.INVALID, f"{name} is not of its form.")
    return request.path_params


def _query(operation: Operation, request: Request) -> BaseModel | None:
    pairs = request.query_params.multi_items()
    given = dict(pairs)
    if len(given) < len(pairs):
        raise ProblemError(Code.INVALID, "A parameter is there twice.")
    if operation.query is None:
        if given:
            raise ProblemError(Code.INVALID, "There are no parameters here.")
        return None
    return _validated(operation.query, given)


async def _body(operation: Operation, request: Request) -> BaseModel | None:
    # The port's guard has seen to it that its length is said, and bounded.
    length = int(request.headers.get("content-length", "0"))
    if operation.body is None:
        if length:
            raise ProblemError(Code.INVALID, "There is no body here.")
        return None
    most = operation.longest_body
    if length > most:
        raise ProblemError(Code.INVALID, f"The body is over {most} bytes.")
    if not length:
        return operation.body()
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ProblemError(Code.MEDIA_TYPE)
    try:
        value = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise ProblemError(Code.INVALID, "The body is not JSON.") from None
    return _validated(operation.body, value)


def _validated(model: type[BaseModel], value: object) -> BaseModel:
    try:
        return model.model_validate(value, by_alias=True, by_name=False)
    except ValidationError as error:
        # Neither what was sent, which may be anybody's, nor names that we do not know.
        known = {str(info.alias or name) for name, info in model.model_fields.items()}
        faults = []
        for each in error.errors(include_input=False, include_url=False):
            place = str(each["loc"][0]) if each["loc"] else "the body"
            shown = place if place in known or not each["loc"] else "another name"
            faults.append(f"{shown}: {each['type']}")
        raise ProblemError(Code.INVALID, f"{'; '.join(faults[:5])}.") from None
