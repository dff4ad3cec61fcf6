"""Orders on disk, while several are at them."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

import pytest

from audiohook.erasure import ledger as orders
from audiohook.erasure.ledger import ERASURES, Ledger
from audiohook.erasure.order import Asked, Ordered, Transcript
from audiohook.recording.journal import utc_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from audiohook.erasure.order import OrderFact

MINE = "5e55a0e5-0000-4000-8000-000000000001"
SESSION = "5e55a0e5-0000-4000-8000-00000000000b"
JOB = Transcript("5e55a0e5-0000-4000-8000-00000000000c")
ASKED = Asked("https://bucket.example/audio.wav", 1_795_000_000.0)


def ordered(at: float) -> Ordered:
    return Ordered(MINE, None, utc_text(at), "me", end=False)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


@pytest.fixture
def reference(ledger: Ledger) -> str:
    return ledger.order(ordered(1.0))


@pytest.mark.parametrize("fact", [JOB, ASKED])
def test_what_turns_up_in_the_last_moment_is_not_lost(
    ledger: Ledger, reference: str, fact: OrderFact
) -> None:
    work = ledger.take(reference)
    assert work is not None
    ledger.note(reference, [fact])
    assert not work.remove()
    assert not work.record.leads.isdisjoint({ASKED, JOB.id})
    # What was done about it is done by now.
    assert work.remove()
    work.close()
    assert ledger.pending() == []


@pytest.mark.parametrize("fact", [JOB, ordered(2.0)])
def test_what_turns_up_in_the_last_moment_keeps_it_from_being_done(
    ledger: Ledger, reference: str, fact: OrderFact
) -> None:
    work = ledger.take(reference)
    assert work is not None
    ledger.note(reference, [fact])
    assert not work.verify(utc_text(3.0))
    found = ledger.look(reference)
    assert found is not None
    assert found.verified is None
    assert work.verify(utc_text(3.0))
    found = ledger.look(reference)
    assert found is not None
    assert found.verified == utc_text(3.0)
    work.close()


def test_nobody_removes_one_to_which_something_is_added(
    ledger: Ledger, reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, tried = orders._append, []

    def append_watched(fd: int, facts: Iterable[OrderFact], path: Path) -> None:
        # Whoever removes one has this lock.
        folder = os.open(tmp_path / ERASURES, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(folder)
        tried.append(path.name)
        append(fd, facts, path)

    monkeypatch.setattr(orders, "_append", append_watched)
    ledger.note(reference, [JOB])
    ledger.order(ordered(2.0))
    assert ledger.reopen(MINE, SESSION, utc_text(2.0), [JOB]) == reference
    assert tried == [reference] * 3


def test_what_began_before_it_was_wanted_again_is_known_to_be_erased(
    ledger: Ledger, reference: str
) -> None:
    began = utc_text(2.0)
    assert ledger.is_erased(MINE, SESSION, utc_text(0.5))
    assert not ledger.is_erased(MINE, SESSION, began)
    assert ledger.order(ordered(3.0)) == reference
    assert ledger.is_erased(MINE, SESSION, began)
