"""What becomes of the WAV files of a call that is stored.

Whoever transcribes elsewhere has not got the call's audio as received, so what is
not worth a transcript is found out here for him too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from audiohook import _ulaw
from audiohook.call_settings import Mode, Source
from audiohook.protocol.timeline import SAMPLE_RATE_HZ
from audiohook.recording.render import Layout
from audiohook.recording.transcripts import Choice, TranscriptPlanned
from audiohook.transcription.parameters import peak_dbfs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from audiohook.recording.record import CallRecord
    from audiohook.recording.render import AudioReader, Rendering
    from audiohook.recording.spooled import SpooledCall
    from audiohook.transcription.parameters import Parameters

MIB: Final = 1024 * 1024

# Somebody is to ask for a transcript, here or elsewhere.
_WANTED: Final = (Choice.TRANSCRIBE, Choice.ELSEWHERE)
# It is looked at in stretches of so many bytes, an even number.
_CHUNK_BYTES: Final = MIB


@dataclass(frozen=True, slots=True)
class WavFile:
    """A WAV file as far as it matters here.

    Attributes:
        key: Its key.
        channels: Names of its channels, in order; none if they are mixed.
        seconds: Its length.
        peak: The largest magnitude of its samples, from 0 to 32,768.
    """

    key: str
    channels: tuple[str, ...]
    seconds: float
    peak: int


class Planner:
    """Decides which calls get a transcript.

    Args:
        choice: What becomes of all that are worth one.
        reason: Why, unless they get one here.
        parameters: Say which are not worth one.
    """

    def __init__(
        self, choice: Choice, reason: str | None, parameters: Parameters
    ) -> None:
        self._choice = choice
        self._reason = reason
        self._parameters = parameters
        # Looking through a call keeps a core busy.
        self._threads = trio.CapacityLimiter(1)

    async def plan(
        self, call: SpooledCall, wavs: Mapping[str, Rendering]
    ) -> list[TranscriptPlanned]:
        """Decide on a call that is planned and stored.

        Args:
            call: It; its audio is read.
            wavs: Its WAV files by their keys.

        Returns:
            One decision a file.

        Raises:
            SpoolError: The audio cannot be read.
        """
        record = call.record
        peaks = [0] * record.frame_bytes
        own = record.opened.settings
        if own is not None and own.mode is Mode.RECORD:
            by = own.sources.get("mode", Source.SERVICE)
            reason = f"only the recording is wanted, by {by}"
            return [
                TranscriptPlanned(each.key, Choice.OFF, reason, each.channels)
                for each in _files(record, wavs, peaks)
            ]
        if self._choice in _WANTED:
            peaks = await trio.to_thread.run_sync(
                partial(_peaks, call, record.frame_bytes), limiter=self._threads
            )
        return [self._decide(record, each) for each in _files(record, wavs, peaks)]

    def _decide(self, record: CallRecord, file: WavFile) -> TranscriptPlanned:
        choice, reason = self._choice, self._reason
        if choice in _WANTED:
            peak = peak_dbfs(file.peak)
            skipped = self._parameters.reason_to_skip(file.seconds, peak)
            if skipped is not None:
                choice, reason = Choice.SKIP, skipped
        language = record.opened.language
        if language is None and record.languages:
            language = record.languages[0].language
        planned = TranscriptPlanned(file.key, choice, reason, file.channels, language)
        own = record.opened.settings
        if own is None:
            return planned
        return replace(
            planned,
            chosen_language=own.language,
            parameters=own.transcription,
            deletes_audio=own.mode is Mode.TRANSCRIBE,
        )


def _files(
    record: CallRecord, wavs: Mapping[str, Rendering], peaks: Sequence[int]
) -> list[WavFile]:
    names = record.opened.media.channels
    seconds = [wav.frames / SAMPLE_RATE_HZ for wav in wavs.values()]
    if len(wavs) == len(names):
        return [
            WavFile(key, (name,), length, peak)
            for key, name, length, peak in zip(wavs, names, seconds, peaks, strict=True)
        ]
    plan = record.planned
    is_mixed = plan is not None and plan.layout is Layout.MONO
    (key,) = wavs
    return [WavFile(key, () if is_mixed else names, seconds[0], max(peaks))]


def _peaks(audio: AudioReader, channels: int) -> list[int]:
    """Find the largest magnitude in each channel. It blocks."""
    peaks = [0] * channels
    size_bytes = audio.size_bytes
    for offset in range(0, size_bytes, _CHUNK_BYTES):
        raw = audio.read_at(offset, min(_CHUNK_BYTES, size_bytes - offset))
        levels = _ulaw.peak_rms(raw, channels)
        peaks = [max(peak, level[0]) for peak, level in zip(peaks, levels, strict=True)]
    return peaks
