"""How much of a load is made: enough to see a fault, or all that was promised.

With ``AUDIOHOOK_FULL_SIZE=1`` the tests that read this take their full numbers,
and up to half an hour each.
"""

from __future__ import annotations

import os
from typing import TypeVar

Amount = TypeVar("Amount", int, float, str)

FULL_SIZE = bool(os.environ.get("AUDIOHOOK_FULL_SIZE"))


def scaled(part: Amount, full: Amount) -> Amount:
    """Returns the amount for this run.

    Args:
        part: What shows the fault if there is one, on any machine.
        full: What the service is to stand.
    """
    return full if FULL_SIZE else part
