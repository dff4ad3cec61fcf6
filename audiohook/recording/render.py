"""Any byte range of a call's WAV file, made from its audio and its timeline.

The file exists nowhere until its bytes are asked for, so neither memory nor disk
grows with the length of a call, and an upload can begin anywhere in it.
"""

from __future__ import annotations

import threading
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

from audiohook import _ulaw
from audiohook.errors import SpoolError
from audiohook.recording._peaks import Peaks
from audiohook.recording.wav import Encoding, header

if TYPE_CHECKING:
    from collections.abc import Sequence

    from audiohook.protocol.timeline import Run, Timeline


# What is read at a time of a file that is only to be summed up.
_STRETCH_FRAMES: Final = 256 * 1024


class Layout(StrEnum):
    """How the two channels of a call are laid out in files."""

    STEREO = "stereo"
    """One file, both channels in the order in which they came."""
    MONO = "mono"
    """One file, the average of both channels."""
    SPLIT = "split"
    """One mono file a channel."""


class Gaps(StrEnum):
    """What becomes of a gap."""

    SILENCE = "silence"
    """Silence of the same length, so that times in the file are those of the call."""
    CUT = "cut"
    """Nothing: the file holds only what came."""


class AudioReader(Protocol):
    """Where the audio of a call is read from: µ-law, channels interleaved."""

    @property
    def size_bytes(self) -> int:
        """How much there is, in bytes."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Read so many bytes from there on; fewer only at the end."""


