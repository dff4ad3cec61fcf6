"""Many simulated calls in real time from one process, for measuring a server.

    python -m bench.load ws://127.0.0.1:3000/ --calls 1000 --duration 60

It is as lean as plain Python allows: raw sockets, one epoll loop, frames made of
two prepared integers. It measures its own lateness and fails if it fell behind,
since a generator that is slow makes any server look good.

The audio says what it is: each group of 8 bytes holds the number of the call and
the number of the group, both 32 bits, big-endian. So a recording can be checked
to the byte afterwards (``--verify``). The protocol is checked only as far as it
shows whether a call worked; `audiohook.simulator` is there for the letter of it.
"""

from __future__ import annotations

import argparse
import errno
import functools
import gc
import heapq
import json
import os
import resource
import secrets
import select
import socket
import struct
import sys
import time
import uuid
from array import array
from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum, auto
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from audiohook.protocol.timeline import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

GROUP = struct.Struct(">II")
CHANNELS = 2
MAX_FRAME_BYTES = 64_000

CONNECT_SECONDS = 10.0
OPENED_SECONDS = 5.0
PING_SECONDS = 5.0
CLOSED_SECONDS = 10.0
GOODBYE_SECONDS = 5.0
# Later than this for one frame in a hundred, and the load is not what it says.
MAX_LAG_P99 = 0.1
STORE_SECONDS = 60.0

_TEXT, _BINARY, _CLOSE, _PING, _PONG = 1, 2, 8, 9, 10
_RECEIVE_BYTES = 65_536
# Values of the length that announce a longer field; a server's message needs the
# first at most.
_LONG_16, _LONG_64 = 126, 127


# Audio that says what it is.


@functools.lru_cache(maxsize=4096)
def _counters(frame_bytes: int, frame: int) -> int:
    """Make one frame with the numbers of its groups alone, as a big integer."""
    count = frame_bytes // GROUP.size
    first = frame * count
    groups = (GROUP.pack(0, number) for number in range(first, first + count))
    return int.from_bytes(b"".join(groups), "big")


