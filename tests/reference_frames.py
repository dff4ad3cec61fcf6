"""RFC 6455 client frames built by hand, right ones and wrong ones, and an oracle.

The oracle is wsproto, fed with the same bytes: alone, and behind a lane.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    TextMessage,
)

from audiohook._divert import Lane, batch_of
from audiohook.ingest.http import parse_head
from audiohook.ingest.stream import DivertedStream
from audiohook.ingest.websocket import JudgedConnection

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    mask: bytes | None = b"\x12\x34\x56\x78",
    rsv: int = 0,
    length_form: int | None = None,
    claimed: int | None = None,
) -> bytes:
    """Builds one frame; the keyword arguments allow every kind of wrong one.

    Args:
        opcode: 0 to 15.
        payload: As the receiver should see it.
        fin: The FIN bit.
        mask: Four bytes, or None for a frame without a mask.
        rsv: The three reserved bits, 0 to 7.
        length_form: 0, 2 or 8 length bytes after the first, whatever fits.
        claimed: Length to put in the header in place of the true one.
    """
    length = len(payload) if claimed is None else claimed
    if length_form is None:
        length_form = 0 if length < 126 else 2 if length < 65536 else 8
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    bit = 0x80 if mask is not None else 0
    short = {0: length & 0x7F, 2: 126, 8: 127}[length_form]
    extended = (length & (1 << 8 * length_form) - 1).to_bytes(length_form, "big")
    head = bytes([first, bit | short]) + extended
    if mask is None:
        return head + payload
    key = mask * (len(payload) // 4 + 1)
    return head + mask + bytes(a ^ b for a, b in zip(payload, key, strict=False))


@dataclass
class Seen:
    """What came out of a byte stream, in order.

    Attributes:
        happened: ``("text", audio bytes before it, text)``, ``("ping", payload)``,
            ``("pong", payload)`` and ``("close", code, reason)``.
        audio: All binary messages, joined.
        messages: Number of binary messages; a lane may count some that came
            after the end, which is no difference.
    """

    happened: list[tuple[object, ...]] = field(default_factory=list)
    audio: bytearray = field(default_factory=bytearray)
    messages: int = field(default=0, compare=False)

    def has_ended(self) -> bool:
        """Whether the library has closed; what follows means nothing."""
        return bool(self.happened) and self.happened[-1][0] == "close"


class Reader:
    """wsproto's server side past its handshake, joined to whole messages.

    Args:
        judged: What stands in for it, if anything.
    """

    def __init__(self, judged: JudgedConnection | None = None) -> None:
        self._connection: WSConnection | JudgedConnection
        if judged is None:
            self._connection = WSConnection(ConnectionType.SERVER)
            self._connection.receive_data(UPGRADE)
        else:
            self._connection = judged
        list(self._connection.events())
        self._connection.send(AcceptConnection())
        self._parts: list[bytes | bytearray | str] = []

    def feed(self, data: bytes) -> Iterable[Event | str | bytes]:
        """Yields whole messages as text or bytes, and other events as they are."""
        self._connection.receive_data(data)
        for event in self._connection.events():
            if isinstance(event, TextMessage):
                self._parts.append(event.data)
                if event.message_finished:
                    yield "".join(str(part) for part in self._parts)
                    self._parts = []
            elif isinstance(event, BytesMessage):
                self._parts.append(event.data)
                if event.message_finished:
                    yield b"".join(bytes(part) for part in self._parts)  # type: ignore[arg-type]
                    self._parts = []
            else:
                yield event
                if isinstance(event, CloseConnection):
                    return


def note(seen: Seen, event: Event) -> None:
    """Notes a control event."""
    if isinstance(event, Ping):
        seen.happened.append(("ping", bytes(event.payload)))
    elif isinstance(event, Pong):
        seen.happened.append(("pong", bytes(event.payload)))
    elif isinstance(event, CloseConnection):
        seen.happened.append(("close", event.code, event.reason))
    else:
        raise AssertionError(event)


def read_plainly(chunks: Sequence[bytes]) -> Seen:
    """What wsproto alone makes of the stream."""
    reader, seen = Reader(), Seen()
    for chunk in chunks:
        if seen.has_ended():
            break
        for item in reader.feed(chunk):
            if isinstance(item, str):
                seen.happened.append(("text", len(seen.audio), item))
            elif isinstance(item, bytes):
                seen.audio += item
                seen.messages += 1
            else:
                note(seen, item)
    return seen


def read_diverted(
    chunks: Sequence[bytes],
    *,
    max_message_bytes: int = 65536,
    judged: bool = False,
    early: bytes = b"",
) -> Seen:
    """What a lane with wsproto behind it makes of the stream.

    Args:
        chunks: The stream, as it comes.
        max_message_bytes: Longest message that the lane takes.
        judged: Whether what stands in for wsproto in a call is before it.
        early: What comes with the request for the WebSocket, before all of that.
    """
    seen = Seen()
    audio_fd = os.memfd_create("audio")
    lane = Lane(max_message_bytes=max_message_bytes)
    # Nobody reads a socket here, nor waits for one.
    stream = DivertedStream(cast("Any", SimpleNamespace(lane=lane)), cast("Any", None))
    reader = Reader(JudgedConnection(stream, parse_head(UPGRADE)) if judged else None)
    lane.keep(1, audio_fd)
    lane.feed(UPGRADE + early)
    stream._head_bytes = len(UPGRADE)
    stream.start_frames()
    slow = 0
    for chunk in (b"", *chunks):
        if seen.has_ended():
            break
        lane.feed(chunk)
        while not seen.has_ended() and (data := stream._take(4096)):
            for item in reader.feed(data):
                if isinstance(item, str):
                    seen.happened.append(("text", lane.pop_mark(), item))
                elif isinstance(item, bytes):
                    lane.append(item)
                    slow += 1
                else:
                    note(seen, item)
    # Text that the library refused (it was not UTF-8) was delivered to nobody:
    # its mark is the first one left, and audio past it came after the end.
    end = lane.pop_mark() if seen.has_ended() else lane.audio_bytes
    batch = batch_of([lane])
    batch.write()
    assert batch.finish() == []
    seen.audio += os.pread(audio_fd, end, 0)
    seen.messages = lane.messages
    os.close(audio_fd)
    return seen
