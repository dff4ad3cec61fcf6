"""What a service has to tell of itself, and what is looked up beside it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import trio

from audiohook.admin.process import OwnProcess
from audiohook.recording.survey import survey

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Set
    from pathlib import Path

    from prometheus_client import Metric

    from audiohook.metrics import Metrics
    from audiohook.recording.survey import SpoolSurvey

SECONDS = 1.0

# How old what was looked up may be. It takes a second for a spool of 100,000 calls.
_FRESH: Final = 10 * SECONDS
# How long a page waits for a disk. After that it shows what was last known.
_PATIENCE: Final = 2 * SECONDS


class PumpFigures(Protocol):
    """How the ingest pump does."""

    @property
    def passes(self) -> int:
        """Passes over all live calls so far."""

    @property
    def lag(self) -> float:
        """Seconds by which the last one came late."""

    @property
    def worst_lag(self) -> float:
        """Most seconds by which one came late."""

    @property
    def buffered_bytes(self) -> int:
        """Audio that is not in its file yet."""

    @property
    def failed_writes(self) -> int:
        """Writes that the disk refused so far."""


class SpoolFigures(Protocol):
    """How the spool does."""

    @property
    def unwritten(self) -> int:
        """Calls with lines that are not in their journals yet."""

    @property
    def faults(self) -> int:
        """Refusals by the disk so far."""

    @property
    def sync_seconds(self) -> float:
        """How long the last group of calls took to be brought to the disk."""


class DeliveryFigures(Protocol):
    """How the deliveries to the store stand."""

    @property
    def waiting(self) -> int:
        """Calls that wait for their first try or their next."""

    @property
    def active(self) -> int:
        """Calls of which something is being stored now."""


class TranscriptionFigures(Protocol):
    """How the transcriptions stand."""

    @property
    def calls(self) -> int:
        """Calls that wait for their transcripts."""

    @property
    def jobs(self) -> Mapping[str, int]:
        """Their jobs, by state."""

    @property
    def parked(self) -> int:
        """Jobs among them that wait until somebody mends something."""

    @property
    def fault(self) -> str | None:
        """Why the service is not asked, but for trials; None if it is."""


class NotificationFigures(Protocol):
    """How the notifications stand."""

    @property
    def waiting(self) -> int:
        """That wait to be sent."""

    @property
    def dead(self) -> int:
        """That were given up."""

    @property
    def oldest_seconds(self) -> float:
        """For how long the oldest one waits."""

    @property
    def fault(self) -> str | None:
        """Why the receiver is not asked, but for trials; None if it is."""


class StandingFigures(Protocol):
    """How a service stands: what is known without counting anything."""

    @property
    def handshakes(self) -> int:
        """Connections that have not asked for anything yet."""

    @property
    def draining(self) -> bool:
        """Whether new calls are sent away because the service stops."""

    @property
    def can_record(self) -> bool:
        """Whether the disk takes new calls."""

    @property
    def refusal(self) -> str | None:
        """Why no new call is welcome, for whatever reason; None if it is."""

    @property
    def pump(self) -> PumpFigures:
        """The ingest pass."""


class ServiceFigures(StandingFigures, Protocol):
    """How a service does."""

    @property
    def spool(self) -> SpoolFigures:
        """Calls on the local disk."""

    @property
    def deliveries(self) -> DeliveryFigures:
        """Calls on their way to the store."""

    @property
    def store_fault(self) -> str | None:
        """Why the store is not used, or has not answered yet; None if it works."""

    @property
    def transcriptions(self) -> TranscriptionFigures | None:
        """Calls that wait for their transcripts; None if transcription is off."""

    @property
    def notifications(self) -> NotificationFigures | None:
        """Who is told what becomes of calls; None if nobody is."""


class DeskFigures(Protocol):
    """What the desk knows of the calls that live."""

    def live_by_state(self) -> Mapping[str, int]:
        """Counts the live calls by the states of their sessions."""

    def live_sessions(self) -> Set[str]:
        """Returns the session ids of the live calls."""

    def count_audio(self) -> None:
        """Brings the counters of audio up to date."""


class Watched(Protocol):
    """A service, as far as those who watch it need it."""

    @property
    def metrics(self) -> Metrics:
        """What it counts."""

    @property
    def desk(self) -> DeskFigures:
        """Where its calls come in."""

    def statistics(self) -> ServiceFigures:
        """Returns how it does."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is looked up in a thread, since it may block or take long.

    Attributes:
        spool: What the spool holds; None if it could not be read.
        process: The figures that all processes have.
    """

    spool: SpoolSurvey | None
    process: tuple[Metric, ...]


class Lookout:
    """Looks up what a service does not know of itself.

    Only when somebody asks, and however many ask at once, there is one look at a
    time, and none while the last is fresh. A disk that hangs keeps nobody waiting
    for long.

    Args:
        watched: Whose surroundings they are.
        spool: Folder of its spool.
        clock: Unix time in seconds.
    """

    def __init__(
        self, watched: Watched, spool: Path, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._watched = watched
        self._spool = spool
        self._clock = clock
        self._process = OwnProcess()
        self._limiter = trio.CapacityLimiter(1)
        self._looked_at = -math.inf
        self._looking = False
        self._latest = Surroundings(None, ())

    @property
    def latest(self) -> Surroundings:
        """What the last look found."""
        return self._latest

    async def look(self) -> None:
        """Sees to it that `latest` is fresh, or at least tries for a while."""
        now = trio.current_time()
        if self._looking or now - self._looked_at < _FRESH:
            await trio.lowlevel.checkpoint()
            return
        live = frozenset(self._watched.desk.live_sessions())
        self._looking = True
        try:
            with trio.move_on_after(_PATIENCE):
                # One that is left to itself keeps the limiter until it is done.
                self._latest = await trio.to_thread.run_sync(
                    self._look, live, limiter=self._limiter, abandon_on_cancel=True
                )
                self._looked_at = now
        finally:
            self._looking = False

    def _look(self, live: Set[str]) -> Surroundings:
        try:
            spool = survey(self._spool, live, self._clock())
        except OSError:
            spool = None
        return Surroundings(spool, tuple(self._process.collect()))
