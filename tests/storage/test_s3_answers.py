"""Answers that Amazon gives and that no store on this machine can be brought to."""

from __future__ import annotations

import contextlib
import re
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import trio

from audiohook.errors import KeyExistsError, UploadError, UploadGoneError
from audiohook.storage.base import BytesBlob, Part
from audiohook.storage.s3_client import S3Options
from audiohook.storage.s3_faults import LostAnswerError
from audiohook.storage.traces import Trace, TraceKind
from tests.storage.s3_tools import HELLO_SHA256, complete, new_key, put

if TYPE_CHECKING:
    from collections.abc import Sequence

    from audiohook.storage.s3 import S3Store
    from tests.storage.conftest import MakeStore

pytestmark = pytest.mark.slow

PARTS = [Part(1, 5, '"e"', "NhCmhg==")]
LIMITS = S3Options(connect_limit=2.0, silence_limit=2.0)


def answer(status: str, body: str = "", *headers: str, cut: int = 0) -> bytes:
    """Makes an answer; `cut` bytes are promised that never come."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) + cut}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def fault(code: str, more: str = "") -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>Words</Message>{more}</Error>"
    )


def found(size: int, token: str, sha256: str = "") -> bytes:
    """What a ``HEAD`` says of an object."""
    return (
        f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n"
        f"x-amz-meta-audiohook-sha256: {sha256}\r\n"
        f"x-amz-meta-audiohook-session: {token}\r\n\r\n"
    ).encode()


COMPLETED = answer(
    "200 OK",
    "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>",
)
KEPT = answer("200 OK", "", 'ETag: "e"', "x-amz-checksum-crc32: NhCmhg==")
NOTHING = answer("404 Not Found")


@dataclass
class Script:
    """A store that answers what it is told to, in order, and hangs up each time.

    Attributes:
        answers: What it will say; the last one again and again.
        drips: Whether what it says comes byte by byte, and slowly.
        asked: Methods of the requests so far.
        url: Where it is.
    """

    answers: list[bytes] = field(default_factory=list)
    drips: bool = False
    asked: list[str] = field(default_factory=list)
    url: str = ""

    async def start(self, nursery: trio.Nursery) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, self._serve, listeners)
        self.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"

    async def _serve(self, stream: trio.SocketStream) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            more = await stream.receive_some()
            if not more:
                return
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        if b"100-continue" in head.lower():
            await stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = re.search(rb"(?i)content-length: ([0-9]+)", head)
        missing = (int(length[1]) if length else 0) - len(body)
        while missing > 0:
            missing -= len(await stream.receive_some())
        self.asked.append(head.partition(b" ")[0].decode())
        said = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not self.drips:
            await stream.send_all(said)
            return
        with contextlib.suppress(trio.BrokenResourceError):
            for byte in said:
                await stream.send_all(bytes((byte,)))
                await trio.sleep(0.1)


@pytest.fixture
async def script(nursery: trio.Nursery) -> Script:
    script = Script()
    await script.start(nursery)
    return script


@pytest.fixture
def store(script: Script, make_store: MakeStore) -> S3Store:
    return make_store(script.url, options=LIMITS)


async def finish(store: S3Store) -> None:
    await complete(store, new_key(), "upload", PARTS)


@pytest.mark.parametrize(
    ("code", "fault_word"), [("InternalError", "away"), ("SlowDown", "busy")]
)
async def test_completion_that_fails_after_it_said_200_is_a_failure(
    script: Script, store: S3Store, code: str, fault_word: str
) -> None:
    """Amazon sends the status early, and blanks while it works."""
    said = fault(code).replace("\n", "\n   \n  \n")
    script.answers = [answer("200 OK", said), NOTHING]
    with pytest.raises(UploadError) as caught:
        await finish(store)
    assert caught.value.retryable
    assert caught.value.fault == fault_word


async def test_completion_that_failed_after_all_was_done_is_none(
    script: Script, store: S3Store
) -> None:
    script.answers = [answer("200 OK", fault("InternalError")), found(5, "t")]
    await finish(store)
    assert script.asked == ["POST", "HEAD", "HEAD"]


@pytest.mark.parametrize(
    "said",
    [
        answer("200 OK", "<CompleteMulti", cut=50),
        answer("200 OK", "<CompleteMultipartUploadResult><ETa"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n<Comp",
        b"HTTP/1.1 2",
        b"",
    ],
)
async def test_completion_whose_answer_is_cut_is_looked_up(
    script: Script, store: S3Store, said: bytes
) -> None:
    script.answers = [said, found(5, "t")]
    await finish(store)
    script.answers = [said, NOTHING]
    with pytest.raises(UploadError) as caught:
        await finish(store)
    assert caught.value.retryable, caught.value


async def test_completion_that_is_no_object_of_ours_is_a_clash(
    script: Script, store: S3Store
) -> None:
    for other in (found(6, "t"), found(5, "u"), found(5, "")):
        script.answers = [
            answer("412 Precondition Failed", fault("PreconditionFailed"))
        ]
        script.answers.append(other)
        with pytest.raises(KeyExistsError):
            await finish(store)
        script.answers = [COMPLETED, other]
        with pytest.raises(KeyExistsError):
            await finish(store)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("404 Not Found", "NoSuchUpload"),
        ("400 Bad Request", "InvalidPart"),
        ("409 Conflict", "ConditionalRequestConflict"),
    ],
)
async def test_completion_that_has_to_begin_anew_says_so(
    script: Script, store: S3Store, status: str, code: str
) -> None:
    script.answers = [answer(status, fault(code)), NOTHING]
    with pytest.raises(UploadGoneError):
        await finish(store)


REDIRECTS: Sequence[bytes] = [
    answer(
        "301 Moved Permanently",
        fault("PermanentRedirect", "<Endpoint>b.s3.eu-west-1.amazonaws.com</Endpoint>"),
        "x-amz-bucket-region: eu-west-1",
    ),
    answer(
        "400 Bad Request",
        fault("AuthorizationHeaderMalformed", "<Region>eu-west-1</Region>"),
        "x-amz-bucket-region: eu-west-1",
    ),
    answer(
        "307 Temporary Redirect",
        fault("TemporaryRedirect"),
        "Location: http://127.0.0.1:9/elsewhere",
        "x-amz-bucket-region: eu-west-1",
    ),
]


@pytest.mark.parametrize("said", REDIRECTS)
async def test_bucket_in_another_region_is_told_with_its_region(
    script: Script, store: S3Store, said: bytes
) -> None:
    script.answers = [said]
    for call in (
        lambda: put(store, new_key()),
        lambda: store.begin(new_key(), metadata={}, token="t"),
        lambda: store.put_part(new_key(), "upload", 2, BytesBlob(b"hello")),
        lambda: store.list_parts(new_key(), "upload"),
    ):
        with pytest.raises(UploadError) as caught:
            await call()
        assert str(caught.value) == (
            "bucket recordings is not in region us-east-1: correct AWS_REGION to eu-west-1"
        )
        assert caught.value.fault == "no_bucket"
        assert not caught.value.retryable


async def test_head_that_is_redirected_is_told_alike(
    script: Script, store: S3Store
) -> None:
    # An answer to HEAD has no body, and so no code.
    script.answers = [
        answer("301 Moved Permanently", "", "x-amz-bucket-region: eu-west-1")
    ]
    with pytest.raises(UploadError, match="correct AWS_REGION to eu-west-1"):
        await store.head(new_key())


@pytest.mark.parametrize(
    "said",
    [
        answer("200 OK"),
        answer("200 OK", cut=9),
        answer("200 OK", "<html>Sign in to the guest network</html>"),
        answer("204 No Content"),
    ],
)
async def test_word_of_somebody_who_is_no_store_is_not_taken(
    script: Script, store: S3Store, said: bytes
) -> None:
    """Such as a proxy that has the user sign in: the call would be deleted."""
    script.answers = [said]
    for call in (
        lambda: put(store, new_key()),
        lambda: store.put_part(new_key(), "upload", 2, BytesBlob(b"hello")),
        lambda: finish(store),
        lambda: store.begin(new_key(), metadata={}, token="t"),
    ):
        with pytest.raises(UploadError):
            await call()


async def test_parts_of_an_object_that_was_there_already_are_given_up(
    script: Script, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the answer to an earlier attempt at it was lost."""
    monkeypatch.setattr("audiohook.storage.s3._PUT_LIMIT_BYTES", 4)
    name = "InitiateMultipartUploadResult"
    script.answers = [
        answer("200 OK", f"<{name}><UploadId>u</UploadId></{name}>"),
        answer("200 OK", "", 'ETag: "e1"'),
        answer("200 OK", "", 'ETag: "e2"'),
        answer("412 Precondition Failed", fault("PreconditionFailed")),
        found(5, "t"),
        found(5, "t"),
        answer("204 No Content"),
    ]
    assert (await put(store, new_key())).size == 5
    assert script.asked == ["POST", "PUT", "PUT", "POST", "HEAD", "HEAD", "DELETE"]


