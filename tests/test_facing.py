"""Who may see the page, and what the log says of it."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import structlog

from audiohook import settings
from audiohook.errors import ConfigError
from audiohook.facing import make_page
from tests.test_tls import write_pair

if TYPE_CHECKING:
    from collections.abc import Sequence

PASSWORD = "a long enough password"


def lines_of(
    *, inherited: Sequence[socket.socket] = (), **flags: object
) -> list[dict[str, Any]]:
    chosen = settings.load(env_file=Path(os.devnull), **flags)
    with structlog.testing.capture_logs() as lines:
        log = structlog.get_logger()
        around = cast("Any", SimpleNamespace(log=log))
        make_page(chosen, around, inherited, log=log)
    return cast("list[dict[str, Any]]", lines)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_on_loopback_there_is_nothing_to_say(host: str) -> None:
    assert lines_of(admin_host=host) == []
    assert lines_of(admin_host=host, admin_password=PASSWORD) == []


def test_page_that_is_closed_is_told() -> None:
    (line,) = lines_of(admin_host="0.0.0.0")
    assert (line["event"], line["log_level"]) == ("admin_page_closed", "warning")
    assert "ADMIN_PASSWORD" in line["mend"]


def test_what_the_page_needs_is_told(tmp_path: Path) -> None:
    (line,) = lines_of(admin_host="0.0.0.0", admin_password=PASSWORD)
    assert line["event"] == "admin_page_open"
    assert (line["needs"], line["tls"]) == (["password"], False)
    assert PASSWORD not in str(line)
    chain, key = write_pair(tmp_path)
    (line,) = lines_of(
        admin_host="0.0.0.0",
        admin_client_ca=chain,
        tls_certificate=chain,
        tls_key=key,
    )
    assert (line["needs"], line["tls"]) == (["client certificate"], True)


def test_socket_of_the_service_manager_counts_and_not_the_setting() -> None:
    with socket.create_server(("0.0.0.0", 0)) as everywhere:
        (line,) = lines_of(inherited=[everywhere])
        assert line["event"] == "admin_page_closed"
    with socket.create_server(("127.0.0.1", 0)) as here:
        assert lines_of(inherited=[here], admin_host="0.0.0.0") == []


@pytest.mark.parametrize("password", ["short", "tab\tin the middle", "x" * 11])
def test_password_that_is_none_is_refused(password: str) -> None:
    with pytest.raises(ConfigError, match="ADMIN_PASSWORD: ") as caught:
        lines_of(admin_password=password)
    assert password not in str(caught.value)
