"""What all calls of a service share."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from audiohook.admission import Admission
from audiohook.control import Pauses
from audiohook.recording.dialogue import Keep

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from structlog.typing import FilteringBoundLogger

    from audiohook.authentication import Authenticator
    from audiohook.call_settings import CallSettings
    from audiohook.ingest.pump import Pump
    from audiohook.keys import KeyRecord
    from audiohook.logs import Limiter
    from audiohook.metrics import Metrics
    from audiohook.recording.spool import Spool
    from audiohook.recording.spooled import SpooledCall


def _no_choice(_key: KeyRecord, _custom_config: object) -> CallSettings | None:
    return None


async def _no_newer_keys() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all calls of a service share.

    Attributes:
        authenticator: Decides who may open a session.
        pump: Reads open calls, and writes their audio.
        spool: Keeps their audio and journals.
        metrics: Counts.
        log: For lines about a call.
        noise: For lines that a peer can cause at will.
        refusal: Returns why no new call is welcome, a value of `TurnedAway`, or
            None.
        opened: Takes a call that has begun, and what returns how much of its audio
            is certain to have no gap put before its end any more.
        sealed: Takes a call that is on disk whole.
        admission: Counts the calls that are let in.
        choose: Decides on the settings of a call, by what goes with its key and by
            its ``customConfig``; None leaves all to whoever finishes it.
        look_again: Has newer keys looked for, and returns whether that was done.
        pauses: Those that were asked for, for sessions that are to come.
        clock: Unix time in seconds.
        keep_dialogue: How much of text messages is kept.
    """

    authenticator: Authenticator
    pump: Pump
    spool: Spool
    metrics: Metrics
    log: FilteringBoundLogger
    noise: Limiter
    refusal: Callable[[], str | None]
    opened: Callable[[SpooledCall, Callable[[], int]], None]
    sealed: Callable[[SpooledCall], None]
    admission: Admission = field(default_factory=Admission)
    choose: Callable[[KeyRecord, object], CallSettings | None] = _no_choice
    look_again: Callable[[], Awaitable[bool]] = _no_newer_keys
    pauses: Pauses = field(default_factory=Pauses)
    clock: Callable[[], float] = time.time
    keep_dialogue: Keep = Keep.NO
