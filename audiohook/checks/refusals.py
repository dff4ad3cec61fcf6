"""What an answer to an upgrade says that is none, and who it is that refused.

A signature that does not fit tells nothing by itself: the service answers alike
whatever is wrong. But whoever holds the secret can sign what the service *may* have
got instead of what was sent. Where one of those is accepted, it is known what a proxy
makes of the request.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote

import trio

from audiohook.checks.clock import offset
from audiohook.checks.exchange import SWITCHING, NoAnswerError, ask, is_ours
from audiohook.protocol.signature import MAX_CLOCK_SKEW, sign
from audiohook.setting_values import decode_secret
from audiohook.simulator.client import request_headers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from audiohook.checks.exchange import Answer
    from audiohook.simulator.options import CallOptions

    Connect = Callable[[], Awaitable[trio.abc.Stream]]

HTTP2_MEND: Final = (
    "it speaks HTTP/2 only, and a WebSocket of Genesys needs HTTP/1.1: let the proxy"
    " offer that too"
)

_UNAUTHORIZED: Final = 401
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_REDIRECTS_FROM: Final = 300
_LATE: Final = frozenset({502, 503, 504})
# What a proxy is often told to send on to.
_USUAL_BACKENDS: Final = (
    *("127.0.0.1", "localhost", "127.0.0.1:3000", "localhost:3000"),
    *("audiohook", "audiohook:3000"),
)
# A refusal takes half a second.
_AT_A_TIME: Final = 8
_MENDS: Final = {
    400: "the request was changed on its way: Connection, Upgrade, Sec-WebSocket-… and"
    " Audiohook-… must pass as they are",
    403: "something forbids it, a firewall or the proxy: let this path through",
    404: "nothing is served at that path: does the proxy know it, and is the URI right?",
    405: "nothing is served at that path: does the proxy know it, and is the URI right?",
    407: "a proxy on this side asks for a password: try it from another network",
    426: "it comes without Upgrade and Connection: the proxy has to pass them on"
    " (nginx: proxy_http_version 1.1, proxy_set_header Upgrade $http_upgrade and"
    ' Connection "upgrade")',
    429: "something limits how often one may ask: lift that for this path",
    431: "the headers are too long for something on the way: raise its limit to 16 KB",
}


@dataclass(frozen=True, slots=True)
class Way:
    """The way that a request takes.

    Attributes:
        connect: Opens a connection to the public name.
        options: The request.
        direct: Opens one to the service itself, if it is on this machine.
    """

    connect: Connect
    options: CallOptions
    direct: Connect | None = None


class _Variant(NamedTuple):
    """What the service may have got."""

    authority: str
    target: str


async def explain_refusal(answer: Answer, way: Way) -> str:
    """Say what is wrong, and how it is mended.

    Args:
        answer: What came back to a request that should have been good.
        way: How to ask again.
    """
    status = answer.status
    if status in _REDIRECTS:
        location = answer.headers.get("location", "nowhere")
        return (
            f"it redirects ({status}) to {location[:200]!a}, and Genesys follows no"
            " redirects: enter where it leads to as the URI, with wss://"
        )
    if status == _UNAUTHORIZED:
        if "www-authenticate" in answer.headers:
            return "a proxy asks for a password (401): let this path through without"
        return await _explain_unauthorized(answer, way)
    if status < _REDIRECTS_FROM:
        return (
            f"a page comes back ({status}) and no WebSocket: the name leads to another"
            " server, or a captive portal is in between"
        )
    if status in _LATE:
        return (
            f"a proxy does not reach the service ({status}): does it run, and where"
            " the proxy looks for it?"
        )
    return f"{status}: {_MENDS.get(status, 'something on the way refuses it')}"


async def _explain_unauthorized(answer: Answer, way: Way) -> str:
    if way.options.client_secret is not None:
        if (shift := _clock_shift(answer)) is not None and await _passes(
            way.connect, way.options, shift=shift
        ):
            return (
                f"401: the clocks of this machine and of the server differ by"
                f" {abs(shift):.0f} s, and signatures bear {MAX_CLOCK_SKEW:g} s: set"
                " both by NTP"
            )
        if (variant := await _find_rewriting(way)) is not None:
            return _describe(variant, way)
    if way.direct is None or not await _is_service(way.direct, way.options):
        return (
            "401: the API key or the client secret is another than the service has, or"
            " a header is lost or changed on its way. The service's log says which:"
            " handshake_refused, with its reason. Where it runs, this command can tell"
            " by itself"
        )
    if await _passes(way.direct, way.options):
        return (
            "401, and the service itself takes the same request: what is before it"
            " loses or changes a header. Host, X-API-KEY, Signature, Signature-Input"
            " and Audiohook-… must pass as they are"
        )
    return (
        "401, and the service itself refuses the same request: the API key or the"
        " client secret is another than it has (its log says handshake_refused, with"
        " the reason)"
    )


async def _is_service(direct: Connect, options: CallOptions) -> bool:
    """Tell whether a service of ours is where it is looked for on this machine."""
    endpoint = options.endpoint
    try:
        answer = await ask(
            direct, endpoint.authority, "/audiohook-check", (), upgrade=False
        )
    except (NoAnswerError, OSError, trio.BrokenResourceError, trio.TooSlowError):
        return False
    return is_ours(answer)


def _clock_shift(answer: Answer) -> float | None:
    now = time.time()
    found = offset(answer.headers.get("date", ""), now, now)
    if found is None or abs(found.least) <= MAX_CLOCK_SKEW:
        return None
    return found.least


async def _find_rewriting(way: Way) -> _Variant | None:
    """Find what the service gets in place of what was sent."""
    found: list[_Variant] = []
    limiter = trio.CapacityLimiter(_AT_A_TIME)

    async def attempt(variant: _Variant) -> None:
        async with limiter:
            if not found and await _passes(way.connect, way.options, variant):
                found.append(variant)

    async with trio.open_nursery() as nursery:
        for variant in _variants(way.options):
            nursery.start_soon(attempt, variant)
    return found[0] if found else None


def _variants(options: CallOptions) -> Iterator[_Variant]:
    """Yield what proxies make of a request, the more usual first."""
    endpoint = options.endpoint
    host, target = endpoint.host, endpoint.target
    authorities = [
        *_USUAL_BACKENDS,
        *(each for each in (host, f"{host}:{endpoint.port}", f"{host}:3000")),
    ]
    authorities = [each for each in authorities if each != endpoint.authority]
    path, question, query = target.partition("?")
    parts = path.split("/")
    shorter = ["/" + "/".join(parts[cut:]) for cut in range(2, len(parts))]
    targets = [
        path,
        *(each + question + query for each in shorter),
        *shorter,
        f"/{question}{query}",
        "/",
        path.rstrip("/") + question + query,
        f"{path}/{question}{query}",
        unquote(target),
        target.replace("//", "/"),
        target.lower(),
    ]
    targets = [
        each
        for each in dict.fromkeys(targets)
        if each != target
        and each.startswith("/")
        and each.isascii()
        and " " not in each
    ]
    for authority in authorities:
        yield _Variant(authority, target)
    for other in targets:
        yield _Variant(endpoint.authority, other)
    for authority in authorities[:4]:
        for other in targets[:4]:
            yield _Variant(authority, other)


async def _passes(
    connect: Connect,
    options: CallOptions,
    variant: _Variant | None = None,
    *,
    shift: float = 0.0,
) -> bool:
    """Tell whether a request is taken that is signed for that variant."""
    endpoint = options.endpoint
    signed_for = variant or _Variant(endpoint.authority, endpoint.target)
    now = time.time() + shift
    headers = request_headers(replace(options, client_secret=None), now=now)
    if options.client_secret is not None:
        headers += sign(
            [(b"Host", signed_for.authority.encode()), *headers],
            signed_for.target.encode(),
            secret=decode_secret(options.client_secret),
            now=now,
        )
    try:
        answer = await ask(connect, endpoint.authority, endpoint.target, headers)
    except (NoAnswerError, OSError, trio.BrokenResourceError, trio.TooSlowError):
        return False
    return answer.status == SWITCHING


def _describe(variant: _Variant, way: Way) -> str:
    endpoint = way.options.endpoint
    changes = []
    if variant.authority != endpoint.authority:
        changes.append(
            f"Host becomes {variant.authority} (nginx: proxy_set_header Host $host)"
        )
    if variant.target != endpoint.target:
        changes.append(
            f"the path becomes {variant.target} (nginx: proxy_pass without a path)"
        )
    return (
        "401: the key and the secret are right, but a proxy changes what is signed: "
        + ", and ".join(changes)
        + "; pass both on as they are"
    )
