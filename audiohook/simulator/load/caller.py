"""One of many calls: its connection, its session, and what it is to do.

It is told what has happened and what time it is, and never waits. What the server
may and must do is judged by `audiohook.simulator.session`, as for a single call.
"""

from __future__ import annotations

import math
import os
import secrets
import ssl
import time
from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from audiohook.protocol.messages import CloseReason
from audiohook.protocol.timeline import SAMPLE_RATE_HZ, GapKind
from audiohook.simulator.client import (
    GOODBYE_SECONDS,
    LINGER_SECONDS,
    request_headers,
)
from audiohook.simulator.connection import CONNECT_SECONDS, HANDSHAKE_SECONDS
from audiohook.simulator.load._frames import Metronome, Outlet
from audiohook.simulator.load.framing import (
    BadFrameError,
    FrameReader,
    Opcode,
    Upgrade,
    masked_frame,
)
from audiohook.simulator.load.manifest import FAILED, SentCall, SentGap
from audiohook.simulator.load.script import Ending, Script, Talk
from audiohook.simulator.options import MAX_CHANNELS, STEREO
from audiohook.simulator.rules import Breach, Rule
from audiohook.simulator.schedule import Discard, Pause
from audiohook.simulator.session import ClientSession, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from audiohook.simulator.load.figures import Figures
    from audiohook.simulator.load.link import Link, Target
    from audiohook.simulator.load.options import LoadOptions

_MASK_BYTES: Final = 4
_CLOSE_CODE_BYTES: Final = 2


class Phase(Enum):
    """How far a call has come."""

    CONNECTING = auto()
    UPGRADING = auto()
    TALKING = auto()
    """There is a session, or what is left of one."""
    LINGERING = auto()
    """`closed` has come; nothing more may."""
    LEAVING = auto()
    """The WebSocket is being closed."""
    HANGING_UP = auto()
    """We are gone, as far as the server can tell."""
    OVER = auto()


@dataclass(slots=True)
class Exchange:
    """What all calls of a process share.

    Attributes:
        options: The load.
        target: Where calls go.
        metronome: What sends their audio.
        figures: What is counted.
        on_opened: Called when a call has been opened.
        on_closing: Called when a call begins to end.
    """

    options: LoadOptions
    target: Target
    figures: Figures
    on_opened: Callable[[], None]
    on_closing: Callable[[], None]
    metronome: Metronome[Caller] = field(default_factory=Metronome)


