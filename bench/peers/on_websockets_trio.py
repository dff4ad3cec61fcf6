"""A recorder on websockets' server for Trio."""

from __future__ import annotations

from functools import partial
from typing import Any

import trio
from websockets.trio.server import serve

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


if __name__ == "__main__":
    place = open_studio()
    trio.run(
        partial(
            serve,
            partial(handle, place),
            place.port,
            host="127.0.0.1",
            backlog=BACKLOG,
            process_request=partial(check, place),
            compression=None,
            ping_interval=None,
        )
    )
