from __future__ import annotations

import socket
import ssl
from contextlib import ExitStack
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import trio
import trustme
from botocore import auth

from audiohook.errors import UploadError
from audiohook.storage.s3 import S3Store
from audiohook.storage.s3_client import S3Options
from tests.faultproxy import INTERNAL_ERROR, SLOW_DOWN, FaultProxy, Hang, Reset
from tests.seaweed import OWNER, READER, Seaweed
from tests.storage.s3_tools import HELLO_SHA256, new_key, put, put_in_parts

if TYPE_CHECKING:
    from pathlib import Path

    from tests.storage.conftest import MakeStore

pytestmark = pytest.mark.slow


async def check_fault(
    store: S3Store, fault: str, text: str, *, retryable: bool
) -> None:
    for call in (
        put(store, new_key()),
        store.begin(new_key(), metadata={}, token="t"),
    ):
        with pytest.raises(UploadError, match=text) as caught:
            await call
        assert caught.value.fault == fault
        assert caught.value.retryable == retryable
        assert "\n" not in str(caught.value)
        assert OWNER[1] not in str(caught.value)


async def tls_proxy(
    authority: trustme.CA,
    seaweed: Seaweed,
    nursery: trio.Nursery,
    name: str = "127.0.0.1",
) -> FaultProxy:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    proxy = FaultProxy(seaweed.port, tls=context)
    await nursery.start(proxy.serve)
    return proxy


def trust(authority: trustme.CA, aws: pytest.MonkeyPatch, folder: Path) -> None:
    bundle = folder / "authority.pem"
    authority.cert_pem.write_to_path(str(bundle))
    aws.setenv("AWS_CA_BUNDLE", str(bundle))


async def test_fault_missing_bucket(seaweed: Seaweed, make_store: MakeStore) -> None:
    store = make_store(seaweed.url, bucket="no-such-bucket")
    text = "no-such-bucket does not exist in region us-east-1: create it or correct"
    await check_fault(store, "no_bucket", text, retryable=False)


async def test_fault_impossible_bucket(aws: pytest.MonkeyPatch) -> None:
    aws.setenv("AWS_ACCESS_KEY_ID", "a")
    aws.setenv("AWS_SECRET_ACCESS_KEY", "b")
    store = S3Store("no bucket")
    await check_fault(store, "no_bucket", "correct S3_BUCKET", retryable=False)


async def test_fault_wrong_secret(seaweed: Seaweed, make_store: MakeStore) -> None:
    store = make_store(seaweed.url, keys=(OWNER[0], "wrong"))
    text = "correct AWS_SECRET_ACCESS_KEY"
    await check_fault(store, "bad_key_or_secret", text, retryable=False)


async def test_fault_wrong_key(seaweed: Seaweed, make_store: MakeStore) -> None:
    store = make_store(seaweed.url, keys=("AKIDWRONG", OWNER[1]))
    text = "correct AWS_ACCESS_KEY_ID"
    await check_fault(store, "bad_key_or_secret", text, retryable=False)


async def test_fault_no_credentials(
    seaweed: Seaweed, make_store: MakeStore, aws: pytest.MonkeyPatch
) -> None:
    store = make_store(seaweed.url)
    aws.delenv("AWS_ACCESS_KEY_ID")
    aws.delenv("AWS_SECRET_ACCESS_KEY")
    text = "there are no AWS credentials"
    await check_fault(store, "bad_key_or_secret", text, retryable=False)


async def test_fault_no_such_profile(
    seaweed: Seaweed, make_store: MakeStore, aws: pytest.MonkeyPatch
) -> None:
    store = make_store(seaweed.url)
    aws.setenv("AWS_PROFILE", "nobody")
    await check_fault(store, "bad_key_or_secret", "AWS_PROFILE", retryable=False)


async def test_fault_denied(seaweed: Seaweed, make_store: MakeStore) -> None:
    store = make_store(seaweed.url, keys=READER)
    await check_fault(store, "denied", "is denied: allow it", retryable=False)


@pytest.mark.parametrize(("hours", "words"), [(-1, "slow"), (1, "fast")])
async def test_fault_wrong_clock(
    s3: S3Store, monkeypatch: pytest.MonkeyPatch, hours: int, words: str
) -> None:
    right = auth.get_current_datetime

    def wrong(remove_tzinfo: bool = True) -> datetime:
        now: datetime = right(remove_tzinfo)
        return now + timedelta(hours=hours)

    monkeypatch.setattr(auth, "get_current_datetime", wrong)
    monkeypatch.setattr(
        "audiohook.storage.s3_faults.time.time",
        lambda: wrong().timestamp(),
    )
    await check_fault(s3, "clock", words, retryable=False)


async def test_fault_connection_refused(make_store: MakeStore) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        store = make_store(f"http://127.0.0.1:{closed.getsockname()[1]}")
        await check_fault(store, "away", "Connection refused", retryable=True)


async def test_fault_no_connection_in_time(make_store: MakeStore) -> None:
    with ExitStack() as stack:
        # Connections that nobody accepts fill the queue; the next gets no answer.
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        store = make_store(url, options=S3Options(connect_limit=0.2))
        text = r"cannot connect to .* \(no answer\)"
        await check_fault(store, "away", text, retryable=True)


async def test_fault_no_answer_in_time(
    proxy: FaultProxy, make_store: MakeStore
) -> None:
    proxy.plan(Hang(), times=4)
    store = make_store(proxy.url, options=S3Options(silence_limit=0.2))
    await check_fault(store, "away", "no answer from", retryable=True)


