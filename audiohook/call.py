"""One call: one nursery, from the HTTP request to the sealed recording.

It converses: what the peer sends goes to the session, what the session says is done
and sent. What is kept of the call is `audiohook.call_recording`, what is told of it
`audiohook.call_notes`.
"""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio
from trio_websocket import ConnectionClosed

from audiohook.admission import TurnedAway
from audiohook.call_notes import CallNotes
from audiohook.call_recording import CallRecording
from audiohook.call_settings import Mode
from audiohook.control import CallControl
from audiohook.ingest.stream import text_frame
from audiohook.ingest.websocket import CallSocket
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
from audiohook.protocol.timeline import SAMPLE_RATE_HZ, GapKind
from audiohook.recording.dialogue import Keep
from audiohook.recording.journal import LanguageFact, PausedFact

if TYPE_CHECKING:
    from pathlib import Path

    from trio_websocket import WebSocketConnection

    from audiohook.admission import Place
    from audiohook.authentication import Credentials
    from audiohook.call_settings import CallSettings
    from audiohook.call_surroundings import Surroundings
    from audiohook.control import Asker
    from audiohook.ingest.stream import DivertedStream
    from audiohook.ingest.websocket import JudgedConnection
    from audiohook.protocol.events import SessionEvent

SECONDS = 1.0
KIB = 1024

