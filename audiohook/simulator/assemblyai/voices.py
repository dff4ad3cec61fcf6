"""Who speaks when in a WAV file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from audiohook import _ulaw
from audiohook.recording.wav import TAG_PCM, read_info

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import BinaryIO

    from audiohook.recording.wav import WavInfo

# RMS, of full scale 32,768, at which a voice is taken to begin (-44 dBFS) and
# to have ended (-50 dBFS): above the noise of a telephone line, below speech.
_LOUD_RMS = 200.0
_QUIET_RMS = 100.0
_WINDOW_MS = 20
# Shorter sounds are clicks.
_SHORTEST_MS = 40
# Pauses up to this are between syllables.
_SYLLABLE_GAP_MS = 100
# Longer pauses end an utterance.
_TURN_GAP_MS = 600
_WINDOWS_A_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time, in milliseconds from the start of the audio."""

    start_ms: int
    end_ms: int

    @property
    def length_ms(self) -> int:
        """How long it is."""
        return self.end_ms - self.start_ms


@dataclass(frozen=True, slots=True)
class Hearing:
    """What was heard in some audio.

    Attributes:
        duration: Length of the audio in seconds.
        voices: For each channel, when there was a voice, in order.
    """

    duration: float
    voices: tuple[tuple[Span, ...], ...]

    @property
    def speech_share(self) -> float:
        """How much of the time anybody speaks, between 0 and 1."""
        spoken_ms = sum(span.length_ms for span in self.mixed().voices[0])
        return min(1.0, spoken_ms / 1000 / self.duration) if self.duration else 0.0

    def mixed(self) -> Hearing:
        """What is heard when all channels are one."""
        spans = sorted(
            (span for channel in self.voices for span in channel),
            key=lambda span: span.start_ms,
        )
        return Hearing(self.duration, (_join(spans, gap_ms=0),))

    def between(self, start_ms: int, end_ms: int | None) -> Hearing:
        """What is heard in a part of the audio.

        Args:
            start_ms: Where it begins.
            end_ms: Where it ends; None for the end of the audio.
        """
        last_ms = round(self.duration * 1000) if end_ms is None else end_ms
        cut = tuple(
            tuple(
                Span(max(span.start_ms, start_ms), min(span.end_ms, last_ms))
                for span in channel
                if span.end_ms > start_ms and span.start_ms < last_ms
            )
            for channel in self.voices
        )
        return Hearing(self.duration, cut)


def listen(stream: BinaryIO) -> Hearing:
    """Finds the voices in a WAV file.

    It reads the file in pieces, so that its length does not matter. Where a voice
    begins and ends is right within some 20 ms.

    Args:
        stream: Seekable.

    Raises:
        ValueError: It is no WAV file of 16-bit PCM or µ-law.
    """
    info = read_info(stream)
    sample_bytes = info.bits // 8
    frame_bytes = info.channels * sample_bytes
    window_frames = max(1, info.rate_hz * _WINDOW_MS // 1000)
    detectors = [_Detector() for _ in range(info.channels)]
    stream.seek(info.data_offset)
    left_bytes = info.data_bytes
    block_bytes = window_frames * frame_bytes * _WINDOWS_A_BLOCK
    while left_bytes:
        block = stream.read(min(block_bytes, left_bytes))
        if not block:
            break
        left_bytes -= len(block)
        # The kernel measures µ-law; what that coarsens does not matter here.
        codes = _ulaw.encode(block) if info.encoding_tag == TAG_PCM else block
        _measure(codes, info, window_frames, detectors)
    window_ms = 1000 * window_frames / info.rate_hz
    return Hearing(
        info.data_bytes / frame_bytes / info.rate_hz,
        tuple(detector.finish(window_ms) for detector in detectors),
    )


def turns(spans: Sequence[Span]) -> list[tuple[Span, ...]]:
    """Groups a channel's voice into utterances, by its pauses."""
    grouped: list[list[Span]] = []
    for span in spans:
        if grouped and span.start_ms - grouped[-1][-1].end_ms < _TURN_GAP_MS:
            grouped[-1].append(span)
        else:
            grouped.append([span])
    return [tuple(group) for group in grouped]


def _measure(
    codes: bytes, info: WavInfo, window_frames: int, detectors: Sequence[_Detector]
) -> None:
    """Feeds a block of µ-law to the detectors, window by window."""
    for channel, detector in enumerate(detectors):
        alone = memoryview(codes[channel :: info.channels])
        for start in range(0, len(alone), window_frames):
            ((_, rms),) = _ulaw.peak_rms(alone[start : start + window_frames], 1)
            detector.feed(rms)


def _join(spans: Iterable[Span], gap_ms: int) -> tuple[Span, ...]:
    """Makes one of spans that overlap or follow closely."""
    joined: list[Span] = []
    for span in spans:
        if joined and span.start_ms - joined[-1].end_ms <= gap_ms:
            end_ms = max(joined[-1].end_ms, span.end_ms)
            joined[-1] = Span(joined[-1].start_ms, end_ms)
        else:
            joined.append(span)
    return tuple(joined)


class _Detector:
    """Tells voice from silence in one channel.

    A voice is there from the first window that is not quiet before a loud one, to
    the last that is not quiet after it.
    """

    def __init__(self) -> None:
        self._windows = 0
        self._begun: int | None = None
        self._is_loud = False
        # First window and the one behind the last.
        self._found: list[tuple[int, int]] = []

    def feed(self, rms: float) -> None:
        """Takes the level of the next window."""
        if rms < _QUIET_RMS:
            self._close()
        elif self._begun is None:
            self._begun = self._windows
        self._is_loud = self._is_loud or rms >= _LOUD_RMS
        self._windows += 1

    def finish(self, window_ms: float) -> tuple[Span, ...]:
        """Gives all that was found."""
        self._close()
        spans = (
            Span(round(first * window_ms), round(behind * window_ms))
            for first, behind in self._found
        )
        joined = _join(spans, _SYLLABLE_GAP_MS)
        return tuple(span for span in joined if span.length_ms >= _SHORTEST_MS)

    def _close(self) -> None:
        if self._begun is not None and self._is_loud:
            self._found.append((self._begun, self._windows))
        self._begun = None
        self._is_loud = False
