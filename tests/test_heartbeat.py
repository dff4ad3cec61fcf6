from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
import structlog
import trio

from audiohook.heartbeat import Heartbeat, Vitals
from audiohook.systemd import Notifier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock


@dataclass
class FakeNotifier(Notifier):
    """Notes what it is to tell, and when."""

    watchdog: float | None = None
    heard: bool = True
    told: list[tuple[float, str]] = field(default_factory=list)

    @property
    def is_heard(self) -> bool:
        return self.heard

    def _send(self, *fields: str, keep: bool = False) -> None:
        self.told += [(trio.current_time(), text) for text in fields]

    def times(self, text: str) -> list[float]:
        return [at for at, told in self.told if told == text]

    def words(self) -> list[str]:
        return [told for _, told in self.told]


class Body:
    """A service that lives or does not."""

    def __init__(self) -> None:
        self.vitals = Vitals(live=0, backlog=0, lanes=0, passes=0)
        self.alive = True

    def look(self) -> Vitals:
        if self.alive and self.vitals.lanes:
            self.vitals = replace(self.vitals, passes=self.vitals.passes + 1)
        return self.vitals


@pytest.fixture
def body() -> Body:
    return Body()


@pytest.fixture
def notifier() -> FakeNotifier:
    return FakeNotifier()


def make(body: Body, notifier: FakeNotifier, longest_drain: float = 60.0) -> Heartbeat:
    return Heartbeat(
        notifier,
        body.look,
        log=structlog.get_logger("audiohook"),
        longest_drain=longest_drain,
    )


@pytest.fixture
async def beating(
    body: Body, notifier: FakeNotifier, autojump_clock: MockClock
) -> AsyncIterator[Heartbeat]:
    notifier.watchdog = 20.0
    heartbeat = make(body, notifier)
    async with trio.open_nursery() as nursery:
        await nursery.start(heartbeat.run)
        yield heartbeat
        nursery.cancel_scope.cancel()


async def test_nobody_is_told_where_nobody_listens(
    body: Body, autojump_clock: MockClock
) -> None:
    notifier = FakeNotifier(heard=False)
    await make(body, notifier).run()
    assert notifier.told == []


async def test_status_is_told_every_few_seconds(
    body: Body,
    notifier: FakeNotifier,
    beating: Heartbeat,
    autojump_clock: MockClock,
) -> None:
    await trio.sleep(1)
    body.vitals = Vitals(live=1, backlog=0, lanes=1, passes=0)
    await trio.sleep(5)
    body.vitals = replace(body.vitals, live=12, backlog=3)
    await trio.sleep(5)
    told = [text for text in notifier.words() if text.startswith("STATUS=")]
    assert told == [
        "STATUS=0 calls live, 0 to be stored",
        "STATUS=1 call live, 0 to be stored",
        "STATUS=12 calls live, 3 to be stored",
    ]


async def test_status_says_what_somebody_has_to_see_to(
    body: Body,
    notifier: FakeNotifier,
    beating: Heartbeat,
    autojump_clock: MockClock,
) -> None:
    body.vitals = replace(body.vitals, can_record=False, store_fails=True)
    await trio.sleep(6)
    body.vitals = replace(body.vitals, can_record=True)
    await trio.sleep(5)
    body.vitals = replace(body.vitals, store_fails=False)
    await trio.sleep(5)
    told = [text for text in notifier.words() if text.startswith("STATUS=")]
    quiet, fails = (
        "STATUS=0 calls live, 0 to be stored",
        "; the store fails, see the log",
    )
    full = "; NO NEW CALLS: the disk is full, or refuses"
    assert told[1:] == [f"{quiet}{full}{fails}", f"{quiet}{fails}", quiet]


async def test_short_watchdog_is_fed_in_time(
    body: Body, autojump_clock: MockClock
) -> None:
    notifier = FakeNotifier(watchdog=2.0)
    with trio.move_on_after(10):
        await make(body, notifier).run()
    times = notifier.times("WATCHDOG=1")
    assert max(b - a for a, b in itertools.pairwise(times)) <= 1.0
    assert len(times) >= 10


