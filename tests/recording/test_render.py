from __future__ import annotations

import io
import random
import wave
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiohook.errors import SpoolError
from audiohook.protocol.timeline import Gap, GapKind, Timeline
from audiohook.recording.render import Gaps, Layout, Rendering, renderings
from audiohook.recording.wav import Encoding, header
from tests import reference_ulaw as reference
from tests.recording.waveforms import summed_up

if TYPE_CHECKING:
    from collections.abc import Sequence

PCM16, ULAW = Encoding.PCM16, Encoding.ULAW
PAUSED = GapKind.PAUSED


class Audio:
    """Audio in memory, which notes what was read of it."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.reads: list[tuple[int, int]] = []

    @property
    def size_bytes(self) -> int:
        return len(self.raw)

    def read_at(self, offset: int, length: int) -> bytes:
        self.reads.append((offset, length))
        return self.raw[offset : offset + length]


class EndlessAudio:
    """Audio of any length, each byte of which follows from where it stands."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes

    def read_at(self, offset: int, length: int) -> bytes:
        length = min(length, self.size_bytes - offset)
        return bytes((offset + i) * 7 % 251 for i in range(length))


@dataclass(frozen=True)
class Plan:
    channels: int
    encoding: Encoding
    layout: Layout
    gaps: Gaps
    channel: int | None

    def render(self, audio: Audio | EndlessAudio, timeline: Timeline) -> Rendering:
        return Rendering(
            audio,
            timeline,
            channels=self.channels,
            encoding=self.encoding,
            layout=self.layout,
            gaps=self.gaps,
            channel=self.channel,
        )


def naive_frames(raw: bytes, gaps: Sequence[Gap], plan: Plan) -> list[bytes | None]:
    """Each frame of the call as received, None where there is none."""
    size = plan.channels
    audio = [raw[i : i + size] for i in range(0, len(raw) - size + 1, size)]
    if plan.gaps is Gaps.CUT:
        return list(audio)
    end = max([len(audio), *(gap.offset_samples for gap in gaps)])
    frames: list[bytes | None] = []
    for sample in range(end + 1):
        for gap in gaps:
            if gap.offset_samples == sample:
                frames += [None] * gap.length_samples
        if sample < end:
            frames.append(audio[sample] if sample < len(audio) else None)
    return frames


def naive_frame(frame: bytes | None, plan: Plan) -> bytes:
    """One frame as it stands in the file."""
    stereo = plan.channels == 2 and plan.layout is Layout.STEREO
    if frame is None:
        return (b"\0\0" if plan.encoding is PCM16 else b"\xff") * (1 + stereo)
    if plan.channels == 2 and plan.layout is Layout.MONO:
        average = sum(map(reference.linear, frame)) // 2
        values = [average]
        codes = bytes([reference.code(average)])
    else:
        codes = frame if plan.channel is None else frame[plan.channel :][:1]
        values = [reference.linear(code) for code in codes]
    return reference.pcm(values) if plan.encoding is PCM16 else codes


def naive_file(raw: bytes, gaps: Sequence[Gap], plan: Plan) -> bytes:
    """The whole file, built in memory, a frame at a time."""
    frames = [naive_frame(frame, plan) for frame in naive_frames(raw, gaps, plan)]
    stereo = plan.channels == 2 and plan.layout is Layout.STEREO
    data = b"".join(frames)
    head = header(plan.encoding, 2 if stereo else 1, len(frames))
    return head + data + b"\0" * (len(data) % 2)


PLANS = [
    Plan(channels, encoding, layout, gaps, channel)
    for channels in (1, 2)
    for encoding in Encoding
    for layout in Layout
    for gaps in Gaps
    for channel in ((0, 1) if channels == 2 and layout is Layout.SPLIT else (None,))
]
STEREO_PCM16 = Plan(2, PCM16, Layout.STEREO, Gaps.SILENCE, None)
MONO_ULAW = Plan(1, ULAW, Layout.MONO, Gaps.SILENCE, None)

gap_lists = st.lists(
    st.builds(
        Gap,
        kind=st.sampled_from(GapKind),
        offset_samples=st.integers(0, 50),
        length_samples=st.integers(0, 12),
    ),
    max_size=5,
)


@given(
    plan=st.sampled_from(PLANS),
    raw=st.binary(max_size=80),
    gaps=gap_lists,
    slices=st.lists(
        st.tuples(st.integers(0, 400), st.integers(0, 400)), min_size=1, max_size=5
    ),
)
def test_any_slice_is_that_of_a_naive_rendering(
    plan: Plan, raw: bytes, gaps: list[Gap], slices: list[tuple[int, int]]
) -> None:
    expected = naive_file(raw, gaps, plan)
    rendering = plan.render(Audio(raw), Timeline(start_samples=99, gaps=gaps))
    assert rendering.size_bytes == len(expected)
    assert rendering.frames == len(naive_frames(raw, gaps, plan))
    assert rendering.read_at(0, len(expected)) == expected
    for offset, length in slices:
        assert rendering.read_at(offset, length) == expected[offset : offset + length]


