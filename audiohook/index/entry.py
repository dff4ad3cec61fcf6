"""One recording as the index has it, made of its ``call.json`` and transcripts."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from audiohook.recording.fields import Fields
from audiohook.storage.layout import beside

if TYPE_CHECKING:
    from collections.abc import Collection

MIB: Final = 1024 * 1024

# Ten hours of speech are half a megabyte.
TEXT_LIMIT_BYTES: Final = 4 * MIB
_NUMBER_LIMIT: Final = 200
_WORD_LIMIT: Final = 200
# What a line of a transcript begins with: its time, and who speaks.
_LINE_START: Final = re.compile(r"^\[[0-9:]+\] [^:\n]{1,40}: ", re.MULTILINE)
# Source: ITU-T E.164: 15 digits; with what is dialled before and after them.
_MOST_DIGITS: Final = 40
_LEAST_DIGITS: Final = 3


class RecordingState(StrEnum):
    """How far a recording in the store has come."""

    STORED = "stored"
    """All of it is stored, and no transcript is awaited here."""
    TRANSCRIBING = "transcribing"
    """Its transcript is awaited."""
    TRANSCRIBED = "transcribed"
    """Its transcripts are stored."""
    PARKED = "parked"
    """A transcript waits until somebody has mended something."""
    FAILED = "failed"
    """A transcript was given up."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a recording is found by, and shown with in a list.

    Attributes:
        key: Where it is in the store, without a slash at the end.
        session: Its session.
        conversation: Its conversation.
        participant: The monitored party.
        ani: Calling number, as it came.
        ani_name: Name that goes with it, as it came.
        dnis: Called number, as it came.
        started_at: UTC with milliseconds.
        duration: Seconds, gaps included.
        language: Language tag, or None.
        complete: Whether nothing can be missing.
        state: How far it has come.
        texts: Keys of its transcripts as plain text.
        audio_removed_at: When its audio was removed, as it was kept for its time.
        transcripts_removed_at: The same of its transcripts.
    """

    key: str
    session: str
    conversation: str
    participant: str
    ani: str
    ani_name: str
    dnis: str
    started_at: str
    duration: float
    language: str | None
    complete: bool
    state: RecordingState
    texts: tuple[str, ...] = ()
    audio_removed_at: str | None = None
    transcripts_removed_at: str | None = None

    @property
    def started_ms(self) -> int:
        """When it began, in milliseconds since 1970."""
        return milliseconds(self.started_at)

    @property
    def numbers(self) -> frozenset[str]:
        """Its numbers, in the form in which they are looked for."""
        found = (number_key(each) for each in (self.ani, self.dnis))
        return frozenset(each for each in found if each)


def entry_of(key: str, summary: bytes) -> Entry:
    """Read what is to be found of a recording.

    Args:
        key: Where its ``call.json`` is in the store.
        summary: Its content.

    Raises:
        ValueError: It is not the JSON of a call.
    """
    try:
        value = json.loads(summary)
    except RecursionError as exc:
        raise ValueError("JSON is nested too deeply") from exc
    fields = Fields(value)
    party, ended = fields.nested("participant"), fields.nested("ended")
    started_at = fields.text("start")
    milliseconds(started_at)
    duration = fields.anything("duration")
    if not isinstance(duration, int | float) or not math.isfinite(duration):
        raise ValueError("duration is not a number")
    state, found = _transcripts(fields.items("transcripts"))
    texts = tuple(beside(key, each) for each in found)
    removed = fields.nested("removed") if fields.anything("removed") else Fields({})
    transcripts_removed_at = removed.optional_text("transcripts")
    return Entry(
        key=key.rpartition("/")[0],
        session=_plain(fields.text("sessionId")),
        conversation=_plain(fields.text("conversationId")),
        participant=_plain(party.text("id")),
        ani=_plain(party.text("ani")),
        ani_name=_plain(party.text("aniName")),
        dnis=_plain(party.text("dnis")),
        started_at=started_at,
        duration=float(duration),
        language=_plain(fields.optional_text("language") or "") or None,
        complete=ended.flag("complete"),
        state=state,
        texts=() if transcripts_removed_at else texts,
        audio_removed_at=removed.optional_text("audio"),
        transcripts_removed_at=transcripts_removed_at,
    )


def _transcripts(items: Collection[object]) -> tuple[RecordingState, tuple[str, ...]]:
    statuses, texts = set(), []
    for item in items:
        fields = Fields(item)
        statuses.add(fields.text("status"))
        keys = (Fields(each).text("key") for each in fields.items("objects"))
        texts += [key for key in keys if key.endswith(".txt")]
    # The worst is what somebody should know.
    for words, state in (
        ({"parked"}, RecordingState.PARKED),
        ({"failed"}, RecordingState.FAILED),
        ({"pending", "submitted"}, RecordingState.TRANSCRIBING),
        ({"completed"}, RecordingState.TRANSCRIBED),
    ):
        if statuses & words:
            return state, tuple(texts)
    return RecordingState.STORED, tuple(texts)


def _plain(text: str) -> str:
    """Bound a text, and take out half characters, which no file can hold."""
    return text[:_NUMBER_LIMIT].encode(errors="replace").decode()


def milliseconds(started_at: str) -> int:
    """Turn a UTC time as text into milliseconds since 1970.

    Raises:
        ValueError: It is none, or lies before 1970.
    """
    moment = datetime.fromisoformat(started_at)
    if moment.tzinfo is None or moment.timestamp() < 0:
        raise ValueError("start is not a time in UTC")
    return round(moment.timestamp() * 1000)


def number_key(number: str) -> str:
    """Bring a number into the form in which it is looked for: its end first.

    ``tel:+49 30 123456``, ``+4930123456`` and ``004930123456`` are the same; and
    what is looked for may leave out what comes before, as ``030 123456`` does. An
    address without enough digits, such as ``sip:anna@example.com``, is taken whole.

    Args:
        number: In any form.

    Returns:
        Digits from the last to the first; an address behind an ``@``; nothing if
        there is nothing to look for.
    """
    text = number[:_NUMBER_LIMIT].strip().lower()
    scheme, colon, rest = text.partition(":")
    if colon and scheme.isalpha():
        text = rest
    text = text.partition(";")[0]
    user = text.partition("@")[0]
    digits = "".join(each for each in user if each in "0123456789")
    letters = any(each.isalpha() for each in user)
    if letters or len(digits) < _LEAST_DIGITS:
        return f"@{text}".encode(errors="replace").decode() if text else ""
    return (digits.lstrip("0") or digits)[::-1][:_MOST_DIGITS]


def spoken(text: bytes) -> str:
    """Take the words out of a transcript: without times and names of speakers."""
    plain = text[:TEXT_LIMIT_BYTES].decode(errors="replace")
    return _LINE_START.sub("", plain)


def words_of(text: str) -> list[str]:
    """Part what somebody looks for into words; a star at an end stays there."""
    kept = "".join(
        " " if unicodedata.category(each)[0] in "CZ" else each for each in text
    )
    return [word[:_WORD_LIMIT] for word in kept.split()]
