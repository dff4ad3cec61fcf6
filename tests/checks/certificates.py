"""Certificates with whatever can be wrong with one."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Issuer:
    """Somebody who signs."""

    certificate: x509.Certificate
    key: PrivateKey


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: PrivateKey, passphrase: bytes | None = None) -> bytes:
    protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        protection = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection
    )


def _sign(
    name: str,
    key: PrivateKey,
    issuer: Issuer | None,
    *,
    authority: bool,
    begins: float = -1.0,
    days: float = 90.0,
    plain: bool = False,
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins * DAY)
        .not_valid_after(now + days * DAY)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False
        )
    )
    # Python 3.13 takes no authority without it, by itself.
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
    if not plain:
        builder = builder.add_extension(usage, True)
    if not authority:
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        builder = builder.add_extension(names, False)
    signer = issuer.key if issuer else key
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False
    )
    return builder.sign(signer, hashes.SHA256())


def make_authority(
    name: str, issuer: Issuer | None = None, *, plain: bool = False
) -> Issuer:
    key = ec.generate_private_key(ec.SECP256R1())
    return Issuer(_sign(name, key, issuer, authority=True, plain=plain), key)


class Authorities:
    """A public authority for a test, with an intermediate one below it.

    Args:
        folder: Where its files are to be.
        plain: Without a word of what their keys are for, as ``openssl req -x509``
            leaves it.
    """

    def __init__(self, folder: Path, *, plain: bool = False) -> None:
        self._folder = folder
        self.root = make_authority("A root", plain=plain)
        self.middle = make_authority("An intermediate", self.root, plain=plain)
        self.roots = folder / "roots.pem"
        self.roots.write_bytes(pem(self.root.certificate))

    def issue(
        self,
        name: str = "localhost",
        *,
        begins: float = -1.0,
        days: float = 90.0,
        with_chain: bool = True,
        self_signed: bool = False,
        rsa_bits: int = 0,
        passphrase: bytes | None = None,
    ) -> tuple[Path, Path]:
        """Writes a chain and its key; returns where they are."""
        key: PrivateKey = ec.generate_private_key(ec.SECP256R1())
        if rsa_bits:
            key = rsa.generate_private_key(65537, rsa_bits)
        issuer = None if self_signed else self.middle
        leaf = _sign(name, key, issuer, authority=False, begins=begins, days=days)
        chain, key_path = self._folder / "chain.pem", self._folder / "key.pem"
        text = pem(leaf)
        if with_chain and not self_signed:
            text += pem(self.middle.certificate)
        chain.write_bytes(text)
        key_path.write_bytes(key_pem(key, passphrase))
        key_path.chmod(0o600)
        return chain, key_path
