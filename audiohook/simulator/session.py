"""The client's side of an AudioHook session. No I/O, no clock of its own.

The caller passes in what arrives and what time it is, and carries away what
`next_to_send` gives, in that order. Everything that the server does wrong is
noted as a `Breach` and answered as a Genesys client answers it.

Source: Genesys AudioHook protocol reference and session walkthrough; for the
reactions, the session of the reference implementation's client.
"""

from __future__ import annotations

import json
import math
from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING

from audiohook.errors import LocalProtocolError, RemoteProtocolError
from audiohook.protocol.messages import (
    NIL_UUID,
    Channel,
    Closed,
    CloseReason,
    Disconnect,
    DisconnectReason,
    Event,
    MediaParameter,
    Opened,
    Pause,
    Pong,
    Reconnect,
    Resume,
    ServerMessage,
    Updated,
    parse_server_message,
)
from audiohook.protocol.timeline import SAMPLE_RATE_HZ, format_duration
from audiohook.rate import TokenBucket
from audiohook.simulator.rules import REACTIONS, Breach, Limits, Rule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from audiohook.simulator.options import CallOptions

_MAX_QUOTED = 200


class State(StrEnum):
    """Where the session stands."""

    IDLE = "idle"
    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"
    ENDED = "ended"


# Rule 1: what a server may send when, is said here and nowhere else. A message
# may have been under way when our `close` left, hence CLOSING nearly everywhere.
_TAKEN_IN: Mapping[type[ServerMessage], frozenset[State]] = {
    Opened: frozenset({State.OPENING, State.CLOSING}),
    Pong: frozenset({State.OPEN, State.CLOSING}),
    Updated: frozenset({State.OPEN, State.CLOSING}),
    Pause: frozenset({State.OPEN, State.CLOSING}),
    Resume: frozenset({State.OPEN, State.CLOSING}),
    Event: frozenset({State.OPEN, State.CLOSING}),
    Reconnect: frozenset({State.OPEN, State.CLOSING}),
    Disconnect: frozenset({State.OPENING, State.OPEN, State.CLOSING}),
    Closed: frozenset({State.CLOSING}),
}


