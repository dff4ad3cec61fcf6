"""Calls that are to be erased and cannot be, among others that only wait."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import structlog
import trio

from audiohook.erasure.holdings import Latecomers, remove
from audiohook.errors import ErasureError, SpoolError

if TYPE_CHECKING:
    from audiohook.recording.spooled import SpooledCall


class FakeCall:
    """A call of the spool, as far as erasure looks at one."""

    def __init__(self, session: str) -> None:
        opened = SimpleNamespace(
            conversation_id="c", session_id=session, started_at="2026-11-22"
        )
        self.record = SimpleNamespace(opened=opened, delivered=False, jobs={})
        self.size_bytes = 1
        self.released = False

    def release(self) -> None:
        self.released = True


class FakeSpool:
    def __init__(self, *faults: Exception) -> None:
        self.faults = list(faults)
        self.removed: list[str] = []

    async def remove(self, call: FakeCall) -> None:
        await trio.lowlevel.checkpoint()
        if self.faults:
            raise self.faults.pop()
        self.removed.append(call.record.opened.session_id)


class FakeLedger:
    """Knows of some sessions that they were to be erased."""

    def __init__(self, *erased: str, fault: Exception | None = None) -> None:
        self.erased = erased
        self.fault = fault

    def is_erased(self, _conversation: str, session: str, _started_at: str) -> bool:
        return session in self.erased

    def reopen(self, *_: object) -> str:
        if self.fault is not None:
            raise self.fault
        return "0" * 64


def latecomers(ledger: FakeLedger, spool: FakeSpool) -> Latecomers:
    log = structlog.get_logger("audiohook")
    return Latecomers(cast("Any", ledger), cast("Any", spool), log=log)


def typed(*calls: FakeCall) -> list[SpooledCall]:
    return cast("list[SpooledCall]", list(calls))


@pytest.mark.parametrize(
    ("ledger", "spool"),
    [
        (FakeLedger("erased"), FakeSpool(SpoolError("bad sector"))),
        (FakeLedger("erased", fault=ErasureError("no room")), FakeSpool()),
    ],
)
async def test_latecomer_that_cannot_be_removed_holds_up_no_other(
    ledger: FakeLedger, spool: FakeSpool
) -> None:
    erased, other = FakeCall("erased"), FakeCall("other")
    with structlog.testing.capture_logs() as lines:
        left = await latecomers(ledger, spool).turn_away(typed(erased, other))
    assert left == typed(other)
    assert not other.released
    # Whoever looks next finds it.
    assert erased.released
    assert [each["event"] for each in lines] == [
        "erased_call_turned_up_again",
        "erasure_fails",
    ]


async def test_latecomers_are_all_given_up_if_it_is_cut_off(
    autojump_clock: object,
) -> None:
    class SlowSpool(FakeSpool):
        async def remove(self, call: FakeCall) -> None:
            await trio.sleep_forever()

    erased, other = FakeCall("erased"), FakeCall("other")
    desk = latecomers(FakeLedger("erased"), SlowSpool())
    with trio.move_on_after(1):
        await desk.turn_away(typed(erased, other))
    assert erased.released
    assert other.released


async def test_calls_that_are_not_removed_are_given_up_whatever_happens() -> None:
    calls = [FakeCall(each) for each in "abc"]
    spool = FakeSpool()
    noted = 0

    def note(_facts: object) -> None:
        nonlocal noted
        noted += 1
        if noted == 2:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await remove(cast("Any", spool), typed(*calls), note, trio.CapacityLimiter(1))
    assert spool.removed == ["a"]
    assert all(each.released for each in calls)


async def test_call_that_the_disk_keeps_does_not_hold_up_the_next() -> None:
    calls = [FakeCall(each) for each in "ab"]
    spool = FakeSpool(SpoolError("bad sector"))
    await remove(
        cast("Any", spool), typed(*calls), lambda _: None, trio.CapacityLimiter(1)
    )
    assert spool.removed == ["b"]
    assert all(each.released for each in calls)
