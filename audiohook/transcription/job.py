"""One job: the transcript of one WAV file, from its plan to its end.

A job's state follows from the facts in the journal alone, and the state says what
to ask for next. So a process that takes over a call goes on as if it had been
there from the start. Nothing here sends, stores or reads a clock.

A request for a transcript costs money and has no name by which the service could
tell a repetition. So it is written down before it is sent; and when it is not
known whether a job came of it, because the answer was lost or the process died,
the job is looked for in the account's list, until it is found or surely is not
there. Only then is it asked for again.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from audiohook.recording.journal import utc_text
from audiohook.recording.transcripts import (
    AudioUploaded,
    TranscriptDeleted,
    TranscriptFailed,
    TranscriptGivenUp,
    TranscriptIntended,
    TranscriptParked,
    TranscriptRefused,
    TranscriptStored,
    TranscriptSubmitted,
)
from audiohook.transcription.base import (
    TranscriptFault,
    TranscriptStatus,
    without_query,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from audiohook.errors import TranscriptError
    from audiohook.recording.transcripts import (
        JobRecord,
        TranscriptFact,
        TranscriptObject,
    )
    from audiohook.transcription.base import Transcript

SECONDS = 1.0
MINUTES = 60 * SECONDS
HOURS = 60 * MINUTES

# Most files are done in less than 45 s; some take minutes, and a queue hours.
_FIRST_POLL: Final = 3 * SECONDS
_POLL_GROWTH: Final = 1.5
_LONGEST_POLL: Final = 60 * SECONDS
# With webhooks a poll only finds what they have lost.
_RECONCILING_POLL: Final = 5 * MINUTES

# After a try that failed, while no more is known than that.
_FIRST_PAUSE: Final = 2 * SECONDS
_LONGEST_PAUSE: Final = 5 * MINUTES
# Somebody has to mend something first; he need not restart us, though.
_PARKED_PAUSE: Final = 30 * MINUTES
# How often the service may not know a job before that is believed.
_MOST_MISSES: Final = 3

# Jobs that have failed before a file is given up. Such jobs are free, and all
# pauses together outlast an hour and a half of trouble there.
_MOST_FAILURES: Final = 8
_FIRST_RESUBMIT: Final = 5 * SECONDS
_RESUBMIT_GROWTH: Final = 3.0
_LONGEST_RESUBMIT: Final = 1 * HOURS

# A request that nobody waits for any more may still be carried out, and may be
# missing in the list for a while. To find the job is enough whenever it happens;
# not to find it counts only this long after anybody could have sent the request.
# Source: AssemblyAI's own SDK gives up on an answer after 30 s.
_LOOK_EARLY: Final = 5 * SECONDS
_LOOK_SURE: Final = 30 * SECONDS
# By how much their clock may be behind ours: a machine that takes its own time zone
# for UTC is many hours ahead, and would never find a job of its own.
_CLOCK_SLACK: Final = 26 * HOURS

# What says that the fault lies in what all jobs have in common.
_ABOUT_MODELS: Final = re.compile(r"speech.?models?\b|deprecat|retired", re.IGNORECASE)


class State(StrEnum):
    """Where a job stands."""

    WITHOUT_AUDIO = "without_audio"
    """The service has not got the audio, and cannot fetch it."""
    READY = "ready"
    """There is no job as yet, or not any more."""
    DOUBTFUL = "doubtful"
    """A job was asked for, and nobody knows whether there is one."""
    SUBMITTED = "submitted"
    """There is a job."""
    ENDED = "ended"
    """All is stored or given up, and traces are left with the service."""
    SETTLED = "settled"
    """Nothing is left to be asked for."""


class Request(StrEnum):
    """What a job needs done."""

    UPLOAD = "upload"
    """Send the audio to the service."""
    SUBMIT = "submit"
    """Ask for a transcript."""
    LOOK_UP = "look_up"
    """Look for the job in the account's list."""
    FETCH = "fetch"
    """Ask how far it is; if it is done, store what came of it."""
    DELETE = "delete"
    """Have the service forget it."""
    FINISH = "finish"
    """See to it that the call's JSON says so, and leave the spool."""


