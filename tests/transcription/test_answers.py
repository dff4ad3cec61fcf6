"""What answers mean, as the client tells it: faults, nonsense, and what is hidden."""

from __future__ import annotations

import datetime as dt
from email.utils import format_datetime
from typing import TYPE_CHECKING

import pytest

from audiohook.transcription.answers import RETRY_AFTER_LIMIT, retry_after
from audiohook.transcription.base import (
    MESSAGE_LIMIT,
    TranscriptFault,
    classify_error_text,
    plain_message,
    without_query,
)
from tests.transcription.scripted_server import (
    Answer,
    said,
)
from tests.transcription.wire import (
    ABOUT_ID,
    BODY,
    EVERYTHING,
    ID,
    KEY,
    LOOKUP,
    QUEUED,
    SIGNATURE,
    SIGNED,
    call,
    connected,
    fails,
    serve,
)

if TYPE_CHECKING:
    import trio

REFUSALS = [
    # status, what it says, calls, fault, retryable
    (400, LOOKUP, (*ABOUT_ID, "list_page"), "not_found", False),
    (404, "Not found", ABOUT_ID, "not_found", False),
    (404, None, EVERYTHING, "misled", False),
    (404, "Not found", ("submit", "upload"), "misled", False),
    (
        400,
        "Your current account balance is negative. Please top up to continue.",
        ("submit", "upload"),
        "balance",
        False,
    ),
    (402, "Payment required", EVERYTHING, "balance", False),
    (
        400,
        "The following models are not available in this language: speaker_labels",
        ("submit",),
        "bad_request",
        False,
    ),
    (
        400,
        'The model "universal-3-pro" is deprecated.',
        ("submit",),
        "bad_request",
        False,
    ),
    (400, "speech_threshold must be below 1", ("submit",), "bad_request", False),
    (400, None, ("submit",), "bad_request", False),
    (400, "No", ABOUT_ID, "other", False),
    (400, "Upload failed, please try again.", ("upload",), "theirs", True),
    (422, "Upload failed", ("upload",), "theirs", True),
    (
        401,
        "Authentication error, API token missing/invalid",
        EVERYTHING,
        "bad_key",
        False,
    ),
    (403, "Forbidden", EVERYTHING, "bad_key", False),
    (403, "Cannot access uploaded file", ("submit",), "download", True),
    (429, "Too Many Requests", EVERYTHING, "busy", True),
    (500, "Internal Server Error", EVERYTHING, "away", True),
    (503, None, EVERYTHING, "away", True),
    (504, None, EVERYTHING, "away", True),
    (599, "?", EVERYTHING, "away", True),
    (408, None, EVERYTHING, "away", True),
    (405, "Method not allowed", EVERYTHING, "other", False),
    (301, None, EVERYTHING, "misled", False),
]


@pytest.mark.parametrize(
    ("status", "text", "calls", "fault", "retryable"),
    REFUSALS,
    ids=[f"{row[0]}-{row[3]}" for row in REFUSALS],
)
async def test_refusals_are_told_apart(
    nursery: trio.Nursery,
    status: int,
    text: str | None,
    calls: tuple[str, ...],
    fault: str,
    retryable: bool,
) -> None:
    answer = Answer(status) if text is None else said({"error": text}, status)
    server = await serve(nursery, answer)
    async with connected(server) as service:
        for name in calls:
            error = await fails(call(service, name))
            assert (error.fault, error.retryable) == (fault, retryable), name
            assert error.outcome_unknown == (status >= 500 or status == 408)
            assert str(status) in str(error)
            assert (text or "") in str(error)
            assert error.retry_after is None


@pytest.mark.parametrize(
    ("status", "told"), [(429, True), (503, True), (500, True), (400, False)]
)
async def test_retry_after_is_told(
    nursery: trio.Nursery, status: int, told: bool
) -> None:
    server = await serve(nursery, said({}, status, Retry_After="7"))
    async with connected(server) as service:
        error = await fails(service.submit(BODY))
    assert error.retry_after == (7.0 if told else None)


NOW = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 1.5 ", 1.5),
        ("999999", RETRY_AFTER_LIMIT),
        (format_datetime(NOW + dt.timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - dt.timedelta(days=1), usegmt=True), 0.0),
        ("Sun, 22 Nov 2026 12:00:30 -0000", 30.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", RETRY_AFTER_LIMIT),
        ("-1", None),
        ("1e3", None),
        ("nan", None),
        ("inf", None),
        ("", None),
        ("soon", None),
        ("9" * 5000, None),
        ("Sun, 99 Nov 2026 12:00:00 GMT", None),
        ("Sun, 22 Nov 2026 12:00:00 +9999", None),
        ("\u0661", None),
        ("7\x1d", None),
        ("\x1c7", None),
    ],
)
def test_retry_after_in_either_form(text: str, seconds: float | None) -> None:
    date = format_datetime(NOW, usegmt=True)
    assert retry_after({"retry-after": text, "date": date}) == seconds


def test_retry_after_without_a_date_goes_by_our_clock() -> None:
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=60)
    found = retry_after({"retry-after": format_datetime(soon, usegmt=True)})
    assert found is not None
    assert 50 < found <= 60


