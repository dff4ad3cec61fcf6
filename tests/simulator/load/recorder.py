"""A server that records what comes, as it came, and can be made to do it badly."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import trio

from tests.simulator.fake_server import FakeServer, Message

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


@dataclass
class Studio:
    """Where the calls of a server are recorded; subclasses have faults.

    Attributes:
        root: Folder of the recordings.
        tapes: What was recorded, by conversation.
        frames: Frames that came, of all calls.
        pings: Pings that came, of all calls.
    """

    root: Path
    tapes: dict[str, bytearray] = field(default_factory=dict)
    frames: int = 0
    pings: int = 0

    def keep(self, conversation: str, data: bytes) -> None:
        """Takes in a frame."""
        self.frames += 1
        self.tapes[conversation] += data

    def pong_delay(self) -> float:
        """Tells how long the answer to a ping is to take, in seconds."""
        return 0.0

    def store(self, message: Message) -> None:
        """Writes a call that has ended; it was opened by that message."""
        parameters = message["parameters"]
        conversation = parameters["conversationId"]
        name = f"2026-11-22_{conversation}_{parameters['participant']['id']}"
        folder = self.root / "calls" / name / "audio"
        folder.mkdir(parents=True)
        (folder / f"{name}.raw").write_bytes(self.tapes[conversation])


class Recorder(FakeServer):
    """One connection of such a server."""

    def __init__(self, studio: Studio) -> None:
        super().__init__()
        self.studio = studio
        self.conversation = ""

    async def on_open(self, message: Message) -> None:
        self.conversation = message["parameters"]["conversationId"]
        self.studio.tapes[self.conversation] = bytearray()
        await super().on_open(message)

    async def on_audio(self, data: bytes) -> None:
        self.studio.keep(self.conversation, data)

    async def on_ping(self, message: Message) -> None:
        self.studio.pings += 1
        delay = self.studio.pong_delay()
        if delay:
            self.nursery.start_soon(self.later, delay, "pong")
        else:
            await super().on_ping(message)

    async def on_close(self, message: Message) -> None:
        await trio.to_thread.run_sync(self.studio.store, self.of_kind("open")[0])
        await super().on_close(message)


@asynccontextmanager
async def serving(
    make: Callable[[], FakeServer], tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Serves on loopback, each connection by a server of its own; gives the URI."""

    async def handle(stream: trio.SocketStream) -> None:
        secured = (
            stream
            if tls is None
            else trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
        )
        try:
            await make().serve(secured)
        except* (trio.BrokenResourceError, OSError):
            # The client was rude, as it may be.
            pass

    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, handle, 0, host="127.0.0.1")
        listeners = await nursery.start(serve)
        port = listeners[0].socket.getsockname()[1]
        scheme = "ws" if tls is None else "wss"
        yield f"{scheme}://127.0.0.1:{port}/hook?tenant=1"
        nursery.cancel_scope.cancel()