@pytest.mark.parametrize("plan", PLANS)
def test_every_slice_of_a_small_file(plan: Plan) -> None:
    raw = bytes(range(0x80, 0x80 + 7))
    gaps = [Gap(PAUSED, 0, 1), Gap(PAUSED, 2, 2), Gap(PAUSED, 9, 1)]
    expected = naive_file(raw, gaps, plan)
    rendering = plan.render(Audio(raw), Timeline(gaps=gaps))
    for offset in range(len(expected) + 2):
        for length in range(len(expected) - offset + 2):
            part = rendering.read_at(offset, length)
            assert part == expected[offset : offset + length]


@pytest.mark.parametrize("plan", PLANS)
def test_a_call_without_audio_is_a_file_without_samples(plan: Plan) -> None:
    rendering = plan.render(Audio(b""), Timeline())
    assert rendering.frames == 0
    assert rendering.read_at(0, 1000) == naive_file(b"", [], plan)


def test_the_file_is_one_the_standard_library_reads() -> None:
    raw = bytes(range(256)) * 10
    gaps = [Gap(PAUSED, 100, 50)]
    rendering = STEREO_PCM16.render(Audio(raw), Timeline(gaps=gaps))
    with wave.open(io.BytesIO(rendering.read_at(0, rendering.size_bytes))) as file:
        assert file.getnchannels() == 2
        assert file.getnframes() == rendering.frames == 1330
        assert file.readframes(100) == reference.decode(raw[:200])
        assert file.readframes(50) == bytes(200)
        assert file.readframes(1180) == reference.decode(raw[200:])


def test_silence_of_a_gap_is_silent_in_either_encoding() -> None:
    timeline = Timeline(gaps=[Gap(PAUSED, 0, 3)])
    assert STEREO_PCM16.render(Audio(b""), timeline).read_at(44, 100) == bytes(12)
    # The last byte is the pad of a chunk of odd length, no sample.
    assert MONO_ULAW.render(Audio(b""), timeline).read_at(58, 100) == b"\xff\xff\xff\0"


def test_only_the_audio_behind_a_stretch_is_read() -> None:
    audio = Audio(bytes(1000))
    timeline = Timeline(gaps=[Gap(PAUSED, 100, 50)])
    rendering = STEREO_PCM16.render(audio, timeline)
    rendering.read_at(0, 44)
    assert audio.reads == []
    rendering.read_at(44 + 90 * 4, 70 * 4)
    assert audio.reads == [(180, 20), (200, 20)]


def test_audio_that_comes_later_is_not_part_of_the_file() -> None:
    audio = Audio(b"\x80" * 20)
    timeline = Timeline()
    rendering = STEREO_PCM16.render(audio, timeline)
    before = rendering.read_at(0, rendering.size_bytes)
    audio.raw += b"\x00" * 20
    timeline.add(Gap(PAUSED, 0, 5))
    assert rendering.read_at(0, rendering.size_bytes + 100) == before


def test_audio_that_became_shorter_is_an_error_and_no_short_file() -> None:
    audio = Audio(bytes(2000))
    rendering = STEREO_PCM16.render(audio, Timeline())
    audio.raw = audio.raw[:1500]
    rendering.read_at(0, 44 + 3000)
    with pytest.raises(SpoolError, match="ends at byte 1500, short of 2000"):
        rendering.read_at(0, 44 + 4000)


@pytest.mark.parametrize(("offset", "length"), [(-1, 5), (0, -1)])
def test_a_stretch_that_cannot_be_is_refused(offset: int, length: int) -> None:
    rendering = STEREO_PCM16.render(Audio(b""), Timeline())
    with pytest.raises(ValueError, match="no such stretch"):
        rendering.read_at(offset, length)


@pytest.mark.parametrize("channels", [0, 3])
def test_other_channel_counts_are_refused(channels: int) -> None:
    plan = Plan(channels, PCM16, Layout.STEREO, Gaps.CUT, None)
    with pytest.raises(ValueError, match="1 or 2 channels"):
        plan.render(Audio(b""), Timeline())


@pytest.mark.parametrize(
    ("channels", "layout", "channel"),
    [
        (2, Layout.SPLIT, None),
        (2, Layout.SPLIT, 2),
        (2, Layout.STEREO, 0),
        (2, Layout.MONO, 1),
        (1, Layout.SPLIT, 0),
    ],
)
def test_a_channel_is_named_where_files_are_split_and_only_there(
    channels: int, layout: Layout, channel: int | None
) -> None:
    plan = Plan(channels, PCM16, layout, Gaps.CUT, channel)
    with pytest.raises(ValueError, match="is not one of"):
        plan.render(Audio(b""), Timeline())


