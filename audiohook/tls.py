"""TLS in the process: what a certificate and its key become."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

from audiohook.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from audiohook.settings import Settings

# What OpenSSL calls it, and what it is.
_REASONS: Final = {
    "KEY_VALUES_MISMATCH": "the key is that of another certificate",
    "KEY_TYPE_MISMATCH": "the key is that of another certificate",
    "EE_KEY_TOO_SMALL": "its key is too short: take RSA with 2048 bits, or P-256",
    "CA_KEY_TOO_SMALL": "a key of its chain is too short",
    "CA_MD_TOO_WEAK": "a signature in its chain is SHA-1 or MD5",
    "NO_START_LINE": "one of the two is no PEM file",
    "PEM_LIB": "one of the two is no PEM file",
}


def make_tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Loads the certificate, if there is to be TLS in the process.

    Blocking.

    Raises:
        ConfigError: The certificate or its key cannot be used.
    """
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Each call is a connection of its own for hours: tickets would only cost work
    # in a storm, and a client that closes with one unread resets the connection.
    context.num_tickets = 0
    # A client that may ask for handshake after handshake costs far more than it pays.
    context.options |= ssl.OP_NO_RENEGOTIATION
    # Of TLS 1.2, what keeps a recorded call secret when the key is lost later on, and
    # has no padding to be probed. All of TLS 1.3 is such, and is not listed here.
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    was_asked = False

    def no_passphrase() -> str:
        # Without this OpenSSL would ask whoever sits at the terminal, and wait.
        nonlocal was_asked
        was_asked = True
        return ""

    try:
        context.load_cert_chain(
            settings.tls_certificate, settings.tls_key, password=no_passphrase
        )
    except (ssl.SSLError, OSError) as error:
        if was_asked:
            raise ConfigError(
                f"TLS_KEY: {settings.tls_key} is protected by a passphrase, which"
                " nobody can type at a start; take it away with openssl pkey -in"
                f" {settings.tls_key} -out privkey.pem"
            ) from error
        code = getattr(error, "reason", None) or error.strerror or "unusable"
        # OpenSSL gives no reason for a file without anything in it.
        code = "PEM_LIB" if "PEM lib" in code else code
        raise ConfigError(
            f"TLS_CERTIFICATE: cannot be used with TLS_KEY"
            f" ({_REASONS.get(code, code)}); both must be PEM files, the certificate"
            " with its chain, the key without a password"
        ) from error
    return context


def make_admin_tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Loads what the admin port speaks TLS by, if it does.

    Blocking.

    Raises:
        ConfigError: A certificate cannot be used.
    """
    wanted = settings.admin_tls or settings.admin_client_ca is not None
    context = make_tls_context(settings) if wanted else None
    if context is not None and settings.admin_client_ca is not None:
        try:
            context.load_verify_locations(settings.admin_client_ca)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(
                "ADMIN_CLIENT_CA: cannot be used; it must be a PEM file of certificates"
            ) from error
        context.verify_mode = ssl.CERT_REQUIRED
        # Python 3.13 began to ask more of an authority than openssl puts into one: the
        # port would be closed to all after an upgrade of Python.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def renewable(
    first: ssl.SSLContext, current: Callable[[], ssl.SSLContext]
) -> ssl.SSLContext:
    """Has a context take certificates, its own and those it trusts, from the current one.

    For a server that keeps the context that it was given at the start. Whether
    clients have to have a certificate stays as it was.

    Source: SSL_set_SSL_CTX(3).
    """

    def renew(connection: ssl.SSLObject, _name: str, _context: ssl.SSLContext) -> None:
        connection.context = current()

    first.sni_callback = renew
    return first
