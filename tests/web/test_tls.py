"""The admin port where other machines reach it: TLS, and certificates of clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trustme

from audiohook.errors import ConfigError
from tests.house import house
from tests.test_tls import AUTHORITY, chosen, client_context, write_pair
from tests.web.visiting import PASSWORD

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

CLIENTS = trustme.CA(key_type=trustme.KeyType.ECDSA)


def tls_flags(folder: Path) -> dict[str, Any]:
    chain, key = write_pair(folder)
    return {"tls_certificate": chain, "tls_key": key}


def client(context: ssl.SSLContext, port: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"https://127.0.0.1:{port}", verify=context)


async def test_password_goes_over_tls(tmp_path: Path) -> None:
    flags = tls_flags(tmp_path)
    async with house(
        tmp_path / "r", admin_tls=True, admin_password=PASSWORD, **flags
    ) as it:
        async with client(client_context(), it.service.admin_port) as browser:
            assert (await browser.get("/health")).status_code == 200
            text = (await browser.get("/login")).text
            token = text.partition('name="token" value="')[2][:64]
            answer = await browser.post(
                "/login",
                data={"token": token, "password": PASSWORD},
                headers={"sec-fetch-site": "same-origin"},
            )
            assert answer.status_code == 303
            assert answer.headers["set-cookie"].endswith("; Secure")
            assert (await browser.get("/")).status_code == 200


async def test_client_with_a_certificate_needs_no_password(tmp_path: Path) -> None:
    flags = tls_flags(tmp_path)
    ca = tmp_path / "clients.pem"
    ca.write_bytes(CLIENTS.cert_pem.bytes())
    async with house(
        tmp_path / "r", admin_host="0.0.0.0", admin_client_ca=ca, **flags
    ) as it:
        port = it.service.admin_port
        known = client_context()
        issued = CLIENTS.issue_cert("operator", key_type=trustme.KeyType.ECDSA)
        issued.configure_cert(known)
        async with client(known, port) as browser:
            assert (await browser.get("/")).status_code == 200
        stranger = client_context()
        other = AUTHORITY.issue_cert("operator", key_type=trustme.KeyType.ECDSA)
        other.configure_cert(stranger)
        for context in (client_context(), stranger):
            async with client(context, port) as browser:
                with pytest.raises(httpx.TransportError):
                    await browser.get("/health")
        # The service goes on, and so it does after its certificate was renewed.
        await it.service.reload()
        async with client(client_context(), port) as browser:
            with pytest.raises(httpx.TransportError):
                await browser.get("/")
        async with client(known, port) as browser:
            assert (await browser.get("/")).status_code == 200


async def test_renewed_certificate_is_shown_from_then_on(tmp_path: Path) -> None:
    flags = tls_flags(tmp_path)
    async with house(tmp_path / "r", admin_tls=True, **flags) as it:
        port = it.service.admin_port

        async def serial() -> str:
            async with client(client_context(), port) as browser:
                answer = await browser.get("/health")
                stream = answer.extensions["network_stream"]
                found = stream.get_extra_info("ssl_object").getpeercert()
                return str(found["serialNumber"])

        before = await serial()
        write_pair(tmp_path)
        assert await serial() == before
        await it.service.reload()
        assert await serial() != before


@pytest.mark.parametrize(
    "flag", [{"admin_tls": True}, {"admin_client_ca": "/dev/null"}]
)
def test_tls_of_the_port_goes_with_a_certificate(flag: dict[str, object]) -> None:
    (name,) = flag
    with pytest.raises(ConfigError, match=f"{name.upper()}: goes with TLS_CERTIFICATE"):
        chosen(**flag)


async def test_certificates_that_are_none_stop_the_start(tmp_path: Path) -> None:
    flags = tls_flags(tmp_path)
    ca = tmp_path / "clients.pem"
    ca.write_text("nonsense")
    with pytest.raises(ConfigError, match="ADMIN_CLIENT_CA: cannot be used"):
        async with house(tmp_path / "r", admin_client_ca=ca, **flags):
            pass
