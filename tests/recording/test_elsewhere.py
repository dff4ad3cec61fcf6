"""Calls of other processes, and what else lies in a spool that they share."""

from __future__ import annotations

import fcntl
import os
import uuid
from typing import TYPE_CHECKING

import pytest

from audiohook.recording import disk
from audiohook.recording.elsewhere import Elsewhere, look_elsewhere
from audiohook.recording.journal import encode
from tests.recording.factory import CONVERSATION, STARTED, make_closed, make_opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ONE, TWO, THREE = (str(uuid.UUID(int=number, version=4)) for number in (1, 2, 3))


def write_journal(spool: Path, session: str, *lines: bytes) -> Path:
    folder = spool / session
    folder.mkdir()
    path = folder / disk.JOURNAL
    path.write_bytes(b"".join(lines))
    return path


def opened(session: str) -> bytes:
    return encode(make_opened(session_id=session))


@pytest.fixture
def held(tmp_path: Path) -> Iterator[str]:
    """A call that a process holds: its session."""
    path = write_journal(tmp_path, ONE, opened(ONE))
    fd = os.open(path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    yield ONE
    os.close(fd)


def test_calls_are_told_by_their_conversation(tmp_path: Path, held: str) -> None:
    write_journal(tmp_path, TWO, opened(TWO), encode(make_closed(0)))
    found = look_elsewhere(tmp_path, own=())
    assert found.keys() == {CONVERSATION}
    assert sorted(found[CONVERSATION], key=lambda each: each.session) == [
        Elsewhere(held, STARTED, held=True),
        Elsewhere(TWO, STARTED, held=False),
    ]


def test_own_calls_are_passed_over(tmp_path: Path, held: str) -> None:
    write_journal(tmp_path, f"{held}_2", opened(held))
    assert look_elsewhere(tmp_path, own={held}) == {}


def test_session_that_came_again_is_seen_twice(tmp_path: Path) -> None:
    """Its first call waits to be stored; the folder of the second has a number."""
    write_journal(tmp_path, TWO, opened(TWO))
    write_journal(tmp_path, f"{TWO}_2", opened(TWO))
    (calls,) = look_elsewhere(tmp_path, own=()).values()
    assert [each.session for each in calls] == [TWO, TWO]


def test_spool_that_is_not_there_has_no_calls(tmp_path: Path) -> None:
    assert look_elsewhere(tmp_path / "nonesuch", own=()) == {}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"{",
        b'{"fact": "nonsense"}\n',
        encode(make_closed(0)),
        opened(ONE)[:-20],
        b"\xff\xfe\n",
    ],
    ids=["empty", "blank", "cut", "unknown", "not opened", "torn", "no text"],
)
def test_journal_that_does_not_begin_a_call_is_none(
    tmp_path: Path, line: bytes
) -> None:
    write_journal(tmp_path, ONE, line)
    write_journal(tmp_path, TWO, opened(TWO))
    (calls,) = look_elsewhere(tmp_path, own=()).values()
    assert [each.session for each in calls] == [TWO]


def test_what_is_no_journal_is_no_call(tmp_path: Path) -> None:
    (tmp_path / ONE).mkdir()
    (tmp_path / TWO).mkdir()
    (tmp_path / TWO / disk.JOURNAL).mkdir()
    link = tmp_path / THREE
    link.mkdir()
    outside = tmp_path / "outside"
    outside.write_bytes(opened(THREE))
    (link / disk.JOURNAL).symlink_to(outside)
    (tmp_path / "notes.txt").write_text("mine")
    assert look_elsewhere(tmp_path, own=()) == {}
