"""What comes over the wire, fed with anything: each function takes any bytes.

What a function lets escape is a finding. Expected refusals are caught here, and what
is not refused is held against what the rest of the house relies on.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

import pytest

from audiohook.authentication import Authenticator
from audiohook.errors import AuthenticationError, RemoteProtocolError
from audiohook.ingest.http import parse_head, receive_body
from audiohook.ingest.proxy_header import (
    FIXED_BYTES,
    MOST_BYTES,
    read_fixed,
    read_source,
)
from audiohook.keys import KeyRecord
from audiohook.networks import Networks, client_of
from audiohook.protocol.events import (
    CloseReceived,
    Ended,
    OpenReceived,
    TimedOut,
    Violation,
)
from audiohook.protocol.facts import GAP_ALLOWANCE_S
from audiohook.protocol.messages import (
    DisconnectReason,
    Open,
    canonical_uuid,
    negotiate,
    parse_client_message,
    parse_server_message,
)
from audiohook.protocol.session import Session
from audiohook.protocol.signature import Refusal
from audiohook.protocol.state import State
from audiohook.protocol.timeline import SAMPLE_RATE_HZ
from audiohook.protocol.wire import Fault
from tests.fuzz.bytes_reader import BytesReader
from tests.reference_frames import read_diverted, read_plainly
from tests.twins import Driver, Twins

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from audiohook.ingest.stream import DivertedStream
    from audiohook.protocol.events import SessionEvent

SESSION = "22222222-2222-4222-8222-222222222222"
ORGANIZATION = "11111111-1111-4111-8111-111111111111"
FREE_KEY = "free-key"
SIGNED_KEY = "signed-key"
SECRET = b"known to the tests and the server"
NOW = 1_764_000_000.0

_MOST_BODY_BYTES = 16 * 1024
_LINE_BREAKERS = frozenset(b"\r\n\0")


class _Bytes:
    """A stream that gives bytes in pieces, and takes whatever is sent."""

    def __init__(self, data: bytes, piece_bytes: int) -> None:
        self._data = data
        self._piece_bytes = piece_bytes

    async def receive_some(self) -> bytes:
        piece = self._data[: self._piece_bytes]
        self._data = self._data[self._piece_bytes :]
        return piece

    async def send_all(self, data: bytes) -> None:
        assert data.startswith(b"HTTP/1.1 100 ")


def proxy_header(data: bytes) -> None:
    """Reads a header of the PROXY protocol, however long it says it is."""
    try:
        fixed = read_fixed(data[:FIXED_BYTES])
        assert fixed.rest_bytes <= MOST_BYTES
        rest = data[FIXED_BYTES : FIXED_BYTES + fixed.rest_bytes]
        source = read_source(fixed, rest)
    except RemoteProtocolError:
        return
    if source is not None:
        assert not fixed.is_local
        assert source.packed in rest[:16]
    client = client_of([data[FIXED_BYTES:]], Networks([]))
    assert client is None or str(client).isascii()


def http_head(data: bytes) -> None:
    """Reads a request: its head, and then the same bytes with their body."""
    piece_bytes = 1 + data[0] if data else 1
    request = data[1:]
    head_bytes = request.find(b"\r\n\r\n") + 4
    if head_bytes >= 4:
        try:
            head = parse_head(request[:head_bytes])
        except RemoteProtocolError:
            pass
        else:
            for part in (head.method, head.target, *sum(head.headers, ())):
                assert not _LINE_BREAKERS & set(part)
            assert b" " not in head.target
            assert head.target.startswith(head.path)
            if head.asks_for_websocket:
                assert head.version == b"1.1"
                fault = head.upgrade_fault
                assert fault is None or fault.status in (400, 426)
    stream = cast("DivertedStream", _Bytes(request, piece_bytes))
    try:
        body = _run(receive_body(stream, _MOST_BODY_BYTES))
    except RemoteProtocolError:
        return
    assert body is None or len(body) <= _MOST_BODY_BYTES


def _run(coroutine: Coroutine[object, object, bytes | None]) -> bytes | None:
    """Runs what never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return cast("bytes | None", stop.value)
    raise AssertionError("it waits")


