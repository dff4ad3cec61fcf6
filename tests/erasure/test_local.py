"""What the local disk has of a call, while others have it in hand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from audiohook.erasure import local
from audiohook.erasure.order import Asked, Spooled, Transcript, Wanted
from audiohook.recording import disk
from audiohook.recording.journal import encode
from audiohook.recording.transcripts import (
    Choice,
    TranscriptIntended,
    TranscriptPlanned,
    TranscriptSubmitted,
)
from tests.recording.factory import CONVERSATION, entries, make_opened, write_call

if TYPE_CHECKING:
    from collections.abc import Callable

    from audiohook.erasure.order import OrderFact

WAV = "calls/a/audio/a.wav"
JOB = "5e55a0e5-0000-4000-8000-00000000000c"
WANTED = Wanted(CONVERSATION, None, "2026-12-01T00:00:00.000Z")


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Has something happen between the look at a journal and its lock."""
    take = local._take

    def have(happens: Callable[[], object]) -> None:
        def take_late(fd: int) -> bool:
            happens()
            return take(fd)

        monkeypatch.setattr(local, "_take", take_late)

    return have


def test_what_was_asked_for_in_the_last_moment_is_known(
    tmp_path: Path, late: Callable[[Callable[[], object]], None]
) -> None:
    opened = make_opened()
    planned = TranscriptPlanned(WAV, Choice.TRANSCRIBE)
    folder = write_call(tmp_path, [opened, planned])

    def submit() -> None:
        at = "2026-11-22T14:12:00.000Z"
        intended = TranscriptIntended(WAV, "https://bucket.example/a.wav", at)
        with (folder / disk.JOURNAL).open("ab") as stream:
            stream.write(encode(TranscriptSubmitted(WAV, JOB)) + encode(intended))

    late(submit)
    noted: list[OrderFact] = []
    assert local.clear(tmp_path, WANTED, noted.extend).is_empty
    kinds = [type(each) for each in noted]
    assert kinds == [Spooled, Transcript, Asked]
    assert noted[1] == Transcript(JOB)
    assert entries(tmp_path) == set()


def test_folder_that_was_given_to_another_call_meanwhile_is_left_alone(
    tmp_path: Path, late: Callable[[Callable[[], object]], None]
) -> None:
    mine = make_opened()
    other = make_opened(conversation_id="99999999-1111-4111-8111-111111111111")
    folder = write_call(tmp_path, [mine])

    def reuse() -> None:
        (folder / disk.JOURNAL).write_bytes(encode(other))
        folder.rename(tmp_path / other.session_id)

    late(reuse)
    noted: list[OrderFact] = []
    assert local.clear(tmp_path, WANTED, noted.extend).is_empty
    assert noted == []
    assert entries(tmp_path) == {other.session_id}


def test_somebody_who_looks_for_leftovers_may_clear_away_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_call(tmp_path, [make_opened()])

    def rmdir_late(folder: Path) -> None:
        os.rmdir(folder)  # noqa: PTH106 - it is this that is replaced
        os.rmdir(folder)  # noqa: PTH106

    monkeypatch.setattr(Path, "rmdir", rmdir_late)
    assert local.clear(tmp_path, WANTED, lambda _: None).is_empty
    assert entries(tmp_path) == set()
