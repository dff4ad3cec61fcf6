from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict, Unpack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiohook.errors import TranscriptError
from audiohook.recording.journal import decode, encode
from audiohook.recording.transcripts import (
    AudioUploaded,
    Choice,
    JobRecord,
    JobStatus,
    TranscriptDeleted,
    TranscriptFailed,
    TranscriptGivenUp,
    TranscriptIntended,
    TranscriptObject,
    TranscriptParked,
    TranscriptPlanned,
    TranscriptRefused,
    TranscriptStored,
    TranscriptSubmitted,
)
from audiohook.transcription.base import (
    DELETED_TEXT,
    Transcript,
    TranscriptFault,
    TranscriptStatus,
)
from audiohook.transcription.job import (
    NEXT,
    Habits,
    Job,
    Request,
    Scope,
    State,
    assess,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from audiohook.recording.transcripts import TranscriptFact

KEY = "calls/x/audio/x.wav"
URL = "https://bucket.example/calls/x/audio/x.wav"
SIGNED = f"{URL}?X-Amz-Signature=abc"
PLANNED = TranscriptPlanned(KEY, Choice.TRANSCRIBE, channels=("external", "internal"))
INTENDED = TranscriptIntended(KEY, URL, "2026-11-22T14:10:44.123Z")
SUBMITTED = TranscriptSubmitted(KEY, "t1")
OBJECTS = (TranscriptObject("calls/x/transcripts/x.json", 2, "ab"),)
STORED = TranscriptStored(KEY, "t1", "m", OBJECTS)


def habits(*, uploads: bool = False, deletes: bool = False) -> Habits:
    # With this jitter every pause is as it stands.
    return Habits(uploads=uploads, deletes=deletes, is_told=False, jitter=lambda: 0.5)


class Options(TypedDict, total=False):
    """What is not as usual."""

    uploads: bool
    deletes: bool


def make_job(
    *facts: TranscriptFact, now: float = 0.0, **options: Unpack[Options]
) -> Job:
    record = JobRecord(PLANNED)
    for fact in facts:
        record.apply(fact)
    return Job(record, habits(**options), now)


def transcript(
    status: str, error: str | None = None, *, text: str | None = None
) -> Transcript:
    return Transcript("t1", TranscriptStatus(status), error, URL, {"text": text})


def failure(
    fault: TranscriptFault, *, retryable: bool = True, outcome_unknown: bool = False
) -> TranscriptError:
    return TranscriptError(
        f"it is {fault}",
        fault=fault,
        retryable=retryable,
        outcome_unknown=outcome_unknown,
    )


def test_each_state_has_a_request() -> None:
    assert set(NEXT) == set(State)
    assert set(NEXT.values()) == set(Request)


@pytest.mark.parametrize(
    ("facts", "options", "state"),
    [
        ((), {}, State.READY),
        ((), {"uploads": True}, State.WITHOUT_AUDIO),
        ((AudioUploaded(KEY, URL),), {"uploads": True}, State.READY),
        ((INTENDED,), {}, State.DOUBTFUL),
        ((INTENDED, TranscriptRefused(KEY)), {}, State.READY),
        ((INTENDED, SUBMITTED), {}, State.SUBMITTED),
        ((INTENDED, SUBMITTED, INTENDED), {}, State.DOUBTFUL),
        ((SUBMITTED, TranscriptFailed(KEY, "t1", "theirs", "x")), {}, State.READY),
        (
            (
                AudioUploaded(KEY, URL),
                SUBMITTED,
                TranscriptFailed(KEY, "t1", "download", "x"),
            ),
            {"uploads": True},
            State.WITHOUT_AUDIO,
        ),
        ((SUBMITTED, STORED), {}, State.SETTLED),
        ((SUBMITTED, STORED), {"deletes": True}, State.ENDED),
        (
            (SUBMITTED, STORED, TranscriptDeleted(KEY, "t1")),
            {"deletes": True},
            State.SETTLED,
        ),
        ((SUBMITTED, TranscriptGivenUp(KEY, "x")), {"deletes": True}, State.ENDED),
        ((TranscriptGivenUp(KEY, "x"),), {"deletes": True}, State.SETTLED),
        ((TranscriptParked(KEY, "x"),), {}, State.READY),
    ],
)
def test_state_follows_from_the_facts(
    facts: tuple[TranscriptFact, ...], options: Options, state: State
) -> None:
    job = make_job(*facts, **options)
    assert job.state is state
    assert job.request is NEXT[state]


@pytest.mark.parametrize("choice", [Choice.SKIP, Choice.OFF, Choice.ELSEWHERE])
def test_file_that_gets_no_transcript_is_settled(choice: Choice) -> None:
    job = Job(JobRecord(TranscriptPlanned(KEY, choice, "why")), habits(), 0.0)
    assert job.state is State.SETTLED
    assert job.record.reason == "why"


@pytest.mark.parametrize(
    ("request_", "fault", "facts", "due"),
    [
        (Request.SUBMIT, TranscriptFault.AWAY, (TranscriptRefused(KEY),), 2),
        (Request.SUBMIT, TranscriptFault.BUSY, (TranscriptRefused(KEY),), 2),
        (
            Request.SUBMIT,
            TranscriptFault.BAD_KEY,
            (TranscriptRefused(KEY), TranscriptParked(KEY, "it is bad_key")),
            0,
        ),
        (
            Request.SUBMIT,
            TranscriptFault.BALANCE,
            (TranscriptRefused(KEY), TranscriptParked(KEY, "it is balance")),
            0,
        ),
        (
            Request.SUBMIT,
            TranscriptFault.BAD_REQUEST,
            (TranscriptRefused(KEY), TranscriptParked(KEY, "it is bad_request")),
            1800,
        ),
        (
            Request.SUBMIT,
            TranscriptFault.MEDIA,
            (TranscriptRefused(KEY), TranscriptGivenUp(KEY, "it is media")),
            0,
        ),
        (Request.UPLOAD, TranscriptFault.AWAY, (), 2),
        (
            Request.UPLOAD,
            TranscriptFault.MEDIA,
            (TranscriptGivenUp(KEY, "it is media"),),
            0,
        ),
        (Request.FETCH, TranscriptFault.AWAY, (), 2),
        (Request.FETCH, TranscriptFault.NOT_FOUND, (), 2),
        (Request.LOOK_UP, TranscriptFault.AWAY, (), 2),
        (Request.DELETE, TranscriptFault.AWAY, (), 2),
        (
            Request.DELETE,
            TranscriptFault.NOT_FOUND,
            (TranscriptDeleted(KEY, "t1"),),
            0,
        ),
    ],
)
def test_refusal(
    request_: Request,
    fault: TranscriptFault,
    facts: tuple[TranscriptFact, ...],
    due: float,
) -> None:
    job = make_job(SUBMITTED, STORED, deletes=True)
    retryable = fault in (TranscriptFault.AWAY, TranscriptFault.BUSY)
    assert job.refused(request_, failure(fault, retryable=retryable), 0.0) == facts
    assert job.due == due


@pytest.mark.parametrize(
    ("text", "fault", "scope", "lasting"),
    [
        ("no answer", TranscriptFault.AWAY, Scope.SERVICE, False),
        ("slower", TranscriptFault.BUSY, Scope.PACE, False),
        ("who are you", TranscriptFault.BAD_KEY, Scope.SERVICE, True),
        ("no money", TranscriptFault.BALANCE, Scope.SUBMITS, True),
        ("bad word", TranscriptFault.BAD_REQUEST, Scope.JOB, True),
        ("speech_models: x", TranscriptFault.BAD_REQUEST, Scope.SUBMITS, True),
        ("it is deprecated", TranscriptFault.BAD_REQUEST, Scope.SUBMITS, True),
        ("no such thing", TranscriptFault.NOT_FOUND, Scope.JOB, True),
    ],
)
def test_failures_concern_others(
    text: str, fault: TranscriptFault, scope: Scope, lasting: bool
) -> None:
    trouble = assess(TranscriptError(text, fault=fault))
    assert (trouble.scope, trouble.lasting) == (scope, lasting)


def test_job_that_is_not_known_is_parked_only_after_some_tries() -> None:
    job = make_job(SUBMITTED)
    unknown = failure(TranscriptFault.NOT_FOUND, retryable=False)
    assert job.refused(Request.FETCH, unknown, 0.0) == ()
    assert job.refused(Request.FETCH, unknown, 10.0) == ()
    (fact,) = job.refused(Request.FETCH, unknown, 20.0)
    assert isinstance(fact, TranscriptParked)
    assert job.due == 20 + 1800
    job.record.apply(fact)
    assert job.record.status is JobStatus.PARKED
    # As long as it stays so there is nothing new to say.
    assert job.refused(Request.FETCH, unknown, 3000.0) == ()
    assert job.fetched(transcript("processing"), 5000.0) == (
        TranscriptParked(KEY, None),
    )


def test_polls_grow_to_a_minute() -> None:
    job = make_job()
    assert job.submitted("t1", 0.0) == (SUBMITTED,)
    job.record.apply(SUBMITTED)
    pauses = [job.due]
    for _ in range(12):
        now = job.due
        assert job.fetched(transcript("processing"), now) == ()
        pauses.append(job.due - now)
    assert pauses[:3] == [3.0, 4.5, 6.75]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 60.0


def test_webhooks_leave_little_to_polls() -> None:
    told = Habits(uploads=False, deletes=False, is_told=True, jitter=lambda: 0.5)
    job = Job(JobRecord(PLANNED), told, 0.0)
    job.submitted("t1", 0.0)
    assert job.due == 300.0


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        ("Download error, unable to download", None),
        ("server error, please retry", None),
        ("something quite new", None),
        ("Audio duration is too short.", TranscriptGivenUp),
        ("File does not appear to contain audio.", TranscriptGivenUp),
        ("speech_models is not supported", TranscriptParked),
    ],
)
def test_job_that_ended_in_an_error(error: str, outcome: type | None) -> None:
    job = make_job(SUBMITTED)
    failed, *more = job.fetched(transcript("error", error), 0.0)
    assert isinstance(failed, TranscriptFailed)
    assert [type(fact) for fact in more] == ([outcome] if outcome else [])
    for fact in (failed, *more):
        job.record.apply(fact)
    assert job.record.current is None
    assert (job.state is State.SETTLED) == (outcome is TranscriptGivenUp)


