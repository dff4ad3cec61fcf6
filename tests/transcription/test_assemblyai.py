"""The client, over real sockets, against a server that answers as told."""

from __future__ import annotations

import gzip
import json
import logging
import ssl
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import httpx
import pytest
import trio
import trustme

from audiohook.errors import SpoolError, TranscriptError
from audiohook.transcription.assemblyai import (
    UPLOAD_LIMIT_BYTES,
    AssemblyAI,
    Limits,
    make_client,
)
from audiohook.transcription.base import (
    TranscriptFault,
    TranscriptStatus,
    is_transcript_id,
)
from audiohook.transcription.parameters import Parameters, Webhook
from tests import assemblyai_spec
from tests.transcription.scripted_server import (
    NOTHING,
    RESET,
    SILENCE,
    Answer,
    ScriptedServer,
    said,
)
from tests.transcription.wire import (
    BODY,
    EVERYTHING,
    ID,
    KEY,
    QUEUED,
    SIGNED,
    call,
    connected,
    fails,
    pieces,
    serve,
)
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


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
        first = await service.list_page(limit=2, before_id="latest")
        await service.list_page()
    query = httpx.URL(server.heard[0].target).params
    assert dict(query) == {"limit": "2", "before_id": "latest"}
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


async def test_long_transcript_is_announced_before_it_is_read_on(
    nursery: trio.Nursery,
) -> None:
    server = await serve(
        nursery, Answer(body=b" " * 3_000_000 + json.dumps(QUEUED).encode())
    )
    announced = []

    async def large() -> None:
        await trio.lowlevel.checkpoint()
        announced.append(1)
        if len(announced) > 1:
            raise TranscriptError("not now", fault=TranscriptFault.OTHER)

    async with connected(server) as service:
        assert (await service.get(ID, large=large)).id == ID
        assert announced == [1]
        error = await fails(service.get(ID, large=large))
        assert str(error) == "not now"
        # The connection that it came by is not used any more, but another one is.
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
