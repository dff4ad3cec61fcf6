"""A bucket in memory, the stand-in, and any number of workers at one file."""

from __future__ import annotations

import copy
import json
import math
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import structlog
import trio
from trio.testing import MockClock

from audiohook.errors import TranscriptError, UnfinishedError, UploadError
from audiohook.recording.herald import Nobody
from audiohook.simulator.assemblyai import Endpoint, Fault, JobFault, StandIn
from audiohook.simulator.assemblyai import Pace as JobPace
from audiohook.storage.base import BytesBlob, StoreFault, Version
from audiohook.storage.job_object import LEASE
from audiohook.transcription.assemblyai import AssemblyAI, make_client
from audiohook.transcription.errand import Errands, Outcome, Patience
from audiohook.transcription.pace import Pace
from audiohook.transcription.parameters import Parameters
from audiohook.transcription.steps import Steps, Terms
from tests.simulator.assemblyai.tools import TALK, Site, make_wav
from tests.storage.fake_s3 import FakeS3, away
from tests.waiting import hold_for_threads

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from audiohook.recording.transcripts import JobRecord

NAME = "2026-11-22T14-10-44.123Z_a_b"
WAV = f"calls/{NAME}/audio/{NAME}.wav"
JOB = f"calls/{NAME}/jobs/{NAME}.json"
TEXT = f"calls/{NAME}/transcripts/{NAME}.txt"
RESULT = f"calls/{NAME}/transcripts/{NAME}.json"
SUMMARY = f"calls/{NAME}/call.json"
KEY = "stand-in-key"
# Of a worker at the bucket, before and after an effect.
_STEPS = 24

CALL: dict[str, Any] = {
    "schemaVersion": 1,
    "sessionId": "s",
    "language": "de-DE",
    "languageChanges": [],
    "media": {"format": "PCMU", "rate": 8000, "channels": ["external", "internal"]},
    "recording": {"encoding": "ulaw", "layout": "stereo", "gaps": "silence"},
    "transcripts": [
        {
            "audio": WAV,
            "id": None,
            "status": "elsewhere",
            "reason": None,
            "model": None,
            "objects": [],
        }
    ],
}


class Herald(Nobody):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    async def transcribed_elsewhere(self, job: JobRecord) -> None:
        await trio.lowlevel.checkpoint()
        self.told.append((job.planned.key, str(job.status)))


class Place:
    """A bucket, the service, and workers that share nothing else."""

    def __init__(self, standin: StandIn, site: Site) -> None:
        self.standin = standin
        self.site = site
        self.store = FakeS3()
        self.store.url = site.url
        self.clients: list[Any] = []
        self.parameters = Parameters()
        self.deletes = False
        self.herald = Herald()

    def worker(self) -> Errands:
        http = make_client(self.standin.base_url, KEY)
        self.clients.append(http)
        pace = Pace()
        return Errands(
            Steps(AssemblyAI(http), Terms(self.parameters), pace),
            store=self.store,
            pace=pace,
            parameters=self.parameters,
            log=structlog.get_logger(),
            deletes=self.deletes,
            herald=self.herald,
            jitter=lambda: 0.5,
        )

    async def put(self, key: str, data: bytes, **metadata: str) -> None:
        await self.store.replace(key, BytesBlob(data), metadata=metadata, token="t")
        self.site.files[f"/{key}"] = data

    async def record(
        self, call: dict[str, Any] | None = CALL, wav: bytes = TALK
    ) -> None:
        """Stores a call as the recorder does."""
        await self.put(WAV, wav, **{"session-id": "s"})
        if call is not None:
            await self.put(SUMMARY, json.dumps(call).encode())

    def told(self, number: int = 0) -> dict[str, Any]:
        value = json.loads(self.store.objects[SUMMARY].data)
        found: dict[str, Any] = value["transcripts"][number]
        return found

    @property
    def billed(self) -> int:
        return self.standin.statistics().billed

    @property
    def submitted(self) -> int:
        return self.standin.statistics().submitted


@pytest.fixture
def clock() -> MockClock:
    # A moment of real time for what is under way in the kernel's sockets.
    return MockClock(autojump_threshold=0.02)


