"""The client at a server that answers as told."""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from audiohook.errors import TranscriptError
from audiohook.transcription.assemblyai import (
    AssemblyAI,
    Limits,
    make_client,
)
from tests.transcription.scripted_server import (
    Answer,
    Heard,
    ScriptedServer,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

KEY = "0123456789abcdef-the-key"
ID = "9ea68fd3-f953-42c1-9742-976c447fb463"
SIGNATURE = "X-Amz-Signature=5ecre7"
SIGNED = f"https://bucket.s3.amazonaws.com/calls/a.wav?{SIGNATURE}&X-Amz-Expires=1"
BODY = {"audio_url": SIGNED}
QUEUED = {"id": ID, "status": "queued", "audio_url": SIGNED, "error": None}
LOOKUP = "Transcript lookup error, transcript id not found"

ABOUT_ID = ("get", "delete")
EVERYTHING = ("submit", "get", "delete", "list_page", "upload")


def call(service: AssemblyAI, name: str) -> Awaitable[object]:
    match name:
        case "submit":
            return service.submit(BODY)
        case "get":
            return service.get(ID)
        case "delete":
            return service.delete(ID)
        case "list_page":
            return service.list_page(before_id=ID)
    return service.upload(pieces(b"a"), 1)


async def serve(nursery: trio.Nursery, *answers: Answer) -> ScriptedServer:
    """Starts a server that gives these answers, the last one again and again."""
    script = deque(answers)

    def next_answer(_: Heard) -> Answer:
        return script.popleft() if len(script) > 1 else script[0]

    server = ScriptedServer(next_answer)
    await nursery.start(server.serve)
    return server


@asynccontextmanager
async def connected(
    server: ScriptedServer | str, limits: Limits | None = None
) -> AsyncIterator[AssemblyAI]:
    limits = limits or Limits()
    url = server if isinstance(server, str) else server.url
    async with make_client(url, KEY, limits=limits) as http:
        yield AssemblyAI(http, limits=limits)


async def fails(call: Awaitable[object]) -> TranscriptError:
    """Returns the error of a call, and sees that nothing secret is in it."""
    with pytest.raises(TranscriptError) as caught:
        await call
    error = caught.value
    shown = f"{error} {error!r}"
    cause: BaseException | None = error
    while cause is not None:
        shown += f" {cause} {cause!r}"
        cause = cause.__cause__ or cause.__context__
    assert KEY not in shown
    assert "5ecre7" not in shown
    assert str(error).isprintable()
    return error


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        await trio.lowlevel.checkpoint()
        yield chunk
