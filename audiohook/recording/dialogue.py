"""What was said in text messages, as far as it may be kept.

A message is kept as JSON, with its time and the place in the audio where it stood.
Whatever could be a number, a name or a secret is put out of sight first, so that a
dialogue can be handed to somebody who is to find out what went wrong.

Nothing here touches a disk or a clock.
"""

from __future__ import annotations

import json
import re
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from audiohook.protocol.wire import check_depth, finite
from audiohook.recording.journal import TextFact

if TYPE_CHECKING:
    from collections.abc import Iterator

KIB: Final = 1024
MIB: Final = 1024 * KIB

MOST_BYTES: Final = 4 * MIB
"""What is kept of a call; ten hours of pings are less."""

# Source: Genesys Cloud developer centre, AudioHook, "Message size limits".
_MOST_MESSAGE_CHARS: Final = 64 * KIB
# Of what is no JSON only so much is kept, and only if everything may be.
_MOST_NONSENSE_CHARS: Final = 4 * KIB
_MOST_STRING_CHARS: Final = 4 * KIB
# What a fact has besides its message.
_FACT_BYTES: Final = 120

_PERSONAL: Final = frozenset({"ani", "aniname", "dnis"})
# What an administrator or a flow has put in, which may be anything.
_FOREIGN: Final = frozenset({"customconfig", "inputvariables", "outputvariables"})
_SECRET: Final = re.compile(
    r"secret|token|passw|api[-_]?key|signature|authori[sz]ation|credential",
    re.IGNORECASE,
)
_DIGITS: Final = re.compile(r"\+?[0-9](?:[ ()./-]{0,3}[0-9]){4,}")
_ADDRESS: Final = re.compile(r"[^\s@<>\"]{1,64}@[^\s@<>\"]{1,255}")
# What is no number of a person's, however many digits it has: ids, and moments and
# stretches of time.
_HARMLESS: Final = re.compile(
    r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
    r"|P(?:T?[0-9.]+[DHMS])+"
    r"|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{5,18}(?:Z|[+-][0-9:]{4,6})?"
)


class Keep(StrEnum):
    """How much of text messages is kept."""

    NO = "no"
    MASKED = "masked"
    FULL = "full"


class Direction(StrEnum):
    """Who said it."""

    IN = "in"
    """The client."""
    OUT = "out"
    """We."""


class Dialogue:
    """Makes facts of messages until there are too many.

    Args:
        keep: How much of them is kept.
    """

    __slots__ = ("_keep", "_left")

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._left = MOST_BYTES

    def note(
        self, direction: Direction, text: str, *, at: str, offset_samples: int
    ) -> TextFact | None:
        """Make a fact of a message; ``None`` if no more are kept.

        Args:
            direction: Who said it.
            text: The message.
            at: When, in UTC, see `audiohook.recording.journal.utc_text`.
            offset_samples: Samples of each channel that had come by then.
        """
        if self._left <= 0:
            return None
        message = as_kept(text, self._keep)
        self._left -= _FACT_BYTES + len(json.dumps(message))
        if self._left <= 0:
            message = {"cut": f"the dialogue is longer than {MOST_BYTES} bytes"}
        return TextFact(direction, at, offset_samples, message)


def as_kept(text: str, keep: Keep) -> object:
    """Return what is kept of a message.

    Args:
        text: It, as it came or went.
        keep: How much of it.

    Returns:
        Its JSON; an object with ``unreadable`` if it is none.
    """
    if len(text) > _MOST_MESSAGE_CHARS:
        return {"unreadable": f"{len(text)} characters"}
    try:
        value = json.loads(text, parse_float=finite, parse_constant=finite)
        check_depth(text, value)
    except (ValueError, RecursionError):
        if keep is Keep.FULL:
            return {"unreadable": text[:_MOST_NONSENSE_CHARS]}
        return {"unreadable": f"{len(text)} characters"}
    return _kept(value, keep, is_foreign=False)


def _kept(value: object, keep: Keep, *, is_foreign: bool) -> object:
    match value:
        case dict():
            return {
                _cut(key, keep): _of_name(key, each, keep, is_foreign=is_foreign)
                for key, each in value.items()
            }
        case list():
            return [_kept(each, keep, is_foreign=is_foreign) for each in value]
        case str():
            if keep is Keep.MASKED and is_foreign:
                return _hidden(value)
            return _cut(value, keep)
        case bool() | None:
            return value
        case int() | float():
            return "•" if keep is Keep.MASKED and is_foreign else value
    return None


def _of_name(name: str, value: object, keep: Keep, *, is_foreign: bool) -> object:
    if _SECRET.search(name):
        return "•"
    lower = name.lower()
    if keep is Keep.MASKED and lower in _PERSONAL:
        return _hidden(value) if isinstance(value, str) else "•"
    return _kept(value, keep, is_foreign=is_foreign or lower in _FOREIGN)


def _hidden(text: str) -> str:
    """Tell of a text only whether there is any, and of what kind."""
    if not text:
        return ""
    for scheme in ("tel:", "sip:", "sips:"):
        if text.lower().startswith(scheme):
            return f"{scheme}•"
    return "•"


def _cut(text: str, keep: Keep) -> str:
    text = text[:_MOST_STRING_CHARS]
    return text if keep is Keep.FULL else _masked(text)


def _masked(text: str) -> str:
    """Put numbers and addresses within a text out of sight."""
    return "".join(
        piece if is_harmless else _ADDRESS.sub("•", _DIGITS.sub("•", piece))
        for piece, is_harmless in _pieces(text)
    )


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    end = 0
    for match in _HARMLESS.finditer(text):
        yield text[end : match.start()], False
        yield match[0], True
        end = match.end()
    yield text[end:], False


def lines_of(journal: bytes) -> bytes:
    """Make the file of a dialogue from the journal of its call.

    Args:
        journal: Whole lines.

    Returns:
        JSON, one line a message, in ASCII.
    """
    lines = []
    for line in journal.split(b"\n"):
        if not line.startswith(_BEGINNING):
            continue
        fact = json.loads(line)
        shown = {
            "at": fact["at"],
            "direction": fact["direction"],
            "samples": fact["offset_samples"],
            "message": fact["message"],
        }
        lines.append(json.dumps(shown, separators=(",", ":")).encode("ascii") + b"\n")
    return b"".join(lines)


_BEGINNING: Final = b'{"fact":"text",'