class ClientSession:
    """One session as Genesys conducts it.

    Args:
        options: Ids and other contents of ``open``.
        channels: Names of the channels of the audio, in order.
        limits: Times and amounts.
        now: Seconds on the clock whose time is passed to the methods.

    Attributes:
        state: Where the session stands.
        media: What the server chose; None before that or if it wants no audio.
        position_samples: Stream position: audio sent, paused and discarded.
        breaches: What the server did wrong, in order.
        opened_latency: Seconds from ``open`` to ``opened``.
        pong_latencies: Round trips of the pings, seconds.
        closed_latency: Seconds from ``close`` to ``closed``.
        disconnect_reason: Reason of the server's ``disconnect``.
        frames_sent: Frames of audio handed out.
        bytes_sent: Their bytes.
        samples_sent: Their samples per channel.
        texts_sent: Text messages handed out.
        texts_received: Text messages taken in.
        events_received: Those of them that were ``event``.
    """

    def __init__(
        self,
        options: CallOptions,
        channels: tuple[Channel, ...],
        *,
        now: float,
        limits: Limits | None = None,
    ) -> None:
        self.state = State.IDLE
        self.media: MediaParameter | None = None
        self.position_samples = 0
        self.breaches: list[Breach] = []
        self.opened_latency: float | None = None
        self.pong_latencies: list[float] = []
        self.closed_latency: float | None = None
        self.disconnect_reason: DisconnectReason | None = None
        self.frames_sent = 0
        self.bytes_sent = 0
        self.samples_sent = 0
        self.texts_sent = 0
        self.texts_received = 0
        self.events_received = 0
        self._options = options
        self._offers = offers(channels, options.only)
        self._limits = limits if limits is not None else Limits()
        self._bucket = TokenBucket(self._limits.texts, now)
        self._hold_buckets = {
            kind: TokenBucket(self._limits.holds, now) for kind in (Pause, Resume)
        }
        self._began_at = now
        self._outbox: deque[str | bytes] = deque()
        self._seq = 0
        self._serverseq = 0
        self._opening_at = now
        self._was_opened = False
        self._ping_at = math.inf
        self._ping_seq: int | None = None
        self._ping_sent_at = now
        self._close_seq = 0
        self._close_reason = CloseReason.END
        self._closing_at = now
        self._updates_open: list[int] = []
        self._server_paused = False
        self._own_pause_samples: int | None = None
        self._paused_at = now

    # What the caller asks.

    @property
    def deadline(self) -> float:
        """When `handle_timeout` is due; infinite if nothing is awaited."""
        if self.state is State.OPENING:
            return self._opening_at + self._limits.opened
        if self.state is State.OPEN:
            return self._ping_at
        if self.state is State.CLOSING:
            return self._closing_at + self._limits.closed
        return math.inf

    @property
    def is_streaming(self) -> bool:
        """True while audio may be sent."""
        return self.state is State.OPEN and self.media is not None and not self._paused

    @property
    def is_over(self) -> bool:
        """True once nothing more is to come but the end of the connection."""
        return self.state in {State.CLOSED, State.ENDED}

    @property
    def has_to_send(self) -> bool:
        """True if `next_to_send` has something to give."""
        return bool(self._outbox)

    def next_to_send(self) -> str | bytes | None:
        """Take the next message that is to go out, None if there is none."""
        return self._outbox.popleft() if self._outbox else None

    # What the client's side does.

    def open(self, *, now: float) -> None:
        """Begin: queue ``open``."""
        self._require(State.IDLE)
        self.state = State.OPENING
        self._opening_at = now
        self._queue("open", self._open_parameters(), now)

    def send_audio(self, audio: bytes) -> None:
        """Queue one frame.

        Args:
            audio: µ-law bytes, channels interleaved as chosen; may be empty.

        Raises:
            LocalProtocolError: No audio may be sent now, or it is not whole.
        """
        if not self.is_streaming or self.media is None:
            msg = f"no audio may be sent: {self.state}"
            raise LocalProtocolError(msg)
        samples, rest = divmod(len(audio), len(self.media.channels))
        if rest:
            msg = f"{len(audio)} bytes are no whole samples"
            raise LocalProtocolError(msg)
        self._outbox.append(audio)
        self.frames_sent += 1
        self.bytes_sent += len(audio)
        self.samples_sent += samples
        self.position_samples += samples

    def begin_pause(self, length_samples: int, *, now: float) -> None:
        """Pause on our side: queue ``paused``.

        Args:
            length_samples: How much of the stream the pause will take.
            now: Seconds.
        """
        self._require(State.OPEN)
        if not self._paused:
            self._paused_at = now
        self._own_pause_samples = length_samples
        self._queue("paused", {}, now)

    def end_pause(self, *, now: float) -> None:
        """End our pause: queue ``resumed``, unless the server still pauses."""
        self._require(State.OPEN)
        length, self._own_pause_samples = self._own_pause_samples, None
        if length is None:
            msg = "there is no pause to end"
            raise LocalProtocolError(msg)
        if self._server_paused:
            # The server's `resume` ends both; that our part counts in full even
            # if no time has passed is what dating it back is for.
            latest = now - length / SAMPLE_RATE_HZ
            self._paused_at = min(self._paused_at, latest)
            return
        self._resume(length, now)

    def discard(self, length_samples: int, *, now: float) -> None:
        """Lose some of the stream: queue ``discarded``.

        Args:
            length_samples: How much, per channel.
            now: Seconds.
        """
        self._require(State.OPEN)
        gap = self._gap(length_samples)
        self.position_samples += length_samples
        self._queue("discarded", gap, now)

    def update(self, language: str, *, now: float) -> None:
        """Change the language: queue ``update``."""
        self._require(State.OPEN)
        self._queue("update", {"language": language}, now)
        self._updates_open.append(self._seq)

    def report_error(self, code: int, message: str, *, now: float) -> None:
        """Tell the server of a fault: queue ``error``."""
        self._queue("error", {"code": code, "message": message}, now)

    def close(self, reason: CloseReason, *, now: float) -> None:
        """End the session: queue ``close``; again or later, do nothing."""
        if self.state not in {State.OPENING, State.OPEN}:
            return
        self._queue("close", {"reason": reason}, now)
        self._close_seq = self._seq
        self._close_reason = reason
        self._closing_at = now
        self.state = State.CLOSING

    def abandon(self) -> None:
        """The client drops the connection, which is no fault of the server."""
        self.state = State.ENDED
        self._outbox.clear()

    # What arrives.

    def receive_text(self, text: str, *, now: float) -> None:
        """Take in a text message of the server.

        Args:
            text: Content of the frame.
            now: Seconds.
        """
        self.texts_received += 1
        was_closing = self.state is State.CLOSING
        if self.is_over:
            self._breach(Rule.AFTER_CLOSED, f"text after closed: {_quote(text)}", now)
            return
        if not self._bucket.take(now):
            self._breach(
                Rule.RATE,
                f"more than {self._limits.texts.per_second:g} messages a second",
                now,
            )
        size_bytes = len(text.encode())
        if size_bytes > self._limits.message_bytes:
            self._breach(Rule.SIZE, f"a message of {size_bytes:,} bytes", now)
            return
        try:
            message = parse_server_message(text)
        except RemoteProtocolError as error:
            self._breach(Rule.MESSAGE, f"{error.info} in {_quote(text)}", now)
            self._salvage(text, was_closing, now)
            return
        sound = self._check_envelope(message, now)
        # A faulty `closed` is still the end: waiting for another would only add
        # a second complaint.
        if sound or (was_closing and isinstance(message, Closed)):
            self._take(message, now)

    def receive_binary(self, length_bytes: int, *, now: float) -> None:
        """Take in a binary message, which a server may never send.

        Args:
            length_bytes: Its length.
            now: Seconds.
        """
        self._breach(Rule.BINARY, f"a binary message of {length_bytes:,} bytes", now)

    def receive_end(self, how: str, *, now: float) -> None:
        """Take note that the server ended the connection.

        Args:
            how: Close code and reason, for people.
            now: Seconds.
        """
        self._outbox.clear()
        if self.state is State.ENDED:
            return
        when = (
            "after closed instead of leaving that to the client"
            if self.state is State.CLOSED
            else f"before closed, while {self.state}"
        )
        self._breach(Rule.SOCKET, f"the server ended the connection {when}: {how}", now)
        self.state = State.ENDED

    def receive_no_end(self, *, now: float) -> None:
        """Take note that the server left our closing of the WebSocket unanswered."""
        self._breach(Rule.SOCKET, "no answer to the closing of the WebSocket", now)
        self.state = State.ENDED

    def handle_timeout(self, *, now: float) -> None:
        """Do what is due by `now`."""
        if now < self.deadline:
            return
        if self.state is State.OPENING:
            self._breach(
                Rule.OPENED, f"no opened within {self._limits.opened:g} s", now
            )
        elif self.state is State.OPEN:
            self._tick(now)
        elif self.state is State.CLOSING:
            self._breach(
                Rule.CLOSED, f"no closed within {self._limits.closed:g} s", now
            )
            self.report_error(408, "no closed in time", now=now)
            self.state = State.ENDED

    # One method a message.

    def _take(self, message: ServerMessage, now: float) -> None:
        match message:
            case Opened():
                self._take_opened(message, now)
            case Pong():
                self._take_pong(message, now)
            case Closed():
                self._take_closed(message, now)
            case Updated():
                self._take_updated(message, now)
            case Pause():
                self._take_pause(now)
            case Resume():
                self._take_resume(now)
            case Event():
                # AudioHook Monitor discards what servers return.
                self.events_received += 1
            case Disconnect():
                self._take_disconnect(message, now)
            case Reconnect():
                self._take_reconnect(now)

    def _take_opened(self, message: Opened, now: float) -> None:
        if self._was_opened:
            self._breach(Rule.STATE, "opened a second time", now)
            return
        self._was_opened = True
        self.opened_latency = now - self._opening_at
        if self.state is State.CLOSING:
            # Fine if it crossed our `close` on the way; then there is no call to
            # conduct any more.
            if message.clientseq >= self._close_seq:
                self._breach(Rule.STATE, "opened as an answer to close", now)
            return
        chosen = message.parameters.media
        if any(media not in self._offers for media in chosen):
            self._breach(Rule.MEDIA, f"media that was not offered: {chosen[0]}", now)
            return
        if (message.parameters.supported_languages is not None) != (
            self._options.supported_languages
        ):
            asked = self._options.supported_languages
            text = "missing although" if asked else "there although not"
            self._breach(Rule.LANGUAGES, f"supportedLanguages {text} asked for", now)
        self.media = chosen[0] if chosen else None
        self.state = State.OPEN
        self._ping_at = now + self._limits.first_ping
        if message.parameters.start_paused:
            self._hold(now)

    def _take_pong(self, message: Pong, now: float) -> None:
        if self._ping_seq is None:
            self._breach(Rule.PONG, "pong without a ping", now)
            return
        if message.clientseq != self._ping_seq:
            self._breach(
                Rule.PONG,
                f"pong with clientseq {message.clientseq} for ping {self._ping_seq}",
                now,
            )
            return
        self._ping_seq = None
        rtt = now - self._ping_sent_at
        self.pong_latencies.append(rtt)
        if self.state is not State.OPEN:
            return
        # A second ping at once, so that the server learns a round trip early.
        first = len(self.pong_latencies) == 1
        self._ping_at = (
            now if first else self._ping_sent_at + self._limits.ping_interval
        )
        if first:
            self._tick(now)

    def _take_closed(self, message: Closed, now: float) -> None:
        self.closed_latency = now - self._closing_at
        if message.clientseq != self._close_seq:
            self._breach(
                Rule.CLIENTSEQ,
                f"closed with clientseq {message.clientseq} for close {self._close_seq}",
                now,
            )
        if self._close_reason is CloseReason.END:
            if self._ping_seq is not None:
                self._breach(Rule.PONG, f"no pong for ping {self._ping_seq}", now)
            for seq in self._updates_open:
                self._breach(Rule.UPDATED, f"no updated for update {seq}", now)
        self.state = State.CLOSED

    def _take_updated(self, message: Updated, now: float) -> None:
        if not self._updates_open or message.clientseq < self._updates_open[0]:
            self._breach(Rule.UPDATED, "updated without an update", now)
            return
        del self._updates_open[0]

    def _check_hold_rate(self, kind: type[Pause | Resume], now: float) -> None:
        if not self._hold_buckets[kind].take(now):
            rate = self._limits.holds.per_second
            name = kind.__name__.lower()
            self._breach(Rule.RATE, f"more than {rate:g} {name} a second", now)

    def _take_pause(self, now: float) -> None:
        self._check_hold_rate(Pause, now)
        if self.state is State.OPEN:
            self._hold(now)

    def _take_resume(self, now: float) -> None:
        self._check_hold_rate(Resume, now)
        if self.state is not State.OPEN:
            return
        was_paused, self._server_paused = self._server_paused, False
        if self._own_pause_samples is not None:
            self._queue("paused", {}, now)
        elif was_paused:
            self._resume(_elapsed_samples(self._paused_at, now), now)
        else:
            self._resume(0, now)

    def _take_disconnect(self, message: Disconnect, now: float) -> None:
        reason = message.parameters.reason
        self.disconnect_reason = reason
        if reason is not DisconnectReason.COMPLETED:
            info = _quote(message.parameters.info or "no info")
            self._breach(Rule.DISCONNECT, f"{reason}: {info}", now)
        self.close(CloseReason.DISCONNECT, now=now)

    def _take_reconnect(self, now: float) -> None:
        if self._options.reconnections:
            self.close(CloseReason.RECONNECT, now=now)

    # Inner parts.

    @property
    def _paused(self) -> bool:
        return self._server_paused or self._own_pause_samples is not None

    def _require(self, state: State) -> None:
        if self.state is not state:
            msg = f"possible only while {state}, not while {self.state}"
            raise LocalProtocolError(msg)

    def _hold(self, now: float) -> None:
        if not self._paused:
            self._paused_at = now
        self._server_paused = True
        self._queue("paused", {}, now)

    def _resume(self, length_samples: int, now: float) -> None:
        gap = self._gap(length_samples)
        self.position_samples += length_samples
        self._queue("resumed", gap, now)

    def _gap(self, length_samples: int) -> dict[str, object]:
        return {
            "start": format_duration(self.position_samples),
            "discarded": format_duration(length_samples),
        }

    def _tick(self, now: float) -> None:
        """Send the ping that is due, unless the last was not answered."""
        if self._ping_seq is not None:
            self._breach(
                Rule.PONG,
                f"no pong for ping {self._ping_seq} within {self._limits.pong:g} s",
                now,
                fatal=True,
            )
            return
        rtt = self.pong_latencies[-1] if self.pong_latencies else 0.0
        self._queue("ping", {"rtt": _duration(rtt)}, now)
        self._ping_seq = self._seq
        self._ping_sent_at = now
        self._ping_at = now + self._limits.pong

    def _check_envelope(self, message: ServerMessage, now: float) -> bool:
        """Check what all messages have in common; False if there is a fault."""
        before = len(self.breaches)
        expected = self._serverseq + 1
        # Adopted also when wrong, so that one fault is one complaint.
        self._serverseq = message.seq
        if message.seq != expected:
            self._breach(
                Rule.SEQ, f"{message.type} has seq {message.seq}, not {expected}", now
            )
        if message.id != self._options.session_id:
            self._breach(Rule.ID, f"{message.type} has id {message.id}", now)
        if message.clientseq > self._seq:
            self._breach(
                Rule.CLIENTSEQ,
                f"{message.type} has clientseq {message.clientseq}, sent was {self._seq}",
                now,
            )
        if self.state not in _TAKEN_IN[type(message)]:
            self._breach(Rule.STATE, f"{message.type} while {self.state}", now)
        return len(self.breaches) == before

    def _salvage(self, text: str, was_closing: bool, now: float) -> None:
        """Go on after an unreadable message as far as it can be understood."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            return
        seq = value.get("seq")
        if isinstance(seq, int):
            self._serverseq = seq
        if value.get("type") == "closed" and was_closing:
            self.closed_latency = now - self._closing_at
            self.state = State.CLOSED

    def _breach(
        self, rule: Rule, text: str, now: float, *, fatal: bool = False
    ) -> None:
        """Note a breach and do what a client does about it.

        Args:
            rule: Which rule was broken.
            text: How, on one line.
            now: Seconds.
            fatal: Close the session even if the rule alone does not ask for it.
        """
        self.breaches.append(Breach(rule, text, now - self._began_at))
        reaction = REACTIONS.get(rule)
        # After `close` nothing may follow, and there is nothing left to close.
        if reaction is None or self.state not in {State.OPENING, State.OPEN}:
            return
        if reaction.code is not None:
            code = 408 if fatal else reaction.code
            self.report_error(code, text[:_MAX_QUOTED], now=now)
        if fatal or reaction.fatal:
            self.close(CloseReason.ERROR, now=now)

    def _queue(self, kind: str, parameters: Mapping[str, object], now: float) -> None:
        self._seq += 1
        self.texts_sent += 1
        envelope = {
            "version": "2",
            "id": self._options.session_id,
            "type": kind,
            "seq": self._seq,
            "serverseq": self._serverseq,
            "position": format_duration(self._position_at(now)),
            "parameters": parameters,
        }
        self._outbox.append(json.dumps(envelope))

    def _position_at(self, now: float) -> int:
        """Give the stream position; time goes on while paused."""
        if not self._paused:
            return self.position_samples
        passed = _elapsed_samples(self._paused_at, now)
        if self._own_pause_samples is not None and not self._server_paused:
            passed = min(passed, self._own_pause_samples)
        return self.position_samples + passed

    def _open_parameters(self) -> dict[str, object]:
        options = self._options
        probe = options.probe
        parameters: dict[str, object] = {
            "organizationId": options.organization_id,
            "conversationId": NIL_UUID if probe else options.conversation_id,
            "participant": {
                "id": NIL_UUID if probe else options.participant_id,
                "ani": "" if probe else options.ani,
                "aniName": "" if probe else options.ani_name,
                "dnis": "" if probe else options.dnis,
            },
            "media": [offer.model_dump(mode="json") for offer in self._offers],
        }
        if options.language is not None:
            parameters["language"] = options.language
        if options.supported_languages:
            parameters["supportedLanguages"] = True
        if options.custom_config is not None:
            parameters["customConfig"] = options.custom_config
        return parameters


def offers(
    channels: tuple[Channel, ...], only: Channel | None = None
) -> tuple[MediaParameter, ...]:
    """List the media that a client offers.

    Args:
        channels: Names of the channels there are, in order.
        only: The one to offer, as an administrator can choose.

    Returns:
        All channels together first, then each alone.
    """
    groups = [channels] if len(channels) > 1 else []
    groups += [(channel,) for channel in channels]
    if only is not None:
        groups = [(only,)]
    return tuple(
        MediaParameter(type="audio", format="PCMU", channels=group, rate=SAMPLE_RATE_HZ)
        for group in groups
    )


def _elapsed_samples(since: float, now: float) -> int:
    return max(0, round((now - since) * SAMPLE_RATE_HZ))


def _duration(seconds: float) -> str:
    """Write a duration that need not be whole samples, to the nanosecond."""
    digits = f"{max(seconds, 0.0):.9f}".rstrip("0").rstrip(".")
    return f"PT{digits}S"


def _quote(text: str) -> str:
    """Give the beginning of a text of the server as printable ASCII."""
    quoted = ascii(text[:_MAX_QUOTED])
    return quoted if len(text) <= _MAX_QUOTED else f"{quoted}…"
