"""``audiohook transcribe``: has recordings transcribed that are stored already."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

import trio

from audiohook.errors import (
    ConfigError,
    JobHeldError,
    UnfinishedError,
    UploadError,
)
from audiohook.key_ring import keys_to_store_by
from audiohook.metrics import Metrics
from audiohook.notifying import telling
from audiohook.recording.fields import Fields
from audiohook.recording.transcripts import JobStatus
from audiohook.storage.find import FoundFile, NoRecordingError, find_files
from audiohook.storage.folder import FolderStore
from audiohook.storage.job_object import JobObject
from audiohook.storage.layout import is_wav_key, transcript_key
from audiohook.storage.summary import AudioState
from audiohook.storing import SPOOL_FOLDER, make_store, typed_key
from audiohook.transcribing import make_account
from audiohook.transcription.decisions import as_planned
from audiohook.transcription.errand import Errands, Outcome, Patience
from audiohook.transcription.job import State

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console
    from structlog.typing import FilteringBoundLogger

    from audiohook.recording.transcripts import TranscriptPlanned
    from audiohook.settings import Settings
    from audiohook.storage.s3 import S3Store
    from audiohook.transcription.job import Job

SECONDS = 1.0
MINUTES = 60 * SECONDS

DEFAULT_WAIT: Final = 30 * MINUTES
"""How long transcripts are waited for, in seconds."""

# More at a time would only make the lines harder to read.
_TOGETHER: Final = 16
# Whoever has a job in hand and is dead has it no longer after some minutes.
_LOOK_AGAIN: Final = 15 * SECONDS

_PROGRESS: Final[Mapping[State, str]] = {
    State.WITHOUT_AUDIO: "its audio is yet to be uploaded",
    State.READY: "a transcript is yet to be asked for",
    State.DOUBTFUL: "looked for in the account's list, before it is asked for again",
    State.SUBMITTED: "submitted",
    State.ENDED: "transcript stored, and yet to be deleted at AssemblyAI",
    State.SETTLED: "call.json is yet to be brought up to date",
}

_IN_A_SPOOL: Final = frozenset(
    {JobStatus.PENDING, JobStatus.SUBMITTED, JobStatus.PARKED}
)


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody wants.

    Attributes:
        keys: Of recordings, as he has typed them.
        again: Whether those that have a transcript are to get another.
        wait: How long he waits, in seconds.
    """

    keys: Sequence[str]
    again: bool = False
    wait: float = DEFAULT_WAIT


async def transcribe(
    settings: Settings, order: Order, console: Console, *, log: FilteringBoundLogger
) -> int:
    """Has recordings transcribed, and prints a line on each thing that happens.

    It may run beside a service, and any number of times. What an earlier run has
    asked for is looked for first, so that nothing is paid for twice.

    Returns:
        0 if all that is meant has a transcript in the end, 1 if not.

    Raises:
        ConfigError: There is no key for the service.
    """
    if settings.assemblyai_api_key is None:
        raise ConfigError(
            "ASSEMBLYAI_API_KEY: is not set, and without it nothing can be transcribed;"
            " for example ASSEMBLYAI_API_KEY=0123456789abcdef0123456789abcdef"
        )
    account = make_account(settings, settings.assemblyai_api_key.get_secret_value())
    keys = await keys_to_store_by(settings, log=log)
    store = make_store(settings, lambda: keys)
    try:
        clerk = _Clerk(settings, store, order, console)
        async with telling(settings, metrics=Metrics(), log=log) as herald:
            errands = Errands(
                account.steps,
                store=store,
                pace=account.pace,
                parameters=account.parameters,
                log=log,
                deletes=settings.delete_transcript,
                progress=clerk.tell_progress,
                herald=herald,
            )
            together = min(_TOGETHER, settings.transcribe_parallel)
            return await clerk.run(errands, together)
    finally:
        await account.aclose()
        if not isinstance(store, FolderStore):
            store.close()