def _stamp(frame_bytes: int, call: int, mask: bytes = b"\0\0\0\0") -> int:
    """Make what turns `_counters` into a call's audio, masked, by XOR."""
    group = int.from_bytes(GROUP.pack(call, 0), "big")
    group ^= int.from_bytes(mask * 2, "big")
    return int.from_bytes(
        group.to_bytes(GROUP.size, "big") * (frame_bytes // GROUP.size), "big"
    )


def audio_of(frame_bytes: int, call: int, frame: int) -> bytes:
    """Make one frame of a call's audio, unmasked.

    Args:
        frame_bytes: Bytes of a frame, a multiple of 8.
        call: Number of the call.
        frame: Number of the frame, from 0.
    """
    value = _counters(frame_bytes, frame) ^ _stamp(frame_bytes, call)
    return value.to_bytes(frame_bytes, "big")


# Framing, RFC 6455 section 5.2, as a client sends it.


def frame_header(opcode: int, length_bytes: int, mask: bytes) -> bytes:
    """Make the header of an unfragmented, masked frame."""
    if length_bytes < _LONG_16:
        return bytes([0x80 | opcode, 0x80 | length_bytes]) + mask
    return struct.pack(">BBH", 0x80 | opcode, 0x80 | _LONG_16, length_bytes) + mask


def masked_frame(opcode: int, payload: bytes) -> bytes:
    """Make a whole frame with a random mask; for the few that are not audio."""
    mask = secrets.token_bytes(4)
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    value = int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")
    body = value.to_bytes(len(payload), "big")
    return frame_header(opcode, len(payload), mask) + body


def take_frames(buffer: bytearray) -> list[tuple[int, bytes]]:
    """Cut whole frames of a server off the front of what was received.

    Args:
        buffer: Received bytes; what is left over stays in it.

    Returns:
        Opcode and payload of each frame.

    Raises:
        ValueError: A frame is fragmented, masked, or longer than any message.
    """
    frames = []
    start = 0
    while len(buffer) - start >= 2:
        first, length = buffer[start], buffer[start + 1]
        body = start + 2
        if length == _LONG_16:
            body += 2
            if len(buffer) < body:
                break
            (length,) = struct.unpack_from(">H", buffer, start + 2)
        elif length >= _LONG_64 or not first & 0x80:
            raise ValueError("a frame that no AudioHook server sends")
        if len(buffer) < body + length:
            break
        frames.append((first & 0x0F, bytes(buffer[body : body + length])))
        start = body + length
    del buffer[:start]
    return frames


# One call.


class Phase(IntEnum):
    """How far a call has come."""

    WAITING = auto()
    CONNECTING = auto()
    UPGRADING = auto()
    OPENING = auto()
    STREAMING = auto()
    CLOSING = auto()
    LEAVING = auto()
    OVER = auto()


class Due(IntEnum):
    """What an entry of the agenda is for."""

    START = auto()
    FRAME = auto()
    PING = auto()
    TIMEOUT = auto()


@dataclass(slots=True)
class Call:
    """One simulated call.

    Attributes:
        number: Its number, which is in its audio.
        phase: How far it has come.
        failure: What went wrong, empty if nothing.
        frames: Frames of audio sent.
    """

    number: int
    phase: Phase = Phase.WAITING
    failure: str = ""
    frames: int = 0
    session_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    conversation_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    sock: socket.socket | None = None
    incoming: bytearray = field(default_factory=bytearray)
    outgoing: bytearray = field(default_factory=bytearray)
    wants_write: bool = False
    header: bytes = b""
    stamp: int = 0
    seq: int = 0
    serverseq: int = 0
    ping_seq: int = 0
    asked_at: float = 0.0
    pinged_at: float = 0.0
    first_frame_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """What to put on the server.

    Attributes:
        uri: A ``ws://`` URI.
        calls: Number of calls at once.
        duration: Seconds of audio of each.
        ramp: Seconds over which they begin.
        frame_bytes: Bytes of a stereo frame, a multiple of 8.
        rate: Frames a second.
        api_key: Value of ``X-API-KEY``, empty for none.
    """

    uri: str
    calls: int
    duration: float
    ramp: float
    frame_bytes: int
    rate: float
    api_key: str


class Load:
    """All calls and the loop that drives them.

    Args:
        options: What to do.

    Raises:
        ValueError: The URI is not one of ``ws://``.
        OSError: Its host is not known.
    """

    def __init__(self, options: LoadOptions) -> None:
        parts = urlsplit(options.uri)
        if parts.scheme != "ws" or not parts.hostname:
            raise ValueError(f"{options.uri!r}: only ws:// is spoken here")
        self.options = options
        self.calls = [Call(number) for number in range(options.calls)]
        self.upgrades = array("d")
        self.openings = array("d")
        self.pings = array("d")
        self.closings = array("d")
        self.lags = array("d")
        self.bytes_sent = 0
        info = socket.getaddrinfo(
            parts.hostname, parts.port or 80, type=socket.SOCK_STREAM
        )[0]
        self._family, self._address = info[0], info[4]
        self._authority = parts.netloc
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._organization_id = str(uuid.uuid4())
        self._total_frames = max(1, round(options.duration * options.rate))
        self._agenda: list[tuple[float, int, Due, Phase]] = []
        self._epoll = select.epoll()
        self._by_fd: dict[int, Call] = {}
        self._live = options.calls
        self._opened = 0
        self._closing = False

    def run(self) -> None:
        """Make all calls; return when the last is over."""
        began_at = time.monotonic() + 0.1
        for call in self.calls:
            at = began_at + self.options.ramp * call.number / len(self.calls)
            self._plan(at, call, Due.START)
        # Nothing here is cyclic, and a collection would be a pause of its own.
        gc.disable()
        try:
            while self._live:
                self._do_what_is_due()
                self._wait()
        finally:
            gc.enable()
            self._epoll.close()

    def _plan(self, at: float, call: Call, due: Due) -> None:
        heapq.heappush(self._agenda, (at, call.number, due, call.phase))

    def _do_what_is_due(self) -> None:
        now = time.monotonic()
        agenda = self._agenda
        while agenda and agenda[0][0] <= now:
            at, number, due, phase = heapq.heappop(agenda)
            call = self.calls[number]
            # What was planned in an earlier phase no longer matters.
            if call.phase is not phase:
                continue
            try:
                if due is Due.FRAME:
                    self._send_audio(call, at)
                elif due is Due.PING:
                    self._send_ping(call, at)
                elif due is Due.START:
                    self._connect(call)
                else:
                    self._fail(call, f"timeout while {call.phase.name.lower()}")
            except OSError as error:
                self._fail(call, errno.errorcode.get(error.errno or 0, "OSError"))

    def _wait(self) -> None:
        wait = -1.0
        if self._agenda:
            wait = max(0.0, self._agenda[0][0] - time.monotonic())
        for fd, events in self._epoll.poll(wait if self._live else 0):
            call = self._by_fd.get(fd)
            if call is None:
                continue
            try:
                if events & ~select.EPOLLOUT:
                    self._receive(call)
                if events & select.EPOLLOUT and call.sock is not None:
                    self._writable(call)
            except OSError as error:
                self._fail(call, errno.errorcode.get(error.errno or 0, "OSError"))
            except ValueError as error:
                self._fail(call, str(error))

    # Connection.

    def _connect(self, call: Call) -> None:
        call.sock = sock = socket.socket(self._family)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = sock.connect_ex(self._address)
        if code not in {0, errno.EINPROGRESS}:
            raise OSError(code, os.strerror(code))
        self._by_fd[sock.fileno()] = call
        self._epoll.register(sock, select.EPOLLIN | select.EPOLLOUT)
        call.wants_write = True
        self._ask(call, Phase.CONNECTING, CONNECT_SECONDS)

    def _writable(self, call: Call) -> None:
        if call.phase is Phase.CONNECTING and call.sock is not None:
            code = call.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
            headers = {
                "Host": self._authority,
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
                "User-Agent": "GenesysCloud-AudioHook-Client",
                "Audiohook-Organization-Id": self._organization_id,
                "Audiohook-Session-Id": call.session_id,
                "Audiohook-Correlation-Id": str(uuid.uuid4()),
                "Audiohook-Retry-Attempt": "0",
            }
            if self.options.api_key:
                headers["X-API-KEY"] = self.options.api_key
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            self._ask(call, Phase.UPGRADING, CONNECT_SECONDS)
            self._send(
                call, f"GET {self._target} HTTP/1.1\r\n{lines}\r\n".encode("ascii")
            )
        self._flush(call)

    def _send(self, call: Call, data: bytes) -> None:
        if call.sock is None:
            return
        if not call.outgoing:
            try:
                sent = call.sock.send(data)
            except BlockingIOError:
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        call.outgoing += data
        if not call.wants_write:
            call.wants_write = True
            self._epoll.modify(call.sock, select.EPOLLIN | select.EPOLLOUT)

    def _flush(self, call: Call) -> None:
        if call.sock is None:
            return
        if call.outgoing:
            try:
                del call.outgoing[: call.sock.send(call.outgoing)]
            except BlockingIOError:
                return
        if not call.outgoing and call.wants_write:
            call.wants_write = False
            self._epoll.modify(call.sock, select.EPOLLIN)

    def _receive(self, call: Call) -> None:
        if call.sock is None:
            return
        try:
            data = call.sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        if not data:
            if call.phase is Phase.LEAVING:
                self._end(call)
            else:
                self._fail(call, f"connection ended while {call.phase.name.lower()}")
            return
        call.incoming += data
        if call.phase is Phase.UPGRADING:
            self._take_head(call)
        if call.phase > Phase.UPGRADING:
            for opcode, payload in take_frames(call.incoming):
                self._take_frame(call, opcode, payload)

    def _take_head(self, call: Call) -> None:
        head, end, rest = bytes(call.incoming).partition(b"\r\n\r\n")
        if not end:
            return
        status = head.split(maxsplit=2)[1:2]
        if status != [b"101"]:
            words = status[0].decode("latin-1") if status else "no HTTP"
            self._fail(call, f"upgrade answered with {words}")
            return
        self.upgrades.append(time.monotonic() - call.asked_at)
        call.incoming = bytearray(rest)
        self._ask(call, Phase.OPENING, OPENED_SECONDS)
        self._say(call, "open", self._open_parameters(call))

    def _take_frame(self, call: Call, opcode: int, payload: bytes) -> None:
        if opcode == _TEXT:
            self._take_text(call, payload)
        elif opcode == _PING:
            self._send(call, masked_frame(_PONG, payload))
        elif opcode == _CLOSE and call.phase is Phase.LEAVING:
            self._end(call)
        elif opcode != _PONG:
            self._fail(call, f"frame of kind {opcode} while {call.phase.name.lower()}")

    # Session.

    def _take_text(self, call: Call, payload: bytes) -> None:
        now = time.monotonic()
        try:
            message = json.loads(payload)
            kind, clientseq = message["type"], message["clientseq"]
            seq, parameters = message["seq"], dict(message["parameters"])
        except (KeyError, TypeError) as error:
            raise ValueError("a malformed message") from error
        call.serverseq += 1
        if seq != call.serverseq:
            self._fail(call, f"{kind} out of sequence")
        elif kind == "pong" and clientseq == call.ping_seq:
            call.ping_seq = 0
            self.pings.append(now - call.pinged_at)
        elif kind == "opened" and call.phase is Phase.OPENING:
            self.openings.append(now - call.asked_at)
            self._begin_streaming(call, now)
        elif kind == "closed" and call.phase is Phase.CLOSING:
            self.closings.append(now - call.asked_at)
            self._ask(call, Phase.LEAVING, GOODBYE_SECONDS)
            self._send(call, masked_frame(_CLOSE, b""))
        else:
            self._fail(call, f"{kind} {parameters.get('reason', '')}".rstrip())

    def _begin_streaming(self, call: Call, now: float) -> None:
        options = self.options
        call.phase = Phase.STREAMING
        mask = secrets.token_bytes(4)
        call.header = frame_header(_BINARY, options.frame_bytes, mask)
        call.stamp = _stamp(options.frame_bytes, call.number, mask)
        # Spread over the time between two frames, also if all began at once.
        phase = call.number / len(self.calls)
        call.first_frame_at = now + (1 + phase) / options.rate
        self._plan(call.first_frame_at, call, Due.FRAME)
        self._plan(now + 1.0, call, Due.PING)
        self._opened += 1
        if self._opened == len(self.calls):
            # For a supervisor that measures between these two lines.
            print("steady", file=sys.stderr, flush=True)

    def _send_audio(self, call: Call, at: float) -> None:
        options = self.options
        self.lags.append(time.monotonic() - at)
        body = _counters(options.frame_bytes, call.frames) ^ call.stamp
        self._send(call, call.header + body.to_bytes(options.frame_bytes, "big"))
        call.frames += 1
        self.bytes_sent += options.frame_bytes
        if call.frames < self._total_frames:
            due = call.first_frame_at + call.frames / options.rate
            self._plan(due, call, Due.FRAME)
            return
        if not self._closing:
            self._closing = True
            print("closing", file=sys.stderr, flush=True)
        self._ask(call, Phase.CLOSING, CLOSED_SECONDS)
        self._say(call, "close", {"reason": "end"})

    def _send_ping(self, call: Call, at: float) -> None:
        if call.ping_seq:
            self._fail(call, "no pong")
            return
        call.pinged_at = time.monotonic()
        rtt = self.pings[-1] if self.pings else 0.0
        self._say(call, "ping", {"rtt": f"PT{rtt:.9f}S"})
        call.ping_seq = call.seq
        self._plan(at + PING_SECONDS, call, Due.PING)

    def _say(self, call: Call, kind: str, parameters: Mapping[str, object]) -> None:
        call.seq += 1
        samples = call.frames * self.options.frame_bytes // CHANNELS
        message = {
            "version": "2",
            "id": call.session_id,
            "type": kind,
            "seq": call.seq,
            "serverseq": call.serverseq,
            "position": format_duration(samples),
            "parameters": parameters,
        }
        self._send(call, masked_frame(_TEXT, json.dumps(message).encode()))

    def _open_parameters(self, call: Call) -> dict[str, object]:
        channels = ["external", "internal"]
        audio = {"type": "audio", "format": "PCMU", "rate": 8000}
        return {
            "organizationId": self._organization_id,
            "conversationId": call.conversation_id,
            "participant": {
                "id": str(uuid.uuid4()),
                "ani": "tel:+15550100",
                "aniName": f"Load {call.number}",
                "dnis": "tel:+15550199",
            },
            "media": [
                audio | {"channels": group}
                for group in (channels, channels[:1], channels[1:])
            ],
            "language": "en-US",
        }

    def _ask(self, call: Call, phase: Phase, seconds: float) -> None:
        """Enter a phase that must be over in time."""
        call.phase = phase
        call.asked_at = time.monotonic()
        self._plan(call.asked_at + seconds, call, Due.TIMEOUT)

    def _fail(self, call: Call, failure: str) -> None:
        call.failure = call.failure or failure
        self._end(call)

    def _end(self, call: Call) -> None:
        if call.phase is Phase.OVER:
            return
        call.phase = Phase.OVER
        self._live -= 1
        if call.sock is not None:
            self._by_fd.pop(call.sock.fileno(), None)
            call.sock.close()
            call.sock = None


# What came of it.


def spread(values: Sequence[float]) -> dict[str, float]:
    """Sum latencies up, in milliseconds."""
    if not values:
        return {}
    ordered = sorted(values)
    figures = {
        name: ordered[min(len(ordered) - 1, int(len(ordered) * share))]
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))
    }
    return {name: round(value * 1000, 3) for name, value in figures.items()}


