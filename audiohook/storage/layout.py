"""Where everything of a call is to be found in the store."""

from __future__ import annotations

from enum import StrEnum
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from audiohook.recording.render import renderings

if TYPE_CHECKING:
    from audiohook.protocol.timeline import Timeline
    from audiohook.recording.journal import Planned
    from audiohook.recording.record import CallRecord
    from audiohook.recording.render import AudioReader, Rendering

CHANNELS: Final = ("external", "internal")
"""Names of the channels: of the customer, and of the agent."""

SUMMARY_NAME: Final = "call.json"
"""Name of a call's JSON, in the folder of the call."""

# No key has it otherwise, see `audiohook.storage.base.check_key`.
_BUCKET_MARK: Final = "@"

# NAME, audio, NAME.wav
_LEAST_PARTS: Final = 3


def in_bucket(bucket: str | None, key: str) -> str:
    """Return a key, or the beginning of one, that says in which bucket it is.

    Args:
        bucket: A bucket; None for that of the service.
        key: As it is in the bucket.
    """
    return key if bucket is None else f"{_BUCKET_MARK}{bucket}/{key}"


def split_bucket(key: str) -> tuple[str | None, str]:
    """Return what `in_bucket` was given."""
    if not key.startswith(_BUCKET_MARK):
        return None, key
    bucket, _, rest = key.removeprefix(_BUCKET_MARK).partition("/")
    return bucket, rest


def beside(known: str, key: str) -> str:
    """Return a key as a call's JSON has it with the bucket of that JSON.

    Args:
        known: A key that says in which bucket it is.
        key: One that does not.
    """
    bucket, _ = split_bucket(known)
    return in_bucket(bucket, key)


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


def peaks_key(wav_key: str) -> str:
    """Return where what the waveform of a WAV file is drawn from is: beside it.

    Args:
        wav_key: Such as ``calls/NAME/audio/NAME.wav``.
    """
    return f"{wav_key.removesuffix('.wav')}.dat"


def dialogue_key(plan: Planned) -> str:
    """Return where the text messages of a call are, if they are kept."""
    return f"{plan.prefix}{plan.name}/audio/{plan.name}.jsonl"


def summary_key(plan: Planned) -> str:
    """Return where the call's JSON is."""
    return f"{plan.prefix}{plan.name}/{SUMMARY_NAME}"


def transcript_key(wav_key: str, ending: str) -> str:
    """Return where a form of the transcript of a WAV file is.

    Args:
        wav_key: Such as ``calls/NAME/audio/NAME.wav``.
        ending: Such as ``.txt``.
    """
    path = PurePosixPath(wav_key)
    return str(path.parent.parent / "transcripts" / f"{path.stem}{ending}")


def job_key(wav_key: str) -> str:
    """Return where those who have a WAV file transcribed elsewhere keep their notes.

    Args:
        wav_key: Such as ``calls/NAME/audio/NAME.wav``.
    """
    path = PurePosixPath(wav_key)
    return str(path.parent.parent / "jobs" / f"{path.stem}.json")


def summary_key_of(wav_key: str) -> str:
    """Return where the JSON of the call is that a WAV file belongs to.

    Args:
        wav_key: Such as ``calls/NAME/audio/NAME.wav``.
    """
    return str(PurePosixPath(wav_key).parent.parent / SUMMARY_NAME)


class FileKind(StrEnum):
    """What is kept for how long; the tag of an object that rules of a bucket heed."""

    AUDIO = "audio"
    """Audio, and what is made of it alone."""
    TRANSCRIPT = "transcript"
    """What was said, and notes about who has it written down."""
    CALL = "call"
    """What is kept as long as anything of the call."""


def kind_of(key: str) -> FileKind:
    """Tell what a file of a recording is, by where it is."""
    folder = PurePosixPath(key).parent.name
    return _KINDS.get(folder, FileKind.CALL)


_KINDS: Final = {
    "audio": FileKind.AUDIO,
    "transcripts": FileKind.TRANSCRIPT,
    "jobs": FileKind.TRANSCRIPT,
}


def is_wav_key(key: str) -> bool:
    """Tell whether a key is that of a WAV file in our layout.

    It is, if it is ``…/NAME/audio/NAME.wav``, or the same with ``-external`` or
    ``-internal`` before the ending. It says nothing of what is in the file.
    """
    path = PurePosixPath(key)
    if key != str(path) or len(path.parts) < _LEAST_PARTS or path.suffix != ".wav":
        return False
    name = path.parent.parent.name
    split = {f"{name}-{channel}" for channel in CHANNELS}
    return path.parent.name == "audio" and path.stem in {name, *split}


def file_key(prefix: str, name: str, file: str) -> str | None:
    """Return where a file of a recording is in the store; None if there can be none.

    Args:
        prefix: What keys begin with.
        name: Name of the recording.
        file: Name of the file alone.
    """
    if file == SUMMARY_NAME:
        return f"{prefix}{name}/{file}"
    stem, _, ending = file.rpartition(".")
    if not stem.startswith(name):
        return None
    if ending in ("wav", "raw", "dat", "jsonl"):
        return f"{prefix}{name}/audio/{file}"
    if ending in ("json", "txt", "srt", "vtt"):
        return f"{prefix}{name}/transcripts/{file}"
    return None