NEXT: Final[Mapping[State, Request]] = {
    State.WITHOUT_AUDIO: Request.UPLOAD,
    State.READY: Request.SUBMIT,
    State.DOUBTFUL: Request.LOOK_UP,
    State.SUBMITTED: Request.FETCH,
    State.ENDED: Request.DELETE,
    State.SETTLED: Request.FINISH,
}
"""What is to be done in each state."""


class Scope(StrEnum):
    """Whom a failure concerns."""

    JOB = "job"
    """This job alone."""
    SUBMITS = "submits"
    """All jobs that are still to be submitted."""
    SERVICE = "service"
    """Every request."""
    PACE = "pace"
    """Every request, until there are fewer."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a failure means for others.

    Attributes:
        scope: Whom it concerns.
        lasting: Whether somebody has to mend it.
        error: What was said.
    """

    scope: Scope
    lasting: bool
    error: TranscriptError


_TROUBLE: Final[Mapping[str, tuple[Scope, bool]]] = {
    TranscriptFault.AWAY: (Scope.SERVICE, False),
    TranscriptFault.BUSY: (Scope.PACE, False),
    TranscriptFault.BAD_KEY: (Scope.SERVICE, True),
    TranscriptFault.MISLED: (Scope.SERVICE, True),
    TranscriptFault.BALANCE: (Scope.SUBMITS, True),
    TranscriptFault.BAD_REQUEST: (Scope.JOB, True),
    TranscriptFault.NOT_FOUND: (Scope.JOB, True),
    TranscriptFault.DOWNLOAD: (Scope.JOB, False),
    TranscriptFault.MEDIA: (Scope.JOB, True),
    TranscriptFault.THEIRS: (Scope.JOB, False),
}


def assess(error: TranscriptError) -> Trouble:
    """Say whom a failure concerns, and whether it passes by itself."""
    scope, lasting = _TROUBLE.get(error.fault, (Scope.JOB, not error.retryable))
    if error.fault == TranscriptFault.BAD_REQUEST and _ABOUT_MODELS.search(str(error)):
        scope = Scope.SUBMITS
    return Trouble(scope, lasting, error)


@dataclass(frozen=True, slots=True)
class Habits:
    """What all jobs have in common.

    Attributes:
        uploads: Whether the audio has to be sent to the service, as it cannot
            fetch it.
        deletes: Whether the service is to forget a job once all is stored.
        is_told: Whether webhooks say when a job is done.
        jitter: Returns numbers from 0 up to 1.
    """

    uploads: bool
    deletes: bool
    is_told: bool
    jitter: Callable[[], float]


