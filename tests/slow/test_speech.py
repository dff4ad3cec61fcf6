"""Recorded speech, judged by other people's decoders."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from audiohook.protocol.timeline import SAMPLE_RATE_HZ
from audiohook.recording.wav import read_info
from audiohook.simulator.client import place_call
from audiohook.simulator.options import CallOptions
from tests.house import KEY
from tests.slow.processes import Site, wav_samples, write_wav

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.house import Recording

pytestmark = pytest.mark.slow

PROMPTS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
LEAST_SECONDS = 60

_ULAW = ("-t", "raw", "-e", "mu-law", "-r", str(SAMPLE_RATE_HZ), "-c", "2")
_PCM = ("-t", "raw", "-e", "signed-integer", "-b", "16", "-L")
_FRAME_BYTES = 4


@pytest.fixture(scope="module")
def sox() -> str:
    return _tool("sox")


@pytest.fixture(scope="module")
def ffmpeg() -> str:
    return _tool("ffmpeg")


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"needs Debian's package {name}")
    return path


@pytest.fixture(scope="module")
def speech(sox: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A µ-law WAV with other prompts on each of its two channels, made by sox."""
    if not PROMPTS.is_dir():
        pytest.skip("needs Debian's package asterisk-core-sounds-en-wav")
    folder = tmp_path_factory.mktemp("speech")
    prompts = sorted(PROMPTS.glob("*.wav"))
    sides = []
    for name, chosen in (("external", prompts[::2]), ("internal", prompts[1::2])):
        side = folder / f"{name}.wav"
        _run(sox, *_enough(chosen), side)
        sides.append(side)
    audio = _run(sox, "-D", "-M", *sides, *_ULAW, "-")
    return write_wav(folder / "call.wav", audio)


def _enough(prompts: Sequence[Path]) -> Iterator[Path]:
    """Yields prompts until there is more speech than is needed."""
    wanted = (LEAST_SECONDS + 3) * SAMPLE_RATE_HZ * 2
    for prompt in prompts:
        yield prompt
        wanted -= prompt.stat().st_size
        if wanted < 0:
            return


def _run(*command: str | Path) -> bytes:
    return subprocess.run(command, check=True, capture_output=True).stdout


def _audio_of(call: Path) -> bytes:
    with call.open("rb") as stream:
        info = read_info(stream)
        stream.seek(info.data_offset)
        return stream.read(info.data_bytes)


def _check_samples(recording: Recording, sox: str, ffmpeg: str) -> bytes:
    """Compares a recording without gaps with two decoders; returns its samples."""
    (raw,) = recording.folder.glob("audio/*.raw")
    (wav,) = recording.folder.glob("audio/*.wav")
    samples = wav_samples(wav.read_bytes())
    assert samples == _run(sox, "-D", *_ULAW, raw, *_PCM, "-")
    layout = ("-f", "mulaw", "-ar", str(SAMPLE_RATE_HZ), "-ac", "2")
    assert samples == _run(
        ffmpeg, "-v", "error", *layout, "-i", raw, "-f", "s16le", "-"
    )
    # And so that the file as such is one that others can read:
    assert samples == _run(sox, "-D", wav, *_PCM, "-")
    assert samples == _run(ffmpeg, "-v", "error", "-i", wav, "-f", "s16le", "-")
    return samples


async def test_speech_is_recorded_as_others_decode_it(
    speech: Path, sox: str, ffmpeg: str, tmp_path: Path
) -> None:
    sent = _audio_of(speech)
    assert len(sent) >= LEAST_SECONDS * SAMPLE_RATE_HZ * 2
    assert sent[::2] != sent[1::2]
    site = Site(tmp_path)
    async with site.serve() as server:
        report = await place_call(
            CallOptions(
                uri=server.uri, wav=speech, api_key=KEY, fast=True, frame_seed=11
            )
        )
        assert report.ok, report.breaches
        await site.wait_stored()
    ((recording,),) = site.stored().values()
    assert recording.audio(".raw") == sent
    assert report.audio_bytes == len(sent)
    assert recording.facts["gaps"] == []
    assert recording.facts["ended"]["complete"] is True
    assert len(_check_samples(recording, sox, ffmpeg)) == 2 * len(sent)
    assert site.strays() == []


async def test_gaps_lengthen_the_speech_by_silence_and_change_nothing_else(
    speech: Path, sox: str, tmp_path: Path
) -> None:
    sent = _audio_of(speech)
    site = Site(tmp_path)
    async with site.serve() as server:
        ended = await site.command(
            *("call", server.uri, "--wav", speech, "--fast", "--vary-frames", "12"),
            *("--pause", "10:5", "--discard", "30:2.4"),
        )
        assert ended.returncode == 0, ended.stdout
        await site.wait_stored()
    ((recording,),) = site.stored().values()
    assert recording.audio(".raw") == sent
    (raw,) = recording.folder.glob("audio/*.raw")
    pcm = _run(sox, "-D", *_ULAW, raw, *_PCM, "-")
    samples = wav_samples(recording.audio(".wav"))
    assert len(samples) - len(pcm) == 59_200 * _FRAME_BYTES  # 7.4 s
    # The discarded audio stood at 30 s of the call, 5 s of which were a pause.
    first, second = 80_000 * _FRAME_BYTES, 200_000 * _FRAME_BYTES
    assert samples == (
        pcm[:first]
        + bytes(40_000 * _FRAME_BYTES)
        + pcm[first:second]
        + bytes(19_200 * _FRAME_BYTES)
        + pcm[second:]
    )
    kinds = [
        (gap["kind"], gap["startSamples"], gap["lengthSamples"])
        for gap in recording.facts["gaps"]
    ]
    assert kinds == [("paused", 80_000, 40_000), ("discarded", 240_000, 19_200)]
