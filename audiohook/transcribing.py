"""Transcription, put together from what the operator chose."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from audiohook.recording.transcripts import Choice
from audiohook.storage.transcripts import TranscriptShelf
from audiohook.transcription.assemblyai import AssemblyAI, make_client
from audiohook.transcription.pace import Pace
from audiohook.transcription.parameters import Parameters, Webhook, webhook_secret
from audiohook.transcription.plan import Planner
from audiohook.transcription.scheduler import HELD_LIMIT, Transcriptions
from audiohook.transcription.steps import Steps, Terms
from audiohook.transcription.webhook import WebhookDesk

if TYPE_CHECKING:
    import httpx
    from structlog.typing import FilteringBoundLogger

    from audiohook.metrics import Metrics
    from audiohook.recording.herald import Herald
    from audiohook.recording.spool import Spool
    from audiohook.settings import Settings
    from audiohook.storage.base import Store
    from audiohook.storage.call_json import Noted

SECONDS = 1.0

# Of all files that a process may have open, this part is for calls that wait for
# their transcripts; live calls come first.
_FILES_SHARE = 4
_GOODBYE_DEADLINE = 2 * SECONDS


@dataclass(frozen=True, slots=True)
class Transcribing:
    """Transcription in this process.

    Attributes:
        jobs: Sees to all jobs.
        webhooks: Takes reports that jobs have ended, if any come.
        http: What it sends by.
    """

    jobs: Transcriptions
    webhooks: WebhookDesk | None
    http: httpx.AsyncClient

    async def aclose(self) -> None:
        """Closes connections."""
        await _close(self.http)


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """The account at the service, for whoever has single files transcribed.

    Attributes:
        steps: Does what a job needs done.
        pace: Lets requests pass.
        parameters: What jobs are asked for.
        http: What it sends by.
    """

    steps: Steps
    pace: Pace
    parameters: Parameters
    http: httpx.AsyncClient

    async def aclose(self) -> None:
        """Closes connections."""
        await _close(self.http)


async def _close(http: httpx.AsyncClient) -> None:
    with trio.move_on_after(_GOODBYE_DEADLINE, shield=True):
        await http.aclose()


def make_account(settings: Settings, key: str) -> ServiceAccount:
    """Makes what sends to the service.

    No reports are asked for: nobody waits for them.

    Args:
        settings: Whatever holds for jobs in the recording process holds for these,
            but for webhooks.
        key: For the service.
    """
    http = make_client(settings.assemblyai_base_url, key)
    pace, parameters = Pace(), Parameters.from_settings(settings)
    steps = Steps(AssemblyAI(http), Terms(parameters), pace)
    return ServiceAccount(steps, pace, parameters, http)


def make_planner(settings: Settings) -> Planner:
    """Makes what decides which calls get a transcript."""
    choice, reason = Choice.TRANSCRIBE, None
    if settings.transcribe == "elsewhere":
        choice = Choice.ELSEWHERE
    elif settings.assemblyai_api_key is None:
        choice, reason = Choice.OFF, "ASSEMBLYAI_API_KEY is not set"
    return Planner(choice, reason, Parameters.from_settings(settings))


def make_transcribing(
    settings: Settings,
    *,
    spool: Spool,
    store: Store,
    metrics: Metrics,
    log: FilteringBoundLogger,
    noted: Noted | None = None,
    herald: Herald | None = None,
) -> Transcribing | None:
    """Makes what sees to jobs; None without a key for the service.

    With TRANSCRIBE=elsewhere it sees to those that were begun before that was set.
    """
    if settings.assemblyai_api_key is None:
        return None
    http = make_client(
        settings.assemblyai_base_url, settings.assemblyai_api_key.get_secret_value()
    )
    webhook = make_webhook(settings)
    shelf, pace = TranscriptShelf(store, spool, noted=noted), Pace()
    terms = Terms(Parameters.from_settings(settings), webhook)
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most_files == resource.RLIM_INFINITY:
        most_files = HELD_LIMIT * _FILES_SHARE
    jobs = Transcriptions(
        Steps(AssemblyAI(http), terms, pace),
        spool=spool,
        shelf=shelf,
        pace=pace,
        metrics=metrics,
        log=log,
        parallel=settings.transcribe_parallel,
        deletes=settings.delete_transcript,
        is_told=webhook is not None,
        held_limit=min(HELD_LIMIT, most_files // _FILES_SHARE),
        herald=herald,
    )
    webhooks = None
    if webhook is not None:
        webhooks = WebhookDesk(
            webhook, jobs.tell, lambda what: metrics.webhooks.labels(what).inc()
        )
    return Transcribing(jobs, webhooks, http)


def make_webhook(settings: Settings) -> Webhook | None:
    """Makes the address that reports go to, if there is one."""
    secret = webhook_secret(settings)
    if settings.webhook_url is None or secret is None:
        return None
    return Webhook(settings.webhook_url.get_secret_value(), secret)
