"""Whether the ports are free, or held by a service of ours that runs already."""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from audiohook.checks.exchange import NoAnswerError, ask, is_ours
from audiohook.errors import AudioHookError
from audiohook.hosts import is_loopback
from audiohook.ingest.listener import listen_fault, open_listeners
from audiohook.simulator.connection import dial
from audiohook.simulator.options import CallOptions
from audiohook.verdict import bad, doubtful, good

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from audiohook.checks.exchange import Answer
    from audiohook.checks.expectations import Expectations
    from audiohook.settings import Settings
    from audiohook.verdict import Verdict

SECONDS = 1.0

_LOOK_SECONDS: Final = 5 * SECONDS
_OUR_HEALTH: Final = frozenset({b"ok\n", b"draining\n", b"cannot record\n"})


async def check_ports(
    settings: Settings, _: Expectations
) -> AsyncGenerator[Verdict, None]:
    """Tries to listen where the service will.

    Yields:
        A verdict on each port, and on who can reach the one for figures.
    """
    yield await _try_port(
        settings.host, settings.port, ("HOST", "PORT"), partial(is_service, settings)
    )
    yield await _try_port(
        settings.admin_host,
        settings.admin_port,
        ("ADMIN_HOST", "ADMIN_PORT"),
        partial(_is_admin, settings),
    )
    if not is_loopback(settings.admin_host):
        yield _judge_exposure(settings)


def _judge_exposure(settings: Settings) -> Verdict:
    what = f"keep the admin port to friends: ADMIN_HOST is {settings.admin_host}"
    if settings.admin_password is None:
        return doubtful(
            what,
            "other machines can reach it, and there is no ADMIN_PASSWORD: set one, or"
            " set ADMIN_HOST to 127.0.0.1",
        )
    return good(
        what,
        "its pages ask for the password, but /health, /ready, /stats and /metrics do"
        " not: let a firewall decide who reads them",
    )


async def _try_port(
    host: str | None,
    port: int,
    names: tuple[str, str],
    is_ours: Callable[[], Awaitable[bool]],
) -> Verdict:
    where = f"{host or 'all addresses'}, port {port or 'any'}"
    what = f"listen on {where} ({names[1]})"
    try:
        listeners = await open_listeners(port, host)
    except OSError as error:
        if _is_taken(error):
            if await is_ours():
                return good(f"{what}: a service of ours does so already")
            return bad(
                what,
                f"another program does: {listen_fault(error, port, names=names)}"
                f" (`ss -ltnp sport = :{port}` tells which)",
            )
        return bad(what, listen_fault(error, port, names=names).partition(": ")[2])
    for listener in listeners:
        await listener.aclose()
    return good(what)


async def is_service(settings: Settings) -> bool:
    """Tells whether it is our service that listens on `Settings.port`."""
    answer = await _get(settings, settings.host, settings.port, "/audiohook-check")
    return answer is not None and is_ours(answer)


async def _is_admin(settings: Settings) -> bool:
    """Tell whether it is our service that listens on `Settings.admin_port`."""
    answer = await _get(
        settings, settings.admin_host, settings.admin_port, "/health", plain=True
    )
    return answer is not None and answer.body in _OUR_HEALTH


async def _get(
    settings: Settings,
    host: str | None,
    port: int,
    target: str,
    *,
    plain: bool = False,
) -> Answer | None:
    """Ask for a page there; None if nothing of use comes back."""
    secure = settings.tls_certificate is not None and not plain
    options = CallOptions(
        uri=f"{'wss' if secure else 'ws'}://{_reachable(host)}:{port}{target}",
        # Whose certificate it is does not matter: nothing secret is sent.
        insecure=True,
    )
    endpoint = options.endpoint
    try:
        with trio.fail_after(_LOOK_SECONDS):
            return await ask(
                partial(dial, options),
                endpoint.authority,
                endpoint.target,
                (),
                upgrade=False,
            )
    except (AudioHookError, NoAnswerError, trio.TooSlowError):
        return None


def _reachable(host: str | None) -> str:
    """Return an address of this machine that leads to where a host listens."""
    if host is None or host == "0.0.0.0":  # noqa: S104 - compared, not listened on
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host


def _is_taken(error: OSError) -> bool:
    causes = [error, *getattr(error.__cause__, "exceptions", ())]
    return any(
        isinstance(each, OSError) and each.errno == errno.EADDRINUSE for each in causes
    )
