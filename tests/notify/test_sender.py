from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import trio
import trio.testing

from audiohook.errors import ReceiverError
from audiohook.notify.database import Database
from audiohook.notify.event import Kind
from audiohook.notify.letter import Standing
from audiohook.notify.sender import LIFETIME, PARALLEL
from tests.notify.desk import LOOK_INTERVAL, FakeReceiver, desk, now

if TYPE_CHECKING:
    from pathlib import Path

    from audiohook.notify.letter import Letter

HOUR = 3600.0
DAY = 24 * HOUR
ALL = (Kind.OPENED, Kind.STORED, Kind.TRANSCRIBED)

AWAY = ReceiverError("away", is_common=True)
BAD = ReceiverError("answered 400", is_common=False)


async def test_what_is_told_arrives_soon_and_once(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    receiver = FakeReceiver()
    async with desk(tmp_path, receiver) as at:
        at.tell("a", *ALL)
        at.tell("a", *ALL)
        await trio.sleep(1)
        assert [each.kind for each in receiver.took] == list(ALL)
        at.tell("a", *ALL)
        await trio.sleep(DAY)
        assert len(receiver.took) == 3
        await at.outbox.count()
        assert at.sender.statistics().waiting == 0
        assert at.sender.statistics().sent == 3


async def test_receiver_that_is_away_for_an_hour_gets_everything_in_order(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Two processes end meanwhile: what they noted last may be told again."""
    back_at = 0.0
    receiver = FakeReceiver(lambda _: AWAY if trio.current_time() < back_at else None)
    back_at = trio.current_time() + HOUR
    calls = [f"call-{number}" for number in range(60)]
    for process, kind in enumerate(ALL):
        async with desk(tmp_path, receiver) as at:
            for call in calls:
                if process:
                    # Whoever takes a call over tells again how it began.
                    at.tell(call, ALL[process - 1])
                at.tell(call, kind)
                await trio.sleep(HOUR / 4 / len(calls))
    assert receiver.took == []
    tries = len(receiver.tried)
    # It is not asked by everybody all the time.
    assert tries < HOUR / 10
    async with desk(tmp_path, receiver):
        await trio.sleep(HOUR / 4 + 60)
    for call in calls:
        assert receiver.kinds_of(call) == list(ALL)
    assert len({each.id for each in receiver.took}) == len(calls) * len(ALL)
    assert len(receiver.took) == len(calls) * len(ALL)
    assert receiver.most_at_a_time == PARALLEL


async def test_one_that_is_refused_holds_up_its_own_conversation_only(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    def fault(letter: Letter) -> ReceiverError | None:
        return BAD if letter.conversation == "bad" and letter.kind == "opened" else None

    receiver = FakeReceiver(fault)
    async with desk(tmp_path, receiver) as at:
        at.tell("bad", *ALL)
        at.tell("good", *ALL)
        await trio.sleep(HOUR)
        assert receiver.kinds_of("good") == list(ALL)
        assert receiver.kinds_of("bad") == []
        gaps = [when for when, letter in receiver.tried if letter.conversation == "bad"]
        pauses = [after - before for before, after in pairwise(gaps)]
        assert all(after > before for before, after in pairwise(pauses))
        await trio.sleep(LIFETIME)
        # It was given up, and what came after it goes on.
        assert receiver.kinds_of("bad") == ["stored", "transcribed"]
        (dead,) = await at.outbox.ask(lambda each: each.entries(Standing.DEAD, 10))
        assert (dead.kind, dead.reason) == ("opened", "answered 400")
        assert now() - dead.since >= LIFETIME


async def test_receiver_away_for_days_leaves_dead_ones_that_can_be_sent_after_all(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    receiver = FakeReceiver(lambda _: AWAY)
    async with desk(tmp_path, receiver) as at:
        at.tell("a", *ALL)
        await trio.sleep(60)
    # Nobody tries meanwhile, which only makes the test shorter.
    await trio.sleep(DAY - HOUR)
    async with desk(tmp_path, receiver) as at:
        await trio.sleep(HOUR / 2)
        await at.outbox.count()
        assert at.sender.statistics().waiting == 3
        await trio.sleep(HOUR)
        await at.outbox.count()
        found = at.sender.statistics()
        assert (found.waiting, found.dead) == (0, 3)
        assert at.metrics.notifications.labels("dead")._value.get() == 3
        receiver.fault = lambda _: None
        # By another process, which shares nothing but the file.
        beside = Database(tmp_path)
        assert len(beside.resend(None, now())) == 3
        beside.close()
        await trio.sleep(60)
        assert receiver.kinds_of("a") == list(ALL)


async def test_those_that_are_too_old_are_tried_once_more_after_a_long_stop(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    receiver = FakeReceiver(lambda _: AWAY)
    async with desk(tmp_path, receiver) as at:
        at.tell("a", *ALL)
        await trio.sleep(60)
    await trio.sleep(3 * DAY)
    receiver.fault = lambda _: None
    async with desk(tmp_path, receiver):
        await trio.sleep(60)
    assert receiver.kinds_of("a") == list(ALL)


async def test_receiver_that_is_gone_is_left_in_peace(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    gone = ReceiverError("answered 410", is_common=True, lasting=True, gone=True)
    receiver = FakeReceiver(lambda _: gone)
    async with desk(tmp_path, receiver) as at:
        for number in range(100):
            at.tell(f"call-{number}", Kind.STORED)
        await trio.sleep(600)
        await at.outbox.count()
        assert len(receiver.tried) < 60
        assert at.sender.statistics().fault == "answered 410"
        assert at.sender.statistics().dead > 0


async def test_receiver_that_is_busy_is_asked_when_it_says(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    busy = ReceiverError("busy", is_common=True, retry_after=300.0)
    receiver = FakeReceiver(lambda _: busy)
    async with desk(tmp_path, receiver) as at:
        at.tell("a", Kind.STORED)
        await trio.sleep(10)
        receiver.fault = lambda _: None
        at.tell("b", Kind.STORED)
        await trio.sleep(280)
        assert len(receiver.tried) == 1
        await trio.sleep(60)
        assert len(receiver.took) == 2


async def test_of_two_processes_one_sends_and_the_other_when_that_has_ended(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    first, second = FakeReceiver(), FakeReceiver()
    async with desk(tmp_path, second) as other:
        pass
    async with desk(tmp_path, first) as at:
        async with desk(tmp_path, second) as other:
            other.tell("a", *ALL)
            await trio.sleep(2 * LOOK_INTERVAL)
            assert first.kinds_of("a") == list(ALL)
            assert second.took == []
            assert at.sender.statistics().is_sender
            assert not other.sender.statistics().is_sender
    async with desk(tmp_path, second) as other:
        other.tell("b", *ALL)
        await trio.sleep(10)
    assert second.kinds_of("b") == list(ALL)


async def test_what_is_told_of_one_conversation_can_be_forgotten(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    receiver = FakeReceiver(lambda _: AWAY)
    async with desk(tmp_path, receiver) as at:
        at.tell("gone-for-good", *ALL)
        at.tell("kept", *ALL)
        await trio.sleep(5)
        at.tell("gone-for-good", Kind.FAILED)
        assert await at.outbox.erase("gone-for-good") == 3
        await at.outbox.record(Kind.ERASED, conversation="gone-for-good")
        receiver.fault = lambda _: None
        await trio.sleep(60)
    assert receiver.kinds_of("gone-for-good") == ["erased"]
    assert receiver.kinds_of("kept") == list(ALL)
