"""A bucket, a secret, a clock and certificates that are wrong, mended under way."""

from __future__ import annotations

import math
import re
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from audiohook.simulator.client import place_call
from audiohook.simulator.options import CallOptions
from tests.faultproxy import FaultProxy
from tests.house import KEY
from tests.seaweed import OWNER, Seaweed
from tests.slow.bucket import Bucket, aws_settings
from tests.slow.processes import (
    Server,
    Site,
    numbered_audio,
    sound_audio,
    tell,
    write_wav,
)
from tests.slow.wall_clock import WallClock
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow

EVENT = "store_needs_mending"
CALLS = 12
CALL_SECONDS = 1.0
# While the fault lasts.
TROUBLE_SECONDS = 5.0
# A trial is made every 30 s at most; refused credentials are looked for again after
# a minute.
MEND_SECONDS = 130.0
# S3 forgives a quarter of an hour.
SKEW_SECONDS = 20 * 60


def write_credentials(path: Path, secret: str) -> None:
    path.write_text(
        f"[default]\naws_access_key_id={OWNER[0]}\naws_secret_access_key={secret}\n"
    )


async def make_calls(site: Site, server: Server, count: int) -> dict[str, bytes]:
    """Makes calls that must not notice anything; their audio, by session id."""
    audio = {}

    async def call(number: int) -> None:
        said = numbered_audio(number, CALL_SECONDS)
        wav = write_wav(site.base / f"{number}.wav", said)
        options = CallOptions(uri=server.uri, api_key=KEY, wav=wav)
        report = await place_call(options)
        assert report.ok, report.breaches
        audio[report.session_id] = said

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(call, number)
    return audio


async def see_mended(
    site: Site, bucket: Bucket, pattern: str, mend: Callable[[], None]
) -> tuple[float, int]:
    """Makes calls while the store refuses, has it mended, and looks for them.

    Args:
        site: Its store is not usable yet.
        bucket: Where the calls are to be.
        pattern: What the log has to say, all of it.
        mend: Does what it takes; blocks.

    Returns:
        Seconds from then until all is stored, and how many lines told of the trouble.
    """
    async with site.serve() as server:
        began = trio.current_time()
        audio = await make_calls(site, server, CALLS)
        await wait_until(lambda: server.lines(EVENT))
        await trio.sleep_until(began + TROUBLE_SECONDS)
        assert len(site.spooled()) == CALLS
        await trio.to_thread.run_sync(mend)
        mended = trio.current_time()
        await wait_until(lambda: not site.spooled(), MEND_SECONDS)
        ended = trio.current_time()
        told = server.lines(EVENT)
        assert len(server.lines("store_works_again")) == 1
        assert not server.lines("call_not_stored")
        assert not server.lines("delivery_failed")
    assert all(re.fullmatch(pattern, line["error"]) for line in told), told
    assert 1 <= len(told) <= math.ceil((ended - began) / 60.0)
    root = site.base / "fetched"
    recordings = await trio.to_thread.run_sync(bucket.fetch, root)
    assert set(recordings) == set(audio)
    for session, (recording,) in recordings.items():
        assert sound_audio(recording, root) == audio[session]
    return ended - mended, len(told)


async def test_store_is_used_once_it_is_mended(
    tmp_path: Path, seaweed: Seaweed, capsys: pytest.CaptureFixture[str]
) -> None:
    async with trio.open_nursery() as nursery:
        # Side by side, since what takes time is waiting.
        nursery.start_soon(create_missing_bucket, tmp_path, seaweed, capsys)
        nursery.start_soon(correct_wrong_secret, tmp_path, seaweed, capsys)


