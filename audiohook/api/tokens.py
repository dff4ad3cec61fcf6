"""Who may use the API, and for what.

A token is 256 random bits, so whoever has its SHA-256 cannot find it by trying,
however fast the hash; a slow one would only let strangers keep a core busy. The
file holds hashes alone: whoever reads it cannot use the API by it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NoReturn

from audiohook.errors import ConfigError, in_one_line

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

_PREFIX: Final = "ah_"
_RANDOM_BYTES: Final = 32
# What a token can be; a longer one need not be hashed.
_MOST_CHARS: Final = 200
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_MOST_TOKENS: Final = 1000
_FILE_LIMIT_BYTES: Final = 1024 * 1024
_EXAMPLE: Final = '{"crm": {"sha256": "9f86d0…", "scopes": ["read"]}}'


class Scope(StrEnum):
    """What a token is good for."""

    READ = "read"
    """Find calls, and fetch recordings and transcripts."""
    CONTROL = "control"
    """Pause, resume and end live calls."""
    ERASE = "erase"
    """Have calls erased."""
    REPORT = "report"
    """Hand in operational events of Genesys, and nothing else."""


@dataclass(frozen=True, slots=True)
class Token:
    """One that is known.

    Attributes:
        name: Whose it is; written down with all that is done by it.
        sha256: Its hash, lower-case hexadecimal.
        scopes: What it is good for.
    """

    name: str
    sha256: str
    scopes: frozenset[Scope]


class Tokens:
    """All that are known; they can be replaced while they are in use.

    Args:
        tokens: None if there is no API.
    """

    def __init__(self, tokens: Sequence[Token] | None) -> None:
        self._tokens = tokens

    @property
    def exist(self) -> bool:
        """Whether there is an API at all."""
        return self._tokens is not None

    def replace(self, tokens: Sequence[Token] | None) -> None:
        """Takes other tokens from now on."""
        self._tokens = tokens

    def find(self, presented: str) -> Token | None:
        """Returns the token that somebody has; None if it is not known.

        It takes the same time whichever it is, and whether or not it is known.
        """
        data = presented.encode(errors="replace")[:_MOST_CHARS]
        digest = hashlib.sha256(data).hexdigest()
        found = None
        for token in self._tokens or ():
            if hmac.compare_digest(token.sha256, digest):
                found = token
        return found


def make_token(name: str, scopes: Collection[Scope]) -> tuple[str, str]:
    """Make a token.

    Args:
        name: Whose it is.
        scopes: What it is to be good for.

    Returns:
        The token, which is not to be found out again; and what goes into the file
        for it, a member of its JSON object.

    Raises:
        ConfigError: The name cannot be used, or there is no scope.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name[:80]!r} is not letters, digits and . _ - (at most 64); for example crm"
        )
    if not scopes:
        raise ConfigError("a token needs a scope; for example --scope read")
    token = _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    digest = hashlib.sha256(token.encode()).hexdigest()
    entry = {"sha256": digest, "scopes": sorted(scopes)}
    return token, f"{json.dumps(name)}: {json.dumps(entry)}"


def read_tokens_file(path: Path) -> list[Token]:
    """Read the file of tokens. Blocking.

    Args:
        path: One JSON object: names to objects of ``sha256`` and ``scopes``.

    Raises:
        ConfigError: The file cannot be used; the text is one line.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_LIMIT_BYTES + 1)
    except OSError as error:
        _fault(path, f"cannot be read ({error.strerror})")
    if len(data) > _FILE_LIMIT_BYTES:
        _fault(path, "is larger than 1 MiB")
    try:
        pairs = json.loads(data, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        _fault(path, "is not JSON")
    if not isinstance(pairs, _Pairs):
        _fault(path, "is not one JSON object")
    if len(pairs) > _MOST_TOKENS:
        _fault(path, f"holds more than {_MOST_TOKENS} tokens")
    tokens: dict[str, Token] = {}
    for place, (name, value) in enumerate(pairs, start=1):
        token = _token(path, place, name, value)
        if name in tokens:
            _fault(path, f"entry {place}: the name is there twice")
        tokens[name] = token
    return list(tokens.values())


class _Pairs(list[tuple[str, object]]):
    """A JSON object as its pairs, so that a name given twice is seen."""


def _token(path: Path, place: int, name: str, value: object) -> Token:
    if not _NAME.fullmatch(name):
        _fault(path, f"entry {place}: the name is not letters, digits and . _ -")
    fields = dict(value) if isinstance(value, _Pairs) else {}
    if fields.keys() != {"sha256", "scopes"}:
        _fault(path, f"entry {place}: is not an object of sha256 and scopes")
    sha256, scopes = fields["sha256"], fields["scopes"]
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        _fault(path, f"entry {place}: sha256 is not 64 hexadecimal digits")
    if not isinstance(scopes, list) or not scopes:
        _fault(path, f"entry {place}: scopes is not a list of at least one")
    known = {str(each) for each in Scope}
    if not all(isinstance(each, str) and each in known for each in scopes):
        _fault(path, f"entry {place}: a scope is not one of {', '.join(sorted(known))}")
    return Token(name, sha256, frozenset(Scope(each) for each in scopes))


def _fault(path: Path, fault: str) -> NoReturn:
    raise ConfigError(
        f"API_TOKENS_FILE: {in_one_line(path)} {fault}; for example {_EXAMPLE}"
    ) from None
