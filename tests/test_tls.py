from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest
import trustme

from audiohook import settings
from audiohook.errors import ConfigError
from audiohook.simulator.connection import tls_context
from audiohook.simulator.options import CallOptions
from audiohook.tls import make_admin_tls_context, make_tls_context
from tests.checks.certificates import Authorities
from tests.house import KEY

AUTHORITY = trustme.CA(key_type=trustme.KeyType.ECDSA)


def write_pair(
    folder: Path, name: str = "a", *, host: str = "127.0.0.1"
) -> tuple[Path, Path]:
    """Writes a certificate's chain and its key."""
    issued = AUTHORITY.issue_cert(host, key_type=trustme.KeyType.ECDSA)
    chain, key = folder / f"{name}.pem", folder / f"{name}.key"
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return chain, key


def chosen(**flags: object) -> settings.Settings:
    return settings.load(env_file=Path(os.devnull), api_key=KEY, **flags)


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """Runs both sides of a handshake in memory; the client's side of it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    ours = client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    done: set[ssl.SSLObject] = set()
    for _ in range(10):
        for side in (ours, theirs):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                pass
        if len(done) == 2:
            return ours
    raise AssertionError("the handshake does not come to its end")


def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    AUTHORITY.configure_trust(context)
    return context


def test_without_a_certificate_there_is_no_tls() -> None:
    assert make_tls_context(chosen()) is None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_client_that_trusts_the_authority_gets_in(
    tmp_path: Path, version: ssl.TLSVersion
) -> None:
    chain, key = write_pair(tmp_path)
    context = make_tls_context(chosen(tls_certificate=chain, tls_key=key))
    assert context is not None
    client = client_context()
    client.minimum_version = client.maximum_version = version
    assert shake_hands(context, client).version() == version.name.replace("_", ".")


def test_no_older_version_and_no_tickets(tmp_path: Path) -> None:
    chain, key = write_pair(tmp_path)
    context = make_tls_context(chosen(tls_certificate=chain, tls_key=key))
    assert context is not None
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.num_tickets == 0
    assert context.options & ssl.OP_NO_COMPRESSION
    # Nobody is asked for a certificate of his own.
    assert context.verify_mode is ssl.CERT_NONE


def test_key_of_another_certificate_is_one_line(tmp_path: Path) -> None:
    chain, _ = write_pair(tmp_path, "a")
    _, key = write_pair(tmp_path, "b")
    with pytest.raises(ConfigError) as caught:
        make_tls_context(chosen(tls_certificate=chain, tls_key=key))
    line = str(caught.value)
    assert line.startswith("TLS_CERTIFICATE: cannot be used with TLS_KEY (")
    assert "\n" not in line


@pytest.mark.parametrize("spoilt", ["chain", "key"])
def test_file_that_is_no_pem_is_one_line(tmp_path: Path, spoilt: str) -> None:
    chain, key = write_pair(tmp_path)
    (chain if spoilt == "chain" else key).write_text("nonsense")
    with pytest.raises(ConfigError, match=r"^TLS_CERTIFICATE: cannot be used"):
        make_tls_context(chosen(tls_certificate=chain, tls_key=key))


# Python 3.13 refuses an authority that does not say what its key is for, unless it is
# told not to; openssl makes such ones.
def test_clients_of_an_authority_that_openssl_made_get_in(tmp_path: Path) -> None:
    chain, key = write_pair(tmp_path)
    clients = Authorities(tmp_path, plain=True)
    context = make_admin_tls_context(
        chosen(tls_certificate=chain, tls_key=key, admin_client_ca=clients.roots)
    )
    assert context is not None
    client = client_context()
    client.load_cert_chain(*clients.issue("anna"))
    assert shake_hands(context, client).version() == "TLSv1.3"


def test_server_of_an_authority_that_openssl_made_is_trusted(tmp_path: Path) -> None:
    authority = Authorities(tmp_path, plain=True)
    chain, key = authority.issue("127.0.0.1")
    server = make_tls_context(chosen(tls_certificate=chain, tls_key=key))
    assert server is not None
    client = tls_context(CallOptions(uri="wss://127.0.0.1/", ca_file=authority.roots))
    client.check_hostname = False
    assert shake_hands(server, client).version() == "TLSv1.3"
