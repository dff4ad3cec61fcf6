from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import structlog
import trio
import trio.testing

from audiohook.call_settings import CallSettings
from audiohook.errors import SpoolError, UploadError
from audiohook.metrics import Metrics
from audiohook.recording.render import Layout
from audiohook.storage.base import StoreFault
from audiohook.storage.delivery import Deliveries
from tests.recording.factory import entries, make_opened, running
from tests.storage.uploads import MemoryStore, make_uploader, spool_call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from audiohook.recording.spooled import SpooledCall
    from audiohook.storage.upload import Uploader

AWAY = UploadError("cannot be reached", fault=StoreFault.AWAY)
DENIED = UploadError(
    "may not put: allow s3:PutObject", retryable=False, fault=StoreFault.DENIED
)


async def a_second(_what: str) -> None:
    await trio.sleep(1)


async def for_ever(_what: str) -> None:
    await trio.sleep_forever()


@dataclass
class Record:
    opened: Any
    planned: Any = None


class FakeCall:
    """What deliveries know of a call."""

    def __init__(self, name: str, second: int = 0) -> None:
        self.name = name
        self.released = False
        self.is_doubtful = False
        self.record = Record(
            make_opened(started_at=f"2026-11-22T14:10:{second:02d}.000Z")
        )

    def release(self) -> None:
        self.released = True


@dataclass
class FakeStore:
    """Stores calls in no time, unless told otherwise.

    Attributes:
        work: What it takes to store a call, or a part of a live one.
        log: When what was tried.
        stored: Names of calls, in order.
        running: How many are at it.
        most: The most at a time so far.
    """

    takes_parts: bool = True
    work: Callable[[str], Awaitable[None]] | None = None
    log: list[tuple[float, str]] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)
    running: int = 0
    most: int = 0

    def take(self, call: FakeCall, *, confirmed: Callable[[], None]) -> FakeUpload:
        return FakeUpload(self, call.name, confirmed)

    async def do(self, what: str) -> None:
        self.log.append((trio.current_time(), what))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await trio.lowlevel.checkpoint()
            if self.work is not None:
                await self.work(what)
        finally:
            self.running -= 1

    def times(self) -> list[float]:
        return [at for at, _ in self.log]


class FakeUpload:
    """A live call has a part for each 10 bytes."""

    def __init__(
        self, store: FakeStore, name: str, confirmed: Callable[[], None]
    ) -> None:
        self._store = store
        self._name = name
        self._confirmed = confirmed
        self._parts = 0

    def ready(self, settled_bytes: int) -> bool:
        return settled_bytes >= 10 * (self._parts + 1)

    async def advance(self, settled_bytes: int) -> None:
        await self._store.do(f"{self._name}.{self._parts + 1}")
        self._parts += 1
        self._confirmed()

    async def finish(self) -> None:
        await self._store.do(self._name)
        self._store.stored.append(self._name)
        self._confirmed()


class Hub:
    """Deliveries that run."""

    def __init__(self, store: FakeStore) -> None:
        self.store = store
        self.metrics = Metrics()
        self.deliveries = Deliveries(
            cast("Uploader", store),
            metrics=self.metrics,
            log=structlog.get_logger("test"),
            jitter=lambda: 1.0,
            live_interval=5.0,
        )

    def add(self, *calls: FakeCall) -> None:
        for call in calls:
            self.deliveries.add(cast("SpooledCall", call))

    def watch(self, call: FakeCall, settled_bytes: Callable[[], int]) -> None:
        self.deliveries.watch(cast("SpooledCall", call), settled_bytes)

    async def start(self, nursery: trio.Nursery) -> None:
        await nursery.start(self.deliveries.run)


@pytest.fixture
def hub() -> Hub:
    return Hub(FakeStore())


async def test_sealed_call_is_stored(
    hub: Hub, nursery: trio.Nursery, autojump_clock: object
) -> None:
    await hub.start(nursery)
    hub.add(FakeCall("a"))
    await hub.deliveries.wait_settled()
    statistics = hub.deliveries.statistics()
    assert (statistics.stored, statistics.waiting, statistics.active) == (1, 0, 0)
    assert statistics.fault is None


