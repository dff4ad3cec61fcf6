"""A small AudioHook server to call, good unless a subclass makes it bad."""

from __future__ import annotations

import json
import random
import struct
from typing import TYPE_CHECKING, Any

import trio
import trio.testing
from trio_websocket import (
    ConnectionClosed,
    WebSocketConnection,
    WebSocketRequest,
    wrap_server_stream,
)

from audiohook.simulator.client import place_call
from audiohook.simulator.options import CallOptions

if TYPE_CHECKING:
    from pathlib import Path

    from audiohook.simulator.dialogue import Dialogue
    from audiohook.simulator.report import CallReport
    from audiohook.simulator.rules import Rule

URI = "ws://audiohook.test/hook?tenant=1"

Message = dict[str, Any]


class FakeServer:
    """Answers as a server should and keeps what it got.

    Attributes:
        texts: (seconds since the upgrade, message), in order.
        audio: All audio, as received.
        frame_sizes: Bytes of each binary message.
        close_code: Code with which the client closed the WebSocket.
    """

    def __init__(self) -> None:
        self.texts: list[tuple[float, Message]] = []
        self.audio = bytearray()
        self.frame_sizes: list[int] = []
        self.headers: dict[str, str] = {}
        self.path = ""
        self.close_code: int | None = None
        self.seq = 0
        self.clientseq = 0
        self.nursery: trio.Nursery
        self.websocket: WebSocketConnection
        self._began_at = 0.0

    # What subclasses change.

    async def on_request(self, request: WebSocketRequest) -> bool:
        return True

    async def on_open(self, message: Message) -> None:
        await self.send("opened", {"media": message["parameters"]["media"][:1]})

    async def on_ping(self, message: Message) -> None:
        await self.send("pong")

    async def on_update(self, message: Message) -> None:
        await self.send("updated")

    async def on_close(self, message: Message) -> None:
        await self.send("closed")

    async def on_other(self, message: Message) -> None:
        pass

    async def on_audio(self, data: bytes) -> None:
        pass

    # What the tests look at.

    def kinds(self) -> list[str]:
        return [message["type"] for _, message in self.texts]

    def of_kind(self, kind: str) -> list[Message]:
        return [message for _, message in self.texts if message["type"] == kind]

    def times(self, kind: str) -> list[float]:
        return [at for at, message in self.texts if message["type"] == kind]

    # Machinery.

    async def send(
        self, kind: str, parameters: Message | None = None, **changes: object
    ) -> None:
        self.seq += 1
        message: dict[str, object] = {
            "version": "2",
            "id": self.texts[0][1]["id"],
            "type": kind,
            "seq": self.seq,
            "clientseq": self.clientseq,
            "parameters": parameters or {},
        }
        message.update(changes)
        await self.send_raw(json.dumps(message))

    async def send_raw(self, message: str | bytes) -> None:
        await self.websocket.send_message(message)

    async def later(self, seconds: float, kind: str) -> None:
        await trio.sleep(seconds)
        await self.send(kind)

    async def serve(self, stream: trio.abc.Stream) -> None:
        async with trio.open_nursery() as self.nursery:
            request = await wrap_server_stream(self.nursery, stream)
            self.path = request.path
            self.headers = {k.decode(): v.decode() for k, v in request.headers}
            if await self.on_request(request):
                self.websocket = await request.accept()
                self._began_at = trio.current_time()
                await self._converse()
            self.nursery.cancel_scope.cancel()

    async def _converse(self) -> None:
        while True:
            try:
                message = await self.websocket.get_message()
            except ConnectionClosed as error:
                self.close_code = error.reason.code if error.reason else None
                return
            if isinstance(message, bytes):
                self.audio += message
                self.frame_sizes.append(len(message))
                await self.on_audio(message)
            else:
                await self._take(json.loads(message))

    async def _take(self, message: Message) -> None:
        self.texts.append((trio.current_time() - self._began_at, message))
        self.clientseq = message["seq"]
        handlers = {
            "open": self.on_open,
            "ping": self.on_ping,
            "update": self.on_update,
            "close": self.on_close,
        }
        await handlers.get(message["type"], self.on_other)(message)


async def call(
    server: FakeServer,
    *,
    dialogue: Dialogue | None = None,
    **options: Any,  # noqa: ANN401 - passed on
) -> CallReport:
    """Place a call to the server over a pair of memory streams."""
    ours, theirs = trio.testing.memory_stream_pair()

    async def dial(_options: CallOptions) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return ours

    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve, theirs)
        report = await place_call(
            CallOptions(uri=URI, **options), dialogue=dialogue, dialer=dial
        )
        # What is under way reaches the server before all is torn down.
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return report


def rules_of(report: CallReport) -> list[Rule]:
    """Give the rules that the server broke, in order."""
    return [breach.rule for breach in report.breaches]


def write_ulaw_wav(path: Path, channels: int, samples: int) -> bytes:
    """Write a µ-law WAV of which no two stretches are alike; give its audio."""
    count = channels * samples
    audio = random.Random(count).randbytes(count)
    fmt = struct.pack("<HHIIHHH", 7, channels, 8000, 8000 * channels, channels, 8, 0)
    chunks = b"fmt " + struct.pack("<I", len(fmt)) + fmt
    chunks += b"LIST" + struct.pack("<I", 4) + b"INFO"
    chunks += b"data" + struct.pack("<I", count) + audio
    path.write_bytes(b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WAVE" + chunks)
    return audio
