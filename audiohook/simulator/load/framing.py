"""The WebSocket as a client speaks it: the upgrade, and frames both ways.

Audio is framed in `audiohook.simulator.load._frames`; this is for the rest.

Source: RFC 6455, sections 4.1 and 5.2.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import struct
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from audiohook.simulator.connection import refusal_hint

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_HEAD_BYTES: Final = 16_384
MAX_MESSAGE_BYTES: Final = 1024 * 1024

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_NONCE_BYTES: Final = 16
_FINAL: Final = 0x80
_MASKED: Final = 0x80
_RESERVED: Final = 0x70
_LENGTH_16: Final = 126
_LENGTH_64: Final = 127
_MAX_CONTROL_BYTES: Final = 125
_SWITCHING: Final = "101"


class Opcode(IntEnum):
    """What a frame is."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class BadFrameError(Exception):
    """A server sent what is no WebSocket; the text says what, on one line."""


class Upgrade:
    """One request to make a connection a WebSocket.

    Args:
        authority: Value of ``Host``.
        target: Path and query.
        headers: Further headers.

    Attributes:
        request: What to send.
    """

    def __init__(
        self, authority: str, target: str, headers: Iterable[tuple[bytes, bytes]]
    ) -> None:
        key = base64.b64encode(secrets.token_bytes(_NONCE_BYTES))
        lines = [
            b"GET %b HTTP/1.1" % target.encode("ascii"),
            b"Host: " + authority.encode("ascii"),
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: " + key,
            *(b"%b: %b" % header for header in headers),
        ]
        self.request = b"\r\n".join(lines) + b"\r\n\r\n"
        # That SHA-1 is good for nothing else, the protocol knows.
        digest = hashlib.sha1(key + _GUID, usedforsecurity=False).digest()
        self._accept = base64.b64encode(digest).decode("ascii")

    def take_answer(self, data: bytearray) -> bool:
        """Take the answer off what was received.

        Args:
            data: Received bytes; what follows the answer stays in it.

        Returns:
            False if it is not all there yet.

        Raises:
            BadFrameError: The server did not make it a WebSocket.
        """
        end = data.find(b"\r\n\r\n")
        if end < 0:
            if len(data) > MAX_HEAD_BYTES or not b"HTTP/".startswith(data[:5]):
                raise BadFrameError("the server does not speak HTTP")
            return False
        status, *lines = bytes(data[:end]).decode("latin-1").split("\r\n")
        del data[: end + 4]
        words = status.split(maxsplit=2)
        if len(words) < 2 or not words[0].startswith("HTTP/"):
            raise BadFrameError("the server does not speak HTTP")
        if words[1] != _SWITCHING:
            reason = "".join(f" {word}" for word in words[1:])
            raise BadFrameError(
                f"the upgrade was answered with{ascii(reason)[1:-1]}"
                + refusal_hint(words[1])
            )
        fields = dict(_field(line) for line in lines)
        if (
            fields.get("upgrade", "").lower() != "websocket"
            or fields.get("sec-websocket-accept") != self._accept
            or fields.keys() & {"sec-websocket-extensions", "sec-websocket-protocol"}
        ):
            raise BadFrameError(
                "the answer to the upgrade is not a valid WebSocket handshake"
            )
        return True


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip().lower(), value.strip()


def masked_frame(opcode: Opcode, payload: bytes) -> bytes:
    """Make an unfragmented frame as a client sends it, with a random mask."""
    mask = secrets.token_bytes(4)
    count = len(payload)
    if count < _LENGTH_16:
        header = bytes([_FINAL | opcode, _MASKED | count])
    else:
        header = struct.pack(">BBH", _FINAL | opcode, _MASKED | _LENGTH_16, count)
    key = (mask * (count // 4 + 1))[:count]
    body = int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")
    return header + mask + body.to_bytes(count, "big")


class FrameReader:
    """Cuts what a server sends into messages and control frames.

    Attributes:
        data: What was received and not taken yet; received bytes are added here.
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self._kind: Opcode | None = None
        self._parts: list[bytes] = []

    def next_frame(self) -> tuple[Opcode, bytes] | None:
        """Take the next whole message or control frame.

        Returns:
            What it is and its payload; None if it has not all come.

        Raises:
            BadFrameError: It is not as RFC 6455 has it.
        """
        while (frame := self._cut()) is not None:
            first, payload = frame
            if first & _RESERVED:
                raise BadFrameError("a frame with reserved bits")
            try:
                opcode = Opcode(first & 0x0F)
            except ValueError as error:
                raise BadFrameError(f"a frame of kind {first & 0x0F}") from error
            is_final = bool(first & _FINAL)
            if opcode >= Opcode.CLOSE:
                if not is_final or len(payload) > _MAX_CONTROL_BYTES:
                    raise BadFrameError("a control frame in fragments, or too long")
                return opcode, payload
            message = self._join(opcode, payload, is_final=is_final)
            if message is not None:
                return message
        return None

    def _cut(self) -> tuple[int, bytes] | None:
        """Cut a frame off the front: first byte and payload."""
        data = self.data
        if len(data) < 2:
            return None
        count, body = data[1], 2
        if count & _MASKED:
            raise BadFrameError("a masked frame from a server")
        if count >= _LENGTH_16:
            size = 8 if count == _LENGTH_64 else 2
            body += size
            if len(data) < body:
                return None
            count = int.from_bytes(data[2:body], "big")
        if count > MAX_MESSAGE_BYTES:
            raise BadFrameError(f"a frame of {count:,} bytes")
        if len(data) < body + count:
            return None
        first, payload = data[0], bytes(data[body : body + count])
        del data[: body + count]
        return first, payload

    def _join(
        self, opcode: Opcode, payload: bytes, *, is_final: bool
    ) -> tuple[Opcode, bytes] | None:
        """Add a fragment; give the message if it was the last."""
        if (opcode is Opcode.CONTINUATION) != (self._kind is not None):
            raise BadFrameError("a fragment out of turn")
        kind = opcode if self._kind is None else self._kind
        self._parts.append(payload)
        if sum(map(len, self._parts)) > MAX_MESSAGE_BYTES:
            raise BadFrameError("a message without end")
        if not is_final:
            self._kind = kind
            return None
        message = b"".join(self._parts)
        self._kind = None
        self._parts = []
        return kind, message
