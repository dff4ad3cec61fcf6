"""What the pages say for a task of a person: found, read, told, erased, made at Amazon."""

from __future__ import annotations

import json
import os
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest
import trio

from audiohook.simulator.assemblyai import Pace, StandIn
from tests.documents import shown, typed
from tests.moto_server import Moto, moto_server
from tests.slow.processes import Site
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.documents import Block

pytestmark = pytest.mark.slow

OURS = str(Path(sys.executable).parent)
ANSWER_SECONDS = 60.0
STANDIN_KEY = "k" * 32
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="
BUCKET = "my-recordings"


async def shell(site: Site, text: str, **names: str) -> str:
    """Types into a shell beside the folder ``recordings``; what it prints."""
    with trio.fail_after(ANSWER_SECONDS):
        done = await trio.run_process(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=site.base,
            env={
                **site.environment(),
                "PATH": f"{OURS}:{os.environ['PATH']}",
                **names,
            },
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    assert done.returncode == 0, (text, done.stdout.decode(), done.stderr.decode())
    return done.stdout.decode()


def command_of(block: Block) -> str:
    (command,) = block.commands()
    return command


async def token(site: Site, name: str, *scopes: str) -> tuple[str, dict[str, Any]]:
    asked = " ".join(f"--scope {each}" for each in scopes)
    said = await shell(site, f"audiohook token {name} {asked}")
    (secret,) = re.findall(r"^\s+(ah_\S+)$", said, re.MULTILINE)
    (entry,) = re.findall(rf'^\s+("{name}": \{{.*\}})$', said, re.MULTILINE)
    return secret, json.loads(f"{{{entry}}}")


async def test_a_call_is_found_read_told_of_and_erased(
    tmp_path: Path, nursery: trio.Nursery, port: int
) -> None:
    standin = StandIn(keys=(STANDIN_KEY,), pace=Pace(processing=0.0))
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site")
    reader, entry = await token(site, "crm", "read")
    eraser, further = await token(site, "officer", "erase")
    (tokens := tmp_path / "tokens.json").write_text(json.dumps(entry | further))
    tokens.chmod(0o600)
    site.settings |= {
        "API_TOKENS_FILE": str(tokens),
        "ASSEMBLYAI_API_KEY": STANDIN_KEY,
        "ASSEMBLYAI_BASE_URL": await nursery.start(standin.serve),
        "NOTIFY_URL": f"http://127.0.0.1:{port}/",
        "NOTIFY_SECRET": SECRET,
    }
    receiver = typed("docs/notifications.md", "import http.server")
    program = tmp_path / "receiver.py"
    program.write_text(receiver.text.replace("8200", str(port)))
    async with (
        site.run("receiver", str(program), SECRET) as ear,
        site.serve() as server,
    ):
        names = {"T": reader, "B": f"{server.admin_uri}/api/v1"}
        call = command_of(typed("docs/api.md", "audiohook call ws://"))
        call = call.replace("127.0.0.1:3000", f"127.0.0.1:{server.port}")
        conversation = call.split()[-1]
        await shell(site, call.replace("--duration 60", "--duration 5 --fast"))
        await wait_until(lambda: server.lines("call_transcribed"), ANSWER_SECONDS)

        async def listed() -> list[str]:
            block = typed(
                "docs/api.md",
                'curl -s -G -H "Authorization: Bearer $T" "$B/calls" --data-urlencode',
            )
            return (await shell(site, command_of(block), **names)).split()

        found: list[str] = []
        for _ in range(100):
            # The index follows what is stored.
            found = found or await listed()
        assert found == [conversation]

        of_day = command_of(
            typed(
                "docs/api.md",
                'curl -s -G -H "Authorization: Bearer $T" "$B/calls" -d limit=200',
            )
        )
        today = datetime.now(UTC)
        # Midnight may have come meanwhile.
        of_day = of_day.replace("2026-11-25", f"{today - timedelta(days=1):%Y-%m-%d}")
        of_day = of_day.replace("2026-11-26", f"{today + timedelta(days=1):%Y-%m-%d}")
        await shell(site, of_day, **names)
        (transcript,) = site.base.glob("*.txt")
        assert "customer: " in transcript.read_text()

        look = typed("docs/s3.md", "jq -r")
        ((recording,),) = site.stored().values()
        printed = (await shell(site, command_of(look))).strip()
        example = look.lines[-1]
        assert len(printed.split(", ")) == len(example.split(", "))
        assert ", tel:+15550100, tel:+15550199, end, " in printed

        told = ear.log.read_text
        await wait_until(lambda: "call.transcribed" in told(), ANSWER_SECONDS)
        events = [each for each in told().splitlines() if each.startswith("org.")]
        assert [each.split() for each in events] == [
            [f"org.audiohook.call.{kind}.v1", conversation]
            for kind in ("opened", "stored", "transcribed")
        ]

        erase = command_of(typed("docs/erase.md", "for each in $(curl"))
        erase = erase.replace("http://127.0.0.1:9090", server.admin_uri)
        assert '"reference"' in await shell(site, erase, T=reader, E=eraser)
        await wait_until(lambda: not recording.folder.exists(), ANSWER_SECONDS)
        assert await listed() == []
        # To ask again says the same as the first time.
        (said,) = shown("docs/erase.md", "9c73fce03526ea47…").lines
        again = await shell(site, f"audiohook erase {conversation} --yes")
        assert form(again.strip()) == form(said)


def form(line: str) -> str:
    """Returns a line without what differs from call to call."""
    return re.sub(r"\d[\d,]*", "0", re.sub(r"^[0-9a-f]{16}…", "…", line))


@pytest.fixture
def moto(tmp_path: Path) -> Iterator[Moto]:
    with moto_server(tmp_path) as server:
        yield server


async def test_bucket_user_and_rules_are_made_at_amazon(
    moto: Moto, tmp_path: Path
) -> None:
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site", moto.environment)
    region = moto.client("s3").meta.region_name
    (make,) = typed("docs/s3.md", "aws s3 mb").commands()
    await shell(site, make.replace("eu-central-1", region))
    days = typed("docs/retention.md", "KEEP_AUDIO_DAYS=").text
    (site.base / ".env").write_text(f"S3_BUCKET={BUCKET}\n{days}\n")

    *make_user, attach, make_key = typed(
        "docs/s3.md", "audiohook check --iam | jq .policy"
    ).commands()
    for command in make_user:
        printed = await shell(site, command)
        if "create-policy" in command:
            arn = json.loads(printed)["Policy"]["Arn"]
    await shell(site, attach.replace("…", arn))
    assert (
        json.loads(await shell(site, make_key))["AccessKey"]["UserName"] == "audiohook"
    )
    iam = moto.client("iam")
    version = iam.get_policy_version(PolicyArn=arn, VersionId="v1")["PolicyVersion"]
    asked = {each["Sid"] for each in version["Document"]["Statement"]}
    assert asked == {"StoreRecordings", "KnowWhatIsThere", "DeleteWhatTheCheckMade"}
    attached = iam.list_attached_user_policies(UserName="audiohook")
    assert [each["PolicyArn"] for each in attached["AttachedPolicies"]] == [arn]

    (write,) = typed(
        "docs/retention.md", "audiohook check --iam | jq .lifecycle"
    ).commands()
    await shell(site, write)
    rules = json.loads((site.base / "lifecycle.json").read_text())["Rules"]
    assert {"audiohook-audio", "audiohook-transcript"} <= {each["ID"] for each in rules}

    queue = moto.client("sqs").create_queue(QueueName="calls")["QueueUrl"]
    attributes = moto.client("sqs").get_queue_attributes(
        QueueUrl=queue, AttributeNames=["QueueArn"]
    )["Attributes"]
    wanted = typed("docs/elsewhere.md", '{"QueueConfigurations"').text
    (site.base / "notification.json").write_text(
        wanted.replace("…", attributes["QueueArn"])
    )
    (tell,) = typed(
        "docs/elsewhere.md", "aws s3api put-bucket-notification-configuration"
    ).commands()
    await shell(site, tell)
    s3 = moto.client("s3")
    name = "2026-11-25T10-00-00.000Z_a_b"
    for key in (f"{name}/audio/{name}.wav", f"{name}/transcripts/{name}.txt", "2.txt"):
        s3.put_object(Bucket=BUCKET, Key=f"calls/{key}", Body=b"words")
    sqs = moto.client("sqs")
    events = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    # moto sends a trial event when it is told of the queue, as Amazon does.
    keys = [
        record["s3"]["object"]["key"]
        for each in events
        for record in json.loads(each["Body"]).get("Records", [])
    ]
    assert [unquote(each) for each in keys] == [f"calls/{name}/audio/{name}.wav"]

    (fetch,) = typed("docs/s3.md", "aws s3 cp").commands()
    (day := site.base / "day").mkdir()
    await shell(site, f"cd {day} && {fetch}")
    found = [str(path.relative_to(day)) for path in day.rglob("*") if path.is_file()]
    assert found == [f"{name}/transcripts/{name}.txt"]


async def test_stack_beside_a_bucket_that_is_there(moto: Moto, tmp_path: Path) -> None:
    moto.client("s3").create_bucket(Bucket=BUCKET)
    template = Path(__file__).parents[2] / "deploy" / "cloudformation.yml"
    moto.client("cloudformation").create_stack(
        StackName="audiohook",
        TemplateBody=template.read_text(),
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[
            {"ParameterKey": "BucketName", "ParameterValue": BUCKET},
            {"ParameterKey": "MakeBucket", "ParameterValue": "no"},
        ],
    )
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site", moto.environment)
    block = typed("docs/elsewhere.md", "aws cloudformation describe-stacks")
    (ask,) = block.commands()
    told = dict(line.split("\t") for line in (await shell(site, ask)).splitlines())
    example = block.lines[block.lines.index("") + 1 :]
    assert list(told) == [line.split()[0] for line in example]
    for line in example:
        name, value = line.split()
        # The same but for what is made up, and for the region.
        pattern = re.escape(value.replace("eu-central-1", "…")).replace("…", ".+")
        assert re.fullmatch(pattern, told[name]), (name, told[name])