class Caller:
    """One call. What its methods raise is a bug.

    Args:
        exchange: What it shares with others.
        number: Number in the load.
        voice: Number that its audio is to tell.
        script: What it is to do.
        ends_at: When it is to end whatever its script says; None if by its script.
        now: Seconds on the monotonic clock.

    Attributes:
        number: Number in the load.
        phase: How far it has come.
        link: Its connection; None if there is none, or none any more.
        fd: Descriptor of its connection, also after its end; -1 if it had none.
        planned_at: For whoever keeps the time: when it is to be told next.
        polled: For whoever polls: what for.
    """

    def __init__(
        self,
        exchange: Exchange,
        *,
        number: int,
        voice: int,
        script: Script,
        ends_at: float | None,
        now: float,
    ) -> None:
        self.number = number
        self.phase = Phase.CONNECTING
        self.link: Link | None = None
        self.fd = -1
        self.planned_at = math.inf
        self.polled = 0
        self._exchange = exchange
        self._voice = voice
        self._script = script
        self._steps = deque(script.steps)
        self._ends_at = ends_at
        self._ids = exchange.options.call_options(probe=script.ending is Ending.PROBED)
        self._upgrade: Upgrade | None = None
        self._reader = FrameReader()
        self._outlet: Outlet[Caller] | None = None
        self._session: ClientSession | None = None
        self._breaches: list[Breach] = []
        self._began_at = now
        self._phase_ends_at = now + CONNECT_SECONDS
        self._is_open = False
        self._has_gone = False
        self._closed_at: float | None = None
        # Where the stream stands, in the time of the monotonic clock.
        self._stream_at = now
        self._left = 0
        self._was_held = False
        self._rest: Pause | Discard | None = None
        self._rest_ends_at = math.inf
        self._channels = 0
        self._frame_bytes = 0
        self._counted_frames = 0
        self._audio_samples = 0
        self._gap_samples = 0
        self._gaps: list[SentGap] = []
        self._audio_bytes = 0
        self._connect(now)

    @property
    def is_over(self) -> bool:
        """True once there is nothing left to do."""
        return self.phase is Phase.OVER

    @property
    def deadline(self) -> float:
        """When `on_time` is due."""
        if self.phase is Phase.TALKING and self._session is not None:
            return min(self._session.deadline, self._rest_ends_at)
        return self._phase_ends_at

    # What happens to it.

    def on_ready(self, now: float) -> None:
        """Something can be received or sent."""
        self._guard(self._use_link, now)

    def on_sweep(self, now: float) -> None:
        """The metronome has sent the last frame, or could not send one."""
        self._guard(self._advance, now)

    def on_time(self, now: float) -> None:
        """The deadline is over."""
        self._guard(self._keep_time, now)

    def end_soon(self, now: float) -> None:
        """Come to an end as it should be, whatever is left to do."""
        self._steps.clear()
        self._left = 0
        self._ends_at = None
        self._rest = None
        self._rest_ends_at = math.inf
        if self._outlet is not None:
            self._outlet.hold()
        self._guard(self._advance, now)

    def drop(self) -> None:
        """Give the call up at once; it counts as failed."""
        self._breach(Rule.SOCKET, "given up before its end", time.monotonic())
        self._finish()

    def to_manifest(self) -> SentCall:
        """Tell what was sent."""
        return SentCall(
            number=self.number,
            voice=self._voice,
            session=self._ids.session_id,
            conversation=self._ids.conversation_id,
            channels=self._channels,
            audio_bytes=self._audio_bytes,
            frame_bytes=self._frame_bytes,
            gaps=tuple(self._gaps),
            ending=FAILED if self.breaches else self._script.ending,
            faults=tuple(f"{each.rule}: {each.text}" for each in self.breaches),
            closed_at=self._closed_at,
        )

    @property
    def breaches(self) -> list[Breach]:
        """What the server did wrong."""
        session = [] if self._session is None else self._session.breaches
        return self._breaches + session

    def _guard(self, work: Callable[[float], None], now: float) -> None:
        try:
            if self.phase is not Phase.OVER:
                self._count_audio()
                work(now)
        except OSError as error:
            self._lose(_words(error), now)
        except BadFrameError as error:
            self._lose(str(error), now)

    def _lose(self, how: str, now: float) -> None:
        """The connection is no good any more, or never was."""
        if self.phase is Phase.CONNECTING:
            self._breach(Rule.REACHABLE, f"cannot connect: {how}", now)
        elif self._session is None:
            self._breach(Rule.UPGRADE, how, now)
        elif self.phase not in {Phase.LEAVING, Phase.HANGING_UP}:
            self._session.receive_end(how, now=now)
        self._finish()

    def _breach(self, rule: Rule, text: str, now: float) -> None:
        self._breaches.append(Breach(rule, text, now - self._began_at))

    # The connection.

    def _connect(self, now: float) -> None:
        try:
            self.link = self._exchange.target.dial()
            self.fd = self.link.fd
        except OSError as error:
            self._lose(_words(error), now)

    def _use_link(self, now: float) -> None:
        if self.link is None:
            return
        if self.phase is Phase.CONNECTING:
            if not self.link.establish():
                return
            self._exchange.figures.times["connected"].add(now - self._began_at)
            self._request(self.link, now)
        else:
            self._receive(now)
        self._advance(now)

    def _request(self, link: Link, now: float) -> None:
        """Ask for a WebSocket."""
        self._outlet = Outlet(
            link.outlet_fd,
            call=self._voice,
            mask=secrets.token_bytes(_MASK_BYTES),
            owner=self,
        )
        self._exchange.metronome.add(self._outlet)
        endpoint = self._ids.endpoint
        headers = request_headers(self._ids, now=time.time())
        self._upgrade = Upgrade(endpoint.authority, endpoint.target, headers)
        self._outlet.write(self._upgrade.request)
        self.phase = Phase.UPGRADING
        self._began_at = now
        self._phase_ends_at = now + HANDSHAKE_SECONDS

    def _receive(self, now: float) -> None:
        data = None if self.link is None else self.link.receive()
        if data is None:
            return
        if not data:
            self._lose("the connection was lost", now)
            return
        if self.phase is Phase.HANGING_UP:
            # We are gone, and hear nothing.
            return
        self._reader.data += data
        if self._session is None and not self._take_answer(now):
            return
        while self.phase is not Phase.OVER:
            frame = self._reader.next_frame()
            if frame is None:
                return
            self._take(*frame, now)

    def _take_answer(self, now: float) -> bool:
        """Take the answer to the upgrade, and open the session; False if not yet."""
        if self._upgrade is None or not self._upgrade.take_answer(self._reader.data):
            return False
        self._exchange.figures.times["upgraded"].add(now - self._began_at)
        self._session = ClientSession(self._ids, STEREO, now=now)
        self._session.open(now=now)
        self.phase = Phase.TALKING
        return True

    def _take(self, opcode: Opcode, payload: bytes, now: float) -> None:
        if self._session is None or self._outlet is None:
            return
        if opcode is Opcode.TEXT:
            try:
                text = payload.decode()
            except UnicodeDecodeError as error:
                raise BadFrameError("text that is not UTF-8") from error
            self._session.receive_text(text, now=now)
            self._note_gap(GapKind.PAUSED)
        elif opcode is Opcode.BINARY:
            self._session.receive_binary(len(payload), now=now)
        elif opcode is Opcode.PING:
            self._outlet.write(masked_frame(Opcode.PONG, payload))
        elif opcode is Opcode.CLOSE:
            code = int.from_bytes(payload[:_CLOSE_CODE_BYTES], "big")
            self._lose(f"WebSocket closed with code {code}", now)

    def _leave(self, now: float) -> None:
        """Close the WebSocket, without a code, as Genesys does."""
        if self._outlet is not None:
            self._outlet.write(masked_frame(Opcode.CLOSE, b""))
        self.phase = Phase.LEAVING
        self._phase_ends_at = now + GOODBYE_SECONDS

    # The session.

    def _keep_time(self, now: float) -> None:
        if now < self.deadline:
            return
        session = self._session
        if self.phase is Phase.CONNECTING:
            text = f"no connection within {CONNECT_SECONDS:g} s"
            self._breach(Rule.REACHABLE, text, now)
            self._finish()
        elif session is None:
            text = f"no answer to the upgrade within {HANDSHAKE_SECONDS:g} s"
            self._breach(Rule.UPGRADE, text, now)
            self._finish()
        elif self.phase is Phase.LINGERING:
            self._leave(now)
        elif self.phase is Phase.LEAVING:
            session.receive_no_end(now=now)
            self._finish()
        elif self.phase is Phase.HANGING_UP:
            self._finish()
        else:
            if now >= self._rest_ends_at:
                self._end_rest(session, now)
            session.handle_timeout(now=now)
        self._advance(now)

    def _advance(self, now: float) -> None:
        """Do what can be done now, and send what is to be sent."""
        session, outlet, link = self._session, self._outlet, self.link
        if outlet is None or link is None or self.phase is Phase.OVER:
            return
        if session is not None and self.phase is Phase.TALKING:
            self._conduct(session, outlet, now)
            while (message := session.next_to_send()) is not None:
                is_text = isinstance(message, str)
                data = message.encode() if isinstance(message, str) else message
                opcode = Opcode.TEXT if is_text else Opcode.BINARY
                outlet.write(masked_frame(opcode, data))
        is_sent = link.flush(outlet)
        if session is None:
            return
        if self.phase is Phase.HANGING_UP:
            if is_sent and not self._has_gone:
                self._has_gone = True
                link.shut_down()
        elif session.state is State.ENDED:
            self._finish()
        elif session.state is State.CLOSED and self.phase is Phase.TALKING:
            self.phase = Phase.LINGERING
            self._phase_ends_at = now + LINGER_SECONDS
            self._closed_at = time.time()

    def _conduct(
        self, session: ClientSession, outlet: Outlet[Caller], now: float
    ) -> None:
        """Go on with the script as far as the session lets it."""
        if session.state is State.OPEN and not self._is_open:
            self._take_up(session, now)
        while session.state is State.OPEN and self._rest_ends_at == math.inf:
            if session.media is not None and not session.is_streaming:
                # The server pauses.
                self._left += outlet.hold()
                self._was_held = True
                return
            if outlet.left:
                return
            if self._left:
                self._play(outlet, now)
                return
            self._do_step(session, now)
        if session.state is not State.OPEN:
            outlet.hold()

    def _take_up(self, session: ClientSession, now: float) -> None:
        """The session is open: begin to talk."""
        self._is_open = True
        options = self._exchange.options
        self._exchange.on_opened()
        self._stream_at = now + (self._script.phase - 1) * options.frame_seconds
        if session.media is not None:
            self._channels = len(session.media.channels)
            self._frame_bytes = options.frame_bytes * self._channels // MAX_CHANNELS
        elif self._script.ending is not Ending.PROBED:
            # The server wants no audio: the call takes its time all the same.
            self._steps.clear()
            self._rest_ends_at = now + self._script.frames * options.frame_seconds

    def _play(self, outlet: Outlet[Caller], now: float) -> None:
        interval = self._exchange.options.frame_seconds
        if self._was_held:
            self._was_held = False
            self._stream_at = now
        outlet.play(self._stream_at + interval, interval, self._left, self._frame_bytes)
        self._stream_at += self._left * interval
        self._left = 0

    def _do_step(self, session: ClientSession, now: float) -> None:
        options = self._exchange.options
        if not self._steps:
            if self._ends_at is not None and now < self._ends_at:
                self._rest_ends_at = self._ends_at
            else:
                self._end_talk(session, now)
            return
        step = self._steps.popleft()
        if isinstance(step, Talk):
            self._left = step.frames
            if self._ends_at is not None and not self._steps:
                room = (self._ends_at - self._stream_at) / options.frame_seconds
                self._left = max(1, math.floor(room))
            return
        self._rest = step
        self._stream_at += step.length_samples / SAMPLE_RATE_HZ / options.speed
        self._rest_ends_at = self._stream_at
        if isinstance(step, Pause):
            session.begin_pause(step.length_samples, now=now)

    def _end_rest(self, session: ClientSession, now: float) -> None:
        """A gap is over, or whatever else was waited for."""
        rest, self._rest = self._rest, None
        self._rest_ends_at = math.inf
        if session.state is not State.OPEN:
            return
        if isinstance(rest, Pause):
            session.end_pause(now=now)
            self._note_gap(GapKind.PAUSED)
        elif isinstance(rest, Discard):
            session.discard(rest.length_samples, now=now)
            self._note_gap(GapKind.DISCARDED)
        else:
            self._ends_at = None

    def _end_talk(self, session: ClientSession, now: float) -> None:
        self._exchange.on_closing()
        if self._script.ending is Ending.HUNG_UP:
            session.abandon()
            self.phase = Phase.HANGING_UP
            self._phase_ends_at = now + GOODBYE_SECONDS
            return
        if self._script.ending is Ending.PROBED and session.is_streaming:
            session.send_audio(b"")
        session.close(CloseReason.END, now=now)

    # Accounts.

    def _count_audio(self) -> None:
        """Tell the session what the metronome has sent."""
        session, outlet = self._session, self._outlet
        if session is None or outlet is None or outlet.frames == self._counted_frames:
            return
        frames = outlet.frames - self._counted_frames
        self._counted_frames += frames
        samples = frames * self._frame_bytes // self._channels
        self._audio_samples += samples
        session.position_samples += samples
        session.samples_sent += samples
        session.frames_sent += frames
        session.bytes_sent += frames * self._frame_bytes

    def _note_gap(self, kind: GapKind) -> None:
        """Note by how much the session has moved on without audio."""
        if self._session is None:
            return
        passed = self._session.position_samples - self._audio_samples
        if passed > self._gap_samples:
            self._gaps.append(
                SentGap(kind, self._audio_samples, passed - self._gap_samples)
            )
            self._gap_samples = passed

    def _finish(self) -> None:
        if self.phase is Phase.OVER:
            return
        self._count_audio()
        self.phase = Phase.OVER
        if self._outlet is not None:
            self._audio_bytes = self._outlet.audio_bytes
            self._exchange.metronome.remove(self._outlet)
            self._outlet = None
        if self.link is not None:
            self.link.close()
            self.link = None
        self._sum_up()

    def _sum_up(self) -> None:
        figures, session = self._exchange.figures, self._session
        breaches = self.breaches
        if breaches:
            first = breaches[0]
            text = f"session {self._ids.session_id}: {first.text}"
            figures.add_failure(first.rule, text)
        figures.endings[FAILED if breaches else self._script.ending] += 1
        figures.audio_bytes += self._audio_bytes
        if session is None:
            return
        times = figures.times
        if session.opened_latency is not None:
            times["opened"].add(session.opened_latency)
        times["pong"].add_all(session.pong_latencies)
        if session.closed_latency is not None:
            times["closed"].add(session.closed_latency)


def _words(error: OSError) -> str:
    """Say what failed, on one line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{error.verify_message} (see --ca-file and --insecure)"
    if isinstance(error, ssl.SSLError) and error.reason:
        return f"TLS: {error.reason.replace('_', ' ').lower()}"
    return (os.strerror(error.errno) if error.errno else str(error)).lower()
