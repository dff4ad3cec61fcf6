from __future__ import annotations

import base64
import io
import json
import socket
import ssl
import time
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest
import trio
from rich.console import Console

from audiohook.checks import (
    Approach,
    Findings,
    approach_of,
    check_from_outside,
    outside,
)
from audiohook.errors import ConfigError
from tests.checks.between import Between, with_host, with_target, without
from tests.checks.certificates import Authorities, make_authority, pem
from tests.checks.tools import load
from tests.house import KEY, House, house

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

SECRET = base64.b64encode(b"a secret of some length, not shown").decode()
TARGET = "/api/v1/audiohook?tenant=a%20b"


@pytest.fixture(autouse=True)
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the service refuse at once, as it does half a second later."""
    monkeypatch.setattr("audiohook.desk.FAILURE_DELAY", 0.0)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path / "house", client_secret=SECRET) as it:
        yield it


@pytest.fixture
def authorities(tmp_path: Path) -> Authorities:
    return Authorities(tmp_path)


def context_of(chain: Path, key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, key)
    return context


async def told(approach: Approach) -> tuple[int, str]:
    out = io.StringIO()
    code = await check_from_outside(approach, Findings(Console(file=out, width=999)))
    assert SECRET not in out.getvalue()
    assert KEY not in out.getvalue()
    return code, out.getvalue()


@asynccontextmanager
async def running(between: Between) -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:
        yield await nursery.start(between.serve)
        nursery.cancel_scope.cancel()


async def through(
    between: Between,
    authorities: Authorities,
    **changes: Any,  # noqa: ANN401
) -> tuple[int, str]:
    """Checks a service through a proxy that ends TLS well."""
    if between.tls is None:
        between.tls = context_of(*authorities.issue())
    async with running(between) as port:
        options: dict[str, Any] = {
            "uri": f"wss://localhost:{port}{TARGET}",
            "api_key": KEY,
            "client_secret": SECRET,
            "ca_file": authorities.roots,
            **changes,
        }
        return await told(Approach(**options))


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes this machine for a public one, and any port for 443."""
    monkeypatch.setattr(outside, "is_private", lambda _: False)

    class AnyPort:
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = object.__hash__

    monkeypatch.setattr(outside, "GENESYS_PORT", AnyPort())


class _OneAddress(trio.abc.HostnameResolver):
    """Finds one address of any name; elsewhere that of this machine may have two."""

    async def getaddrinfo(self, *args: object, **_kwargs: object) -> list[Any]:
        await trio.lowlevel.checkpoint()
        kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        return [(*kind, "", ("127.0.0.1", args[1]))]

    async def getnameinfo(self, *_args: object) -> tuple[str, str]:
        raise AssertionError("nobody asks for names")


@pytest.mark.usefixtures("public")
async def test_healthy_way_has_a_mark_on_each_line(
    service: House, authorities: Authorities
) -> None:
    trio.socket.set_custom_hostname_resolver(_OneAddress())
    code, out = await through(Between(service.port), authorities)
    assert code == 0
    lines = out.splitlines()
    assert all(line.startswith("✓ ") for line in lines), out
    for step in (
        "the URI is wss://localhost:",
        "look up localhost: ",
        "connect to 127.0.0.1 (TLS)",
        "its certificate is good until ",
        "become a WebSocket (signed)",
        "have the probe answered in ",
        "be refused with another API key",
        "be refused without a signature",
    ):
        assert sum(line.startswith(f"✓ {step}") for line in lines) == 1, step
    # A probe is no call.
    assert service.recordings() == []
    assert service.spooled() == []


async def test_uri_that_genesys_cannot_use_is_told(service: House) -> None:
    code, out = await told(Approach(uri=service.uri, api_key=KEY, client_secret=SECRET))
    assert code == 1
    assert "→ Genesys connects with TLS only: wss://" in out
    # All the rest is tried nevertheless.
    assert "✓ have the probe answered" in out
    assert "! look up 127.0.0.1" in out
    assert "is not to be reached by Genesys" in out


async def test_port_that_genesys_never_tries_is_told(
    service: House, authorities: Authorities
) -> None:
    _, out = await through(Between(service.port), authorities)
    assert "→ Genesys connects to port 443 only" in out


async def test_name_that_is_not_there_is_told() -> None:
    code, out = await told(Approach(uri="wss://no-such-host.invalid/", api_key=KEY))
    assert code == 1
    assert "✗ look up no-such-host.invalid\n" in out
    assert "public DNS" in out


async def test_port_that_nobody_listens_on_is_told() -> None:
    code, out = await told(Approach(uri="wss://127.0.0.1:9/", api_key=KEY))
    assert code == 1
    assert "✗ connect to 127.0.0.1 (TLS)\n  → connection refused: does any" in out


CERTIFICATES: dict[str, tuple[dict[str, Any], str]] = {
    "self-signed": ({"self_signed": True}, "it is self-signed"),
    "expired": ({"begins": -9, "days": -1}, "it has expired"),
    "not valid yet": ({"begins": 5}, "it is not valid yet"),
    "for another name": ({"name": "example.com"}, "it is for another name"),
    "without its chain": ({"with_chain": False}, "its chain does not lead to a"),
}


