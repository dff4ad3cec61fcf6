"""A recorder on picows and uvloop."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import uvloop
from picows import (
    WSListener,
    WSMsgType,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

from bench.peers.recorder import BACKLOG, Recorder, Studio, open_studio


class Listener(WSListener):  # type: ignore[misc] # not installed where types are checked
    def __init__(self, studio: Studio) -> None:
        self._recorder = Recorder(studio)

    def on_ws_frame(self, transport: Any, frame: Any) -> None:  # noqa: ANN401
        kind = frame.msg_type
        if kind == WSMsgType.BINARY:
            self._recorder.take_audio(frame.get_payload_as_bytes())
        elif kind == WSMsgType.TEXT:
            answer = self._recorder.take_text(frame.get_payload_as_bytes())
            if answer is not None:
                transport.send(WSMsgType.TEXT, answer.encode())
        elif kind == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
        elif kind == WSMsgType.CLOSE:
            transport.send_close()
            transport.disconnect()

    def on_ws_disconnected(self, _transport: Any) -> None:  # noqa: ANN401
        self._recorder.finish()


def answer_upgrade(studio: Studio, request: Any) -> Any:  # noqa: ANN401
    if studio.knows(request.headers.get("X-API-KEY")):
        return Listener(studio)
    return WSUpgradeResponseWithListener(
        WSUpgradeResponse.create_error_response(401), None
    )


async def main(studio: Studio) -> None:
    server = await ws_create_server(
        partial(answer_upgrade, studio), "127.0.0.1", studio.port, backlog=BACKLOG
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(main(open_studio()))
