"""One connection to a server, made by hand, so that all of it can be spoilt."""

from __future__ import annotations

import json
import socket
import struct
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from audiohook.protocol.messages import (
    Closed,
    Disconnect,
    DisconnectReason,
    Opened,
    parse_server_message,
)
from audiohook.protocol.signature import sign
from audiohook.simulator.load.framing import FrameReader
from tests.house import ORGANIZATION, upgrade_request
from tests.reference_frames import BINARY, CLOSE, TEXT, frame
from tests.slow.processes import numbered_audio

if TYPE_CHECKING:
    from audiohook.protocol.messages import ServerMessage

TOO_BIG = 1009

# Answers are due in this time.
ANSWER_SECONDS = 5.0
# That a socket is left open shows in its being so a little later.
QUIET_SECONDS = 0.5
# What a limit of the server may be overstepped by: a look each second, and a
# machine that has other things to do.
SLACK_SECONDS = 4.0

_FRAME_BYTES = 1600
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Target:
    """A server, and what it would let in.

    Attributes:
        port: Where it listens, on loopback.
        key: API key that needs no signature.
        signed_key: API key that needs one.
        secret: Client secret of that, decoded.
        refusals: The answers to requests that were not let in, as they came.
    """

    port: int
    key: bytes
    signed_key: bytes
    secret: bytes
    refusals: set[bytes] = field(default_factory=set)


def message(opcode: int, payload: bytes) -> bytes:
    """Makes a frame of any size; its mask is all zeros, which costs us nothing."""
    return frame(opcode, claimed=len(payload), mask=bytes(4)) + payload


