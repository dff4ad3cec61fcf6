"""Whether a client that trusts public authorities will trust our certificate.

A handshake is made in memory, with the certificate that the settings name, so that
OpenSSL itself is the judge.
"""

from __future__ import annotations

import re
import ssl
import time
from typing import TYPE_CHECKING, Any, Final

import trio

from audiohook.checks.settings import exposed
from audiohook.errors import ConfigError
from audiohook.tls import make_tls_context
from audiohook.verdict import bad, doubtful, good

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Mapping

    from audiohook.checks.expectations import Expectations
    from audiohook.settings import Settings
    from audiohook.verdict import Verdict

SECONDS = 1.0
DAYS = 24 * 60 * 60 * SECONDS

RENEWAL: Final = 30 * DAYS
"""A certificate that ends sooner should have been renewed by now."""

# Source: OpenSSL, X509_V_FLAG_NO_CHECK_TIME.
_NO_CHECK_TIME: Final = 0x200000
# The flights of a handshake and some to spare.
_ROUNDS: Final = 10
_BLOCK: Final = re.compile(
    r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL
)
_TOLD_NAMES: Final = 5


async def check_tls(
    settings: Settings, expected: Expectations
) -> AsyncGenerator[Verdict, None]:
    """Looks at the certificate, if TLS ends in this process.

    Yields:
        A verdict on each thing that a client looks at.
    """
    verdicts = await trio.to_thread.run_sync(lambda: list(_look(settings, expected)))
    for verdict in verdicts:
        yield verdict


def _look(settings: Settings, expected: Expectations) -> Iterator[Verdict]:
    path = settings.tls_certificate
    if path is None:
        yield good(
            "TLS does not end in this process",
            "Genesys connects with TLS only: a load balancer or proxy has to end it, or"
            " set TLS_CERTIFICATE and TLS_KEY",
        )
        return
    what = "use TLS_CERTIFICATE with TLS_KEY"
    try:
        server = make_tls_context(settings)
    except ConfigError as error:
        yield bad(what, str(error).partition(": ")[2])
        return
    assert server is not None
    yield good(what)
    chain = _BLOCK.findall(path.read_text(encoding="latin-1"))
    leaf = ssl.PEM_cert_to_DER_cert(chain[0])
    facts = _facts(server, leaf)
    yield judge_dates(facts, "TLS_CERTIFICATE", now=time.time())
    yield _judge_chain(server, len(chain))
    yield _judge_name(server, leaf, facts, expected.public_name)
    assert settings.tls_key is not None
    if fault := exposed(settings.tls_key):
        yield doubtful(
            "keep TLS_KEY to its owner", f"{fault}: chmod 600 {settings.tls_key}"
        )


def judge_dates(facts: Mapping[str, Any], whose: str, *, now: float) -> Verdict:
    """Judge from when to when a certificate is good.

    Args:
        facts: What `ssl.SSLSocket.getpeercert` tells.
        whose: What to call it.
        now: Unix seconds.
    """
    begin = ssl.cert_time_to_seconds(facts["notBefore"])
    end = ssl.cert_time_to_seconds(facts["notAfter"])
    what = f"{whose} is good until {facts['notAfter']}"
    if now < begin:
        return bad(
            f"{whose} is good from {facts['notBefore']}",
            "which is yet to come: is this machine's clock right?",
        )
    if now > end:
        return bad(what, "it has expired: renew it, then reload the service (SIGHUP)")
    if end - now < RENEWAL:
        return doubtful(
            what,
            f"{(end - now) / DAYS:.0f} days are left: renew it, then reload the"
            " service (SIGHUP)",
        )
    return good(what)


def certificate_fault(error: ssl.SSLCertVerificationError, *, sent: int = 0) -> str:
    """Say what is wrong with a certificate that was not trusted, and what to do.

    Args:
        error: What OpenSSL said.
        sent: How many certificates the server has sent, 0 if that is unknown.

    Source: OpenSSL, ``openssl-verification-options``, codes of X509_V_ERR.
    """
    match error.verify_code:
        case 18:
            return "it is self-signed: Genesys takes those of public authorities only"
        case 19:
            return (
                "its root is not one of the public authorities: Genesys takes those"
                " only"
            )
        case 20 | 21 if sent == 1:
            return (
                "the file holds one certificate without its chain, or no public"
                " authority has issued it: use what is called fullchain.pem"
            )
        case 20 | 21:
            return (
                "its chain does not lead to a public authority: the server has to send"
                " the intermediate certificates too (fullchain.pem), and a public"
                " authority must have issued it"
            )
        case 9:
            return "it is not valid yet: is a clock wrong?"
        case 10:
            return "it has expired: renew it"
        case 62 | 64:
            return f"it is for another name ({error.verify_message}): get one for this"
        case 66 | 67:
            return "a key in it is too short: take RSA with 2048 bits, or P-256"
        case 68:
            return "a signature in its chain is SHA-1 or MD5: get a new one"
        case _:
            return f"{error.verify_message}: Genesys refuses it as well"


def _facts(server: ssl.SSLContext, leaf: bytes) -> Mapping[str, Any]:
    """Return what a certificate says of itself."""
    return _shake_hands(server, _client(leaf), None).getpeercert() or {}


def _judge_chain(server: ssl.SSLContext, length: int) -> Verdict:
    what = "TLS_CERTIFICATE leads to a public authority"
    client = ssl.create_default_context()
    client.check_hostname = False
    client.verify_flags |= _NO_CHECK_TIME
    try:
        _shake_hands(server, client, None)
    except ssl.SSLCertVerificationError as error:
        return bad(what, certificate_fault(error, sent=length))
    return good(what)


def _judge_name(
    server: ssl.SSLContext,
    leaf: bytes,
    facts: Mapping[str, Any],
    public_name: str | None,
) -> Verdict:
    names = [name for _, name in facts.get("subjectAltName", ())]
    told = ", ".join(names[:_TOLD_NAMES]) + (", …" if names[_TOLD_NAMES:] else "")
    what = f"TLS_CERTIFICATE is for {told or 'no name'}"
    if public_name is None:
        return good(what) if names else bad(what, "get one for your public name")
    client = _client(leaf)
    client.check_hostname = True
    try:
        _shake_hands(server, client, public_name)
    except ssl.SSLCertVerificationError:
        return bad(what, f"and not for {public_name}: get one for that name")
    return good(what)


def _client(leaf: bytes) -> ssl.SSLContext:
    """Make a client that trusts this one certificate, however old it is."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(cadata=leaf)
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    return client


def _shake_hands(
    server: ssl.SSLContext, client: ssl.SSLContext, name: str | None
) -> ssl.SSLObject:
    """Run both sides of a handshake in memory; returns the client's side.

    Raises:
        ssl.SSLCertVerificationError: The client does not trust the server.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    ours = client.wrap_bio(to_client, to_server, server_hostname=name)
    done = 0
    for _ in range(_ROUNDS):
        for side in (ours, theirs):
            try:
                side.do_handshake()
                done |= 1 if side is ours else 2
            except ssl.SSLWantReadError:
                continue
        if done == 3:
            break
    return ours
