"""The minutes of a call: its text messages, written into its journal as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from audiohook.recording.dialogue import Dialogue, Direction
from audiohook.recording.journal import utc_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from audiohook.recording.dialogue import Keep
    from audiohook.recording.journal import TextFact

# Before a call has a journal there is ``open``, and whatever a peer sends instead.
_MOST_EARLY: Final = 16


class Minutes:
    """Takes down what is said.

    Args:
        keep: How much of it is kept.
        write: Writes a fact into the call's journal.
        clock: Unix time in seconds.
    """

    __slots__ = ("_clock", "_dialogue", "_early", "_write")

    def __init__(
        self, keep: Keep, write: Callable[[TextFact], None], clock: Callable[[], float]
    ) -> None:
        self._dialogue = Dialogue(keep)
        self._write = write
        self._clock = clock
        self._early: list[TextFact] | None = []

    def heard(self, text: str, samples: int) -> None:
        """Takes down a message of the client.

        Args:
            text: It.
            samples: Samples of each channel that had come before it.
        """
        self._take_down(Direction.IN, text, samples)

    def said(self, texts: Sequence[str], samples: int) -> None:
        """Takes down messages of ours, likewise."""
        for text in texts:
            self._take_down(Direction.OUT, text, samples)

    def begin(self) -> None:
        """Notes that the call has a journal now."""
        early, self._early = self._early, None
        for fact in early or ():
            self._write(fact)

    def _take_down(self, direction: Direction, text: str, samples: int) -> None:
        at = utc_text(self._clock())
        fact = self._dialogue.note(direction, text, at=at, offset_samples=samples)
        if fact is None:
            return
        if self._early is None:
            self._write(fact)
        elif len(self._early) < _MOST_EARLY:
            self._early.append(fact)
