"""Erasure by a command that is killed again and again, from a bucket with versions."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from audiohook.erasure.ledger import ERASURES, Ledger
from audiohook.simulator.assemblyai import StandIn
from audiohook.simulator.client import place_call
from audiohook.simulator.options import CallOptions
from tests.house import KEY
from tests.slow.bucket import Bucket, aws_settings
from tests.slow.processes import Site, tell
from tests.slow.scale import scaled
from tests.storage.s3_tools import plain_client
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.faultproxy import FaultProxy
    from tests.slow.processes import Server

pytestmark = pytest.mark.slow

MINE = "5e55a0e5-0000-4000-8000-000000000001"
# It begins as the first does, as far as an id can.
NEAR = "5e55a0e5-0000-4000-8000-000000000002"
STANDIN_KEY = "stand-in-key"
# A process is killed after so many requests more than the one before.
STEP = scaled(8, 1)
COMMAND_SECONDS = 60.0


class Versions:
    """All that a bucket has, down to the last version. All of it blocks."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket.name
        self._client: Any = plain_client(bucket.store)
        self._pid = bucket.store.pid
        self._client.put_bucket_versioning(
            Bucket=self._bucket, VersioningConfiguration={"Status": "Enabled"}
        )

    def all(self) -> dict[tuple[str, str, str], bytes]:
        """Returns versions and markers, with their contents, and uploads."""
        client, found = self._client, {}
        page = client.list_object_versions(Bucket=self._bucket)
        assert not page["IsTruncated"]
        for each in page.get("Versions", []):
            fetched = client.get_object(
                Bucket=self._bucket, Key=each["Key"], VersionId=each["VersionId"]
            )
            found["version", each["Key"], each["VersionId"]] = fetched["Body"].read()
        for each in page.get("DeleteMarkers", []):
            found["marker", each["Key"], each["VersionId"]] = b""
        uploads = client.list_multipart_uploads(Bucket=self._bucket)
        for each in uploads.get("Uploads", []):
            found["upload", each["Key"], each["UploadId"]] = b""
        return found

    def age(self, folder: str) -> None:
        """Adds what a bucket has of a call that has been through something."""
        client = self._client
        page = client.list_objects_v2(Bucket=self._bucket, Prefix=f"{folder}/")
        for each in page["Contents"]:
            data = client.get_object(Bucket=self._bucket, Key=each["Key"])
            body = data["Body"].read()
            for _ in range(2):
                client.put_object(Bucket=self._bucket, Key=each["Key"], Body=body)
        wav = next(e["Key"] for e in page["Contents"] if e["Key"].endswith(".wav"))
        client.delete_object(Bucket=self._bucket, Key=wav)
        upload = client.create_multipart_upload(Bucket=self._bucket, Key=f"{wav}2")
        client.upload_part(
            Bucket=self._bucket,
            Key=f"{wav}2",
            UploadId=upload["UploadId"],
            PartNumber=1,
            Body=b"half a voice",
        )

    def listing(self) -> str:
        """Returns all names of the store's own file system, past S3."""
        command = Path(f"/proc/{self._pid}/cmdline").read_bytes().decode().split("\0")
        (port,) = (each.split("=")[1] for each in command if "-filer.port=" in each)
        names: list[str] = []
        folders = [f"/buckets/{self._bucket}/"]
        while folders:
            folder = folders.pop()
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}{folder}?limit=10000",
                headers={"Accept": "application/json"},
            )
            with urllib.request.urlopen(request) as answer:
                entries = json.load(answer).get("Entries") or []
            for each in entries:
                names.append(each["FullPath"])
                if each["Mode"] & (1 << 31):
                    folders.append(f"{each['FullPath']}/")
        return "\n".join(names)


async def record(server: Server, conversation: str) -> str:
    """Makes a call; returns its session."""
    session = str(uuid.uuid4())
    call = CallOptions(
        uri=server.uri,
        api_key=KEY,
        conversation_id=conversation,
        session_id=session,
        duration=2.0,
        fast=True,
    )
    assert (await place_call(call)).ok
    return session


async def killed_after(site: Site, proxy: FaultProxy, requests: int) -> int | None:
    """Runs the command, and kills it after so many requests; its exit code, or None."""
    seen = len(proxy.requests)
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "audiohook", "erase", "--pending"],
        cwd=site.work,
        env=site.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    with trio.fail_after(COMMAND_SECONDS):
        while process.poll() is None:
            if len(proxy.requests) - seen >= requests:
                process.kill()
                await process.wait()
                return None
            await trio.sleep(0.001)
    return process.returncode