@pytest.fixture
async def place(clock: MockClock, nursery: trio.Nursery) -> AsyncIterator[Place]:
    hold_for_threads(clock)
    standin = StandIn(keys=(KEY,), pace=JobPace(processing=20.0))
    site = Site()
    await nursery.start(standin.serve)
    await nursery.start(site.serve)
    place = Place(standin, site)
    yield place
    for client in place.clients:
        await client.aclose()


async def see_to(worker: Errands, seconds: float = math.inf) -> Outcome:
    return await worker.see_to(WAV, Patience(trio.current_time() + seconds))


# What comes of a call


async def test_call_becomes_a_transcript(
    place: Place, clock: MockClock, lines: list[Any]
) -> None:
    await place.record()
    assert await see_to(place.worker()) is Outcome.COMPLETED
    text = place.store.objects[TEXT].data.decode()
    assert "customer:" in text
    assert "agent:" in text
    told = place.told()
    assert (told["status"], told["reason"]) == ("completed", None)
    assert told["id"] == json.loads(place.store.objects[RESULT].data)["id"]
    assert len(told["objects"]) == 4
    assert place.billed == 1
    assert [line["event"] for line in lines].count("call_transcribed") == 1


async def test_channels_keep_the_order_in_which_they_came(
    place: Place, clock: MockClock
) -> None:
    call = copy.deepcopy(CALL)
    call["media"]["channels"] = ["internal", "external"]
    await place.record(call)
    await see_to(place.worker())
    first = place.store.objects[TEXT].data.decode().splitlines()[0]
    assert "agent:" in first


async def test_whoever_wants_to_know_is_told_once(
    place: Place, clock: MockClock
) -> None:
    await place.record()
    for _ in range(2):
        await place.worker().see_to(WAV, Patience())
    assert place.herald.told == [(WAV, "completed")]


async def test_finished_call_is_left_alone(place: Place, clock: MockClock) -> None:
    await place.record()
    await see_to(place.worker())
    before = place.store.contents()
    requests = dict(place.standin.statistics().requests)
    assert await see_to(place.worker()) is Outcome.LEFT_ALONE
    assert place.store.contents() == before
    assert place.standin.statistics().requests == requests


async def test_transcript_of_somebody_else_is_left_alone(
    place: Place, clock: MockClock
) -> None:
    await place.record()
    await place.put(RESULT, b'{"id": "paid for"}')
    assert await see_to(place.worker()) is Outcome.LEFT_ALONE
    assert place.submitted == 0


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("skipped", "shorter than 1 s"),
        ("pending", None),
        ("submitted", None),
        ("completed", None),
        ("parked", "no money"),
        ("failed", "no audio"),
    ],
)
async def test_call_that_the_recorder_has_decided_on_is_left_to_him(
    place: Place, clock: MockClock, status: str, reason: str | None
) -> None:
    call = copy.deepcopy(CALL)
    call["transcripts"][0].update(status=status, reason=reason)
    await place.record(call)
    assert await see_to(place.worker()) is Outcome.LEFT_ALONE
    assert place.submitted == 0
    assert JOB not in place.store.objects


async def test_recorder_without_a_key_leaves_it_to_us(
    place: Place, clock: MockClock
) -> None:
    call = copy.deepcopy(CALL)
    call["transcripts"][0]["status"] = "off"
    await place.record(call)
    assert await see_to(place.worker()) is Outcome.COMPLETED


async def test_file_that_is_gone_is_left_alone(
    place: Place, clock: MockClock, lines: list[Any]
) -> None:
    assert await see_to(place.worker()) is Outcome.LEFT_ALONE
    assert lines[-1]["reason"] == "it is not in the bucket any more"


async def test_split_files_get_a_transcript_each(
    place: Place, clock: MockClock, nursery: trio.Nursery
) -> None:
    call = copy.deepcopy(CALL)
    call["recording"]["layout"] = "split"
    entry = call["transcripts"][0]
    keys = [WAV.replace(".wav", f"-{name}.wav") for name in ("external", "internal")]
    call["transcripts"] = [{**entry, "audio": key} for key in keys]
    one = make_wav(8, ((0.5, 3.0),))
    for key in keys:
        await place.put(key, one)
    await place.put(SUMMARY, json.dumps(call).encode())
    async with trio.open_nursery() as both:
        for key in keys:
            both.start_soon(place.worker().see_to, key, Patience())
    assert [place.told(0)["status"], place.told(1)["status"]] == ["completed"] * 2
    text = place.store.objects[TEXT.replace(".txt", "-internal.txt")].data.decode()
    assert "agent" in text
    assert "customer" not in text
    assert place.billed == 2


