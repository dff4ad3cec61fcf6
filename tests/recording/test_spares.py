"""Folders of calls that are done, kept empty for calls to come."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from audiohook.errors import SpoolError
from audiohook.protocol.timeline import GapKind
from audiohook.recording import _files, disk, leftovers
from audiohook.recording import spares as spares_module
from audiohook.recording._files import Journals, Lock
from audiohook.recording.journal import (
    Delivered,
    Done,
    GapFact,
    encode,
    utc_text,
)
from audiohook.recording.record import replay
from tests.children import child
from tests.recording.factory import (
    entries,
    is_locked,
    make_closed,
    make_opened,
    running,
)
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from audiohook.recording.spool import Spool
    from audiohook.recording.spooled import SpooledCall

LONG_AGO = time.time() - 2 * leftovers.PATIENCE


async def store(spool: Spool, call: SpooledCall, audio: bytes = b"abcd") -> None:
    """Brings a call to its end."""
    os.pwrite(call.audio_fd, audio, 0)
    await spool.seal(call, make_closed(len(audio)))
    await spool.commit(call, Done())
    await spool.remove(call)


def inodes(folder: Path) -> set[int]:
    return {path.stat().st_ino for path in (folder, *folder.iterdir())}


def spares_of(folder: Path) -> set[Path]:
    return set(folder.glob(f"{disk.NEW}*"))


def spare_of(folder: Path) -> Path:
    (path,) = spares_of(folder)
    return path


def make_old(folder: Path) -> None:
    for path in spares_of(folder):
        os.utime(path, (LONG_AGO, LONG_AGO))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def blocks(folder: Path) -> int:
    return sum(path.stat().st_blocks for path in folder.iterdir())


def exist(paths: Iterable[Path]) -> bool:
    return all(path.is_dir() for path in paths)


async def test_call_that_is_done_leaves_an_empty_folder_for_the_next(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, spares=1) as spool:
        call = await spool.create(make_opened())
        files = inodes(call.folder)
        await store(spool, call)
        spare = spare_of(tmp_path)
        assert entries(tmp_path) == {spare.name}
        assert contents(spare) == {disk.JOURNAL: b"", disk.AUDIO: b""}
        assert blocks(spare) == 0
        assert is_locked(spare)
        make_old(tmp_path)
        opened = make_opened()
        again = await spool.create(opened)
        assert entries(tmp_path) == {again.folder.name} == {opened.session_id}
        assert inodes(again.folder) == files
        # Leftovers are taken in the order of their folders' age.
        assert again.folder.stat().st_mtime > time.time() - 60
        assert (again.folder / disk.JOURNAL).read_bytes() == encode(opened)
        status = (again.folder / disk.JOURNAL).stat()
        assert status.st_blocks * 512 >= status.st_size + disk.JOURNAL_ROOM_BYTES
        assert again.size_bytes == 0
        assert is_locked(again.folder)
        again.release()
        assert not is_locked(again.folder)


async def test_no_more_spares_are_kept_than_wanted(tmp_path: Path) -> None:
    async with running(tmp_path, spares=2) as spool:
        calls = [await spool.create(make_opened()) for _ in range(5)]
        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(store, spool, call)
        assert len(entries(tmp_path)) == 2
        assert len(await _created(spool, 4)) == 4
        assert not spares_of(tmp_path)


async def _quiet(spool: Spool) -> None:
    """Waits until nothing of a spool is at the disk, nor about to be."""
    lanes = spool._lanes, spool._errands

    def at_rest() -> bool:
        return not any(lane.borrowed_tokens for lane in lanes)

    while True:
        await trio.testing.wait_all_tasks_blocked()
        if at_rest():
            return
        await wait_until(at_rest)


async def _created(spool: Spool, count: int) -> list[SpooledCall]:
    calls: list[SpooledCall] = []

    async def create() -> None:
        calls.append(await spool.create(make_opened()))

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(create)
    return calls


async def test_call_whose_audio_is_gone_leaves_a_whole_spare(tmp_path: Path) -> None:
    async with running(tmp_path, spares=1) as spool:
        call = await spool.create(make_opened())
        (call.folder / disk.AUDIO).unlink()
        call.drop_audio()
        await spool.remove(call)
        assert entries(spare_of(tmp_path)) == {disk.JOURNAL, disk.AUDIO}
        call = await spool.create(make_opened())
        os.pwrite(call.audio_fd, b"abcd", 0)
        assert (call.folder / disk.AUDIO).read_bytes() == b"abcd"


async def test_folder_with_something_else_in_it_is_no_spare(tmp_path: Path) -> None:
    async with running(tmp_path, spares=1) as spool:
        call = await spool.create(make_opened())
        (call.folder / "foreign").write_text("")
        with pytest.raises(SpoolError, match="not empty"):
            await spool.remove(call)
        assert entries(call.folder) == {"foreign"}
        assert entries(tmp_path) == {call.folder.name}


async def test_spare_that_is_gone_is_done_without(tmp_path: Path) -> None:
    async with running(tmp_path, spares=2) as spool:
        for call in await _created(spool, 2):
            await store(spool, call)
        first, second = spares_of(tmp_path)
        first.rename(tmp_path.with_name("elsewhere"))
        (second / disk.AUDIO).unlink()
        calls = await _created(spool, 2)
        assert {call.folder.name for call in calls} <= entries(tmp_path)
        for call in calls:
            os.pwrite(call.audio_fd, b"abcd", 0)
            await spool.seal(call, make_closed(4))
        # What is left of it is cleared away by whoever looks for leftovers.
        make_old(tmp_path)
        assert await spool.adopt() == []
        assert exist(call.folder for call in calls)


async def test_spares_of_another_process_are_left_alone(tmp_path: Path) -> None:
    async with running(tmp_path, spares=4) as spool:
        await store(spool, await spool.create(make_opened()))
        spare = spare_of(tmp_path)
        make_old(tmp_path)
        async with running(tmp_path, spares=4) as other:
            assert await other.adopt() == []
            assert await spool.adopt() == []
            assert is_locked(spare)
            await store(other, await other.create(make_opened()))
            assert exist([spare])
        again = await spool.create(make_opened())
        assert not exist([spare])
        assert is_locked(again.folder)


async def test_spares_are_kept_from_one_process_to_the_next(tmp_path: Path) -> None:
    async with running(tmp_path, spares=4) as spool:
        for call in await _created(spool, 4):
            await store(spool, call)
    spares = spares_of(tmp_path)
    assert len(spares) == 4
    assert not any(map(is_locked, spares))
    make_old(tmp_path)
    async with running(tmp_path, spares=2) as spool:
        assert await spool.adopt() == []
        left = spares_of(tmp_path)
        assert len(left) == 2
        assert left < spares
        assert all(map(is_locked, left))
        await _created(spool, 2)
        assert not spares_of(tmp_path)


async def test_spool_before_this_one_clears_spares_away(tmp_path: Path) -> None:
    """To a process that keeps none, one is a call that was never finished."""
    async with running(tmp_path, spares=1) as spool:
        await store(spool, await spool.create(make_opened()))
    make_old(tmp_path)
    async with running(tmp_path, spares=0) as spool:
        assert await spool.adopt() == []
        assert entries(tmp_path) == set()


async def test_call_in_a_folder_used_again_is_as_old_as_it_is(tmp_path: Path) -> None:
    """By which it is told when it ended, if it was cut off before any audio."""
    async with running(tmp_path, spares=1) as spool:
        await store(spool, await spool.create(make_opened()))
        age(spare_of(tmp_path))
        call = await spool.create(make_opened())
        call.release()
        (call,) = await spool.adopt()
        assert call.record.closed is not None
        assert call.record.closed.ended_at > utc_text(LONG_AGO + 1)


def age(folder: Path) -> None:
    for path in (folder, *folder.iterdir()):
        os.utime(path, (LONG_AGO, LONG_AGO))


# Made ahead


async def _make_one(spool: Spool) -> float:
    """Has a folder made ahead; for how long the disk is to be left alone then."""
    return await spool._spares.make_some(
        1, spool._spool_fd, spool._demand(), spool._errands
    )


async def test_folders_are_made_ahead_and_again_when_half_are_left(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, spares=100, ahead=40) as spool:
        await wait_until(lambda: spool._spares.left == 40)
        for spare in spares_of(tmp_path):
            assert contents(spare) == {disk.JOURNAL: b"", disk.AUDIO: b""}
            assert is_locked(spare)
        made = {path.stat().st_ino for path in spares_of(tmp_path)}
        calls = await _created(spool, 20)
        assert {call.folder.stat().st_ino for call in calls} < made
        await _quiet(spool)
        assert len(spares_of(tmp_path)) == 20
        for call in calls:
            assert blocks(call.folder) > 0
            await store(spool, call)
        assert len(spares_of(tmp_path)) == 40
        await _created(spool, 21)
        await wait_until(lambda: len(spares_of(tmp_path)) == 40)
        assert spool.statistics().faults == 0
    assert not any(map(is_locked, spares_of(tmp_path)))


async def test_the_disk_is_left_alone_for_longer_beside_live_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spares_module, "_LEAST_PAUSE", 0.0)
    monkeypatch.setattr(spares_module, "_PAUSES", 0)
    async with running(tmp_path, spares=100) as spool:
        assert await _make_one(spool) == 0
        (call,) = await _created(spool, 1)
        assert await _make_one(spool) > 0
        # Nor is it touched at all while a call waits for it.
        spool._waiting_calls += 1
        left = spool._spares.left
        pause = await _make_one(spool)
        assert (pause, spool._spares.left) == (spares_module._LEAST_PAUSE, left)
        spool._waiting_calls -= 1
        await store(spool, call)
        assert await _make_one(spool) == 0


async def test_no_more_folders_are_made_ahead_than_are_kept(tmp_path: Path) -> None:
    async with running(tmp_path, spares=3, ahead=40) as spool:
        await wait_until(lambda: len(spares_of(tmp_path)) == 3)
        await _quiet(spool)
        assert len(spares_of(tmp_path)) == 3


async def test_no_folders_are_made_ahead_where_locks_need_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "locks_last", lambda _fd: False)
    async with running(tmp_path, spares=4, ahead=4) as spool:
        await _quiet(spool)
        assert entries(tmp_path) == set()


async def test_disk_without_room_is_not_filled_with_folders(tmp_path: Path) -> None:
    async with running(tmp_path, spares=4, ahead=4, low_water_bytes=2**60) as spool:
        await _quiet(spool)
        assert entries(tmp_path) == set()
        assert await _make_one(spool) == spares_module._RETRY
        assert entries(tmp_path) == set()


async def test_folders_ahead_are_tried_again_once_the_disk_makes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spares_module, "_RETRY", 0.01)
    make, refusals = disk.make_spares, [2]

    def refuse_at_first(
        spool_fd: int, count: int
    ) -> tuple[list[disk.Spare], OSError | None]:
        if refusals[0]:
            refusals[0] -= 1
            spares, _ = make(spool_fd, 1)
            return spares, OSError(errno.ENOSPC, "no room")
        return make(spool_fd, count)

    monkeypatch.setattr(disk, "make_spares", refuse_at_first)
    async with running(tmp_path, spares=8, ahead=5) as spool:
        await wait_until(lambda: len(spares_of(tmp_path)) == 5)
        assert all(map(is_locked, spares_of(tmp_path)))
        assert len(await _created(spool, 5)) == 5


def test_spare_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    spool_fd = disk.open_spool(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        (spare,), failure = disk.make_spares(spool_fd, 1)
        assert failure is None
        next_fd = os.dup(spool_fd)
        os.close(next_fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (next_fd + 1, hard))
        spares, failure = disk.make_spares(spool_fd, 3)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert spares == []
        assert failure is not None
        assert failure.errno == errno.EMFILE
        assert entries(tmp_path) == {spare.name}
        # Names that are taken are somebody else's.
        ((code, lock),) = _files.make_spares(spool_fd, [spare.name.encode()])
        assert (code, lock.held) == (errno.EEXIST, False)
        assert contents(tmp_path / spare.name) == {disk.JOURNAL: b"", disk.AUDIO: b""}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(spool_fd)


def test_folders_beyond_the_limit_are_given_up(tmp_path: Path) -> None:
    spool_fd = disk.open_spool(tmp_path)
    try:
        made, failure = disk.make_spares(spool_fd, 3)
        assert failure is None
        spares = spares_module.Spares(2)
        spares.keep(made)
        assert (spares.left, spares.wanted) == (2, 0)
        assert set(spares.names) < entries(tmp_path)
        assert sum(map(is_locked, spares_of(tmp_path))) == 2
        spares.close()
        assert not any(map(is_locked, spares_of(tmp_path)))
    finally:
        os.close(spool_fd)


# Killed between any two steps


def make_state(
    folder: Path, *, journal: bytes | None, audio: bytes | None = None
) -> None:
    folder.mkdir()
    for name, data in ((disk.JOURNAL, journal), (disk.AUDIO, audio)):
        if data is not None:
            (folder / name).write_bytes(data)


OPENED = make_opened()
FIRST = encode(OPENED)
CLOSED = FIRST + encode(make_closed(4))
DELIVERED = CLOSED + encode(Delivered())
WHOLE = CLOSED + encode(Done())


@pytest.mark.parametrize(
    ("journal", "audio"),
    [(None, None), (b"", None), (b"", b""), (FIRST[:20], b""), (FIRST, b"")],
    ids=["folder", "journal", "audio", "half a line", "line"],
)
@pytest.mark.parametrize("spares", [0, 4])
async def test_killed_while_a_call_was_being_made(
    tmp_path: Path, journal: bytes | None, audio: bytes | None, spares: int
) -> None:
    """It has no name yet, and nobody was told of it."""
    made = tmp_path / f"{disk.NEW}0123456789abcdef"
    make_state(made, journal=journal, audio=audio)
    async with running(tmp_path, spares=spares) as spool:
        # Whoever makes it may be at it still.
        assert await spool.adopt() == []
        assert entries(tmp_path) == {made.name}
        make_old(tmp_path)
        assert await spool.adopt() == []
        kept = {made.name} if spares and journal is not None else set()
        assert entries(tmp_path) == kept
        call = await spool.create(OPENED)
        assert entries(tmp_path) == {OPENED.session_id}
        assert (call.folder / disk.JOURNAL).read_bytes() == FIRST


async def test_killed_once_a_call_has_its_name(tmp_path: Path) -> None:
    make_state(tmp_path / OPENED.session_id, journal=FIRST, audio=b"")
    async with running(tmp_path, spares=4) as spool:
        (call,) = await spool.adopt()
        assert call.record.opened == OPENED
        assert call.record.closed is not None


@pytest.mark.parametrize(
    ("journal", "audio"),
    [(WHOLE, b"abcd"), (WHOLE, b""), (b"", b"")],
    ids=["nothing", "audio", "journal"],
)
async def test_killed_while_a_call_was_being_emptied(
    tmp_path: Path, journal: bytes, audio: bytes
) -> None:
    make_state(tmp_path / OPENED.session_id, journal=journal, audio=audio)
    async with running(tmp_path, spares=4) as spool:
        assert await spool.adopt() == []
        assert entries(tmp_path) == set()


@pytest.mark.parametrize("journal", [WHOLE, DELIVERED, CLOSED])
async def test_audio_beside_the_journal_of_a_call_before_is_kept(
    tmp_path: Path, journal: bytes
) -> None:
    """As a power cut may leave it, where a file system keeps no order."""
    name = make_opened().session_id
    make_state(tmp_path / name, journal=journal, audio=b"abcd")
    async with running(tmp_path, spares=4) as spool:
        assert await spool.adopt() == []
        assert (tmp_path / "aside" / name / disk.AUDIO).read_bytes() == b"abcd"


KILLED = """
import os, sys, trio
from pathlib import Path
from tests.recording.factory import make_opened, running
from tests.recording.test_spares import store
async def main():
    async with running(Path(sys.argv[1]), spares=8) as spool:
        calls = [await spool.create(make_opened()) for _ in range(5)]
        for call in calls:
            await store(spool, call)
        calls = [await spool.create(make_opened()) for _ in range(2)]
        for call in calls:
            os.pwrite(call.audio_fd, b"efgh", 0)
        print(*(call.folder.name for call in calls), flush=True)
        await trio.sleep_forever()
