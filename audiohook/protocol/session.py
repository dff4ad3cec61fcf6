"""One AudioHook session seen from the server, without I/O and without a clock.

The owner of the socket hands in what arrives and gets events back; it takes the
texts to send from `Session.data_to_send`. Times are seconds of any monotonic clock
and come as arguments; amounts of audio come as bytes, since audio itself does not
pass through here. `Session` holds all that the protocol asks a server to remember:
sequence numbers, what is still owed an answer, and, in `audiohook.protocol.facts`,
where on the time line the gaps lie.

Source: Genesys AudioHook protocol reference, protocol version 2, and the behaviour
of the reference server where it is silent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from audiohook.errors import LocalProtocolError, RemoteProtocolError
from audiohook.protocol._ping import read_usual_ping
from audiohook.protocol._pong import Answerer
from audiohook.protocol.events import (
    BinaryAccepted,
    CloseReceived,
    Ended,
    HoldAnswered,
    OpenReceived,
    PeerErrorReceived,
    SessionEvent,
    SessionFault,
    TimedOut,
    Timer,
    Violation,
)
from audiohook.protocol.facts import Facts, samples_of
from audiohook.protocol.hold import Hold
from audiohook.protocol.messages import (
    ClientMessage,
    Close,
    Closed,
    Discarded,
    Disconnect,
    DisconnectParameters,
    DisconnectReason,
    MediaParameter,
    Open,
    Opened,
    OpenedParameters,
    OpenParameters,
    Pause,
    Paused,
    PeerError,
    Ping,
    Resume,
    Resumed,
    UnknownMessage,
    Update,
    Updated,
    canonical_uuid,
    negotiate,
    parse_client_message,
    pong_text,
)
from audiohook.protocol.state import IGNORE, MISUSE, REFUSE, TRANSITIONS, Input, State
from audiohook.protocol.timeline import Gap, GapKind
from audiohook.protocol.wire import Fault

if TYPE_CHECKING:
    from collections.abc import Mapping

    from audiohook.protocol.timeline import Timeline

# Largest binary message that is taken; the documented limit is 64,000 bytes, the
# reference server takes this.
MAX_BINARY_BYTES: Final = 65_536
# Replies held until `opened`; a real client sends no ping before it.
MAX_HELD: Final = 16
# A start position past this is nonsense: it exceeds 35,000 years.
MAX_START_SAMPLES: Final = 2**53
# So far the arithmetic of whole numbers of 64 bits goes, with room for more.
MAX_AHEAD_SAMPLES: Final = 2**60

# States in which what the peer sends is not even read, so that it cannot be a fault.
_DEAF: Final = frozenset({State.CLOSING, State.CLOSED, State.ENDED})
# States in which the peer is to end the session, and has only so long to do it.
_LEAVING: Final = frozenset({State.REJECTING, State.DISCONNECTING, State.CLOSED})
# States in which a reply would take the place of `opened`.
_HOLDING: Final = frozenset({State.CONNECTED, State.OPENING})

_INPUTS: Final[Mapping[type[ClientMessage], Input]] = {
    Open: Input.OPEN,
    Ping: Input.PING,
    Close: Input.CLOSE,
    Paused: Input.PAUSED,
    Resumed: Input.RESUMED,
    Discarded: Input.DISCARDED,
    Update: Input.UPDATE,
    PeerError: Input.ERROR,
    UnknownMessage: Input.UNKNOWN,
}


@dataclass(frozen=True, slots=True)
class Timers:
    """How long to wait for the peer, in seconds.

    Attributes:
        open: For `open`, from the start of the session.
        idle: For any sign of life in an open session. A client pings every 5 s.
        closing: For the peer to close, from our `disconnect` or `closed`.
    """

    open: float = 10.0
    idle: float = 20.0
    closing: float = 12.0


DEFAULT_TIMERS: Final = Timers()


class Session(Answerer):
    """The server's side of one session.

    A probe and a session without audio have nothing to record, so they give no events
    about gaps, pauses, languages and positions.

    Whatever the peer sends, no method that takes it in raises; what it did wrong
    comes back as a `Violation`. After every call, send what `data_to_send` returns,
    in that order, through one writer.

    Args:
        session_id: UUID from the handshake, in any spelling.
        organization_id: UUID from the handshake.
        now: Time of the start, in seconds.
        timers: How long to wait for the peer.

    Raises:
        ValueError: The session id is not a UUID.
    """

    __slots__ = (
        "_channels",
        "_facts",
        "_held",
        "_hold",
        "_is_probe",
        "_media",
        "_open",
        "_organization_id",
        "_session_id",
        "_state",
        "_timers",
        "_unsent",
    )

    def __init__(
        self,
        *,
        session_id: str,
        organization_id: str,
        now: float,
        timers: Timers = DEFAULT_TIMERS,
    ) -> None:
        if canonical_uuid(session_id) is None:
            msg = "session id is not a UUID"
            raise ValueError(msg)
        self._session_id = session_id
        self._organization_id = canonical_uuid(organization_id)
        self._timers = timers
        self._state = State.CONNECTED
        self._now = now
        self._deadline = now + timers.open
        self._seq = 0
        self._peer_seq = 0
        self._unsent: list[str] = []
        self._held: list[Ping | Update] = []
        self._hold = Hold(now)
        self._open: OpenParameters | None = None
        self._facts = Facts(now)
        self._is_probe = False
        self._media: MediaParameter | None = None
        self._channels = 0
        self._seen_audio_bytes = 0
        self._pinged_at = -math.inf

    @property
    def state(self) -> State:
        """Where the session stands."""
        return self._state

    @property
    def deadline(self) -> float:
        """When to call `handle_timeout`, in seconds; infinite if not at all."""
        return self._deadline

    @property
    def pinged_at(self) -> float | None:
        """When the peer last pinged, in seconds; None if it never did."""
        return None if self._pinged_at == -math.inf else self._pinged_at

    @property
    def timeline(self) -> Timeline:
        """Stream positions and gaps; empty until ``open`` came."""
        return self._facts.timeline

    @property
    def media(self) -> MediaParameter | None:
        """What was accepted; None before that, and in a session without audio."""
        return self._media

    @property
    def is_probe(self) -> bool:
        """True if the peer only tries the connection."""
        return self._is_probe

    @property
    def is_paused(self) -> bool:
        """True while the peer says that it holds its audio back."""
        return self._facts.is_paused

    @property
    def is_held(self) -> bool:
        """True while the peer is to hold its audio back on our word."""
        return self._hold.wanted

    @property
    def has_answered(self) -> bool:
        """True if the peer has answered our last ``pause`` or ``resume``."""
        return self._hold.is_settled

    # What arrives.

    def receive_text(
        self, text: str, *, now: float, audio_bytes: int
    ) -> list[SessionEvent]:
        """Take in a text message.

        Args:
            text: Content of the frame.
            now: The time, in seconds.
            audio_bytes: Audio that had arrived before it, in bytes of all channels.

        Returns:
            What it means, in order.
        """
        self._is_listening = False
        self._now = now
        if self._state in _DEAF:
            return []
        self._note_life(audio_bytes)
        try:
            message = parse_client_message(text)
        except RemoteProtocolError as error:
            return [self._refuse(error.info)]
        return self._take_in(message, audio_bytes)

    def receive_ping(
        self, text: str, *, now: float, audio_bytes: int
    ) -> list[SessionEvent] | None:
        """Take in a text message if it is a ping of an open session.

        Everything that comes of it can be dealt with at once and in any task:
        the events are for writing down, and `data_to_send` has the answer.

        Args:
            text: Content of the frame.
            now: The time, in seconds.
            audio_bytes: Audio that had arrived before it, in bytes of all channels.

        Returns:
            What it means; None if it is anything else, which has had no effect.
        """
        self._is_listening = False
        if self._state is not State.OPEN:
            return None
        position = None
        if self._hold.is_settled:  # else it may answer our own pause as well
            position = read_usual_ping(
                text, self._session_id, self._peer_seq + 1, self._seq
            )
        if position is not None:
            # All that `_take_in` would do. Measured: 2 µs, against 25.
            self._now = now
            self._note_life(audio_bytes)
            self._peer_seq += 1
            self._answer_ping(self._peer_seq)
            samples = audio_bytes // self._channels if self._channels else 0
            return self._facts.compare(position, samples)
        if '"ping"' not in text:
            return None
        try:
            message = parse_client_message(text)
        except RemoteProtocolError:
            return None
        if not isinstance(message, Ping):
            return None
        self._now = now
        self._note_life(audio_bytes)
        return self._take_in(message, audio_bytes)

    def receive_binary(
        self, length_bytes: int, *, now: float, is_early: bool = False
    ) -> list[SessionEvent]:
        """Judge a binary message that was not taken as audio on its way in.

        Args:
            length_bytes: Its size.
            now: The time, in seconds.
            is_early: True if it was on its way before ``opened`` was sent.

        Returns:
            `BinaryAccepted` if it is to be appended, `Violation` if it is a fault,
            nothing if it is to be dropped in silence.
        """
        self._is_listening = False
        self._now = now
        step = TRANSITIONS[self._state][Input.AUDIO]
        if step is IGNORE:
            return []
        if self._state is State.OPEN:
            self._deadline = now + self._timers.idle
        if length_bytes == 0:
            # The reference client's probe sends one, at any time.
            return []
        if step is REFUSE:
            return [self._refuse(SessionFault.EARLY_AUDIO)]
        if self._media is None:
            return []
        if length_bytes > MAX_BINARY_BYTES:
            return [self._refuse(SessionFault.AUDIO_SIZE)]
        if length_bytes % self._channels:
            return [self._refuse(SessionFault.AUDIO_FRAME)]
        if is_early:
            return [self._refuse(SessionFault.EARLY_AUDIO)]
        return [BinaryAccepted(length_bytes)]

    def receive_end(self, *, now: float) -> list[SessionEvent]:
        """Take in that the socket is gone, however it went.

        Args:
            now: The time, in seconds.

        Returns:
            `Ended`; nothing if the session had ended already.
        """
        self._is_listening = False
        self._now = now
        orderly = self._state is State.CLOSED
        if not self._step(Input.END):
            return []
        return [Ended(orderly)]

    def handle_timeout(self, *, now: float, audio_bytes: int) -> list[SessionEvent]:
        """Take in that `deadline` has come.

        Audio is a sign of life that the session does not see as it arrives. If there
        was some since the last text, the wait is lengthened by half.

        Args:
            now: The time, in seconds.
            audio_bytes: Audio that has arrived, in bytes of all channels.

        Returns:
            `TimedOut` if the socket is to be closed; nothing if there is more time.
        """
        self._is_listening = False
        self._now = now
        if now < self._deadline:
            return []
        if self._state is State.OPEN and audio_bytes > self._seen_audio_bytes:
            self._seen_audio_bytes = audio_bytes
            self._deadline = now + self._timers.idle / 2
            return []
        what = {State.CONNECTED: Timer.OPEN, State.OPEN: Timer.IDLE}.get(
            self._state, Timer.CLOSING
        )
        if not self._step(Input.EXPIRY):
            return []
        return [TimedOut(what)]

    def listen(self) -> None:
        """Have usual pings answered where they are read, without asking.

        That ends with the next call of any method that takes something in or has
        something to say, and with `stop_listening`. Nothing is begun unless a ping is
        all that there is to wait for.
        """
        facts = self._facts
        ahead = facts.ahead_samples
        if (
            self._state is State.OPEN
            and self._hold.is_settled
            and not self._unsent
            and abs(ahead) <= MAX_AHEAD_SAMPLES
        ):
            self._listen(
                self._session_id,
                self._hold.texts,
                idle=self._timers.idle,
                channels=self._channels,
                compares=facts.compares,
                ahead_samples=ahead,
                from_samples=facts.timeline.last_offset_samples,
            )

    def stop_listening(self) -> None:
        """Have every message come here again."""
        self._is_listening = False

    # What our caller asks for.

    def accept(
        self,
        media: MediaParameter | None,
        *,
        now: float | None = None,
        hold: bool = False,
    ) -> None:
        """Answer `OpenReceived` with ``opened``.

        Does nothing if the peer closed, or was asked to, in the meantime.

        Args:
            media: One of the offers; None for a session without audio.
            now: The time, in seconds; that of the last input if not given.
            hold: Whether the peer is to hold its audio back from the start, until
                `resume`; as after `pause`, `HoldAnswered` tells when it does.

        Raises:
            LocalProtocolError: There is no ``open`` to answer, or the media was not
                offered.
        """
        self._is_listening = False
        parameters = self._open
        offered = () if parameters is None else parameters.media
        if self._state is State.OPENING and media is not None and media not in offered:
            msg = "the media accepted was not offered"
            raise LocalProtocolError(msg)
        if not self._step(Input.ACCEPT, now):
            return
        self._open = None
        self._media = media
        self._channels = 0 if media is None else len(media.channels)
        self._facts.is_recorded = media is not None and not self._is_probe
        wants_languages = parameters is not None and parameters.supported_languages
        seq = self._next_seq()
        if hold:
            self._hold.ask(seq, self._now, wanted=True)
        self._send(
            Opened(
                id=self._session_id,
                seq=seq,
                clientseq=self._peer_seq,
                parameters=OpenedParameters(
                    media=() if media is None else (media,),
                    start_paused=True if hold else None,
                    # A recorder takes any language, and an empty list says as much.
                    supported_languages=() if wants_languages else None,
                ),
            )
        )
        self._release_held()

    def closed(self, *, now: float | None = None) -> None:
        """Answer `CloseReceived` with ``closed``; the last thing that is sent.

        Does nothing if it was called before, or if the socket is gone.

        Args:
            now: The time, in seconds; that of the last input if not given. The wait
                for the peer to close the socket starts from it.

        Raises:
            LocalProtocolError: There is no ``close`` to answer.
        """
        self._is_listening = False
        if not self._step(Input.CLOSED, now):
            return
        self._send(
            Closed(id=self._session_id, seq=self._next_seq(), clientseq=self._peer_seq)
        )

    def disconnect(
        self, reason: DisconnectReason, info: str = "", *, now: float | None = None
    ) -> None:
        """Ask the peer to close; it then sends ``close``.

        Does nothing if that was asked before, or if the peer has closed.

        Args:
            reason: Why; the peer may come again after ``error``.
            info: Words that the peer logs; nothing personal.
            now: The time, in seconds; that of the last input if not given.
        """
        self._is_listening = False
        if not self._step(Input.DISCONNECT, now):
            return
        self._open = None
        self._send(
            Disconnect(
                id=self._session_id,
                seq=self._next_seq(),
                clientseq=self._peer_seq,
                parameters=DisconnectParameters(reason=reason, info=info or None),
            )
        )
        self._release_held()

    def pause(self, *, now: float) -> float:
        """Ask the peer to hold its audio back; `HoldAnswered` tells when it does.

        May be asked again. Does nothing once the session is about to end.

        Args:
            now: The time, in seconds.

        Returns:
            0 if the peer is asked; otherwise the seconds to wait before that, since
            it ends sessions whose server talks too much.

        Raises:
            LocalProtocolError: The session is not open yet.
        """
        return self._ask(Input.PAUSE, now)

    def resume(self, *, now: float) -> float:
        """Take `pause` back; otherwise as there.

        The peer may still hold its audio back for reasons of its own.
        """
        return self._ask(Input.RESUME, now)

    def add_lost(self, offset_samples: int, length_samples: int) -> None:
        """Note audio that arrived but could not be stored.

        Args:
            offset_samples: Samples per channel stored before it.
            length_samples: Samples per channel that are missing.
        """
        self._is_listening = False
        gap = Gap(GapKind.LOST, offset_samples, length_samples)
        self._facts.timeline.add(gap)

    def data_to_send(self) -> list[str]:
        """Return the texts to send now, in order, and forget them."""
        texts = self._unsent
        if texts:
            self._unsent = []
        return texts

    # Steps of the table.

    def _step(self, what: Input, now: float | None = None) -> bool:
        """Make the transition; return False if the table says to ignore the input.

        Raises:
            LocalProtocolError: The table has no such move for our caller.
        """
        if now is not None:
            self._now = now
        step = TRANSITIONS[self._state][what]
        if step is MISUSE:
            msg = f"{what} is not possible while {self._state}"
            raise LocalProtocolError(msg)
        if not isinstance(step, State):
            return False
        if step is not self._state:
            self._enter(step)
        return True

    def _enter(self, state: State) -> None:
        self._state = state
        if state is State.OPEN:
            self._deadline = self._now + self._timers.idle
        elif state in _LEAVING:
            self._deadline = self._now + self._timers.closing
        else:
            self._deadline = math.inf
        if state is State.ENDED:
            self._unsent = []
            self._held.clear()

    def _note_life(self, audio_bytes: int) -> None:
        self._seen_audio_bytes = audio_bytes
        if self._state is State.OPEN:
            self._deadline = self._now + self._timers.idle

    # Faults.

    def _envelope_fault(self, message: ClientMessage) -> SessionFault | None:
        if message.seq != self._peer_seq + 1:
            return SessionFault.SEQ
        if message.serverseq > self._seq:
            return SessionFault.SERVERSEQ
        if message.id != self._session_id:
            if message.id.lower() != self._session_id.lower():
                return SessionFault.IDENTIFIER
            # The handshake's spelling differs from the messages'; answer in theirs.
            self._session_id = message.id
        return None

    def _refuse(
        self, info: str, reason: DisconnectReason = DisconnectReason.ERROR
    ) -> Violation:
        answered = TRANSITIONS[self._state][Input.DISCONNECT] is not IGNORE
        self.disconnect(reason, info)
        return Violation(str(info), answered)

    # Messages.

    def _take_in(self, message: ClientMessage, audio_bytes: int) -> list[SessionEvent]:
        fault = self._envelope_fault(message)
        self._peer_seq = message.seq
        if fault is None:
            return self._dispatch(message, audio_bytes)
        return [self._refuse(fault), *self._dispatch(message, audio_bytes)]

    def _dispatch(self, message: ClientMessage, audio_bytes: int) -> list[SessionEvent]:
        what = _INPUTS[type(message)]
        if TRANSITIONS[self._state][what] is REFUSE:
            return [self._refuse(SessionFault.NOT_OPEN)]
        if not self._step(what):
            return []
        samples = audio_bytes // self._channels if self._channels else 0
        events = self._handle(message, audio_bytes, samples)
        if not self._hold.is_settled and self._hold.settle(
            message.serverseq,
            about_pause=isinstance(message, Paused | Resumed),
            paused=self._facts.is_paused,
        ):
            paused = self._facts.is_paused
            events.append(HoldAnswered(self._hold.wanted, paused, samples))
        return events

    def _handle(
        self, message: ClientMessage, audio_bytes: int, samples: int
    ) -> list[SessionEvent]:
        facts = self._facts
        match message:
            case Ping():
                self._reply(message)
                return facts.compare(message.position, samples)
            case Paused():
                return facts.pause(samples)
            case Resumed():
                ended = facts.unpause(samples)
                return ended + self._miss(GapKind.PAUSED, message, samples)
            case Discarded():
                return self._miss(GapKind.DISCARDED, message, samples)
            case Update():
                self._reply(message)
                return facts.change_language(message.parameters.language)
            case PeerError(parameters=error):
                return [PeerErrorReceived(error.code, error.message)]
            case Open():
                return self._on_open(message)
            case Close():
                return self._on_close(message, audio_bytes, samples)
        return []

    def _on_open(self, message: Open) -> list[SessionEvent]:
        parameters = message.parameters
        if parameters.organization_id != self._organization_id:
            return [
                self._refuse(SessionFault.ORGANIZATION, DisconnectReason.UNAUTHORIZED)
            ]
        start_samples = samples_of(message.position)
        if start_samples is None or start_samples > MAX_START_SAMPLES:
            return [self._refuse(Fault.MALFORMED)]
        media = negotiate(parameters.media)
        if media is None and parameters.media and not parameters.is_probe:
            return [self._refuse(SessionFault.MEDIA)]
        self._open = parameters
        self._is_probe = parameters.is_probe
        self._facts = Facts(
            self._now,
            start_samples=start_samples,
            is_recorded=not parameters.is_probe,
        )
        return [OpenReceived(parameters, media, parameters.is_probe, start_samples)]

    def _on_close(
        self, message: Close, audio_bytes: int, samples: int
    ) -> list[SessionEvent]:
        drift = self._facts.compare(message.position, samples)
        return [*drift, CloseReceived(message.parameters.reason, audio_bytes)]

    def _miss(
        self, kind: GapKind, message: Resumed | Discarded, samples: int
    ) -> list[SessionEvent]:
        length = message.parameters.discarded
        return self._facts.miss(kind, length, samples, now=self._now)

    # What is sent.

    def _next_seq(self) -> int:
        self._seq += 1
        self._hold.note_text(self._now)
        return self._seq

    def _ask(self, what: Input, now: float) -> float:
        self._is_listening = False
        wanted = what is Input.PAUSE
        wait = self._hold.wait(now, wanted=wanted)
        if not self._step(what, now) or wait > 0:
            return wait if self._state is State.OPEN else 0.0
        seq = self._next_seq()
        self._hold.ask(seq, now, wanted=wanted)
        message = Pause if wanted else Resume
        self._send(message(id=self._session_id, seq=seq, clientseq=self._peer_seq))
        return 0.0

    def _send(
        self, message: Opened | Closed | Updated | Disconnect | Pause | Resume
    ) -> None:
        self._unsent.append(message.to_text())

    def _reply(self, message: Ping | Update) -> None:
        if self._state in _HOLDING:
            if len(self._held) < MAX_HELD:
                self._held.append(message)
            return
        if isinstance(message, Ping):
            self._answer_ping(message.seq)
            return
        self._send(
            Updated(id=self._session_id, seq=self._next_seq(), clientseq=message.seq)
        )

    def _answer_ping(self, clientseq: int) -> None:
        self._pinged_at = self._now
        self._unsent.append(pong_text(self._session_id, self._next_seq(), clientseq))

    def _release_held(self) -> None:
        held, self._held = self._held, []
        for message in held:
            self._reply(message)
