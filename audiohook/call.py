"""One call: one nursery, from the HTTP request to the sealed recording.

A call knows the protocol, its stream and the spool. What happens to the
recording afterwards is not its business: it hands the sealed call on.
"""

from __future__ import annotations

import logging
import math
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio
from trio_websocket import ConnectionClosed, wrap_server_stream

from audiohook.admission import Admission, TurnedAway
from audiohook.call_settings import Mode
from audiohook.control import CallControl, Pauses
from audiohook.errors import SpoolError
from audiohook.minutes import Minutes
from audiohook.protocol.events import (
    BinaryAccepted,
    CloseReceived,
    Ended,
    GapLimited,
    GapRecorded,
    HoldAnswered,
    LanguageChanged,
    OpenReceived,
    PauseBegan,
    PauseEnded,
    PeerErrorReceived,
    PositionDrift,
    TimedOut,
    Timer,
    Violation,
)
from audiohook.protocol.messages import DisconnectReason
from audiohook.protocol.session import Session
from audiohook.protocol.state import State
from audiohook.protocol.timeline import SAMPLE_RATE_HZ, Gap, GapKind
from audiohook.recording.dialogue import Keep
from audiohook.recording.journal import (
    ClosedFact,
    ContinuedSession,
    ControlFact,
    GapFact,
    LanguageFact,
    Media,
    Opened,
    Participant,
    PausedFact,
    TextFact,
    utc_text,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger
    from trio_websocket import WebSocketConnection

    from audiohook.admission import Place
    from audiohook.authentication import Authenticator, Credentials
    from audiohook.call_settings import CallSettings
    from audiohook.control import Asker
    from audiohook.ingest.pump import Pump
    from audiohook.ingest.stream import DivertedStream
    from audiohook.keys import KeyRecord
    from audiohook.logs import Limiter
    from audiohook.metrics import Metrics
    from audiohook.protocol.events import SessionEvent
    from audiohook.protocol.messages import OpenParameters
    from audiohook.recording.spool import Spool
    from audiohook.recording.spooled import SpooledCall

SECONDS = 1.0
KIB = 1024

# Room for a text message that is too long, so that it is answered with a
# ``disconnect`` and not with a torn connection; what is longer still gets 1009.
_MAX_MESSAGE_CHARS = 128 * KIB
_MESSAGE_QUEUE = 4
# RFC 6455, 7.4.1: wrong frames, a wrong type, wrong UTF-8, too long.
_BAD_FRAMES = frozenset({1002, 1003, 1007, 1009})
_UPGRADE_DEADLINE = 10 * SECONDS
# ``opened`` is due 5 s after ``open``; a disk that hangs gets this much of it.
_CREATE_DEADLINE = 3.5 * SECONDS
# ``closed`` is due 10 s after ``close``; a disk that refuses gets this much of it.
_FLUSH_DEADLINE = 4 * SECONDS
_FLUSH_PAUSE = 0.5 * SECONDS
_CLOSE_PATIENCE = 8 * SECONDS
# By then a peer whose ``close`` could not be answered has gone by itself.
_PEER_PATIENCE = 12 * SECONDS
# What a call may take to be sealed when nobody waits for it any more.
_SEAL_DEADLINE = 30 * SECONDS
_GOODBYE_DEADLINE = 2 * SECONDS
# Source: RFC 5646, "Syntax".
_LANGUAGE_TAG = re.compile(r"[A-Za-z0-9]{1,8}(?:-[A-Za-z0-9]{1,8}){0,8}")


def _no_choice(_key: KeyRecord, _custom_config: object) -> CallSettings | None:
    return None


async def _no_newer_keys() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all calls of a service share.

    Attributes:
        authenticator: Decides who may open a session.
        pump: Reads open calls, and writes their audio.
        spool: Keeps their audio and journals.
        metrics: Counts.
        log: For lines about a call.
        noise: For lines that a peer can cause at will.
        refusal: Returns why no new call is welcome, a value of `TurnedAway`, or
            None.
        opened: Takes a call that has begun, and what returns how much of its audio
            is certain to have no gap put before its end any more.
        sealed: Takes a call that is on disk whole.
        admission: Counts the calls that are let in.
        choose: Decides on the settings of a call, by what goes with its key and by
            its ``customConfig``; None leaves all to whoever finishes it.
        look_again: Has newer keys looked for, and returns whether that was done.
        pauses: Those that were asked for, for sessions that are to come.
        clock: Unix time in seconds.
        keep_dialogue: How much of text messages is kept.
    """

    authenticator: Authenticator
    pump: Pump
    spool: Spool
    metrics: Metrics
    log: FilteringBoundLogger
    noise: Limiter
    refusal: Callable[[], str | None]
    opened: Callable[[SpooledCall, Callable[[], int]], None]
    sealed: Callable[[SpooledCall], None]
    admission: Admission = field(default_factory=Admission)
    choose: Callable[[KeyRecord, object], CallSettings | None] = _no_choice
    look_again: Callable[[], Awaitable[bool]] = _no_newer_keys
    pauses: Pauses = field(default_factory=Pauses)
    clock: Callable[[], float] = time.time
    keep_dialogue: Keep = Keep.NO


@dataclass(frozen=True, slots=True)
class Pulse:
    """How a call does.

    Attributes:
        since_ping: Seconds since its peer last pinged; None if it never did.
        gaps: Gaps so far.
        gap_seconds: Their length.
        lost_seconds: Audio that came and could not be kept, which is among them.
        language: As its peer last said, or None.
        channels: In their order in the audio; none if there is no audio.
        folder: Where its audio is; None if it has none.
    """

    since_ping: float | None
    gaps: int
    gap_seconds: float
    lost_seconds: float
    language: str | None
    channels: tuple[str, ...]
    folder: Path | None


@dataclass(slots=True)
class _Wish:
    """A ``disconnect`` that somebody else asked for."""

    reason: DisconnectReason
    info: str


@dataclass(slots=True)
class _Notes:
    """What the last line about a call tells."""

    violations: int = 0
    gaps: int = 0
    lost_bytes: int = 0
    outcome: str = "lost"
    began: float = field(default_factory=trio.current_time)


class Call:
    """One session on its way.

    Args:
        stream: The connection; the call owns it.
        credentials: Who asked.
        surroundings: What all calls share.
        place: Whether it is let in.

    Attributes:
        seal_deadline: Seconds that the disk gets once the call is over.
        control: For those who may interfere with it.
        opened: What ``open`` said of it; None before that.
    """

    def __init__(
        self,
        stream: DivertedStream,
        credentials: Credentials,
        surroundings: Surroundings,
        place: Place,
    ) -> None:
        self._stream = stream
        self._lane = stream.lane
        self._credentials = credentials
        self._around = surroundings
        self._place = place
        self._session = Session(
            session_id=credentials.session_id,
            organization_id=credentials.organization_id,
            now=trio.current_time(),
        )
        self._spooled: SpooledCall | None = None
        self._settings: CallSettings | None = None
        self._sealed = False
        self._minutes: Minutes | None = None
        if surroundings.keep_dialogue is not Keep.NO:
            self._minutes = Minutes(
                surroundings.keep_dialogue, self._write, surroundings.clock
            )
        # All the audio there is, and whether what never got to its file has been
        # written down.
        self._end_bytes: int | None = None
        self._end_told = False
        # When to stop waiting for a peer that does not get an answer.
        self._give_up_at = math.inf
        self._wish: _Wish | None = None
        # Whether another task has given the session something to say.
        self._unsaid = False
        # Texts that could not be sent at once from the pump's task.
        self._owed: list[str] = []
        self._idle = False
        self._waiting = trio.CancelScope()
        self._called = False
        self._notes = _Notes()
        # Who has asked for the pause that the peer is in.
        self._paused_for: Asker | None = None
        self._counted_bytes = 0
        self._counted_frames = 0
        self.seal_deadline = _SEAL_DEADLINE
        self.opened: OpenReceived | None = None
        self.control = CallControl(
            self._session,
            say=self._say_soon,
            disconnect=lambda: self.disconnect(
                DisconnectReason.COMPLETED, "Ended by request"
            ),
            note=self._write,
            held=self._keep_held,
            samples=self._samples_so_far,
            clock=surroundings.clock,
        )
        self._ids = {
            "session": credentials.session_id,
            "correlation": credentials.correlation_id,
        }
        self._log = surroundings.log.bind(**self._ids)

    @property
    def session_id(self) -> str:
        """Its session, which is also its name in the spool."""
        return self._credentials.session_id

    @property
    def state(self) -> State:
        """Where its session stands."""
        return self._session.state

    @property
    def age(self) -> float:
        """Seconds since it came."""
        return round(trio.current_time() - self._notes.began, 3)

    @property
    def started_at(self) -> str | None:
        """When its audio began, in UTC with milliseconds; None if it has none."""
        return None if self._spooled is None else self._spooled.record.opened.started_at

    def pulse(self) -> Pulse:
        """Returns how it does."""
        session, spooled = self._session, self._spooled
        timeline, media, pinged_at = session.timeline, session.media, session.pinged_at
        channels = tuple(str(each) for each in media.channels) if media else ()
        language = None
        if spooled is not None:
            record = spooled.record
            changes = record.languages
            language = changes[-1].language if changes else record.opened.language
        return Pulse(
            since_ping=None if pinged_at is None else trio.current_time() - pinged_at,
            gaps=len(timeline.gaps),
            gap_seconds=timeline.gap_samples / SAMPLE_RATE_HZ,
            lost_seconds=self._notes.lost_bytes
            / max(1, len(channels))
            / SAMPLE_RATE_HZ,
            language=language,
            channels=channels,
            folder=None if spooled is None else spooled.folder,
        )

    def take_counts(self) -> tuple[int, int]:
        """Returns bytes and frames of audio that came since this was last asked."""
        audio_bytes, frames = self._lane.audio_bytes, self._lane.messages
        new = audio_bytes - self._counted_bytes, frames - self._counted_frames
        self._counted_bytes, self._counted_frames = audio_bytes, frames
        return new

    def disconnect(self, reason: DisconnectReason, info: str) -> None:
        """Asks the peer to close, as soon as the call's task runs."""
        self._wish = _Wish(reason, info)
        self._call_task()

    def _keep_held(self, asker: Asker | None) -> None:
        """Has later sessions of the conversation know of a pause, or of its end."""
        conversation = self._ids.get("conversation", "")
        if asker is None:
            self._around.pauses.end(conversation)
        else:
            self._around.pauses.begin(conversation, asker)

    def _say_soon(self) -> None:
        """Has the call's task send what the session has to say."""
        self._unsaid = True
        self._waiting.cancel()

    def check_deadline(self, now: float) -> float:
        """Wakes the call's task if its session has waited long enough.

        Returns:
            Until when it may wait, on Trio's clock.
        """
        deadline = min(self._session.deadline, self._give_up_at)
        if now >= deadline:
            self._call_task()
        return deadline

    def _call_task(self) -> None:
        """Has this call's task look up from waiting for a message."""
        self._called = True
        self._session.stop_listening()
        self._waiting.cancel()

    async def run(self) -> None:
        """Runs the call from the upgrade to its end.

        Never raises, except when it is cancelled.
        """
        try:
            async with trio.open_nursery() as nursery:
                connection = await self._upgrade(nursery)
                if connection is not None:
                    await self._converse(connection)
                    with trio.move_on_after(_GOODBYE_DEADLINE):
                        await connection.aclose()
                nursery.cancel_scope.cancel()
        except* ConnectionClosed:
            pass  # the library's reader found the socket gone before we did
        except* Exception:  # noqa: BLE001 - the edge: siblings must not notice
            self._notes.outcome = "failed"
            self._noise(logging.ERROR, "call_failed", exc_info=True)
        finally:
            with trio.CancelScope(
                deadline=trio.current_time() + self.seal_deadline, shield=True
            ):
                await trio.aclose_forcefully(self._stream)
                await self._seal_rest()
                await self._hand_over()
            self._let_go()
            if "conversation" in self._ids:
                self._around.pauses.leave(
                    self._ids["conversation"], trio.current_time()
                )
            self.control.over()
            self._sum_up()

    async def _upgrade(self, nursery: trio.Nursery) -> WebSocketConnection | None:
        """Completes the WebSocket handshake; None if the request was not in order."""
        with trio.move_on_after(_UPGRADE_DEADLINE):
            request = await wrap_server_stream(
                nursery,
                self._stream,
                message_queue_size=_MESSAGE_QUEUE,
                max_message_size=_MAX_MESSAGE_CHARS,
            )
            return await request.accept()
        self._notes.outcome = "no_upgrade"
        return None

    async def _converse(self, connection: WebSocketConnection) -> None:
        """Exchanges messages until the session has ended."""
        session = self._session
        while session.state is not State.ENDED:
            await self._handle_all(await self._next_events(connection), connection)
            await self._send(connection)

    async def _next_events(self, connection: WebSocketConnection) -> list[SessionEvent]:
        """Waits for a message, the end, a timer or a wish, whichever is first."""
        session, lane = self._session, self._lane
        message: str | bytes | None = None
        if self._owed or self._unsaid:
            self._unsaid = False
            return []
        self._waiting = trio.CancelScope()
        self._called = False
        try:
            with self._waiting:
                if self._wish is None:
                    self._idle = True
                    session.listen()
                    message = await connection.get_message()
        except ConnectionClosed as error:
            self._note_end(error)
            return session.receive_end(now=trio.current_time())
        finally:
            self._idle = False
            session.stop_listening()
        now = trio.current_time()
        if message is None:
            if self._owed or self._unsaid:
                self._unsaid = False
                return []
            if self._wish is not None:
                wish, self._wish = self._wish, None
                session.disconnect(wish.reason, wish.info, now=now)
                return []
            if now >= self._give_up_at:
                await trio.aclose_forcefully(self._stream)
                return []
            return session.handle_timeout(now=now, audio_bytes=lane.audio_bytes)
        if isinstance(message, str):
            self._notes_drops()
            audio_bytes = lane.pop_mark()
            self._take_down(message, audio_bytes)
            return session.receive_text(message, now=now, audio_bytes=audio_bytes)
        # Once audio is taken out of the stream, what comes this way is no audio, or
        # was under way before, or stands behind a fault in the framing.
        events = session.receive_binary(
            len(message), now=now, is_early=not lane.hands_off
        )
        if any(isinstance(event, BinaryAccepted) for event in events):
            lane.append(message)
        return events

    def _note_end(self, error: ConnectionClosed) -> None:
        """Tells a peer that broke the WebSocket protocol from one that went away."""
        code = error.reason.code if error.reason else None
        if code in _BAD_FRAMES and self._notes.outcome == "lost":
            self._notes.outcome = "bad_frames"
            self._notes.violations += 1
            self._around.metrics.violations.inc()

    def _hear(self, text: str) -> bool:
        """Deals with a ping in the pump's task, while this one waits for messages.

        Returns:
            False if the message is to come to this task.
        """
        if not self._idle or self._owed or self._called:
            return False
        self._notes_drops()
        events = self._session.receive_ping(
            text, now=trio.current_time(), audio_bytes=self._lane.next_mark
        )
        if events is None:
            return False
        self._take_down(text, self._lane.next_mark)
        for event in events:
            self._note(event)
        self._owed = self._to_say()
        while self._owed and self._stream.say_now(self._owed[0]):
            self._owed.pop(0)
        if self._owed:
            self._call_task()
        else:
            self._session.listen()
        return True

    async def _send(self, connection: WebSocketConnection) -> None:
        """Sends what the session has to say; a peer that does not listen is gone."""
        owed, self._owed = self._owed, []
        for text in owed + self._to_say():
            try:
                await connection.send_message(text)
            except ConnectionClosed:
                return

    def _take_down(self, text: str, audio_bytes: int) -> None:
        """Puts a message of the peer into the minutes, if there are any."""
        if self._minutes is not None:
            self._minutes.heard(text, self._samples_in(audio_bytes))

    def _to_say(self) -> list[str]:
        """Takes what the session has to say."""
        texts = self._session.data_to_send()
        if self._minutes is not None:
            self._minutes.said(texts, self._samples_so_far())
        return texts

    async def _handle_all(
        self, events: list[SessionEvent], connection: WebSocketConnection
    ) -> None:
        """Acts on events, in order.

        Apart, so that nobody holds the last of them, which may be all that ``open``
        said, while the call goes on: 3 KiB each.
        """
        for event in events:
            await self._handle(event, connection)

    async def _handle(
        self, event: SessionEvent, connection: WebSocketConnection
    ) -> None:
        """Acts on what the session says."""
        match event:
            case OpenReceived():
                await self._open(event)
            case CloseReceived():
                await self._close(event)
            case TimedOut(what):
                self._notes.outcome = f"timeout_{what}"
                if what is Timer.CLOSING and self._sealed:
                    self._notes.outcome = "not_closed_by_peer"
                await trio.aclose_forcefully(self._stream)
            case Ended() | BinaryAccepted():
                pass
            case _:
                self._note(event)

    def _note(self, event: SessionEvent) -> None:
        """Writes down what needs no answer."""
        match event:
            case GapRecorded() | PauseBegan() | PauseEnded() | HoldAnswered():
                self._note_silence(event)
            case LanguageChanged(language):
                self._write(LanguageFact(language, self._samples_so_far()))
            case Violation(info, answered):
                self._notes.violations += 1
                self._around.metrics.violations.inc()
                self._noise(
                    logging.WARNING,
                    "protocol_violation",
                    info=str(info),
                    answered=answered,
                )
            case PeerErrorReceived(code, _):
                # Its text may hold anything, so only the number is logged.
                self._noise(logging.WARNING, "peer_error", code=code)
            case GapLimited(ignored):
                self._noise(logging.WARNING, "gap_limited", ignored_samples=ignored)
            case PositionDrift(samples):
                self._noise(logging.INFO, "position_drift", samples=samples)

    def _note_silence(
        self, event: GapRecorded | PauseBegan | PauseEnded | HoldAnswered
    ) -> None:
        """Writes down that audio is missing, or is not to come, and at whose word."""
        match event:
            case GapRecorded(gap):
                self._note_gap(gap)
            case PauseBegan(offset):
                self._write(PausedFact(paused=True, offset_samples=offset))
                self._paused_for = self.control.asker if self._session.is_held else None
            case PauseEnded(offset):
                self._write(PausedFact(paused=False, offset_samples=offset))
                if self._session.is_held and self._session.has_answered:
                    self._noise(logging.WARNING, "resumed_against_our_pause")
                    self.control.insist()
            case HoldAnswered(wanted):
                if wanted:
                    self._paused_for = self.control.asker
                self.control.answered()

    def _note_gap(self, gap: Gap) -> None:
        asker = None
        if gap.kind is GapKind.PAUSED:
            asker, self._paused_for = self._paused_for, None
        self._notes.gaps += 1
        metrics = self._around.metrics
        metrics.gaps.labels(gap.kind).inc()
        metrics.gap_seconds.labels(gap.kind).inc(gap.length_samples / SAMPLE_RATE_HZ)
        self._write(
            GapFact(
                gap.kind,
                gap.offset_samples,
                gap.length_samples,
                by=None if asker is None else asker.by,
                reason=None if asker is None else asker.reason,
            )
        )

    async def _open(self, event: OpenReceived) -> None:
        """Answers ``open``: with ``opened`` once there is a place for the audio."""
        began = trio.current_time()
        session, lane = self._session, self._lane
        self.opened = event
        self._ids["conversation"] = event.parameters.conversation_id
        self._log = self._log.bind(**self._ids)
        refusal = self._place.refusal or self._around.refusal()
        if refusal is not None:
            # Not a refused upgrade, which the client would never try again.
            self._turn_away(TurnedAway(refusal))
            return
        if not event.is_probe:
            self._choose(event)
        if event.is_probe or event.media is None or self._keeps_nothing:
            lane.ignore()
            if event.is_probe:
                self._notes.outcome = "probe"
                self._around.metrics.probes.inc()
        else:
            with trio.move_on_after(_CREATE_DEADLINE):
                self._spooled = await self._create(event)
            if self._spooled is None:
                self._turn_away(TurnedAway.DISK)
                return
            lane.keep(len(event.media.channels), self._spooled.audio_fd)
            self._around.opened(self._spooled, self._settled_bytes)
            if self._minutes is not None:
                self._minutes.begin()
        asker = None
        if self._spooled is not None:
            now = trio.current_time()
            asker = self._around.pauses.take(self._ids["conversation"], now)
        session.accept(event.media, now=trio.current_time(), hold=asker is not None)
        if asker is not None:
            self.control.begin_paused(asker)
        # What the sweep answers by itself nobody could take down.
        is_seen = self._minutes is not None
        self._stream.enlist(self._hear, None if is_seen else self._session)
        self._around.metrics.opening.observe(trio.current_time() - began)
        self._tell(
            "opened",
            key=self._credentials.key_id,
            client=self._credentials.client,
            probe=event.is_probe,
            channels=[str(c) for c in event.media.channels] if event.media else [],
            language=_tag(event.parameters.language),
            reconnected=bool(event.parameters.continued_sessions),
            mode=None if self._settings is None else str(self._settings.mode),
        )

    def _choose(self, event: OpenReceived) -> None:
        """Decides on the settings of the call, and says what does not count."""
        around = self._around
        custom_config = event.parameters.custom_config
        self._settings = around.choose(self._credentials.record, custom_config)
        if self._settings is not None and self._settings.ignored:
            # Names are ours, and no reason repeats what was given.
            self._noise(
                logging.WARNING,
                "custom_config_ignored",
                key=self._credentials.key_id,
                ignored=[f"{e.name} {e.reason}" for e in self._settings.ignored],
            )

    @property
    def _keeps_nothing(self) -> bool:
        return self._settings is not None and self._settings.mode is Mode.NEITHER

    def _turn_away(self, why: TurnedAway) -> None:
        """Answers ``open`` with ``disconnect``."""
        self._place.leave()
        self._notes.outcome = "refused"
        self._around.metrics.turned_away.labels(why.label).inc()
        self._noise(
            logging.WARNING,
            "call_turned_away",
            reason=why.label,
            key=self._credentials.key_id,
        )
        self._session.disconnect(DisconnectReason.ERROR, str(why))

    async def _create(self, event: OpenReceived) -> SpooledCall | None:
        """Makes a place for the audio; None if the disk refuses."""
        try:
            return await self._around.spool.create(self._first_fact(event))
        except SpoolError as error:
            self._noise(logging.ERROR, "cannot_record", error=str(error))
            return None

    def _first_fact(self, event: OpenReceived) -> Opened:
        parameters: OpenParameters = event.parameters
        media = event.media
        assert media is not None
        party = parameters.participant
        return Opened(
            session_id=self._credentials.session_id,
            organization_id=self._credentials.organization_id,
            correlation_id=self._credentials.correlation_id,
            conversation_id=parameters.conversation_id,
            participant=Participant(
                id=party.id, ani=party.ani, ani_name=party.ani_name, dnis=party.dnis
            ),
            language=parameters.language,
            custom_config=parameters.custom_config,
            media=Media(
                format=media.format,
                channels=tuple(str(channel) for channel in media.channels),
                rate=media.rate,
            ),
            started_at=utc_text(self._around.clock()),
            start_samples=event.start_samples,
            continued_sessions=tuple(
                ContinuedSession(before.id, before.serverseq, before.clientseq)
                for before in parameters.continued_sessions
            ),
            key_label=self._credentials.key_id,
            retry_attempt=self._credentials.retry_attempt,
            settings=self._settings,
        )

    async def _close(self, event: CloseReceived) -> None:
        """Makes the call durable, and only then answers ``close``."""
        began = trio.current_time()
        self._lane.ignore()
        if self._notes.outcome == "lost":
            self._notes.outcome = "ended"
        if self._spooled is None:
            self._session.closed(now=trio.current_time())
            return
        # Past this point the peer may drop the socket; the call must not care.
        reason = event.reason or "closed"
        with trio.CancelScope(deadline=began + self.seal_deadline, shield=True):
            self._end_bytes = event.audio_bytes
            while not await self._seal(reason, complete=True):
                # A disk may be well again before the peer gives up.
                late = trio.current_time() >= began + _CLOSE_PATIENCE
                if late or self._spooled.is_doubtful:
                    break
                await trio.sleep(_FLUSH_PAUSE)
        if self._sealed:
            self._session.closed(now=trio.current_time())
            self._around.metrics.closing.observe(trio.current_time() - began)
        else:
            self._notes.outcome = "not_sealed"
            self._give_up_at = began + _PEER_PATIENCE

    async def _seal_rest(self) -> None:
        """Seals a call that did not come to ``close``."""
        if self._spooled is None or self._sealed:
            return
        self._lane.ignore()
        await self._seal(self._notes.outcome, complete=False)

    async def _hand_over(self) -> None:
        """Hands a call on whose messages are kept, now that there are no more.

        The last of them, ``closed``, is sent after the call is sealed.
        """
        if self._minutes is None or self._spooled is None or not self._sealed:
            return
        try:
            await self._around.spool.commit(self._spooled)
        except SpoolError as error:
            self._noise(logging.WARNING, "dialogue_not_whole", error=str(error))
        self._around.sealed(self._spooled)

    def _let_go(self) -> None:
        """Gives up the lane, and a recording that could not be sealed.

        What is on disk of that is found by whoever looks for leftovers next.
        """
        if self._spooled is None or self._sealed:
            self._around.pump.release(self._lane)
        else:
            # A disk that hangs may still be writing to its file.
            self._around.pump.release(self._lane, unused=self._spooled.release)

    async def _seal(self, reason: str, *, complete: bool) -> bool:
        """Brings the audio and the last facts to the disk, as far as it lets us.

        Returns:
            Whether all of it is there; otherwise it may be tried again.
        """
        assert self._spooled is not None
        if self._end_bytes is None:
            self._end_bytes = self._lane.audio_bytes
        audio_bytes = self._end_bytes
        if not self._end_told:
            await self._flush()
            # From here on the file may be closed, and its number given to another.
            await self._around.pump.stop_writing(self._lane)
            self._notes_drops()
        stored = self._spooled.record.whole_frames(
            min(audio_bytes, self._lane.written_bytes)
        )
        if stored < audio_bytes and not self._end_told:
            # What is missing before the last gap shows from that gap's place.
            begin = max(stored, self._last_gap_bytes())
            self._lose(begin, audio_bytes - begin)
        self._end_told = True
        fact = ClosedFact(
            reason=reason,
            stored_bytes=stored,
            ended_at=utc_text(self._around.clock()),
            complete=complete and self._notes.lost_bytes == 0,
        )
        try:
            await self._around.spool.seal(self._spooled, fact)
        except SpoolError as error:
            self._noise(logging.ERROR, "cannot_seal", error=str(error))
            return False
        self._sealed = True
        if self._minutes is None:
            self._around.sealed(self._spooled)
        return True

    async def _flush(self) -> None:
        """Waits until the audio is in its file, or the disk has had its chance."""
        with trio.move_on_after(_FLUSH_DEADLINE):
            while True:
                try:
                    await self._around.pump.flush(self._lane)
                except SpoolError:
                    await trio.sleep(_FLUSH_PAUSE)
                else:
                    return

    def _notes_drops(self) -> None:
        """Writes down audio that came while the disk could not take it."""
        for before, dropped in self._lane.take_drops():
            self._lose(before, dropped)

    def _settled_bytes(self) -> int:
        """Tells how much audio has all its gaps, and is in the file."""
        self._notes_drops()
        return self._lane.settled_bytes

    def _lose(self, before_bytes: int, lost_bytes: int) -> None:
        media = self._session.media
        if media is None:
            return
        channels = len(media.channels)
        self._notes.lost_bytes += lost_bytes
        self._around.metrics.lost_bytes.inc(lost_bytes)
        gap = Gap(GapKind.LOST, before_bytes // channels, lost_bytes // channels)
        self._session.add_lost(gap.offset_samples, gap.length_samples)
        self._note(GapRecorded(gap))

    def _last_gap_bytes(self) -> int:
        media, gaps = self._session.media, self._session.timeline.gaps
        return gaps[-1].offset_samples * len(media.channels) if media and gaps else 0

    def _samples_so_far(self) -> int:
        return self._samples_in(self._lane.audio_bytes)

    def _samples_in(self, audio_bytes: int) -> int:
        media = self._session.media
        return audio_bytes // len(media.channels) if media else 0

    def _write(
        self, fact: GapFact | LanguageFact | PausedFact | ControlFact | TextFact
    ) -> None:
        if self._spooled is None:
            return
        try:
            self._around.spool.append(self._spooled, fact)
        except SpoolError as error:
            self._noise(logging.ERROR, "fact_not_written", error=str(error))

    def _sum_up(self) -> None:
        """Counts the call, and writes its last line."""
        notes, lane = self._notes, self._lane
        self._around.metrics.calls.labels(notes.outcome).inc()
        audio_bytes, frames = self.take_counts()
        self._around.metrics.audio_bytes.inc(audio_bytes)
        self._around.metrics.frames.inc(frames)
        self._tell(
            "ended",
            outcome=notes.outcome,
            seconds=round(trio.current_time() - notes.began, 3),
            audio_bytes=lane.audio_bytes,
            frames=lane.messages,
            gaps=notes.gaps,
            lost_bytes=notes.lost_bytes,
            violations=notes.violations,
            sealed=self._sealed,
        )

    def _tell(self, what: str, **values: object) -> None:
        """Writes one of the two lines that each session has.

        What is recorded costs its peer something; the rest it could cause at will.
        """
        if self._spooled is not None:
            self._log.info(f"call_{what}", **values)
        else:
            self._noise(logging.INFO, f"session_{what}", **values)

    def _noise(self, level: int, event: str, **values: object) -> None:
        """Writes a line of a kind that may come often."""
        self._around.noise.write(level, event, **self._ids, **values)


def _tag(language: str | None) -> str | None:
    """Returns what a line may say of a language: what could be a name is no tag."""
    return language if language and _LANGUAGE_TAG.fullmatch(language) else None
