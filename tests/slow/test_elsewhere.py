"""Calls in a bucket, transcribed by workers that a queue tells of them.

The bucket and the queue are moto's, which delivers events from one to the other as
Amazon does; SeaweedFS, the store of the other tests, has no notifications. moto keeps
all in memory and checks no credentials, so nothing is shown of roles here.

The calls are stored as the recorder stores them: WAV first, then the JSON. How the
recorder comes to that is the matter of `tests/test_transcribing.py`.

AUDIOHOOK_ELSEWHERE_CALLS has more calls than CI, such as 300.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from audiohook.simulator.assemblyai import Endpoint, Fault, Pace, StandIn
from tests.moto_server import Moto, moto_server
from tests.simulator.assemblyai.tools import make_wav
from tests.slow.processes import Server, Site, tell
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

CALLS = int(os.environ.get("AUDIOHOOK_ELSEWHERE_CALLS", "24"))
PARALLEL = 10
BUCKET = "recordings"
KEY = "stand-in-key"
TALK = make_wav(4, ((0.5, 1.5),), ((2.0, 3.5),))
# Workers are told to wait less than they do at work.
HASTE = """
import sys
from audiohook import sqs, worker
from audiohook.storage import job_object
from audiohook.transcription import job
job_object.LEASE = {lease}
job_object._RENEWAL = {lease} / 4
job._FIRST_POLL = 0.5
job._LOOK_EARLY, job._LOOK_SURE = 0.5, 2.0
worker.HIDDEN, worker._RENEWAL = 4.0, 1.0
worker._FIRST_DELAY, worker._LONGEST_DELAY = 1.0, 2.0
sqs._LONG_POLL = 1
from audiohook.cli import main
main()
"""
LEASE = 6.0


@pytest.fixture
def moto(tmp_path: Path) -> Iterator[Moto]:
    with moto_server(tmp_path) as server:
        yield server


@dataclass
class Place:
    """A bucket, its queue, and what is in there."""

    moto: Moto
    site: Site
    queue: str
    aside: str
    calls: list[str] = field(default_factory=list)

    def store(self, number: int, channels: tuple[str, str]) -> str:
        """Stores a call as the recorder does; its JSON comes last."""
        name = f"2026-11-22T14-10-{number % 60:02d}.{number:03d}Z_a_b"
        wav = f"calls/{name}/audio/{name}.wav"
        s3 = self.moto.client("s3")
        s3.put_object(
            Bucket=BUCKET, Key=wav, Body=TALK, Metadata={"session-id": f"s{number}"}
        )
        entry = {"audio": wav, "id": None, "status": "elsewhere", "reason": None}
        summary = {
            "schemaVersion": 1,
            "sessionId": f"s{number}",
            "language": "en-US",
            "languageChanges": [],
            "media": {"format": "PCMU", "rate": 8000, "channels": channels},
            "recording": {"encoding": "ulaw", "layout": "stereo", "gaps": "silence"},
            "transcripts": [{**entry, "model": None, "objects": []}],
        }
        s3.put_object(
            Bucket=BUCKET, Key=f"calls/{name}/call.json", Body=json.dumps(summary)
        )
        self.calls.append(name)
        return wav

    def duplicate(self, wav: str) -> None:
        record = {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": BUCKET}, "object": {"key": wav}},
        }
        self.moto.client("sqs").send_message(
            QueueUrl=self.queue, MessageBody=json.dumps({"Records": [record]})
        )

    def send(self, body: str) -> None:
        self.moto.client("sqs").send_message(QueueUrl=self.queue, MessageBody=body)

    def depth(self, queue: str) -> int:
        names = [
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
        ]
        found = self.moto.client("sqs").get_queue_attributes(
            QueueUrl=queue, AttributeNames=names
        )
        return sum(int(found["Attributes"][name]) for name in names)

    def objects(self, part: str = "") -> dict[str, bytes]:
        """Returns all objects with that in their keys, but for audio."""
        s3 = self.moto.client("s3")
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        keys = [each["Key"] for page in pages for each in page.get("Contents", [])]
        return {
            key: s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
            for key in keys
            if part in key and not key.endswith(".wav")
        }

    def held(self) -> int:
        """Returns how many jobs are submitted and in somebody's hands."""
        jobs = [json.loads(data) for data in self.objects("/jobs/").values()]
        return sum(
            job["holder"] is not None and "submitted" in job["facts"][-1]["fact"]
            for job in jobs
        )

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[Server]:
        program = self.site.base / "worker.py"
        program.write_text(HASTE.format(lease=LEASE))
        async with self.site.run(
            "worker",
            program,
            "worker",
            "--queue",
            self.queue,
            "--parallel",
            str(PARALLEL),
        ) as process:
            yield process


