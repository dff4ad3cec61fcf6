"""The look through a spool, whose places are few."""

from __future__ import annotations

import errno
import fcntl
import os
import uuid
from typing import TYPE_CHECKING

import pytest

from audiohook.recording import disk, leftovers
from audiohook.recording.fields import Fields
from audiohook.recording.journal import encode
from tests.recording.factory import make_opened, write_call

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from audiohook.recording.leftovers import Findings


@pytest.fixture
def spool_fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, disk.FOLDER_FLAGS)
    yield fd
    os.close(fd)


def leave(spool: Path, count: int) -> set[str]:
    """Leaves calls that were cut off with some audio."""
    sessions = {str(uuid.UUID(int=number, version=4)) for number in range(1, count + 1)}
    for session in sessions:
        (spool / session).mkdir()
        fact = encode(make_opened(session_id=session))
        (spool / session / disk.JOURNAL).write_bytes(fact)
        (spool / session / disk.AUDIO).write_bytes(b"\xff" * 320)
    return sessions


def taken(findings: Findings) -> set[str]:
    names = {each.record.opened.session_id for each in findings.calls}
    for each in findings.calls:
        each.files.close()
    return names


def test_no_more_are_taken_than_there_is_room_for(
    tmp_path: Path, spool_fd: int
) -> None:
    sessions = leave(tmp_path, 5)
    passed_over: dict[str, bool] = {}
    first = taken(leftovers.find(spool_fd, (), 2, 0, passed_over))
    assert len(first) == 2
    assert first < sessions
    # With no room at all, none is even looked at.
    assert taken(leftovers.find(spool_fd, (), 0, 0, passed_over)) == set()
    rest = taken(leftovers.find(spool_fd, first, 10, 0, passed_over))
    assert rest == sessions - first


def test_what_was_passed_over_and_is_gone_is_forgotten(
    tmp_path: Path, spool_fd: int
) -> None:
    sessions = leave(tmp_path, 1)
    passed_over = {str(uuid.uuid4()): True, str(uuid.uuid4()): False}
    assert taken(leftovers.find(spool_fd, (), 10, 10, passed_over)) == sessions
    assert passed_over == {}


def test_object_of_a_journal_may_be_missing_and_be_nothing_else() -> None:
    fields = Fields({"there": {"a": 1}, "null": None, "list": [1]})
    assert fields.optional_object("there") == {"a": 1}
    assert fields.optional_object("null") == fields.optional_object("absent") == {}
    with pytest.raises(ValueError, match="list is not an object"):
        fields.optional_object("list")


def test_lock_of_a_call_removed_meanwhile_is_not_ours(tmp_path: Path) -> None:
    path = tmp_path / disk.JOURNAL
    path.write_bytes(b"")
    with path.open() as stream:
        assert leftovers._lock(stream.fileno())
        path.unlink()
        assert not leftovers._lock(stream.fileno())


def test_journal_of_monstrous_size_is_not_read(tmp_path: Path) -> None:
    folder = write_call(tmp_path, [make_opened()])
    os.truncate(folder / disk.JOURNAL, leftovers.JOURNAL_LIMIT_BYTES + 1)
    spool_fd = disk.open_spool(tmp_path)
    try:
        findings = leftovers.find(spool_fd, (), 10, 10, {})
    finally:
        os.close(spool_fd)
    assert [name for name, _ in findings.aside] == [folder.name]
    assert not findings.calls
    assert not findings.unreachable


def test_call_that_another_process_holds_is_left(tmp_path: Path, spool_fd: int) -> None:
    (session,) = leave(tmp_path, 1)
    with (tmp_path / session / disk.JOURNAL).open("rb+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        findings = leftovers.find(spool_fd, (), 10, 10, {})
        assert taken(findings) == set()
        assert (findings.aside, findings.unreachable) == ([], [])
    assert taken(leftovers.find(spool_fd, (), 10, 10, {})) == {session}


def test_call_without_its_audio_is_put_aside(tmp_path: Path, spool_fd: int) -> None:
    (session,) = leave(tmp_path, 1)
    (tmp_path / session / disk.AUDIO).unlink()
    findings = leftovers.find(spool_fd, (), 10, 10, {})
    assert taken(findings) == set()
    assert findings.aside == [(session, "the audio is missing")]
    assert not (tmp_path / session).exists()
    assert list((tmp_path / leftovers.ASIDE).glob(f"*/{disk.JOURNAL}"))


@pytest.mark.parametrize(("number", "looks"), [(errno.EMFILE, 1), (errno.EIO, 3)])
def test_process_that_is_out_of_files_looks_no_further(
    tmp_path: Path,
    spool_fd: int,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    looks: int,
) -> None:
    sessions = leave(tmp_path, 3)
    looked_at: list[str] = []

    def look(_spool_fd: int, name: str) -> None:
        looked_at.append(name)
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(leftovers, "_look", look)
        findings = leftovers.find(spool_fd, (), 10, 10, {})
    assert len(looked_at) == looks
    assert [name for name, _ in findings.unreachable] == looked_at
    assert taken(leftovers.find(spool_fd, (), 10, 10, {})) == sessions
