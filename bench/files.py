"""A whole call made into a WAV file: ours, and ffmpeg, sox, `audioop`, NumPy.

Each reads the audio as received from one file and writes PCM16 to another. ffmpeg and
sox are processes of their own, as in the guide's example, one a call; what it takes
to start them is part of what they cost. Ours, `audioop` and NumPy run in a process
that is there already, as the server is. All end with the same samples, or do not
count.
"""

from __future__ import annotations

import os
import random
import resource
import subprocess
import tempfile
import time
import warnings
import wave
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from audiohook.protocol.timeline import SAMPLE_RATE_HZ, Timeline
from audiohook.recording.render import Gaps, Layout, Rendering
from audiohook.recording.wav import Encoding
from audiohook.simulator.options import MAX_CHANNELS
from bench.peers.install import MissingError, program
from tests import reference_ulaw

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.plan import Bench

KIND = "files"
OURS: Final = "audiohook"

SECONDS = 1.0
_CHUNK_BYTES = 1024 * 1024
_LIMIT = 120 * SECONDS
_ROUNDS = 3
_LINEAR = np.frombuffer(reference_ulaw.decode(bytes(range(256))), "<i2")


class _File:
    """Audio as received, as it lies in the spool."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY)
        self.size_bytes = os.fstat(self._fd).st_size

    def read_at(self, offset: int, length: int) -> bytes:
        return os.pread(self._fd, length, offset)

    def close(self) -> None:
        os.close(self._fd)


def by_audiohook(source: Path, target: Path) -> None:
    audio = _File(source)
    try:
        rendering = Rendering(
            audio,
            Timeline(),
            channels=MAX_CHANNELS,
            encoding=Encoding.PCM16,
            layout=Layout.STEREO,
            gaps=Gaps.SILENCE,
        )
        with target.open("wb", buffering=0) as file:
            for offset in range(0, rendering.size_bytes, _CHUNK_BYTES):
                file.write(rendering.read_at(offset, _CHUNK_BYTES))
    finally:
        audio.close()


def _by_decoder(decode: Callable[[bytes], bytes], source: Path, target: Path) -> None:
    with source.open("rb") as raw, wave.open(str(target), "wb") as wav:
        wav.setnchannels(MAX_CHANNELS)
        wav.setsampwidth(2)
        wav.setframerate(SAMPLE_RATE_HZ)
        while data := raw.read(_CHUNK_BYTES):
            wav.writeframes(decode(data))


def by_numpy(source: Path, target: Path) -> None:
    def decode(data: bytes) -> bytes:
        return _LINEAR.take(np.frombuffer(data, "u1")).tobytes()

    _by_decoder(decode, source, target)


def by_audioop(source: Path, target: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            import audioop
        except ImportError as error:
            raise MissingError(
                "audioop left Python with 3.13: pip install audioop-lts"
            ) from error
    _by_decoder(lambda data: audioop.ulaw2lin(data, 2), source, target)


def by_ffmpeg(source: Path, target: Path) -> None:
    form = ["-f", "mulaw", "-ar", str(SAMPLE_RATE_HZ), "-ac", str(MAX_CHANNELS)]
    made = ["-c:a", "pcm_s16le", str(target)]
    _by_program(program("ffmpeg", "ffmpeg"), *form, "-i", str(source), *made)


def by_sox(source: Path, target: Path) -> None:
    form = ["-t", "raw", "-e", "mu-law", "-b", "8", "-r", str(SAMPLE_RATE_HZ)]
    form += ["-c", str(MAX_CHANNELS), str(source)]
    made = ["-e", "signed-integer", "-b", "16", str(target)]
    _by_program(program("sox", "sox"), *form, *made)


def _by_program(*command: str) -> None:
    try:
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            timeout=_LIMIT,
            stdin=subprocess.DEVNULL,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise MissingError(f"{Path(command[0]).name} failed: {error}") from error


CONVERTERS: Final[dict[str, Callable[[Path, Path], None]]] = {
    OURS: by_audiohook,
    "audioop": by_audioop,
    "NumPy": by_numpy,
    "ffmpeg": by_ffmpeg,
    "sox": by_sox,
}


def run(bench: Bench) -> None:
    """Convert calls of all lengths by all means."""
    ours = os.sched_getaffinity(0)
    # All on one core; processes inherit it.
    os.sched_setaffinity(0, {bench.cores.server})
    try:
        with tempfile.TemporaryDirectory(
            dir=bench.folder, prefix="audiohook-bench-"
        ) as folder:
            for seconds in bench.plan.convert_seconds:
                _convert_all(bench, Path(folder), seconds)
    finally:
        os.sched_setaffinity(0, ours)


def _convert_all(bench: Bench, folder: Path, seconds: float) -> None:
    source, target = folder / "call.raw", folder / "call.wav"
    audio_bytes = round(seconds * SAMPLE_RATE_HZ) * MAX_CHANNELS
    source.write_bytes(random.Random(1).randbytes(audio_bytes))
    for name, convert in CONVERTERS.items():
        times: list[tuple[float, float]] = []
        try:
            for _ in range(_ROUNDS):
                target.unlink(missing_ok=True)
                times.append(_timed(convert, source, target))
        except MissingError as error:
            bench.results.skip(KIND, name, str(error))
            continue
        record = {
            "name": name,
            "length": seconds,
            "bytes": audio_bytes,
            "seconds": round(min(wall for wall, _ in times), 5),
            "cpu": round(min(cpu for _, cpu in times), 5),
            "faults": [] if _is_sound(source, target) else ["other samples"],
        }
        bench.results.add(KIND, record)


def _timed(
    convert: Callable[[Path, Path], None], source: Path, target: Path
) -> tuple[float, float]:
    """Returns seconds, and seconds of processor time, with that of its processes."""
    began, cpu_began = time.perf_counter(), _cpu()
    convert(source, target)
    return time.perf_counter() - began, _cpu() - cpu_began


def _cpu() -> float:
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    usages = [resource.getrusage(who) for who in whose]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _is_sound(source: Path, target: Path) -> bool:
    """Compare with the plain table, a stretch at a time."""
    with source.open("rb") as raw, wave.open(str(target), "rb") as wav:
        while data := raw.read(_CHUNK_BYTES):
            wanted = _LINEAR.take(np.frombuffer(data, "u1")).tobytes()
            if wav.readframes(len(data) // MAX_CHANNELS) != wanted:
                return False
        return not wav.readframes(1)