class Job:
    """Decides what is next for one WAV file.

    Whatever happens is told to one of its methods. They return facts for the
    journal, which the caller applies to the record, and they set `due`.

    Args:
        record: What its facts say; it grows as more are applied.
        habits: What all jobs have in common.
        now: Time in seconds. Whoever was at the job before is not any more.

    Attributes:
        record: As above.
        due: When it may be seen to next.
        failed_tries: How many tries in a row have failed.
    """

    __slots__ = (
        "_audio_is_stale",
        "_doubt_since",
        "_habits",
        "_misses",
        "_polls",
        "due",
        "failed_tries",
        "record",
    )

    def __init__(self, record: JobRecord, habits: Habits, now: float) -> None:
        self.record = record
        self._habits = habits
        self._doubt_since = now
        self._polls = 0
        self._misses = 0
        self._audio_is_stale = False
        self.failed_tries = 0
        self.due = now
        if self.state is State.DOUBTFUL:
            self.due = now + _LOOK_EARLY

    @property
    def key(self) -> str:
        """Key of its WAV file."""
        return self.record.planned.key

    @property
    def state(self) -> State:
        """Where it stands."""
        record = self.record
        if record.is_final:
            return State.SETTLED if self.traces is None else State.ENDED
        if record.intent is not None:
            return State.DOUBTFUL
        if record.current is not None:
            return State.SUBMITTED
        missing = record.upload_url is None or self._audio_is_stale
        if self._habits.uploads and missing:
            return State.WITHOUT_AUDIO
        return State.READY

    @property
    def is_lost(self) -> bool:
        """Whether the service has said often enough that it knows no such job."""
        return self._misses >= _MOST_MISSES

    @property
    def request(self) -> Request:
        """What it needs done once it is due."""
        return NEXT[self.state]

    @property
    def traces(self) -> str | None:
        """Id of a job that the service is to forget; None if there is none."""
        if not self._habits.deletes:
            return None
        known = (each for each in self.record.ids if each not in self.record.deleted)
        return next(known, None)

    @property
    def created_after(self) -> float:
        """No job that may be looked for was made earlier, in seconds since 1970.

        Raises:
            ValueError: None is looked for.
        """
        if self.record.intent is None:
            raise ValueError("nothing was asked for")
        return self.record.intent.epoch - _CLOCK_SLACK

    # What happens to it

    def uploaded(self, url: str, now: float) -> tuple[TranscriptFact, ...]:
        """The service has the audio.

        Args:
            url: Where.
            now: Time in seconds.
        """
        self._audio_is_stale = False
        self.due = now
        return (AudioUploaded(self.key, url),)

    def intend(self, audio_url: str, epoch: float) -> TranscriptIntended:
        """A transcript is about to be asked for.

        Args:
            audio_url: Address of the audio, signature and all.
            epoch: Seconds since 1970.

        Returns:
            What has to be on disk before the request is sent.
        """
        # The count begins when the request cannot be sent any more.
        self._doubt_since = math.inf
        return TranscriptIntended(self.key, without_query(audio_url), utc_text(epoch))

    def submitted(self, transcript_id: str, now: float) -> tuple[TranscriptFact, ...]:
        """There is a job.

        Args:
            transcript_id: Its id.
            now: Time in seconds.
        """
        self.failed_tries = self._polls = self._misses = 0
        self.due = now + self._poll_pause()
        return (TranscriptSubmitted(self.key, transcript_id),)

    def looked_up(
        self, found: str | None, began: float, now: float
    ) -> tuple[TranscriptFact, ...]:
        """The account's list was searched.

        Args:
            found: Id of its job; None if it is not in there.
            began: When the search began, in seconds.
            now: Time in seconds.
        """
        self.failed_tries = 0
        if found is not None:
            facts = self.submitted(found, now)
            self.due = now
            return facts
        sure = self._doubt_since + _LOOK_SURE
        if began < sure:
            self.due = sure
            return ()
        self.due = now
        return (TranscriptRefused(self.key),)

    def fetched(self, transcript: Transcript, now: float) -> tuple[TranscriptFact, ...]:
        """The service said how far the job is, and it is not done.

        Args:
            transcript: What it said; a usable one is to be stored, and then told
                to `stored`.
            now: Time in seconds.
        """
        self.failed_tries = self._misses = 0
        if transcript.deleted:
            reason = "somebody deleted the transcript before it was stored"
            self.due = now
            return (TranscriptGivenUp(self.key, reason),)
        if transcript.status is TranscriptStatus.ERROR:
            return self._job_failed(transcript, now)
        self._polls += 1
        self.due = now + self._poll_pause()
        return self._going_on()

    def stored(
        self, transcript: Transcript, objects: Sequence[TranscriptObject], now: float
    ) -> tuple[TranscriptFact, ...]:
        """The store has confirmed all forms of the transcript.

        Args:
            transcript: It.
            objects: Its forms.
            now: Time in seconds.
        """
        self.failed_tries = 0
        self.due = now
        model = transcript.body.get("speech_model_used")
        model = model if isinstance(model, str) else None
        return (TranscriptStored(self.key, transcript.id, model, tuple(objects)),)

    def deleted(self, transcript_id: str, now: float) -> tuple[TranscriptFact, ...]:
        """The service has forgotten a job.

        Args:
            transcript_id: Which.
            now: Time in seconds.
        """
        self.failed_tries = 0
        self.due = now
        return (TranscriptDeleted(self.key, transcript_id),)

    def refused(
        self, request: Request, error: TranscriptError, now: float
    ) -> tuple[TranscriptFact, ...]:
        """A request was not answered as hoped.

        Args:
            request: Which.
            error: What was said.
            now: Time in seconds.
        """
        self.put_off(now)
        if request is Request.DELETE and error.fault == TranscriptFault.NOT_FOUND:
            return self.deleted(self.traces or "", now)
        facts: tuple[TranscriptFact, ...] = ()
        if request is Request.SUBMIT:
            if error.outcome_unknown:
                return ()
            facts = (TranscriptRefused(self.key),)
        if error.fault == TranscriptFault.DOWNLOAD:
            # What was uploaded is gone, or belongs to another key.
            self._audio_is_stale = True
        if error.fault == TranscriptFault.MEDIA:
            self.due = now
            return *facts, TranscriptGivenUp(self.key, str(error))
        if request is Request.FETCH and error.fault == TranscriptFault.NOT_FOUND:
            self._misses += 1
            if self._misses < _MOST_MISSES:
                return facts
        trouble = assess(error)
        if trouble.lasting:
            facts = (*facts, *self._park(str(error), now))
            if trouble.scope is not Scope.JOB:
                # Who tries when is not up to one job.
                self.due = now
        return facts

    def put_off(self, now: float) -> None:
        """Something failed, and it waits longer each time.

        Args:
            now: Time in seconds.
        """
        pause = _FIRST_PAUSE * 2.0 ** min(self.failed_tries, 16)
        self.failed_tries += 1
        self.due = now + self._blurred(min(pause, _LONGEST_PAUSE))
        if self.state is State.DOUBTFUL and self._doubt_since == math.inf:
            self._doubt_since = now
            self.due = now + _LOOK_EARLY

    # Inside

    def _job_failed(
        self, transcript: Transcript, now: float
    ) -> tuple[TranscriptFact, ...]:
        fault = transcript.fault or TranscriptFault.OTHER
        reason = transcript.error or "failed without a reason"
        failed = TranscriptFailed(self.key, transcript.id, fault, reason)
        failures = self.record.failures + 1
        if fault in (TranscriptFault.BAD_REQUEST, TranscriptFault.BALANCE):
            return failed, *self._park(reason, now)
        if fault is TranscriptFault.MEDIA or failures >= _MOST_FAILURES:
            self.due = now
            return failed, TranscriptGivenUp(self.key, reason)
        pause = _FIRST_RESUBMIT * _RESUBMIT_GROWTH ** (failures - 1)
        self.due = now + self._blurred(min(pause, _LONGEST_RESUBMIT))
        return (failed,)

    def _park(self, reason: str, now: float) -> tuple[TranscriptFact, ...]:
        """Have it wait until somebody has mended something."""
        self.due = now + self._blurred(_PARKED_PAUSE)
        if self.record.parked == reason:
            return ()
        return (TranscriptParked(self.key, reason),)

    def _going_on(self) -> tuple[TranscriptFact, ...]:
        if self.record.parked is None:
            return ()
        return (TranscriptParked(self.key, None),)

    def _poll_pause(self) -> float:
        if self._habits.is_told:
            return self._blurred(_RECONCILING_POLL)
        pause = _FIRST_POLL * _POLL_GROWTH ** min(self._polls, 16)
        return self._blurred(min(pause, _LONGEST_POLL))

    def _blurred(self, pause: float) -> float:
        """Spread what would else happen at one time."""
        return pause * (0.75 + self._habits.jitter() / 2)
