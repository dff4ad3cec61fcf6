"""The settings of the pages, in a service that stores in a real bucket."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from audiohook.simulator.assemblyai import Pace, StandIn
from audiohook.simulator.client import place_call
from audiohook.simulator.options import CallOptions
from tests.documents import shown, typed
from tests.printed import assert_printed, form
from tests.seaweed import OWNER
from tests.slow.bucket import Bucket, aws_settings
from tests.slow.desk import ANSWER_SECONDS, shell
from tests.slow.processes import Site
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    import trio

    from tests.seaweed import Seaweed
    from tests.slow.processes import Server

pytestmark = pytest.mark.slow

ASSEMBLYAI_KEY = "k" * 32


def machine(folder: Path, settings: dict[str, str], *in_the_file: str) -> Site:
    """A machine whose service has these settings from a file, not from elsewhere."""
    return Site(folder, settings, ("env", *(f"--unset={name}" for name in in_the_file)))


async def test_settings_of_the_first_hour_store_and_transcribe(
    tmp_path: Path, seaweed: Seaweed, nursery: trio.Nursery
) -> None:
    bucket = Bucket(seaweed, "my-recordings")
    bucket.create()
    standin = StandIn(keys=(ASSEMBLYAI_KEY,), pace=Pace())
    site = machine(
        tmp_path,
        {
            **aws_settings(seaweed.url, bucket.name),
            "ASSEMBLYAI_BASE_URL": await nursery.start(standin.serve),
        },
        *("API_KEY", "HOST", "S3_BUCKET"),
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    )
    await shell(site, typed("docs/first-hour.md", "(umask 077").text)
    env = site.work / ".env"
    assert env.stat().st_mode & 0o077 == 0
    settings = typed("docs/first-hour.md", "HOST=127.0.0.1").text
    for mine in (*OWNER, ASSEMBLYAI_KEY):
        settings = settings.replace("…", mine, 1)
    with env.open("a") as file:
        file.write(settings)

    for block in (
        typed("docs/first-hour.md", "audiohook check"),
        typed("docs/s3.md", "audiohook check"),
    ):
        (command,) = block.commands()
    assert_printed(shown("docs/s3.md", "✓ write").text, await shell(site, command))
    async with site.serve() as server:
        uri = f"ws://127.0.0.1:{server.port}/"
        await shell(site, f"audiohook call {uri} --fast")
        await wait_until(lambda: server.lines("call_transcribed"), ANSWER_SECONDS)
        await site.wait_stored()
    listed = shown("docs/s3.md", "calls/<name>/audio")
    assert sorted(map(form, bucket.sizes())) == sorted(forms_of(listed.lines))


def forms_of(lines: tuple[str, ...]) -> list[str]:
    """Returns the keys that a page lists; a line may name further endings."""
    found = []
    for line in lines:
        path, remark = re.split(r"\s{2,}", line)
        found.append(form(path))
        if remark.startswith("with ."):
            stem = path.rpartition(".")[0]
            found += [form(stem + each) for each in re.findall(r"\.[a-z]+\b", remark)]
    return found


async def call(server: Server, **options: Any) -> None:  # noqa: ANN401 - passed on
    report = await place_call(CallOptions(uri=server.uri, fast=True, **options))
    assert report.ok, report.breaches


async def test_keys_of_the_page_store_each_where_it_says(
    tmp_path: Path, seaweed: Seaweed
) -> None:
    page = typed("docs/keys.md", "{")
    keys: dict[str, Any] = json.loads(page.text)
    (plain, secret), (acme, record) = keys.items()
    bucket, others = Bucket(seaweed), Bucket(seaweed, record["bucket"])
    bucket.create()
    others.create()
    (file := tmp_path / "keys.json").write_text(page.text)
    file.chmod(0o600)
    aws = aws_settings(seaweed.url, bucket.name)
    (tmp_path / "site").mkdir()
    site = machine(tmp_path / "site", {**aws, "API_KEYS_FILE": str(file)}, "API_KEY")
    async with site.serve() as server:
        await call(server, api_key=plain, client_secret=secret)
        of_acme = partial(call, server, organization_id=record["organization"])
        for each in record["secret"]:
            await of_acme(api_key=acme, client_secret=each)
        await site.wait_stored()
    assert [key[-4:] for key in bucket.sizes()].count(".wav") == 1
    (tmp_path / "fetched").mkdir()
    found = others.fetch(tmp_path / "fetched")
    assert len(found) == len(record["secret"])
    for (recording,) in found.values():
        assert recording.folder.parent.name == record["prefix"].strip("/")
        facts = recording.facts["settings"]
        for name, value in record["settings"].items():
            assert facts[name] == {"value": value, "from": "key"}
        # Split into a file a side.
        assert len(list(recording.folder.glob("audio/*.wav"))) == 2
