"""Who said what and when: a transcript's JSON as turns of speech.

The JSON is taken as it comes: times may be missing, lists null, channels unknown. What
there is of text is never left out for that.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import accumulate, pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HOURS_IN_MS: Final = 60 * 60 * 1000

TIME_LIMIT_MS: Final = 10_000 * HOURS_IN_MS - 1
"""Latest time; what is said to be later is set to this."""

# A pause that ends a turn, where the service gives words only.
_PAUSE_MS: Final = 1_500
# How much may stand between a word and the next, in the text that holds both.
_SLACK: Final = 32
_NAME_LIMIT: Final = 40

_SIDES: Final = {"external": "customer", "internal": "agent"}
_CHANNEL: Final = re.compile(r"[1-9][0-9]{0,2}")
_LABEL: Final = re.compile(r"([1-9][0-9]?)?([A-Z]{0,2})")
_PIECE: Final = re.compile(r"\S+\s*")

# Line breaks and control characters become spaces; what would turn the direction of
# the line around the text goes; half a surrogate pair cannot be written at all.
_PLAIN: Final = {
    **dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029], " "),
    **dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF], None),
    **dict.fromkeys(range(0xD800, 0xE000), "\ufffd"),
}


class Token(NamedTuple):
    """A piece of a turn's text with a time of its own, as a rule a word.

    Attributes:
        text: With the space behind it.
        start_ms: Never before that of the token before.
        end_ms: Never before the start.
    """

    text: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Turn:
    """What one speaker said in one go.

    Attributes:
        start_ms: From the beginning of the audio.
        end_ms: Never before the start.
        channel: From 1 on; 0 if it is not known.
        speaker: Name to show, see `read_turns`.
        text: One line, never empty.
        tokens: The text in pieces, whole and in order.
    """

    start_ms: int
    end_ms: int
    channel: int
    speaker: str
    text: str
    tokens: tuple[Token, ...]


class _Word(NamedTuple):
    text: str
    start_ms: int | None
    end_ms: int | None
    channel: int
    label: str


class _Speech(NamedTuple):
    """A turn whose speaker has no name yet."""

    start_ms: int
    end_ms: int
    channel: int
    label: str
    text: str
    tokens: tuple[Token, ...]


def read_turns(body: Mapping[str, Any], channel_names: Sequence[str]) -> list[Turn]:
    """Read the turns of a transcript.

    Args:
        body: AssemblyAI's JSON.
        channel_names: Genesys's names of the channels of the file, in their order
            there; none for a file in which they are mixed.

    Returns:
        Turns by start, channel and end; those that overlap are kept apart. A speaker
        is ``customer`` or ``agent`` after the channel, with a number where a channel
        has several; ``speaker`` where no channel is known.
    """
    multichannel = body.get("multichannel") is True
    speeches = (
        list(_from_utterances(body, multichannel=multichannel))
        or list(_from_words(body, multichannel=multichannel))
        or list(_from_text(body))
    )
    speeches.sort(key=attrgetter("start_ms", "channel", "end_ms"))
    names = _speaker_names(speeches, channel_names)
    return [
        Turn(
            each.start_ms,
            each.end_ms,
            each.channel,
            names[each.channel, each.label],
            each.text,
            each.tokens,
        )
        for each in speeches
    ]


def plain_text(value: object) -> str:
    """Return text as one line of characters that show; empty if it is none."""
    if not isinstance(value, str):
        return ""
    if not value.isprintable():
        value = value.translate(_PLAIN)
    return " ".join(value.split())


def _from_utterances(
    body: Mapping[str, Any], *, multichannel: bool
) -> Iterator[_Speech]:
    latest: dict[int, int] = {}
    for utterance in _dicts(body.get("utterances")):
        channel, label = _who(utterance, multichannel=multichannel)
        words = list(_words(utterance, multichannel=multichannel))
        text = plain_text(utterance.get("text")) or " ".join(w.text for w in words)
        if text:
            start, end = _ms(utterance.get("start")), _ms(utterance.get("end"))
            before = latest.get(channel, 0)
            speech = _speech(channel, label, text, words, start, end, before)
            latest[channel] = speech.end_ms
            yield speech


def _from_words(body: Mapping[str, Any], *, multichannel: bool) -> Iterator[_Speech]:
    """Make turns of words: one ends with a pause, or as its channel changes voice."""
    open_turns: dict[int, list[_Word]] = {}
    words = _with_times(_words(body, multichannel=multichannel))
    for word, start, end in sorted(words, key=lambda each: (each[1], each[0].channel)):
        turn = open_turns.setdefault(word.channel, [])
        if turn and (
            turn[-1].label != word.label or start - (turn[-1].end_ms or 0) > _PAUSE_MS
        ):
            yield _joined(turn)
            turn.clear()
        turn.append(word._replace(start_ms=start, end_ms=end))
    for turn in open_turns.values():
        yield _joined(turn)


def _with_times(words: Iterator[_Word]) -> Iterator[tuple[_Word, int, int]]:
    """Give every word times; one without begins as the one before it ends."""
    latest: dict[int, int] = {}
    for word in words:
        before = latest.get(word.channel, 0)
        start = before if word.start_ms is None else word.start_ms
        end = max(start if word.end_ms is None else word.end_ms, start)
        latest[word.channel] = end
        yield word, start, end


def _joined(words: list[_Word]) -> _Speech:
    text = " ".join(word.text for word in words)
    return _speech(words[0].channel, words[0].label, text, words, None, None, 0)


def _from_text(body: Mapping[str, Any]) -> Iterator[_Speech]:
    text = plain_text(body.get("text"))
    seconds = _ms(body.get("audio_duration")) or 0
    if text:
        yield _speech(0, "", text, [], 0, min(seconds * 1000, TIME_LIMIT_MS), 0)


def _words(container: Mapping[str, Any], *, multichannel: bool) -> Iterator[_Word]:
    for word in _dicts(container.get("words")):
        text = plain_text(word.get("text"))
        if text:
            start, end = _ms(word.get("start")), _ms(word.get("end"))
            yield _Word(text, start, end, *_who(word, multichannel=multichannel))


def _speech(
    channel: int,
    label: str,
    text: str,
    words: list[_Word],
    start: int | None,
    end: int | None,
    before: int,
) -> _Speech:
    """Make a turn; what says nothing of its times begins where `before` says."""
    if start is None:
        starts = [word.start_ms for word in words if word.start_ms is not None]
        start = min(starts, default=before)
    if end is None:
        ends = [word.end_ms for word in words if word.end_ms is not None]
        end = max(ends, default=start)
    end = max(start, end)
    tokens = _timed(text, words, start) or _spread(text, start, end)
    return _Speech(start, end, channel, label, text, tokens)


def _timed(text: str, words: list[_Word], start: int) -> tuple[Token, ...]:
    """Cut a text at its words; nothing if they are not the text's."""
    offsets: list[int] = []
    position = 0
    for word in words:
        found = text.find(word.text, position, position + len(word.text) + _SLACK)
        if found < 0:
            return ()
        offsets.append(found)
        position = found + len(word.text)
    if not offsets or len(text) - position > _SLACK:
        return ()
    tokens: list[Token] = []
    end = start
    bounds = [0, *offsets[1:], len(text)]
    for word, (left, right) in zip(words, pairwise(bounds), strict=True):
        start = max(start, end if word.start_ms is None else word.start_ms)
        end = max(start, start if word.end_ms is None else word.end_ms)
        tokens.append(Token(text[left:right], start, end))
    return tuple(tokens)