trio.run(main)
"""


def kill_a_process_with_spares(folder: Path) -> set[str]:
    command = [sys.executable, "-c", KILLED, str(folder)]
    with child(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        names = set(process.stdout.readline().split())
        assert all(map(is_locked, (folder / name for name in entries(folder))))
        process.kill()
    return names


async def test_process_that_is_killed_leaves_calls_whole_and_spares_free(
    tmp_path: Path,
) -> None:
    names = kill_a_process_with_spares(tmp_path)
    assert len(spares_of(tmp_path)) == 3
    assert not any(map(is_locked, spares_of(tmp_path)))
    async with running(tmp_path, spares=8) as spool:
        calls = await spool.adopt()
        assert {call.folder.name for call in calls} == names
        assert [call.read_at(0, 10) for call in calls] == [b"efgh"] * 2


# Locks and files


def open_files() -> set[int]:
    return {int(path.name) for path in Path("/proc/self/fd").iterdir()}


async def test_live_call_has_one_file_open(tmp_path: Path) -> None:
    async with running(tmp_path) as spool:
        before = len(open_files())
        calls = await _created(spool, 20)
        assert len(open_files()) == before + 20
        for call in calls:
            spool.append(call, GapFact(GapKind.PAUSED, 2, 8))
            os.pwrite(call.audio_fd, b"abcd", 0)
            await spool.seal(call, make_closed(4))
        assert len(open_files()) == before + 20
        for call in calls:
            await spool.remove(call)
        assert len(open_files()) == before


async def test_disk_that_forgets_locks_keeps_files_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "locks_last", lambda _fd: False)
    async with running(tmp_path, spares=4) as spool:
        call = await spool.create(make_opened())
        assert call.files.lock.fd >= 0
        assert is_locked(call.folder)
        await store(spool, call)
        # A spare would have to keep a file open too.
        assert entries(tmp_path) == set()
        left = make_opened()
        make_state(tmp_path / left.session_id, journal=encode(left), audio=b"")
        (adopted,) = await spool.adopt()
        assert adopted.files.lock.fd >= 0
        assert is_locked(adopted.folder)


def test_lock_lasts_until_it_is_closed(tmp_path: Path) -> None:
    spool_fd = disk.open_spool(tmp_path)
    try:
        assert disk.locks_last(spool_fd)
        assert entries(tmp_path) == set()
    finally:
        os.close(spool_fd)
    path = tmp_path / disk.JOURNAL
    path.write_bytes(b"")
    fd = os.open(path, os.O_RDWR)
    assert leftovers._lock(fd)
    lock = Lock(fd)
    lock.map()
    lock.map()
    assert lock.fd == -1
    assert is_locked(tmp_path)
    path.rename(tmp_path / "x")
    (tmp_path / "x").write_bytes(b"12345")
    (tmp_path / "x").rename(path)
    assert is_locked(tmp_path)
    lock.close()
    lock.close()
    assert not lock.held
    assert not is_locked(tmp_path)
    fd = os.open(path, os.O_RDWR)
    assert leftovers._lock(fd)
    lock = Lock(fd)
    lock.map()
    del lock
    assert not is_locked(tmp_path)


def no_more_files() -> Callable[[], None]:
    """Lets no file be opened until told otherwise."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(open_files()) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest, limits[1]))
    taken: list[int] = []
    with pytest.raises(OSError, match="Too many open files"):
        taken.extend(os.open("/dev/null", os.O_RDONLY) for _ in range(highest))

    def mend() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in taken:
            os.close(fd)

    return mend


