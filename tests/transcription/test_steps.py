from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
import trio

from audiohook.errors import TranscriptError
from audiohook.recording.transcripts import (
    Choice,
    JobRecord,
    TranscriptPlanned,
    TranscriptSubmitted,
)
from audiohook.transcription.base import Transcript, TranscriptFault, TranscriptStatus
from audiohook.transcription.job import Habits, Job
from audiohook.transcription.pace import Pace
from audiohook.transcription.parameters import Parameters
from audiohook.transcription.steps import Steps, Terms
from tests.waiting import hold_for_threads

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from trio.testing import MockClock

    from audiohook.transcription.steps import Account, Docket

SIZE_SECONDS = 5.0


class LongTranscripts:
    """A service whose transcripts are all long, and take their time."""

    def __init__(self) -> None:
        self.in_memory = 0
        self.most_in_memory = 0

    async def get(
        self, transcript_id: str, *, large: Callable[[], Awaitable[None]] | None = None
    ) -> Transcript:
        assert large is not None
        await large()
        self.in_memory += 1
        self.most_in_memory = max(self.most_in_memory, self.in_memory)
        await trio.sleep(SIZE_SECONDS)
        body: dict[str, Any] = {
            "id": transcript_id,
            "text": "yes",
            "words": [],
            "utterances": None,
        }
        return Transcript(transcript_id, TranscriptStatus.COMPLETED, None, "", body)


class Shelf:
    """Takes transcripts, and its time."""

    def __init__(self, record: JobRecord, account: LongTranscripts) -> None:
        self._record = record
        self._account = account

    def note(self, *facts: Any) -> None:  # noqa: ANN401
        for fact in facts:
            self._record.apply(fact)

    async def keep(self, _: str, texts: Mapping[str, bytes]) -> list[object]:
        assert texts[".json"]
        await trio.sleep(SIZE_SECONDS)
        self._account.in_memory -= 1
        return []


async def test_of_long_transcripts_one_is_in_memory_at_a_time(
    autojump_clock: MockClock,
) -> None:
    hold_for_threads(autojump_clock)
    account = LongTranscripts()
    steps = Steps(cast("Account", account), Terms(Parameters()), Pace())
    habits = Habits(uploads=False, deletes=False, is_told=False, jitter=lambda: 0.5)
    jobs = []
    for number in range(6):
        record = JobRecord(TranscriptPlanned(f"{number}.wav", Choice.TRANSCRIBE))
        record.apply(TranscriptSubmitted(f"{number}.wav", f"t{number}"))
        jobs.append((Job(record, habits, 0.0), cast("Docket", Shelf(record, account))))
    refused = 0

    async def see_to(job: Job, docket: Docket) -> None:
        nonlocal refused
        while not job.record.is_final:
            await trio.sleep_until(job.due)
            try:
                await steps.perform(job, docket)
            except TranscriptError:
                refused += 1

    with trio.fail_after(600):
        async with trio.open_nursery() as nursery:
            for job, docket in jobs:
                nursery.start_soon(see_to, job, docket)
    assert account.most_in_memory == 1
    # Those who wait for longer than the other side likes come again.
    assert refused >= 1


async def test_turn_is_given_back_after_a_failure(
    autojump_clock: MockClock,
) -> None:
    class Breaks(LongTranscripts):
        async def get(
            self,
            transcript_id: str,
            *,
            large: Callable[[], Awaitable[None]] | None = None,
        ) -> Transcript:
            assert large is not None
            await large()
            raise TranscriptError("it broke", fault=TranscriptFault.AWAY)

    steps = Steps(cast("Account", Breaks()), Terms(Parameters()), Pace())
    habits = Habits(uploads=False, deletes=False, is_told=False, jitter=lambda: 0.5)
    record = JobRecord(TranscriptPlanned("a.wav", Choice.TRANSCRIBE))
    record.apply(TranscriptSubmitted("a.wav", "t"))
    job = Job(record, habits, 0.0)
    docket = cast("Docket", Shelf(record, LongTranscripts()))
    for _ in range(3):
        began = trio.current_time()
        with pytest.raises(TranscriptError, match="it broke"):
            await steps.perform(job, docket)
        assert trio.current_time() - began < 1