def _spread(text: str, start: int, end: int) -> tuple[Token, ...]:
    """Cut a text at its spaces, and spread its time over its characters."""
    pieces = _PIECE.findall(text)
    bounds = [
        start + (end - start) * passed // len(text)
        for passed in accumulate(map(len, pieces), initial=0)
    ]
    return tuple(map(Token, pieces, bounds, bounds[1:]))


def _who(item: Mapping[str, Any], *, multichannel: bool) -> tuple[int, str]:
    """Return channel and label of a speaker, each without the other."""
    speaker = plain_text(item.get("speaker"))
    channel = _channel(item.get("channel"))
    parts = _LABEL.fullmatch(speaker)
    if parts is None:
        return channel, speaker[:_NAME_LIMIT].rstrip()
    number, letters = int(parts[1] or 0), parts[2]
    if channel == 0 and multichannel:
        channel = number
    return channel, letters if number in {0, channel} else speaker


def _channel(value: object) -> int:
    text = str(value) if isinstance(value, int | str) else ""
    return int(text) if _CHANNEL.fullmatch(text) else 0


def _speaker_names(
    speeches: Sequence[_Speech], channel_names: Sequence[str]
) -> dict[tuple[int, str], str]:
    """Name all speakers; those of one channel are numbered as they first speak."""
    labels: dict[int, dict[str, None]] = {}
    for speech in speeches:
        labels.setdefault(speech.channel, {})[speech.label] = None
    names: dict[tuple[int, str], str] = {}
    for channel, of_channel in labels.items():
        side = _side(channel, channel_names)
        coded = [label for label in of_channel if label and _LABEL.fullmatch(label)]
        for label in of_channel:
            if label not in coded:
                # None that the service could tell, or one that it knows by name.
                names[channel, label] = label or side
            elif len(coded) == 1:
                names[channel, label] = side
            else:
                names[channel, label] = f"{side} {coded.index(label) + 1}"
    return names


def _side(channel: int, channel_names: Sequence[str]) -> str:
    if channel == 0:
        if len(channel_names) != 1:
            return "speaker"
        channel = 1
    if channel > len(channel_names):
        return f"channel {channel}"
    name = plain_text(channel_names[channel - 1])[:_NAME_LIMIT].rstrip()
    return _SIDES.get(name, name) or f"channel {channel}"


def _dicts(value: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, dict))


def _ms(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return min(max(int(value), 0), TIME_LIMIT_MS)