BAD_BODIES = {
    "nothing": b"",
    "page": b"<html>hello</html>",
    "half": b'{"id": "abc"',
    "list": b"[]",
    "null": b"null",
    "no id": b'{"status": "queued"}',
    "id null": b'{"id": null}',
    "id number": b'{"id": 7}',
    "id empty": b'{"id": ""}',
    "id path": b'{"id": "../../x"}',
    "id long": b'{"id": "%s"}' % (b"x" * 200),
    "id newline": b'{"id": "abc\\n"}',
    "nan": b'{"id": "abc", "confidence": NaN}',
    "infinity": b'{"id": "abc", "confidence": -Infinity}',
    "overflow": b'{"id": "abc", "confidence": 1e999}',
    "digits": b'{"id": "abc", "x": %s}' % (b"9" * 5000),
    "deep": b'{"id": "abc", "x": ' + b"[" * 100_000,
    "not utf-8": b'{"id": "abc", "x": "\xff"}',
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
@pytest.mark.parametrize("name", ["submit", "get", "delete", "list_page", "upload"])
async def test_nonsense_is_no_answer(
    nursery: trio.Nursery, name: str, body: bytes
) -> None:
    server = await serve(nursery, Answer(body=body))
    async with connected(server) as service:
        error = await fails(call(service, name))
    assert (error.fault, error.retryable) == ("away", True)
    assert error.outcome_unknown


async def test_another_transcript_than_asked_for_is_no_answer(
    nursery: trio.Nursery,
) -> None:
    server = await serve(nursery, said(QUEUED | {"id": "other"}))
    async with connected(server) as service:
        error = await fails(service.get(ID))
    assert "another transcript" in str(error)


@pytest.mark.parametrize(
    "text",
    [
        f"Download error, unable to download {SIGNED}. Try again",
        f"bad: {SIGNED.replace('?', '%3F').replace('=', '%3D')}",
        f"bad: bucket/calls/a.wav?{SIGNATURE}",
        "key " + KEY + " is unknown",
        "https://me:5ecre7@host/",
        "\x1b[31mred\nline\u2028two" + "x" * 10_000,
        "\ud800",
    ],
)
async def test_nothing_secret_is_shown(nursery: trio.Nursery, text: str) -> None:
    failed = {"id": ID, "status": "error", "error": text, "audio_url": SIGNED}
    server = await serve(
        nursery, said({"error": text}, 400), said(failed), said(failed, 200)
    )
    async with connected(server) as service:
        error = await fails(service.submit(BODY))
        assert len(str(error)) < MESSAGE_LIMIT + 200
        transcript = await service.get(ID)
        assert "5ecre7" not in repr(transcript)
        assert KEY not in repr(transcript)
        assert transcript.error is not None
        assert transcript.error.isprintable()
        assert len(transcript.error) <= MESSAGE_LIMIT


WORDS_OF_FAILED_JOBS = {
    "Download error, unable to download https://foo.bar. Please make sure the file"
    " exists and is accessible from the internet.": TranscriptFault.DOWNLOAD,
    "File does not appear to contain audio. File type is text/html (HTML).": (
        TranscriptFault.MEDIA
    ),
    "Audio duration is too short.": TranscriptFault.MEDIA,
    "Audio speech threshold 0 is below the requested speech threshold value 1.0": (
        TranscriptFault.MEDIA
    ),
    "detected language 'en', confidence 0.66, is below the requested confidence"
    " threshold value of '0.8'": TranscriptFault.MEDIA,
    "language_detection cannot be performed on files with no spoken audio.": (
        TranscriptFault.MEDIA
    ),
    "Server error, developers have been alerted.": TranscriptFault.THEIRS,
    "Internal server error. Please retry your request. If the error persists, please"
    " contact support@assemblyai.com for more information.": TranscriptFault.THEIRS,
    "Your current account balance is negative.": TranscriptFault.BALANCE,
    "The following models are not available in this language: x": (
        TranscriptFault.BAD_REQUEST
    ),
    "": TranscriptFault.OTHER,
    "Something new": TranscriptFault.OTHER,
}


@pytest.mark.parametrize(("text", "fault"), WORDS_OF_FAILED_JOBS.items())
async def test_failed_job_is_told_by_its_words(
    nursery: trio.Nursery, text: str, fault: TranscriptFault
) -> None:
    assert classify_error_text(text) is fault
    assert classify_error_text(text.upper()) is fault
    server = await serve(nursery, said({"id": ID, "status": "error", "error": text}))
    async with connected(server) as service:
        assert (await service.get(ID)).fault is fault


async def test_job_that_goes_on_has_no_fault(nursery: trio.Nursery) -> None:
    server = await serve(nursery, said(QUEUED))
    async with connected(server) as service:
        assert (await service.get(ID)).fault is None


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        (SIGNED, "https://bucket.s3.amazonaws.com/calls/a.wav"),
        ("https://host/p?token", "https://host/p"),
        ("https://host/p#part", "https://host/p"),
        ("//u:p@host/p?a=b and more", "//host/p and more"),
        ("Really? Yes, a=b.", "Really? Yes, a=b."),
        ("50% of?them", "50% of?them"),
        ("", ""),
    ],
)
def test_without_query(text: str, rest: str) -> None:
    assert without_query(text) == rest


def test_messages_are_searched_in_bounded_time() -> None:
    assert len(plain_message("%3F" * 1_000_000)) <= MESSAGE_LIMIT
    assert without_query("?" * 1_000_000) == "?" * 1_000_000
