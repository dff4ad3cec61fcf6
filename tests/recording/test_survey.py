from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from audiohook.recording import disk
from audiohook.recording import survey as module
from audiohook.recording.leftovers import ASIDE
from audiohook.recording.survey import survey

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = 1_800_000_000.0


def put(
    spool: Path,
    *,
    name: str | None = None,
    audio_bytes: int | None = 4096,
    age: float = 10.0,
) -> str:
    """Puts a call in the spool; its name.

    Args:
        spool: The spool.
        name: Its session id.
        audio_bytes: Of its audio; None if the audio was taken away.
        age: Seconds since it last changed.
    """
    name = name or str(uuid.uuid4())
    folder = spool / name
    folder.mkdir()
    (folder / disk.JOURNAL).write_bytes(b"x" * 100)
    if audio_bytes is not None:
        (folder / disk.AUDIO).write_bytes(b"x" * audio_bytes)
        os.utime(folder / disk.AUDIO, (NOW - age, NOW - age))
        # What the folder itself says does not count then.
        os.utime(folder, (0, 0))
    else:
        os.utime(folder, (NOW - age, NOW - age))
    return name


def test_empty_spool(tmp_path: Path) -> None:
    found = survey(tmp_path, (), NOW)
    assert (found.calls, found.used_bytes, found.oldest_seconds, found.aside) == (
        *(0, 0, 0.0),
        0,
    )
    room = os.statvfs(tmp_path)
    assert found.size_bytes == room.f_blocks * room.f_frsize
    assert 0 < found.free_bytes <= found.size_bytes


def test_calls_are_counted_with_all_that_they_take_up(tmp_path: Path) -> None:
    put(tmp_path, audio_bytes=100_000)
    put(tmp_path, audio_bytes=50_000)
    found = survey(tmp_path, (), NOW)
    assert found.calls == 2
    taken = sum(path.stat().st_blocks * 512 for path in tmp_path.rglob("*"))
    assert found.used_bytes == taken
    assert taken >= 150_000


def test_hole_in_a_file_takes_up_nothing(tmp_path: Path) -> None:
    name = put(tmp_path, audio_bytes=0)
    os.truncate(tmp_path / name / disk.AUDIO, 10**9)
    assert survey(tmp_path, (), NOW).used_bytes < 10**6


def test_oldest_call_is_one_that_is_not_live(tmp_path: Path) -> None:
    live = put(tmp_path, age=5000.0)
    put(tmp_path, age=70.0)
    put(tmp_path, age=30.0)
    assert survey(tmp_path, {live}, NOW).oldest_seconds == pytest.approx(70.0)
    assert survey(tmp_path, (), NOW).oldest_seconds == pytest.approx(5000.0)


def test_call_that_waits_for_its_transcript_has_no_audio(tmp_path: Path) -> None:
    put(tmp_path, audio_bytes=None, age=400.0)
    found = survey(tmp_path, (), NOW)
    assert found.calls == 1
    assert found.oldest_seconds == pytest.approx(400.0)


def test_audio_of_the_future_makes_nothing_old(tmp_path: Path) -> None:
    put(tmp_path, age=-100.0)
    assert survey(tmp_path, (), NOW).oldest_seconds == 0.0


def test_what_is_no_call_is_not_counted(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / ".making").mkdir()
    (tmp_path / str(uuid.uuid4())).write_text("a file")
    # Not as a session id is written.
    (tmp_path / str(uuid.uuid4()).upper()).mkdir()
    assert survey(tmp_path, (), NOW).calls == 0


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / disk.AUDIO).write_bytes(b"x" * 10**6)
    (outside / disk.JOURNAL).write_bytes(b"x" * 10**6)
    spool = tmp_path / "spool"
    spool.mkdir()
    (spool / str(uuid.uuid4())).symlink_to(outside)
    name = put(spool, audio_bytes=None)
    (spool / name / disk.AUDIO).symlink_to(outside / disk.AUDIO)
    (spool / ASIDE).symlink_to(outside)
    found = survey(spool, (), NOW)
    assert found.calls == 1
    assert found.used_bytes < 10**5
    assert found.aside == 0
    # Nor is the spool itself one.
    link = tmp_path / "link"
    link.symlink_to(spool)
    with pytest.raises(OSError, match=r"Not a directory|symbolic"):
        survey(link, (), NOW)


def test_what_was_put_aside_is_counted(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / ASIDE / name).mkdir(parents=True)
    found = survey(tmp_path, (), NOW)
    assert (found.calls, found.aside) == (0, 2)


def test_call_that_goes_while_it_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = [put(tmp_path, age=1000.0) for _ in range(3)]
    put(tmp_path, age=10.0)
    look: Callable[[int, str], object] = module._look

    def take_away(spool_fd: int, name: str) -> object:
        # As others do at any time: its files first, then the folder.
        if name in gone[:2]:
            for path in (tmp_path / name).iterdir():
                path.unlink()
        if name == gone[0]:
            (tmp_path / name).rmdir()
        return look(spool_fd, name)

    monkeypatch.setattr(module, "_look", take_away)
    found = survey(tmp_path, {gone[1], gone[2]}, NOW)
    assert found.calls == 3
    assert found.oldest_seconds == pytest.approx(10.0)


def test_spool_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        survey(tmp_path / "none", (), NOW)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_ten_thousand_calls_keep_no_files_open(tmp_path: Path) -> None:
    for number in range(10_000):
        put(tmp_path, name=str(uuid.UUID(int=number)), audio_bytes=0, age=number)
    before = open_files()
    began = time.thread_time()
    found = survey(tmp_path, (), NOW)
    took = time.thread_time() - began
    assert open_files() == before
    assert found.calls == 10_000
    assert found.oldest_seconds == pytest.approx(9_999.0)
    # Three looks at each; a listing of each folder would be many times more.
    assert took < 5.0
