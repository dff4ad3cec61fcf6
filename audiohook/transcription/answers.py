"""What AssemblyAI's answers mean: errors told apart, JSON taken for nothing more.

An answer is never trusted: it may be a proxy's page, half a body, or JSON of another
shape. Whatever it is, it ends as a value of ours or as one error in one line.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from audiohook.errors import TranscriptError
from audiohook.protocol.wire import finite
from audiohook.transcription.base import (
    RETRYABLE,
    ListedTranscript,
    Transcript,
    TranscriptFault,
    TranscriptPage,
    TranscriptStatus,
    classify_error_text,
    is_transcript_id,
    plain_message,
    without_query,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

MINUTES: Final = 60.0
HOURS: Final = 60 * MINUTES

RETRY_AFTER_LIMIT: Final = 1 * HOURS
"""Longest time that the service may ask to be left alone, in seconds."""

_URL_LIMIT: Final = 8 * 1024
_UPLOAD_URL: Final = re.compile(r"https?://[!-~]+")
_SECONDS: Final = re.compile(r"[0-9]{1,12}(?:\.[0-9]{0,12})?")

_REDIRECTION: Final = range(300, 400)
_BAD_REQUEST: Final = 400
_UNAUTHORIZED: Final = 401
_PAYMENT_REQUIRED: Final = 402
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_REQUEST_TIMEOUT: Final = 408
_UNPROCESSABLE: Final = 422
_TOO_MANY: Final = 429
_SERVER_ERROR: Final = 500


class Question(StrEnum):
    """What can be asked, in words that fit into a sentence."""

    SUBMIT = "submit"
    LOOK_UP = "look up"
    DELETE = "delete"
    LIST = "list"
    UPLOAD = "upload"


class Asked(NamedTuple):
    """What was asked, as far as an answer is judged by it.

    Attributes:
        what: What for.
        host: Who was asked.
    """

    what: Question
    host: str


def refusal(
    asked: Asked,
    status: int,
    headers: Mapping[str, str],
    body: bytes | bytearray,
    *,
    secret: str,
) -> TranscriptError:
    """Judge an answer that is not a success.

    Args:
        asked: What was asked.
        status: HTTP status.
        headers: Of the answer; names in small letters, or of any case if the
            mapping does not mind.
        body: As much of the answer as is wanted for its message.
        secret: Our key, which is not shown even if the service says it.

    Source: AssemblyAI's OpenAPI, `responses`; its "Troubleshoot common errors"; its
    blog on upload errors, which are told by a 422.
    """
    theirs = _message(body)
    fault = _fault(asked, status, theirs)
    text = _TEXTS[fault].format(what=asked.what, host=asked.host, status=status)
    shown = plain_message(theirs or "", secret=secret)
    return TranscriptError(
        f"{text}; it says: {shown}" if shown else text,
        retryable=fault in RETRYABLE,
        fault=fault,
        retry_after=retry_after(headers) if fault in _WAITS else None,
        # A gateway gives up on a request that goes on behind it.
        outcome_unknown=status >= _SERVER_ERROR or status == _REQUEST_TIMEOUT,
    )


_WAITS: Final = frozenset({TranscriptFault.BUSY, TranscriptFault.AWAY})

_TEXTS: Final[Mapping[TranscriptFault, str]] = {
    TranscriptFault.AWAY: "{host} fails to {what} ({status})",
    TranscriptFault.BUSY: "{host} asks for fewer requests ({status})",
    TranscriptFault.BAD_KEY: "{host} does not accept the key ({status}): correct"
    " ASSEMBLYAI_API_KEY",
    TranscriptFault.BALANCE: "the account at {host} has no money left ({status}): top"
    " it up",
    TranscriptFault.BAD_REQUEST: "{host} does not {what} with these parameters"
    " ({status}): correct ASSEMBLYAI_PARAMS or TRANSCRIBE_LANGUAGE",
    TranscriptFault.NOT_FOUND: "{host} has no such transcript, or not for this key, or"
    " it is not done ({status})",
    TranscriptFault.DOWNLOAD: "{host} cannot get at the audio ({status}): it needs a"
    " fresh address",
    TranscriptFault.MEDIA: "{host} has no use for the audio ({status})",
    TranscriptFault.THEIRS: "{host} failed to {what} ({status})",
    TranscriptFault.MISLED: "{host} does not {what} ({status}): correct"
    " ASSEMBLYAI_BASE_URL",
    TranscriptFault.OTHER: "{host} does not {what} ({status})",
}


def _fault(asked: Asked, status: int, theirs: str | None) -> TranscriptFault:
    if status >= _SERVER_ERROR or status == _REQUEST_TIMEOUT:
        return TranscriptFault.AWAY
    if status == _TOO_MANY:
        return TranscriptFault.BUSY
    if status == _PAYMENT_REQUIRED:
        return TranscriptFault.BALANCE
    about = classify_error_text(theirs or "")
    if status in {_UNAUTHORIZED, _FORBIDDEN}:
        # Only that upload belongs to another key, which the key cannot help.
        foreign = about is TranscriptFault.DOWNLOAD
        return TranscriptFault.DOWNLOAD if foreign else TranscriptFault.BAD_KEY
    if asked.what in _BY_ID and _is_lookup_fault(status, theirs):
        return TranscriptFault.NOT_FOUND
    if status in _REDIRECTION or status == _NOT_FOUND:
        return TranscriptFault.MISLED
    if status not in {_BAD_REQUEST, _UNPROCESSABLE}:
        return TranscriptFault.OTHER
    if about is TranscriptFault.BALANCE:
        return about
    return _ON_BAD_REQUEST.get(asked.what, TranscriptFault.OTHER)


_BY_ID: Final = frozenset({Question.LOOK_UP, Question.DELETE, Question.LIST})

_ON_BAD_REQUEST: Final[Mapping[Question, TranscriptFault]] = {
    Question.SUBMIT: TranscriptFault.BAD_REQUEST,
    # Passing, as they say themselves, unless the file is empty.
    Question.UPLOAD: TranscriptFault.THEIRS,
}


def _is_lookup_fault(status: int, theirs: str | None) -> bool:
    """Tell "no such transcript", which is a 400, from "no such page"."""
    if status not in {_BAD_REQUEST, _NOT_FOUND} or theirs is None:
        return False
    text = theirs.lower()
    return "not found" in text or "lookup error" in text


def _message(body: bytes | bytearray) -> str | None:
    """Return what an error's body says; ``None`` if it is not of their form."""
    answer = _parse(body)
    message = answer.get("error") if answer is not None else None
    return message if isinstance(message, str) else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read how long the service asks to be left alone.

    Returns:
        Seconds, at most `RETRY_AFTER_LIMIT`; None if it does not say, or nothing
        that can be understood.

    Source: RFC 9110, sections 5.6.7 and 10.2.3.
    """
    # Of HTTP's own space alone: `\s` also means characters that `float` refuses.
    text = headers.get("retry-after", "").strip(" \t")
    if _SECONDS.fullmatch(text):
        return min(float(text), RETRY_AFTER_LIMIT)
    until = _date(text)
    if until is None:
        return None
    # By their own clock, if they tell it: ours may be wrong.
    now = _date(headers.get("date", "")) or datetime.now(UTC)
    return min(max((until - now).total_seconds(), 0.0), RETRY_AFTER_LIMIT)


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def read_transcript(
    asked: Asked, body: bytes | bytearray, *, secret: str
) -> Transcript:
    """Read the answer to a request about one transcript.

    Raises:
        TranscriptError: It is none. Where it answers a submit, a job may have been
            made.
    """
    answer = _parse(body)
    transcript_id = answer.get("id") if answer is not None else None
    if answer is None or not is_transcript_id(transcript_id):
        raise nonsense(asked, "no transcript with an id")
    assert isinstance(transcript_id, str)
    error = answer.get("error")
    return Transcript(
        id=transcript_id,
        status=TranscriptStatus.of(answer.get("status")),
        error=plain_message(error, secret=secret) if isinstance(error, str) else None,
        audio_url=_address(answer.get("audio_url")),
        body=answer,
    )


def read_page(asked: Asked, body: bytes | bytearray, *, limit: int) -> TranscriptPage:
    """Read a page of the account's list.

    Args:
        asked: What was asked.
        body: The answer.
        limit: How many were asked for.

    Raises:
        TranscriptError: It is none. One job that cannot be read spoils the page: it
            may be the one that is looked for.
    """
    answer = _parse(body)
    listed = answer.get("transcripts") if answer is not None else None
    if answer is None or not isinstance(listed, list):
        raise nonsense(asked, "no list of transcripts")
    items = tuple(_listed(asked, each) for each in listed)
    details = answer.get("page_details")
    if isinstance(details, dict) and "prev_url" in details:
        more = bool(details["prev_url"])
    else:
        more = len(items) >= limit
    return TranscriptPage(items, items[-1].id if items and more else None)


def _listed(asked: Asked, item: object) -> ListedTranscript:
    if not isinstance(item, dict) or not is_transcript_id(item.get("id")):
        raise nonsense(asked, "a list with something else in it")
    created = item.get("created")
    return ListedTranscript(
        id=item["id"],
        status=TranscriptStatus.of(item.get("status")),
        created=plain_message(created) if isinstance(created, str) else "",
        audio_url=_address(item.get("audio_url")),
    )


def read_upload(asked: Asked, body: bytes | bytearray) -> str:
    """Read where an upload went.

    Returns:
        An address that only the service itself can read.

    Raises:
        TranscriptError: The answer does not say.
    """
    answer = _parse(body)
    url = answer.get("upload_url") if answer is not None else None
    if (
        not isinstance(url, str)
        or len(url) > _URL_LIMIT
        or not _UPLOAD_URL.fullmatch(url)
    ):
        raise nonsense(asked, "no address of an upload")
    return url


def nonsense(asked: Asked, what: str) -> TranscriptError:
    """Make the error for a success that makes no sense."""
    return TranscriptError(
        f"{asked.host} answered {asked.what} with {what}",
        fault=TranscriptFault.AWAY,
        outcome_unknown=True,
    )


def _address(value: object) -> str:
    return without_query(value[:_URL_LIMIT]) if isinstance(value, str) else ""


def _parse(body: bytes | bytearray) -> dict[str, Any] | None:
    """Return the JSON object that a body is; ``None`` if it is none."""
    try:
        value = json.loads(body, parse_constant=finite, parse_float=finite)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