class Peer:
    """A client, as good or bad as whoever uses it.

    Args:
        target: Whom to talk to.
        number: One of its own, which its audio tells.

    Attributes:
        session_id: Its session.
        audio: What its recording has to hold, if there is one.
    """

    def __init__(self, target: Target, number: int) -> None:
        self.target = target
        self.number = number
        self.session_id = str(uuid.uuid4())
        self.audio = b""
        self._seq = 0
        self._serverseq = 0
        self._tcp = trio.socket.socket()
        self._stream: trio.SocketStream | None = None
        self._reader = FrameReader()
        self._incoming = self._reader.data
        # When the server was last asked for something, and what `start_clock` noted.
        self._asked = 0.0
        self._earliest = self._began = 0.0

    # The connection.

    async def connect(self, *, receive_bytes: int | None = None) -> None:
        """Connects.

        Args:
            receive_bytes: What the kernel may take for us before we do.
        """
        if receive_bytes is not None:
            self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self._asked = trio.current_time()
        await self._tcp.connect(("127.0.0.1", self.target.port))
        self._stream = trio.SocketStream(self._tcp)
        self.start_clock()

    @property
    def stream(self) -> trio.SocketStream:
        assert self._stream is not None
        return self._stream

    def drop(self) -> None:
        """Closes the socket without a word; once is enough."""
        self._tcp.close()

    def reset(self) -> None:
        """Ends the connection as a machine does that has forgotten it."""
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.drop()

    def start_clock(self) -> None:
        """Notes that the server has answered.

        Its own clock may have started at any time since it was asked.
        """
        self._earliest, self._began = self._asked, trio.current_time()

    def took(self, seconds: float, slack: float = SLACK_SECONDS) -> None:
        """Checks that it took that long to come here, since `start_clock`."""
        now = trio.current_time()
        assert now - self._earliest >= seconds - 0.1, now - self._earliest
        assert now - self._began <= seconds + slack, now - self._began

    async def send(self, data: bytes) -> bool:
        """Sends; False if the server has hung up."""
        self._asked = trio.current_time()
        try:
            await self.stream.send_all(data)
        except trio.BrokenResourceError:
            return False
        return True

    async def rest(self) -> bytes:
        """Receives until the server has hung up, one way or the other."""
        while await self._receive():
            pass
        return bytes(self._incoming)

    async def _receive(self) -> bool:
        try:
            data = await self.stream.receive_some(65_536)
        except trio.BrokenResourceError:
            return False
        self._incoming += data
        return bool(data)

    # The request.

    def request(self, headers: bytes | None = None) -> bytes:
        """Makes a request for a WebSocket.

        Args:
            headers: Lines in place of the one with the API key.
        """
        if headers is None:
            headers = b"X-API-KEY: " + self.target.key + b"\r\n"
        return upgrade_request(headers, session=self.session_id)

    def signature(
        self, *, secret: bytes | None = None, key: bytes | None = None, age: float = 0
    ) -> bytes:
        """Makes the header lines of a signed request, API key included.

        Args:
            secret: In place of the right one.
            key: In place of the one that the secret goes with.
            age: Seconds since it was signed.
        """
        headers = [(b"X-API-KEY", self.target.signed_key if key is None else key)]
        for line in self.request(b"").split(b"\r\n")[1:]:
            name, colon, value = line.partition(b": ")
            if colon:
                headers.append((name, value))
        signed = sign(
            headers,
            b"/",
            secret=self.target.secret if secret is None else secret,
            now=time.time() - age,
        )
        return b"".join(b"%b: %b\r\n" % line for line in (headers[0], *signed))

    async def upgrade(self, *, receive_bytes: int | None = None) -> None:
        await self.connect(receive_bytes=receive_bytes)
        await self.send(self.request())
        await self.hear_upgraded()

    async def hear_upgraded(self) -> bytes:
        """Takes the answer to an upgrade off what comes in, and returns it."""
        with trio.fail_after(ANSWER_SECONDS):
            while b"\r\n\r\n" not in self._incoming:
                assert await self._receive(), self._incoming
        assert self._incoming.startswith(b"HTTP/1.1 101 "), self._incoming
        end = self._incoming.index(b"\r\n\r\n") + 4
        head = bytes(self._incoming[:end])
        del self._incoming[:end]
        self.start_clock()
        return head

    # What comes over the WebSocket.

    async def next_frame(self) -> tuple[int, bytes] | None:
        """Returns opcode and payload; None if the server has hung up instead."""
        while (frame := self._reader.next_frame()) is None:
            if not await self._receive():
                return None
        return frame

    async def hear(self) -> ServerMessage:
        """Returns the next message, which must be in order to the letter."""
        return await self.hear_as(self.session_id)

    async def hear_as(self, session_id: str) -> ServerMessage:
        """Returns the next message, which spells the session as it is given."""
        with trio.fail_after(ANSWER_SECONDS):
            got = await self.next_frame()
        assert got is not None
        opcode, payload = got
        assert opcode == TEXT, got
        told = parse_server_message(payload.decode())
        self._serverseq += 1
        assert (told.seq, told.id) == (self._serverseq, session_id)
        return told

    async def hear_opened(self) -> None:
        told = await self.hear()
        assert isinstance(told, Opened), told
        assert len(told.parameters.media) == 1
        self.start_clock()

    async def hear_disconnect(
        self, info: str, reason: DisconnectReason = DisconnectReason.ERROR
    ) -> None:
        """Checks that the server asks for the end, says why, and waits."""
        told = await self.hear()
        assert isinstance(told, Disconnect), told
        assert (told.parameters.reason, told.parameters.info) == (reason, info)
        self.start_clock()
        with trio.move_on_after(QUIET_SECONDS):
            raise AssertionError(await self.next_frame())

    async def hear_end(self) -> None:
        """Checks that the server hangs up, and says nothing before it."""
        assert await self.next_frame() is None

    async def hear_failure(self, code: int) -> None:
        """Checks that the server fails the WebSocket.

        It should say why, and always does so for what is only too big.
        Source: RFC 6455 section 7.1.7.

        Args:
            code: Why.
        """
        with trio.fail_after(ANSWER_SECONDS):
            got = await self.next_frame()
            if got is None:
                assert code != TOO_BIG
                return
            opcode, payload = got
            assert (opcode, payload[:2]) == (CLOSE, code.to_bytes(2, "big")), got
            await self.hear_end()

    # What goes over it.

    def text(self, kind: str, **changes: object) -> bytes:
        """Makes the frame of a message; for the arguments see `words`."""
        return message(TEXT, self.words(kind, **changes).encode())

    def words(self, kind: str, **changes: object) -> str:
        """Makes a message.

        Args:
            kind: Its type.
            **changes: Laid over the envelope as it should be.
        """
        self._seq += 1
        envelope = {
            "version": "2",
            "id": self.session_id,
            "type": kind,
            "seq": self._seq,
            "serverseq": self._serverseq,
            "position": "PT0S",
            "parameters": {},
            **changes,
        }
        return json.dumps(envelope)

    def skip(self, numbers: int) -> None:
        """Leaves some sequence numbers out."""
        self._seq += numbers

    async def say(self, kind: str, **changes: object) -> None:
        assert await self.send(self.text(kind, **changes))

    def open_parameters(self, **changes: object) -> dict[str, object]:
        """Makes the parameters of ``open``; `changes` are laid over them."""
        audio = {"type": "audio", "format": "PCMU", "rate": 8000}
        return {
            "organizationId": ORGANIZATION,
            "conversationId": str(uuid.uuid4()),
            "participant": {
                "id": str(uuid.uuid4()),
                "ani": "tel:+15550100",
                "aniName": f"Peer {self.number}",
                "dnis": "tel:+15550199",
            },
            "media": [audio | {"channels": ["external", "internal"]}],
            **changes,
        }

    async def open(self, *, receive_bytes: int | None = None) -> None:
        """Comes to an open session, as it should be."""
        await self.upgrade(receive_bytes=receive_bytes)
        await self.say("open", parameters=self.open_parameters())
        await self.hear_opened()

    def make_audio(self, seconds: float = 1.0) -> bytes:
        """Makes audio that the recording has to hold."""
        audio = numbered_audio(self.number, seconds)
        self.audio += audio
        return audio

    async def play(self, seconds: float = 1.0) -> None:
        """Sends audio, as it should be."""
        audio = self.make_audio(seconds)
        for start in range(0, len(audio), _FRAME_BYTES):
            assert await self.send(message(BINARY, audio[start : start + _FRAME_BYTES]))

    async def leave(self) -> None:
        """Closes the session and the connection, as it should be."""
        await self.close()
        await self.send(message(CLOSE, b""))
        with trio.fail_after(ANSWER_SECONDS):
            assert await self.next_frame() == (CLOSE, b"")
            await self.hear_end()

    async def close(self) -> None:
        """Closes the session."""
        await self.say("close", parameters={"reason": "end"})
        told = await self.hear()
        assert isinstance(told, Closed), told
        assert told.clientseq == self._seq
        self.start_clock()