def signature(data: bytes) -> None:
    """Judges a request: a target, then header lines that are laid over good ones."""
    target, *lines = data.split(b"\n")
    headers = [
        (b"Host", b"audiohook.example.com"),
        (b"X-API-KEY", SIGNED_KEY.encode()),
        (b"Audiohook-Organization-Id", ORGANIZATION.encode()),
        (b"Audiohook-Session-Id", SESSION.encode()),
        (b"Audiohook-Correlation-Id", SESSION.encode()),
    ]
    for line in lines:
        name, _, value = line.partition(b":")
        # Those before the one that is named again are replaced, as repeated ones
        # are joined.
        if name.startswith(b"="):
            name = name[1:]
            headers = [each for each in headers if each[0].lower() != name.lower()]
        headers.append((name, value))
    authenticator = Authenticator(
        {FREE_KEY: KeyRecord(), SIGNED_KEY: KeyRecord.of(SECRET)}
    )
    try:
        credentials = authenticator.authenticate(headers, target, now=NOW)
    except AuthenticationError as error:
        _check_refusal(error)
        return
    ids = (
        credentials.session_id,
        credentials.organization_id,
        credentials.correlation_id,
    )
    assert all(canonical_uuid(each) == each for each in ids)
    signed = any(name.lower() == b"signature" for name, _ in headers)
    if signed:
        with pytest.raises(AuthenticationError) as raised:
            authenticator.authenticate(headers, target, now=NOW)
        assert raised.value.reason == Refusal.REPLAYED


def _check_refusal(error: AuthenticationError) -> None:
    assert error.reason in set(Refusal)
    assert error.http_status in (400, 401)


