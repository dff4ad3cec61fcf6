"""What a job needs done, done: one step at a time, each noted in its journal."""

from __future__ import annotations

import time
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import trio

from audiohook.errors import TranscriptError
from audiohook.transcription.base import TranscriptFault
from audiohook.transcription.export import exports
from audiohook.transcription.job import Request
from audiohook.transcription.ledger import Query, search

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Awaitable,
        Callable,
        Mapping,
        Sequence,
    )
    from typing import Self

    from audiohook.recording.transcripts import TranscriptFact, TranscriptObject
    from audiohook.transcription.base import Transcript, TranscriptPage
    from audiohook.transcription.job import Job
    from audiohook.transcription.pace import Pace
    from audiohook.transcription.parameters import Parameters, Webhook

T = TypeVar("T")

SECONDS = 1.0

# A pass over the list may have many pages, of which none may be missing.
_PAGE_TRIES: Final = 6
_PAGE_PAUSE: Final = 0.5 * SECONDS
# Of long transcripts one is in memory at a time; who waits for longer than this for
# his turn has it fetched anew.
_LARGE: Final = 1
_LARGE_PATIENCE: Final = 30 * SECONDS
# Making texts of a long transcript keeps a core busy.
_WRITERS: Final = 1


class Account(Protocol):
    """The service, see `audiohook.transcription.assemblyai.AssemblyAI`."""

    async def submit(self, parameters: Mapping[str, Any]) -> Transcript:
        """Ask for a transcript."""

    async def get(
        self, transcript_id: str, *, large: Callable[[], Awaitable[None]] | None = None
    ) -> Transcript:
        """Ask how far a job is; `large` is called before a long answer is read on."""

    async def delete(self, transcript_id: str) -> Transcript:
        """Have a job forgotten."""

    async def list_page(self, *, before_id: str | None = None) -> TranscriptPage:
        """Read a page of the list of jobs."""

    async def upload(self, chunks: AsyncIterator[bytes], size_bytes: int) -> str:
        """Send audio."""


class Docket(Protocol):
    """One WAV file, with the journal of its job."""

    def note(self, *facts: TranscriptFact) -> None:
        """Write facts down soon.

        Raises:
            SpoolError: They cannot be written.
        """

    async def commit(self, *facts: TranscriptFact) -> None:
        """Write facts down, and all before them, so that no crash undoes them.

        Raises:
            SpoolError: They could not be written.
        """

    @property
    def signs(self) -> bool:
        """Whether `address` can be asked for; otherwise the audio is uploaded."""

    async def address(self) -> str:
        """Return where the service can fetch the file for some hours."""

    async def size(self) -> int:
        """Return the length of the file in bytes."""

    def read(self, size_bytes: int) -> AsyncGenerator[bytes, None]:
        """Read the file from start to end."""

    async def keep(
        self, transcript_id: str, texts: Mapping[str, bytes]
    ) -> Sequence[TranscriptObject]:
        """Store all forms of the transcript."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What all jobs are asked for with.

    Attributes:
        parameters: What a job is asked for.
        webhook: Where the service is to report to, if anywhere.
    """

    parameters: Parameters
    webhook: Webhook | None = None


