"""What the Python peers share: a call's answers, and the file of its audio.

It is as little as can be had: one JSON document a message, audio gathered and
written in one call to the system each 9,600 bytes, which is 0.6 s and so as seldom
as ours writes. It leaves out what ours does besides: signatures, timers, gaps, a
journal, audio on disk before ``closed``, a WAV.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import resource
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

WRITE_BYTES = 9_600
BACKLOG = 4096

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Studio:
    """Where a peer listens and records."""

    port: int
    recordings: Path
    api_key: str

    def knows(self, key: str | None) -> bool:
        """Tell whether a request with that key may come in."""
        return hmac.compare_digest((key or "").encode(), self.api_key.encode())


def open_studio() -> Studio:
    """Take port and folder from the command line, and end with 0 on SIGTERM."""
    port, recordings = sys.argv[1:]

    def leave(_signal: int, _frame: FrameType | None) -> None:
        # Whatever library it is, it has nothing left to do.
        os._exit(0)

    signal.signal(signal.SIGTERM, leave)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return Studio(int(port), Path(recordings), os.environ["API_KEY"])


class Recorder:
    """One call.

    Args:
        studio: Where it is recorded.
    """

    __slots__ = ("_chunks", "_fd", "_seq", "_session", "_studio", "_waiting")

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._session = ""
        self._seq = 0
        self._fd = -1
        self._chunks: list[bytes] = []
        self._waiting = 0

    def take_audio(self, data: bytes) -> None:
        self._chunks.append(data)
        self._waiting += len(data)
        if self._waiting >= WRITE_BYTES:
            self._write()

    def take_text(self, text: str | bytes) -> str | None:
        """Take a message; give the answer, if it needs one."""
        message = json.loads(text)
        kind, parameters = message["type"], message["parameters"]
        if kind == "ping":
            return self._answer(message, "pong", {})
        if kind == "open":
            self._open(message["id"], parameters)
            return self._answer(message, "opened", {"media": parameters["media"][:1]})
        if kind == "close":
            self.finish()
            return self._answer(message, "closed", {})
        return None

    def finish(self) -> None:
        """Have all of it in the file; again is fine."""
        if self._fd >= 0:
            self._write()
            os.close(self._fd)
            self._fd = -1

    def _answer(self, message: dict[str, Any], kind: str, parameters: object) -> str:
        self._seq += 1
        return json.dumps(
            {
                "version": "2",
                "id": self._session,
                "type": kind,
                "seq": self._seq,
                "clientseq": message["seq"],
                "parameters": parameters,
            }
        )

    def _open(self, session: str, parameters: dict[str, Any]) -> None:
        ids = parameters["conversationId"], parameters["participant"]["id"]
        if not all(map(_UUID.fullmatch, (session, *ids))):
            raise ValueError("an id that is none")
        self._session = session
        name = "_".join((time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()), *ids))
        folder = self._studio.recordings / "calls" / name / "audio"
        folder.mkdir(parents=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._fd = os.open(folder / f"{session}.raw", flags, 0o600)

    def _write(self) -> None:
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._waiting = 0
        # A file takes all of it, or there is an error.
        os.write(self._fd, data)
