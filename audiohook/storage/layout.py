"""Where everything of a call is to be found in the store."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from audiohook.recording.render import renderings

if TYPE_CHECKING:
    from audiohook.protocol.timeline import Timeline
    from audiohook.recording.journal import CallRecord, Planned
    from audiohook.recording.render import AudioReader, Rendering


def wav_files(
    record: CallRecord, audio: AudioReader, timeline: Timeline, plan: Planned
) -> dict[str, Rendering]:
    """Make the WAV files of a call.

    Args:
        record: The call.
        audio: Its audio, which is read only when the files are.
        timeline: Its gaps.
        plan: How it is stored.

    Returns:
        The files by their keys.
    """
    name = plan.name
    files = renderings(
        audio,
        timeline,
        channel_names=record.opened.media.channels,
        encoding=plan.encoding,
        layout=plan.layout,
        gaps=plan.gaps,
    )
    start = f"{plan.prefix}{name}/audio/{name}"
    return {f"{start}{suffix}.wav": wav for suffix, wav in files.items()}


def raw_key(plan: Planned) -> str:
    """Return where the audio as received is."""
    return f"{plan.prefix}{plan.name}/audio/{plan.name}.raw"


def summary_key(plan: Planned) -> str:
    """Return where the call's JSON is."""
    return f"{plan.prefix}{plan.name}/call.json"


def transcript_key(wav_key: str, ending: str) -> str:
    """Return where a form of the transcript of a WAV file is.

    Args:
        wav_key: Such as ``calls/NAME/audio/NAME.wav``.
        ending: Such as ``.txt``.
    """
    path = PurePosixPath(wav_key)
    return str(path.parent.parent / "transcripts" / f"{path.stem}{ending}")