@pytest.mark.parametrize("sent", ["", '{"sessionId": "5'])
async def test_object_that_is_cut_on_its_way_is_no_object(
    script: Script, store: S3Store, sent: str
) -> None:
    """Half of a call's JSON would be taken for that of another call."""
    about = ('ETag: "e"', "Last-Modified: Sun, 22 Nov 2026 14:10:44 GMT")
    script.answers = [answer("200 OK", sent, *about, cut=9)]
    for call in (
        lambda: store.read(new_key("json")),
        lambda: store.fetch(new_key("json")),
        lambda: store.read_range(new_key(), 0, len(sent) + 9),
        lambda: store.traces.content(Trace(TraceKind.OBJECT, new_key("json"), "", 0)),
    ):
        with pytest.raises(LostAnswerError, match="broke") as caught:
            await call()
        assert (caught.value.fault, caught.value.retryable) == ("away", True)


async def test_list_that_does_not_say_where_it_goes_on_is_no_end(
    script: Script, store: S3Store
) -> None:
    listed = (
        "<ListBucketResult><IsTruncated>true</IsTruncated>"
        "<CommonPrefixes><Prefix>calls/a/</Prefix></CommonPrefixes></ListBucketResult>"
    )
    script.answers = [answer("200 OK", listed)]
    for pages in (store.list_names("calls/"), store.traces.beginning("calls/2026")):
        async with aclosing(pages):
            with pytest.raises(UploadError, match="where its list goes on") as caught:
                async for _ in pages:
                    pass
        assert caught.value.retryable


