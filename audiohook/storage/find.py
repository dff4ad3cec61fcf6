"""Which recording somebody means, and how its transcripts stand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from audiohook.errors import AudioHookError, UploadError
from audiohook.recording.fields import Fields
from audiohook.recording.journal import is_uuid
from audiohook.recording.transcripts import JobStatus
from audiohook.storage.base import check_key
from audiohook.storage.layout import (
    SUMMARY_NAME,
    beside,
    is_wav_key,
    split_bucket,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from audiohook.storage.base import Store

_FOLDERS: Final = ("audio", "transcripts", "jobs")


class NoRecordingError(AudioHookError):
    """A key is that of no recording; the text says why, and what would be one."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A WAV file of a recording, as the call's JSON tells of it.

    Attributes:
        key: Its key.
        session_id: Session of its call.
        summary: The call's JSON.
        status: How its transcript stands.
        reason: Why, if there is anything to say.
        transcript_id: Id of its last job, if there was one.
    """

    key: str
    session_id: str
    summary: bytes
    status: JobStatus
    reason: str | None
    transcript_id: str | None


async def find_files(store: Store, key: str) -> list[FoundFile]:
    """Find the WAV files that somebody means.

    Args:
        store: Where recordings are.
        key: The key of a WAV file, which means that one alone; or that of the call's
            JSON, of another file of the call, or of its folder.

    Returns:
        At least one.

    Raises:
        NoRecordingError: There is none.
        UploadError: The store did not do as asked.
    """
    folder = _folder_of(key)
    try:
        check_key(split_bucket(f"{folder}/{SUMMARY_NAME}")[1])
    except UploadError as error:
        raise NoRecordingError(str(error)) from error
    summary = await store.read(f"{folder}/{SUMMARY_NAME}")
    if summary is None:
        raise NoRecordingError(
            f"there is no {folder}/{SUMMARY_NAME}, so this is no recording of ours; name"
            " the folder of a call, its WAV or its call.json"
        )
    try:
        files = list(_files(folder, Fields(json.loads(summary)), summary))
    except (ValueError, RecursionError) as error:
        raise NoRecordingError(
            f"{folder}/{SUMMARY_NAME} cannot be understood ({error})"
        ) from error
    chosen = [file for file in files if file.key == key or not key.endswith(".wav")]
    if not chosen:
        raise NoRecordingError(f"{folder}/{SUMMARY_NAME} tells of no such file")
    return chosen


def _folder_of(key: str) -> str:
    path = PurePosixPath(key)
    if path.name == SUMMARY_NAME:
        return str(path.parent)
    if path.parent.name in _FOLDERS and path.suffix:
        return str(path.parent.parent)
    return str(path)


def _files(folder: str, summary: Fields, data: bytes) -> Iterator[FoundFile]:
    session_id = summary.text("sessionId")
    if not is_uuid(session_id):
        raise ValueError("sessionId is no id")
    for value in summary.items("transcripts"):
        entry = Fields(value)
        key = beside(folder, entry.text("audio"))
        if not is_wav_key(key):
            raise ValueError("audio is no WAV file of a recording")
        yield FoundFile(
            key,
            session_id,
            data,
            JobStatus(entry.text("status")),
            entry.optional_text("reason"),
            entry.optional_text("id"),
        )