async def test_oldest_goes_first_and_so_many_at_a_time(
    hub: Hub, nursery: trio.Nursery, autojump_clock: object
) -> None:
    hub.store.work = a_second
    hub.add(*(FakeCall(f"{second:02}", second) for second in range(40, 0, -1)))
    await hub.start(nursery)
    await hub.deliveries.wait_settled()
    # Within a group any order will do.
    order = [what for _, what in hub.store.log]
    groups = [sorted(order[i : i + 8]) for i in range(0, 40, 8)]
    assert sum(groups, []) == [f"{second:02}" for second in range(1, 41)]  # noqa: RUF017
    assert hub.store.most == 8


async def test_call_that_fails_waits_longer_each_time_and_keeps_nobody(
    hub: Hub, nursery: trio.Nursery, autojump_clock: object
) -> None:
    async def work(what: str) -> None:
        if what == "bad":
            raise SpoolError("bad sector")

    hub.store.work = work
    await hub.start(nursery)
    hub.add(FakeCall("bad"), FakeCall("good", 1))
    await hub.deliveries.wait_settled()
    assert hub.store.stored == ["good"]
    assert hub.deliveries.statistics().waiting == 1
    await trio.sleep(2000)
    times = [at for at, what in hub.store.log if what == "bad"]
    pauses = [round(b - a) for a, b in pairwise(times)]
    assert pauses[:10] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]


async def test_call_that_is_stored_and_cannot_be_removed_is_not_tried_again(
    hub: Hub, nursery: trio.Nursery, autojump_clock: object, lines: list[Any]
) -> None:
    call = FakeCall("a")

    async def work(_what: str) -> None:
        call.release()
        raise SpoolError("bad sector")

    hub.store.work = work
    await hub.start(nursery)
    hub.add(call)
    await hub.deliveries.wait_settled()
    statistics = hub.deliveries.statistics()
    assert (statistics.stored, statistics.waiting) == (1, 0)
    assert [line["event"] for line in lines] == ["call_stored", "call_not_removed"]


