"""Genesys' operational events, in whatever envelope they come.

An organization hands them on by Amazon EventBridge, by a webhook of a workflow, or by
a script that listens to the notification service; each has an envelope of its own.
What is looked for is the code, ``AUDIOHOOK-`` and four digits, the conversation, and
what is said of it. All of that comes from outside: it is bounded and made printable.

Source: public collectors of these events, which agree on ``eventEntity`` with ``id``,
``name`` and ``description``, beside ``conversationId``; Genesys' own page could not be
read, and nothing here was tried against Genesys.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from audiohook.recording.journal import is_uuid

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MOST_AT_ONCE: Final = 100
"""Events of one request."""

_CODE: Final = re.compile(r"AUDIOHOOK-[0-9]{4}")
_ENVELOPES: Final = ("detail", "eventBody", "event", "data", "body", "payload")
_DEEPEST: Final = 6
_CODES: Final = ("id", "code", "eventId", "event_id", "eventDefinitionId")
_ENTITIES: Final = ("eventEntity", "eventDefinition", "operationalEvent", "entity")
_CONVERSATIONS: Final = ("conversationId", "conversation_id", "conversationid")
_TIMES: Final = ("timestamp", "dateCreated", "eventTime", "time", "date")
_TEXTS: Final = ("description", "name", "message")
_IDS: Final = ("id", "eventId", "event_id", "messageId")
_ID: Final = re.compile(r"[!-~]{1,128}")
_LONGEST_TEXT: Final = 300
# In milliseconds, what in seconds would be the year 5138.
_MILLISECONDS: Final = 1e11


@dataclass(frozen=True, slots=True)
class GenesysEvent:
    """One event, as far as it is of use.

    Attributes:
        id: Tells it from others; two deliveries of one have the same.
        at: When it happened, in seconds since 1970.
        code: Such as ``AUDIOHOOK-0006``.
        conversation: Of which conversation, in lower case; empty if of none.
        text: What is said of it.
    """

    id: str
    at: float
    code: str
    conversation: str
    text: str


def read_events(value: object, *, now: float) -> list[GenesysEvent]:
    """Find the events in what somebody has sent.

    Args:
        value: JSON: an event in its envelopes, or a list of such.
        now: The time, for events that do not say when they happened.

    Returns:
        Those with a code of ours; nothing is said of the others.
    """
    items: Sequence[object] = value if isinstance(value, list) else [value]
    found = (_read(item, now) for item in items[:MOST_AT_ONCE])
    return [event for event in found if event is not None]


def _read(item: object, now: float) -> GenesysEvent | None:
    layers = list(_layers(item))
    code = next(filter(None, map(_code_of, reversed(layers))), None)
    if code is None:
        return None
    conversation = next(filter(None, (_conversation_of(each) for each in layers)), "")
    at = next(filter(None, (_time_of(each) for each in reversed(layers))), None)
    text = next(filter(None, map(_text_of, reversed(layers))), "")
    return GenesysEvent(
        id=_id_of(layers, code, conversation),
        # One that lies in the future would never be of a day that is over.
        at=now if at is None or at > now else at,
        code=code,
        conversation=conversation,
        text=text,
    )


def _layers(item: object) -> Iterator[Mapping[str, Any]]:
    """Take one envelope off after the other, the outermost first."""
    for _ in range(_DEEPEST):
        if isinstance(item, str):
            # Queues carry text.
            try:
                item = json.loads(item)
            except (ValueError, RecursionError):
                return
        if not isinstance(item, dict):
            return
        yield item
        layer = item
        item = next((layer[name] for name in _ENVELOPES if layer.get(name)), None)


def _entities(layer: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for name in _ENTITIES:
        if isinstance(layer.get(name), dict):
            yield layer[name]
    yield layer


def _code_of(layer: Mapping[str, Any]) -> str | None:
    for entity in _entities(layer):
        for name in _CODES:
            value = entity.get(name)
            if isinstance(value, str) and _CODE.fullmatch(value.upper()):
                return value.upper()
    return None


def _conversation_of(layer: Mapping[str, Any]) -> str | None:
    conversation = layer.get("conversation")
    values = [layer.get(name) for name in _CONVERSATIONS]
    if isinstance(conversation, dict):
        values.append(conversation.get("id"))
    for value in values:
        if isinstance(value, str) and is_uuid(value.lower()):
            return value.lower()
    return None


def _time_of(layer: Mapping[str, Any]) -> float | None:
    for name in _TIMES:
        value = layer.get(name)
        if isinstance(value, str) and len(value) <= len(
            "2026-11-22T14:10:44.123456+00:00"
        ):
            try:
                moment = datetime.fromisoformat(value)
            except ValueError:
                continue
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
            return max(0.0, moment.timestamp())
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            return value / 1000 if value > _MILLISECONDS else float(value)
    return None


def _text_of(layer: Mapping[str, Any]) -> str:
    for entity in _entities(layer):
        texts = [entity.get(name) for name in _TEXTS]
        text = ": ".join(each for each in texts if isinstance(each, str) and each)
        if text:
            return _printable(text)
    return ""


def _printable(text: str) -> str:
    kept = "".join(
        " " if unicodedata.category(each)[0] in "CZ" else each
        for each in text[: 2 * _LONGEST_TEXT]
    )
    return " ".join(kept.split())[:_LONGEST_TEXT]


def _id_of(layers: Sequence[Mapping[str, Any]], code: str, conversation: str) -> str:
    """Return what two deliveries of one event have in common.

    The outermost id that is not the code is that of the event, wherever it comes by;
    without one it is the innermost layer itself.
    """
    others = {code, conversation.upper()}
    for layer in layers:
        texts = (layer.get(name) for name in _IDS)
        for text in (each for each in texts if isinstance(each, str)):
            if _ID.fullmatch(text) and text.upper() not in others:
                return text
    said = json.dumps(layers[-1], sort_keys=True, default=str)
    return hashlib.sha256(said.encode(errors="backslashreplace")).hexdigest()