async def test_transcript_is_deleted_there_once_it_is_stored_here(
    place: Place, clock: MockClock
) -> None:
    place.deletes = True
    await place.record()
    place.standin.faults.script(Endpoint.DELETE, Fault.ERROR_503, Fault.LOST)
    assert await see_to(place.worker()) is Outcome.COMPLETED
    assert place.standin.statistics().deleted == 1
    assert place.told()["status"] == "completed"


# Before the call's JSON is there


async def test_event_before_the_calls_json_is_tried_again(
    place: Place, clock: MockClock
) -> None:
    await place.record(call=None)
    with pytest.raises(UnfinishedError, match="not there yet") as caught:
        await see_to(place.worker())
    assert not caught.value.is_common
    assert place.submitted == 0
    await place.record()
    assert await see_to(place.worker()) is Outcome.COMPLETED


async def test_calls_json_that_comes_a_moment_later_is_waited_for(
    place: Place, clock: MockClock
) -> None:
    await place.record(call=None)

    async def late() -> None:
        await trio.sleep(5)
        await place.record()

    async with trio.open_nursery() as both:
        both.start_soon(late)
        assert await see_to(place.worker()) is Outcome.COMPLETED


async def test_calls_json_that_is_no_json_is_for_somebody_to_mend(
    place: Place, clock: MockClock
) -> None:
    await place.record()
    for content in (b"", b"[]", b"{}", b"[" * 100_000, b'{"transcripts": [{}]}'):
        await place.put(SUMMARY, content)
        with pytest.raises(UnfinishedError, match="cannot be understood"):
            await see_to(place.worker())
    assert place.submitted == 0


async def test_recording_of_another_recorder_needs_no_json(
    place: Place, clock: MockClock
) -> None:
    await place.put(WAV, TALK, channels="internal,external", language="de-DE")
    assert await see_to(place.worker()) is Outcome.COMPLETED
    first = place.store.objects[TEXT].data.decode().splitlines()[0]
    assert "agent:" in first


async def test_recording_of_another_recorder_that_is_too_short_costs_nothing(
    place: Place, clock: MockClock
) -> None:
    await place.put(WAV, make_wav(0.5, (), ()))
    assert await see_to(place.worker()) is Outcome.LEFT_ALONE
    await place.put(WAV, b"")
    assert await see_to(place.worker()) is Outcome.LEFT_ALONE
    assert place.submitted == 0


# Many at once


async def test_event_that_comes_ten_times_at_once_is_billed_once(
    place: Place, clock: MockClock
) -> None:
    await place.record()
    outcomes: list[object] = []

    async def try_once() -> None:
        try:
            outcomes.append(await see_to(place.worker()))
        except UnfinishedError as error:
            outcomes.append(error.seconds)

    async with trio.open_nursery() as many:
        for _ in range(10):
            many.start_soon(try_once)
    assert outcomes.count(Outcome.COMPLETED) == 1
    # The others come again when the first has ended or is dead.
    late = [each for each in outcomes if isinstance(each, float)]
    assert len(late) == 9
    assert max(late) <= LEASE
    assert await see_to(place.worker()) is Outcome.LEFT_ALONE
    assert place.submitted == 1


async def killed(place: Place, at: int) -> bool:
    """Kills a worker at one of its requests to the bucket, before or after it.

    Returns:
        Whether it was killed before it had ended.
    """
    steps = 0

    def count(_: str) -> None:
        nonlocal steps
        steps += 1
        if steps >= at:
            # Nothing gets through any more, not even that it lets go.
            raise KeyboardInterrupt

    place.store.step = count
    try:
        await see_to(place.worker())
    except KeyboardInterrupt:
        return True
    finally:
        place.store.step = lambda _: None
    return False