class Steps:
    """Does for any job what it needs done.

    A failure is told to the job, whatever it is to be noted is noted, and it is
    raised on.

    Args:
        account: The service.
        terms: What all jobs are asked for with.
        pace: Lets requests pass.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        account: Account,
        terms: Terms,
        pace: Pace,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._account = account
        self._terms = terms
        self._pace = pace
        self._clock = clock
        self._writers = trio.CapacityLimiter(_WRITERS)
        self._large = trio.Semaphore(_LARGE)
        self._works: Final[
            Mapping[Request, Callable[[Job, Docket], Awaitable[None]]]
        ] = {
            Request.UPLOAD: self._upload,
            Request.SUBMIT: self._submit,
            Request.FETCH: self._fetch,
            Request.DELETE: self._delete,
        }

    async def perform(self, job: Job, docket: Docket) -> None:
        """Do what a job needs done next, unless that is to look it up.

        Args:
            job: It needs a request other than ``LOOK_UP`` and ``FINISH``.
            docket: Its own.

        Raises:
            TranscriptError: The service did not do as asked.
            UploadError: The store did not do as asked.
            SpoolError: The local disk did not do as asked.

        *Cancellation:* If a transcript was asked for, the next process looks for
        the job.
        """
        request = job.request
        try:
            await self._works[request](job, docket)
        except TranscriptError as error:
            docket.note(*job.refused(request, error, trio.current_time()))
            raise

    async def look_up(self, jobs: Sequence[tuple[Job, Docket]]) -> None:
        """Look for jobs in the account's list, all in one pass.

        Args:
            jobs: All need the request ``LOOK_UP``.

        Raises:
            TranscriptError: The list could not be read.
            SpoolError: The local disk did not do as asked.
        """
        began = trio.current_time()
        queries = [
            Query(
                job.record.intent.audio_url,
                job.created_after,
                frozenset(job.record.ids),
            )
            for job, _ in jobs
            if job.record.intent is not None
        ]
        try:
            found = await search(self._read_page, queries)
        except TranscriptError as error:
            now = trio.current_time()
            for job, docket in jobs:
                docket.note(*job.refused(Request.LOOK_UP, error, now))
            raise
        now = trio.current_time()
        for (job, docket), transcript_id in zip(jobs, found, strict=True):
            docket.note(*job.looked_up(transcript_id, began, now))

    async def _read_page(self, before_id: str | None) -> TranscriptPage:
        tries = 0
        while True:
            await self._pace.wait()
            try:
                return await self._account.list_page(before_id=before_id)
            except TranscriptError as error:
                tries += 1
                if error.fault == TranscriptFault.BUSY:
                    self._pace.hold(error.retry_after)
                if not error.retryable or tries == _PAGE_TRIES:
                    raise
            await trio.sleep(_PAGE_PAUSE * 2**tries)

    async def _upload(self, job: Job, docket: Docket) -> None:
        size_bytes = await docket.size()
        await self._pace.wait()
        async with aclosing(docket.read(size_bytes)) as chunks:
            url = await self._account.upload(chunks, size_bytes)
        docket.note(*job.uploaded(url, trio.current_time()))

    async def _submit(self, job: Job, docket: Docket) -> None:
        # Before the address is signed, whose time begins then.
        await self._pace.wait()
        url = job.record.upload_url
        if docket.signs or url is None:
            url = await docket.address()
        planned = job.record.planned
        body = self._terms.parameters.body(
            url,
            channels=max(1, len(planned.channels)),
            language=planned.language,
            webhook=self._terms.webhook,
            chosen_language=planned.chosen_language,
            own=planned.parameters,
        )
        await docket.commit(job.intend(url, self._clock()))
        transcript = await self._account.submit(body)
        docket.note(*job.submitted(transcript.id, trio.current_time()))

    async def _fetch(self, job: Job, docket: Docket) -> None:
        await self._pace.wait()
        with _Turn(self._large) as turn:
            transcript = await self._account.get(
                job.record.current or "", large=turn.wait
            )
            if not transcript.usable:
                docket.note(*job.fetched(transcript, trio.current_time()))
                return
            names = job.record.planned.channels
            texts = await trio.to_thread.run_sync(
                partial(exports, transcript.body, channel_names=names),
                limiter=self._writers,
            )
            objects = await docket.keep(transcript.id, texts)
            docket.note(*job.stored(transcript, objects, trio.current_time()))

    async def _delete(self, job: Job, docket: Docket) -> None:
        transcript_id = job.traces or ""
        # A transcript that is gone there must not be unknown here.
        await docket.commit()
        await self._pace.wait()
        await self._account.delete(transcript_id)
        docket.note(*job.deleted(transcript_id, trio.current_time()))


class _Turn:
    """Somebody's turn with something long, should he need it; given back at the end.

    Args:
        turns: How many may have one.
    """

    def __init__(self, turns: trio.Semaphore) -> None:
        self._turns = turns
        self._has_it = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._has_it:
            self._turns.release()

    async def wait(self) -> None:
        """Wait for it.

        Raises:
            TranscriptError: It takes too long: the other side does not wait for ever.
        """
        with trio.move_on_after(_LARGE_PATIENCE):
            await self._turns.acquire()
            self._has_it = True
        if not self._has_it:
            raise TranscriptError(
                "other long transcripts are under way", fault=TranscriptFault.OTHER
            )