@pytest.fixture
def place(moto: Moto, tmp_path: Path) -> Place:
    s3, sqs = moto.client("s3"), moto.client("sqs")
    s3.create_bucket(Bucket=BUCKET)
    aside = sqs.create_queue(QueueName="aside")["QueueUrl"]
    arns = {}
    arns["aside"] = _arn(sqs, aside)
    redrive = {"deadLetterTargetArn": arns["aside"], "maxReceiveCount": 20}
    queue = sqs.create_queue(
        QueueName="calls", Attributes={"RedrivePolicy": json.dumps(redrive)}
    )["QueueUrl"]
    rules = [{"Name": "prefix", "Value": "calls/"}, {"Name": "suffix", "Value": ".wav"}]
    s3.put_bucket_notification_configuration(
        Bucket=BUCKET,
        NotificationConfiguration={
            "QueueConfigurations": [
                {
                    "QueueArn": _arn(sqs, queue),
                    "Events": ["s3:ObjectCreated:*"],
                    "Filter": {"Key": {"FilterRules": rules}},
                }
            ]
        },
    )
    folder = tmp_path / "site"
    folder.mkdir()
    site = Site(folder, {**moto.environment, "S3_BUCKET": BUCKET})
    return Place(moto, site, queue, aside)


def _arn(sqs: Any, queue: str) -> str:  # noqa: ANN401 - boto3 has no types
    found = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
    arn: str = found["Attributes"]["QueueArn"]
    return arn


@pytest.fixture
async def standin(place: Place, nursery: trio.Nursery) -> StandIn:
    standin = StandIn(keys=(KEY,), pace=Pace(processing=4.0))
    url = await nursery.start(standin.serve)
    place.site.settings |= {
        "ASSEMBLYAI_API_KEY": KEY,
        "ASSEMBLYAI_BASE_URL": url,
        "LOG_LEVEL": "debug",
    }
    return standin


async def blocking(work: Any) -> Any:  # noqa: ANN401 - whatever it returns
    return await trio.to_thread.run_sync(work)


async def wait_empty(place: Place, seconds: float) -> None:
    """Waits until nothing is in the queue, seen by anybody or not."""
    await wait_until_depth(place, place.queue, 0, seconds)


async def wait_until_depth(
    place: Place, queue: str, depth: int, seconds: float
) -> None:
    with trio.fail_after(seconds):
        # It is in another process, which tells nobody.
        while await blocking(partial(place.depth, queue)) != depth:  # noqa: ASYNC110
            await trio.sleep(0.2)


