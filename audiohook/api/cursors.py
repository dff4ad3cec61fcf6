"""Cursors: they say where a page has ended, and nothing that its asker has not seen."""

from __future__ import annotations

import base64
import binascii

from audiohook.api.problems import Code, ProblemError


def cursor_of(text: str) -> str:
    """Make a cursor of what a page ended with."""
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def text_of(cursor: str) -> str:
    """Return what a cursor was made of.

    Raises:
        ProblemError: It is none of ours.
    """
    try:
        data = base64.b64decode(
            cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True
        )
        return data.decode("ascii")
    except (binascii.Error, ValueError):
        raise ProblemError(Code.INVALID, "cursor is none of ours.") from None


def number_of(cursor: str) -> int:
    """Return the number that a cursor was made of.

    Raises:
        ProblemError: It is none of ours.
    """
    text = text_of(cursor)
    if not text.isdecimal() or not 0 <= int(text) < 2**63:
        raise ProblemError(Code.INVALID, "cursor is none of ours.")
    return int(text)