@pytest.mark.parametrize("fault", CERTIFICATES)
async def test_certificate_that_genesys_refuses_is_told(
    service: House, authorities: Authorities, fault: str
) -> None:
    wrong, words = CERTIFICATES[fault]
    between = Between(service.port, tls=context_of(*authorities.issue(**wrong)))
    code, out = await through(between, authorities)
    assert code == 1
    assert f"✗ connect to 127.0.0.1 (TLS)\n  → {words}" in out
    # Nothing is sent to somebody who has not shown who he is.
    assert between.seen == []


async def test_authority_that_is_not_public_is_told(
    service: House, authorities: Authorities
) -> None:
    between = Between(service.port, tls=context_of(*authorities.issue()))
    other = authorities.roots.with_name("others.pem")
    other.write_bytes(pem(make_authority("Another").certificate))
    code, out = await through(between, authorities, ca_file=other)
    assert code == 1
    assert "public authority must have issued it" in out


async def test_certificate_that_ends_soon_is_told(
    service: House, authorities: Authorities
) -> None:
    between = Between(service.port, tls=context_of(*authorities.issue(days=10.5)))
    _, out = await through(between, authorities)
    assert "! its certificate is good until " in out
    assert "→ 10 days are left: renew it" in out


async def test_port_without_tls_is_told(
    service: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside, "CONNECT_SECONDS", 0.3)
    uri = f"wss://localhost:{service.port}/"
    code, out = await told(Approach(uri=uri, api_key=KEY))
    assert code == 1
    assert "no answer to TLS: does what listens there speak it?" in out
    other = Between(0, answer=b"220 mail.example.com ESMTP\r\n")
    async with running(other) as port:
        approach = Approach(uri=f"wss://localhost:{port}/", api_key=KEY)
        code, out = await told(approach)
    assert code == 1


HTTP2_SETTINGS = b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64"

