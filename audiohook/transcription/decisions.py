"""What was decided on a WAV file in a bucket, read from what lies beside it.

The process that recorded the call has written it into the call's JSON: whether the
file is worth a transcript, who is to ask for it, whose channels they are and in
which order, and the language. That JSON is stored after the WAV, so it may be a
moment late.

A WAV of another recorder that keeps the same layout has no such JSON. Its header
and its metadata have to do.
"""

from __future__ import annotations

import io
import json
import math
import re
from typing import TYPE_CHECKING, Final

from audiohook.call_settings import Mode
from audiohook.errors import UnfinishedError, UploadError
from audiohook.recording.fields import Fields
from audiohook.recording.render import Layout
from audiohook.recording.transcripts import Choice, JobStatus, TranscriptPlanned
from audiohook.recording.wav import read_info
from audiohook.storage.layout import CHANNELS, beside, summary_key_of

if TYPE_CHECKING:
    from audiohook.storage.base import DescribedStore, FoundObject
    from audiohook.transcription.parameters import Parameters

SECONDS = 1.0
KIB: Final = 1024

# The call's JSON follows its WAV at once, unless the recorder is in trouble.
_SUMMARY_LATE: Final = 15 * SECONDS
# Ours is much shorter; others put text before the samples.
_HEAD_BYTES: Final = 64 * KIB
_MONO, _STEREO = 1, 2
# Nothing is known of how loud it is.
_LOUD: Final = 0.0
_OURS: Final = "session-id"
_NAME: Final = re.compile(r"[a-z0-9_-]{1,32}")
_UNKNOWN: Final = "unknown"
_LANGUAGE: Final = re.compile(r"[A-Za-z0-9_-]{2,35}")

# What the recorder says of a file that is left to us.
_LEFT_TO_US: Final = frozenset({JobStatus.ELSEWHERE, JobStatus.OFF})


async def decide(
    store: DescribedStore, wav_key: str, parameters: Parameters
) -> TranscriptPlanned | None:
    """Find out what is to become of a WAV file.

    Args:
        store: Where it is.
        wav_key: Its key.
        parameters: Say what is not worth a transcript, if nobody has decided.

    Returns:
        The decision; with `Choice.ELSEWHERE` somebody else sees to it. None if
        there is no such file any more.

    Raises:
        UnfinishedError: The call's JSON is not there yet.
        UploadError: The store did not do as asked, or the JSON cannot be
            understood.
    """
    wav = await store.head(wav_key)
    if wav is None:
        return None
    summary = await store.read(summary_key_of(wav_key))
    if summary is not None:
        return _from_summary(summary, wav_key)
    if _OURS in wav.metadata:
        raise UnfinishedError(
            f"{summary_key_of(wav_key)} is not there yet", seconds=_SUMMARY_LATE
        )
    head = await store.read_range(wav_key, 0, _HEAD_BYTES) if wav.size else b""
    return _from_file(wav, head, wav_key, parameters)


def _from_summary(summary: bytes, wav_key: str) -> TranscriptPlanned:
    try:
        return _planned(Fields(json.loads(summary)), wav_key)
    except (ValueError, RecursionError) as exc:
        raise UploadError(
            f"{summary_key_of(wav_key)} cannot be understood ({exc}): mend or remove it",
            retryable=False,
        ) from exc


def _planned(fields: Fields, wav_key: str) -> TranscriptPlanned:
    for value in fields.items("transcripts"):
        entry = Fields(value)
        if beside(wav_key, entry.text("audio")) == wav_key:
            break
    else:
        raise ValueError(f"it does not name {wav_key}")
    status = JobStatus(entry.text("status"))
    if status is JobStatus.SKIPPED:
        return TranscriptPlanned(wav_key, Choice.SKIP, entry.optional_text("reason"))
    mode = Fields(fields.optional_object("settings")).optional_object("mode")
    if mode.get("value") == Mode.RECORD:
        return TranscriptPlanned(wav_key, Choice.OFF, entry.optional_text("reason"))
    if status not in _LEFT_TO_US:
        reason = "the process that recorded it sees to it"
        return TranscriptPlanned(wav_key, Choice.ELSEWHERE, reason)
    return as_planned(fields, wav_key)


def as_planned(summary: Fields, wav_key: str) -> TranscriptPlanned:
    """Plan a transcript, whatever was decided when the call was stored.

    Args:
        summary: The call's JSON.
        wav_key: Key of one of its files.

    Raises:
        ValueError: The JSON is none of ours.
    """
    own = Fields(summary.optional_object("settings"))
    return TranscriptPlanned(
        wav_key,
        Choice.TRANSCRIBE,
        channels=_channels(summary, wav_key),
        language=_language(summary),
        chosen_language=Fields(own.optional_object("language")).optional_text("value"),
        parameters=Fields(own.optional_object("transcription")).optional_object(
            "value"
        ),
        deletes_audio=own.optional_object("mode").get("value") == Mode.TRANSCRIBE,
    )


def _channels(fields: Fields, wav_key: str) -> tuple[str, ...]:
    names = tuple(str(name) for name in fields.nested("media").items("channels"))
    match fields.nested("recording").text("layout"):
        case Layout.MONO if len(names) == _STEREO:
            return ()
        case Layout.SPLIT if len(names) == _STEREO:
            stem = wav_key.removesuffix(".wav")
            return tuple(name for name in names if stem.endswith(f"-{name}"))
    return names


def _language(fields: Fields) -> str | None:
    language = fields.optional_text("language")
    changes = fields.items("languageChanges")
    if language is None and changes:
        language = Fields(changes[0]).text("language")
    return language


def _from_file(
    wav: FoundObject, head: bytes, wav_key: str, parameters: Parameters
) -> TranscriptPlanned:
    channels, seconds = _measure(head, wav.size)
    reason = parameters.reason_to_skip(seconds, _LOUD)
    if reason is not None:
        return TranscriptPlanned(wav_key, Choice.SKIP, reason)
    names = tuple(wav.metadata.get("channels", "").split(","))
    if len(names) != channels or not all(_NAME.fullmatch(name) for name in names):
        # Genesys puts the customer first.
        names = CHANNELS if channels == _STEREO else ()
    language = wav.metadata.get("language", _UNKNOWN)
    if language == _UNKNOWN or not _LANGUAGE.fullmatch(language):
        return TranscriptPlanned(wav_key, Choice.TRANSCRIBE, channels=names)
    return TranscriptPlanned(
        wav_key, Choice.TRANSCRIBE, channels=names, language=language
    )


def _measure(head: bytes, size_bytes: int) -> tuple[int, float]:
    """Return channels and seconds of a file; what we cannot read may yet be audio."""
    try:
        info = read_info(io.BytesIO(head))
    except ValueError:
        return _MONO, math.inf if size_bytes else 0.0
    frame_bytes = info.channels * info.bits // 8
    frames = max(0, size_bytes - info.data_offset) // frame_bytes
    return info.channels, frames / info.rate_hz