class _Clerk:
    """Sees to one order."""

    def __init__(
        self,
        settings: Settings,
        store: FolderStore | S3Store,
        order: Order,
        console: Console,
    ) -> None:
        self._settings = settings
        self._store = store
        self._order = order
        self._console = console
        self._patience = Patience(trio.current_time() + order.wait)
        self._missing = 0
        self._fault: str | None = None
        self._told: dict[str, str] = {}

    async def run(self, errands: Errands, together: int) -> int:
        files = await self._find()
        turns = trio.CapacityLimiter(together)
        async with trio.open_nursery() as nursery:
            for file in files.values():
                await turns.acquire_on_behalf_of(file.key)
                nursery.start_soon(self._see_to, errands, file, turns)
        return 1 if self._missing else 0

    async def _find(self) -> dict[str, FoundFile]:
        """Finds all that is meant, each once."""
        found: dict[str, FoundFile] = {}
        for typed in self._order.keys:
            try:
                for file in await find_files(
                    self._store, typed_key(self._settings, typed)
                ):
                    found[file.key] = file
            except (NoRecordingError, UploadError) as error:
                self._missing += 1
                self._say(typed, str(error))
        return found

    async def _see_to(
        self, errands: Errands, file: FoundFile, turns: trio.CapacityLimiter
    ) -> None:
        try:
            if not await self._transcribe(errands, file):
                self._missing += 1
        finally:
            turns.release_on_behalf_of(file.key)

    async def _transcribe(self, errands: Errands, file: FoundFile) -> bool:
        """Returns whether there is a transcript now."""
        again = self._order.again
        if self._fault is not None and not _is_done(file, again=again):
            self._say(file.key, f"not tried: {self._fault}")
            return False
        try:
            # Hours may have passed since it was found; and what has left the spool
            # is as its JSON says from then on.
            is_spooled = await self._is_spooled(file)
            (file,) = await find_files(self._store, file.key)
            if _is_done(file, again=again):
                self._say(file.key, "has a transcript; --again asks for another")
                return True
            if await self._is_taken(file, is_spooled=is_spooled):
                return False
            summary = Fields(json.loads(file.summary))
            if summary.anything("audio") == AudioState.DELETED:
                self._say(
                    file.key, "its audio was deleted once its transcript was stored"
                )
                return False
            planned = as_planned(summary, file.key)
            outcome = await self._follow(errands, file, planned)
        except UnfinishedError as error:
            self._say(file.key, str(error))
            if error.is_common:
                self._fault = str(error)
            return False
        except (NoRecordingError, UploadError) as error:
            self._say(file.key, str(error))
            return False
        except ValueError as error:
            self._say(file.key, f"its call.json cannot be understood ({error})")
            return False
        if outcome is Outcome.FAILED:
            self._say(file.key, f"there will be no transcript: {await self._why(file)}")
            return False
        self._say(file.key, f"transcript stored: {transcript_key(file.key, '.txt')}")
        return True

    async def _why(self, file: FoundFile) -> str:
        """Return what the call's JSON says by now of a transcript that is not there."""
        files = await find_files(self._store, file.key)
        return files[0].reason or "AssemblyAI does not say why"

    async def _is_spooled(self, file: FoundFile) -> bool:
        """Whether a call waits in the spool here."""
        spool = self._settings.recordings_dir / SPOOL_FOLDER
        return await trio.Path(spool / file.session_id).exists()

    async def _is_taken(self, file: FoundFile, *, is_spooled: bool) -> bool:
        """Whether the service that has recorded a call still sees to it."""
        if is_spooled:
            self._say(
                file.key,
                f"{_standing(file)}, and its call waits in the spool here: the service"
                " goes on with it, or `audiohook recover` if none runs",
            )
            return True
        if file.status not in _IN_A_SPOOL or self._order.again:
            return False
        begun = await JobObject.open(self._store, file.key)
        if begun.record is not None:
            # An earlier run of ours, or a worker of the queue.
            return False
        self._say(
            file.key,
            f"{_standing(file)} with the service that recorded it, on another machine;"
            " --again if that is gone for good",
        )
        return True

    async def _follow(
        self, errands: Errands, file: FoundFile, planned: TranscriptPlanned
    ) -> Outcome:
        while True:
            try:
                return await errands.order(
                    planned,
                    self._patience,
                    known_id=file.transcript_id,
                    again=self._order.again,
                )
            except UnfinishedError as error:
                now = trio.current_time()
                held = isinstance(error.__cause__, JobHeldError)
                if not held or now + error.seconds > self._patience.until:
                    raise
                wait = min(error.seconds, _LOOK_AGAIN)
                self._progress(
                    file.key,
                    "another process has it in hand, or was killed a moment ago; to be"
                    " sure takes up to four minutes",
                )
            await self._patience.sleep_until(now + wait)

    def tell_progress(self, job: Job, trouble: Exception | None) -> None:
        """Prints how a job stands, unless that was said before."""
        text = _PROGRESS[job.state]
        if trouble is not None:
            text = f"{text}; {trouble}"
        self._progress(job.key, text)

    def _progress(self, key: str, text: str) -> None:
        if self._told.get(key) != text:
            self._say(key, text)

    def _say(self, key: str, text: str) -> None:
        self._told[key] = text
        # Keys hold the name twice, and what was typed is short.
        name = PurePosixPath(key).name if is_wav_key(key) else key
        self._console.print(f"{name}: {text}", markup=False)


def _is_done(file: FoundFile, *, again: bool) -> bool:
    return file.status is JobStatus.COMPLETED and not again


def _standing(file: FoundFile) -> str:
    return file.status if file.reason is None else f"{file.status} ({file.reason})"
