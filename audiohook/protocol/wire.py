"""From the text of a frame to one JSON object that is safe to handle.

What comes out can be walked, printed as JSON and written to a file without a
surprise: it is bounded in size and depth, has no number that is none, no integer too
long to print, and no string that UTF-8 cannot hold.
"""

from __future__ import annotations

import json
import math
import re
from enum import StrEnum
from typing import Any, Final

from audiohook.errors import RemoteProtocolError

# Longest text frame, in characters, as the reference implementation bounds it; the
# documented limit is 64,000 bytes.
MAX_TEXT_CHARS: Final = 65_535
# Far past any real message, customConfig included, and far short of what makes a
# recursive JSON writer fail later on.
MAX_DEPTH: Final = 100
# Digits of an integer; Python refuses to print more than 4,300.
MAX_DIGITS: Final = 1_000


class Fault(StrEnum):
    """What is wrong with a message, in words that may be sent back to the peer.

    The words are fixed and quote nothing of the message: Genesys logs them.
    """

    TOO_LARGE = "Message is too large"
    NOT_JSON = "Message is not valid JSON"
    MALFORMED = "Message is not well formed"
    PARAMETERS = "Invalid or missing parameters"


class WireObject(dict[str, Any]):
    """A JSON object as it came off the wire."""

    __slots__ = ()


class _Ambiguous(WireObject):
    """One in which a key stands twice; the last value counts, as in JavaScript."""

    __slots__ = ()


def _object(pairs: list[tuple[str, Any]]) -> WireObject:
    wire = WireObject(pairs)
    return wire if len(wire) == len(pairs) else _Ambiguous(pairs)


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        msg = "integer too long"
        raise ValueError(msg)
    return int(text)


def finite(text: str) -> float:
    """Read a number; for `json` to call, also for the words that are not JSON.

    Raises:
        ValueError: It is infinite, or none.
    """
    value = float(text)
    if not math.isfinite(value):
        msg = "number out of range"
        raise ValueError(msg)
    return value


_HALF: Final = re.compile("[\ud800-\udfff]")

_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=_integer,
    parse_float=finite,
    parse_constant=finite,
)


def decode(text: str) -> WireObject:
    """Read one JSON object that is unambiguous where the protocol gives it meaning.

    A repeated key is a fault in the envelope and in ``parameters``, and nowhere else:
    ``customConfig`` is what an administrator typed, and no reason to lose a call.

    Args:
        text: Content of one text frame.

    Raises:
        RemoteProtocolError: The text is not such an object; its ``info`` is one of
            `Fault`.
    """
    if len(text) > MAX_TEXT_CHARS:
        raise RemoteProtocolError(Fault.TOO_LARGE)
    try:
        wire: object = _DECODER.decode(text)
        check_depth(text, wire)
        # From a transport that does not check UTF-8.
        text.encode()
    except (ValueError, RecursionError):
        # Not chained: the cause quotes the peer's text, which may hold a name.
        raise RemoteProtocolError(Fault.NOT_JSON) from None
    if not isinstance(wire, WireObject):
        raise RemoteProtocolError(Fault.NOT_JSON)
    if isinstance(wire, _Ambiguous) or isinstance(wire.get("parameters"), _Ambiguous):
        raise RemoteProtocolError(Fault.MALFORMED)
    return _without_halves(text, wire)


def check_depth(text: str, value: object) -> None:
    """Check that no writer of JSON will have to go deeper than it can.

    Args:
        text: What was read.
        value: What came of it.

    Raises:
        ValueError: It is nested more than `MAX_DEPTH` deep.
    """
    # Nothing is deeper than it has opening brackets, so most texts end here.
    if text.count("{") + text.count("[") <= MAX_DEPTH:
        return
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _containers_in(parent)]
        if not level:
            return
    msg = "nested too deeply"
    raise ValueError(msg)


def _containers_in(value: object) -> list[object]:
    if isinstance(value, dict):
        return [child for child in value.values() if isinstance(child, dict | list)]
    if isinstance(value, list):
        return [child for child in value if isinstance(child, dict | list)]
    return []


def _without_halves(text: str, wire: WireObject) -> WireObject:
    """Put U+FFFD where there is half a surrogate pair, which UTF-8 cannot hold.

    A name cut off in the middle of an emoji ends in one, escaped. It fits into a
    Python string but into no file and no answer, and is no reason to lose a call.
    """
    if "\\u" not in text:
        return wire
    written = json.dumps(wire, ensure_ascii=False)
    mended = _HALF.sub("\ufffd", written)
    if mended == written:
        return wire
    return WireObject(_DECODER.decode(mended))
