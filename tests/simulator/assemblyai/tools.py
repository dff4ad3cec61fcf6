"""Audio with known voices, and a site that gives it out and takes webhooks."""

from __future__ import annotations

import array
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from audiohook import _ulaw
from audiohook.recording.wav import Encoding, header
from audiohook.simulator.assemblyai.http import Answer, Connection, PeerGone

if TYPE_CHECKING:
    from collections.abc import Sequence

RATE_HZ = 8000

# (start, end) in seconds of each voice in a channel.
Spans = tuple[tuple[float, float], ...]


def make_wav(
    seconds: float, *channels: Spans, encoding: Encoding = Encoding.ULAW
) -> bytes:
    """Makes a WAV in which each channel hums at the given times."""
    frames = round(seconds * RATE_HZ)
    samples = array.array("h", bytes(2 * frames * len(channels)))
    for index, spans in enumerate(channels):
        for start, end in spans:
            for at in range(round(start * RATE_HZ), round(end * RATE_HZ)):
                hum = math.sin(math.tau * 150 * at / RATE_HZ)
                samples[at * len(channels) + index] = round(6000 * hum)
    data = samples.tobytes()
    if encoding is Encoding.ULAW:
        data = _ulaw.encode(data)
    return header(encoding, len(channels), frames) + data + b"\0" * (len(data) % 2)


TALK = make_wav(8, ((0.5, 3.0),), ((3.5, 7.0),))


@dataclass
class Hook:
    """A webhook as it came."""

    at: float
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Site:
    """Gives out files, and takes what is posted.

    Attributes:
        files: By path.
        fetched: Paths that were asked for.
        hooks: What was posted.
        statuses: Answers to what is posted; the last one goes on. None is silence.
    """

    files: dict[str, bytes] = field(default_factory=lambda: {"/talk.wav": TALK})
    fetched: list[str] = field(default_factory=list)
    hooks: list[Hook] = field(default_factory=list)
    statuses: Sequence[int | None] = (200,)
    url: str = ""

    async def serve(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        task_status.started()
        await trio.serve_listeners(self._converse, listeners)

    async def _converse(self, stream: trio.SocketStream) -> None:
        connection = Connection(stream)
        try:
            while (request := await connection.receive()) is not None:
                body = await connection.read_all(1 << 20)
                if request.method == "GET":
                    self.fetched.append(request.path)
                    found = self.files.get(request.path)
                    await connection.send(
                        Answer(404, b"no")
                        if found is None
                        else Answer(200, found, "audio/wav")
                    )
                    continue
                now = trio.current_time()
                hook = Hook(
                    now,
                    request.path,
                    dict(request.query),
                    dict(request.headers),
                    json.loads(body),
                )
                self.hooks.append(hook)
                number = min(len(self.hooks), len(self.statuses))
                status = self.statuses[number - 1]
                if status is None:
                    await connection.wait_gone()
                else:
                    await connection.send(Answer(status))
        except PeerGone:
            pass
        finally:
            await trio.aclose_forcefully(stream)