async def test_call_is_sealed_though_no_file_is_left(tmp_path: Path) -> None:
    async with running(tmp_path) as spool:
        call, other = await _created(spool, 2)
        os.pwrite(call.audio_fd, b"abcd", 0)
        mend = no_more_files()
        try:
            for _ in range(2):
                await spool.commit(other, GapFact(GapKind.PAUSED, 2, 8))
            await spool.seal(call, make_closed(4))
            with pytest.raises(SpoolError, match="Too many open files"):
                await spool.create(make_opened())
        finally:
            mend()
        assert spool.can_record
        record, _ = replay((call.folder / disk.JOURNAL).read_bytes())
        assert record is not None
        assert record.closed == make_closed(4)
        assert not call.is_doubtful
        assert entries(tmp_path) == {call.folder.name, other.folder.name}


@pytest.mark.parametrize("spares", [0, 4])
async def test_first_line_that_is_not_written_whole_leaves_nothing(
    tmp_path: Path, spares: int
) -> None:
    async with running(tmp_path, spares=spares) as spool:
        if spares:
            await store(spool, await spool.create(make_opened()))
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))
        try:
            with pytest.raises(SpoolError, match="File too large"):
                await spool.create(make_opened())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        # A spare that has half a line is cleared away like any other leftover.
        assert len(spares_of(tmp_path)) == len(entries(tmp_path)) == bool(spares)
        make_old(tmp_path)
        assert await spool.adopt() == []
        call = await spool.create(make_opened())
        assert entries(tmp_path) == {call.folder.name}


