from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from audiohook import _ulaw
from audiohook.errors import ConfigError
from audiohook.simulator.options import STEREO
from audiohook.simulator.source import AudioSource, conversation, load_wav
from tests.simulator.fake_server import write_ulaw_wav

if TYPE_CHECKING:
    from pathlib import Path

    from audiohook.protocol.messages import Channel

EXTERNAL, INTERNAL = STEREO


def write_pcm_wav(
    path: Path, channels: int, rate: int, pcm: bytes, bits: int = 16
) -> None:
    width = channels * bits // 8
    fmt = struct.pack("<HHIIHH", 1, channels, rate, rate * width, width, bits)
    chunks = b"fmt " + struct.pack("<I", len(fmt)) + fmt
    chunks += b"data" + struct.pack("<I", len(pcm)) + pcm
    path.write_bytes(b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WAVE" + chunks)


@pytest.mark.parametrize(("channels", "names"), [(1, (EXTERNAL,)), (2, STEREO)])
def test_ulaw_is_taken_as_it_is(
    tmp_path: Path, channels: int, names: tuple[Channel, ...]
) -> None:
    audio = write_ulaw_wav(tmp_path / "a.wav", channels, 1001)
    source = load_wav(tmp_path / "a.wav")
    assert source.channels == names
    assert source.total_samples == 1001
    assert source.read(1000) + source.read(1000) == audio
    assert source.read(1) == b""


def test_pcm_is_encoded(tmp_path: Path) -> None:
    pcm = struct.pack("<6h", 0, 1884, -1884, 32124, -32124, 8)
    write_pcm_wav(tmp_path / "a.wav", 2, 8000, pcm)
    source = load_wav(tmp_path / "a.wav", (INTERNAL, EXTERNAL))
    assert source.channels == (INTERNAL, EXTERNAL)
    assert source.read(3) == _ulaw.encode(pcm) == bytes.fromhex("ff c0 40 80 00 fe")


@pytest.mark.parametrize(
    ("channels", "rate", "bits", "words"),
    [(2, 44_100, 16, "44100 Hz"), (3, 8000, 16, "3 channels"), (1, 8000, 8, "8 bits")],
)
def test_other_kinds_are_refused_with_the_way_to_convert_them(
    tmp_path: Path, channels: int, rate: int, bits: int, words: str
) -> None:
    path = tmp_path / "a.wav"
    write_pcm_wav(path, channels, rate, bytes(48), bits)
    with pytest.raises(ConfigError, match=words) as caught:
        load_wav(path)
    assert f"Convert it with: sox {path} -r 8000 -c 2 -b 16" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"ID3\x03" + bytes(100)])
def test_no_wav_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.wav"):
        load_wav(tmp_path / "a.wav")


def test_missing_file_and_wrong_number_of_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_wav(tmp_path / "none.wav")
    write_ulaw_wav(tmp_path / "a.wav", 2, 10)
    with pytest.raises(ConfigError, match=r"2 channel\(s\), but 1"):
        load_wav(tmp_path / "a.wav", (EXTERNAL,))


def test_source_repeats_what_is_too_short() -> None:
    source = AudioSource(b"abcdef", STEREO, 8)
    assert [source.read(n) for n in (2, 5, 5)] == [b"abcd", b"efabcdefab", b"cd"]


def test_one_channel_of_two() -> None:
    source = AudioSource(b"aAbBcC", STEREO, 5)
    source.read(1)
    assert source.only(STEREO).read(5) == b"aAbBcCaAbB"
    assert source.only([INTERNAL]).read(5) == b"ABCAB"
    assert source.only([EXTERNAL]).channels == (EXTERNAL,)


def test_built_in_voices_take_turns() -> None:
    source = conversation(8.0)
    audio = source.read(64_000)
    assert len(audio) == 128_000
    for seconds, speaks in ((2, 0), (6, 1)):
        levels = _ulaw.peak_rms(audio[seconds * 16_000 : (seconds + 1) * 16_000], 2)
        assert levels[speaks][1] > 1000
        assert levels[1 - speaks] == (0, 0)


def test_built_in_voice_of_one_channel() -> None:
    assert conversation(1.0, (INTERNAL,)).read(8000) == b"\xff" * 8000
    assert conversation(0.5).total_samples == 4000