ANSWERS = {
    "redirect": (
        (
            b"HTTP/1.1 301 Moved\r\nLocation: https://www.example.com/x\r\n"
            b"Content-Length: 0\r\n\r\n"
        ),
        "it redirects (301) to 'https://www.example.com/x'",
    ),
    "web page": (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
        "a page comes back (200) and no WebSocket",
    ),
    "password": (
        b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n",
        "a proxy asks for a password (401)",
    ),
    "forbidden": (b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", "403: something f"),
    "path": (b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", "404: nothing is served"),
    "no service": (
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
        "a proxy does not reach the service (502)",
    ),
    "HTTP/2": (HTTP2_SETTINGS, "it speaks HTTP/2 only"),
    "nonsense": (b"SSH-2.0-OpenSSH_9.2\r\n", "the answer is not HTTP"),
    "nothing": (b"", "the connection was closed without an answer"),
    "subprotocol": (
        (
            b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
            b"Sec-WebSocket-Protocol: chat\r\n\r\n"
        ),
        "something chose the protocol 'chat', which nobody offered",
    ),
}


@pytest.mark.parametrize("fault", ANSWERS)
async def test_answer_of_somebody_else_is_told(
    service: House, authorities: Authorities, fault: str
) -> None:
    answer, words = ANSWERS[fault]
    code, out = await through(Between(service.port, answer=answer), authorities)
    assert code == 1
    assert f"✗ become a WebSocket (signed)\n  → {words}" in out


async def test_proxy_that_offers_http2_alone_is_told(
    service: House, authorities: Authorities
) -> None:
    context = context_of(*authorities.issue())
    context.set_alpn_protocols(["h2"])
    between = Between(service.port, tls=context, answer=HTTP2_SETTINGS)
    code, out = await through(between, authorities)
    assert code == 1
    assert "it speaks HTTP/2 only" in out


PROXIES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "Host": (with_host("127.0.0.1:3000"), "Host becomes 127.0.0.1:3000"),
    "path": (with_target("/?tenant=a%20b"), "the path becomes /?tenant=a%20b"),
    "prefix": (
        with_target("/audiohook?tenant=a%20b"),
        "the path becomes /audiohook?tenant=a%20b",
    ),
    "query": (with_target("/api/v1/audiohook"), "the path becomes /api/v1/audiohook ("),
    "upgrade": (without("Upgrade", "Connection"), "it comes without Upgrade and Conn"),
}


@pytest.mark.parametrize("fault", PROXIES)
async def test_proxy_that_changes_a_request_is_told_from_a_wrong_secret(
    service: House, authorities: Authorities, fault: str
) -> None:
    change, words = PROXIES[fault]
    code, out = await through(Between(service.port, change), authorities)
    assert code == 1
    assert words in out


LOST = {
    "Signature": ("Signature",),
    "X-API-KEY": ("X-API-KEY",),
    "Audiohook-…": ("Audiohook-Organization-Id", "Audiohook-Session-Id"),
}


@pytest.mark.parametrize("lost", LOST)
async def test_proxy_that_loses_a_header_is_told_where_the_service_is_near(
    service: House, authorities: Authorities, lost: str
) -> None:
    between = Between(service.port, without(*LOST[lost]))
    code, out = await through(between, authorities, direct_port=service.port)
    assert code == 1
    assert "the service itself takes the same request" in out


async def test_both_causes_are_told_where_the_service_is_far(
    service: House, authorities: Authorities
) -> None:
    between = Between(service.port, without("Signature-Input"))
    code, out = await through(between, authorities)
    assert code == 1
    assert "or a header is lost or changed on its way" in out


@pytest.mark.parametrize(
    "wrong",
    [
        {"client_secret": base64.b64encode(b"another").decode()},
        {"api_key": "another"},
    ],
)
async def test_wrong_key_or_secret_is_told_from_a_proxy(
    service: House, authorities: Authorities, wrong: dict[str, str]
) -> None:
    between = Between(service.port)
    code, out = await through(between, authorities, direct_port=service.port, **wrong)
    assert code == 1
    assert "and the service itself refuses the same request" in out


async def test_somebody_else_on_the_port_is_not_taken_for_the_service(
    service: House, authorities: Authorities
) -> None:
    other = Between(0, answer=b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    async with running(other) as port:
        _, out = await through(
            Between(service.port), authorities, direct_port=port, api_key="another"
        )
    assert "The service's log says which" in out


async def test_clocks_that_differ_are_told(
    tmp_path: Path, authorities: Authorities
) -> None:
    ahead = 600.0

    def dated(head: bytes) -> bytes:
        date = formatdate(time.time() + ahead, usegmt=True).encode()
        return head.replace(b"\r\n", b"\r\nDate: " + date + b"\r\n", 1)

    async with house(
        tmp_path / "ahead", lambda: time.time() + ahead, client_secret=SECRET
    ) as it:
        code, out = await through(Between(it.port, back=dated), authorities)
    assert code == 1
    assert "the clocks of this machine and of the server differ by " in out


async def test_service_that_takes_unsigned_requests_is_told(
    tmp_path: Path, authorities: Authorities
) -> None:
    async with house(tmp_path / "open") as it:
        # The proxy loses the signature, and so nobody notices but this.
        change = without("Signature", "Signature-Input")
        code, out = await through(Between(it.port, change), authorities)
        assert code == 1
        assert "✗ be refused without a signature\n  → it takes unsigned" in out
        code, out = await through(
            Between(it.port, change), authorities, client_secret=None
        )
        assert "! sign requests\n  → without a client secret" in out


async def test_service_that_is_full_is_told(
    tmp_path: Path, authorities: Authorities
) -> None:
    full: dict[str, Any] = {"spool_low_water_mib": 10**9, "client_secret": SECRET}
    async with house(tmp_path / "full", **full) as it:
        code, out = await through(Between(it.port), authorities)
    assert code == 1
    assert "the service takes no call now (disconnect error): /ready of its" in out


async def test_proxy_that_hangs_up_on_quiet_connections_is_told(
    service: House, authorities: Authorities, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside, "PATIENCE", 0.5)
    between = Between(service.port, idle_limit=0.2)
    code, out = await through(between, authorities, patient=True)
    assert code == 1
    assert "something on the way has an idle limit" in out
    code, out = await through(Between(service.port), authorities, patient=True)
    assert "✓ stay connected for 0.5 s without a word" in out


async def test_verdicts_as_json(service: House) -> None:
    out = io.StringIO()
    approach = Approach(uri=service.uri, api_key=KEY, client_secret=SECRET)
    findings = Findings(Console(file=out, soft_wrap=True), as_json=True)
    assert await check_from_outside(approach, findings) == 1
    report = json.loads(out.getvalue())
    assert report["ok"] is False
    assert {each["check"] for each in report["verdicts"]} == {"outside"}
    results = [each["result"] for each in report["verdicts"]]
    assert results[:3] == ["fault", "warning", "ok"]


def test_approach_takes_key_and_secret_of_the_settings(tmp_path: Path) -> None:
    chosen = load(api_key=KEY, client_secret=SECRET, port=3001)
    uri = "wss://example.com/"
    found = approach_of(uri, chosen, api_key=None, secret_file=None)
    assert (found.api_key, found.client_secret) == (KEY, SECRET)
    assert found.direct_port == 3001
    # The secret belongs to that key only.
    found = approach_of(uri, chosen, api_key="other", secret_file=None)
    assert found.client_secret is None
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    found = approach_of(uri, load(), api_key="other", secret_file=path)
    assert (found.api_key, found.client_secret) == ("other", SECRET)


@pytest.mark.parametrize(
    ("key", "name", "words"),
    [(None, None, "--api-key: give"), ("k", "absent", "--secret-file: .*No such")],
)
def test_approach_that_is_not_whole_is_one_line(
    tmp_path: Path, key: str | None, name: str | None, words: str
) -> None:
    path = tmp_path / name if name else None
    with pytest.raises(ConfigError, match=words):
        approach_of("wss://x/", load(), api_key=key, secret_file=path)


async def test_secret_that_is_not_base64_is_one_line() -> None:
    approach = Approach(uri="wss://x/", api_key="k", client_secret="no base64!")
    with pytest.raises(ConfigError, match="the client secret is not base64"):
        await told(approach)
