"""What the server offers to a client that speaks TLS, old or new."""

from __future__ import annotations

import contextlib
import ssl
import warnings
from typing import TYPE_CHECKING

import pytest
import trustme

from audiohook import settings
from audiohook.tls import make_tls_context
from tests.house import KEY

if TYPE_CHECKING:
    from pathlib import Path

    from trustme import KeyType


def make_server(
    folder: Path, key_type: KeyType = trustme.KeyType.ECDSA
) -> ssl.SSLContext:
    authority = trustme.CA(key_type=key_type)
    pem = folder / "pem"
    authority.issue_cert(
        "localhost", key_type=key_type
    ).private_key_and_cert_chain_pem.write_to_path(pem)
    context = make_tls_context(
        settings.load(
            env_file=folder / "none", tls_certificate=pem, tls_key=pem, api_key=KEY
        )
    )
    assert context is not None
    return context


def make_client() -> ssl.SSLContext:
    """A client that takes whatever there is."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    client.set_ciphers("ALL:@SECLEVEL=0")
    return client


def shake(
    server: ssl.SSLContext, client: ssl.SSLContext
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Brings both to the end of a handshake, server first."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server)
    waiting = {ours, theirs}
    for _ in range(10):
        for side in tuple(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.discard(side)
        if not waiting:
            # What may follow a handshake, such as a ticket.
            ours.write(b"x")
            assert theirs.read(1) == b"x"
            return ours, theirs
    raise AssertionError("no end of it")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_versions_are_refused(tmp_path: Path, version: ssl.TLSVersion) -> None:
    client = make_client()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        client.minimum_version = client.maximum_version = version
    with pytest.raises(ssl.SSLError):
        shake(make_server(tmp_path), client)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_new_versions_are_spoken_without_compression(
    tmp_path: Path, version: ssl.TLSVersion
) -> None:
    client = make_client()
    client.minimum_version = client.maximum_version = version
    ours, theirs = shake(make_server(tmp_path), client)
    assert ours.version() == version.name.replace("_", ".")
    assert ours.compression() is None
    assert theirs.session is not None


@pytest.mark.parametrize("key_type", trustme.KeyType)
def test_tls_1_2_keeps_secrets_and_has_no_padding(
    tmp_path: Path, key_type: KeyType
) -> None:
    server, client = make_server(tmp_path, key_type), make_client()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    taken = set()
    old = [each for each in client.get_ciphers() if each["protocol"] != "TLSv1.3"]
    assert len(old) > 50
    for cipher in old:
        one = make_client()
        one.maximum_version = ssl.TLSVersion.TLSv1_2
        one.set_ciphers(f"{cipher['name']}:@SECLEVEL=0")
        try:
            ours, _ = shake(server, one)
        except ssl.SSLError:
            continue
        chosen = ours.cipher()
        assert chosen is not None
        taken.add(chosen[0])
    kind = key_type.name
    assert taken == {
        f"ECDHE-{kind}-AES128-GCM-SHA256",
        f"ECDHE-{kind}-AES256-GCM-SHA384",
        f"ECDHE-{kind}-CHACHA20-POLY1305",
    }


def test_tls_1_3_gives_no_tickets(tmp_path: Path) -> None:
    _, theirs = shake(make_server(tmp_path), make_client())
    assert theirs.version() == "TLSv1.3"
    assert theirs.session is None or not theirs.session.has_ticket


def test_renegotiation_and_compression_are_off(tmp_path: Path) -> None:
    server = make_server(tmp_path)
    assert server.options & ssl.OP_NO_RENEGOTIATION
    assert server.options & ssl.OP_NO_COMPRESSION
    assert server.options & ssl.OP_CIPHER_SERVER_PREFERENCE


def test_handshakes_leave_no_sessions_behind(tmp_path: Path) -> None:
    server = make_server(tmp_path)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        client = make_client()
        client.minimum_version = client.maximum_version = version
        for _ in range(3):
            ours, _ = shake(server, client)
            # A session counts as good, and is kept, once goodbye was said.
            with contextlib.suppress(ssl.SSLError):
                ours.unwrap()
    assert server.session_stats()["number"] == 0
