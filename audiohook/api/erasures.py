"""What the API does with orders of erasure: take them, and tell how they stand."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, cast

from audiohook.api.models import ErasedItem, EraseQuery, Erasure
from audiohook.api.problems import Code, ProblemError

if TYPE_CHECKING:
    from audiohook.api.operations import Ask
    from audiohook.erasure.eraser import Eraser, Standing


class Erasures:
    """Answers what is asked about erasures.

    Args:
        eraser: Has calls erased.
    """

    def __init__(self, eraser: Eraser) -> None:
        self._eraser = eraser

    async def erase(self, ask: Ask) -> Erasure:
        """Takes an order to erase a conversation, and says how that stands."""
        asked = cast("EraseQuery", ask.query)
        conversation = ask.path["conversation"].lower()
        reference = await self._eraser.order(
            conversation,
            None if asked.session is None else asked.session.lower(),
            by=ask.token,
            end=asked.end,
        )
        standing = await self._eraser.standing(reference)
        if standing is None:
            raise ProblemError(Code.ERASURES)
        return _erasure(standing)

    async def show(self, ask: Ask) -> Erasure:
        """Shows how an erasure stands."""
        standing = await self._eraser.standing(ask.path["reference"])
        if standing is None:
            raise ProblemError(Code.NOT_FOUND)
        return _erasure(standing)


def _erasure(standing: Standing) -> Erasure:
    return Erasure(
        reference=standing.reference,
        done=standing.done,
        asked_at=standing.asked_at,
        done_at=standing.done_at,
        erased=ErasedItem(**asdict(standing.counts)),
        waits_for=standing.waits_for,
        kept=list(standing.kept),
    )
