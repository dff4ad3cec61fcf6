"""What the API does: find calls, show one with its files, and control live ones."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import trio
from starlette.responses import RedirectResponse, Response

from audiohook.api.models import (
    CallState,
    Controlled,
    ControlledSession,
    ControlRequest,
    Conversation,
    ErasedItem,
    EraseQuery,
    Erasure,
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
from audiohook.control import Asker, ControlFault, Held
from audiohook.errors import ControlError
from audiohook.file_ranges import NoFileError, NoStretchError, serve
from audiohook.index.search import Query
from audiohook.protocol.messages import NIL_UUID
from audiohook.protocol.state import State
from audiohook.recording.elsewhere import look_elsewhere
from audiohook.storage.base import SigningStore
from audiohook.storage.folder import FolderStore
from audiohook.storage.layout import SUMMARY_NAME, beside, file_key

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from audiohook.api.operations import Ask
    from audiohook.call import Call
    from audiohook.control import Standing
    from audiohook.erasure import eraser as erasures
    from audiohook.index.entry import Entry
    from audiohook.index.keeper import CallIndex
    from audiohook.index.search import Found
    from audiohook.recording.elsewhere import Elsewhere
    from audiohook.recording.record import CallRecord
    from audiohook.storage.base import Store

SECONDS = 1
MINUTES = 60 * SECONDS
MIB: Final = 1024 * 1024

Action = Literal["pause", "resume", "end"]

# A conversation has a handful of sessions; each costs a read of the store.
_MOST_SESSIONS: Final = 20
_LONGEST_SUMMARY: Final = MIB
_ADDRESS_LIFE: Final = 15 * MINUTES
# How old what is known of other processes may be.
_FRESH: Final = 1.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the API knows of the service.

    Attributes:
        live: Returns the live calls.
        spooled: Returns what is known of calls on the local disk.
        index: Finds recordings.
        store: Where they are.
        prefix: What their keys begin with.
        spool: Folder that other processes may share.
        base: Where the API is on its server.
        log: For what was done by whom.
        eraser: Has calls erased.
    """

    live: Callable[[], Sequence[Call]]
    spooled: Callable[[], Sequence[CallRecord]]
    index: CallIndex
    store: Store
    prefix: str
    spool: Path
    base: str
    log: FilteringBoundLogger
    eraser: erasures.Eraser


