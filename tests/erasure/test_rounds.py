"""Rounds of erasure, while somebody else has a part of the same call in hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
import structlog
import trio

from audiohook.erasure import local
from audiohook.erasure.eraser import LAST_LOOK, Eraser
from audiohook.erasure.ledger import Ledger
from audiohook.erasure.order import Asked, Ordered, Transcript
from audiohook.erasure.places import Place
from audiohook.storage.folder import FolderStore
from tests.erasure.test_bucket import MINE, NoIndex
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from audiohook.erasure.ledger import ErasureRecord, Work
    from audiohook.erasure.order import OrderFact, Wanted

SESSION = "5e55a0e5-0000-4000-8000-00000000000b"
JOB = "5e55a0e5-0000-4000-8000-00000000000c"
WANTED_AT = "2026-11-22T14:00:00.000Z"
ASKED = Asked("https://bucket.example/audio.wav", 1_795_000_000.0)


class FakeAccount:
    """At the service there is the one job that was asked for."""

    def __init__(self) -> None:
        self.forgotten: list[str] = []

    async def look_up(
        self, asked: Collection[Asked], known: Collection[str]
    ) -> list[str]:
        return [JOB] if ASKED in asked and JOB not in known else []

    async def forget(self, transcript_id: str) -> bool:
        self.forgotten.append(transcript_id)
        return True


class BusyIndex(NoIndex):
    """Something happens elsewhere while it forgets for the first time."""

    def __init__(self, happens: Callable[[], object]) -> None:
        super().__init__()
        self._happens = happens

    async def erase(self, conversation: str, session: str | None = None) -> int:
        if not self.erased:
            self._happens()
        return await super().erase(conversation, session)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / ".spool"


@pytest.fixture
def ledger(spool: Path) -> Ledger:
    return Ledger(spool)


@pytest.fixture
def reference(ledger: Ledger) -> str:
    return ledger.order(Ordered(MINE, None, WANTED_AT, "me", end=False))


def eraser_of(
    spool: Path,
    ledger: Ledger,
    account: FakeAccount | None,
    index: NoIndex,
    *,
    teller: BusyTeller | None = None,
    last_look: float = LAST_LOOK,
) -> Eraser:
    store = FolderStore(spool.parent)
    return Eraser(
        ledger,
        spool=spool,
        places=lambda: [Place("folder", store.traces, "calls/")],
        index=index,
        account=cast("Any", account),
        teller=teller,
        last_look=last_look,
        log=structlog.get_logger("audiohook"),
    )


async def test_job_of_a_call_that_was_removed_as_the_round_began_is_looked_for(
    spool: Path, ledger: Ledger, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clear = local.clear

    def clear_late(
        spool: Path, wanted: Wanted, note: Callable[[list[OrderFact]], None]
    ) -> local.Local:
        # The order is in hand by now; the call is gone before anybody looks for it.
        ledger.note(reference, [ASKED])
        return clear(spool, wanted, note)

    monkeypatch.setattr(local, "clear", clear_late)
    account, index = FakeAccount(), NoIndex()
    with trio.fail_after(30):
        standing = await eraser_of(spool, ledger, account, index).pursue(reference)
    assert standing is not None
    assert standing.done
    assert account.forgotten == [JOB]
    assert standing.counts.transcripts == 1
    assert index.erased == 1


@pytest.mark.parametrize("fact", [ASKED, Transcript(JOB)])
async def test_it_is_not_done_while_more_of_it_turns_up(
    spool: Path,
    ledger: Ledger,
    reference: str,
    fact: OrderFact,
    autojump_clock: object,
) -> None:
    index = BusyIndex(lambda: ledger.note(reference, [fact]))
    account = FakeAccount()
    standing = await eraser_of(spool, ledger, account, index).pursue(reference)
    assert standing is not None
    assert standing.done
    assert index.erased == 2
    assert account.forgotten == [JOB]
    assert standing.counts.transcripts == 1


class BusyTeller:
    """Something happens elsewhere while it tells for the first time."""

    def __init__(self, happens: Callable[[], object]) -> None:
        self._happens = happens
        self.told = 0

    async def forget(self, conversation: str) -> None:
        await trio.lowlevel.checkpoint()

    async def tell(self, wanted: Wanted, record: ErasureRecord) -> None:
        await trio.lowlevel.checkpoint()
        self.told += 1
        if self.told == 1:
            self._happens()


AGAIN = Ordered(MINE, None, "2026-11-22T14:05:00.000Z", "me", end=False)


@pytest.mark.parametrize("added", [AGAIN, ASKED, Transcript(JOB)])
async def test_it_is_not_done_if_more_is_wanted_while_that_is_told(
    spool: Path,
    ledger: Ledger,
    reference: str,
    added: OrderFact,
    autojump_clock: object,
) -> None:
    teller = BusyTeller(lambda: ledger.note(reference, [added]))
    account, index = FakeAccount(), NoIndex()
    eraser = eraser_of(spool, ledger, account, index, teller=teller)
    standing = await eraser.pursue(reference)
    assert standing is not None
    assert standing.done
    assert index.erased == teller.told == 2
    assert account.forgotten == ([] if added is AGAIN else [JOB])


async def test_one_that_is_wanted_again_while_it_meets_what_is_to_be_mended_is_tried(
    spool: Path, ledger: Ledger, reference: str, autojump_clock: object
) -> None:
    ledger.note(reference, [Transcript(JOB)])
    index = BusyIndex(lambda: ledger.order(AGAIN))
    # Without a key nobody can have it forgotten.
    standing = await eraser_of(spool, ledger, None, index).pursue(reference)
    assert standing is not None
    assert not standing.done
    assert index.erased == 2


async def test_one_that_is_wanted_again_before_it_rests_does_not_wait_for_the_last_look(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BusyLedger(Ledger):
        def finish(self, work: Work) -> ErasureRecord:
            if index.erased == 1:
                self.order(AGAIN)
            return super().finish(work)

    monkeypatch.setattr("audiohook.erasure.eraser._INTERVAL", 0.01)
    index, ledger = NoIndex(), BusyLedger(spool)
    ledger.order(Ordered(MINE, None, WANTED_AT, "me", end=False))
    async with trio.open_nursery() as nursery:
        await nursery.start(eraser_of(spool, ledger, FakeAccount(), index).run)
        await wait_until(lambda: index.erased == 2)
        nursery.cancel_scope.cancel()


async def test_one_that_is_wanted_again_in_its_last_look_has_another(
    spool: Path, ledger: Ledger, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    eraser = eraser_of(spool, ledger, FakeAccount(), NoIndex(), last_look=0.0)
    clear = local.clear

    def clear_late(
        spool: Path, wanted: Wanted, note: Callable[[list[OrderFact]], None]
    ) -> local.Local:
        ledger.order(AGAIN)
        return clear(spool, wanted, note)

    with trio.fail_after(30):
        await eraser.pursue(reference)
        monkeypatch.setattr(local, "clear", clear_late)
        await eraser.pursue(reference)
        monkeypatch.undo()
        assert ledger.pending() == [reference]
        await eraser.pursue(reference)
    assert ledger.pending() == []


async def test_call_that_turns_up_after_it_was_done_is_an_order_of_its_own(
    spool: Path, ledger: Ledger, reference: str
) -> None:
    account, index = FakeAccount(), NoIndex()
    eraser = eraser_of(spool, ledger, account, index)
    with trio.fail_after(30):
        standing = await eraser.pursue(reference)
        assert standing is not None
        assert standing.done
        at = "2026-11-22T14:05:00.000Z"
        again = ledger.reopen(MINE, SESSION, at, [Transcript(JOB)])
        assert again != reference
        standing = await eraser.pursue(again)
    assert standing is not None
    assert standing.done
    assert account.forgotten == [JOB]


async def test_call_that_turns_up_while_it_is_under_way_belongs_to_it(
    ledger: Ledger, reference: str
) -> None:
    at = "2026-11-22T14:05:00.000Z"
    assert ledger.reopen(MINE, SESSION, at, [Transcript(JOB)]) == reference
    record = ledger.look(reference)
    assert record is not None
    # What began after it was asked for is still not meant.
    assert record.wanted.at == WANTED_AT
    assert list(record.transcripts) == [JOB]