async def test_without_a_watchdog_none_is_fed(
    body: Body, autojump_clock: MockClock
) -> None:
    notifier = FakeNotifier(watchdog=None)
    body.alive = False
    body.vitals = replace(body.vitals, lanes=1)
    with trio.move_on_after(100):
        await make(body, notifier).run()
    assert notifier.times("WATCHDOG=1") == []
    assert len(notifier.told) == 20


async def test_watchdog_starves_when_calls_are_not_read(
    body: Body,
    notifier: FakeNotifier,
    beating: Heartbeat,
    lines: list[Any],
    autojump_clock: MockClock,
) -> None:
    body.vitals = replace(body.vitals, lanes=5, live=5)
    await trio.sleep(30)
    body.alive = False
    stalled_at = trio.current_time()
    await trio.sleep(100)
    last = notifier.times("WATCHDOG=1")[-1]
    # It is fed while it may still be only late.
    assert last - stalled_at <= 10.0
    (line,) = lines
    assert line["event"] == "calls_are_not_read"
    assert line["log_level"] == "error"
    # What recovers is fed again at once.
    body.alive = True
    recovered_at = trio.current_time()
    await trio.sleep(1)
    assert notifier.times("WATCHDOG=1")[-1] >= recovered_at
    body.alive = False
    await trio.sleep(100)
    assert len(lines) == 2


async def test_service_without_calls_needs_no_passes(
    body: Body,
    notifier: FakeNotifier,
    beating: Heartbeat,
    lines: list[Any],
    autojump_clock: MockClock,
) -> None:
    body.alive = False
    await trio.sleep(1000)
    times = notifier.times("WATCHDOG=1")
    assert trio.current_time() - times[-1] <= 5.0
    assert lines == []


async def test_reload_is_told_and_ends_with_ready(
    notifier: FakeNotifier,
    beating: Heartbeat,
    autojump_clock: MockClock,
) -> None:
    beating.ready()
    notifier.told.clear()
    beating.reloading()
    beating.reloaded(failed=True)
    words = notifier.words()
    assert words[0] == "RELOADING=1"
    assert words[3] == "READY=1"
    assert words[4] == (
        "STATUS=0 calls live, 0 to be stored; the last reload failed, see the log"
    )
    beating.reloading()
    beating.reloaded(failed=False)
    assert notifier.words()[-1] == "STATUS=0 calls live, 0 to be stored"


async def test_reload_during_the_start_does_not_end_the_start(
    notifier: FakeNotifier,
    beating: Heartbeat,
    autojump_clock: MockClock,
) -> None:
    beating.reloading()
    beating.reloaded(failed=False)
    assert not {"READY=1", "RELOADING=1"} & set(notifier.words())
    beating.ready()
    assert notifier.words()[-2] == "READY=1"


async def test_reload_during_the_drain_does_not_end_the_drain(
    notifier: FakeNotifier,
    beating: Heartbeat,
    autojump_clock: MockClock,
) -> None:
    beating.ready()
    beating.reloading()
    beating.stopping()
    notifier.told.clear()
    beating.reloaded(failed=False)
    beating.reloading()
    beating.reloaded(failed=False)
    assert notifier.told == []


async def test_drain_asks_for_patience_as_long_as_it_may_take(
    notifier: FakeNotifier,
    beating: Heartbeat,
    autojump_clock: MockClock,
) -> None:
    beating.ready()
    await trio.sleep(7)
    beating.stopping()
    stopped_at = trio.current_time()
    assert "STOPPING=1" in notifier.words()
    await trio.sleep(200)
    assert notifier.words()[-2].startswith("STATUS=draining: 0 calls live")
    times = notifier.times("EXTEND_TIMEOUT_USEC=30000000")
    # Each comes well before the one before it runs out.
    assert times[0] - stopped_at <= 5.0
    assert max(b - a for a, b in itertools.pairwise(times)) <= 5.0
    assert 55.0 <= times[-1] - stopped_at <= 60.0
    # A drain is no reason to be killed by the watchdog.
    assert trio.current_time() - notifier.times("WATCHDOG=1")[-1] <= 5.0