class Calls:
    """Answers what is asked about calls.

    Args:
        surroundings: What it knows of the service.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        self._around = surroundings
        self._threads = trio.CapacityLimiter(1)
        self._elsewhere: dict[str, list[Elsewhere]] = {}
        self._looked_at = -_FRESH
        self._looking = trio.Lock()

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
            before=None if asked.cursor is None else _number_of(asked.cursor),
        )
        # One more than wanted tells whether there is another page.
        found = await self._around.index.search(query, asked.limit + 1)
        page = found[: asked.limit]
        more = len(found) > asked.limit
        return RecordingPage(
            recordings=[self._recording(each.entry) for each in page],
            next=_cursor_of(str(page[-1].id)) if more else None,
        )

    async def live(self, ask: Ask) -> LivePage:
        """Lists live calls, by their sessions."""
        asked = cast("LiveQuery", ask.query)
        after = "" if asked.cursor is None else _text_of(asked.cursor)
        calls = sorted(self._live(), key=lambda call: call.session_id)
        rest = [call for call in calls if call.session_id > after]
        page = rest[: asked.limit]
        more = len(rest) > asked.limit
        return LivePage(
            calls=[_live_item(call) for call in page],
            total=len(calls),
            next=_cursor_of(page[-1].session_id) if more else None,
        )

    async def show(self, ask: Ask) -> Conversation:
        """Shows all that is known of a conversation."""
        conversation = ask.path["conversation"].lower()
        sessions: dict[str, SessionItem] = {}
        for call in self._live_of(conversation):
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
        for record in self._around.spooled():
            opened = record.opened
            if opened.conversation_id == conversation:
                item_of = SessionItem(
                    session=opened.session_id,
                    state=CallState.SPOOLED,
                    started_at=opened.started_at,
                )
                sessions.setdefault(opened.session_id, item_of)
        for other in (await self._look_elsewhere()).get(conversation, ()):
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

    # Erasing

    async def erase(self, ask: Ask) -> Erasure:
        """Takes an order to erase a conversation, and says how that stands."""
        asked = cast("EraseQuery", ask.query)
        conversation = ask.path["conversation"].lower()
        eraser = self._around.eraser
        reference = await eraser.order(
            conversation, _lower(asked.session), by=ask.token, end=asked.end
        )
        standing = await eraser.standing(reference)
        if standing is None:
            raise ProblemError(Code.ERASURES)
        return _erasure(standing)

    async def show_erasure(self, ask: Ask) -> Erasure:
        """Shows how an erasure stands."""
        standing = await self._around.eraser.standing(ask.path["reference"])
        if standing is None:
            raise ProblemError(Code.NOT_FOUND)
        return _erasure(standing)

    # Controlling

    async def pause(self, ask: Ask) -> Controlled:
        """Stops the recording of a live call."""
        return await self._control(ask, "pause")

    async def resume(self, ask: Ask) -> Controlled:
        """Goes on with it."""
        return await self._control(ask, "resume")

    async def end(self, ask: Ask) -> Controlled:
        """Asks Genesys to end the session."""
        return await self._control(ask, "end")

    async def _control(self, ask: Ask, action: Action) -> Controlled:
        conversation = ask.path["conversation"].lower()
        if conversation == NIL_UUID:
            raise ProblemError(Code.PROBE)
        calls = self._live_of(conversation)
        if not calls:
            raise ProblemError(await self._absence(conversation))
        reason = cast("ControlRequest", ask.body).reason or None
        asker = Asker(ask.token, reason)
        outcomes: dict[Call, Standing | ControlFault] = {}

        async def control(call: Call) -> None:
            try:
                outcomes[call] = await getattr(call.control, action)(asker)
            except ControlError as error:
                outcomes[call] = ControlFault(error.fault)

        # All sessions that are live: one that a client has given up may be among
        # them, and the audio may be in either.
        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(control, call)
        faults = [each for each in outcomes.values() if isinstance(each, ControlFault)]
        self._around.log.info(
            "call_controlled",
            action=action,
            token=ask.token,
            conversation=conversation,
            sessions=len(calls),
            faults=sorted(faults),
        )
        # One that is over meanwhile records nothing; all others count.
        worse = [each for each in faults if each is not ControlFault.OVER]
        if worse or len(faults) == len(calls):
            raise ProblemError(Code(worse[0] if worse else faults[0]))
        done = [
            _controlled(call.session_id, each)
            for call, each in outcomes.items()
            if not isinstance(each, ControlFault)
        ]
        return Controlled(conversation=conversation, sessions=done)

    async def _absence(self, conversation: str) -> Code:
        """Tell why a conversation has no live call here."""
        if any(
            record.opened.conversation_id == conversation
            for record in self._around.spooled()
        ):
            return Code.OVER
        others = (await self._look_elsewhere()).get(conversation, ())
        if any(other.held for other in others):
            return Code.ELSEWHERE
        query = Query(conversation=conversation)
        if others or await self._around.index.search(query, 1):
            return Code.OVER
        return Code.NOT_FOUND

    # Parts

    def _live(self) -> list[Call]:
        """Return the live calls, without probes and those that were turned away."""
        return [
            call
            for call in self._around.live()
            if call.opened is not None
            and not call.opened.is_probe
            and call.state not in (State.REJECTING, State.ENDED)
        ]

    def _live_of(self, conversation: str) -> list[Call]:
        return [
            call
            for call in self._live()
            if call.opened is not None
            and call.opened.parameters.conversation_id == conversation
        ]

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

    async def _look_elsewhere(self) -> Mapping[str, Sequence[Elsewhere]]:
        async with self._looking:
            if trio.current_time() - self._looked_at >= _FRESH:
                own = {record.opened.session_id for record in self._around.spooled()}
                self._elsewhere = await trio.to_thread.run_sync(
                    look_elsewhere, self._around.spool, own, limiter=self._threads
                )
                self._looked_at = trio.current_time()
            return self._elsewhere


def _erasure(standing: erasures.Standing) -> Erasure:
    return Erasure(
        reference=standing.reference,
        done=standing.done,
        asked_at=standing.asked_at,
        done_at=standing.done_at,
        erased=ErasedItem(**asdict(standing.counts)),
        waits_for=standing.waits_for,
        kept=list(standing.kept),
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


def _controlled(session: str, standing: Standing) -> ControlledSession:
    asker = standing.asker
    return ControlledSession(
        session=session,
        held=standing.held,
        since=None if asker is None else standing.since,
        by=None if asker is None else asker.by,
        reason=None if asker is None else asker.reason,
    )


def _lower(text: str | None) -> str | None:
    return None if text is None else text.lower()


# A cursor says where a page has ended, and nothing that its asker has not seen.


def _cursor_of(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def _text_of(cursor: str) -> str:
    try:
        data = base64.b64decode(
            cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True
        )
        return data.decode("ascii")
    except (binascii.Error, ValueError):
        raise ProblemError(Code.INVALID, "cursor is none of ours.") from None


def _number_of(cursor: str) -> int:
    text = _text_of(cursor)
    if not text.isdecimal() or not 0 <= int(text) < 2**63:
        raise ProblemError(Code.INVALID, "cursor is none of ours.")
    return int(text)
