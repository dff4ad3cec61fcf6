"""What can be missing of a call, and how one call is judged. Nothing here waits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from audiohook.recording.transcripts import JobStatus
from audiohook.retention.terms import Over
from audiohook.storage.layout import SUMMARY_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

AUDIO: Final = "audio"
TRANSCRIPTS: Final = "transcripts"


class Kind(StrEnum):
    """What is wrong."""

    NO_SUMMARY = "no_summary"
    """There is something of a call, but no ``call.json``."""
    BAD_SUMMARY = "bad_summary"
    """``call.json`` cannot be understood, or is that of another call."""
    NO_WAV = "no_wav"
    """No WAV file was ever stored of it."""
    MISSING = "missing"
    """A file that ``call.json`` lists is not there."""
    SIZE = "size"
    """A file has another length than ``call.json`` says."""
    CHECKSUM = "checksum"
    """A file has another content than ``call.json`` says."""
    TRANSCRIPT_WAITS = "transcript_waits"
    """Its transcript is still awaited."""
    TRANSCRIPT_PARKED = "transcript_parked"
    """Its transcript waits until somebody has mended something."""
    TRANSCRIPT_FAILED = "transcript_failed"
    """Its transcript was given up."""
    NOT_STORED = "not_stored"
    """It is on the local disk, and not in the store."""
    ASIDE = "aside"
    """It was put aside in the spool, for a person to look at."""
    UNFINISHED_UPLOAD = "unfinished_upload"
    """There are parts of a file in the bucket that was not finished."""
    NOT_IN_INDEX = "not_in_index"
    """It is in the store, and the index does not know it."""
    ONLY_IN_INDEX = "only_in_index"
    """The index knows it, and it is not in the store."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is missing or wrong.

    Attributes:
        kind: What.
        name: Of which recording; or of which session, as long as it has no name.
        detail: More of it: a key, a reason.
    """

    kind: Kind
    name: str
    detail: str = ""


@dataclass(slots=True)
class CallFiles:
    """What the store has of one call.

    Attributes:
        sizes: Bytes by key.
        uploads: Keys of unfinished uploads.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    uploads: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Judgement:
    """What is to be said of one call.

    Attributes:
        findings: What is missing or wrong.
        session: Its session.
        expected: SHA-256 of its files by key, of those that are there.
        is_complete: Whether all of its audio arrived.
    """

    findings: list[Finding] = field(default_factory=list)
    session: str | None = None
    expected: dict[str, str] = field(default_factory=dict)
    is_complete: bool = True


def judge(
    name: str,
    folder: str,
    files: CallFiles,
    summary: bytes | None,
    expired: Over,
    *,
    is_spooled: bool,
) -> Judgement:
    """Hold what the store has of a call against its ``call.json``.

    Args:
        name: Of the recording.
        folder: Where it is, without a slash at the end.
        files: What there is.
        summary: Content of ``call.json``; None if there is none.
        expired: What is not to be missed.
        is_spooled: Whether it waits on the local disk as well.
    """
    found = Judgement()
    for key in sorted(files.uploads):
        if not is_spooled:
            found.findings.append(Finding(Kind.UNFINISHED_UPLOAD, name, key))
    if summary is None:
        # As long as it is on its way, that is said otherwise.
        if files.sizes and not is_spooled:
            found.findings.append(
                Finding(Kind.NO_SUMMARY, name, f"{len(files.sizes)} files")
            )
        return found
    call = _parse(summary)
    if call is None or not _is_of(call, name):
        found.findings.append(
            Finding(Kind.BAD_SUMMARY, name, f"{folder}/{SUMMARY_NAME}")
        )
        return found
    session = call.get("sessionId")
    found.session = session if isinstance(session, str) else None
    ended = call.get("ended")
    found.is_complete = isinstance(ended, Mapping) and ended.get("complete") is True
    gone = _gone(call, expired)
    found.findings += _audio(name, call, files, gone, found)
    found.findings += _transcripts(name, call, files, gone, found)
    return found


def _gone(call: Mapping[str, Any], expired: Over) -> Over:
    """Tell what was removed on purpose, or has passed by now."""
    removed = call.get("removed")
    known = removed if isinstance(removed, Mapping) else {}
    return Over(
        audio=expired.audio or known.get(AUDIO) is not None,
        transcripts=expired.transcripts or known.get(TRANSCRIPTS) is not None,
    )


def _audio(
    name: str,
    call: Mapping[str, Any],
    files: CallFiles,
    gone: Over,
    found: Judgement,
) -> Iterator[Finding]:
    listed = list(_objects(call))
    if not any(each["key"].endswith(".wav") for each in listed):
        yield Finding(Kind.NO_WAV, name)
    for each in listed:
        is_audio = f"/{AUDIO}/" in each["key"]
        # Of a call that was to be transcribed only, it was deleted on purpose.
        if not ((is_audio and gone.audio) or each.get("deleted") is True):
            yield from _compare(name, each, files, found)


def _transcripts(
    name: str,
    call: Mapping[str, Any],
    files: CallFiles,
    gone: Over,
    found: Judgement,
) -> Iterator[Finding]:
    entries = call.get("transcripts")
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, Mapping) or gone.transcripts:
            continue
        kind = _STATUSES.get(str(entry.get("status")))
        if kind is not None:
            reason = entry.get("reason")
            detail = f"{entry.get('status')}: {reason}" if reason else ""
            yield Finding(kind, name, detail or str(entry.get("status")))
        for each in _objects(entry):
            yield from _compare(name, each, files, found)


_STATUSES: Final = {
    JobStatus.PENDING.value: Kind.TRANSCRIPT_WAITS,
    JobStatus.SUBMITTED.value: Kind.TRANSCRIPT_WAITS,
    JobStatus.ELSEWHERE.value: Kind.TRANSCRIPT_WAITS,
    JobStatus.PARKED.value: Kind.TRANSCRIPT_PARKED,
    JobStatus.FAILED.value: Kind.TRANSCRIPT_FAILED,
}


def _compare(
    name: str, each: Mapping[str, Any], files: CallFiles, found: Judgement
) -> Iterator[Finding]:
    key, size = each["key"], each.get("bytes")
    there = files.sizes.get(key)
    if there is None:
        yield Finding(Kind.MISSING, name, key)
    elif there != size:
        yield Finding(Kind.SIZE, name, f"{key}: {there} bytes, not {size}")
    elif isinstance(each.get("sha256"), str):
        found.expected[key] = each["sha256"]


def _objects(holder: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    objects = holder.get("objects")
    for each in objects if isinstance(objects, list) else ():
        if isinstance(each, Mapping) and isinstance(each.get("key"), str):
            yield each


def _parse(summary: bytes) -> Mapping[str, Any] | None:
    try:
        value = json.loads(summary)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_of(call: Mapping[str, Any], name: str) -> bool:
    start = call.get("start")
    return isinstance(start, str) and name.startswith(start.replace(":", "-"))