async def create_missing_bucket(
    folder: Path, seaweed: Seaweed, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket = Bucket(seaweed)
    (folder / "bucket").mkdir()
    site = Site(folder / "bucket", aws_settings(seaweed.url, bucket.name))
    pattern = (
        f"bucket {bucket.name} does not exist in region us-east-1: create it or"
        " correct S3_BUCKET"
    )
    took, told = await see_mended(site, bucket, pattern, bucket.create)
    tell(capsys, f"bucket created: all stored {took:.0f} s later, {told} lines")


async def correct_wrong_secret(
    folder: Path, seaweed: Seaweed, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket = Bucket(seaweed)
    await trio.to_thread.run_sync(bucket.create)
    (folder / "secret").mkdir()
    credentials = folder / "credentials"
    write_credentials(credentials, "not-the-owners")
    settings = aws_settings(seaweed.url, bucket.name)
    del settings["AWS_ACCESS_KEY_ID"], settings["AWS_SECRET_ACCESS_KEY"]
    settings["AWS_SHARED_CREDENTIALS_FILE"] = str(credentials)
    site = Site(folder / "secret", settings)
    pattern = (
        "the secret does not belong to the access key: correct AWS_SECRET_ACCESS_KEY"
    )
    took, told = await see_mended(
        site, bucket, pattern, lambda: write_credentials(credentials, OWNER[1])
    )
    tell(capsys, f"secret corrected: all stored {took:.0f} s later, {told} lines")


@pytest.mark.parametrize(
    ("seconds", "words"), [(SKEW_SECONDS, "fast"), (-SKEW_SECONDS, "slow")]
)
async def test_store_is_used_once_the_clock_is_right(
    tmp_path: Path,
    bucket: Bucket,
    capsys: pytest.CaptureFixture[str],
    seconds: int,
    words: str,
) -> None:
    (tmp_path / "clock").mkdir()
    (tmp_path / "site").mkdir()
    clock = WallClock(tmp_path / "clock", seconds)
    settings = aws_settings(bucket.store.url, bucket.name)
    site = Site(tmp_path / "site", settings | clock.settings)
    pattern = (
        r"the clock of this machine is wrong by (1199|1200|1201) s,"
        rf" it is {words}: set it, for example with `timedatectl set-ntp true`"
    )
    took, told = await see_mended(site, bucket, pattern, clock.correct)
    tell(capsys, f"{words} clock set: all stored {took:.0f} s later, {told} lines")


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is wrong with a certificate, and how the log is to put it."""

    fault: str
    reason: str


CERTIFICATES = (
    Certificate("other-authority", "unable to get local issuer certificate"),
    Certificate("other-host", "it is for another host"),
    Certificate("expired", "certificate has expired"),
    # The certificate is right, but the file of those that are trusted lacks its
    # authority until somebody adds it.
    Certificate("not-in-bundle", "unable to get local issuer certificate"),
)


async def test_store_is_used_once_its_certificate_is_trusted(
    tmp_path: Path, seaweed: Seaweed, capsys: pytest.CaptureFixture[str]
) -> None:
    async with trio.open_nursery() as fronts:
        async with trio.open_nursery() as nursery:
            for each in CERTIFICATES:
                folder = tmp_path / each.fault
                folder.mkdir()
                nursery.start_soon(
                    mend_certificate, folder, seaweed, fronts, each, capsys
                )
        fronts.cancel_scope.cancel()


async def mend_certificate(
    folder: Path,
    seaweed: Seaweed,
    fronts: trio.Nursery,
    certificate: Certificate,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bucket = Bucket(seaweed)
    await trio.to_thread.run_sync(bucket.create)
    authority, other = trustme.CA(), trustme.CA()
    now = datetime.now(UTC)
    good = authority.issue_cert("127.0.0.1")
    bad = {
        "other-authority": other.issue_cert("127.0.0.1"),
        "other-host": authority.issue_cert("elsewhere.example"),
        "expired": authority.issue_cert(
            "127.0.0.1",
            not_before=now - timedelta(days=9),
            not_after=now - timedelta(days=1),
        ),
        "not-in-bundle": good,
    }[certificate.fault]
    trusted = other if certificate.fault == "not-in-bundle" else authority
    bundle = folder / "bundle.pem"
    trusted.cert_pem.write_to_path(str(bundle))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    bad.configure_cert(context)
    front = FaultProxy(seaweed.port, tls=context)
    await fronts.start(front.serve)

    def mend() -> None:
        # Connections that are made from now on see it.
        good.configure_cert(context)
        authority.cert_pem.write_to_path(str(bundle), append=True)

    (folder / "site").mkdir()
    settings = aws_settings(front.url, bucket.name)
    site = Site(folder / "site", settings | {"AWS_CA_BUNDLE": str(bundle)})
    pattern = (
        rf"the certificate of 127\.0\.0\.1:{front.port} is not trusted"
        rf" \({certificate.reason}\): name the file with its authority in"
        " AWS_CA_BUNDLE, or correct the address"
    )
    took, told = await see_mended(site, bucket, pattern, mend)
    tell(
        capsys,
        f"certificate mended ({certificate.fault}): all stored {took:.0f} s later,"
        f" {told} lines",
    )
