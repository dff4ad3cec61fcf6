"""The worker with a queue in memory, which hides, redelivers and puts aside."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pytest
import structlog
import trio

from audiohook.elsewhere import Elsewhere
from audiohook.errors import QueueError, UnfinishedError
from audiohook.sqs import Message
from audiohook.transcription.errand import Errands, Outcome, Patience
from audiohook.worker import HIDDEN, Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trio.testing import MockClock

BUCKET = "recordings"
MOST_RECEIVES = 5


def wav(number: int) -> str:
    return f"calls/n{number}/audio/n{number}.wav"


def body(*keys: str) -> str:
    records = [
        {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": BUCKET}, "object": {"key": key}},
        }
        for key in keys
    ]
    return json.dumps({"Records": records})


@dataclass
class Kept:
    """A message in the queue."""

    id: str
    body: str
    visible_at: float = 0.0
    receives: int = 0


@dataclass
class FakeQueue:
    """A queue with a redrive policy.

    Attributes:
        kept: What is in it.
        aside: What was received too often.
        fails: Called with the name of each request; may raise.
        most: Most messages that anybody asked for.
    """

    kept: dict[str, Kept] = field(default_factory=dict)
    aside: list[Kept] = field(default_factory=list)
    fails: Callable[[str], None] = lambda _: None
    most: list[int] = field(default_factory=list)
    sent: int = 0

    def send(self, *bodies: str) -> None:
        for each in bodies:
            self.sent += 1
            self.kept[f"m{self.sent}"] = Kept(f"m{self.sent}", each)

    async def most_receives(self) -> int | None:
        self.fails("attributes")
        return MOST_RECEIVES

    async def receive(self, most: int, hidden: int) -> list[Message]:
        self.fails("receive")
        self.most.append(most)
        end = trio.current_time() + 10
        while not (seen := self._visible(min(most, 10))):
            if trio.current_time() >= end:
                break
            await trio.sleep(0.5)
        for each in seen:
            each.visible_at = trio.current_time() + hidden
            each.receives += 1
        await trio.lowlevel.checkpoint()
        return [Message(each.id, each.id, each.body, each.receives) for each in seen]

    def _visible(self, most: int) -> list[Kept]:
        found: list[Kept] = []
        for each in list(self.kept.values()):
            if len(found) == most:
                break
            if each.visible_at > trio.current_time():
                continue
            if each.receives >= MOST_RECEIVES:
                self.aside.append(self.kept.pop(each.id))
            else:
                found.append(each)
        return found

    async def delete(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        self.fails("delete")
        self.kept.pop(message.id, None)

    async def hide(self, message: Message, seconds: float) -> None:
        await trio.lowlevel.checkpoint()
        self.fails("hide")
        if message.id in self.kept:
            self.kept[message.id].visible_at = trio.current_time() + seconds


class Script:
    """Stands for `Errands`: does what it is told for each key."""

    def __init__(self, seconds: float = 1.0) -> None:
        self.seconds = seconds
        self.seen: list[str] = []
        self.failure: UnfinishedError | Exception | None = None
        self.now = 0
        self.most_at_once = 0

    async def see_to(self, key: str, patience: Patience) -> Outcome:
        self.seen.append(key)
        self.now += 1
        self.most_at_once = max(self.most_at_once, self.now)
        try:
            end = trio.current_time() + self.seconds
            await patience.sleep_until(end)
            if self.failure is not None:
                raise self.failure
            if trio.current_time() < end:
                raise UnfinishedError("not done yet")
        finally:
            self.now -= 1
        return Outcome.COMPLETED


class Site:
    def __init__(self, queue: FakeQueue, script: Script, parallel: int) -> None:
        self.queue = queue
        self.script = script
        log = structlog.get_logger()
        errands = cast("Errands", script)
        self.worker = Worker(
            queue,
            Elsewhere(errands, BUCKET, "calls/", log),
            log=log,
            parallel=parallel,
            jitter=lambda: 0.5,
        )

    async def wait_empty(self) -> None:
        # The queue tells nobody when it is empty.
        while self.queue.kept or self.worker.statistics.active:  # noqa: ASYNC110
            await trio.sleep(1)


@asynccontextmanager
async def working(*, parallel: int = 10, seconds: float = 1.0) -> AsyncIterator[Site]:
    site = Site(FakeQueue(), Script(seconds), parallel)
    async with trio.open_nursery() as nursery:
        await nursery.start(site.worker.run)
        yield site
        site.worker.stop()


async def test_messages_are_deleted_once_their_calls_are_done(
    autojump_clock: MockClock,
) -> None:
    async with working() as site:
        site.queue.send(body(wav(1)), body(wav(2), wav(3)))
        await site.wait_empty()
    assert sorted(site.script.seen) == [wav(1), wav(2), wav(3)]
    assert site.worker.statistics.completed == 3


async def test_ten_thousand_messages_are_worked_off_a_few_at_a_time(
    autojump_clock: MockClock,
) -> None:
    async with working(parallel=64) as site:
        site.queue.send(*(body(wav(number)) for number in range(10_000)))
        await site.wait_empty()
    assert site.script.most_at_once == 64
    assert max(site.queue.most) <= 64
    assert site.worker.statistics.completed == 10_000
    assert {each.count("n") for each in site.script.seen} == {2}


async def test_message_is_hidden_for_as_long_as_it_takes(
    autojump_clock: MockClock,
) -> None:
    async with working(seconds=20 * HIDDEN) as site:
        site.queue.send(body(wav(1)))
        await site.wait_empty()
    assert site.script.seen == [wav(1)]


async def test_what_fails_comes_back_later_each_time_and_is_put_aside_at_last(
    autojump_clock: MockClock, lines: list[Any]
) -> None:
    async with working() as site:
        site.script.failure = UnfinishedError("no luck")
        site.queue.send(body(wav(1)))
        times: list[float] = []
        while not site.queue.aside:
            if len(site.script.seen) > len(times):
                times.append(trio.current_time())
            await trio.sleep(1)
    assert len(site.script.seen) == MOST_RECEIVES
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses == sorted(pauses)
    assert pauses[-1] >= 8 * pauses[0] / 2
    told = [(line["event"], line["receives"]) for line in lines if "receives" in line]
    assert told == [
        *(("message_returned", number) for number in range(1, MOST_RECEIVES)),
        ("message_put_aside", MOST_RECEIVES),
    ]


async def test_what_says_when_to_come_again_is_believed(
    autojump_clock: MockClock,
) -> None:
    async with working() as site:
        site.script.failure = UnfinishedError("in other hands", seconds=240)
        site.queue.send(body(wav(1)))
        await trio.sleep(200)
        assert len(site.script.seen) == 1
        await trio.sleep(100)
        assert len(site.script.seen) == 2


async def test_one_file_of_a_message_that_fails_brings_it_back(
    autojump_clock: MockClock,
) -> None:
    async with working() as site:
        see_to = site.script.see_to

        async def sometimes(key: str, patience: Patience) -> Outcome:
            outcome = await see_to(key, patience)
            if key == wav(1) and site.script.seen.count(key) == 1:
                raise UnfinishedError("no luck")
            return outcome

        site.script.see_to = sometimes  # type: ignore[method-assign]
        site.queue.send(body(wav(1), wav(2)))
        await site.wait_empty()
    assert site.script.seen.count(wav(1)) == 2


@pytest.mark.parametrize("text", ["", "no JSON", "[]", body("x") + "}", "null"])
async def test_what_is_no_event_is_never_deleted(
    autojump_clock: MockClock, text: str
) -> None:
    async with working() as site:
        site.queue.send(text)
        await site.wait_empty()
    assert [each.body for each in site.queue.aside] == [text]
    assert site.script.seen == []


async def test_other_keys_cost_nothing(
    autojump_clock: MockClock, lines: list[Any]
) -> None:
    async with working() as site:
        site.queue.send(body("calls/../x.wav"), body("other/x"), '{"Records": []}')
        await site.wait_empty()
    assert site.queue.aside == []
    assert site.script.seen == []
    ignored = [line for line in lines if line["event"] == "event_ignored"]
    assert {line["log_level"] for line in ignored} == {"debug"}
    assert len(ignored) == 2


async def test_bug_in_one_call_does_not_stop_the_others(
    autojump_clock: MockClock, lines: list[Any]
) -> None:
    async with working() as site:
        site.script.failure = RuntimeError("oops")
        site.queue.send(body(wav(1)))
        await trio.sleep(5)
        site.script.failure = None
        site.queue.send(body(wav(2)))
        await site.wait_empty()
    assert site.script.seen.count(wav(1)) == 2
    assert [line["event"] for line in lines].count("errand_failed") == 1


async def test_bad_key_does_not_put_the_queue_aside(
    autojump_clock: MockClock, lines: list[Any]
) -> None:
    async with working() as site:
        site.script.failure = UnfinishedError("bad key", seconds=300, is_common=True)
        site.queue.send(*(body(wav(number)) for number in range(1000)))
        await trio.sleep(3600)
        assert site.queue.aside == []
        # Ten at first, and then one of them from time to time.
        assert 100 < len(site.script.seen) < 10 + 3600 / 15
        assert len(set(site.script.seen)) == site.worker.statistics.received == 10
        site.script.failure = None
        await site.wait_empty()
    assert site.queue.aside == []
    assert site.worker.statistics.completed == 1000
    told = Counter(line["event"] for line in lines)
    assert 50 <= told["transcription_needs_mending"] <= 61
    assert told["transcription_works_again"] == 1
    assert told["message_returned"] == 0


async def test_stopped_while_nothing_gets_through_it_gives_back(
    autojump_clock: MockClock,
) -> None:
    async with working() as site:
        site.script.failure = UnfinishedError("bad key", seconds=300, is_common=True)
        site.queue.send(*(body(wav(number)) for number in range(100)))
        await trio.sleep(600)
    assert len(site.queue.kept) == 100
    now = trio.current_time()
    assert now < 620
    assert all(each.visible_at <= now for each in site.queue.kept.values())


async def test_stopped_it_gives_back_what_is_not_done(
    autojump_clock: MockClock,
) -> None:
    async with working(seconds=3600) as site:
        site.queue.send(*(body(wav(number)) for number in range(5)))
        await trio.sleep(5)
        assert site.worker.statistics.active == 5
    now = trio.current_time()
    assert now < 20
    assert len(site.queue.kept) == 5
    # At once, for whoever comes next.
    assert all(each.visible_at <= now for each in site.queue.kept.values())


async def test_cancelled_it_gives_back_what_is_not_done(
    autojump_clock: MockClock,
) -> None:
    site = Site(FakeQueue(), Script(3600), 10)
    site.queue.send(body(wav(1)))
    with trio.move_on_after(5):
        await site.worker.run()
    (kept,) = site.queue.kept.values()
    assert kept.visible_at <= trio.current_time()


async def test_queue_that_fails_for_a_while_is_asked_again(
    autojump_clock: MockClock, lines: list[Any]
) -> None:
    async with working() as site:
        await trio.sleep(11)

        def fail(what: str) -> None:
            if trio.current_time() < 300:
                raise QueueError(f"{what} failed")

        site.queue.fails = fail
        site.queue.send(body(wav(1)))
        await site.wait_empty()
    assert trio.current_time() >= 300
    assert 5 < [line["event"] for line in lines].count("queue_fails") < 30


async def test_lost_deletion_is_no_second_transcript(
    autojump_clock: MockClock,
) -> None:
    async with working() as site:
        done: list[str] = []

        def fail(what: str) -> None:
            done.append(what)
            if what == "delete" and done.count(what) == 1:
                raise QueueError("lost")

        site.queue.fails = fail
        site.queue.send(body(wav(1)))
        await site.wait_empty()
    # The errand itself leaves a finished call alone.
    assert site.script.seen == [wav(1)] * 2
    assert site.queue.aside == []


async def test_queue_that_refuses_ends_it(autojump_clock: MockClock) -> None:
    site = Site(FakeQueue(), Script(), 10)

    def refuse(_: str) -> None:
        raise QueueError("denied", retryable=False)

    site.queue.fails = refuse
    with pytest.raises(QueueError, match="denied"):
        await site.worker.run()