def test_steps_of_a_call_depend_on_its_first(tmp_path: Path) -> None:
    spool_fd = disk.open_spool(tmp_path)
    journals = Journals(spool_fd)
    (files,) = disk.create(spool_fd, [(OPENED.session_id, FIRST)], [])
    assert isinstance(files, disk.CallFiles)
    os.pwrite(files.audio_fd, b"abcdef", 0)
    try:
        steps = [
            disk.Step(b"one\n"),
            disk.Step(b"two\n", fit_bytes=8),
            disk.Step(b"three\n", fit_bytes=4),
            disk.Step(b"", fit_bytes=2),
        ]
        disk.write_steps(journals, [(files, steps)])
        codes = [each.failure and each.failure.errno for each in steps]
        assert codes == [None, errno.ENODATA, None, None]
        path = tmp_path / OPENED.session_id
        assert (path / disk.JOURNAL).read_bytes() == FIRST + b"one\nthree\n"
        assert (path / disk.AUDIO).read_bytes() == b"ab"
        (path / disk.JOURNAL).rename(path / "away")
        steps = [disk.Step(b"four\n"), disk.Step(b"five\n"), disk.Step(b"")]
        disk.write_steps(journals, [(files, steps)])
        codes = [each.failure and each.failure.errno for each in steps]
        assert codes == [errno.ENOENT] * 3
        (path / "away").rename(path / disk.JOURNAL)
        disk.write_steps(journals, [(files, steps := [disk.Step(b"six\n")])])
        assert steps[0].failure is None
        assert (path / disk.JOURNAL).read_bytes() == FIRST + b"one\nthree\nsix\n"
    finally:
        journals.close()
        files.close()
        os.close(spool_fd)
