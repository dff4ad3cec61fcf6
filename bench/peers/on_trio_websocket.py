"""A recorder on trio-websocket, as it comes."""

from __future__ import annotations

from functools import partial

import trio
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

from bench.peers.recorder import Recorder, Studio, open_studio


async def handle(studio: Studio, request: WebSocketRequest) -> None:
    headers = {name.lower(): value.decode() for name, value in request.headers}
    if not studio.knows(headers.get(b"x-api-key")):
        await request.reject(401)
        return
    websocket = await request.accept()
    recorder = Recorder(studio)
    try:
        while True:
            message = await websocket.get_message()
            if isinstance(message, bytes):
                recorder.take_audio(message)
            elif (answer := recorder.take_text(message)) is not None:
                await websocket.send_message(answer)
    except ConnectionClosed:
        recorder.finish()


if __name__ == "__main__":
    place = open_studio()
    trio.run(
        partial(serve_websocket, partial(handle, place), "127.0.0.1", place.port, None)
    )
