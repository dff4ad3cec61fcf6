"""What came of trying one thing for real."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one trial.

    Attributes:
        ok: Whether it works, if perhaps not as well as it could.
        what: What was tried, in one line.
        mend: What to do about it; empty if nothing is to be done. With `ok` it is
            advice.
        warns: Whether that advice is about something that may cost calls, or let
            somebody in, one day.
    """

    ok: bool
    what: str
    mend: str = ""
    warns: bool = False


def good(what: str, advice: str = "") -> Verdict:
    """Returns that something works."""
    return Verdict(ok=True, what=what, mend=advice)


def doubtful(what: str, mend: str) -> Verdict:
    """Returns that something works today, and had better be mended."""
    return Verdict(ok=True, what=what, mend=mend, warns=True)


def bad(what: str, mend: str) -> Verdict:
    """Returns that something does not work."""
    return Verdict(ok=False, what=what, mend=mend)
