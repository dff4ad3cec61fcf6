"""Erasure and audit of calls in buckets and below prefixes of API keys."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from audiohook.protocol.messages import Channel
from audiohook.simulator.assemblyai import StandIn
from audiohook.simulator.client import place_call
from audiohook.simulator.options import CallOptions
from tests.api.served import ERASER, write_tokens
from tests.house import KEY
from tests.slow.bucket import Bucket, aws_settings
from tests.slow.processes import Site
from tests.slow.test_erase import MINE, NEAR, STANDIN_KEY, Versions
from tests.storage.s3_tools import plain_client
from tests.waiting import wait_until

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.slow.processes import Server

pytestmark = pytest.mark.slow

ACME, VIP, SHY = "YWNtZQ==", "dmlw", "c2h5"
# Of each conversation: where its calls have to be.
PLACES = {KEY: "calls/sales/north/", ACME: "acme/sales/north/", VIP: "vip/"}


async def record(server: Server, key: str, conversation: str) -> None:
    config = {"prefix": "sales/north"} if key in (KEY, ACME) else {}
    options = CallOptions(
        uri=server.uri,
        api_key=key,
        conversation_id=conversation,
        session_id=str(uuid.uuid4()),
        channels=(Channel.EXTERNAL, Channel.INTERNAL),
        custom_config=config,
        duration=2.0,
        fast=True,
    )
    assert (await place_call(options)).ok


async def audited(site: Site, day: str, **settings: str) -> tuple[int, dict[str, Any]]:
    before, site.settings = site.settings, site.settings | settings
    done: subprocess.CompletedProcess[bytes] = await site.command(
        "audit", "--day", day, "--json"
    )
    site.settings = before
    return done.returncode, json.loads(done.stdout or b"{}")


async def ask_for_erasure(server: Server, conversation: str) -> None:
    """Asks the API, and waits until it is done."""
    headers = {"authorization": f"Bearer {ERASER}"}
    base = f"{server.admin_uri}/api/v1"
    async with httpx.AsyncClient(headers=headers) as client:
        answer = await client.delete(f"{base}/calls/{conversation}")
        assert answer.status_code == 202, answer.text
        reference = answer.json()["reference"]
        with trio.fail_after(30):
            while not answer.json().get("done"):
                await trio.sleep(0.1)
                answer = await client.get(f"{base}/erasures/{reference}")


class Both:
    """The bucket of the service and that of a key, down to the last version."""

    def __init__(self, *buckets: Bucket) -> None:
        self.versions = [Versions(each) for each in buckets]

    def all(self) -> dict[tuple[int, str, str, str], bytes]:
        return {
            (number, *each): data
            for number, one in enumerate(self.versions)
            for each, data in one.all().items()
        }

    def age(self, conversation: str) -> None:
        """Gives each recording of a conversation a past, see `Versions.age`."""
        folders = {
            (number, key.partition("/audio/")[0])
            for number, _, key, _ in self.all()
            if conversation in key and "/audio/" in key
        }
        for number, folder in folders:
            self.versions[number].age(folder)


def lose_wav(bucket: Bucket, conversation: str) -> None:
    client: Any = plain_client(bucket.store)
    (key,) = [
        each
        for each in bucket.sizes()
        if conversation in each and each.endswith(".wav")
    ]
    client.delete_object(Bucket=bucket.name, Key=key)
    client.close()


async def test_calls_of_keys_are_audited_and_erased_wherever_they_are(
    tmp_path: Path, bucket: Bucket, nursery: trio.Nursery
) -> None:
    acme = Bucket(bucket.store)
    acme.create()
    both = await trio.to_thread.run_sync(Both, bucket, acme)
    standin = StandIn()
    keys = tmp_path / "keys.json"
    shy = {
        "bucket": acme.name,
        "prefix": "shy/",
        "settings": {"mode": "transcribe only"},
    }
    keys.write_text(
        json.dumps(
            {
                ACME: {"secret": None, "bucket": acme.name, "prefix": "acme/"},
                VIP: {"secret": None, "prefix": "vip/"},
                SHY: {"secret": None, **shy},
            }
        )
    )
    (tmp_path / "site").mkdir()
    site = Site(
        tmp_path / "site",
        {
            **aws_settings(bucket.store.url, bucket.name),
            "API_KEYS_FILE": str(keys),
            "API_TOKENS_FILE": str(write_tokens(tmp_path / "tokens.json")),
            "CUSTOM_CONFIG_ALLOW": "prefix",
            "ASSEMBLYAI_API_KEY": STANDIN_KEY,
            "ASSEMBLYAI_BASE_URL": await nursery.start(standin.serve),
        },
    )
    async with site.serve() as server:
        for conversation in (MINE, NEAR):
            for key in PLACES:
                await record(server, key, conversation)
        await record(server, SHY, NEAR)
        await site.wait_stored()
        await wait_until(lambda: len(server.lines("call_transcribed")) == 7)
        # Of the audio that only a transcript was wanted of nothing is left at all.
        before = await trio.to_thread.run_sync(both.all)
        quiet = {each[2] for each in before if each[2].startswith("shy/")}
        assert {key.rpartition(".")[2] for key in quiet} == {
            "json",
            "txt",
            "srt",
            "vtt",
        }
        starts = {each[2].partition("20")[0] for each in before if MINE in each[2]}
        assert starts == set(PLACES.values())
        day = min(quiet).removeprefix("shy/")[:10]
        code, report = await audited(site, day)
        assert (code, report["calls"], report["findings"]) == (0, 7, [])
        await trio.to_thread.run_sync(both.age, MINE)
        before = await trio.to_thread.run_sync(both.all)
        mine = {each for each in before if MINE in each[2]}
        assert {each[:2] for each in mine} == {
            (number, kind)
            for number in (0, 1)
            for kind in ("version", "marker", "upload")
        }
        await ask_for_erasure(server, MINE)
        server.terminate()
        await server.wait()
    after = await trio.to_thread.run_sync(both.all)
    assert before.keys() - after.keys() == mine
    assert all(after[each] == before[each] for each in after)
    # What is missing in the bucket of a key is missed.
    await trio.to_thread.run_sync(lose_wav, acme, NEAR)
    code, report = await audited(site, day)
    assert (code, report["calls"]) == (1, 4)
    (finding,) = report["findings"]
    assert finding["kind"] == "missing"
    assert finding["detail"].startswith("acme/sales/north/")
    assert (await audited(site, day, AWS_ENDPOINT_URL_S3="http://127.0.0.1:9"))[0] == 2
    # And the command finds the same.
    shown = await site.command("erase", NEAR, "--dry-run")
    assert shown.stdout.decode().splitlines()[-1].startswith(f"{len(after) + 1} things")
    done = await site.command("erase", NEAR, "--yes")
    assert done.returncode == 0, done.stdout.decode()
    assert await trio.to_thread.run_sync(both.all) == {}
    nursery.cancel_scope.cancel()