def mentions(folder: Path, text: str) -> list[str]:
    """All files with a text in them, or in their names, but for the open order."""
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if f"{ERASURES}/orders" not in str(path)
        and (
            text in path.name or (path.is_file() and text.encode() in path.read_bytes())
        )
    ]


async def test_one_of_three_goes_to_the_last_version_however_often_it_is_killed(
    tmp_path: Path,
    bucket: Bucket,
    proxy: FaultProxy,
    nursery: trio.Nursery,
    capsys: pytest.CaptureFixture[str],
) -> None:
    versions = await trio.to_thread.run_sync(Versions, bucket)
    standin = StandIn()
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site", aws_settings(proxy.url, bucket.name))
    site.settings["ASSEMBLYAI_API_KEY"] = STANDIN_KEY
    site.settings["ASSEMBLYAI_BASE_URL"] = await nursery.start(standin.serve)
    async with site.serve() as server:
        sessions = [await record(server, MINE) for _ in range(3)]
        await record(server, NEAR)
        await site.wait_stored()
        await wait_until(lambda: len(server.lines("call_transcribed")) == 4)
        stored = {line["session"]: line["key"] for line in server.lines("call_stored")}
        jobs = {
            line["session"]: line["transcript"]
            for line in server.lines("call_transcribed")
        }
        server.terminate()
        await server.wait()
    session, folder = sessions[1], stored[sessions[1]]
    await trio.to_thread.run_sync(versions.age, folder)
    before = await trio.to_thread.run_sync(versions.all)
    mine = {each for each in before if each[1].startswith(f"{folder}/")}
    assert {kind for kind, _, _ in mine} == {"version", "marker", "upload"}
    first = await site.command(
        "erase", MINE, "--session", session, "--yes", "--wait", "0"
    )
    assert first.returncode == 1, first.stderr.decode()
    kills = 0
    for requests in itertools.count(1, STEP):
        code = await killed_after(site, proxy, requests)
        if code is not None:
            break
        kills += 1
    assert code == 0
    after = await trio.to_thread.run_sync(versions.all)
    assert before.keys() - after.keys() == mine
    assert all(after[each] == before[each] for each in after)
    name = folder.rpartition("/")[2]
    await wait_until(lambda: name not in versions.listing(), 20.0)
    assert stored[sessions[0]] in versions.listing()
    account = standin.account(STANDIN_KEY)
    assert {each.id for each in account.jobs.values() if each.deleted} == {
        jobs[session]
    }
    assert mentions(site.recordings, session) == []
    (done,) = Ledger(site.recordings / ".spool").records()
    kinds = [kind for kind, _, _ in mine]
    counts = done.counts
    assert (counts.versions, counts.markers, counts.uploads) == (
        kinds.count("version"),
        kinds.count("marker"),
        kinds.count("upload"),
    )
    assert counts.bytes == sum(len(before[each]) for each in mine)
    assert counts.transcripts == 1
    tell(
        capsys,
        f"{kills} kills; {counts.versions} versions, {counts.markers} marker,"
        f" {counts.uploads} upload, {counts.bytes} bytes gone; {len(after)} others"
        " untouched",
    )
    # The others are found, and this one is not, by a service that begins anew.
    async with site.serve() as server:
        assert await trio.to_thread.run_sync(versions.all) == after
        server.terminate()
        await server.wait()
    nursery.cancel_scope.cancel()


async def test_a_running_service_gives_up_what_a_command_wants_erased(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    site = Site(tmp_path)
    standin = StandIn(keys=("another",))
    site.settings["ASSEMBLYAI_API_KEY"] = STANDIN_KEY
    site.settings["ASSEMBLYAI_BASE_URL"] = await nursery.start(standin.serve)
    async with site.serve() as server:
        await record(server, MINE)
        kept = await record(server, NEAR)
        # Both wait in the hands of the service, which may not ask for transcripts.
        await wait_until(lambda: len(server.lines("call_stored")) == 2)
        nursery.start_soon(
            place_call,
            CallOptions(
                uri=server.uri,
                api_key=KEY,
                conversation_id=MINE,
                duration=120.0,
                frame_ms=20,
            ),
        )
        await wait_until(lambda: len(server.lines("call_opened")) == 3)
        refused = await site.command("erase", MINE, "--yes")
        assert refused.returncode == 2
        assert (
            b"the call is live: wait until it is over, or add --end" in refused.stderr
        )
        began = time.monotonic()
        done = await site.command("erase", MINE, "--yes", "--end", "--wait", "40")
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
        assert time.monotonic() - began < COMMAND_SECONDS
        assert [path.name for path in site.spooled()] == [kept]
        assert set(site.stored()) == {kept}
    assert mentions(site.recordings, MINE) == []
    nursery.cancel_scope.cancel()