@pytest.mark.parametrize("at", range(1, 27))
async def test_killed_at_any_step_the_next_one_goes_on(
    place: Place, clock: MockClock, at: int
) -> None:
    await place.record()
    # The whole way has so many steps.
    assert await killed(place, at) == (at <= _STEPS)
    with suppress(UnfinishedError):
        await see_to(place.worker())
    await trio.sleep(LEASE)
    await see_to(place.worker())
    assert place.submitted == 1
    assert place.told()["status"] == "completed"
    assert TEXT in place.store.objects


async def test_lost_answer_to_a_submit_is_looked_up_by_the_next_worker(
    place: Place, clock: MockClock
) -> None:
    await place.record()
    place.standin.faults.script(Endpoint.SUBMIT, Fault.LOST)
    # The one that has asked has no time left to look.
    with pytest.raises(UnfinishedError):
        await see_to(place.worker(), seconds=1)
    assert place.submitted == 1
    assert await see_to(place.worker()) is Outcome.COMPLETED
    assert place.submitted == 1


async def test_worker_that_died_while_it_asked_is_followed_by_one_that_looks(
    place: Place, clock: MockClock
) -> None:
    await place.record()
    place.standin.faults.slow = 60
    place.standin.faults.script(Endpoint.SUBMIT, Fault.SLOW)
    with trio.move_on_after(5):
        await see_to(place.worker())
    assert "transcript_intended" in place.store.objects[JOB].data.decode()
    assert await see_to(place.worker()) is Outcome.COMPLETED
    assert place.submitted == 1


async def test_two_workers_and_one_without_a_network_are_billed_once(
    place: Place, clock: MockClock
) -> None:
    """One stands still after its intent, for so long that it counts as dead."""
    await place.record()
    slow = place.worker()

    async def late(_: object) -> None:
        await trio.sleep(LEASE + 120)
        raise TranscriptError("no network", fault="away")

    slow._steps._account.submit = late  # type: ignore[method-assign, assignment]
    outcomes: list[object] = []

    async def heir() -> None:
        await trio.sleep(LEASE + 1)
        outcomes.append(await see_to(place.worker()))

    async with trio.open_nursery() as both:
        both.start_soon(heir)
        with pytest.raises(UnfinishedError, match="other hands"):
            await see_to(slow)
    assert outcomes == [Outcome.COMPLETED]
    assert place.submitted == 1
    assert place.told()["status"] == "completed"