def test_file_is_given_up_after_many_failures_with_growing_pauses() -> None:
    job = make_job(SUBMITTED)
    pauses = []
    now = 0.0
    while not job.record.is_final:
        for fact in job.fetched(transcript("error", "server error"), now):
            job.record.apply(fact)
        pauses.append(job.due - now)
        now = job.due
        job.record.apply(SUBMITTED)
    assert pauses == [5, 15, 45, 135, 405, 1215, 3600, 0]
    assert job.record.status is JobStatus.FAILED
    assert job.record.reason == "server error"


def test_deleted_transcript_is_not_taken_for_a_good_one() -> None:
    job = make_job(SUBMITTED)
    (fact,) = job.fetched(transcript("completed", text=DELETED_TEXT), 0.0)
    assert isinstance(fact, TranscriptGivenUp)


def test_lost_answer_makes_it_look_before_it_asks_again() -> None:
    job = make_job()
    intent = job.intend(SIGNED, 1_800_000_000.0)
    assert intent.audio_url == URL
    job.record.apply(intent)
    lost = failure(TranscriptFault.AWAY, outcome_unknown=True)
    assert job.refused(Request.SUBMIT, lost, 100.0) == ()
    assert (job.state, job.due) == (State.DOUBTFUL, 105.0)
    # A clock that is a time zone ahead must not hide the job.
    assert job.created_after == 1_800_000_000.0 - 26 * 3600
    # Not there yet, which says nothing.
    assert job.looked_up(None, 105.0, 106.0) == ()
    assert job.due == 130.0
    # Begun too early, however late it ended.
    assert job.looked_up(None, 129.0, 140.0) == ()
    assert job.looked_up(None, 130.0, 131.0) == (TranscriptRefused(KEY),)
    assert job.due == 131.0


