"""What is kept beside an object: metadata, in a form that HTTP headers can carry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping

TOKEN_NAME: Final = "audiohook-session"  # noqa: S105 - a name, not a password
"""Metadata that says whose an object is."""

SHA256_NAME: Final = "audiohook-sha256"
"""Metadata with an object's checksum, where it was known before it was sent."""

# Source: Amazon S3 User Guide, "Working with object metadata".
_LIMIT: Final = 2 * 1024

_CONTENT_TYPES: Final = {
    "wav": "audio/wav",
    # As the guide for Genesys Cloud has it, though that is for one channel only.
    "raw": "audio/basic",
    "dat": "application/octet-stream",
    "json": "application/json",
    "txt": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
}


def safe_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Make metadata fit for HTTP headers and for S3's limit.

    Args:
        metadata: The most important first.

    Returns:
        Printable ASCII, as much as fits in 2 KiB of names and values.
    """
    room = _LIMIT
    kept: dict[str, str] = {}
    for name, text in metadata.items():
        value = safe_value(text, limit=room - len(name))
        if value:
            kept[name] = value
            room -= len(name) + len(value)
    return kept


def safe_value(text: str, *, limit: int = _LIMIT) -> str:
    """Make a value fit for an HTTP header.

    Args:
        text: Anything.
        limit: Most characters of the result; none if it is negative.

    Returns:
        Printable ASCII; other characters are percent-encoded as UTF-8.
    """
    pieces: list[str] = []
    for character in " ".join(text.split()):
        plain = " " <= character <= "~"
        piece = character if plain else quote(character, safe="", errors="replace")
        limit -= len(piece)
        if limit < 0:
            break
        pieces.append(piece)
    return "".join(pieces).strip()


def content_type(key: str) -> str:
    """Return the media type that goes with a key's ending."""
    ending = key.rpartition(".")[2]
    return _CONTENT_TYPES.get(ending, "application/octet-stream")
