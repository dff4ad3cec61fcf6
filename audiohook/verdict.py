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
    """

    ok: bool
    what: str
    mend: str = ""