async def test_object_that_is_said_to_be_complete_and_is_not_there_is_missed(
    script: Script, store: S3Store
) -> None:
    script.answers = [COMPLETED, NOTHING]
    with pytest.raises(UploadError, match="is not there") as caught:
        await finish(store)
    assert caught.value.retryable


async def test_checksum_that_the_store_computed_is_compared(
    script: Script, store: S3Store
) -> None:
    for crc32, right in (("NhCmhg==", True), ("AAAAAA==", False)):
        script.answers = [
            answer("200 OK", "", 'ETag: "e"', f"x-amz-checksum-crc32: {crc32}"),
            NOTHING,
        ]
        if right:
            assert (await put(store, new_key())).size == 5
        else:
            with pytest.raises(LostAnswerError, match="damaged"):
                await put(store, new_key())


@pytest.mark.parametrize(
    ("there", "right", "asked"),
    [
        (found(5, "t"), True, ["PUT", "HEAD"]),
        (NOTHING, False, ["PUT", "HEAD"]),
        (found(3, "somebody"), False, ["PUT", "HEAD"]),
        (found(3, "t", HELLO_SHA256), False, ["PUT", "HEAD", "DELETE"]),
        (answer("403 Forbidden"), True, ["PUT", "HEAD"]),
    ],
)
async def test_object_whose_checksum_is_not_confirmed_is_looked_at(
    script: Script, store: S3Store, there: bytes, right: bool, asked: list[str]
) -> None:
    """What has no use is not left in the way of the next attempt."""
    script.answers = [answer("200 OK", "", 'ETag: "e"'), there, answer("204 Gone")]
    if right:
        assert (await put(store, new_key())).size == 5
    else:
        with pytest.raises(UploadError, match="is not there whole") as caught:
            await put(store, new_key())
        assert caught.value.retryable
    assert script.asked == asked


async def test_answer_that_comes_byte_by_byte_is_not_waited_for_for_ever(
    script: Script, make_store: MakeStore
) -> None:
    """Nor does it keep a thread from the next request."""
    limits = S3Options(connect_limit=2.0, silence_limit=2.0, request_limit=1.0)
    store = make_store(script.url, options=limits, parallel=1)
    script.answers = [answer("200 OK", "", 'ETag: "e"'), NOTHING]
    script.drips = True
    with pytest.raises(LostAnswerError, match="does not end") as caught:
        await store.put_part(new_key(), "upload", 2, BytesBlob(b"hello"))
    assert (caught.value.fault, caught.value.retryable) == ("away", True)
    script.answers, script.drips = [KEPT], False
    assert (await put(store, new_key())).size == 5