async def test_fault_broken_connection(store: S3Store, proxy: FaultProxy) -> None:
    proxy.plan(Reset(), times=4)
    await check_fault(store, "away", "broke", retryable=True)


async def test_fault_internal_error(store: S3Store, proxy: FaultProxy) -> None:
    proxy.plan(INTERNAL_ERROR, times=4)
    await check_fault(store, "away", r"fails \(InternalError\)", retryable=True)


async def test_fault_slow_down(store: S3Store, proxy: FaultProxy) -> None:
    proxy.plan(SLOW_DOWN, times=2)
    await check_fault(store, "busy", "asks for fewer requests", retryable=True)
    assert proxy.count("HEAD") == 0


async def test_fault_certificate_not_trusted(
    seaweed: Seaweed, make_store: MakeStore, nursery: trio.Nursery
) -> None:
    proxy = await tls_proxy(trustme.CA(), seaweed, nursery)
    text = "not trusted .*AWS_CA_BUNDLE"
    await check_fault(make_store(proxy.url), "certificate", text, retryable=False)


async def test_fault_certificate_of_another_host(
    seaweed: Seaweed,
    make_store: MakeStore,
    nursery: trio.Nursery,
    aws: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    authority = trustme.CA()
    trust(authority, aws, tmp_path)
    proxy = await tls_proxy(authority, seaweed, nursery, name="elsewhere.example")
    text = "not trusted .*another host"
    await check_fault(make_store(proxy.url), "certificate", text, retryable=False)


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_fault_unusable_bundle_of_certificates(
    seaweed: Seaweed,
    make_store: MakeStore,
    nursery: trio.Nursery,
    aws: pytest.MonkeyPatch,
    tmp_path: Path,
    content: str | None,
) -> None:
    proxy = await tls_proxy(trustme.CA(), seaweed, nursery)
    bundle = tmp_path / "bundle.pem"
    if content:
        bundle.write_text(content)
    aws.setenv("AWS_CA_BUNDLE", str(bundle))
    text = "AWS_CA_BUNDLE does not name a readable file"
    await check_fault(make_store(proxy.url), "certificate", text, retryable=False)


async def test_fault_tls_where_there_is_none(
    seaweed: Seaweed, make_store: MakeStore
) -> None:
    store = make_store(seaweed.url.replace("http:", "https:"))
    await check_fault(store, "other", "does not speak TLS", retryable=False)


@pytest.mark.parametrize("url", ["nonsense", "http://[::1"])
async def test_fault_endpoint_that_is_no_address(
    make_store: MakeStore, url: str
) -> None:
    store = make_store(url)
    await check_fault(store, "other", "AWS_ENDPOINT_URL_S3", retryable=False)


@pytest.mark.parametrize("status", [b"201", b"404", b"405"])
async def test_fault_something_else_than_s3(
    make_store: MakeStore, nursery: trio.Nursery, status: bytes
) -> None:
    async def serve_page(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(
            b"HTTP/1.1 %b Page\r\nContent-Length: 6\r\n\r\n<html>" % status
        )

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, serve_page, listeners)
    port = listeners[0].socket.getsockname()[1]
    store = make_store(f"http://127.0.0.1:{port}")
    with pytest.raises(UploadError, match="does not answer as S3 does") as caught:
        await put(store, new_key())
    assert caught.value.fault == "other"


async def test_refused_credentials_are_looked_for_again(
    seaweed: Seaweed, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(seaweed.url, keys=(OWNER[0], "wrong"))
    with pytest.raises(UploadError):
        await put(store, new_key())
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", OWNER[1])
    with pytest.raises(UploadError):
        await put(store, new_key())
    monkeypatch.setattr("audiohook.storage.s3_requests._CLIENT_AGE", -1.0)
    with pytest.raises(UploadError):
        await put(store, new_key())
    assert (await put(store, new_key())).size == 5


async def test_body_is_signed_without_tls_and_only_its_checksum_with_it(
    seaweed: Seaweed,
    proxy: FaultProxy,
    make_store: MakeStore,
    nursery: trio.Nursery,
    aws: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    authority = trustme.CA()
    trust(authority, aws, tmp_path)
    over_tls = await tls_proxy(authority, seaweed, nursery)
    for each, signed in (
        (proxy, HELLO_SHA256),
        (over_tls, "UNSIGNED-PAYLOAD"),
    ):
        store = make_store(each.url)
        await put(store, new_key())
        await put_in_parts(store, new_key())
        bodies = [request for request in each.requests if request.method == "PUT"]
        assert len(bodies) == 2
        for request in bodies:
            assert request.headers["x-amz-content-sha256"] == signed
            assert request.headers["x-amz-checksum-crc32"] == "NhCmhg=="
            assert "x-amz-checksum-crc32" in request.headers["authorization"]
            assert request.headers["content-length"] == "5"
            assert "transfer-encoding" not in request.headers
            assert "content-encoding" not in request.headers
            assert "x-amz-sdk-checksum-algorithm" not in request.headers


async def test_upload_says_what_amazon_wants_to_hear(
    store: S3Store, proxy: FaultProxy
) -> None:
    await put(store, new_key())
    await put_in_parts(store, new_key())
    whole, begin, _, complete = [
        each.headers for each in proxy.requests if each.method != "HEAD"
    ]
    assert whole["if-none-match"] == "*"
    assert begin["x-amz-checksum-algorithm"] == "CRC32"
    assert complete["if-none-match"] == "*"
    assert complete["x-amz-mp-object-size"] == "5"
