"""Which job is next: by when it is due, and by what it needs.

Nothing here reads a clock or waits.
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import trio

from audiohook.transcription.job import Request

if TYPE_CHECKING:
    from audiohook.recording.spooled import SpooledCall
    from audiohook.transcription.job import Job


@dataclass(eq=False, slots=True)
class Held:
    """A call that waits here.

    Attributes:
        call: It.
        entries: Its jobs that are not settled.
        lock: Held by whoever brings its JSON up to date.
    """

    call: SpooledCall
    entries: list[Entry] = field(default_factory=list)
    lock: trio.Lock = field(default_factory=trio.Lock)


@dataclass(eq=False, slots=True)
class Entry:
    """A job that is known here.

    Attributes:
        held: Its call.
        job: It.
        order: Breaks ties of age.
        ticket: Its place in a queue; places with older numbers do not count.
        id: Under which a webhook finds it.
        is_busy: Whether a task is at it.
        is_open: Whether it counts as a job that the service works on.
        is_told: Whether a webhook came while a task was at it.
    """

    held: Held
    job: Job
    order: int
    ticket: int = 0
    id: str | None = None
    is_busy: bool = False
    is_open: bool = False
    is_told: bool = False

    @property
    def age(self) -> tuple[str, int, int, Entry]:
        """Sorts the oldest call first; the ticket tells whether it still counts."""
        started_at = self.held.call.record.opened.started_at
        return started_at, self.order, self.ticket, self


_ByAge: TypeAlias = tuple[str, int, int, Entry]
_ByTime: TypeAlias = tuple[float, int, Entry]
_Item = TypeVar("_Item", _ByAge, _ByTime)


class Agenda:
    """The jobs that wait, queued by what each needs.

    A job may have places in several queues, of which the last counts: each place has
    a number, and those with an older one than the job has are passed over.
    """

    def __init__(self) -> None:
        self._tickets = itertools.count(1)
        # By what is needed: nothing yet, a request about a job, a new job, a look
        # at the list, or nothing of the service any more. Who asks about a job is
        # due again and again, so there the oldest call must not go first for ever.
        self._waiting: list[_ByTime] = []
        self._ready: list[_ByTime] = []
        self._unsent: list[_ByAge] = []
        self._doubtful: list[tuple[int, Entry]] = []
        self._settled: list[_ByAge] = []

    def place(self, entry: Entry, now: float) -> None:
        """Queue a job by when it is due and what it needs.

        Args:
            entry: It.
            now: Time in seconds.
        """
        entry.ticket = next(self._tickets)
        if entry.job.due > now:
            heapq.heappush(self._waiting, (entry.job.due, entry.ticket, entry))
        else:
            self._make_ready(entry)

    def strike(self, entry: Entry) -> None:
        """Have no place of a job count any more."""
        entry.ticket = next(self._tickets)

    def wake(self, now: float) -> float:
        """Queue what has become due by what it needs.

        Args:
            now: Time in seconds.

        Returns:
            When the next one will be due; infinite if none waits.
        """
        while self._waiting and self._waiting[0][0] <= now:
            _, ticket, entry = heapq.heappop(self._waiting)
            if entry.ticket == ticket:
                self._make_ready(entry)
        return self._waiting[0][0] if self._waiting else math.inf

    @property
    def has_doubtful(self) -> bool:
        """Whether any job has to be looked for in the account's list."""
        return bool(self._doubtful)

    @property
    def has_unsent(self) -> bool:
        """Whether any job waits to be submitted."""
        return bool(self._unsent)

    def next_settled(self) -> Entry | None:
        """Take out the oldest call's job that needs nothing of the service any more."""
        return _pop(self._settled)

    def next_ready(self, *, fewest_tries: bool) -> Entry | None:
        """Take out the job that is longest due to be asked about.

        Args:
            fewest_tries: Take one that has failed least often instead, since one
                that fails may be at fault itself.
        """
        return _pop(self._ready, fewest_tries=fewest_tries)

    def next_unsent(self, *, fewest_tries: bool) -> Entry | None:
        """Take out the oldest call's job that is to be submitted.

        Args:
            fewest_tries: As for `next_ready`.
        """
        return _pop(self._unsent, fewest_tries=fewest_tries)

    def all_doubtful(self) -> list[Entry]:
        """Take out all jobs that have to be looked for."""
        found = [entry for ticket, entry in self._doubtful if entry.ticket == ticket]
        self._doubtful.clear()
        return found

    def _make_ready(self, entry: Entry) -> None:
        match entry.job.request:
            case Request.LOOK_UP:
                self._doubtful.append((entry.ticket, entry))
            case Request.UPLOAD | Request.SUBMIT:
                heapq.heappush(self._unsent, entry.age)
            case Request.FINISH:
                heapq.heappush(self._settled, entry.age)
            case _:
                heapq.heappush(self._ready, (entry.job.due, entry.ticket, entry))


def _pop(queue: list[_Item], *, fewest_tries: bool = False) -> Entry | None:
    """Take the first job out of a queue; None if there is none.

    Args:
        queue: A heap.
        fewest_tries: Take one that has failed least often instead, since one
            that fails may be at fault itself.
    """
    while queue:
        item = queue[0]
        if fewest_tries:
            item = min(queue, key=lambda item: (item[-1].job.failed_tries, item[:-1]))
            queue.remove(item)
            heapq.heapify(queue)
        else:
            heapq.heappop(queue)
        ticket, entry = item[-2:]
        if entry.ticket == ticket:
            return entry
    return None
