from __future__ import annotations

import io
import shutil
import struct
import subprocess
import wave
from typing import TYPE_CHECKING

import pytest

from audiohook.recording.wav import (
    TAG_PCM,
    TAG_ULAW,
    Encoding,
    WavInfo,
    header,
    read_info,
)
from tests import reference_ulaw as reference

if TYPE_CHECKING:
    from pathlib import Path

PCM16, ULAW = Encoding.PCM16, Encoding.ULAW
UNKNOWN = 0xFFFFFFFF

# The largest numbers of stereo frames whose header still fits 32 bits; the all-ones
# size itself means "unknown" and must not be written for a known one.
LAST_RIFF_PCM16 = (UNKNOWN - 1 - 36) // 4
LAST_RIFF_ULAW = (UNKNOWN - 1 - 50) // 2


def chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def riff(*chunks: bytes, kind: bytes = b"RIFF", size: int | None = None) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return kind + struct.pack("<I", len(body) if size is None else size) + body


def fmt(
    tag: int = 1,
    channels: int = 2,
    rate: int = 8000,
    bits: int = 16,
    extra: bytes = b"",
) -> bytes:
    width = channels * bits // 8
    fields = (tag, channels, rate, rate * width, width, bits)
    return chunk(b"fmt ", struct.pack("<HHIIHH", *fields) + extra)


def info_of(file: bytes) -> WavInfo:
    return read_info(io.BytesIO(file))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("frames", [0, 1, 8000])
def test_pcm16_header_is_what_the_standard_library_reads(
    channels: int, frames: int
) -> None:
    samples = bytes(range(256)) * (frames * channels * 2 // 256 + 1)
    samples = samples[: frames * channels * 2]
    head = header(PCM16, channels, frames)
    assert len(head) == 44
    with wave.open(io.BytesIO(head + samples)) as file:
        assert file.getnchannels() == channels
        assert file.getsampwidth() == 2
        assert file.getframerate() == 8000
        assert file.getnframes() == frames
        assert file.getcomptype() == "NONE"
        assert file.readframes(frames) == samples


@pytest.mark.parametrize("channels", [1, 2])
def test_pcm16_header_is_what_the_standard_library_writes(channels: int) -> None:
    samples = bytes(channels * 2 * 50)
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(samples)
    assert header(PCM16, channels, 50) + samples == target.getvalue()


@pytest.mark.parametrize(
    ("channels", "frames", "riff_size"), [(1, 3, 54), (1, 4, 54), (2, 3, 56)]
)
def test_ulaw_header_field_by_field(channels: int, frames: int, riff_size: int) -> None:
    # Three samples of mono are padded to four: the data size does not show it, the
    # RIFF size does.
    assert header(ULAW, channels, frames) == b"".join(
        (
            b"RIFF",
            struct.pack("<I", riff_size),
            b"WAVE",
            b"fmt ",
            struct.pack(
                "<IHHIIHH", 18, 7, channels, 8000, 8000 * channels, channels, 8
            ),
            struct.pack("<H", 0),
            b"fact",
            struct.pack("<II", 4, frames),
            b"data",
            struct.pack("<I", frames * channels),
        )
    )
    assert len(header(ULAW, channels, frames)) == 58


def test_last_header_that_fits_32_bits() -> None:
    head = header(PCM16, 2, LAST_RIFF_PCM16)
    assert head[:4] == b"RIFF"
    assert struct.unpack_from("<I", head, 4) == (36 + LAST_RIFF_PCM16 * 4,)
    assert struct.unpack_from("<I", head, 40) == (LAST_RIFF_PCM16 * 4,)
    head = header(ULAW, 2, LAST_RIFF_ULAW)
    assert head[:4] == b"RIFF"
    assert struct.unpack_from("<I", head, 4) == (50 + LAST_RIFF_ULAW * 2,)
    assert struct.unpack_from("<I", head, 46) == (LAST_RIFF_ULAW,)


@pytest.mark.parametrize("frames", [LAST_RIFF_PCM16 + 1, 10**12])
def test_pcm16_header_past_4_gib_field_by_field(frames: int) -> None:
    assert header(PCM16, 2, frames) == b"".join(
        (
            b"RF64",
            struct.pack("<I", UNKNOWN),
            b"WAVE",
            b"ds64",
            struct.pack("<IQQQI", 28, 72 + frames * 4, frames * 4, frames, 0),
            b"fmt ",
            struct.pack("<IHHIIHH", 16, 1, 2, 8000, 32000, 4, 16),
            b"data",
            struct.pack("<I", UNKNOWN),
        )
    )


@pytest.mark.parametrize(
    ("channels", "frames", "padded"),
    [
        (2, LAST_RIFF_ULAW + 1, (LAST_RIFF_ULAW + 1) * 2),
        (1, 5 * 10**9 + 1, 5 * 10**9 + 2),
    ],
)
def test_ulaw_header_past_4_gib_field_by_field(
    channels: int, frames: int, padded: int
) -> None:
    data = frames * channels
    assert header(ULAW, channels, frames) == b"".join(
        (
            b"RF64",
            struct.pack("<I", UNKNOWN),
            b"WAVE",
            b"ds64",
            struct.pack("<IQQQI", 28, 86 + padded, data, frames, 0),
            b"fmt ",
            struct.pack(
                "<IHHIIHH", 18, 7, channels, 8000, 8000 * channels, channels, 8
            ),
            struct.pack("<H", 0),
            b"fact",
            struct.pack("<II", 4, UNKNOWN),
            b"data",
            struct.pack("<I", UNKNOWN),
        )
    )


@pytest.mark.parametrize(("channels", "frames"), [(0, 1), (2, -1), (2, 2**60 + 1)])
def test_header_of_an_impossible_file_is_refused(channels: int, frames: int) -> None:
    with pytest.raises(ValueError, match="no such file"):
        header(PCM16, channels, frames)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("program", "package", "arguments"),
    [
        ("sox", "sox", ["{wav}", "-t", "raw", "-e", "signed", "-b", "16", "-"]),
        ("ffmpeg", "ffmpeg", ["-v", "error", "-i", "{wav}", "-f", "s16le", "-"]),
    ],
)
def test_ulaw_file_is_decoded_by_other_programs(
    tmp_path: Path, program: str, package: str, arguments: list[str], channels: int
) -> None:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed; Debian package: {package}")
    wav = tmp_path / "call.wav"
    # An odd number of bytes in mono, hence padded. Without negative zero, for which
    # some tables say -1 or -2.
    samples = bytes(code for code in range(256) if code != 0x7F)
    samples *= channels
    head = header(ULAW, channels, 255)
    wav.write_bytes(head + samples + b"\0" * (len(samples) % 2))
    result = subprocess.run(
        [path, *(argument.format(wav=wav) for argument in arguments)],
        capture_output=True,
        check=True,
    )
    assert result.stdout == reference.decode(samples)
    assert result.stderr == b""


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("encoding", list(Encoding))
def test_what_header_says_is_what_read_info_reads(
    encoding: Encoding, channels: int
) -> None:
    tag, bits = {PCM16: (TAG_PCM, 16), ULAW: (TAG_ULAW, 8)}[encoding]
    head = header(encoding, channels, 10)
    data_bytes = 10 * channels * bits // 8
    file = head + bytes(data_bytes)
    expected = WavInfo(tag, channels, 8000, bits, len(head), data_bytes)
    assert info_of(file) == expected