class Rendering:
    """The WAV file of a call that has ended, as bytes that can be read anywhere.

    What there is of audio is looked at once, when the rendering is made: all sizes
    are final from then on, a last frame of which not all channels came is left off,
    and gaps past the end of the audio are moved as `Timeline.clamped` says. So it
    may be read from several threads, as far as the reader may.

    Args:
        audio: The call's audio.
        timeline: The call's gaps.
        channels: Channels in the audio, 1 or 2. One channel is one channel in every
            layout.
        encoding: How samples stand in the file.
        layout: What becomes of two channels.
        gaps: What becomes of gaps.
        channel: Which channel this is the file of; for two channels and
            `Layout.SPLIT` only, and needed there.

    Raises:
        ValueError: ``channels`` or ``channel`` is not as said above.
    """

    __slots__ = (
        "_audio",
        "_channel",
        "_channels",
        "_cut",
        "_data_bytes",
        "_encoding",
        "_frame_bytes",
        "_frames",
        "_header",
        "_layout",
        "_peaks",
        "_peaks_lock",
        "_size",
        "_stored",
        "_timeline",
    )

    def __init__(
        self,
        audio: AudioReader,
        timeline: Timeline,
        *,
        channels: int,
        encoding: Encoding,
        layout: Layout,
        gaps: Gaps,
        channel: int | None = None,
    ) -> None:
        if channels not in (1, 2):
            raise ValueError(f"a call has 1 or 2 channels, not {channels}")
        wanted = (0, 1) if channels == 2 and layout is Layout.SPLIT else (None,)
        if channel not in wanted:
            raise ValueError(
                f"channel {channel} is not one of {wanted} "
                f"for {channels} channels laid out as {layout}"
            )
        self._audio = audio
        self._channels = channels
        self._encoding = encoding
        self._layout = layout
        self._channel = channel
        self._cut = gaps is Gaps.CUT
        self._stored = audio.size_bytes // channels
        self._timeline = timeline.clamped(self._stored)
        self._frames = self._timeline.total_samples(self._stored, cut=self._cut)
        file_channels = self._file_channels
        self._frame_bytes = file_channels * encoding.sample_bytes
        self._data_bytes = self._frames * self._frame_bytes
        self._header = header(encoding, file_channels, self._frames)
        # Chunks have an even length; the pad byte is not part of the samples.
        self._size = len(self._header) + self._data_bytes + self._data_bytes % 2
        self._peaks: Peaks | None = None
        self._peaks_lock = threading.Lock()

    @property
    def size_bytes(self) -> int:
        """Length of the whole file."""
        return self._size

    @property
    def frames(self) -> int:
        """Samples per channel in the file."""
        return self._frames

    def read_at(self, offset: int, length: int) -> bytes:
        """Make a stretch of the file. It blocks; call it from a worker thread.

        The cost is one reading of the audio behind the stretch and one pass over it,
        wherever in the file it lies.

        Args:
            offset: First byte wanted.
            length: Bytes wanted; those past the end of the file are left off.

        Returns:
            Exactly those bytes of the file.

        Raises:
            ValueError: ``offset`` or ``length`` is negative.
            SpoolError: The audio has become shorter than it was.
        """
        if offset < 0 or length < 0:
            raise ValueError(f"no such stretch: {length} bytes from {offset} on")
        end = min(offset + length, self._size)
        data_start = len(self._header)
        data_end = data_start + self._data_bytes
        parts = []
        if offset < min(end, data_start):
            parts.append(self._header[offset:end])
        first, last = max(offset, data_start), min(end, data_end)
        if first < last:
            parts += self._samples(first - data_start, last - data_start)
        if max(offset, data_end) < end:
            parts.append(b"\0")
        # One part alone, as is the rule within a file, is not copied here.
        return b"".join(parts)

    # Summing up

    def sum_up(self) -> None:
        """From now on, sum up in passing what is read of the file from its start on."""
        self._peaks = self._peaks or Peaks(self._file_channels)

    def peaks(self) -> bytes:
        """Make the file that the waveform is drawn from. It blocks.

        Since `sum_up`, whatever was read in order is done; the rest is read now.

        Returns:
            What `audiohook.recording._peaks.Peaks.dat` describes.

        Raises:
            SpoolError: The audio has become shorter than it was.
        """
        self.sum_up()
        peaks = self._peaks
        assert peaks is not None
        while (first := peaks.frames) < self._frames:
            count = min(_STRETCH_FRAMES, self._frames - first)
            here = first
            runs = self._timeline.runs(self._stored, first, count, cut=self._cut)
            for run in runs:
                self._render(run, here)
                here += run.length_samples
        with self._peaks_lock:
            return peaks.dat()

    def _sum_up(self, samples: bytes | None, here: int, frames: int) -> None:
        """Take in what follows to what was taken in before, and nothing else.

        Args:
            samples: As received if they are plain, else as in the file; None if it
                is silence.
            here: Frame of the file with which they begin.
            frames: How many there are.
        """
        peaks = self._peaks
        if peaks is None:
            return
        # Several threads may read; one part of the file may be read twice.
        with self._peaks_lock:
            known = peaks.frames - here
            if not 0 <= known < frames:
                return
            if samples is None:
                peaks.add_silence(frames - known)
                return
            fresh = memoryview(samples)[known * len(samples) // frames :]
            if self._is_plain or self._encoding is Encoding.ULAW:
                peaks.add_ulaw(fresh)
            else:
                peaks.add_pcm16(fresh)

    # Samples

    @property
    def _is_plain(self) -> bool:
        """Whether samples are in the file in the order in which they came."""
        return self._channels == 1 or self._layout is Layout.STEREO

    @property
    def _file_channels(self) -> int:
        return self._channels if self._layout is Layout.STEREO else 1

    def _samples(self, start: int, end: int) -> list[bytes]:
        """Make the bytes from ``start`` to ``end`` of the samples, in pieces."""
        first, skipped = divmod(start, self._frame_bytes)
        count = -(-end // self._frame_bytes) - first
        runs = self._timeline.runs(self._stored, first, count, cut=self._cut)
        parts, here = [], first
        for run in runs:
            parts.append(self._render(run, here))
            here += run.length_samples
        # Cut off the other bytes of a first and last frame wanted only in part; the
        # end first, as both may be the same.
        surplus = (first + count) * self._frame_bytes - end
        if surplus:
            parts[-1] = parts[-1][:-surplus]
        if skipped:
            parts[0] = parts[0][skipped:]
        return parts

    def _render(self, run: Run, here: int) -> bytes:
        """Make the samples of one run, as they stand in the file.

        Args:
            run: Where they come from.
            here: Frame of the file with which it begins.
        """
        if run.offset_samples is None:
            self._sum_up(None, here, run.length_samples)
            silence = b"\0" if self._encoding is Encoding.PCM16 else b"\xff"
            return silence * (run.length_samples * self._frame_bytes)
        offset = run.offset_samples * self._channels
        length = run.length_samples * self._channels
        raw = self._audio.read_at(offset, length)
        if len(raw) != length:
            raise SpoolError(
                f"the audio ends at byte {offset + len(raw)}, short of {offset + length}"
            )
        samples = self._convert(raw)
        self._sum_up(raw if self._is_plain else samples, here, run.length_samples)
        return samples

    def _convert(self, raw: bytes) -> bytes:
        """Turn audio as received into audio as it stands in the file."""
        linear = self._encoding is Encoding.PCM16
        if self._is_plain:
            return _ulaw.decode(raw) if linear else raw
        if self._channel is None:
            return _ulaw.mix(raw) if linear else _ulaw.mix_ulaw(raw)
        both = _ulaw.split(raw) if linear else _ulaw.deinterleave(raw)
        return both[self._channel]


def renderings(
    audio: AudioReader,
    timeline: Timeline,
    *,
    channel_names: Sequence[str],
    encoding: Encoding,
    layout: Layout,
    gaps: Gaps,
) -> dict[str, Rendering]:
    """Make all WAV files of a call.

    Args:
        audio: The call's audio.
        timeline: The call's gaps.
        channel_names: Names of its channels, such as ``external`` and ``internal``,
            in the order in which they are interleaved.
        encoding: How samples stand in the files.
        layout: What becomes of two channels.
        gaps: What becomes of gaps.

    Returns:
        Renderings by what is to be added to the call's name: one with nothing
        added, or, for two channels that are split, one a channel with ``-external``
        and ``-internal``.

    Raises:
        ValueError: There are neither one nor two names, or twice the same.
    """
    if len(set(channel_names)) != len(channel_names):
        raise ValueError("two channels of one name")

    def rendering(channel: int | None) -> Rendering:
        return Rendering(
            audio,
            timeline,
            channels=len(channel_names),
            encoding=encoding,
            layout=layout,
            gaps=gaps,
            channel=channel,
        )

    if layout is Layout.SPLIT and len(channel_names) == 2:
        return {f"-{name}": rendering(i) for i, name in enumerate(channel_names)}
    return {"": rendering(None)}