def summary(load: Load) -> dict[str, object]:
    """Sum up a load that was run."""
    failures = Counter(call.failure for call in load.calls if call.failure)
    lag = spread(load.lags)
    return {
        "calls": len(load.calls),
        "failed": failures.total(),
        "failures": dict(failures),
        "frames": sum(call.frames for call in load.calls),
        "audio_bytes": load.bytes_sent,
        "latency_ms": {
            "upgrade": spread(load.upgrades),
            "opened": spread(load.openings),
            "pong": spread(load.pings),
            "closed": spread(load.closings),
        },
        "lag_ms": lag,
        "fell_behind": lag.get("p99", 0.0) > MAX_LAG_P99 * 1000,
    }


def find_recordings(folder: Path) -> dict[str, Path]:
    """Find the raw audio of all stored calls, by conversation id."""
    return {
        path.parent.parent.name.split("_")[1]: path
        for path in (folder / "calls").glob("*_*_*/audio/*.raw")
    }


def verify(folder: Path, calls: Iterable[Call], frame_bytes: int) -> list[str]:
    """Compare what was stored with what was sent.

    Waits for recordings that are not stored yet, up to `STORE_SECONDS` in all.

    Args:
        folder: The server's ``RECORDINGS_DIR``.
        calls: Calls that were closed properly.
        frame_bytes: Bytes of a frame.

    Returns:
        One line for each recording that is missing or differs.
    """
    calls = list(calls)
    until = time.monotonic() + STORE_SECONDS
    while True:
        found = find_recordings(folder)
        missing = [call for call in calls if call.conversation_id not in found]
        if not missing or time.monotonic() > until:
            break
        time.sleep(0.5)
    faults = [f"call {call.number}: no recording" for call in missing]
    for call in calls:
        path = found.get(call.conversation_id)
        if path is not None:
            fault = _compare(path, call, frame_bytes)
            if fault:
                faults.append(f"call {call.number}: {fault} in {path}")
    return faults