def test_read_info_skips_chunks_it_does_not_know() -> None:
    before = riff(chunk(b"LIST", b"odd"), fmt(), chunk(b"note", b"x" * 5))
    file = before + chunk(b"data", b"12345678") + chunk(b"LIST", b"behind")
    assert info_of(file) == WavInfo(1, 2, 8000, 16, len(before) + 8, 8)


def test_read_info_starts_at_the_start_of_the_stream() -> None:
    stream = io.BytesIO(riff(fmt(), chunk(b"data", b"1234")))
    stream.seek(7)
    assert read_info(stream).data_bytes == 4


@pytest.mark.parametrize(
    ("riff_size", "data_size"),
    [(UNKNOWN, UNKNOWN), (100, UNKNOWN), (0, 0), (100, 5_000)],
)
def test_read_info_of_an_open_size_goes_as_far_as_the_file(
    riff_size: int, data_size: int
) -> None:
    file = riff(fmt(), size=riff_size) + b"data" + struct.pack("<I", data_size)
    assert info_of(file + bytes(400)).data_bytes == 400


def test_read_info_of_an_empty_recording_with_true_sizes() -> None:
    file = riff(fmt(), chunk(b"data", b"")) + chunk(b"LIST", b"behind")
    assert info_of(file).data_bytes == 0


def test_read_info_leaves_off_a_frame_cut_short() -> None:
    assert info_of(riff(fmt(), chunk(b"data", bytes(11)))).data_bytes == 8


@pytest.mark.parametrize("kind", [b"RF64", b"BW64"])
def test_read_info_takes_64_bit_sizes(kind: bytes) -> None:
    sizes = chunk(b"ds64", struct.pack("<QQQI", 0, 8, 2, 0))
    file = riff(sizes, fmt(), b"data", kind=kind, size=UNKNOWN)
    file += struct.pack("<I", UNKNOWN) + bytes(8) + chunk(b"LIST", b"behind")
    assert info_of(file).data_bytes == 8


@pytest.mark.parametrize(("tag", "bits"), [(TAG_PCM, 16), (TAG_ULAW, 8)])
def test_read_info_looks_into_an_extensible_format(tag: int, bits: int) -> None:
    guid = struct.pack("<H", tag) + bytes.fromhex("000000001000800000aa00389b71")
    extra = struct.pack("<HHI", 22, bits, 3) + guid
    file = riff(fmt(0xFFFE, bits=bits, extra=extra), chunk(b"data", bytes(8)))
    info = info_of(file)
    assert (info.encoding_tag, info.bits, info.data_bytes) == (tag, bits, 8)


@pytest.mark.parametrize(
    ("file", "fault"),
    [
        (b"", "not a WAV file"),
        (b"RIFF", "not a WAV file"),
        (b"RIFF\x04\0\0\0AVI ", "not a WAV file"),
        (b"RIFX\x04\0\0\0WAVE", "not a WAV file"),
        (b"ID3\x03" + bytes(100), "not a WAV file"),
        (riff(), "it has no samples"),
        (riff(fmt()), "it has no samples"),
        (riff(fmt(), chunk(b"LIST", b"abcd")[:-2]), "it has no samples"),
        (riff(chunk(b"data", b"1234"), fmt()), "samples before their format"),
        (riff(chunk(b"fmt ", b"\x01\0")), "its format is cut short"),
        (riff(chunk(b"ds64", b"1234")), "64-bit sizes are cut short"),
        (riff(fmt(tag=6, bits=8)), "format 0x0006 with 8 bits; only 16-bit PCM"),
        (riff(fmt(bits=24)), "format 0x0001 with 24 bits"),
        (riff(fmt(tag=7, bits=16)), "format 0x0007 with 16 bits"),
        (riff(fmt(tag=0xFFFE)), "format 0xFFFE with 16 bits"),
        (riff(fmt(channels=0)), "0 channels at 8000 Hz"),
        (riff(fmt(rate=0)), "2 channels at 0 Hz"),
    ],
)
def test_read_info_says_why_a_file_will_not_do(file: bytes, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        info_of(file)