async def test_call_that_could_not_be_synced_is_left_to_be_adopted_anew(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells of a failed write once, and no later sync proves anything."""
    fdatasync, broken = os.fdatasync, [OSError(errno.EIO, "bad sector")]

    def sync(fd: int) -> None:
        if broken:
            raise broken.pop()
        fdatasync(fd)

    store = MemoryStore()
    store.before_put = lambda: monkeypatch.setattr(os, "fdatasync", sync)
    async with running(tmp_path) as spool:
        call = await spool_call(spool, make_opened())
        deliveries = Deliveries(
            make_uploader(store, spool),
            metrics=Metrics(),
            log=structlog.get_logger("test"),
        )
        await nursery.start(deliveries.run)
        deliveries.add(call)
        await deliveries.wait_settled()
        assert call.released
        statistics = deliveries.statistics()
        assert (statistics.stored, statistics.waiting) == (0, 0)
        # Its journal says by now that all is done, and is asked anew.
        assert await spool.adopt() == []
        assert entries(tmp_path) == set()
    assert len(store.objects) == 3


async def test_unexpected_failure_is_told_and_tried_again(
    hub: Hub, nursery: trio.Nursery, autojump_clock: object, lines: list[Any]
) -> None:
    async def work(what: str) -> None:
        hub.store.work = None
        raise ZeroDivisionError

    hub.store.work = work
    await hub.start(nursery)
    hub.add(FakeCall("a"))
    await trio.sleep(2)
    assert hub.store.stored == ["a"]
    assert [line["event"] for line in lines] == [
        "delivery_failed",
        "call_not_stored",
        "call_stored",
    ]


async def test_dead_store_is_asked_by_one_call_at_a_time(
    hub: Hub, nursery: trio.Nursery, autojump_clock: object, lines: list[Any]
) -> None:
    async def work(what: str) -> None:
        raise AWAY

    hub.store.work = work
    await hub.start(nursery)
    hub.add(*(FakeCall(f"{n:03}", n % 60) for n in range(900)))
    with trio.fail_after(1):
        await hub.deliveries.wait_settled()
    assert len(hub.store.log) <= 8
    statistics = hub.deliveries.statistics()
    assert statistics.fault == "cannot be reached"
    assert statistics.waiting == 900
    await trio.sleep(1000)
    asked = len(hub.store.log)
    assert 30 < asked < 60
    pauses = [b - a for a, b in pairwise(hub.store.times())]
    assert max(pauses) == 30
    # Never the same twice in a row, which might be at fault itself.
    names = [what for _, what in hub.store.log]
    assert len(set(names)) == len(names)
    told = [line["event"] for line in lines if line["event"] == "store_fails"]
    assert 1000 / 60 - 2 < len(told) < 1000 / 60 + 2

    async def works(what: str) -> None:
        await trio.sleep(0.1)

    hub.store.work = works
    hub.store.log.clear()
    await trio.sleep(60)
    assert len(hub.store.stored) == 900
    assert hub.deliveries.statistics().fault is None
    told = [line["event"] for line in lines if line["event"] == "store_works_again"]
    assert len(told) == 1
    # But for the one that was the trial, in order of their age.
    order = [what for _, what in hub.store.log][9:]
    ages = [int(what) % 60 for what in order]
    assert all(a <= b + 1 for a, b in pairwise(ages))


async def test_what_must_be_mended_is_told_once_a_minute_and_mends_itself(
    hub: Hub, nursery: trio.Nursery, autojump_clock: object, lines: list[Any]
) -> None:
    async def work(what: str) -> None:
        raise DENIED

    hub.store.work = work
    await hub.start(nursery)
    hub.add(FakeCall("a"), FakeCall("b", 1))
    await trio.sleep(600)
    told = [line for line in lines if line["event"] == "store_needs_mending"]
    assert 9 <= len(told) <= 11
    assert told[0]["log_level"] == "error"
    assert told[0]["error"] == str(DENIED)
    assert told[-1]["waiting"] == 2
    assert len(hub.store.log) <= 23
    hub.store.work = None
    await trio.sleep(31)
    assert sorted(hub.store.stored) == ["a", "b"]


async def test_another_fault_is_told_at_once(
    hub: Hub, nursery: trio.Nursery, autojump_clock: object, lines: list[Any]
) -> None:
    async def work(what: str) -> None:
        raise DENIED if len(hub.store.log) == 1 else AWAY

    hub.store.work = work
    await hub.start(nursery)
    hub.add(FakeCall("a"))
    await trio.sleep(35)
    assert {line["event"] for line in lines} >= {"store_needs_mending", "store_fails"}


# Live calls


async def test_live_call_sends_what_is_full(
    hub: Hub, nursery: trio.Nursery, autojump_clock: object
) -> None:
    await hub.start(nursery)
    call, settled = FakeCall("a"), 9
    hub.watch(call, lambda: settled)
    await trio.sleep(10)
    assert hub.store.log == []
    settled = 35
    await trio.sleep(5.1)
    assert [what for _, what in hub.store.log] == ["a.1", "a.2", "a.3"]
    hub.add(call)
    await hub.deliveries.wait_settled()
    assert hub.store.stored == ["a"]
    settled = 1000
    await trio.sleep(60)
    assert len(hub.store.log) == 4


async def test_call_that_ends_while_a_part_is_sent_is_finished_after(
    hub: Hub, nursery: trio.Nursery, autojump_clock: object
) -> None:
    hub.store.work = a_second
    await hub.start(nursery)
    call = FakeCall("a")
    hub.watch(call, lambda: 100)
    await trio.sleep(5.5)
    hub.add(call)
    await hub.deliveries.wait_settled()
    assert [what for _, what in hub.store.log] == ["a.1", "a"]
    assert hub.store.most == 1


async def test_call_that_is_released_is_forgotten(
    hub: Hub, nursery: trio.Nursery, autojump_clock: object
) -> None:
    await hub.start(nursery)
    call = FakeCall("a")
    looks = 0

    def settled() -> int:
        nonlocal looks
        looks += 1
        return 0

    hub.watch(call, settled)
    await trio.sleep(6)
    call.release()
    await trio.sleep(60)
    assert looks == 1
    # Nor does one that is released when a part of it was to be sent next.
    hub.store.work = a_second
    for n in range(7):
        call = FakeCall(f"live{n}", n)
        hub.watch(call, lambda: 10)
    await trio.sleep(5.5)
    call.release()
    await trio.sleep(30)
    assert sorted(what for _, what in hub.store.log) == [f"live{n}.1" for n in range(6)]


async def test_calls_that_end_go_before_parts_of_others(
    hub: Hub, nursery: trio.Nursery, autojump_clock: object
) -> None:
    hub.store.work = a_second
    await hub.start(nursery)
    for n in range(20):
        hub.watch(FakeCall(f"live{n}", n), lambda: 1000)
    await trio.sleep(5.5)
    assert hub.store.running == 6
    ended = [FakeCall(f"ended{n}", 59) for n in range(12)]
    hub.add(*ended)
    await trio.sleep(2.6)
    assert hub.store.most == 8
    assert len(hub.store.stored) >= 8
    await trio.sleep(1)
    assert len(hub.store.stored) == 12


async def test_call_that_ends_while_it_waits_to_send_a_part_is_stored_once(
    hub: Hub, nursery: trio.Nursery, autojump_clock: object
) -> None:
    hub.store.work = a_second
    await hub.start(nursery)
    for n in range(7):
        call = FakeCall(f"live{n}", n)
        hub.watch(call, lambda: 10)
    await trio.sleep(5.5)
    hub.add(call)
    await trio.sleep(30)
    assert hub.store.stored == ["live6"]
    assert [what for _, what in hub.store.log].count("live6.1") == 0


async def test_part_that_always_fails_is_tried_ever_less_often(
    hub: Hub, nursery: trio.Nursery, autojump_clock: object
) -> None:
    async def work(what: str) -> None:
        raise UploadError("odd")

    hub.store.work = work
    await hub.start(nursery)
    hub.watch(FakeCall("a"), lambda: 15)
    await trio.sleep(1000)
    assert 8 < len(hub.store.log) < 14


async def test_part_that_fails_is_tried_again(
    hub: Hub, nursery: trio.Nursery, autojump_clock: object, lines: list[Any]
) -> None:
    async def work(what: str) -> None:
        if len(hub.store.log) < 3:
            raise UploadError("odd")

    hub.store.work = work
    await hub.start(nursery)
    call = FakeCall("a")
    hub.watch(call, lambda: 15)
    await trio.sleep(16)
    assert [what for _, what in hub.store.log] == ["a.1"] * 3
    assert len(lines) == 2


async def test_live_call_alone_finds_out_that_the_store_is_back(
    hub: Hub, nursery: trio.Nursery, autojump_clock: object
) -> None:
    async def work(what: str) -> None:
        raise AWAY

    hub.store.work = work
    await hub.start(nursery)
    hub.watch(FakeCall("a"), lambda: 15)
    await trio.sleep(300)
    assert hub.deliveries.statistics().fault is not None
    assert len(hub.store.log) < 25
    hub.store.work = None
    await trio.sleep(301)
    assert hub.deliveries.statistics().fault is None


async def test_store_without_parts_is_not_bothered_by_live_calls(
    nursery: trio.Nursery, autojump_clock: object
) -> None:
    hub = Hub(FakeStore(takes_parts=False))
    await hub.start(nursery)
    call = FakeCall("a")
    hub.watch(call, lambda: 1 // 0)
    await trio.sleep(60)
    hub.add(call)
    await hub.deliveries.wait_settled()
    assert hub.store.stored == ["a"]


# Limits and ends


async def test_calls_beyond_the_limit_are_released(hub: Hub) -> None:
    calls = [FakeCall(str(n)) for n in range(1001)]
    hub.add(*calls)
    assert [call.released for call in calls] == [False] * 1000 + [True]
    assert hub.deliveries.room == 0


async def test_cancelled_deliveries_release_all_they_hold(
    hub: Hub, autojump_clock: object
) -> None:
    hub.store.work = for_ever
    calls = [FakeCall(str(n), n) for n in range(20)]
    live = [FakeCall("live"), FakeCall("ended")]
    async with trio.open_nursery() as nursery:
        await hub.start(nursery)
        for call in live:
            hub.watch(call, lambda: 1000)
        await trio.sleep(6)
        hub.add(*calls)
        await trio.sleep(1)
        assert hub.store.running == 8
        hub.add(live[1])
        nursery.cancel_scope.cancel()
    assert all(call.released for call in calls)
    # A live call is its own task's to release.
    assert [call.released for call in live] == [False, True]


async def test_trouble_of_one_part_in_a_long_call_does_not_make_the_pause_grow(
    hub: Hub, nursery: trio.Nursery, autojump_clock: object
) -> None:
    """An upload that gets on, however slowly, is not put off for minutes."""

    class Slow(FakeUpload):
        async def finish(self) -> None:
            self._store.log.append((trio.current_time(), "try"))
            self._confirmed()
            raise AWAY

    store = FakeStore()
    store.take = lambda call, *, confirmed: Slow(store, call.name, confirmed)  # type: ignore[method-assign]
    hub = Hub(store)
    await hub.start(nursery)
    hub.add(FakeCall("a"))
    await trio.sleep(60)
    assert len(store.log) > 50


async def test_stored_call_is_told_with_its_ids(
    hub: Hub, nursery: trio.Nursery, lines: list[Any], autojump_clock: object
) -> None:
    await hub.start(nursery)
    call = FakeCall("a")
    call.record.planned = SimpleNamespace(prefix="calls/", name="a-name")
    hub.add(call)
    await hub.deliveries.wait_settled()
    (line,) = [line for line in lines if line["event"] == "call_stored"]
    opened = call.record.opened
    assert line["session"] == opened.session_id
    assert line["correlation"] == opened.correlation_id
    assert line["conversation"] == opened.conversation_id
    assert line["key"] == "calls/a-name"


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (UploadError("x", fault="denied"), "denied"),
        (UploadError("x"), "other"),
        (SpoolError("x"), "disk"),
        (ValueError("x"), "unexpected"),
    ],
)
async def test_failures_are_counted_by_fault(
    hub: Hub,
    nursery: trio.Nursery,
    error: Exception,
    word: str,
    autojump_clock: object,
) -> None:
    await hub.start(nursery)

    async def fail(_what: str) -> None:
        raise error

    hub.store.work = fail
    hub.add(FakeCall("a"))
    await hub.deliveries.wait_settled()
    value = hub.metrics.registry.get_sample_value
    assert value("audiohook_store_failures_total", {"fault": word}) == 1


# Buckets of API keys


def apart(name: str, second: int = 0) -> FakeCall:
    """Makes a call that goes to a bucket of its API key."""
    call = FakeCall(name, second)
    call.record.opened = replace(
        call.record.opened,
        settings=CallSettings("calls/", Layout.STEREO, keep_raw=True, bucket="acme"),
    )
    return call


async def test_bucket_of_a_key_that_fails_holds_up_nobody_else(
    hub: Hub, nursery: trio.Nursery, autojump_clock: object
) -> None:
    async def deny(what: str) -> None:
        if what.startswith("acme"):
            raise DENIED

    hub.store.work = deny
    await hub.start(nursery)
    hub.add(*(apart(f"acme{number}") for number in range(9)))
    await trio.sleep(60)
    assert hub.deliveries.statistics().fault is None
    hub.add(FakeCall("a"))
    await trio.sleep(0.1)
    assert hub.store.stored == ["a"]
    # Each waits by itself, ever longer.
    assert 9 * 5 <= len(hub.store.log) <= 9 * 8
    hub.store.work = None
    await trio.sleep(600)
    assert len(hub.store.stored) == 10
    nursery.cancel_scope.cancel()


async def test_bucket_of_a_key_goes_on_while_the_store_fails(
    hub: Hub, nursery: trio.Nursery, autojump_clock: object
) -> None:
    async def fail(what: str) -> None:
        if not what.startswith("acme"):
            raise DENIED

    hub.store.work = fail
    await hub.start(nursery)
    hub.add(*(FakeCall(f"{number}") for number in range(20)))
    await trio.sleep(60)
    assert hub.deliveries.statistics().fault is not None
    hub.add(apart("acme1"), apart("acme2"))
    await trio.sleep(0.1)
    assert sorted(hub.store.stored) == ["acme1", "acme2"]
    # Which says nothing of the other.
    assert hub.deliveries.statistics().fault is not None
    nursery.cancel_scope.cancel()
