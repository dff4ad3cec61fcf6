"""A look at what goes on in a service, for people, and cheap however much it is."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from audiohook.index.entry import number_key
from audiohook.recording.levels import FLOOR, latest_levels
from audiohook.web.surroundings import Level, LiveCall, LiveFound, LivePlace, LiveView

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from prometheus_client import Counter

    from audiohook.admin.figures import StandingFigures
    from audiohook.call import Call, Pulse
    from audiohook.desk import CallDesk
    from audiohook.metrics import Metrics
    from audiohook.recording import levels

SECONDS = 1.0

# How long levels wait for a disk.
_PATIENCE: Final = 0.5 * SECONDS
# Ages and times are rounded, and taken one after the other.
_MOMENT: Final = 0.01 * SECONDS
# Calls that are compared with what somebody looks for in one go: some 3 ms.
_COMPARED: Final = 200


class _Meter:
    """Measures how loud calls are, in a thread; a disk that hangs keeps nobody."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(1)
        self._measuring = False

    async def measure(self, pulses: Sequence[Pulse]) -> list[tuple[levels.Level, ...]]:
        """Measures levels by channel; none of a call if the disk does not answer."""
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
        standing: Callable[[], StandingFigures],
        *,
        clock: Callable[[], float],
    ) -> None:
        self._desk = desk
        self._metrics = metrics
        self._standing = standing
        self._clock = clock
        # Whoever looks for a call does not take the levels from those who watch.
        self._watching, self._finding = _Meter(), _Meter()
        # However many look for calls, no more time is taken from the calls.
        self._search = trio.Lock()

    async def look(self, most: int) -> LiveView:
        """Looks once.

        Args:
            most: So many of the newest calls are looked at one by one.
        """
        shown = await self._shown(self._desk.newest_calls(most), self._watching)
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

    async def find(self, text: str, after: LivePlace | None, most: int) -> LiveFound:
        """Finds live calls, the newest first.

        Args:
            text: Part of an id, a name or a number, or the end of a number in any
                form; all calls if it is empty.
            after: Where the page before has ended.
            most: So many at most.
        """
        async with self._search:
            listed = self._desk.newest_calls(len(self._desk))
            matching: list[Call] = []
            wanted = _Wanted(text)
            for first in range(0, len(listed), _COMPARED):
                some = listed[first : first + _COMPARED]
                matching += [call for call in some if wanted.is_met_by(call)]
                # Thousands would keep the calls themselves waiting.
                await trio.lowlevel.checkpoint()
        rest = matching if after is None else self._rest(matching, after)
        page = rest[:most]
        calls = await self._shown(page, self._finding)
        last = calls[-1] if len(rest) > most else None
        return LiveFound(
            calls=calls,
            listed=len(listed),
            matching=len(matching),
            next=None if last is None else LivePlace(last.session, last.began),
        )

    def _rest(self, calls: list[Call], after: LivePlace) -> list[Call]:
        """Return the calls after a place, whose own call may be gone meanwhile."""
        sessions = [call.session_id for call in calls]
        if after.session in sessions:
            return calls[sessions.index(after.session) + 1 :]
        # What came in the same moment may be shown twice; nothing is left out.
        latest = self._clock() - after.began - _MOMENT
        return [call for call in calls if call.age >= latest]

    async def _shown(self, calls: Sequence[Call], meter: _Meter) -> list[LiveCall]:
        looked_at = [(call, call.pulse()) for call in calls]
        measured = await meter.measure([pulse for _, pulse in looked_at])
        now = self._clock()
        return [
            _shown(call, pulse, loud, now)
            for (call, pulse), loud in zip(looked_at, measured, strict=True)
        ]


class _Wanted:
    """What somebody looks for among live calls."""

    def __init__(self, text: str) -> None:
        self._text = text.lower()
        self._number = number_key(text)

    def is_met_by(self, call: Call) -> bool:
        """Tells whether a call is one of those."""
        if not self._text:
            return True
        assert call.opened is not None
        parameters = call.opened.parameters
        party = parameters.participant
        numbers = (party.ani, party.dnis)
        texts = (
            parameters.conversation_id,
            party.id,
            call.session_id,
            party.ani_name,
            *numbers,
        )
        if any(self._text in each.lower() for each in texts):
            return True
        # As in the index: what is looked for may be the end of a number.
        return self._number != "" and any(
            number_key(each).startswith(self._number) for each in numbers
        )


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