# Room for a text message that is too long, so that it is answered with a
# ``disconnect`` and not with a torn connection; what is longer still gets 1009.
_MAX_MESSAGE_CHARS = 128 * KIB
_MESSAGE_QUEUE = 4
# RFC 6455, 7.4.1: wrong frames, a wrong type, wrong UTF-8, too long.
_BAD_FRAMES = frozenset({1002, 1003, 1007, 1009})
# The same: there was no word of the WebSocket's end.
_ABNORMAL_END = 1006
_UPGRADE_DEADLINE = 10 * SECONDS
# ``closed`` is due 10 s after ``close``; a disk that refuses is tried for so long.
_CLOSE_PATIENCE = 8 * SECONDS
# By then a peer whose ``close`` could not be answered has gone by itself.
_PEER_PATIENCE = 12 * SECONDS
# What a call may take to be sealed when nobody waits for it any more.
SEAL_DEADLINE = 30 * SECONDS
_GOODBYE_DEADLINE = 2 * SECONDS
# Source: RFC 5646, "Syntax".
_LANGUAGE_TAG = re.compile(r"[A-Za-z0-9]{1,8}(?:-[A-Za-z0-9]{1,8}){0,8}")


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
        self._notes = CallNotes(credentials, surroundings, stream.lane)
        self._recording = CallRecording(
            stream.lane,
            self._session,
            credentials=credentials,
            surroundings=surroundings,
            notes=self._notes,
        )
        self._settings: CallSettings | None = None
        self._minutes: Minutes | None = None
        if surroundings.keep_dialogue is not Keep.NO:
            self._minutes = Minutes(
                surroundings.keep_dialogue, self._recording.write, surroundings.clock
            )
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
        # Who has asked for the pause that the peer is in.
        self._paused_for: Asker | None = None
        self.seal_deadline = SEAL_DEADLINE
        self.opened: OpenReceived | None = None
        self.control = CallControl(
            self._session,
            say=self._say_soon,
            disconnect=lambda: self.disconnect(
                DisconnectReason.COMPLETED, "Ended by request"
            ),
            note=self._recording.write,
            held=self._keep_held,
            samples=self._samples_so_far,
            clock=surroundings.clock,
        )

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
        return self._recording.started_at

    def pulse(self) -> Pulse:
        """Returns how it does."""
        session, recording = self._session, self._recording
        timeline, media, pinged_at = session.timeline, session.media, session.pinged_at
        channels = tuple(str(each) for each in media.channels) if media else ()
        return Pulse(
            since_ping=None if pinged_at is None else trio.current_time() - pinged_at,
            gaps=len(timeline.gaps),
            gap_seconds=timeline.gap_samples / SAMPLE_RATE_HZ,
            lost_seconds=self._notes.lost_bytes
            / max(1, len(channels))
            / SAMPLE_RATE_HZ,
            language=recording.language,
            channels=channels,
            folder=recording.folder,
        )

    def take_counts(self) -> tuple[int, int]:
        """Returns bytes and frames of audio that came since this was last asked."""
        return self._notes.take_counts()

    def disconnect(self, reason: DisconnectReason, info: str) -> None:
        """Asks the peer to close, as soon as the call's task runs."""
        self._wish = _Wish(reason, info)
        self._call_task()

    def _keep_held(self, asker: Asker | None) -> None:
        """Has later sessions of the conversation know of a pause, or of its end."""
        conversation = self._notes.conversation or ""
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

    async def run(self, upgrade: JudgedConnection) -> None:
        """Runs the call from the upgrade to its end.

        Never raises, except when it is cancelled.

        Args:
            upgrade: The request for it.
        """
        try:
            async with trio.open_nursery() as nursery:
                connection = await self._upgrade(nursery, upgrade)
                if connection is not None:
                    await self._converse(connection)
                    with trio.move_on_after(_GOODBYE_DEADLINE):
                        await connection.aclose()
                nursery.cancel_scope.cancel()
        except* ConnectionClosed:
            pass  # the library's reader found the socket gone before we did
        except* Exception:  # noqa: BLE001 - the edge: siblings must not notice
            self._notes.outcome = "failed"
            self._notes.noise(logging.ERROR, "call_failed", exc_info=True)
        finally:
            with trio.CancelScope(
                deadline=trio.current_time() + self.seal_deadline, shield=True
            ):
                await trio.aclose_forcefully(self._stream)
                await self._recording.seal_rest(self._notes.outcome)
                await self._recording.hand_over()
            self._recording.let_go()
            if self._notes.conversation is not None:
                self._around.pauses.leave(self._notes.conversation, trio.current_time())
            self.control.over()
            self._notes.sum_up(
                recorded=self._recording.is_begun, sealed=self._recording.is_sealed
            )

    async def _upgrade(
        self, nursery: trio.Nursery, upgrade: JudgedConnection
    ) -> WebSocketConnection | None:
        """Completes the WebSocket handshake; None if the peer does not take it."""
        connection = CallSocket(
            self._stream,
            upgrade,
            queue_size=_MESSAGE_QUEUE,
            max_message_size=_MAX_MESSAGE_CHARS,
        )
        with trio.move_on_after(_UPGRADE_DEADLINE):
            await connection.accept(nursery)
            return connection
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
            self._recording.note_drops()
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
            self._notes.count_violation()

    def _hear(self, text: str) -> bool:
        """Deals with a ping in the pump's task, while this one waits for messages.

        Returns:
            False if the message is to come to this task.
        """
        if not self._idle or self._owed or self._called:
            return False
        self._recording.note_drops()
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
                if self._still_listens(connection):
                    await self._stream.send_all(text_frame(text))
                else:
                    await connection.send_message(text)
            except (
                ConnectionClosed,
                trio.BrokenResourceError,
                trio.ClosedResourceError,
            ):
                return

    def _still_listens(self, connection: WebSocketConnection) -> bool:
        """Tells whether a peer has only said that it sends nothing more.

        The library takes that for the end of the connection, and sends nothing more
        either. What such a peer waits for is most likely ``closed``.
        """
        lane, ended = self._lane, connection.closed
        return (
            lane.eof
            and not lane.broken
            and ended is not None
            and ended.code == _ABNORMAL_END
        )

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
                if what is Timer.CLOSING and self._recording.is_sealed:
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
                self._recording.write(LanguageFact(language, self._samples_so_far()))
            case Violation(info, answered):
                self._notes.count_violation()
                self._notes.noise(
                    logging.WARNING,
                    "protocol_violation",
                    info=str(info),
                    answered=answered,
                )
            case PeerErrorReceived(code, _):
                # Its text may hold anything, so only the number is logged.
                self._notes.noise(logging.WARNING, "peer_error", code=code)
            case GapLimited(ignored):
                self._notes.noise(
                    logging.WARNING, "gap_limited", ignored_samples=ignored
                )
            case PositionDrift(samples):
                self._notes.noise(logging.INFO, "position_drift", samples=samples)

    def _note_silence(
        self, event: GapRecorded | PauseBegan | PauseEnded | HoldAnswered
    ) -> None:
        """Writes down that audio is missing, or is not to come, and at whose word."""
        match event:
            case GapRecorded(gap):
                asker = None
                if gap.kind is GapKind.PAUSED:
                    asker, self._paused_for = self._paused_for, None
                self._recording.note_gap(gap, asker)
            case PauseBegan(offset):
                self._recording.write(PausedFact(paused=True, offset_samples=offset))
                self._paused_for = self.control.asker if self._session.is_held else None
            case PauseEnded(offset):
                self._recording.write(PausedFact(paused=False, offset_samples=offset))
                if self._session.is_held and self._session.has_answered:
                    self._notes.noise(logging.WARNING, "resumed_against_our_pause")
                    self.control.insist()
            case HoldAnswered(wanted):
                if wanted:
                    self._paused_for = self.control.asker
                self.control.answered()

    async def _open(self, event: OpenReceived) -> None:
        """Answers ``open``: with ``opened`` once there is a place for the audio."""
        began = trio.current_time()
        session, lane = self._session, self._lane
        self.opened = event
        self._notes.name(event.parameters.conversation_id)
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
            if not await self._recording.begin(event, self._settings):
                self._turn_away(TurnedAway.DISK)
                return
            if self._minutes is not None:
                self._minutes.begin()
        asker = None
        if self._recording.is_begun:
            now = trio.current_time()
            asker = self._around.pauses.take(event.parameters.conversation_id, now)
        session.accept(event.media, now=trio.current_time(), hold=asker is not None)
        if asker is not None:
            self.control.begin_paused(asker)
        # What the sweep answers by itself nobody could take down.
        is_seen = self._minutes is not None
        self._stream.enlist(self._hear, None if is_seen else self._session)
        self._around.metrics.opening.observe(trio.current_time() - began)
        self._notes.tell(
            "opened",
            recorded=self._recording.is_begun,
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
            self._notes.noise(
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
        self._notes.noise(
            logging.WARNING,
            "call_turned_away",
            reason=why.label,
            key=self._credentials.key_id,
        )
        self._session.disconnect(DisconnectReason.ERROR, str(why))

    async def _close(self, event: CloseReceived) -> None:
        """Makes the call durable, and only then answers ``close``."""
        began = trio.current_time()
        self._lane.ignore()
        if self._notes.outcome == "lost":
            self._notes.outcome = "ended"
        if not self._recording.is_begun:
            self._session.closed(now=trio.current_time())
            return
        # Past this point the peer may drop the socket; the call must not care.
        with trio.CancelScope(deadline=began + self.seal_deadline, shield=True):
            await self._recording.seal(
                event.reason or "closed",
                event.audio_bytes,
                until=began + _CLOSE_PATIENCE,
            )
        if self._recording.is_sealed:
            self._session.closed(now=trio.current_time())
            self._around.metrics.closing.observe(trio.current_time() - began)
        else:
            self._notes.outcome = "not_sealed"
            self._give_up_at = began + _PEER_PATIENCE

    def _samples_so_far(self) -> int:
        return self._samples_in(self._lane.audio_bytes)

    def _samples_in(self, audio_bytes: int) -> int:
        media = self._session.media
        return audio_bytes // len(media.channels) if media else 0


def _tag(language: str | None) -> str | None:
    """Returns what a line may say of a language: what could be a name is no tag."""
    return language if language and _LANGUAGE_TAG.fullmatch(language) else None