@pytest.mark.slow
async def test_two_workers_one_killed_and_events_twice(
    place: Place, standin: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("external", "internal")

    def fill() -> None:
        for number in range(CALLS):
            order = names if number % 2 else (names[1], names[0])
            wav = place.store(number, order)
            if number % 3 == 0:
                place.duplicate(wav)

    await blocking(fill)
    # Jobs that are made, and whose makers never learn of it.
    script = [None, Fault.LOST, None, None, Fault.CUT, None, Fault.LOST]
    standin.faults.script(Endpoint.SUBMIT, *script)
    async with place.worker() as doomed, place.worker() as other:
        # In the middle of its jobs: the other cannot have all of these.
        with trio.fail_after(60):
            while await blocking(place.held) <= PARALLEL:  # noqa: ASYNC110
                await trio.sleep(0.1)
        doomed.kill()
        await doomed.wait()
        await wait_empty(place, 60 + CALLS / 2)
        other.terminate()
        assert await other.wait() == 0
        (stop,) = other.lines("worker_stopped")
    figures = standin.statistics()
    objects = await blocking(place.objects)
    for number, name in enumerate(place.calls):
        start = f"calls/{name}"
        told = json.loads(objects[f"{start}/call.json"])["transcripts"][0]
        assert (told["status"], told["reason"]) == ("completed", None), name
        result = json.loads(objects[f"{start}/transcripts/{name}.json"])
        assert result["id"] == told["id"]
        first = objects[f"{start}/transcripts/{name}.txt"].decode().splitlines()[0]
        assert ("customer:" if number % 2 else "agent:") in first
    assert figures.billed == figures.completed == CALLS
    assert {count.billed for count in figures.audio.values()} == {1}
    assert await blocking(partial(place.depth, place.aside)) == 0
    # The rest was done by the one that is dead.
    assert CALLS // 2 <= stop["completed"] <= CALLS
    tell(
        capsys,
        f"{CALLS} calls, {-(-CALLS // 3)} events twice, 3 answers to submits lost, a"
        f" worker of two killed with -9:"
        f" {figures.submitted} jobs submitted, {figures.billed} billed, transcripts of"
        f" {len(place.calls)}; requests {dict(Counter(figures.requests))}",
    )


@pytest.mark.slow
async def test_what_is_no_event_is_put_aside_and_sigterm_gives_back(
    place: Place, standin: StandIn
) -> None:
    sqs = place.moto.client("sqs")
    redrive = {"deadLetterTargetArn": _arn(sqs, place.aside), "maxReceiveCount": 2}
    sqs.set_queue_attributes(
        QueueUrl=place.queue, Attributes={"RedrivePolicy": json.dumps(redrive)}
    )
    place.send("no JSON")
    # That is what Amazon says once notifications are set up.
    place.send(json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent"}))
    place.send(json.dumps({"Records": []}))
    async with place.worker() as worker:
        await wait_until(lambda: bool(worker.lines("worker_started")), 30)
        await wait_until_depth(place, place.aside, 1, 30)
        await wait_empty(place, 20)
        assert await blocking(partial(place.depth, place.aside)) == 1
        (line,) = worker.lines("message_put_aside")
        assert (line["receives"], line["error"]) == (2, "not an event: it is no JSON")
        standin.away = True
        await blocking(partial(place.store, 1, ("external", "internal")))
        await wait_until(lambda: bool(worker.lines("transcription_fails")), 20)
        worker.process.send_signal(signal.SIGTERM)
        with trio.fail_after(20):
            assert await worker.wait() == 0
        (stop,) = worker.lines("worker_stopped")
        assert stop["returned"] == 3
    found = await blocking(
        partial(sqs.receive_message, QueueUrl=place.queue, WaitTimeSeconds=1)
    )
    # It can be seen at once, by whoever comes next.
    assert len(found.get("Messages", [])) == 1


INVOKE = """
import json, sys
from audiohook.transcription import events, job
job._FIRST_POLL = 0.5

class Context:
    def get_remaining_time_in_millis(self):
        return 60_000

print(json.dumps(events.handler(json.load(sys.stdin), Context())))
"""


@pytest.mark.slow
async def test_function_is_safe_to_run_twice_at_once(
    place: Place, standin: StandIn
) -> None:
    """Runs the handler on messages as the bucket has sent them."""
    await blocking(partial(place.store, 1, ("external", "internal")))
    ssm = place.moto.client("ssm")
    ssm.put_parameter(Name="/audiohook/key", Value=KEY, Type="SecureString")
    place.site.settings |= {"ASSEMBLYAI_API_KEY_PARAMETER": "/audiohook/key"}
    del place.site.settings["ASSEMBLYAI_API_KEY"]
    sqs = place.moto.client("sqs")
    bodies: list[str] = []
    for _ in range(2):
        found = await blocking(
            partial(sqs.receive_message, QueueUrl=place.queue, WaitTimeSeconds=1)
        )
        bodies += [message["Body"] for message in found["Messages"]]
    # The first is Amazon's test of the notification.
    assert any("TestEvent" in body for body in bodies)
    event = {
        "Records": [
            {"messageId": f"m{number}", "eventSource": "aws:sqs", "body": body}
            for number, body in enumerate(bodies)
        ]
    }
    answers: list[Any] = []

    async def invoke() -> None:
        done = await trio.run_process(
            [sys.executable, "-c", INVOKE],
            stdin=json.dumps(event).encode(),
            env=place.site.environment(),
            cwd=place.site.work,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout)["batchItemFailures"])

    async with trio.open_nursery() as both:
        both.start_soon(invoke)
        both.start_soon(invoke)
    # One of them was late, unless it came when all was done.
    assert sum(map(len, answers)) <= 1
    await invoke()
    assert answers[-1] == []
    assert standin.statistics().billed == standin.statistics().submitted == 1
    assert "customer:" in "".join(
        data.decode()
        for key, data in (await blocking(place.objects)).items()
        if key.endswith(".txt")
    )
