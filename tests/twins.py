"""The same bytes for two sessions: one answers pings in the sweep, one never does.

Whatever comes, in whatever order and pieces, and whatever is asked of them in
between, both must have said the same, told of the same, and remember the same.
"""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Self

from audiohook._divert import Fleet, Lane
from audiohook.protocol.events import CloseReceived
from audiohook.protocol.messages import DisconnectReason
from audiohook.protocol.state import State
from audiohook.protocol.timeline import SAMPLE_RATE_HZ, format_duration
from tests.protocol.insides import insides
from tests.protocol.peer import SESSION, at
from tests.reference_frames import BINARY, PING, TEXT, Reader, frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from audiohook.protocol.events import SessionEvent
    from audiohook.protocol.session import Session
    from tests.fuzz.bytes_reader import BytesReader

CHANNELS = 2
MASK = b"\x12\x34\x56\x78"
# Small, so that audio is dropped now and then.
AUDIO_LIMIT_BYTES = 40_000
MESSAGE_BYTES = 8_000


def texts_in(data: bytes) -> Iterator[str]:
    """Parts what a server has sent into its messages; there may be nothing else."""
    at_byte = 0
    while at_byte < len(data):
        assert data[at_byte] == 0x81
        length, start = data[at_byte + 1], at_byte + 2
        if length == 126:
            length, start = int.from_bytes(data[start : start + 2]), start + 2
        assert length < 126 or start > at_byte + 2
        text = data[start : start + length]
        assert len(text) == length
        yield text.decode()
        at_byte = start + length