def test_job_that_is_found_is_fetched_at_once() -> None:
    job = make_job(INTENDED, now=50.0)
    assert job.due == 55.0
    assert job.looked_up("t1", 55.0, 56.0) == (SUBMITTED,)
    assert job.due == 56.0


def test_unexpected_failure_of_a_request_leaves_it_in_doubt() -> None:
    job = make_job(now=0.0)
    job.record.apply(job.intend(SIGNED, 1_800_000_000.0))
    # Nobody knows when, so that no search is conclusive.
    assert job.looked_up(None, 1000.0, 1000.0) == ()
    assert job.due == math.inf
    job.put_off(1000.0)
    assert job.due == 1005.0
    assert job.looked_up(None, 1030.0, 1030.0) == (TranscriptRefused(KEY),)


def test_upload_that_cannot_be_accessed_is_made_anew() -> None:
    job = make_job(AudioUploaded(KEY, URL), INTENDED, uploads=True)
    lost = failure(TranscriptFault.DOWNLOAD)
    for fact in job.refused(Request.SUBMIT, lost, 0.0):
        job.record.apply(fact)
    assert job.request is Request.UPLOAD
    for fact in job.uploaded("https://cdn.example/2", 5.0):
        job.record.apply(fact)
    assert (job.state, job.record.upload_url) == (
        State.READY,
        "https://cdn.example/2",
    )


