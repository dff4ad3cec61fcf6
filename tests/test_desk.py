from __future__ import annotations

import trio
import trio.testing

from audiohook.desk import Strangers


async def test_stranger_waits_as_long_as_he_should(
    autojump_clock: trio.testing.MockClock,
) -> None:
    strangers = Strangers()
    began = trio.current_time()
    await strangers.wait(began + 0.5)
    assert trio.current_time() == began + 0.5
    assert len(strangers) == 0


async def test_oldest_stranger_goes_first_when_there_are_too_many(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    strangers = Strangers(most=3)
    gone: list[tuple[int, float]] = []

    async def come(number: int) -> None:
        await strangers.wait(trio.current_time() + 10.0)
        gone.append((number, trio.current_time()))

    began = trio.current_time()
    for number in range(5):
        nursery.start_soon(come, number)
        await trio.sleep(1)
        assert len(strangers) <= 3
    assert gone == [(0, began + 3), (1, began + 4)]
    await trio.sleep(20)
    assert [number for number, _ in gone] == [0, 1, 2, 3, 4]
    assert gone[2:] == [(number, began + number + 10) for number in (2, 3, 4)]


async def test_stranger_that_is_cancelled_makes_room(
    autojump_clock: trio.testing.MockClock,
) -> None:
    strangers = Strangers(most=1)
    with trio.move_on_after(1) as scope:
        await strangers.wait(trio.current_time() + 10.0)
    assert scope.cancelled_caught
    assert len(strangers) == 0


async def test_flood_of_strangers_is_bounded(
    autojump_clock: trio.testing.MockClock,
) -> None:
    strangers = Strangers(most=100)
    most = 0

    async def come() -> None:
        nonlocal most
        until = trio.current_time() + 0.5
        await strangers.wait(until)
        assert trio.current_time() <= until

    async with trio.open_nursery() as nursery:
        for _ in range(1000):
            nursery.start_soon(come)
        while len(nursery.child_tasks) > 0:
            most = max(most, len(strangers))
            await trio.sleep(0.1)
    assert most == 100
    assert len(strangers) == 0
