"""The client, over real sockets, against a server that answers as told."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import logging
import ssl
from collections import deque
from contextlib import asynccontextmanager, suppress
from email.utils import format_datetime
from functools import partial
from typing import TYPE_CHECKING

import httpx
import pytest
import trio
import trustme

from audiohook.errors import SpoolError, TranscriptError
from audiohook.transcription.answers import RETRY_AFTER_LIMIT, retry_after
from audiohook.transcription.assemblyai import (
    UPLOAD_LIMIT_BYTES,
    AssemblyAI,
    Limits,
    make_client,
)
from audiohook.transcription.base import (
    MESSAGE_LIMIT,
    TranscriptFault,
    TranscriptStatus,
    classify_error_text,
    is_transcript_id,
    plain_message,
    without_query,
)
from audiohook.transcription.parameters import Parameters, Webhook
from tests import assemblyai_spec
from tests.transcription.scripted_server import (
    NOTHING,
    RESET,
    SILENCE,
    Answer,
    Heard,
    ScriptedServer,
    said,
)
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable
    from pathlib import Path

KEY = "0123456789abcdef-the-key"
ID = "9ea68fd3-f953-42c1-9742-976c447fb463"
SIGNATURE = "X-Amz-Signature=5ecre7"
SIGNED = f"https://bucket.s3.amazonaws.com/calls/a.wav?{SIGNATURE}&X-Amz-Expires=1"
BODY = {"audio_url": SIGNED}
QUEUED = {"id": ID, "status": "queued", "audio_url": SIGNED, "error": None}
LOOKUP = "Transcript lookup error, transcript id not found"


@pytest.fixture(autouse=True)
def without_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


async def serve(nursery: trio.Nursery, *answers: Answer) -> ScriptedServer:
    """Starts a server that gives these answers, the last one again and again."""
    script = deque(answers)

    def next_answer(_: Heard) -> Answer:
        return script.popleft() if len(script) > 1 else script[0]

    server = ScriptedServer(next_answer)
    await nursery.start(server.serve)
    return server


@asynccontextmanager
async def connected(
    server: ScriptedServer | str, limits: Limits | None = None
) -> AsyncIterator[AssemblyAI]:
    limits = limits or Limits()
    url = server if isinstance(server, str) else server.url
    async with make_client(url, KEY, limits=limits) as http:
        yield AssemblyAI(http, limits=limits)


async def fails(call: Awaitable[object]) -> TranscriptError:
    """Returns the error of a call, and sees that nothing secret is in it."""
    with pytest.raises(TranscriptError) as caught:
        await call
    error = caught.value
    shown = f"{error} {error!r}"
    cause: BaseException | None = error
    while cause is not None:
        shown += f" {cause} {cause!r}"
        cause = cause.__cause__ or cause.__context__
    assert KEY not in shown
    assert "5ecre7" not in shown
    assert str(error).isprintable()
    return error


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        await trio.lowlevel.checkpoint()
        yield chunk


async def test_submit_sends_the_bare_key_and_the_body(nursery: trio.Nursery) -> None:
    server = await serve(nursery, said(QUEUED))
    async with connected(server) as service:
        transcript = await service.submit(BODY)
    (heard,) = server.heard
    assert (heard.method, heard.target) == ("POST", "/v2/transcript")
    assert heard.headers["authorization"] == KEY
    assert heard.headers["content-type"] == "application/json"
    assert json.loads(heard.body) == BODY
    assert transcript.id == ID
    assert transcript.status is TranscriptStatus.QUEUED
    assert transcript.audio_url == SIGNED.partition("?")[0]
    assert transcript.body == QUEUED
    assert "5ecre7" not in repr(transcript)


async def test_what_is_sent_is_what_the_document_says(nursery: trio.Nursery) -> None:
    server = await serve(nursery, said(QUEUED))
    parameters = Parameters(language="call", extra={"speaker_labels": True})
    body = parameters.body(
        SIGNED,
        channels=2,
        language="es-419",
        webhook=Webhook("https://example.com/hook?id=1", "secret"),
    )
    async with connected(server) as service:
        await service.submit(body)
    assemblyai_spec.hold("TranscriptParams", json.loads(server.heard[0].body))


@pytest.mark.parametrize("value", [float("inf"), {1}, b"a"])
async def test_parameters_that_are_no_json_are_not_sent(value: object) -> None:
    async with connected("http://127.0.0.1:1") as service:
        error = await fails(service.submit({"x": value}))
    assert (error.fault, error.retryable) == ("bad_request", False)
    assert not error.outcome_unknown


async def test_connections_are_used_again(nursery: trio.Nursery) -> None:
    server = await serve(nursery, said(QUEUED))
    async with connected(server) as service:
        for _ in range(3):
            await service.get(ID)
    assert (len(server.heard), server.connections) == (3, 1)


async def test_delete_returns_what_is_left(nursery: trio.Nursery) -> None:
    deleted = {
        "id": ID,
        "status": "completed",
        "audio_url": "http://deleted_by_user",
        "text": "Deleted by user.",
        "words": None,
    }
    server = await serve(nursery, said(deleted))
    async with connected(server) as service:
        transcript = await service.delete(ID)
    assert (server.heard[0].method, server.heard[0].target) == (
        "DELETE",
        f"/v2/transcript/{ID}",
    )
    assert transcript.deleted
    assert not transcript.usable


@pytest.mark.parametrize(
    ("changes", "usable"),
    [
        ({}, True),
        ({"audio_url": "http://deleted_by_user"}, False),
        ({"text": "Deleted by user."}, False),
        ({"text": "Deleted by user.", "words": [{"text": "Deleted"}]}, True),
        ({"status": "processing"}, False),
        ({"status": "error"}, False),
        ({"status": "archived"}, False),
        ({"status": ["completed"]}, False),
    ],
)
async def test_usable_is_what_is_done_and_not_deleted(
    nursery: trio.Nursery, changes: dict[str, object], usable: bool
) -> None:
    done = {"id": ID, "status": "completed", "audio_url": SIGNED, "text": "Hello."}
    server = await serve(nursery, said(done | changes))
    async with connected(server) as service:
        transcript = await service.get(ID)
    assert transcript.usable is usable


async def test_list_asks_for_a_page(nursery: trio.Nursery) -> None:
    item = QUEUED | {"created": "2026-11-22T10:00:00.1", "completed": None}
    page = {
        "transcripts": [item | {"id": "newer"}, item],
        "page_details": {"prev_url": "https://elsewhere/?before_id=x"},
    }
    server = await serve(nursery, said(page), said(page | {"page_details": {}}))
    async with connected(server) as service:
        first = await service.list_page(
            limit=2, before_id="latest", created_on=dt.date(2026, 11, 22)
        )
        await service.list_page()
    query = httpx.URL(server.heard[0].target).params
    assert dict(query) == {
        "limit": "2",
        "before_id": "latest",
        "created_on": "2026-11-22",
    }
    assert dict(httpx.URL(server.heard[1].target).params) == {"limit": "200"}
    assert [each.id for each in first.items] == ["newer", ID]
    assert first.before_id == ID
    assert first.items[1].created == "2026-11-22T10:00:00.1"
    assert first.items[1].audio_url == SIGNED.partition("?")[0]
    assert "5ecre7" not in repr(first)
    if assemblyai_spec.is_there():
        known = assemblyai_spec.parameters("/v2/transcript", "get")
        assert set(query) <= set(known)
        assert known["limit"]["maximum"] == 200


@pytest.mark.parametrize(
    ("details", "items", "more"),
    [
        ({"prev_url": "https://elsewhere"}, 1, True),
        ({"prev_url": None}, 2, False),
        ({"prev_url": "https://elsewhere"}, 0, False),
        (None, 2, True),
        (None, 1, False),
        ({}, 2, True),
    ],
)
async def test_list_says_whether_there_is_more(
    nursery: trio.Nursery, details: object, items: int, more: bool
) -> None:
    page = {"page_details": details, "transcripts": [QUEUED] * items}
    server = await serve(nursery, said(page))
    async with connected(server) as service:
        found = await service.list_page(limit=2)
    assert found.before_id == (ID if more else None)


@pytest.mark.parametrize(
    "item", [None, [], {}, {"id": None}, {"id": "a/b"}, {"id": "x" * 129}]
)
async def test_list_with_an_unreadable_job_is_no_list(
    nursery: trio.Nursery, item: object
) -> None:
    server = await serve(nursery, said({"transcripts": [QUEUED, item]}))
    async with connected(server) as service:
        error = await fails(service.list_page())
    assert (error.fault, error.retryable) == ("away", True)


async def test_upload_streams_with_its_length(nursery: trio.Nursery) -> None:
    url = "https://cdn.assemblyai.com/upload/1"
    server = await serve(nursery, said({"upload_url": url}))
    async with connected(server) as service:
        assert await service.upload(pieces(b"abc", b"", b"de"), 5) == url
    (heard,) = server.heard
    assert (heard.method, heard.target, heard.body) == ("POST", "/v2/upload", b"abcde")
    assert heard.headers["content-type"] == "application/octet-stream"
    assert heard.headers["content-length"] == "5"
    assert "transfer-encoding" not in heard.headers


@pytest.mark.parametrize("size", [4, 6])
async def test_upload_of_another_length_fails(nursery: trio.Nursery, size: int) -> None:
    server = await serve(nursery, said({"upload_url": "https://cdn/1"}))
    async with connected(server) as service:
        error = await fails(service.upload(pieces(b"abc", b"de"), size))
        assert str(error) == f"the audio is not of {size} bytes any more"
        # The broken connection harms no other request.
        assert await service.upload(pieces(b"a"), 1) == "https://cdn/1"


@pytest.mark.parametrize("size", [0, -1, UPLOAD_LIMIT_BYTES + 1])
async def test_upload_of_impossible_length_is_not_begun(size: int) -> None:
    async with connected("http://127.0.0.1:1") as service:
        error = await fails(service.upload(pieces(b""), size))
    assert (error.fault, error.retryable) == ("media", False)


async def test_upload_hands_errors_of_the_audio_on(nursery: trio.Nursery) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"a"
        await trio.lowlevel.checkpoint()
        raise SpoolError("gone")

    server = await serve(nursery, said({}))
    async with connected(server) as service:
        with pytest.raises(SpoolError, match="gone"):
            await service.upload(broken(), 100)


async def test_upload_hears_a_refusal_before_its_end(nursery: trio.Nursery) -> None:
    refused = {"error": "Authentication error, API token missing/invalid"}
    early = Answer(401, json.dumps(refused).encode(), early=True)
    server = await serve(nursery, early)
    async with connected(server) as service:
        chunks = [bytes(64 * 1024)] * 400
        error = await fails(service.upload(pieces(*chunks), 400 * 64 * 1024))
    assert error.fault == "bad_key"


@pytest.mark.parametrize(
    "url", [None, 1, "", "ftp://x", "https://a b", "https://ä", "https://" + "x" * 9000]
)
async def test_upload_without_an_address_fails(
    nursery: trio.Nursery, url: object
) -> None:
    server = await serve(nursery, said({"upload_url": url}))
    async with connected(server) as service:
        error = await fails(service.upload(pieces(b"a"), 1))
    assert (error.fault, error.retryable) == ("away", True)


ABOUT_ID = ("get", "delete")
EVERYTHING = ("submit", "get", "delete", "list_page", "upload")


def call(service: AssemblyAI, name: str) -> Awaitable[object]:
    match name:
        case "submit":
            return service.submit(BODY)
        case "get":
            return service.get(ID)
        case "delete":
            return service.delete(ID)
        case "list_page":
            return service.list_page(before_id=ID)
    return service.upload(pieces(b"a"), 1)


REFUSALS = [
    # status, what it says, calls, fault, retryable
    (400, LOOKUP, (*ABOUT_ID, "list_page"), "not_found", False),
    (404, "Not found", ABOUT_ID, "not_found", False),
    (404, None, EVERYTHING, "other", False),
    (404, "Not found", ("submit", "upload"), "other", False),
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
    (301, None, EVERYTHING, "other", False),
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


@pytest.mark.parametrize("name", EVERYTHING)
@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (NOTHING, "broke"),
        (RESET, "broke"),
        (Answer(body=b'{"id": "x"}', keep=42), "broke"),
        (Answer(body=b"{" * 1000, keep=200, reset=True), "broke"),
        (Answer(body=b"abc", headers=(("Content-Encoding", "gzip"),)), "unpacked"),
    ],
)
async def test_broken_connection_leaves_the_outcome_unknown(
    nursery: trio.Nursery, name: str, answer: Answer, text: str
) -> None:
    server = await serve(nursery, answer)
    async with connected(server) as service:
        error = await fails(call(service, name))
    assert (error.fault, error.retryable) == ("away", True)
    assert error.outcome_unknown
    assert text in str(error)


async def test_refused_connection_is_surely_no_job() -> None:
    with trio.socket.socket() as taken:
        await taken.bind(("127.0.0.1", 0))  # bound, but it does not listen
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with connected(url) as service:
            error = await fails(service.submit(BODY))
    assert (error.fault, error.retryable) == ("away", True)
    assert not error.outcome_unknown
    assert "Connection refused" in str(error)


async def test_unknown_host_is_surely_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_name(*args: object, **options: object) -> object:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(trio.socket, "getaddrinfo", no_name)
    async with connected("https://no-such-host.invalid") as service:
        error = await fails(service.submit(BODY))
    assert not error.outcome_unknown
    assert "no-such-host.invalid (Name or service not known)" in str(error)


async def test_untrusted_certificate_is_told(nursery: trio.Nursery) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    server = ScriptedServer(lambda _: said(QUEUED), tls=context)
    await nursery.start(server.serve)
    async with connected(server) as service:
        error = await fails(service.submit(BODY))
    assert not server.heard
    assert not error.outcome_unknown
    assert error.retryable
    assert "is not trusted" in str(error)
    assert "SSL_CERT_FILE" in str(error)


async def test_trusted_certificate_and_a_long_answer(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    answers = deque([Answer(body=b" " * 5_000_000), said(QUEUED)])
    server = ScriptedServer(lambda _: answers.popleft(), tls=context)
    await nursery.start(server.serve)
    async with connected(server) as service:
        error = await fails(service.submit(BODY))
        assert "more than 1048576 bytes" in str(error)
        assert (await service.submit(BODY)).id == ID


async def test_silence_ends(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    server = await serve(nursery, SILENCE)
    limits = Limits(silence=20.0, request=100.0)
    async with connected(server, limits) as service:
        error = await fails(service.submit(BODY))
    assert (error.fault, error.outcome_unknown) == ("away", True)
    assert "no answer from" in str(error)
    # What had to be waited for was not the clock of the whole request.
    assert trio.current_time() < 100 + autojump_clock.autojump_threshold


async def test_answer_that_trickles_ends(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    async def trickle(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
        await stream.send_all(head)
        while True:
            await trio.sleep(10)
            await stream.send_all(b" ")

    async def serve_trickle(task_status: trio.TaskStatus[str]) -> None:
        async with trio.open_nursery() as inner:
            serve = partial(trio.serve_tcp, swallow, 0, host="127.0.0.1")
            (listener,) = await inner.start(serve)
            task_status.started(f"http://127.0.0.1:{listener.socket.getsockname()[1]}")

    async def swallow(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await trickle(stream)

    url = await nursery.start(serve_trickle)
    async with connected(url, Limits(request=200.0, transcript=300.0)) as service:
        error = await fails(service.submit(BODY))
        assert "took too long to submit" in str(error)
        assert (error.fault, error.outcome_unknown) == ("away", True)
        began = trio.current_time()
        await fails(service.get(ID))
        assert 300 <= trio.current_time() - began < 310


async def test_cancelled_request_harms_no_other(nursery: trio.Nursery) -> None:
    server = await serve(nursery, SILENCE, said(QUEUED))
    async with make_client(server.url, KEY, connections=1) as http:
        service = AssemblyAI(http)
        async with trio.open_nursery() as inner:
            inner.start_soon(service.submit, BODY)
            await wait_until(lambda: server.heard)
            inner.cancel_scope.cancel()
        assert (await service.get(ID)).id == ID


async def test_redirect_is_not_followed(nursery: trio.Nursery) -> None:
    thief = await serve(nursery, said(QUEUED))
    server = await serve(nursery, Answer(307, headers=(("Location", thief.url),)))
    async with make_client(server.url, KEY) as http:
        # Not even by a client that would.
        http.follow_redirects = True
        error = await fails(AssemblyAI(http).submit(BODY))
    assert not thief.heard
    assert "correct ASSEMBLYAI_BASE_URL" in str(error)
    assert not error.outcome_unknown


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


@pytest.mark.parametrize("packed", [False, True])
async def test_long_answer_is_cut_off(nursery: trio.Nursery, packed: bool) -> None:
    body = b" " * 3_000_000 + json.dumps(QUEUED).encode()
    headers = (("Content-Encoding", "gzip"),) if packed else ()
    server = await serve(
        nursery, Answer(body=gzip.compress(body) if packed else body, headers=headers)
    )
    async with connected(server) as service:
        error = await fails(service.submit(BODY))
        assert "more than 1048576 bytes" in str(error)
        assert error.outcome_unknown
        # A transcript may be longer; it is read in a thread.
        assert (await service.get(ID)).id == ID


async def test_error_page_of_any_length_is_an_error(nursery: trio.Nursery) -> None:
    server = await serve(nursery, Answer(503, body=b"x" * 10_000_000))
    async with connected(server) as service:
        error = await fails(service.get(ID))
    assert error.fault == "away"


async def test_error_page_that_breaks_off_is_its_status(nursery: trio.Nursery) -> None:
    server = await serve(nursery, Answer(401, body=b"x" * 1000, keep=100, reset=True))
    async with connected(server) as service:
        error = await fails(service.get(ID))
    assert error.fault == "bad_key"


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


async def test_logs_of_the_libraries_hold_nothing_secret(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = await serve(
        nursery, said(QUEUED), said(QUEUED), said({"upload_url": "https://cdn/1"})
    )
    async with connected(server) as service:
        await service.submit(BODY)
        await service.get(ID)
        await service.upload(pieces(KEY.encode()), len(KEY))
    assert caplog.records
    assert KEY not in caplog.text
    assert "5ecre7" not in caplog.text


@pytest.mark.parametrize(
    "bad", ["", "a/b", "../x", "a?b", "a b", "ä", "x" * 129, "a\n"]
)
async def test_bad_id_is_never_sent(bad: str) -> None:
    assert not is_transcript_id(bad)
    async with connected("http://127.0.0.1:1") as service:
        for request in (
            service.get(bad),
            service.delete(bad),
            service.list_page(before_id=bad),
        ):
            error = await fails(request)
            assert (error.fault, error.retryable) == ("not_found", False)


async def test_proxy_is_not_asked_for_this_machine(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await serve(nursery, said(QUEUED))
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with connected(server) as service:
        assert (await service.get(ID)).id == ID
    async with connected("http://192.0.2.1") as service:
        error = await fails(service.submit(BODY))
    assert not error.outcome_unknown


async def test_path_of_the_address_is_kept(nursery: trio.Nursery) -> None:
    server = await serve(nursery, said(QUEUED))
    async with connected(server.url + "/gateway") as service:
        await service.get(ID)
    assert server.heard[0].target == f"/gateway/v2/transcript/{ID}"


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
