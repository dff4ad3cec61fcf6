"""The page for people, made for a service: who may see it, and what it is shown."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from audiohook.hosts import is_loopback
from audiohook.web.access import Access, Rule
from audiohook.web.room import make_routes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.routing import BaseRoute
    from structlog.typing import FilteringBoundLogger

    from audiohook.settings import Settings
    from audiohook.web.surroundings import Surroundings


def make_page(
    settings: Settings,
    surroundings: Surroundings,
    inherited: Sequence[socket.socket],
    *,
    log: FilteringBoundLogger,
) -> Sequence[BaseRoute]:
    """Makes the page, and says who may see it.

    Args:
        settings: What the operator chose.
        surroundings: What the page knows of the service.
        inherited: Sockets that are listened on in place of the settings' address.
        log: Where lines go.
    """
    reached = _is_reached_from_outside(settings, inherited)
    rule = _rule(settings, reached=reached)
    if rule is Rule.SHUT:
        log.warning(
            "admin_page_closed",
            mend="other machines can reach the port: set ADMIN_PASSWORD, or"
            " ADMIN_CLIENT_CA, to have the page there",
        )
    elif reached:
        needs = ["client certificate"] if settings.admin_client_ca else []
        needs += ["password"] if rule is Rule.PASSWORD else []
        log.info("admin_page_open", needs=needs, tls=_has_tls(settings))
    password = settings.admin_password
    access = Access(rule, password.get_secret_value() if password else None)
    return make_routes(surroundings, access, show_numbers=settings.show_numbers)


def _rule(settings: Settings, *, reached: bool) -> Rule:
    if settings.admin_password is not None:
        return Rule.PASSWORD
    # Without one nobody gets as far as to ask for anything.
    has_certificate = settings.admin_client_ca is not None
    return Rule.SHUT if reached and not has_certificate else Rule.OPEN


def _has_tls(settings: Settings) -> bool:
    return settings.admin_tls or settings.admin_client_ca is not None


def _is_reached_from_outside(
    settings: Settings, inherited: Sequence[socket.socket]
) -> bool:
    if not inherited:
        return not is_loopback(settings.admin_host)
    return any(
        each.family != socket.AF_UNIX and not is_loopback(each.getsockname()[0])
        for each in inherited
    )
