"""Where jobs are worked off: from their turn to their end, and the webhooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from audiohook.simulator.assemblyai import webhooks
from audiohook.simulator.assemblyai.account import Job, Status
from audiohook.simulator.assemblyai.audio import (
    UNAVAILABLE,
    DownloadError,
    TooLongError,
    fetch,
    is_upload,
)
from audiohook.simulator.assemblyai.faults import JobFault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import httpx

    from audiohook.simulator.assemblyai.account import Account, Limits, Pace
    from audiohook.simulator.assemblyai.audio import Uploads
    from audiohook.simulator.assemblyai.faults import Faults
    from audiohook.simulator.assemblyai.parameters import Policy
    from audiohook.simulator.assemblyai.voices import Hearing

SECONDS = 1.0

_SHORTEST = 0.160 * SECONDS
# Shorter audio is not held against a threshold of speech.
_THRESHOLD_FROM = 30 * SECONDS

_NO_AUDIO = "Transcoding failed. File does not appear to contain audio."
_TOO_SHORT = "Audio duration is too short."
_TOO_LONG = "Audio duration is too long."

_FAILED_JOBS = {
    JobFault.DOWNLOAD: UNAVAILABLE,
    JobFault.NO_AUDIO: _NO_AUDIO,
    JobFault.TOO_SHORT: _TOO_SHORT,
    JobFault.THRESHOLD: (
        "Audio speech threshold 0.0213 is below the requested speech threshold value"
    ),
    JobFault.LANGUAGE: (
        "detected language 'en', confidence 0.2949, is below the requested confidence"
        " threshold value"
    ),
    JobFault.SERVER: "Server error, developers have been alerted.",
}


class _JobFailedError(Exception):
    """A job ends with an error; the text is the service's."""


class Workshop:
    """Takes jobs to their ends.

    Args:
        uploads: Files sent to the service.
        pace: How long jobs take.
        limits: What the service bears.
        policy: What it finds and accepts.
        faults: How jobs end that do not end as their audio decides.
        redacted_audio: Tells where the redacted copy of a job's audio is.

    Attributes:
        webhooks_sent: Webhooks that were taken.
        webhooks_failed: Webhooks that were given up.
    """

    def __init__(
        self,
        uploads: Uploads,
        *,
        pace: Pace,
        limits: Limits,
        policy: Policy,
        faults: Faults,
        redacted_audio: Callable[[Job], dict[str, Any]],
    ) -> None:
        self._uploads = uploads
        self._pace = pace
        self._limits = limits
        self._policy = policy
        self._faults = faults
        self._redacted_audio = redacted_audio
        self._changed = trio.Event()
        self._webhooks_pending = 0
        self.webhooks_sent = 0
        self.webhooks_failed = 0

    def change(self) -> None:
        """Wakes whoever waits for jobs to come or go."""
        self._changed.set()
        self._changed = trio.Event()

    async def wait_idle(self, accounts: Iterable[Account]) -> None:
        """Waits until no job is open and no webhook is on its way."""
        every = list(accounts)
        while self._webhooks_pending or any(account.open for account in every):
            await self._changed.wait()

    async def work_off(
        self, account: Account, client: httpx.AsyncClient, nursery: trio.Nursery
    ) -> None:
        """Begins the jobs of an account, each when it is its turn."""
        while True:
            changed = self._changed
            parallel = 1 if self._faults.balance_negative else None
            turn = account.start(trio.current_time(), parallel)
            if isinstance(turn, Job):
                nursery.start_soon(self._process, account, turn, client)
                continue
            with trio.move_on_at(float("inf") if turn is None else turn):
                await changed.wait()

    async def _process(
        self, account: Account, job: Job, client: httpx.AsyncClient
    ) -> None:
        """Takes a job to its end, and tells its owner."""
        begun = trio.current_time()
        error = ""
        hearing: Hearing | None = None
        try:
            try:
                hearing = await self._transcribe(job, client)
            except _JobFailedError as failure:
                error = str(failure)
            minutes = hearing.duration / 60 if hearing else 0.0
            took = self._pace.processing + minutes * self._pace.a_minute_of_audio
            await trio.sleep_until(begun + took)
        except trio.Cancelled:
            account.put_back(job)
            raise
        now = trio.current_time()
        if hearing is None:
            account.fail(job, error, now)
        else:
            account.complete(job, hearing, now)
        self._webhooks_pending += 1
        self.change()
        try:
            await self._notify(job, client)
        finally:
            self._webhooks_pending -= 1
            self.change()

    async def _transcribe(self, job: Job, client: httpx.AsyncClient) -> Hearing:
        """Fetches a job's audio and listens to it.

        Raises:
            _JobFailedError: The job ends with an error.
        """
        fault = self._faults.draw_job(job.audio)
        if fault is JobFault.STUCK:
            await trio.sleep_forever()
        if fault is not None:
            raise _JobFailedError(_FAILED_JOBS[fault].format(url=job.audio_url))
        try:
            if is_upload(job.audio_url):
                hearing = self._uploads.get(job.audio_url)
            else:
                with trio.fail_after(self._limits.download):
                    hearing = await fetch(
                        client, job.audio_url, self._limits.media_bytes
                    )
        except DownloadError as error:
            raise _JobFailedError(str(error)) from error
        except trio.TooSlowError as error:
            text = _FAILED_JOBS[JobFault.DOWNLOAD].format(url=job.audio_url)
            raise _JobFailedError(text) from error
        except TooLongError as error:
            raise _JobFailedError(_TOO_LONG) from error
        if hearing is None:
            raise _JobFailedError(_NO_AUDIO)
        self._judge(job, hearing)
        start_ms = job.parameters.get("audio_start_from") or 0
        return hearing.between(start_ms, job.parameters.get("audio_end_at"))

    def _judge(self, job: Job, hearing: Hearing) -> None:
        """Holds audio against what a transcript needs.

        Raises:
            _JobFailedError: It will not do.
        """
        if hearing.duration < _SHORTEST:
            raise _JobFailedError(_TOO_SHORT)
        if hearing.duration > self._limits.media_seconds:
            raise _JobFailedError(_TOO_LONG)
        share = hearing.speech_share
        if not share and self._policy.silence_fails:
            raise _JobFailedError(_NO_AUDIO)
        threshold = job.parameters.get("speech_threshold") or 0.0
        if share < threshold and hearing.duration >= _THRESHOLD_FROM:
            raise _JobFailedError(
                f"Audio speech threshold {share:.4f} is below the requested speech"
                f" threshold value {threshold}"
            )
        sure = self._policy.language_confidence
        wanted = job.parameters.get("language_confidence_threshold") or 0.0
        if job.parameters.get("language_detection") and sure < wanted:
            raise _JobFailedError(
                f"detected language '{job.language}', confidence {sure}, is below the"
                f" requested confidence threshold value of '{wanted}'"
            )

    async def _notify(self, job: Job, client: httpx.AsyncClient) -> None:
        """Sends the webhooks of a job that has ended."""
        if not job.parameters.get("webhook_url") or self._faults.webhooks_lost:
            return
        bodies: list[dict[str, Any]] = [{"transcript_id": job.id, "status": job.status}]
        redacted = job.parameters.get("redact_pii_audio")
        if redacted and job.status is Status.COMPLETED:
            bodies.append(self._redacted_audio(job))
        for body in bodies:
            if await webhooks.notify(client, job, body):
                self.webhooks_sent += 1
            else:
                self.webhooks_failed += 1
