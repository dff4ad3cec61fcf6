"""Texts from the network, made fit to be looked at.

Templates escape what means something in HTML. What is left is what a reader cannot
see: characters that turn the direction of all that follows, that end a line, or
that have no shape. They are named in place of being obeyed.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KIB: Final = 1024

# Joiners: words of Persian or Hindi are other words without them.
_HARMLESS: Final = "\u200c\u200d"
_SHORTEST_NUMBER: Final = 5
_SHOWN_DIGITS: Final = 2
_DIGITS: Final = re.compile(rf"(?:[0-9][ ()./-]{{0,2}}){{{_SHORTEST_NUMBER},}}")
_DOT: Final = "•"


def visible(text: str) -> str:
    """Name the characters of a text that nobody would see.

    Args:
        text: As it came.

    Returns:
        It with ``⟨U+202E⟩`` in place of a right-to-left override, and so on.
    """
    if text.isprintable():
        return text
    return "".join(_shape(each) for each in text)


def _shape(character: str) -> str:
    if character in _HARMLESS:
        return character
    category = unicodedata.category(character)
    if category[0] == "C" or category in ("Zl", "Zp"):
        return f"⟨U+{ord(character):04X}⟩"
    return " " if category == "Zs" else character


def number(text: str, *, show: bool) -> str:
    """Give a number as it may be shown.

    Args:
        text: As it came: a number, or an address such as ``sip:anna@example.com``.
        show: Whether numbers are shown at all.

    Returns:
        It, or dots and its last two digits.
    """
    if show or not text:
        return visible(text)
    digits = "".join(each for each in text if each.isdecimal())
    if len(digits) < _SHORTEST_NUMBER:
        return _DOT * 4
    return _DOT * 4 + digits[-_SHOWN_DIGITS:]


def name(text: str, *, show: bool) -> str:
    """Give a name as it may be shown: many are numbers, or have one in them."""
    if not show:
        text = _DIGITS.sub(lambda found: number(found[0], show=False), text)
    return visible(text)


def isolated(text: str) -> Markup:
    """Wrap a foreign text, so that its direction changes nothing around it."""
    return Markup("<bdi>{}</bdi>").format(visible(text))


def moment(text: str | None) -> Markup:
    """Write a time of a file, which a script turns into that of the reader's zone.

    Args:
        text: As in ``call.json``, UTC; what is none is shown as it is.
    """
    if not text:
        return Markup("&ndash;")
    try:
        at = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return isolated(text)
    machine = f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"
    return Markup('<time datetime="{}">{}</time>').format(
        machine, f"{at:%Y-%m-%d %H:%M:%S} UTC"
    )


def due(at: float) -> Markup:
    """Write when something is to happen, which a script counts down to.

    Args:
        at: Seconds since 1970.
    """
    text = datetime.fromtimestamp(round(at), UTC).isoformat(timespec="milliseconds")
    return Markup('<span data-due="{}">at {}</span>').format(round(at), moment(text))


def span(seconds: float) -> str:
    """Write how long something lasts: ``0:07``, ``12:34`` or ``1:02:03``."""
    whole = max(0, round(seconds))
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def size(count: float) -> str:
    """Write a number of bytes: ``17 B``, ``3.2 KiB`` and so on."""
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    place = 0
    while count >= KIB and place < len(units) - 1:
        count /= KIB
        place += 1
    return f"{count:.0f} B" if place == 0 else f"{count:.1f} {units[place]}"


def plain(text: str) -> Markup:
    """Write a foreign text on its own, with lines as they are."""
    lines = (escape(visible(each)) for each in text.split("\n"))
    return Markup("\n").join(lines)


FILTERS: Final[Mapping[str, Callable[..., str]]] = {
    "due": due,
    "foreign": isolated,
    "foreign_lines": plain,
    "moment": moment,
    "size": size,
    "span": span,
}
"""What templates may use."""