def _compare(path: Path, call: Call, frame_bytes: int) -> str:
    wanted_bytes, size_bytes = call.frames * frame_bytes, path.stat().st_size
    if size_bytes != wanted_bytes:
        return f"{size_bytes} bytes instead of {wanted_bytes}"
    stamp = _stamp(frame_bytes, call.number)
    with path.open("rb") as stream:
        for frame in range(call.frames):
            expected = _counters(frame_bytes, frame) ^ stamp
            if stream.read(frame_bytes) != expected.to_bytes(frame_bytes, "big"):
                return f"other audio in frame {frame}"
    return ""


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.load", description=__doc__)
    parser.add_argument("uri")
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--duration", type=float, default=30.0, help="seconds a call")
    parser.add_argument("--ramp", type=float, default=5.0, help="seconds to begin in")
    parser.add_argument("--frame-bytes", type=int, default=1600)
    parser.add_argument("--rate", type=float, default=10.0, help="frames a second")
    parser.add_argument("--api-key", default=os.environ.get("API_KEY", ""))
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--verify", type=Path, metavar="RECORDINGS_DIR")
    arguments = parser.parse_args(argv)
    if arguments.calls < 1 or arguments.rate <= 0:
        parser.error("at least one call, and more than no frames a second")
    if not 0 < arguments.frame_bytes <= MAX_FRAME_BYTES or arguments.frame_bytes % 8:
        parser.error(f"frames have a multiple of 8 bytes, at most {MAX_FRAME_BYTES}")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run the load that the command line asks for; 0 if all went well."""
    arguments = _arguments(argv)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < arguments.calls + 32:
        print(f"only {hard} files may be open (was {soft}): ulimit -n", file=sys.stderr)
        return 1
    options = LoadOptions(
        uri=arguments.uri,
        calls=arguments.calls,
        duration=arguments.duration,
        ramp=arguments.ramp,
        frame_bytes=arguments.frame_bytes,
        rate=arguments.rate,
        api_key=arguments.api_key,
    )
    try:
        load = Load(options)
        load.run()
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    figures = summary(load)
    faults: list[str] = []
    if arguments.verify is not None:
        whole = [call for call in load.calls if not call.failure]
        faults = verify(arguments.verify, whole, options.frame_bytes)
        figures |= {"verified": len(whole) - len(faults), "faults": faults}
    text = json.dumps(figures, indent=2)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")
    print(text)
    return 1 if figures["failed"] or figures["fell_behind"] or faults else 0


if __name__ == "__main__":
    sys.exit(main())
