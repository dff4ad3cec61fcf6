"""What the pages have one type for Amazon, typed against moto's server."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from audiohook.simulator.assemblyai import Pace, StandIn
from tests.documents import typed
from tests.house import KEY
from tests.moto_server import Moto, moto_server
from tests.slow.desk import ANSWER_SECONDS, going_on, shell
from tests.slow.processes import Site
from tests.slow.scale import FULL_SIZE
from tests.slow.sources import link_sources
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import trio

    from tests.documents import Block

pytestmark = pytest.mark.slow

# What is built need not be fast, and is compiled once; what it depends on fills most
# of the archive, and most of the minutes.
LITTLE_WORK = {"PIP_NO_COMPILE": "1", "PIP_NO_BUILD_ISOLATION": "0"}
if not FULL_SIZE:
    LITTLE_WORK["PIP_NO_DEPS"] = "1"
MAKE_SECONDS = 400.0
ASSEMBLYAI_KEY = "k" * 32
# In older regions the aws command asks for a queue at an address of its own making,
# whatever AWS_ENDPOINT_URL says.
REGION = "eu-central-2"
BUCKET, CODE_BUCKET = "my-recordings", "my-code"


@pytest.fixture
def moto(tmp_path: Path) -> Iterator[Moto]:
    with moto_server(tmp_path, REGION) as server:
        yield server


@pytest.fixture
def site(moto: Moto, tmp_path: Path) -> Site:
    """A machine whose programs take moto for Amazon, in a folder like this one."""
    (base := tmp_path / "site").mkdir()
    site = Site(base, moto.environment)
    link_sources(site.work)
    return site


async def outputs(site: Site, block: Block) -> dict[str, str]:
    """Asks for what the template says at its end, as the page does."""
    (command,) = block.commands()
    told = await shell(site, command)
    return dict(line.split("\t") for line in told.splitlines())


async def test_calls_are_transcribed_elsewhere(
    site: Site, moto: Moto, nursery: trio.Nursery
) -> None:
    (put,) = typed("docs/elsewhere.md", "aws ssm put-parameter").commands()
    await shell(site, put, environment={"ASSEMBLYAI_API_KEY": ASSEMBLYAI_KEY})
    (deploy,) = typed("docs/elsewhere.md", "aws cloudformation deploy").commands()
    await shell(site, deploy)
    described = typed("docs/elsewhere.md", "aws cloudformation describe-stacks")
    made = await outputs(site, described)
    s3, sqs = moto.client("s3"), moto.client("sqs")

    settings = typed("docs/elsewhere.md", "S3_BUCKET=")
    (site.work / ".env").write_text(settings.text)
    async with site.serve() as server:
        uri = f"ws://127.0.0.1:{server.port}/"
        await shell(site, f"audiohook call {uri} --api-key {KEY} --fast")
        await site.wait_stored()
    (wav,) = keys(s3, ".wav")
    # Of the template's notification moto makes nothing, so the event is by hand.
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": BUCKET}, "object": {"key": wav}},
    }
    sqs.send_message(
        QueueUrl=made["QueueUrl"], MessageBody=json.dumps({"Records": [record]})
    )
    standin = StandIn(keys=(ASSEMBLYAI_KEY,), pace=Pace())
    site.settings |= {
        "ASSEMBLYAI_API_KEY_PARAMETER": "/audiohook/assemblyai-api-key",
        "ASSEMBLYAI_BASE_URL": await nursery.start(standin.serve),
    }
    (work,) = typed("docs/elsewhere.md", "audiohook worker").commands()
    async with going_on(site, work, environment={"QUEUE_URL": made["QueueUrl"]}):
        await wait_until(lambda: keys(s3, ".txt"), ANSWER_SECONDS)

    sqs.send_message(QueueUrl=made["DeadLetterQueueUrl"], MessageBody="put aside")
    (look,) = typed("docs/elsewhere.md", "aws sqs receive-message").commands()
    aside = {"DEAD_LETTER_QUEUE_URL": made["DeadLetterQueueUrl"]}
    told = await shell(site, look, environment=aside)
    (message,) = json.loads(told)["Messages"]
    assert message["Body"] == "put aside"
    assert message["Attributes"] == {"ApproximateReceiveCount": "1"}
    assert made["DeadLetterQueueArn"].startswith("arn:aws:sqs:")


def keys(s3: Any, ending: str) -> list[str]:  # noqa: ANN401 - boto3 has no types
    found = s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])
    return [each["Key"] for each in found if each["Key"].endswith(ending)]


async def test_function_is_made_and_deployed(site: Site, moto: Moto) -> None:
    location = {"LocationConstraint": REGION}
    moto.client("s3").create_bucket(
        Bucket=CODE_BUCKET, CreateBucketConfiguration=location
    )
    debug = "AUDIOHOOK_DEBUG_KERNEL"
    (compiler := site.base / "cc").write_text('#!/bin/sh\nexec cc "$@" -O0\n')
    compiler.chmod(0o755)
    site.settings |= LITTLE_WORK | {"CC": str(compiler)}
    if debug in os.environ:
        site.settings[debug] = os.environ[debug]
    for command in typed("docs/elsewhere.md", "make lambda").commands():
        await shell(site, command, seconds=MAKE_SECONDS)
    (function,) = moto.client("lambda").list_functions()["Functions"]
    archive = site.work / "dist" / "audiohook-lambda.zip"
    assert function["CodeSize"] == archive.stat().st_size
    # As Lambda calls it: at full size nothing is there but what is in the archive.
    module = function["Handler"].rpartition(".")[0]
    (unpacked := site.base / "unpacked").mkdir()
    lonely = "-S" if FULL_SIZE else ""
    program = f'import sys; sys.path.insert(0, "."); import {module} as found'
    found = await shell(
        site,
        f"cd {unpacked} && python -m zipfile -e {archive} . &&"
        f" python -I {lonely} -c '{program}; print(found.__file__)'",
    )
    assert found.startswith("./audiohook/") or str(unpacked) in found, found


async def test_days_of_the_page_become_rules_of_the_bucket(
    site: Site, moto: Moto
) -> None:
    days = typed("docs/retention.md", "KEEP_AUDIO_DAYS=")
    (site.work / ".env").write_text(f"S3_BUCKET={BUCKET}\n{days.text}\n")
    s3, iam = moto.client("s3"), moto.client("iam")
    s3.create_bucket(
        Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    for block in (
        typed("docs/retention.md", "audiohook check --iam"),
        typed("docs/s3.md", "audiohook check --iam"),
    ):
        (command,) = block.commands()
    printed = json.loads(await shell(site, command))
    # moto looks at a policy as Amazon does: form, actions, resources.
    policy = json.dumps(printed["policy"])
    iam.create_policy(PolicyName="recorder", PolicyDocument=policy)
    (site.work / "lifecycle.json").write_text(json.dumps(printed["lifecycle"]))
    (put,) = typed("docs/retention.md", "aws s3api").commands()
    await shell(site, put)
    rules = s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    kept = {
        each["ID"]: each["Expiration"].get("Days")
        for each in rules
        if "Expiration" in each
    }
    assert kept["audiohook-audio"] == 90
    assert kept["audiohook-transcript"] == 365
