"""A recorder on websockets' server for asyncio."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from websockets.asyncio.server import serve

from bench.peers.recorder import BACKLOG, Recorder, Studio, open_studio


def check(studio: Studio, connection: Any, request: Any) -> Any:  # noqa: ANN401 - not installed where types are checked
    if studio.knows(request.headers.get("X-API-KEY")):
        return None
    return connection.respond(401, "")


async def handle(studio: Studio, connection: Any) -> None:  # noqa: ANN401
    recorder = Recorder(studio)
    # It ends with the connection.
    try:
        async for message in connection:
            if isinstance(message, bytes):
                recorder.take_audio(message)
            elif (answer := recorder.take_text(message)) is not None:
                await connection.send(answer)
    finally:
        recorder.finish()


async def main(studio: Studio) -> None:
    async with serve(
        partial(handle, studio),
        "127.0.0.1",
        studio.port,
        backlog=BACKLOG,
        process_request=partial(check, studio),
        compression=None,
        ping_interval=None,
    ) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(open_studio()))
