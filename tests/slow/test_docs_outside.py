"""The pages about the way in from outside, typed to the last digit: TLS, a public name."""

from __future__ import annotations

import re
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from tests.documents import ROOT, typed
from tests.house import KEY
from tests.slow.alone import NAME, own_network
from tests.slow.desk import ANSWER_SECONDS, going_on, shell
from tests.slow.processes import Site
from tests.test_tls import AUTHORITY, write_pair

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.documents import Block

pytestmark = pytest.mark.slow


@asynccontextmanager
async def machine(tmp_path: Path) -> AsyncIterator[Site]:
    """A machine with that public name, whose certificate everybody there trusts."""
    authority = tmp_path / "authority.pem"
    AUTHORITY.cert_pem.write_to_path(authority)
    site = Site(
        tmp_path, {"SSL_CERT_FILE": str(authority), "CURL_CA_BUNDLE": str(authority)}
    )
    site.settings |= {"HOST": "127.0.0.1", "PORT": "443", "ADMIN_PORT": "9090"}
    (site.work / ".venv").symlink_to(ROOT / ".venv")
    async with own_network(tmp_path, site.work) as prefix:
        # The key is what the pages have one make.
        site.prefix = (*prefix, "env", "-u", "API_KEY")
        yield site


def certified(site: Site, text: str) -> str:
    """Returns settings of a page, with a certificate that is there."""
    chain, key = write_pair(site.base, host=NAME)
    text = re.sub("(?<=TLS_CERTIFICATE=).*", str(chain), text)
    return re.sub("(?<=TLS_KEY=).*", str(key), text)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with machine(tmp_path) as made:
        yield made


def write_settings(site: Site, *texts: str) -> None:
    (path := site.work / ".env").write_text("\n".join(texts))
    path.chmod(0o600)


async def test_service_is_reached_by_its_public_name(site: Site) -> None:
    made = await shell(site, typed("docs/genesys.md", "API_KEY=$(").text)
    api_key, secret = re.findall("=(.*)", made)
    (site.work / "secret").write_text(secret)
    tls = typed("docs/load-balancer.md", "TLS_CERTIFICATE=")
    write_settings(site, made, certified(site, tls.text))
    async with site.serve() as server:
        for block in (
            typed("docs/troubleshooting.md", "audiohook check"),
            typed("docs/genesys.md", "audiohook check --from-outside"),
        ):
            for command in block.commands():
                told = await shell(site, filled_in(command, api_key, "secret"))
                assert "✗" not in told
        # Here both are taken from .env.
        asked = await shell(
            site, typed("docs/first-hour.md", ". .venv/bin/activate\naudiohook").text
        )
        for line in ("become a WebSocket (signed)", "be refused without a signature"):
            assert f"✓ {line}" in asked
        (call,) = typed("docs/first-hour.md", "audiohook call wss:").commands()
        said = await shell(site, call)
        assert "the server kept to the protocol" in said
        assert server.lines("call_opened")[-1]["probe"] is False
        await offer(site, typed("docs/security.md", "openssl s_client"))


def filled_in(command: str, *values: str) -> str:
    """Puts what the reader has in the places of …, one after the other."""
    for value in values:
        command = command.replace("…", value, 1)
    return command


async def offer(site: Site, block: Block) -> None:
    """Offers what the page says is refused, and hears that it is."""
    for line in block.lines:
        command, _, comment = line.partition("#")
        answer = comment.split('"')[1] if '"' in comment else comment.strip()
        process = await trio.lowlevel.open_process(
            [*site.prefix, "bash", "-c", f"{command.replace('HOST', NAME)} 2>&1"],
            env=site.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        heard = b""
        try:
            with trio.fail_after(ANSWER_SECONDS):
                assert process.stdin is not None
                assert process.stdout is not None
                # Read once there is a connection, by what has no other input.
                await process.stdin.send_all(b"R\n")
                while answer.encode() not in heard:
                    more = await process.stdout.receive_some()
                    assert more, (line, heard)
                    heard += more
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


async def test_admin_port_knows_people_by_their_certificates(site: Site) -> None:
    made = typed("docs/page.md", "openssl req -x509")
    # The last one asks twice for a passphrase.
    await shell(site, made.text, answers="passphrase\n" * 2)
    settings = typed("docs/page.md", "ADMIN_HOST=")
    (password,) = re.findall("ADMIN_PASSWORD=(.*)", settings.text)
    write_settings(
        site,
        f"API_KEY={KEY}",
        certified(site, settings.text),
        f"ADMIN_CLIENT_CA={site.work / 'clients.pem'}",
    )
    place = f"https://{NAME}:9090"
    anna = "curl --cert anna.pem --key anna.key"
    browser = "curl --cert anna.p12:passphrase --cert-type P12"
    async with site.serve():
        assert await shell(site, f"! curl -sS {place}/health 2>&1")
        assert "ok" in await shell(site, f"{anna} {place}/health")
        assert "ok" in await shell(site, f"{browser} {place}/health")
        page = await shell(site, f"{anna} -L {place}/")
        assert "password" in page
        assert password not in page


async def test_page_is_seen_from_afar_through_ssh(tmp_path: Path) -> None:
    """The desk has a network of its own, too, and reaches the machine by ssh alone."""
    (command,) = typed("docs/page.md", "ssh -L").commands()
    for name in ("machine", "desk"):
        (tmp_path / name).mkdir()
    afar = Site(tmp_path / "desk")
    async with (
        machine(tmp_path / "machine") as site,
        own_network(afar.base, afar.work) as afar.prefix,
    ):
        write_settings(site, f"API_KEY={KEY}")
        ssh = configure_ssh(afar.base, site)
        async with (
            site.serve(PORT="3000"),
            going_on(afar, command.replace("ssh", ssh, 1)),
        ):
            ask = "curl --retry 60 --retry-delay 1 --retry-connrefused"
            assert "<html" in await shell(afar, f"{ask} -L http://127.0.0.1:9090/")


def configure_ssh(desk: Path, site: Site) -> str:
    """Lets the desk come to the machine by ssh; how ssh is to be called for that."""
    for name in ("host", "client"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", desk / name],
            check=True,
        )
    daemon = desk / "sshd_config"
    daemon.write_text(
        f"HostKey {desk / 'host'}\n"
        f"AuthorizedKeysFile {desk / 'client.pub'}\n"
        "StrictModes no\nPermitRootLogin yes\nUsePAM no\n"
    )
    prefix = " ".join(site.prefix)
    client = desk / "ssh_config"
    client.write_text(
        f"Host machine\n"
        f"    ProxyCommand {prefix} /usr/sbin/sshd -i -f {daemon}\n"
        f"    IdentityFile {desk / 'client'}\n"
        "    StrictHostKeyChecking no\n"
        f"    UserKnownHostsFile {desk / 'known'}\n"
    )
    return f"ssh -F {client}"
