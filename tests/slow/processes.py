"""Real processes of ours, each with folders, a log and an environment of its own."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import wave
from collections import defaultdict
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import trio

from audiohook.protocol.timeline import SAMPLE_RATE_HZ
from audiohook.recording.wav import Encoding, header
from audiohook.simulator.load._frames import BLOCK_BYTES, audio
from tests import reference_ulaw
from tests.house import KEY, Recording
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    import pytest

ROOT = Path(__file__).resolve().parents[2]

START_SECONDS = 20.0
STORE_SECONDS = 30.0
COMMAND_SECONDS = 60.0
_LOOK_SECONDS = 0.02

# All that a process of ours needs of the environment of the tests.
_INHERITED = ("PATH", "LANG", "LD_LIBRARY_PATH")

_CHANNELS = 2
_PCM = np.frombuffer(reference_ulaw.decode(bytes(range(256))), "<i2")


@dataclass(slots=True)
class Server:
    """A running ``audiohook serve``.

    Attributes:
        process: The process.
        log: Where its lines go.
        port: Where it listens; 0 until it does.
    """

    process: trio.Process
    log: Path
    port: int = 0

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def uri(self) -> str:
        return f"ws://127.0.0.1:{self.port}/api/v1/audiohook?tenant=a%20b"

    def kill(self) -> None:
        self.process.kill()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def wait(self) -> int:
        """Waits for its end; its exit code."""
        return await self.process.wait()

    @property
    def admin_uri(self) -> str:
        (line,) = self.lines("admin_listening")
        return f"http://127.0.0.1:{line['port']}"

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Returns its log lines of that name so far."""
        return [line for line in self._lines() if line["event"] == event]

    def _lines(self) -> Iterator[dict[str, Any]]:
        for line in self.log.read_text().splitlines(keepends=True):
            # The last one may be half written yet.
            if line.endswith("\n"):
                yield json.loads(line)

    async def wait_listening(self) -> None:
        """Waits until it says where it listens.

        Raises:
            RuntimeError: It ended instead, or took too long.
        """
        with trio.move_on_after(START_SECONDS):
            while self.process.poll() is None:
                for line in self.lines("listening"):
                    self.port = line["port"]
                    return
                await trio.sleep(_LOOK_SECONDS)
        raise RuntimeError(f"the server did not start: {self.log.read_text()}")


