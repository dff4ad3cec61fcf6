"""Turns of speech cut into cues, as subtitles need them."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Final, NamedTuple

from audiohook.transcription.turns import Token

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from audiohook.transcription.turns import Turn

# Source: BBC Subtitle Guidelines, "Line length", "Number of lines"; Netflix Timed
# Text Style Guide, "Duration", "Character limitation".
LINE_COLUMNS: Final = 42
LINES: Final = 2
CUE_LIMIT_MS: Final = 7_000

# A cue that would have no length is shown for so long.
_LEAST_MS: Final = 500
_PAUSE_MS: Final = 1_000
# What a speaker's long name leaves of the first line at the least.
_LEAST_COLUMNS: Final = 16
_SENTENCE_ENDS: Final = (".", "?", "!", "…", "。", "？", "！", "؟", "।")  # noqa: RUF001 - of other scripts


class Cue(NamedTuple):
    """What is shown at a time.

    Attributes:
        start_ms: From the beginning of the audio.
        end_ms: After the start, by at most `CUE_LIMIT_MS`.
        speaker: Who says it.
        lines: One or two, none of them empty.
    """

    start_ms: int
    end_ms: int
    speaker: str
    lines: tuple[str, ...]


def cut(turns: Sequence[Turn]) -> list[Cue]:
    """Cut turns into cues.

    Args:
        turns: As `read_turns` gives them.

    Returns:
        Cues by their starts; those of one turn are in its order. A line has
        `LINE_COLUMNS`, of which the speaker's name takes some of the first.
    """
    cues = [cue for turn in turns for cue in _cut_turn(turn)]
    # Stable: of two that start together, that of the earlier turn comes first.
    cues.sort(key=lambda cue: cue.start_ms)
    return cues


def columns(text: str) -> int:
    """Count the columns that a text takes: East Asian characters take two."""
    if text.isascii():
        return len(text)
    return sum(map(_columns_of, text))


def _columns_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _cut_turn(turn: Turn) -> Iterator[Cue]:
    room = max(LINE_COLUMNS - columns(f"{turn.speaker}: "), _LEAST_COLUMNS)
    draft = _Draft(turn.speaker, room)
    for token in _short(turn.tokens, room):
        if not draft.add(token):
            yield draft.finish()
            draft = _Draft(turn.speaker, room)
            draft.add(token)
    yield draft.finish()


def _short(tokens: Iterable[Token], room: int) -> Iterator[Token]:
    """Cut what is longer than a line, such as text of a script without spaces."""
    for token in tokens:
        if columns(token.text.rstrip()) <= room:
            yield token
            continue
        pieces = list(_pieces(token.text, room))
        length = token.end_ms - token.start_ms
        passed = 0
        for piece in pieces:
            start = token.start_ms + length * passed // len(token.text)
            passed += len(piece)
            end = token.start_ms + length * passed // len(token.text)
            yield Token(piece, start, end)


def _pieces(text: str, room: int) -> Iterator[str]:
    begin = taken = 0
    for position, character in enumerate(text):
        width = _columns_of(character)
        if taken + width > room and not character.isspace():
            yield text[begin:position]
            begin, taken = position, 0
        taken += width
    yield text[begin:]


class _Draft:
    """A cue that is being filled."""

    def __init__(self, speaker: str, room: int) -> None:
        self._speaker = speaker
        self._room = room
        self._lines: list[list[str]] = []
        self._columns = 0
        self._start_ms = 0
        self._end_ms = 0
        self._ended_sentence = False

    def add(self, token: Token) -> bool:
        """Add a token if it belongs into this cue; the first always does."""
        end_ms = min(token.end_ms, token.start_ms + CUE_LIMIT_MS)
        if not self._lines:
            self._start_ms = token.start_ms
            self._lines.append([])
        elif self._is_over(token.start_ms, end_ms):
            return False
        width = columns(token.text)
        if (
            self._columns + columns(token.text.rstrip()) > self._room
            and self._lines[-1]
        ):
            if len(self._lines) == LINES:
                return False
            self._lines.append([])
            self._columns, self._room = 0, LINE_COLUMNS
        self._lines[-1].append(token.text)
        self._columns += width
        self._end_ms = max(self._end_ms, end_ms)
        self._ended_sentence = token.text.rstrip().endswith(_SENTENCE_ENDS)
        return True

    def _is_over(self, start_ms: int, end_ms: int) -> bool:
        return (
            end_ms - self._start_ms > CUE_LIMIT_MS
            or start_ms - self._end_ms >= _PAUSE_MS
            or (self._ended_sentence and len(self._lines) == LINES)
        )

    def finish(self) -> Cue:
        """Return the cue; there must be a token in it."""
        end_ms = self._end_ms
        if end_ms <= self._start_ms:
            end_ms = self._start_ms + _LEAST_MS
        lines = tuple("".join(line).strip() for line in self._lines)
        return Cue(self._start_ms, end_ms, self._speaker, lines)
