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
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from audiohook.errors import AuthenticationError, ConfigError
from audiohook.protocol.messages import canonical_uuid
from audiohook.protocol.signature import NonceCache, Refusal, fold, verify
from audiohook.setting_values import API_KEY_PATTERN, decode_secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from audiohook.settings import Settings

SECONDS = 1.0

FAILURE_DELAY = 0.5 * SECONDS
"""Least time between a request and its refusal."""

_RETRY_ATTEMPT = re.compile(rb"[0-9]{1,9}")
_LABEL_LENGTH = 8
_KEYS_FILE_EXAMPLE = '{"my-api-key": "bXktc2VjcmV0", "unsigned-key": null}'


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
    """

    key_id: str
    session_id: str
    organization_id: str
    correlation_id: str
    retry_attempt: int | None


@dataclass(frozen=True, slots=True)
class _Key:
    label: str
    text: bytes = field(repr=False)
    secret: bytes | None = field(repr=False)


_UNKNOWN = _Key("", b"", None)


class Authenticator:
    """Decides about requests; knows the keys and the signatures already used.

    One is shared by all calls of a process. Processes that share a port do not
    share their memory of used signatures: each stops replays against itself.
    """

    def __init__(
        self,
        keys: Mapping[str, bytes | None],
        *,
        nonces: NonceCache | None = None,
    ) -> None:
        """Make an authenticator.

        Args:
            keys: API keys with their decoded client secrets; None or empty
                where unsigned requests are allowed.
            nonces: Memory of used signatures; by default one of its own.
        """
        self._nonces = NonceCache() if nonces is None else nonces
        self._keys: dict[bytes, _Key] = {}
        self.replace_keys(keys)

    def replace_keys(self, keys: Mapping[str, bytes | None]) -> None:
        """Judge requests by other keys from now on.

        What was accepted before is not touched, and used signatures stay used.

        Args:
            keys: As for the constructor.
        """
        known = {}
        for text, secret in keys.items():
            digest = hashlib.sha256(text.encode("utf-8"))
            label = digest.hexdigest()[:_LABEL_LENGTH]
            known[digest.digest()] = _Key(label, text.encode("utf-8"), secret)
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
        try:
            verified = verify(fields, target, secret=key.secret, now=now)
        except AuthenticationError as error:
            if key.secret:
                raise
            _check_unsigned(key, error)
            return
        if not self._nonces.add(
            verified.key_id, verified.nonce, good_until=verified.good_until, now=now
        ):
            raise AuthenticationError(Refusal.REPLAYED)


def configured_keys(settings: Settings) -> dict[str, bytes | None]:
    """Gather the keys that the settings name.

    Blocking: it reads `Settings.api_keys_file`, so it is also what to call when
    that file may have changed.

    Args:
        settings: Where ``API_KEY``, ``CLIENT_SECRET`` and ``API_KEYS_FILE`` are.

    Returns:
        API keys with their decoded client secrets, as `Authenticator` takes
        them; empty if the settings name none.

    Raises:
        ConfigError: If the file cannot be used, or gives ``API_KEY`` another
            secret than ``CLIENT_SECRET``.
    """
    keys: dict[str, bytes | None] = {}
    if settings.api_keys_file is not None:
        keys = read_keys_file(settings.api_keys_file)
    if settings.api_key is not None:
        key = settings.api_key.get_secret_value()
        secret = None
        if settings.client_secret is not None:
            secret = decode_secret(settings.client_secret.get_secret_value())
        if keys.get(key, secret) != secret:
            raise ConfigError(
                "API_KEYS_FILE: also holds the key of API_KEY, but not with the"
                " secret of CLIENT_SECRET; remove it from one of the two"
            )
        keys[key] = secret
    return keys


def read_keys_file(path: Path) -> dict[str, bytes | None]:
    """Read a map of API keys to client secrets.

    Blocking. The file is one JSON object: an API key to its client secret in
    base64 (padding may be missing), or to ``""`` or ``null`` where requests
    need no signature.

    Args:
        path: The file.

    Returns:
        API keys with their decoded client secrets, at least one.

    Raises:
        ConfigError: If the file cannot be used; the text is one line and names
            a faulty entry by its place, never by its key or secret.
    """
    try:
        pairs = json.loads(path.read_bytes(), object_pairs_hook=_Pairs)
    except OSError as error:
        _fault(path, f"cannot be read ({error.strerror})")
    except (ValueError, RecursionError):
        # The cause is left out: it holds the text of the file.
        _fault(path, "is not JSON")
    if not isinstance(pairs, _Pairs):
        _fault(path, "is not one JSON object")
    if not pairs:
        _fault(path, "holds no key")
    keys: dict[str, bytes | None] = {}
    for place, (key, secret) in enumerate(pairs, start=1):
        if not re.fullmatch(API_KEY_PATTERN, key):
            _fault(path, f"entry {place}: the key is not of the form {API_KEY_PATTERN}")
        if key in keys:
            _fault(path, f"entry {place}: the key is there twice")
        keys[key] = _entry_secret(path, place, secret)
    return keys


class _Pairs(list[tuple[str, object]]):
    """A JSON object as its pairs, so that a key given twice is seen."""


def _entry_secret(path: Path, place: int, secret: object) -> bytes | None:
    if secret is None:
        return None
    if not isinstance(secret, str):
        _fault(path, f"entry {place}: the secret is neither text nor null")
    try:
        return decode_secret(secret) or None
    except ValueError:
        _fault(path, f"entry {place}: the secret is not base64")


def _fault(path: Path, fault: str) -> NoReturn:
    raise ConfigError(
        f"API_KEYS_FILE: {path} {fault}; for example {_KEYS_FILE_EXAMPLE}"
    ) from None


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


def _uuid(fields: Mapping[bytes, bytes], name: bytes) -> str:
    uuid = canonical_uuid(fields.get(name, b"").decode("latin-1"))
    if uuid is None:
        raise AuthenticationError(Refusal.MALFORMED, http_status=400)
    return uuid


def _retry_attempt(fields: Mapping[bytes, bytes]) -> int | None:
    # Optional and informative: a value that we cannot read must not cost a call.
    value = fields.get(b"audiohook-retry-attempt", b"")
    return int(value) if _RETRY_ATTEMPT.fullmatch(value) else None
