"""Who may open a session.

A request is judged by its headers alone, before the WebSocket exists. The
signature comes first; nothing else is looked at before it is known to hold.
Every refusal is to get the same answer, no sooner than `FAILURE_DELAY` after
the request came in, so that neither the answer nor its timing tells a stranger
what was wrong. The caller sees to both.

Source: Genesys Cloud developer centre, AudioHook, "Security".
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from audiohook.errors import AuthenticationError
from audiohook.keys import KeyRecord, label_of
from audiohook.protocol.messages import canonical_uuid
from audiohook.protocol.signature import NonceCache, Refusal, fold, verify

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SECONDS = 1.0

FAILURE_DELAY = 0.5 * SECONDS
"""Least time between a request and its refusal."""

_RETRY_ATTEMPT = re.compile(rb"[0-9]{1,9}")

LOOK_AGAIN = frozenset(
    {
        Refusal.UNKNOWN_KEY,
        Refusal.UNSIGNED,
        Refusal.FAILED,
        Refusal.UNEXPECTED_SIGNATURE,
        Refusal.ORGANIZATION,
    }
)
"""Reasons that newer keys may do away with."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What an accepted request says about its session.

    Attributes:
        key_id: Label of the API key: the first 8 hexadecimal digits of its
            SHA-256. It tells keys apart and gives none away.
        session_id: Canonical UUID, the ``id`` of every message to come.
        organization_id: Canonical UUID of the Genesys organisation.
        correlation_id: Canonical UUID by which Genesys traces the request.
        retry_attempt: 0 for the first try, None if the client does not say. It
            is not signed.
        record: What goes with the key.
        client: Address that the request came from, as far as is known.
    """

    key_id: str
    session_id: str
    organization_id: str
    correlation_id: str
    retry_attempt: int | None
    record: KeyRecord = field(default_factory=KeyRecord, repr=False)
    client: str | None = None


@dataclass(frozen=True, slots=True)
class _Key:
    label: str
    text: bytes = field(repr=False)
    record: KeyRecord

    @property
    def secret(self) -> bytes | None:
        """Its first secret."""
        return self.record.secrets[0] if self.record.secrets else None


_UNKNOWN = _Key("", b"", KeyRecord())


class Authenticator:
    """Decides about requests; knows the keys and the signatures already used.

    One is shared by all calls of a process. Processes that share a port do not
    share their memory of used signatures: each stops replays against itself.
    """

    def __init__(
        self,
        keys: Mapping[str, KeyRecord],
        *,
        nonces: NonceCache | None = None,
    ) -> None:
        """Make an authenticator.

        Args:
            keys: API keys with what goes with them.
            nonces: Memory of used signatures; by default one of its own.
        """
        self._nonces = NonceCache() if nonces is None else nonces
        self._keys: dict[bytes, _Key] = {}
        self.replace_keys(keys)

    def records(self) -> dict[str, KeyRecord]:
        """Return what goes with each key, by the labels of the keys."""
        return {key.label: key.record for key in self._keys.values()}

    def replace_keys(self, keys: Mapping[str, KeyRecord]) -> None:
        """Judge requests by other keys from now on.

        What was accepted before is not touched, and used signatures stay used.

        Args:
            keys: As for the constructor.
        """
        known = {}
        for text, record in keys.items():
            digest = hashlib.sha256(text.encode("utf-8"))
            key = _Key(label_of(text), text.encode("utf-8"), record)
            known[digest.digest()] = key
        self._keys = known

    def authenticate(
        self, headers: Iterable[tuple[bytes, bytes]], target: bytes, *, now: float
    ) -> Credentials:
        """Judge one request.

        Some 100 µs for a signed request, half of it the structured fields.

        Args:
            headers: Names in any case and values, as received.
            target: Path and query exactly as on the request line.
            now: Unix seconds.

        Returns:
            The ids of the session to be.

        Raises:
            AuthenticationError: If there must be no session; the reason is a
                `Refusal`, the status 400 if the key was good and the ids were
                not, 401 otherwise.
        """
        fields = fold(headers)
        key = self._find(fields.get(b"x-api-key", b""))
        self._check(key, fields, target, now)
        return Credentials(
            key_id=key.label,
            session_id=_uuid(fields, b"audiohook-session-id"),
            organization_id=_uuid(fields, b"audiohook-organization-id"),
            correlation_id=_uuid(fields, b"audiohook-correlation-id"),
            retry_attempt=_retry_attempt(fields),
            record=key.record,
        )

    def _find(self, text: bytes) -> _Key:
        # By digest, so that the time a look-up takes says nothing about how
        # much of a guessed key is right.
        key = self._keys.get(hashlib.sha256(text).digest(), _UNKNOWN)
        return key if hmac.compare_digest(key.text, text) else _UNKNOWN

    def _check(
        self, key: _Key, fields: Mapping[bytes, bytes], target: bytes, now: float
    ) -> None:
        """Raise unless the request is signed well, or may be unsigned and is."""
        others = key.record.secrets[1:]
        try:
            verified = verify(fields, target, secret=key.secret, now=now, others=others)
        except AuthenticationError as error:
            if key.secret:
                raise
            _check_unsigned(key, error)
            _check_organization(key, fields)
            return
        # Before the nonce counts as used: other keys may let the same request pass.
        _check_organization(key, fields)
        if not self._nonces.add(
            verified.key_id, verified.nonce, good_until=verified.good_until, now=now
        ):
            raise AuthenticationError(Refusal.REPLAYED)


def _check_unsigned(key: _Key, error: AuthenticationError) -> None:
    """Let an unsigned request pass if its key has no secret; raise otherwise.

    The verifier cannot tell a key that it does not have from one without a
    secret. The operator can do something about either, so the reason says.
    """
    if key is _UNKNOWN:
        if error.reason in {Refusal.UNSIGNED, Refusal.FAILED}:
            raise AuthenticationError(Refusal.UNKNOWN_KEY) from error
        raise error
    if error.reason == Refusal.FAILED:
        raise AuthenticationError(Refusal.UNEXPECTED_SIGNATURE) from error
    if error.reason != Refusal.UNSIGNED:
        raise error


def _check_organization(key: _Key, fields: Mapping[bytes, bytes]) -> None:
    """Raise if a key is not for the organisation that a request names."""
    wanted = key.record.organizations
    if not wanted:
        return
    named = canonical_uuid(
        fields.get(b"audiohook-organization-id", b"").decode("latin-1")
    )
    if named not in wanted:
        raise AuthenticationError(Refusal.ORGANIZATION)


def _uuid(fields: Mapping[bytes, bytes], name: bytes) -> str:
    uuid = canonical_uuid(fields.get(name, b"").decode("latin-1"))
    if uuid is None:
        raise AuthenticationError(Refusal.MALFORMED, http_status=400)
    return uuid


def _retry_attempt(fields: Mapping[bytes, bytes]) -> int | None:
    # Optional and informative: a value that we cannot read must not cost a call.
    value = fields.get(b"audiohook-retry-attempt", b"")
    return int(value) if _RETRY_ATTEMPT.fullmatch(value) else None