class Side:
    """A session behind a lane, looked after as the stream and the call do it."""

    def __init__(self, stack: ExitStack, *, short: bool) -> None:
        self.session: Session = at(State.OPEN).session
        self.client, server = socket.socketpair()
        stack.enter_context(self.client)
        stack.enter_context(server)
        self.client.setblocking(False)
        self.fleet = Fleet()
        # A disk that hangs: what does not fit is dropped.
        self.fleet.patient = False
        self.lane = Lane(
            server.fileno(),
            max_message_bytes=MESSAGE_BYTES,
            audio_limit_bytes=AUDIO_LIMIT_BYTES,
        )
        self.lane.start_frames(0)
        self.lane.keep(CHANNELS)
        self.fleet.add(self.lane)
        if short:
            self.lane.hearer = self.session
        self.short = short
        self.reader = Reader()
        self.said: list[str] = []
        self.events: list[SessionEvent] = []
        self.listen()

    def listen(self) -> None:
        if self.short:
            self.session.listen()

    def arrive(self, data: bytes, now: float) -> None:
        """Takes in what a client sends, in one sweep."""
        self.client.sendall(data)
        self.fleet.sweep(now)
        with suppress(BlockingIOError):
            self.said += texts_in(self.client.recv(65_536))
        if self.short:
            self.hear(now)
        while data := self.lane.take(65_536):
            for item in self.reader.feed(data):
                if isinstance(item, str):
                    self.note_drops()
                    mark = self.lane.pop_mark()
                    self.take(
                        self.session.receive_text(item, now=now, audio_bytes=mark)
                    )
                elif isinstance(item, bytes):
                    self.take(self.session.receive_binary(len(item), now=now))
        self.listen()

    def hear(self, now: float) -> None:
        text = self.lane.peek_text()
        if text is None:
            return
        self.note_drops()
        mark = self.lane.next_mark
        events = self.session.receive_ping(text, now=now, audio_bytes=mark)
        if events is not None:
            self.lane.drop_text()
            self.take(events)

    def note_drops(self) -> None:
        for before, dropped in self.lane.take_drops():
            self.session.add_lost(before // CHANNELS, dropped // CHANNELS)

    def take(self, events: list[SessionEvent]) -> None:
        self.events += events
        for event in events:
            if isinstance(event, CloseReceived):
                self.session.closed()
        self.said += self.session.data_to_send()

    def do(self, what: Callable[[Session], object]) -> None:
        what(self.session)
        self.said += self.session.data_to_send()
        self.listen()


class Twins:
    """Both, and a client that numbers its messages and knows where it stands."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.now = 100.0
        self.seq = 1
        self.position_samples = 0
        self.long = Side(self._stack, short=False)
        self.short = Side(self._stack, short=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def answered(self) -> int:
        """Pings that were answered in a sweep."""
        assert self.long.fleet.answered == 0
        return self.short.fleet.answered

    def arrive(self, data: bytes) -> None:
        for side in (self.long, self.short):
            side.arrive(data, self.now)
        self.compare()

    def do(self, what: Callable[[Session], object]) -> None:
        for side in (self.long, self.short):
            side.do(what)
        self.compare()

    def compare(self) -> None:
        long, short = self.long, self.short
        assert short.said == long.said
        assert short.events == long.events
        assert insides(short.session) == insides(long.session)
        for name in ("audio_bytes", "dropped_bytes", "messages", "error", "eof"):
            assert getattr(short.lane, name) == getattr(long.lane, name)

    # What a client says.

    def message(self, kind: str, **changes: object) -> bytes:
        """Returns the frame of its next message."""
        self.seq += 1
        message = {
            "version": "2",
            "id": SESSION,
            "type": kind,
            "seq": self.seq,
            # ``opened`` was the first.
            "serverseq": 1 + len(self.long.said),
            "position": format_duration(self.position_samples),
            "parameters": {},
            **changes,
        }
        return frame(TEXT, json.dumps(message).encode(), mask=MASK)

    def audio(self, samples: int) -> bytes:
        """Returns a frame of audio."""
        self.position_samples += samples
        return frame(BINARY, bytes(samples * CHANNELS), mask=MASK)


class Driver:
    """Has twins live through what some bytes say."""

    def __init__(self, twins: Twins, source: BytesReader) -> None:
        self.twins = twins
        self.source = source

    def run(self) -> None:
        steps = (
            *[self.send_ping] * 4,
            *[self.send_audio_and_ping] * 2,
            self.send_audio,
            self.send_ping_and_more,
            self.send_ping_in_two,
            self.send_odd_ping,
            self.talk,
            self.be_asked,
            self.wait,
            self.time_out,
            self.send_ping_while_something_is_sent,
            self.drop_audio,
        )
        while self.source.left:
            steps[self.source.byte() % len(steps)]()

    def send_ping(self) -> None:
        self.send(self.ping())

    def send_audio_and_ping(self) -> None:
        self.send(self.audio() + self.ping())

    def send_audio(self) -> None:
        self.twins.arrive(self.audio())

    def send_ping_and_more(self) -> None:
        more = (self.ping, self.audio, self.control)[self.source.byte() % 3]
        self.send(self.ping() + more())

    def send_ping_in_two(self) -> None:
        data = self.ping()
        cut = self.source.byte() % len(data)
        self.twins.arrive(data[:cut])
        self.twins.arrive(data[cut:])

    def wait(self) -> None:
        self.twins.now += self.source.byte() / 8

    def send(self, data: bytes) -> None:
        self.twins.now += self.source.byte() / 64
        self.twins.arrive(data)

    def ping(self) -> bytes:
        choice = self.source.byte()
        if choice < 200:
            rtt = {"rtt": "PT0.05S"} if choice % 2 else {}
            return self.twins.message("ping", parameters=rtt)
        # A position that is off: by hardly a second, and by hardly more.
        off = (choice - 228) * 400 + (choice % 5 - 2)
        samples = max(0, self.twins.position_samples + off)
        position = f"PT{samples / SAMPLE_RATE_HZ:.{choice % 13}f}S"
        return self.twins.message("ping", position=position)

    def send_odd_ping(self) -> None:
        source, twins = self.source, self.twins
        odd: list[dict[str, object]] = [
            {"serverseq": 0},
            {"serverseq": len(twins.long.said) + 2},
            {"seq": twins.seq + 1 + source.byte() % 3},
            {"id": SESSION.upper()},
            {"position": "PT999999999999999S"},
            {"position": "PT.5S"},
            {"parameters": {"rtt": "x" * 600}},
            {"more": None},
        ]
        self.send(twins.message("ping", **odd[source.byte() % len(odd)]))

    def audio(self) -> bytes:
        return self.twins.audio(self.source.byte() * 16)

    def control(self) -> bytes:
        return frame(PING, b"?", mask=MASK)

    def talk(self) -> None:
        twins, choice = self.twins, self.source.byte()
        lost: dict[str, object] = {
            "start": "PT0S",
            "discarded": format_duration(choice * 40),
        }
        kinds: list[tuple[str, dict[str, object]]] = [
            ("paused", {}),
            ("resumed", lost),
            ("discarded", lost),
            ("update", {"language": "de-DE"}),
            ("error", {"code": 500, "message": "oops"}),
            ("unheard", {}),
        ]
        if choice == 255:
            twins.arrive(twins.message("close", parameters={"reason": "end"}))
            return
        kind, parameters = kinds[choice % len(kinds)]
        if "discarded" in parameters and choice % 4:
            twins.position_samples += choice * 40
        twins.arrive(twins.message(kind, parameters=parameters))

    def be_asked(self) -> None:
        twins, choice = self.twins, self.source.byte()
        now = twins.now
        if choice == 255:
            twins.do(lambda s: s.disconnect(DisconnectReason.COMPLETED, now=now))
        elif choice % 2:
            twins.do(lambda s: s.pause(now=now))
        else:
            twins.do(lambda s: s.resume(now=now))

    def time_out(self) -> None:
        twins = self.twins
        now = twins.now
        # Everybody is asked now and then; few have waited for too long.
        for side in (twins.long, twins.short):
            audio_bytes = side.lane.audio_bytes
            side.take(side.session.handle_timeout(now=now, audio_bytes=audio_bytes))
            side.listen()
        twins.compare()

    def send_ping_while_something_is_sent(self) -> None:
        twins, data = self.twins, self.ping()
        twins.short.lane.sending = True
        answered = twins.answered
        twins.arrive(data)
        assert twins.answered == answered
        twins.short.lane.sending = False

    def drop_audio(self) -> None:
        """More audio than fits, and a ping behind it."""
        twins = self.twins
        for _ in range(8):
            twins.arrive(twins.audio(3_000))
        self.send(self.ping())