@pytest.mark.parametrize(
    ("plan", "kind", "header_bytes"),
    [(STEREO_PCM16, b"RF64", 80), (MONO_ULAW, b"RIFF", 58)],
)
def test_a_file_past_4_gib(plan: Plan, kind: bytes, header_bytes: int) -> None:
    audio = EndlessAudio(3 * 10**9 + 1)
    gap = Gap(PAUSED, 10**9, 1_000_000)
    rendering = plan.render(audio, Timeline(gaps=[gap]))
    frames = audio.size_bytes // plan.channels + 1_000_000
    frame_bytes = 4 if plan is STEREO_PCM16 else 1
    assert rendering.frames == frames
    padded = frames * frame_bytes + frames * frame_bytes % 2
    assert rendering.size_bytes == header_bytes + padded
    assert rendering.read_at(0, 4) == kind
    # Past the gap, and past 4 GiB where the file is that long.
    sample = 1_400_000_000
    raw = audio.read_at(sample * plan.channels, 8 * plan.channels)
    expected = b"".join(
        naive_frame(raw[i : i + plan.channels], plan)
        for i in range(0, len(raw), plan.channels)
    )
    offset = header_bytes + (sample + 1_000_000) * frame_bytes
    assert rendering.read_at(offset + 3, 5) == expected[3:8]
    assert len(rendering.read_at(rendering.size_bytes - 1, 10)) == 1
    assert rendering.read_at(rendering.size_bytes, 10) == b""


def test_renderings_of_split_channels_are_named_by_channel() -> None:
    files = renderings(
        Audio(b"\x80\x00" * 4),
        Timeline(),
        channel_names=("internal", "external"),
        encoding=ULAW,
        layout=Layout.SPLIT,
        gaps=Gaps.SILENCE,
    )
    assert list(files) == ["-internal", "-external"]
    assert files["-internal"].read_at(58, 10) == b"\x80" * 4
    assert files["-external"].read_at(58, 10) == b"\x00" * 4


@pytest.mark.parametrize(
    ("names", "layout", "frame"),
    [
        (("external", "internal"), Layout.STEREO, b"\x80\x00"),
        (("external", "internal"), Layout.MONO, b"\xff"),
        (("external",), Layout.STEREO, b"\x80"),
        (("external",), Layout.SPLIT, b"\x80"),
    ],
)
def test_renderings_in_one_file_add_nothing_to_the_name(
    names: tuple[str, ...], layout: Layout, frame: bytes
) -> None:
    files = renderings(
        Audio(b"\x80\x00" * 4),
        Timeline(),
        channel_names=names,
        encoding=ULAW,
        layout=layout,
        gaps=Gaps.SILENCE,
    )
    assert list(files) == [""]
    assert files[""].read_at(58, len(frame)) == frame


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        ((), "1 or 2 channels"),
        (("a", "b", "c"), "1 or 2 channels"),
        (("external", "external"), "two channels of one name"),
    ],
)
def test_renderings_of_impossible_channels_are_refused(
    names: tuple[str, ...], fault: str
) -> None:
    with pytest.raises(ValueError, match=fault):
        renderings(
            Audio(b""),
            Timeline(),
            channel_names=names,
            encoding=PCM16,
            layout=Layout.SPLIT,
            gaps=Gaps.SILENCE,
        )


# Summing up


@given(
    plan=st.sampled_from(PLANS),
    raw=st.binary(max_size=900),
    gaps=gap_lists,
    slices=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 2000)), max_size=6),
)
def test_waveform_is_that_of_the_file_in_whatever_order_it_is_read(
    plan: Plan, raw: bytes, gaps: list[Gap], slices: list[tuple[int, int]]
) -> None:
    expected = summed_up(naive_file(raw, gaps, plan))
    rendering = plan.render(Audio(raw), Timeline(gaps=gaps))
    rendering.sum_up()
    for offset, length in slices:
        rendering.read_at(offset, length)
    assert rendering.peaks() == rendering.peaks() == expected
    # Also where nothing was read before.
    assert plan.render(Audio(raw), Timeline(gaps=gaps)).peaks() == expected


def test_file_that_was_read_is_not_read_again_to_sum_it_up() -> None:
    audio = Audio(bytes(range(256)) * 100)
    rendering = STEREO_PCM16.render(audio, Timeline(gaps=[Gap(PAUSED, 7, 1000)]))
    rendering.sum_up()
    for offset in range(0, rendering.size_bytes, 1001):
        rendering.read_at(offset, 1001)
    reads = len(audio.reads)
    assert len(rendering.peaks()) == 24 + 4 * -(-rendering.frames // 80)
    assert len(audio.reads) == reads


def test_audio_that_shrinks_while_it_is_summed_up_is_an_error() -> None:
    audio = Audio(bytes(2000))
    rendering = STEREO_PCM16.render(audio, Timeline())
    audio.raw = audio.raw[:1500]
    with pytest.raises(SpoolError, match="short of"):
        rendering.peaks()


def test_several_threads_read_what_is_summed_up_once() -> None:
    raw = bytes(random.Random(7).randbytes(400_000))
    rendering = STEREO_PCM16.render(Audio(raw), Timeline())
    rendering.sum_up()
    with ThreadPoolExecutor(4) as pool:
        for shift in range(4):
            for offset in range(0, rendering.size_bytes, 5000):
                pool.submit(rendering.read_at, offset + shift, 5000)
    alone = STEREO_PCM16.render(Audio(raw), Timeline())
    assert rendering.peaks() == alone.peaks()
