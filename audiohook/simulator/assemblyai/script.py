"""What the voices say: fixed lines, spread over the time in which they speak."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from audiohook.simulator.assemblyai.voices import turns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from audiohook.simulator.assemblyai.voices import Hearing, Span

_WORDS_A_SECOND = 2.5
# Of a word's share of the time; the rest is the pause before the next one.
_SPOKEN_SHARE = 0.85
# A line is taken if it is at most this much longer than there is time for.
_HASTE = 1.6

# Two sides of a call, in turns; the first channel has the first.
_CUSTOMER = (
    "Hello, I am calling about a parcel that has not arrived.",
    "Yes, the order number is four seven one nine two.",
    "I ordered it on Monday, and it should have been here yesterday.",
    "Nobody left a card at the door, and I was at home all day.",
    "The tracking page says that it is still at the depot.",
    "Could you find out whether the driver tried at all?",
    "I would rather have it delivered than collect it myself.",
    "Tomorrow morning would suit me very well, before eleven if possible.",
    "Will I get a message when it is on its way?",
    "That is very kind of you, thank you for your help.",
)
_AGENT = (
    "Thank you for that, let me look it up for you.",
    "May I have the order number, please?",
    "I can see the parcel here, it reached our depot on Tuesday.",
    "I am sorry about that, the van was full and it stayed behind.",
    "Let me check with the depot what has happened to it.",
    "They tell me that it can go out with the next round.",
    "Would tomorrow between eight and eleven be convenient for you?",
    "I have booked that, and you will get a message in the morning.",
    "Is there anything else that I can do for you today?",
    "You are welcome, have a good day and goodbye.",
)
_SHORT = ("Yes.", "Right.", "Okay.", "I see.", "Thank you.", "Of course.")


@dataclass(frozen=True, slots=True)
class Word:
    """A word, with its time in milliseconds and how sure one is of it."""

    text: str
    start_ms: int
    end_ms: int
    confidence: float


@dataclass(frozen=True, slots=True)
class Utterance:
    """What one voice says in one go.

    Attributes:
        channel: Which channel it is on, from 0.
        start_ms: When it begins.
        end_ms: When it ends.
        words: Never none.
    """

    channel: int
    start_ms: int
    end_ms: int
    words: tuple[Word, ...]

    @property
    def text(self) -> str:
        """All of it."""
        return " ".join(word.text for word in self.words)

    @property
    def confidence(self) -> float:
        """How sure one is of its words on the whole."""
        return round(sum(word.confidence for word in self.words) / len(self.words), 4)


def speak(hearing: Hearing) -> list[Utterance]:
    """Gives the voices words; always the same ones for the same audio.

    Args:
        hearing: When each channel's voice is there.

    Returns:
        Utterances by the time of their beginning, then by channel. Each begins and
        ends with its voice.
    """
    spoken: list[Utterance] = []
    for channel, spans in enumerate(hearing.voices):
        side = _Side(_AGENT if channel % 2 else _CUSTOMER)
        for turn in turns(spans):
            words = side.say(sum(span.length_ms for span in turn) / 1000)
            start_ms, end_ms = turn[0].start_ms, turn[-1].end_ms
            timed = tuple(_spread(words, turn))
            spoken.append(Utterance(channel, start_ms, end_ms, timed))
    return sorted(spoken, key=lambda utterance: (utterance.start_ms, utterance.channel))


class _Side:
    """One side's lines, from the first to the last and over again."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = [tuple(line.split()) for line in lines]
        self._next = 0
        self._short = 0

    def say(self, seconds: float) -> list[str]:
        """Gives as many whole lines as there is time for, at least a word."""
        room = max(1.0, seconds * _WORDS_A_SECOND)
        words: list[str] = []
        while len(words) < room and (line := self._fitting(room - len(words))):
            words += line
        if not words:
            words = _SHORT[self._short % len(_SHORT)].split()
            self._short += 1
        return words

    def _fitting(self, room: float) -> tuple[str, ...] | None:
        """Gives the next line that is not too long for the time."""
        for step in range(len(self._lines)):
            line = self._lines[(self._next + step) % len(self._lines)]
            if len(line) <= room * _HASTE:
                self._next += step + 1
                return line
        return None


def _spread(words: Sequence[str], spans: Sequence[Span]) -> Iterator[Word]:
    """Spreads words evenly over the time in which there is a voice."""
    spoken_ms = sum(span.length_ms for span in spans)
    share_ms = spoken_ms / len(words)
    for index, text in enumerate(words):
        is_last = index == len(words) - 1
        begins = share_ms * index
        ends = spoken_ms if is_last else begins + share_ms * _SPOKEN_SHARE
        start_ms = _moment(spans, begins)
        end_ms = max(start_ms, _moment(spans, ends, at_end=True))
        confidence = 0.9 + (index * 37 + len(text) * 13) % 100 / 1000
        yield Word(text, start_ms, end_ms, round(confidence, 3))


def _moment(spans: Sequence[Span], spoken_ms: float, *, at_end: bool = False) -> int:
    """Finds the time at which a voice has spoken for so long.

    Args:
        spans: When it speaks.
        spoken_ms: Milliseconds of speech, pauses left out.
        at_end: At a pause, take its beginning rather than its end.
    """
    left = spoken_ms
    for span in spans:
        if left < span.length_ms or (at_end and left <= span.length_ms):
            return span.start_ms + round(left)
        left -= span.length_ms
    return spans[-1].end_ms