@dataclass(slots=True)
class Site:
    """A machine's worth of folders, where servers come and go.

    Attributes:
        base: Everything is below it.
        settings: Environment of each process, besides what all have.
        prefix: What stands before each command.
    """

    base: Path
    settings: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    _started: int = 0

    def __post_init__(self) -> None:
        for folder in (self.recordings, self.work, self.temporary, self.home):
            folder.mkdir()

    @property
    def recordings(self) -> Path:
        """``RECORDINGS_DIR``: the only place where anything may be written."""
        return self.base / "recordings"

    @property
    def work(self) -> Path:
        return self.base / "work"

    @property
    def temporary(self) -> Path:
        return self.base / "temporary"

    @property
    def home(self) -> Path:
        return self.base / "home"

    def environment(self) -> dict[str, str]:
        return {
            **{name: os.environ[name] for name in _INHERITED if name in os.environ},
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "HOST": "127.0.0.1",
            "PORT": "0",
            "ADMIN_PORT": "0",
            "API_KEY": KEY,
            "RECORDINGS_DIR": str(self.recordings),
            "LOG_FORMAT": "json",
            # Thousands of folders to be deleted afterwards would slow the disk down.
            "SPOOL_PLACES": "0",
            **self.settings,
        }

    @asynccontextmanager
    async def start(
        self,
        command: str,
        *,
        runner: Sequence[str] = ("-m", "audiohook"),
        pass_fds: Sequence[int] = (),
        **settings: str,
    ) -> AsyncIterator[Server]:
        """Starts a command of ours; what is left of it at the end is killed.

        Args:
            command: Its name.
            runner: What Python is to run.
            pass_fds: Descriptors that it inherits.
            **settings: Environment of this process only.
        """
        arguments = (*runner, command)
        async with self.run(
            command, *arguments, pass_fds=pass_fds, **settings
        ) as server:
            yield server

    @asynccontextmanager
    async def run(
        self,
        name: str,
        *arguments: str | Path,
        pass_fds: Sequence[int] = (),
        **settings: str,
    ) -> AsyncIterator[Server]:
        """Starts a Python of ours; what is left of it at the end is killed.

        Args:
            name: What its log is called after.
            *arguments: What it is to run.
            pass_fds: Descriptors that it inherits.
            **settings: Environment of this process only.
        """
        self._started += 1
        log = self.base / f"{self._started}-{name}.log"
        with log.open("wb") as stream:
            process = await trio.lowlevel.open_process(
                [*self.prefix, sys.executable, *map(str, arguments)],
                cwd=self.work,
                env=self.environment() | settings,
                pass_fds=pass_fds,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )
        try:
            yield Server(process, log)
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()

    @asynccontextmanager
    async def serve(self, **options: Any) -> AsyncIterator[Server]:  # noqa: ANN401 - passed on
        """Runs ``audiohook serve``, ready for calls, while the block lasts.

        Args:
            **options: As for `start`.
        """
        async with self.start("serve", **options) as server:
            await server.wait_listening()
            yield server

    async def command(
        self, *arguments: str | Path, seconds: float = COMMAND_SECONDS
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs one of our commands to its end, which must come in that time."""
        with trio.fail_after(seconds):
            return await trio.run_process(
                [
                    *self.prefix,
                    *(sys.executable, "-m", "audiohook"),
                    *map(str, arguments),
                ],
                cwd=self.work,
                env=self.environment(),
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )

    async def wait_stored(self) -> None:
        """Waits until no call is left in the spool."""
        await wait_until(lambda: not self.spooled(), STORE_SECONDS)

    def spooled(self) -> list[Path]:
        """Returns what is in the spool, but for calls that a kill left half made."""
        spool = self.recordings / ".spool"
        return [path for path in spool.glob("*") if not path.name.startswith(".")]

    def stored(self) -> dict[str, list[Recording]]:
        """Returns all recordings, by their session ids."""
        found = defaultdict(list)
        for folder in sorted((self.recordings / "calls").glob("*")):
            recording = Recording(folder)
            found[recording.facts["sessionId"]].append(recording)
        return dict(found)

    def strays(self) -> list[Path]:
        """Returns everything that was written where nothing belongs."""
        known = (self.recordings / ".spool", self.recordings / "calls")
        return [
            *self.work.rglob("*"),
            *self.temporary.rglob("*"),
            *self.home.rglob("*"),
            *(path for path in self.recordings.glob("*") if path not in known),
        ]


# Audio that says what it is, and how a recording is judged.


def numbered_audio(number: int, seconds: float) -> bytes:
    """Makes stereo µ-law whose every 8 bytes tell the call and their place in it."""
    frame_bytes = round(seconds * SAMPLE_RATE_HZ) * _CHANNELS
    return audio(number, 0, frame_bytes // BLOCK_BYTES)


def write_wav(path: Path, audio: bytes) -> Path:
    """Writes stereo µ-law as a WAV file to play."""
    head = header(Encoding.ULAW, _CHANNELS, len(audio) // _CHANNELS)
    path.write_bytes(head + audio)
    return path


def pcm_of(audio: bytes) -> bytes:
    """Decodes µ-law by the plain table of the tests."""
    return bytes(_PCM[np.frombuffer(audio, np.uint8)])


def wav_samples(data: bytes) -> bytes:
    """Returns the samples of a stereo PCM16 WAV file, as the standard library does."""
    with wave.open(io.BytesIO(data)) as wav:
        kind = (wav.getnchannels(), wav.getsampwidth(), wav.getframerate())
        assert kind == (_CHANNELS, 2, SAMPLE_RATE_HZ)
        samples: bytes = wav.readframes(wav.getnframes())
    assert data.endswith(samples)
    return samples


def sound_audio(recording: Recording, root: Path) -> bytes:
    """Checks a recording without gaps against itself.

    Args:
        recording: What the store holds of a call.
        root: The store.

    Returns:
        Its audio as received.
    """
    facts = recording.facts
    for entry in facts["objects"]:
        data = (root / entry["key"]).read_bytes()
        assert len(data) == entry["bytes"], entry["key"]
        assert hashlib.sha256(data).hexdigest() == entry["sha256"], entry["key"]
    raw = recording.audio(".raw")
    assert facts["gaps"] == []
    assert facts["audioBytes"] == len(raw)
    assert wav_samples(recording.audio(".wav")) == pcm_of(raw)
    return raw


def worst(latencies: Sequence[float]) -> str:
    """Says the largest of some latencies (in seconds) to a person."""
    return f"{max(latencies) * 1000:.0f} ms" if latencies else "none"


def tell(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Prints a line that is seen whether or not the test passes."""
    with capsys.disabled():
        print(f"\n{text}")  # noqa: T201
