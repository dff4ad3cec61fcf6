"""A look at what goes on in a service, for people, and cheap however much it is."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import trio

from audiohook.recording.levels import FLOOR, latest_levels
from audiohook.web.surroundings import Level, LiveCall, LiveView

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from prometheus_client import Counter

    from audiohook.call import Call, Pulse
    from audiohook.desk import CallDesk
    from audiohook.ingest.pump import PumpStatistics
    from audiohook.metrics import Metrics
    from audiohook.recording import levels

SECONDS = 1.0

# How long levels wait for a disk.
_PATIENCE: Final = 0.5 * SECONDS


class Standing(Protocol):
    """How a service does, without what takes long to count."""

    @property
    def handshakes(self) -> int:
        """Connections that have not asked for anything yet."""

    @property
    def draining(self) -> bool:
        """Whether the service is about to stop."""

    @property
    def can_record(self) -> bool:
        """Whether the disk takes new calls."""

    @property
    def refusal(self) -> str | None:
        """Why no new call is welcome, for whatever reason; None if it is."""

    @property
    def pump(self) -> PumpStatistics:
        """The ingest pass."""


class Glance:
    """Looks at live calls.

    Args:
        desk: Knows them.
        metrics: What is counted.
        standing: Returns how the service does.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        desk: CallDesk,
        metrics: Metrics,
        standing: Callable[[], Standing],
        *,
        clock: Callable[[], float],
    ) -> None:
        self._desk = desk
        self._metrics = metrics
        self._standing = standing
        self._clock = clock
        self._limiter = trio.CapacityLimiter(1)
        self._measuring = False

    async def look(self, most: int) -> LiveView:
        """Looks once.

        Args:
            most: So many of the newest calls are looked at one by one.
        """
        calls = [(call, call.pulse()) for call in self._desk.newest_calls(most)]
        measured = await self._measure([pulse for _, pulse in calls])
        now = self._clock()
        shown = [
            _shown(call, pulse, loud, now)
            for (call, pulse), loud in zip(calls, measured, strict=True)
        ]
        self._desk.count_audio()
        standing = self._standing()
        return LiveView(
            calls=shown,
            live=len(self._desk),
            handshakes=standing.handshakes,
            refused=_by_word(self._metrics.refused),
            turned_away=_by_word(self._metrics.turned_away),
            audio_bytes=sum(_by_word(self._metrics.audio_bytes).values()),
            lag=standing.pump.lag,
            worst_lag=standing.pump.worst_lag,
            draining=standing.draining,
            can_record=standing.can_record,
            refusal=standing.refusal,
        )

    async def _measure(self, pulses: Sequence[Pulse]) -> list[tuple[levels.Level, ...]]:
        """Measures levels in a thread; a disk that hangs keeps nobody waiting."""
        wanted = [(pulse.folder, len(pulse.channels)) for pulse in pulses]
        silent: list[tuple[levels.Level, ...]] = [() for _ in wanted]
        # One that was left to itself is still at it.
        if self._measuring or not wanted:
            return silent
        with trio.move_on_after(_PATIENCE):
            return await trio.to_thread.run_sync(
                partial(self._measure_all, wanted),
                limiter=self._limiter,
                abandon_on_cancel=True,
            )
        return silent

    def _measure_all(
        self, wanted: Sequence[tuple[Path | None, int]]
    ) -> list[tuple[levels.Level, ...]]:
        self._measuring = True
        try:
            return [
                latest_levels(folder, channels) if folder and channels else ()
                for folder, channels in wanted
            ]
        finally:
            self._measuring = False


def _shown(
    call: Call, pulse: Pulse, loud: Sequence[levels.Level], now: float
) -> LiveCall:
    assert call.opened is not None
    parameters = call.opened.parameters
    party = parameters.participant
    levels_of = [*loud, *[None] * (len(pulse.channels) - len(loud))]
    return LiveCall(
        session=call.session_id,
        conversation=parameters.conversation_id,
        participant=party.id,
        ani=party.ani,
        ani_name=party.ani_name,
        dnis=party.dnis,
        language=pulse.language,
        state=str(call.state),
        held=str(call.control.standing.held),
        began=now - call.age,
        pinged=None if pulse.since_ping is None else now - pulse.since_ping,
        gaps=pulse.gaps,
        gap_seconds=pulse.gap_seconds,
        lost_seconds=pulse.lost_seconds,
        levels=tuple(
            Level(name, each.peak, each.rms) if each else Level(name, FLOOR, FLOOR)
            for name, each in zip(pulse.channels, levels_of, strict=True)
        ),
    )


def _by_word(counter: Counter) -> dict[str, int]:
    """Reads a counter, by its one label if it has one."""
    return {
        next(iter(sample.labels.values()), ""): round(sample.value)
        for family in counter.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    }
