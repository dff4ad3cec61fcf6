"""Calls through real proxies, set up as docs/load-balancer.md says."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from tests.documents import Block, typed
from tests.house import KEY
from tests.slow.processes import Site
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

pytestmark = pytest.mark.slow

SECRET = "aXQgaXMgbm8gc2VjcmV0IGlmIGl0IGlzIGhlcmUhISE="
NAME = "audiohook.example.com"
BEGIN_SECONDS = 30.0


class Proxy:
    """What stands in front of the service.

    Attributes:
        port: Where it listens, with TLS.
        authority: File of the certificate that its own is signed with.
    """

    def __init__(self, folder: Path, port: int, behind: int) -> None:
        self.port = port
        self.authority = folder / "ca.pem"
        self._folder = folder
        self._behind = behind
        ca = trustme.CA()
        ca.cert_pem.write_to_path(self.authority)
        certificate = ca.issue_cert("localhost")
        self._chain, self._key = folder / "chain.pem", folder / "key.pem"
        for pem in certificate.cert_chain_pems:
            pem.write_to_path(self._chain, append=True)
        certificate.private_key_pem.write_to_path(self._key)

    def nginx(self, page: Block) -> Sequence[str | Path]:
        server = page.text
        for old, new in {
            "listen 443 ssl": f"listen 127.0.0.1:{self.port} ssl",
            NAME: "localhost",
            "/etc/ssl/fullchain.pem": str(self._chain),
            "/etc/ssl/key.pem": str(self._key),
            "127.0.0.1:3000": f"127.0.0.1:{self._behind}",
        }.items():
            assert old in server
            server = server.replace(old, new)
        config = self._folder / "nginx.conf"
        places = "".join(
            f"{kind}_temp_path {self._folder / kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config.write_text(
            f"daemon off; master_process off; pid {self._folder / 'nginx.pid'};\n"
            f"error_log stderr; events {{}}\n"
            f"http {{ access_log off;\n{places}{server}\n}}\n"
        )
        return ("nginx", "-p", self._folder, "-c", config)

    def caddy(self, page: Block) -> Sequence[str | Path]:
        site = page.text
        for old, new in {
            NAME: f"https://localhost:{self.port}",
            "{\n": f"{{\n    bind 127.0.0.1\n    tls {self._chain} {self._key}\n",
            "127.0.0.1:3000": f"127.0.0.1:{self._behind}",
        }.items():
            assert old in site
            site = site.replace(old, new)
        config = self._folder / "Caddyfile"
        # Port 80 and the admin port may be somebody else's.
        config.write_text(f"{{\n    admin off\n    auto_https off\n}}\n{site}\n")
        return ("caddy", "run", "--adapter", "caddyfile", "--config", config)

    def is_up(self) -> bool:
        with socket.socket() as attempt:
            return attempt.connect_ex(("127.0.0.1", self.port)) == 0


@asynccontextmanager
async def standing(proxy: Proxy, command: Sequence[str | Path]) -> AsyncIterator[None]:
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env={
            "PATH": f"{os.environ['PATH']}:/usr/sbin",
            "HOME": str(proxy.authority.parent),
        },
    )
    try:
        await wait_until(proxy.is_up, BEGIN_SECONDS)
        yield
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


@pytest.mark.parametrize(
    ("kind", "page"),
    [
        ("nginx", typed("docs/load-balancer.md", "map ")),
        ("caddy", typed("docs/load-balancer.md", "audiohook.example.com {")),
    ],
    ids=["nginx", "caddy"],
)
async def test_signed_calls_pass_a_proxy_of_the_page(
    kind: str, page: Block, tmp_path: Path, port: int
) -> None:
    (folder := tmp_path / "proxy").mkdir()
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site", {"CLIENT_SECRET": SECRET})
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    async with site.serve() as server:
        proxy = Proxy(folder, port, server.port)
        uri = f"wss://localhost:{proxy.port}/audiohook?tenant=a%20b&x=%2F"
        ours = ("--ca-file", proxy.authority, "--api-key", KEY)
        async with standing(proxy, getattr(proxy, kind)(page)):
            call = await site.command(
                *("call", uri, *ours, "--client-secret", SECRET),
                *("--duration", "3", "--fast"),
            )
            assert call.returncode == 0, call.stderr.decode()
            assert b"the server kept to the protocol" in call.stdout
            wrong = await site.command(
                *("call", uri, *ours, "--client-secret", "bm90IHRoaXMgb25l"),
                *("--duration", "3", "--fast"),
            )
            assert wrong.returncode != 0
            assert b"401" in wrong.stdout + wrong.stderr
            check = await site.command(
                *("check", "--from-outside", uri, *ours, "--secret-file", secret)
            )
            told = check.stdout.decode().splitlines()
            assert [line for line in told if line.startswith("✗")] == [
                f"✗ the URI is {uri}"  # which has a port, since 443 may not be had
            ]
            assert "✓ become a WebSocket (signed)" in told
            assert "✓ be refused without a signature" in told
        await site.wait_stored()
    ((recording,),) = site.stored().values()
    assert len(recording.audio(".raw")) == 3 * 2 * 8000
