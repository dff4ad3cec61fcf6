"""What the API tells of calls: it finds them, and shows one with its files."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final, cast

from starlette.responses import RedirectResponse, Response

from audiohook.api.cursors import cursor_of, number_of, text_of
from audiohook.api.models import (
    CallState,
    Conversation,
    FindQuery,
    Link,
    LiveItem,
    LivePage,
    LiveQuery,
    RecordingItem,
    RecordingPage,
    SessionItem,
    milliseconds_of,
)
from audiohook.api.problems import Code, ProblemError
from audiohook.control import Held
from audiohook.file_ranges import NoFileError, NoStretchError, serve
from audiohook.index.search import Query
from audiohook.storage.base import SigningStore
from audiohook.storage.folder import FolderStore
from audiohook.storage.layout import SUMMARY_NAME, beside, file_key

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from audiohook.api.operations import Ask
    from audiohook.api.presence import Presence
    from audiohook.api.surroundings import Surroundings
    from audiohook.call import Call
    from audiohook.index.entry import Entry
    from audiohook.index.search import Found

SECONDS = 1
MINUTES = 60 * SECONDS
MIB: Final = 1024 * 1024

# A conversation has a handful of sessions; each costs a read of the store.
_MOST_SESSIONS: Final = 20
_LONGEST_SUMMARY: Final = MIB
_ADDRESS_LIFE: Final = 15 * MINUTES


class Calls:
    """Answers what is asked about calls.

    Args:
        surroundings: What the API knows of the service.
        presence: Knows which calls are there.
    """

    def __init__(self, surroundings: Surroundings, presence: Presence) -> None:
        self._around = surroundings
        self._presence = presence

    # Finding

    async def find(self, ask: Ask) -> RecordingPage:
        """Finds recordings, the newest first."""
        asked = cast("FindQuery", ask.query)
        query = Query(
            conversation=_lower(asked.conversation),
            participant=_lower(asked.participant),
            number=asked.number,
            since_ms=None if asked.since is None else milliseconds_of(asked.since),
            until_ms=None if asked.until is None else milliseconds_of(asked.until),
            text=asked.text,
            before=None if asked.cursor is None else number_of(asked.cursor),
        )
        # One more than wanted tells whether there is another page.
        found = await self._around.index.search(query, asked.limit + 1)
        page = found[: asked.limit]
        more = len(found) > asked.limit
        return RecordingPage(
            recordings=[self._recording(each.entry) for each in page],
            next=cursor_of(str(page[-1].id)) if more else None,
        )

    async def live(self, ask: Ask) -> LivePage:
        """Lists live calls, by their sessions."""
        asked = cast("LiveQuery", ask.query)
        after = "" if asked.cursor is None else text_of(asked.cursor)
        calls = sorted(self._presence.live(), key=lambda call: call.session_id)
        rest = [call for call in calls if call.session_id > after]
        page = rest[: asked.limit]
        more = len(rest) > asked.limit
        return LivePage(
            calls=[_live_item(call) for call in page],
            total=len(calls),
            next=cursor_of(page[-1].session_id) if more else None,
        )

    async def show(self, ask: Ask) -> Conversation:
        """Shows all that is known of a conversation."""
        conversation = ask.path["conversation"].lower()
        sessions: dict[str, SessionItem] = {}
        for call in self._presence.live_of(conversation):
            item = _live_item(call)
            sessions[item.session] = SessionItem(
                session=item.session,
                state=CallState.LIVE,
                started_at=call.started_at,
                live=item,
            )
        found = await self._around.index.search(
            Query(conversation=conversation), _MOST_SESSIONS + 1
        )
        for each in found[:_MOST_SESSIONS]:
            if each.entry.session not in sessions:
                sessions[each.entry.session] = await self._stored(each)
        for record in self._presence.spooled_of(conversation):
            opened = record.opened
            item_of = SessionItem(
                session=opened.session_id,
                state=CallState.SPOOLED,
                started_at=opened.started_at,
            )
            sessions.setdefault(opened.session_id, item_of)
        for other in await self._presence.elsewhere_of(conversation):
            item_of = SessionItem(
                session=other.session,
                state=CallState.ELSEWHERE if other.held else CallState.SPOOLED,
                started_at=other.started_at,
            )
            sessions.setdefault(other.session, item_of)
        if not sessions:
            raise ProblemError(Code.NOT_FOUND)
        shown = sorted(
            sessions.values(), key=lambda each: each.started_at or "", reverse=True
        )
        more = len(found) > _MOST_SESSIONS
        return Conversation(conversation=conversation, sessions=shown, more=more)

    async def file(self, ask: Ask) -> Response:
        """Sends a file of a recording, or says where it is."""
        name = ask.path["name"]
        prefix = await self._prefix_of(name)
        key = file_key(prefix, name, ask.path["file"])
        if key is None:
            raise ProblemError(Code.NOT_FOUND)
        store = self._around.store
        if isinstance(store, FolderStore):
            try:
                return await serve(ask.request, store, key)
            except NoFileError:
                raise ProblemError(Code.NOT_FOUND) from None
            except NoStretchError as error:
                raise ProblemError(Code.RANGE, headers=error.headers) from None
        if not isinstance(store, SigningStore):
            raise ProblemError(Code.NOT_FOUND)
        return RedirectResponse(await store.presign(key, _ADDRESS_LIFE), 307)

    def _recording(self, entry: Entry) -> RecordingItem:
        return RecordingItem(
            name=entry.key.rpartition("/")[2],
            state=entry.state,
            session=entry.session,
            conversation=entry.conversation,
            participant=entry.participant,
            ani=entry.ani,
            ani_name=entry.ani_name,
            dnis=entry.dnis,
            language=entry.language,
            started_at=entry.started_at,
            duration=entry.duration,
            complete=entry.complete,
            audio_removed_at=entry.audio_removed_at,
            transcripts_removed_at=entry.transcripts_removed_at,
        )

    async def _prefix_of(self, name: str) -> str:
        """Return where a recording is; a call may have a prefix of its own."""
        found = await self._around.index.by_name(name, self._around.prefix)
        if found is None:
            return self._around.prefix
        return found.entry.key.removesuffix(name)

    async def _stored(self, found: Found) -> SessionItem:
        entry = found.entry
        data = await self._around.store.read(f"{entry.key}/{SUMMARY_NAME}")
        call: dict[str, Any] | None = None
        if data is not None:
            try:
                value = json.loads(data)
            except (ValueError, RecursionError):
                value = None
            call = value if isinstance(value, dict) else None
        gone = {
            name
            for name, at in (
                ("audio", entry.audio_removed_at),
                ("transcripts", entry.transcripts_removed_at),
            )
            if at is not None
        }
        links = await self._links(entry.key, call or {}, gone)
        if data is not None and len(data) > _LONGEST_SUMMARY:
            call = None
        return SessionItem(
            session=entry.session,
            state=CallState(entry.state),
            started_at=entry.started_at,
            recording=self._recording(entry),
            links=links,
            call=call,
        )

    async def _links(
        self, folder: str, call: Mapping[str, Any], gone: Collection[str]
    ) -> list[Link]:
        links = [await self._link(f"{folder}/{SUMMARY_NAME}", {})]
        for each in _objects(call):
            key = beside(folder, each["key"])
            # Only what is beside it: the JSON may be anybody's.
            rest = key.removeprefix(f"{folder}/")
            is_there = rest.partition("/")[0] not in gone and not each.get("deleted")
            if rest != key and is_there:
                links.append(await self._link(key, each))
        return links

    async def _link(self, key: str, facts: Mapping[str, Any]) -> Link:
        file = key.rpartition("/")[2]
        size, sha256 = facts.get("bytes"), facts.get("sha256")
        store, expires = self._around.store, None
        if isinstance(store, SigningStore):
            href, expires = await store.presign(key, _ADDRESS_LIFE), _ADDRESS_LIFE
        else:
            parts = PurePosixPath(key).parts
            at = -2 if file == SUMMARY_NAME else -3
            name = parts[at] if len(parts) >= -at else ""
            href = f"{self._around.base}/recordings/{name}/{file}"
        return Link(
            file=file,
            href=href,
            bytes=size if isinstance(size, int) else None,
            sha256=sha256 if isinstance(sha256, str) else None,
            expires_in=expires,
        )


def _objects(call: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """List the files that a call's JSON tells of, as far as it makes sense."""
    transcripts = call.get("transcripts")
    holders = [call, *(transcripts if isinstance(transcripts, list) else ())]
    lists = [each.get("objects") for each in holders if isinstance(each, dict)]
    return [
        each
        for one in lists
        if isinstance(one, list)
        for each in one
        if isinstance(each, dict) and isinstance(each.get("key"), str)
    ]


def _live_item(call: Call) -> LiveItem:
    opened, standing = call.opened, call.control.standing
    assert opened is not None
    parameters, media = opened.parameters, opened.media
    party = parameters.participant
    paused = standing.held is Held.PAUSED
    return LiveItem(
        session=call.session_id,
        conversation=parameters.conversation_id,
        participant=party.id,
        ani=_whole(party.ani),
        ani_name=_whole(party.ani_name),
        dnis=_whole(party.dnis),
        language=None if parameters.language is None else _whole(parameters.language),
        channels=[] if media is None else [str(each) for each in media.channels],
        age=call.age,
        held=standing.held,
        paused_by=standing.asker.by if paused and standing.asker else None,
        paused_since=standing.since if paused else None,
    )


def _whole(text: str) -> str:
    """Take out half characters, which no answer can hold."""
    return text.encode(errors="replace").decode()


def _lower(text: str | None) -> str | None:
    return None if text is None else text.lower()
