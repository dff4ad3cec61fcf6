"""What sums a recording up, against one that is written for the eye."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiohook.recording._peaks import Peaks
from tests import reference_ulaw as reference
from tests.recording.waveforms import LEAST, MOST, naive_dat, span_of

if TYPE_CHECKING:
    from collections.abc import Sequence


def linear(codes: bytes) -> list[int]:
    return [reference.linear(code) for code in codes]


def cut(data: bytes, at: Sequence[int], width: int) -> list[bytes]:
    """The same in pieces of whole frames."""
    bounds = sorted({0, len(data), *(each % (len(data) + 1) for each in at)})
    bounds = [each - each % width for each in bounds]
    return [data[a:b] for a, b in zip(bounds, [*bounds[1:], len(data)], strict=True)]


@given(
    codes=st.binary(max_size=2000),
    channels=st.sampled_from([1, 2]),
    cuts=st.lists(st.integers(0, 4000), max_size=5),
    silence=st.integers(0, 500),
)
def test_peaks_of_any_audio_are_those_of_the_reference(
    codes: bytes, channels: int, cuts: list[int], silence: int
) -> None:
    codes = codes[: len(codes) - len(codes) % channels]
    ulaw, pcm = Peaks(channels), Peaks(channels)
    for piece in cut(codes, cuts, channels):
        ulaw.add_ulaw(piece)
    for piece in cut(reference.decode(codes), cuts, 2 * channels):
        pcm.add_pcm16(piece)
    values = linear(codes)
    assert ulaw.dat() == pcm.dat() == naive_dat(values, channels)
    # It may be asked for at any time, and goes on.
    for each in (ulaw, pcm):
        each.add_silence(silence)
        each.add_ulaw(codes)
    values = values + [0] * silence * channels + values
    assert ulaw.dat() == pcm.dat() == naive_dat(values, channels)
    assert ulaw.frames == len(values) // channels


@pytest.mark.parametrize("code", range(256))
def test_every_code_is_both_the_lowest_and_the_highest_of_itself(code: int) -> None:
    peaks = Peaks(1)
    peaks.add_ulaw(bytes([code]))
    assert peaks.dat()[24:] == struct.pack(
        "bb", *[int(reference.linear(code) / 256)] * 2
    )


@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=200), st.booleans())
def test_any_pcm_is_summed_up_at_any_address(values: list[int], odd: bool) -> None:
    pcm = reference.pcm(values)
    peaks = Peaks(1)
    peaks.add_pcm16(memoryview(b"\0" * odd + pcm)[odd:])
    assert peaks.dat() == naive_dat(values, 1)


@pytest.mark.parametrize("extra", [-1, 0, 1, LEAST, 123 * LEAST + 7])
@pytest.mark.parametrize("times", [1, 2, 4])
def test_spans_are_joined_where_there_would_be_too_many(times: int, extra: int) -> None:
    frames = times * MOST * LEAST + extra
    # A sound in every thousandth frame, each of another loudness, is found again.
    piece = bytes([0xFF] * 999)
    peaks = Peaks(1)
    values: dict[int, int] = {}
    at = 0
    while at < frames:
        code = at // 1000 * 37 % 256
        run = (bytes([code]) + piece)[: frames - at]
        peaks.add_ulaw(run)
        values[at] = reference.linear(code)
        at += len(run)
    data = peaks.dat()
    version, flags, rate, span, count, channels = struct.unpack_from("<iIiiIi", data)
    assert (version, flags, rate, channels) == (2, 1, 8000, 1)
    assert span == span_of(frames)
    assert count == -(-frames // span) <= MOST
    assert len(data) == 24 + 2 * count
    expected = [[0, 0] for _ in range(count)]
    for at, value in values.items():
        pair = expected[at // span]
        pair[:] = min(pair[0], int(value / 256)), max(pair[1], int(value / 256))
    assert [list(each) for each in struct.iter_unpack("bb", data[24:])] == [
        # A span of one frame alone has no silence in it.
        pair if at * span + 1 < frames else [int(values.get(at * span, 0) / 256)] * 2
        for at, pair in enumerate(expected)
    ]


def test_ten_hours_are_no_larger_than_a_few_minutes() -> None:
    peaks = Peaks(2)
    for _ in range(10):
        peaks.add_ulaw(bytes(range(256)) * 225_000)
    assert peaks.frames == 10 * 60 * 60 * 8000
    assert len(peaks.dat()) <= 24 + 4 * MOST == 24 + 128 * 1024
    # 0x00 and 0x80 in one channel, 0x01 and 0x81 in the other.
    assert set(struct.iter_unpack("bbbb", peaks.dat()[24:])) == {(-125, 125, -121, 121)}


def test_silence_of_years_is_taken_in_at_once() -> None:
    peaks = Peaks(2)
    peaks.add_silence(2**40)
    assert peaks.frames == 2**40
    assert set(peaks.dat()[24:]) == {0}


def test_nothing_has_no_spans() -> None:
    assert Peaks(2).dat() == struct.pack("<iIiiIi", 2, 1, 8000, 80, 0, 2)


def test_frames_that_are_not_whole_are_refused() -> None:
    with pytest.raises(ValueError, match="not whole frames of 2 bytes"):
        Peaks(2).add_ulaw(b"\xff")
    with pytest.raises(ValueError, match="not whole frames of 4 bytes"):
        Peaks(2).add_pcm16(b"\0" * 6)
    with pytest.raises(ValueError, match="silence"):
        Peaks(1).add_silence(-1)
    for channels in (0, 3):
        with pytest.raises(ValueError, match="1 or 2 channels"):
            Peaks(channels)
