from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio
import trio.testing

from audiohook.web.feed import Feed
from audiohook.web.live import LiveSight, difference
from audiohook.web.pages import Pages
from audiohook.web.surroundings import Level, LiveCall, LiveView

if TYPE_CHECKING:
    from trio.testing import MockClock

ONE = LiveCall(
    session="one",
    conversation="c",
    participant="p",
    ani="+4930123456",
    ani_name="Anna\u202e",
    dnis="",
    language=None,
    state="open",
    held="recording",
    began=1000.0,
    pinged=None,
    gaps=0,
    gap_seconds=0.0,
    lost_seconds=0.0,
    levels=(Level("external", -20, -30),),
)


class Sight:
    """What there is to see, and how often somebody looked."""

    def __init__(self) -> None:
        self.view = LiveView(calls=[ONE], live=1)
        self.looks = 0

    async def look(self, most: int) -> LiveView:
        await trio.lowlevel.checkpoint()
        self.looks += 1
        return self.view


@pytest.fixture
def sight() -> Sight:
    return Sight()


@pytest.fixture
def feed(sight: Sight) -> Feed:
    around = cast("Any", SimpleNamespace(live=sight.look, clock=lambda: 2000.0))
    return Feed(LiveSight(around, Pages(show_numbers=False)).look, difference)


def read(event: bytes) -> tuple[str, Any]:
    name, data = event.decode("ascii").rstrip("\n").split("\n")
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


async def watch(feed: Feed, events: int) -> list[tuple[str, Any]]:
    """Returns the first events that a viewer gets."""
    stream = feed.events()
    assert await anext(stream) == b"retry: 1000\n\n"
    seen = [read(await anext(stream)) for _ in range(events)]
    await cast("Any", stream).aclose()
    return seen


async def test_viewer_gets_all_once_and_then_what_changes(
    feed: Feed, sight: Sight, autojump_clock: MockClock
) -> None:
    seen = []
    stream = feed.events()
    await anext(stream)
    seen.append(read(await anext(stream)))
    seen.append(read(await anext(stream)))
    sight.view = replace(
        sight.view, calls=[replace(ONE, gaps=1, gap_seconds=2.0)], audio_bytes=16_000
    )
    seen.append(read(await anext(stream)))
    sight.view = replace(sight.view, calls=[], live=0)
    seen.append(read(await anext(stream)))
    assert feed.viewers == 1
    await cast("Any", stream).aclose()
    assert feed.viewers == 0

    names = [name for name, _ in seen]
    assert names == ["whole", "change", "change", "change"]
    whole = seen[0][1]
    assert whole["totals"]["live"] == 1
    assert whole["totals"]["rate"] is None
    row = whole["calls"]["one"]
    assert row["name"] == "Anna⟨U+202E⟩"
    assert row["from"] == "••••56"
    assert row["levels"] == [["external", -20, -30]]
    assert seen[1][1] == {"totals": {"rate": 0}}
    assert seen[2][1] == {
        "totals": {"rate": 16_000},
        "calls": {"one": {"gaps": 1, "gapSeconds": 2.0}},
    }
    assert seen[3][1] == {
        "totals": {"live": 0, "shown": 0, "rate": 0},
        "calls": {"one": None},
    }


async def test_there_is_one_look_a_second_for_all_viewers(
    feed: Feed, sight: Sight, autojump_clock: MockClock
) -> None:
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(watch, feed, 5)
    assert trio.current_time() - began == 4
    assert sight.looks == 5
    assert feed.viewers == 0
    await trio.sleep(100)
    assert sight.looks == 5


async def test_viewer_that_leaves_does_not_hold_up_the_others(
    feed: Feed, autojump_clock: MockClock
) -> None:
    seen: list[tuple[str, Any]] = []

    async def stay() -> None:
        seen.extend(await watch(feed, 4))

    async with trio.open_nursery() as nursery:
        with trio.move_on_after(1.5):
            # The one who makes the looks goes in the middle of waiting for one.
            async with trio.open_nursery() as first:
                first.start_soon(watch, feed, 100)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(stay)
    assert [name for name, _ in seen] == ["whole", "change", "change", "change"]
    assert feed.viewers == 0


async def test_viewer_that_comes_back_late_sees_what_is_now(
    feed: Feed, sight: Sight, autojump_clock: MockClock
) -> None:
    await watch(feed, 2)
    sight.view = LiveView()
    await trio.sleep(60)
    ((name, whole),) = await watch(feed, 1)
    assert name == "whole"
    assert whole["calls"] == {}
    # An average over a minute would say nothing of now.
    assert whole["totals"]["rate"] is None


async def test_slow_viewer_is_not_waited_for(
    feed: Feed, autojump_clock: MockClock
) -> None:
    stream = feed.events()
    await anext(stream)
    await anext(stream)
    await trio.sleep(3)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert feed.viewers == 0


async def test_stream_ends_by_itself_after_a_while(
    feed: Feed, autojump_clock: MockClock
) -> None:
    began = trio.current_time()
    events = [event async for event in feed.events()]
    assert 49 < trio.current_time() - began < 53
    assert 50 < len(events) < 55


def test_difference_says_what_is_new_and_what_is_gone() -> None:
    old = {"totals": {"a": 1, "b": 2}, "calls": {"x": {"p": 1, "q": 2}, "y": {"p": 1}}}
    new = {"totals": {"a": 1, "b": 3}, "calls": {"x": {"p": 1, "q": 3}, "z": {"p": 1}}}
    assert difference(old, new) == {
        "totals": {"b": 3},
        "calls": {"x": {"q": 3}, "y": None, "z": {"p": 1}},
    }
    assert difference(new, new) == {}