class SlowS3(FakeS3):
    """A bucket whose requests and answers take their time, some longer than a lease."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._chance = random.Random(seed)

    async def _dawdle(self) -> None:
        most = 400.0 if self._chance.random() < 0.1 else 5.0
        await trio.sleep(self._chance.random() * most)

    async def fetch(self, key: str) -> Version | None:
        await self._dawdle()
        found = await super().fetch(key)
        await self._dawdle()
        return found

    async def swap(
        self, key: str, data: bytes, tag: str | None, *, metadata: Mapping[str, str]
    ) -> str:
        await self._dawdle()
        swapped = await super().swap(key, data, tag, metadata=metadata)
        await self._dawdle()
        return swapped


@pytest.mark.parametrize("seed", range(12))
async def test_many_workers_in_any_order_are_billed_once(
    place: Place, clock: MockClock, seed: int
) -> None:
    """Three come at a time, some of them are killed, and one answer is lost."""
    place.store = SlowS3(seed)
    place.store.url = place.site.url
    await place.record()
    chance = random.Random(seed)
    place.standin.faults.script(
        Endpoint.SUBMIT, chance.choice([None, Fault.LOST, Fault.CUT])
    )
    outcomes: list[Outcome] = []

    async def come() -> None:
        await trio.sleep(chance.random() * 300)
        # A kill leaves no time to let go.
        life = chance.choice([20, 200, 1000, math.inf])
        with trio.move_on_after(life), suppress(UnfinishedError):
            outcomes.append(await see_to(place.worker(), seconds=2000))

    rounds = 0
    while not outcomes and rounds < 20:
        rounds += 1
        async with trio.open_nursery() as three:
            for _ in range(3):
                three.start_soon(come)
    assert outcomes
    assert place.submitted == place.billed == 1
    assert place.told()["status"] == "completed"


# What goes wrong


async def test_without_time_it_goes_on_later_with_the_same_job(
    place: Place, clock: MockClock
) -> None:
    await place.record()
    for _ in range(3):
        with pytest.raises(UnfinishedError, match="not done yet: submitted"):
            await see_to(place.worker(), seconds=4)
        await trio.sleep(1)
    await trio.sleep(20)
    assert await see_to(place.worker()) is Outcome.COMPLETED
    assert place.submitted == 1


async def test_patience_that_ends_has_it_put_down_at_once(
    place: Place, clock: MockClock
) -> None:
    await place.record()
    patience = Patience()
    async with trio.open_nursery() as both:

        async def end() -> None:
            await trio.sleep(5)
            patience.end()

        both.start_soon(end)
        with pytest.raises(UnfinishedError):
            await place.worker().see_to(WAV, patience)
    assert trio.current_time() < 8
    assert json.loads(place.store.objects[JOB].data)["holder"] is None


@pytest.mark.parametrize(
    ("setting", "reason"), [("keys_refused", "token"), ("balance_negative", "balance")]
)
async def test_fault_of_the_account_parks_it_until_somebody_mends_it(
    place: Place, clock: MockClock, lines: list[Any], setting: str, reason: str
) -> None:
    await place.record()
    setattr(place.standin.faults, setting, True)
    for _ in range(3):
        with pytest.raises(UnfinishedError, match=reason) as caught:
            await see_to(place.worker())
        assert caught.value.is_common
    assert place.told()["status"] == "parked"
    assert reason in place.told()["reason"]
    parked = [line for line in lines if line["event"] == "transcript_parked"]
    assert len(parked) == 1
    setattr(place.standin.faults, setting, False)
    assert await see_to(place.worker()) is Outcome.COMPLETED
    assert place.told()["status"] == "completed"
    assert place.billed == 1


async def test_refused_parameters_park_it(place: Place, clock: MockClock) -> None:
    await place.record()
    place.parameters = Parameters(extra={"speech_models": ["universal-9"]})
    with pytest.raises(UnfinishedError):
        await see_to(place.worker())
    assert place.told()["status"] == "parked"
    place.parameters = Parameters()
    assert await see_to(place.worker()) is Outcome.COMPLETED


async def test_audio_of_no_use_is_given_up(
    place: Place, clock: MockClock, lines: list[Any]
) -> None:
    await place.record()
    place.standin.faults.script_jobs(JobFault.NO_AUDIO)
    assert await see_to(place.worker()) is Outcome.FAILED
    assert place.told()["status"] == "failed"
    assert "audio" in place.told()["reason"]
    assert [line["event"] for line in lines].count("transcript_given_up") == 1
    assert await see_to(place.worker()) is Outcome.LEFT_ALONE
    assert place.billed == 0


async def test_jobs_that_fail_there_are_asked_for_again(
    place: Place, clock: MockClock
) -> None:
    await place.record()
    place.standin.faults.script_jobs(JobFault.SERVER, JobFault.DOWNLOAD)
    assert await see_to(place.worker()) is Outcome.COMPLETED
    assert (place.submitted, place.billed) == (3, 1)


async def test_service_that_is_away_is_waited_for(
    place: Place, clock: MockClock
) -> None:
    await place.record()
    place.standin.away = True
    with pytest.raises(UnfinishedError) as caught:
        await see_to(place.worker(), seconds=30)
    assert caught.value.is_common

    async def back() -> None:
        await trio.sleep(300)
        place.standin.away = False

    async with trio.open_nursery() as both:
        both.start_soon(back)
        assert await see_to(place.worker()) is Outcome.COMPLETED
    assert place.submitted == 1


@pytest.mark.parametrize("seed", range(6))
async def test_half_of_all_requests_fail(
    place: Place, clock: MockClock, seed: int
) -> None:
    await place.record()
    place.standin.faults._random.seed(seed)
    place.standin.faults.fail(0.5)
    outcome: Outcome | None = None
    while outcome is None:
        try:
            outcome = await see_to(place.worker(), seconds=60)
        except UnfinishedError as error:
            await trio.sleep(error.seconds)
    assert outcome is Outcome.COMPLETED
    assert place.billed == 1


@pytest.mark.parametrize("seed", range(4))
async def test_bucket_that_fails_is_waited_for(
    place: Place, clock: MockClock, seed: int
) -> None:
    await place.record()
    chance = random.Random(seed)

    def fail(_: str) -> None:
        if chance.random() < 0.25:
            raise away()

    place.store.step = fail
    outcome: Outcome | None = None
    while outcome is None:
        try:
            outcome = await see_to(place.worker())
        except UnfinishedError as error:
            await trio.sleep(error.seconds)
    place.store.step = lambda _: None
    assert place.told()["status"] == "completed"
    assert place.submitted == 1


async def test_role_that_may_not_is_for_somebody_to_mend(
    place: Place, clock: MockClock
) -> None:
    await place.record()

    def deny(what: str) -> None:
        if what == "swap":
            raise UploadError("denied", retryable=False, fault=StoreFault.DENIED)

    place.store.step = deny
    with pytest.raises(UnfinishedError, match="denied") as caught:
        await see_to(place.worker())
    assert caught.value.is_common
    assert place.submitted == 0


# What was decided on the call


def decided(**settings: object) -> dict[str, Any]:
    """Returns a call of which something was decided when it opened."""
    call = copy.deepcopy(CALL)
    call["settings"] = {
        name: {"value": value, "from": "customConfig"}
        for name, value in settings.items()
    }
    call["audio"] = "deleted once transcribed"
    call["objects"] = [{"key": WAV, "bytes": len(TALK), "sha256": "x"}]
    return call


async def test_job_is_asked_for_as_was_decided(place: Place, clock: MockClock) -> None:
    place.parameters = Parameters(extra={"language_code": "it", "punctuate": True})
    await place.record(
        decided(language="fr", transcription={"punctuate": False, "prompt": "x"})
    )
    assert await see_to(place.worker()) is Outcome.COMPLETED
    (job,) = place.standin.account().jobs.values()
    assert job.parameters["language_code"] == "fr"
    assert job.parameters["punctuate"] is False


async def test_audio_is_deleted_once_its_transcript_is_stored(
    place: Place, clock: MockClock
) -> None:
    await place.record(decided(mode="transcribe only"))
    assert await see_to(place.worker()) is Outcome.COMPLETED
    assert WAV not in place.store.objects
    summary = json.loads(place.store.objects[SUMMARY].data)
    assert summary["audio"] == "deleted"
    assert summary["objects"][0]["deleted"] is True
    assert place.told()["status"] == "completed"
    assert "customer:" in place.store.objects[TEXT].data.decode()
    # Told of it again, nobody begins anew.
    assert await see_to(place.worker()) is Outcome.LEFT_ALONE
    assert place.billed == 1


@pytest.mark.parametrize("after", [False, True])
async def test_deletion_that_was_cut_off_is_made_up_for(
    place: Place, clock: MockClock, after: bool
) -> None:
    await place.record(decided(mode="transcribe only"))
    seen = 0

    def step(operation: str) -> None:
        nonlocal seen
        if operation == "purge":
            seen += 1
            if seen == 1 + after:
                raise UploadError("cannot be reached", fault=StoreFault.AWAY)

    place.store.step = step
    with pytest.raises(UnfinishedError):
        await see_to(place.worker())
    assert (WAV in place.store.objects) is not after
    place.store.step = lambda _: None
    assert await see_to(place.worker()) is Outcome.COMPLETED
    assert WAV not in place.store.objects
    assert json.loads(place.store.objects[SUMMARY].data)["audio"] == "deleted"
    assert place.billed == 1


async def test_audio_is_kept_if_there_is_no_transcript(
    place: Place, clock: MockClock
) -> None:
    await place.record(decided(mode="transcribe only"), wav=b"no audio at all")
    assert await see_to(place.worker()) is Outcome.FAILED
    assert WAV in place.store.objects


async def test_call_that_is_only_to_be_recorded_is_left_alone(
    place: Place, clock: MockClock
) -> None:
    call = decided(mode="record only")
    call["transcripts"][0]["status"] = "off"
    await place.record(call)
    assert await see_to(place.worker()) is Outcome.LEFT_ALONE
    assert place.submitted == 0