def messages(data: bytes) -> None:
    """Reads a text frame, as a message of either side."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        message = parse_client_message(text)
    except RemoteProtocolError as error:
        _check_fault(error)
    else:
        again = parse_client_message(message.to_text())
        assert again.to_text() == message.to_text()
        message.to_text().encode()
        if isinstance(message, Open):
            json.dumps(message.parameters.custom_config, allow_nan=False)
            chosen = negotiate(message.parameters.media)
            assert chosen is None or chosen in message.parameters.media
    try:
        answer = parse_server_message(text)
    except RemoteProtocolError:
        return
    assert parse_server_message(answer.to_text()) == answer


def _check_fault(error: RemoteProtocolError) -> None:
    assert error.info in set(Fault)


def frames(data: bytes) -> None:
    """Reads frames with and without the diverter; both must say the same."""
    cuts, stream = data[:3], data[3:]
    chunks, start = [], 0
    for cut in cuts:
        chunks.append(stream[start : start + cut])
        start += cut
    chunks.append(stream[start:])
    plain, diverted = read_plainly(chunks), read_diverted(chunks)
    assert plain == diverted, (plain, diverted)


_WORDS = (
    b"open",
    b"ping",
    b"close",
    b"paused",
    b"resumed",
    b"discarded",
    b"update",
    b"error",
    b"other",
)
_DURATIONS = ("PT0S", "PT1.5S", "PT9999999999S", "PT.5S", "PT0.0000001S", "", "PT1H")


class _Client:
    """Drives a session as the bytes say, and checks what comes of it."""

    def __init__(self, source: BytesReader) -> None:
        self.source = source
        self.now = 0.0
        self.audio_bytes = 0
        self.session = Session(
            session_id=SESSION, organization_id=ORGANIZATION, now=self.now
        )
        self.seq = 0
        self.heard = 0
        self.disconnects = 0
        self.said_closed = False
        self.asked_to_close = False

    def run(self) -> None:
        while self.source.left:
            self.step(self.source.byte())
            self.hear()
        self.check(self.session.receive_end(now=self.now))
        assert self.session.state is State.ENDED
        assert self.session.data_to_send() == []

    def step(self, choice: int) -> None:
        session = self.session
        self.now += (choice >> 4) * 0.7
        match choice & 15:
            case 0 | 1:
                text = self.source.block().decode(errors="replace")
                self.take(text)
            case 2 | 3 | 4 | 5 | 6 | 7 | 8:
                self.take(self.envelope(_WORDS[self.source.byte() % len(_WORDS)]))
            case 9:
                length = self.source.byte() * 257
                self.check(session.receive_binary(length, now=self.now))
            case 10:
                self.audio_bytes += self.source.byte() * 100
            case 11:
                self.now += self.source.byte()
                events = session.handle_timeout(
                    now=self.now, audio_bytes=self.audio_bytes
                )
                self.check(events)
            case 12:
                session.disconnect(DisconnectReason.COMPLETED, "goodbye", now=self.now)
            case 13:
                self.check(session.receive_end(now=self.now))
            case _:
                text = self.envelope(b"ping")
                if (
                    session.receive_ping(
                        text, now=self.now, audio_bytes=self.audio_bytes
                    )
                    is None
                ):
                    self.take(text)

    def envelope(self, kind: bytes) -> str:
        source = self.source
        self.seq += 1
        if source.byte() > 250:
            self.seq += source.byte() - 128
        value = {
            "version": "2",
            "id": SESSION.upper() if source.byte() > 240 else SESSION,
            "type": kind.decode(),
            "seq": self.seq,
            "serverseq": self.heard,
            "position": _DURATIONS[source.byte() % len(_DURATIONS)],
            "parameters": self.parameters(kind),
        }
        return json.dumps(value)

    def parameters(self, kind: bytes) -> object:
        source = self.source
        if source.byte() > 230:
            try:
                return json.loads(source.block())
            except (ValueError, RecursionError):
                return None
        if kind == b"open":
            channels: list[str] = ["external", "internal"]
            audio = {
                "type": "audio",
                "format": "PCMU",
                "rate": 8000,
                "channels": channels[source.byte() % 2 :],
            }
            return {
                "organizationId": ORGANIZATION,
                "conversationId": SESSION,
                "media": [audio][source.byte() // 200 :],
            }
        if kind in (b"resumed", b"discarded"):
            words = (_DURATIONS[source.byte() % len(_DURATIONS)] for _ in range(2))
            return dict(zip(("start", "discarded"), words, strict=True))
        return {}

    def take(self, text: str) -> None:
        self.check(
            self.session.receive_text(text, now=self.now, audio_bytes=self.audio_bytes)
        )

    def check(self, events: list[SessionEvent]) -> None:
        session = self.session
        for event in events:
            match event:
                case OpenReceived():
                    media = event.media if self.source.byte() < 240 else None
                    session.accept(media, now=self.now)
                case CloseReceived():
                    assert not self.asked_to_close
                    self.asked_to_close = True
                    session.closed(now=self.now)
                case TimedOut() | Ended():
                    assert session.state is State.ENDED
                case Violation(info):
                    assert len(info) < 100
                case _:
                    pass
        room = (self.now + GAP_ALLOWANCE_S) * SAMPLE_RATE_HZ
        assert session.timeline.gap_samples <= room

    def hear(self) -> None:
        for text in self.session.data_to_send():
            assert not self.said_closed
            answer = parse_server_message(text)
            self.heard += 1
            assert answer.seq == self.heard
            if answer.type == "disconnect":
                self.disconnects += 1
                assert self.disconnects == 1
            self.said_closed = answer.type == "closed"


def session(data: bytes) -> None:
    """Drives a session through anything, in any order."""
    _Client(BytesReader(data)).run()


def pings(data: bytes) -> None:
    """Has a session answer pings in the sweep, beside one that never does."""
    with Twins() as twins:
        Driver(twins, BytesReader(data)).run()