def test_all_jobs_of_a_file_are_forgotten() -> None:
    failed = TranscriptFailed(KEY, "t0", "theirs", "x")
    facts = (TranscriptSubmitted(KEY, "t0"), failed, SUBMITTED, STORED)
    job = make_job(*facts, deletes=True)
    forgotten = []
    while job.traces is not None:
        forgotten.append(job.traces)
        for fact in job.deleted(job.traces, 0.0):
            job.record.apply(fact)
    assert forgotten == ["t0", "t1"]
    assert job.state is State.SETTLED


# Crashes and lost answers


@dataclass
class Account:
    """What the service has: jobs by id."""

    made: dict[str, str] = field(default_factory=dict)
    in_flight: list[tuple[float, str]] = field(default_factory=list)

    @property
    def billed(self) -> int:
        return sum(status != "error" for status in self.made.values())

    def land(self, now: float) -> None:
        """Requests that nobody waits for are carried out after all."""
        for at, name in list(self.in_flight):
            if at <= now:
                self.made[name] = "processing"
                self.in_flight.remove((at, name))


class World:
    """One file, from its plan to its end, with crashes and lost answers.

    What is durable survives each crash; of what was written after that, any number
    of lines does.
    """

    def __init__(self, seed: int, *, uploads: bool, deletes: bool) -> None:
        self.random = random.Random(seed)
        self.options: Options = {"uploads": uploads, "deletes": deletes}
        self.account = Account()
        self.facts: list[TranscriptFact] = []
        self.durable = 0
        self.now = 0.0
        self.stored = False
        self.posts = 0
        self.job = self.restart()

    def restart(self) -> Job:
        keep = self.random.randint(self.durable, len(self.facts))
        del self.facts[keep:]
        # As they come back from a disk.
        lines = [decode(encode(fact)) for fact in self.facts]
        assert lines == self.facts
        return make_job(*self.facts, now=self.now, **self.options)

    def note(self, facts: Iterable[TranscriptFact]) -> None:
        for fact in facts:
            self.facts.append(fact)
            self.job.record.apply(fact)

    def commit(self, *facts: TranscriptFact) -> None:
        self.note(facts)
        self.durable = len(self.facts)

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def crash(self) -> None:
        self.now += self.random.uniform(0, 20)
        self.job = self.restart()

    def step(self, calm: bool) -> None:
        job = self.job
        self.now = max(self.now, job.due)
        self.account.land(self.now)
        trouble = 0.0 if calm else 0.15
        request = job.request
        if self.chance(trouble):
            return self.crash()
        if request is not Request.SUBMIT and self.chance(trouble):
            error = failure(TranscriptFault.AWAY, outcome_unknown=True)
            return self.note(job.refused(request, error, self.now))
        match request:
            case Request.UPLOAD:
                self.note(job.uploaded(URL, self.now))
            case Request.SUBMIT:
                self.submit(trouble)
            case Request.LOOK_UP:
                self.look_up(trouble)
            case Request.FETCH:
                self.fetch(trouble)
            case Request.DELETE:
                self.commit()
                self.note(job.deleted(job.traces or "", self.now))
            case Request.FINISH:
                raise AssertionError("nothing is left to do")
        return None

    def submit(self, trouble: float) -> None:
        job = self.job
        self.commit(job.intend(SIGNED, 1_800_000_000.0 + self.now))
        self.posts += 1
        name = f"t{self.posts}"
        if self.chance(trouble):
            return self.crash()  # before it was sent
        if self.chance(trouble):
            # It lands later than anybody waits, and once after a crash.
            self.account.in_flight.append((self.now + self.random.uniform(0, 25), name))
            if self.chance(0.5):
                return self.crash()
            error = failure(TranscriptFault.AWAY, outcome_unknown=True)
            return self.note(job.refused(Request.SUBMIT, error, self.now))
        if self.chance(trouble):
            error = failure(TranscriptFault.BUSY)
            return self.note(job.refused(Request.SUBMIT, error, self.now))
        if self.chance(trouble):
            error = failure(TranscriptFault.BALANCE, retryable=False)
            return self.note(job.refused(Request.SUBMIT, error, self.now))
        self.account.made[name] = "processing"
        if self.chance(trouble):
            return self.crash()  # before the answer was noted
        if self.chance(trouble):
            error = failure(TranscriptFault.AWAY, outcome_unknown=True)
            return self.note(job.refused(Request.SUBMIT, error, self.now))
        return self.note(job.submitted(name, self.now))

    def look_up(self, trouble: float) -> None:
        job = self.job
        began = self.now
        known = job.record.ids
        found = [name for name in self.account.made if name not in known]
        self.now += self.random.uniform(0, 3)
        if self.chance(trouble):
            return self.crash()
        return self.note(job.looked_up(found[-1] if found else None, began, self.now))

    def fetch(self, trouble: float) -> None:
        job = self.job
        name = job.record.current or ""
        assert name in self.account.made
        if self.account.made[name] == "processing":
            if self.chance(0.4):
                self.account.made[name] = "completed"
            elif self.chance(trouble):
                self.account.made[name] = "error"
        status = self.account.made[name]
        answer = Transcript(
            name,
            TranscriptStatus(status),
            "Download error" if status == "error" else None,
            URL,
            {"text": "x"},
        )
        if not answer.usable:
            return self.note(job.fetched(answer, self.now))
        self.stored = True
        if self.chance(trouble):
            return self.crash()
        return self.note(job.stored(answer, OBJECTS, self.now))


@given(seed=st.integers(0, 2**32), uploads=st.booleans(), deletes=st.booleans())
@settings(max_examples=400, deadline=None)
def test_no_crash_and_no_lost_answer_bills_twice_or_forgets(
    seed: int, uploads: bool, deletes: bool
) -> None:
    world = World(seed, uploads=uploads, deletes=deletes)
    for number in range(400):
        if world.job.state is State.SETTLED:
            break
        world.step(calm=number > 150)
    assert world.job.state is State.SETTLED
    if world.job.record.stored is not None:
        assert world.stored
        assert world.account.billed == 1
    else:
        # Too many failures in a row; all of them were free.
        assert world.job.record.failures >= 8
        assert world.account.billed == 0
