"""Which recordings in the stores are meant, and what is known of their transcripts."""

from __future__ import annotations

import json
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import trio

from audiohook.erasure.order import Asked, Named, Transcript, Wanted
from audiohook.errors import UploadError
from audiohook.protocol.messages import NIL_UUID
from audiohook.recording.journal import is_uuid
from audiohook.storage.layout import SUMMARY_NAME
from audiohook.storage.s3_metadata import safe_value
from audiohook.storage.summary import METADATA_LIMIT
from audiohook.storage.traces import Kept, Reason, TraceKind, conversation_of
from audiohook.transcription.base import is_transcript_id, without_query

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from audiohook.erasure.order import OrderFact
    from audiohook.storage.traces import Trace, Traces

_JOBS: Final = "jobs"
_TRANSCRIPTS: Final = "transcripts"
_DEEPEST: Final = 8
_MOST_PREFIXES: Final = 10_000
_TIME_CHARS: Final = len("2026-11-22T14-10-44.123Z")


@dataclass(frozen=True, slots=True)
class Place:
    """A part of a store that recordings are in.

    Attributes:
        name: Names the store, the same after each start.
        traces: What there is.
        prefix: What their keys begin with.
        bucket: The bucket, if it is not that of the service.
    """

    name: str
    traces: Traces
    prefix: str
    bucket: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What a look at the stores gave.

    Attributes:
        named: Recordings that are meant.
        doubtful: What may be meant, but nobody can tell.
    """

    named: list[Named] = field(default_factory=list)
    doubtful: list[Kept] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class _Ticket:
    wanted: Wanted
    candidates: dict[Named, None] = field(default_factory=dict)
    done: bool = False


class Search:
    """Looks for recordings by the names of all that there are.

    The index is no help: it may lack what a crash left half stored, what somebody
    has deleted in a bucket that keeps versions, or uploads that were not finished.
    A page of 1,000 names is one request. All who ask meanwhile share the next look.

    Args:
        places: Returns where to look.
    """

    def __init__(self, places: Callable[[], Sequence[Place]]) -> None:
        self._places = places
        self._looking = trio.Lock()
        self._tickets: list[_Ticket] = []

    def place(self, name: str) -> Place | None:
        """Return a place; None if it is not among the settings any more."""
        return next((each for each in self._places() if each.name == name), None)

    async def find(self, wanted: Wanted) -> Found:
        """Find all recordings that are meant.

        Raises:
            UploadError: A store did not do as asked.
        """
        ticket = _Ticket(wanted)
        self._tickets.append(ticket)
        try:
            async with self._looking:
                if not ticket.done:
                    tickets, self._tickets = self._tickets, []
                    await self._look(tickets)
        finally:
            if ticket in self._tickets:
                self._tickets.remove(ticket)
        found = Found()
        for named in ticket.candidates:
            await self._judge(named, wanted, found)
        return found

    async def _look(self, tickets: list[_Ticket]) -> None:
        by_conversation: dict[str, list[_Ticket]] = {}
        for ticket in tickets:
            key = _in_names(ticket.wanted.conversation)
            by_conversation.setdefault(key, []).append(ticket)
        try:
            for place in self._places():
                await _walk(place, by_conversation)
        except BaseException:
            # Whoever waits looks for himself.
            self._tickets += [each for each in tickets if each not in self._tickets]
            raise
        for ticket in tickets:
            ticket.done = True

    async def _judge(self, named: Named, wanted: Wanted, found: Found) -> None:
        """Tell whether a recording is meant of which the name says too little."""
        if wanted.session is None and is_uuid(wanted.conversation.lower()):
            found.named.append(named)
            return
        place = self.place(named.place)
        if place is None:
            return
        traces = place.traces
        listed = await traces.below(named.folder)
        meant = await _is_meant(traces, listed, wanted)
        if meant is not None:
            found.named.extend([named] if meant else [])
            return
        found.doubtful.extend(Kept(each, Reason.UNKNOWN) for each in listed)


async def _walk(place: Place, by_conversation: Mapping[str, list[_Ticket]]) -> None:
    """Look through a place, and as deep as settings of calls may have put them."""
    prefixes = [(place.prefix, 0)]
    looked = 0
    while prefixes:
        prefix, depth = prefixes.pop()
        deeper: set[str] = set()
        async with aclosing(place.traces.names(prefix)) as pages:
            async for names in pages:
                _note(place, prefix, names, by_conversation)
                deeper |= {each for each in names if conversation_of(each) is None}
        looked += 1
        if looked > _MOST_PREFIXES:
            raise UploadError(
                f"{place.prefix} has more than {_MOST_PREFIXES} folders that are no"
                " recordings: who else stores there?",
                retryable=False,
            )
        if depth < _DEEPEST:
            prefixes += [(f"{prefix}{each}/", depth + 1) for each in sorted(deeper)]


def _note(
    place: Place,
    prefix: str,
    names: Sequence[str],
    by_conversation: Mapping[str, list[_Ticket]],
) -> None:
    for name in names:
        for ticket in by_conversation.get(conversation_of(name) or "", ()):
            if name[:_TIME_CHARS] <= ticket.wanted.at.replace(":", "-"):
                named = Named(place.name, f"{prefix}{name}")
                ticket.candidates[named] = None


def _in_names(conversation: str) -> str:
    """Return what stands for a conversation in the names of its recordings."""
    return conversation.lower() if is_uuid(conversation.lower()) else NIL_UUID


async def _is_meant(
    traces: Traces, listed: Sequence[Trace], wanted: Wanted
) -> bool | None:
    """Tell whether a recording is meant, by what is stored of it; None if unknown."""
    objects = [each for each in listed if each.kind is TraceKind.OBJECT]
    for each in objects:
        if _file(each) == SUMMARY_NAME:
            value = _json(await traces.content(each))
            if isinstance(value, dict):
                return wanted.is_of(value.get("conversationId"), value.get("sessionId"))
    conversation = safe_value(wanted.conversation, limit=METADATA_LIMIT).lower()
    for each in objects:
        notes = await traces.notes(each)
        if {"session-id", "conversation-id"} <= notes.keys():
            same = notes["conversation-id"].lower() == conversation
            return same and wanted.session in (None, notes["session-id"])
    return None


async def transcripts_of(traces: Traces, listed: Sequence[Trace]) -> list[OrderFact]:
    """Tell what the store knows of jobs at the transcription service.

    All versions are read: one that was made anew has the id of the last job alone.

    Raises:
        UploadError: The store did not do as asked.
    """
    facts: dict[OrderFact, None] = {}
    for each in listed:
        if each.kind is not TraceKind.OBJECT:
            continue
        folder = each.key.split("/")[-2:][0]
        if _file(each) == SUMMARY_NAME:
            value = _json(await traces.content(each))
            for entry in _entries(value, "transcripts"):
                _note_id(entry.get("id"), facts)
        elif folder == _JOBS:
            for entry in _entries(_json(await traces.content(each)), "facts"):
                _note_id(entry.get("transcript_id"), facts)
                _note_asked(entry, facts)
        elif folder == _TRANSCRIPTS:
            _note_id((await traces.notes(each)).get("transcript-id"), facts)
    return list(facts)


def _note_id(found: object, facts: dict[OrderFact, None]) -> None:
    if isinstance(found, str) and is_transcript_id(found):
        facts[Transcript(found)] = None


def _note_asked(entry: Mapping[str, Any], facts: dict[OrderFact, None]) -> None:
    url, at = entry.get("audio_url"), entry.get("at")
    if isinstance(url, str) and isinstance(at, str):
        try:
            moment = datetime.fromisoformat(at).timestamp()
        except ValueError:
            moment = 0.0
        facts[Asked(without_query(url), moment)] = None


def _file(trace: Trace) -> str:
    return trace.key.rpartition("/")[2]


def _json(data: bytes | None) -> object:
    try:
        return json.loads(data or b"null")
    except (ValueError, RecursionError):
        return None


def _entries(value: object, name: str) -> list[Mapping[str, Any]]:
    items = value.get(name) if isinstance(value, dict) else None
    if not isinstance(items, list):
        return []
    return [each for each in items if isinstance(each, dict)]
