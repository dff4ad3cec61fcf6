"""What the page knows of the service: figures, its index and its store."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from structlog.typing import FilteringBoundLogger

    from audiohook.index.keeper import CallIndex
    from audiohook.storage.base import Store


@dataclass(frozen=True, slots=True)
class Level:
    """How loud a channel is just now, in dB of full scale.

    Attributes:
        channel: Its name.
        peak: Its loudest sample.
        rms: The root of the mean square.
    """

    channel: str
    peak: float
    rms: float


@dataclass(frozen=True, slots=True)
class LiveCall:
    """A call that goes on.

    Attributes:
        session: Its session.
        conversation: Its conversation.
        participant: The monitored party.
        ani: Calling number, as it came.
        ani_name: Name that goes with it, as it came.
        dnis: Called number, as it came.
        language: As it came, or None.
        state: Where its session stands.
        held: What becomes of its audio.
        began: When it came, in seconds since 1970.
        pinged: When its peer last pinged, likewise; None if it never did.
        gaps: Gaps so far.
        gap_seconds: Their length.
        lost_seconds: Audio that came and could not be kept, which is among them.
        levels: How loud its channels are.
    """

    session: str
    conversation: str
    participant: str
    ani: str
    ani_name: str
    dnis: str
    language: str | None
    state: str
    held: str
    began: float
    pinged: float | None
    gaps: int
    gap_seconds: float
    lost_seconds: float
    levels: tuple[Level, ...]


@dataclass(frozen=True, slots=True)
class LiveView:
    """What goes on now.

    Attributes:
        calls: The newest of the live calls, newest first.
        live: How many there are in all.
        handshakes: Connections that have not asked for anything yet.
        refused: Connections that did not become a session so far, by reason.
        turned_away: Sessions that were sent away so far, by reason.
        audio_bytes: Audio that came so far.
        lag: Seconds by which the last pass over all calls came late.
        worst_lag: Most that one has.
        draining: Whether the service is about to stop.
        can_record: Whether the disk takes new calls.
        refusal: Why no new call is welcome, for whatever reason; None if it is.
    """

    calls: Sequence[LiveCall] = ()
    live: int = 0
    handshakes: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    turned_away: Mapping[str, int] = field(default_factory=dict)
    audio_bytes: int = 0
    lag: float = 0.0
    worst_lag: float = 0.0
    draining: bool = False
    can_record: bool = True
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class LivePlace:
    """A place in the list of live calls, which goes on while somebody reads it.

    Attributes:
        session: Of the call that is there.
        began: When that came, in seconds since 1970, if it is gone meanwhile.
    """

    session: str
    began: float


@dataclass(frozen=True, slots=True)
class LiveFound:
    """A page of the list of live calls.

    Attributes:
        calls: Those on it, the newest first.
        listed: How many live calls there are that can be shown.
        matching: How many of them are what was looked for.
        next: Where the page has ended; None if there is none after it.
    """

    calls: Sequence[LiveCall] = ()
    listed: int = 0
    matching: int = 0
    next: LivePlace | None = None


@dataclass(frozen=True, slots=True)
class WaitingCall:
    """A call that is over and not done.

    Attributes:
        session: Its session.
        conversation: Its conversation.
        started_at: When its audio began, in UTC with milliseconds.
        awaits: What it waits for: ``store`` or ``transcript``.
        state: How far it is.
        tries: How often it has failed.
        reason: Why it failed last, and how that is mended if somebody has to; None
            if it did not.
        mend: Whether somebody has to mend something.
        again_in: Seconds until it is tried again; None if that is up to others.
    """

    session: str
    conversation: str
    started_at: str
    awaits: str
    state: str
    tries: int
    reason: str | None
    mend: bool
    again_in: float | None


@dataclass(frozen=True, slots=True)
class Spooled:
    """What is in the spool, of all processes.

    Attributes:
        calls: Calls, live ones among them.
        used_bytes: What they take up.
        oldest_seconds: How long the oldest has waited that is over.
        aside: Entries that a person has to look at.
        free_bytes: Room on the disk.
    """

    calls: int
    used_bytes: int
    oldest_seconds: float
    aside: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class WaitingView:
    """What is not done yet.

    Attributes:
        spool: What the disk holds; None if it does not answer.
        uploads: Calls on their way to the store, by state.
        store_fault: Why the store is not used; None if it is.
        jobs: Transcription jobs, by state; None if transcription is off.
        parked_jobs: Jobs among them that wait until somebody mends something.
        transcription_fault: Why the service is not asked; None if it is.
        oldest: Calls that are not done, the oldest first.
        parked: Those that wait until somebody mends something, likewise.
    """

    spool: Spooled | None
    uploads: Mapping[str, int]
    store_fault: str | None
    jobs: Mapping[str, int] | None
    parked_jobs: int
    transcription_fault: str | None
    oldest: Sequence[WaitingCall]
    parked: Sequence[WaitingCall]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the page knows of the service.

    Attributes:
        live: Looks at what goes on, and at so many of the newest calls.
        find_live: Finds live calls by a text, after a place, so many at most.
        waiting: Looks at what is not done, and at so many calls of each kind.
        retry: Tries all of it again at once.
        index: Finds recordings.
        store: Where they are.
        prefix: What their keys begin with.
        log: For what an operator must see.
        clock: Unix time in seconds.
    """

    live: Callable[[int], Awaitable[LiveView]]
    find_live: Callable[[str, LivePlace | None, int], Awaitable[LiveFound]]
    waiting: Callable[[int], Awaitable[WaitingView]]
    retry: Callable[[], None]
    index: CallIndex
    store: Store
    prefix: str
    log: FilteringBoundLogger
    clock: Callable[[], float]
