from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audiohook.errors import SpoolError
from audiohook.protocol.timeline import Gap, GapKind
from audiohook.recording import _files, disk, leftovers
from audiohook.recording.groups import Group
from audiohook.recording.journal import (
    ClosedFact,
    Done,
    GapFact,
    LanguageFact,
    Media,
    Opened,
    Stored,
    encode,
    replay,
)
from audiohook.recording.spool import Spool
from audiohook.recording.survey import SpoolSurvey, survey
from tests.recording.factory import entries, make_closed, make_opened, running

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from audiohook.recording._files import Journals, Lock
    from audiohook.recording.journal import CallRecord, Fact
    from audiohook.recording.spooled import SpooledCall

    Calls = Collection[tuple[disk.CallFiles, list[disk.Step]]]
    Requests = list[tuple[bytes, bytes, bytes, bytes | None]]
    Made = list[tuple[int, int, int, Lock | None]]

GAP = GapFact(GapKind.PAUSED, 2, 8)


def journal_of(folder: Path) -> CallRecord:
    record, _ = replay((folder / disk.JOURNAL).read_bytes())
    assert record is not None
    return record


def is_locked(folder: Path) -> bool:
    with (folder / disk.JOURNAL).open() as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def write_call(
    spool_folder: Path,
    facts: Sequence[Fact | bytes],
    audio: bytes | None = b"",
) -> Path:
    """Leaves a call behind as a killed process would."""
    lines = [fact if isinstance(fact, bytes) else encode(fact) for fact in facts]
    opened = next(fact for fact in facts if isinstance(fact, Opened))
    folder = spool_folder / opened.session_id
    folder.mkdir(parents=True)
    (folder / disk.JOURNAL).write_bytes(b"".join(lines))
    if audio is not None:
        (folder / disk.AUDIO).write_bytes(audio)
    return folder


@pytest.fixture
def failing(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str, int], Callable[[], None]]:
    """Lets a function of `os` fail with an errno until told otherwise."""

    def fail(name: str, code: int) -> Callable[[], None]:
        original = getattr(os, name)
        broken = True

        def function(*args: object, **kwargs: object) -> object:
            if broken:
                raise OSError(code, os.strerror(code))
            return original(*args, **kwargs)

        def mend() -> None:
            nonlocal broken
            broken = False

        monkeypatch.setattr(os, name, function)
        return mend

    return fail


@pytest.fixture
def full(
    monkeypatch: pytest.MonkeyPatch, failing: Callable[[str, int], Callable[[], None]]
) -> Callable[[int], Callable[[], None]]:
    """Lets no byte be written, with an errno, until told otherwise."""
    write_steps, create_all = disk.write_steps, _files.create_all

    def refuse(code: int) -> Callable[[], None]:
        broken = True
        mend_python = failing("pwrite", code)

        def write(journals: Journals, calls: Calls) -> None:
            if not broken:
                write_steps(journals, calls)
                return
            for _, steps in calls:
                for step in steps:
                    step.failure = OSError(code, os.strerror(code))

        def create(spool_fd: int, requests: Requests, **rest: int) -> Made:
            if not broken:
                return create_all(
                    spool_fd,
                    requests,
                    journal_room_bytes=rest["journal_room_bytes"],
                    keep_file=bool(rest["keep_file"]),
                )
            return [(code, 0, -1, None)]

        def mend() -> None:
            nonlocal broken
            broken = False
            mend_python()

        monkeypatch.setattr(disk, "write_steps", write)
        monkeypatch.setattr(_files, "create_all", create)
        return mend

    return refuse


# Creating


async def test_create_takes_a_session_id_that_is_there_already(tmp_path: Path) -> None:
    """A client may try again with the same one before the first call is stored."""
    opened = make_opened()
    names = [opened.session_id, *(f"{opened.session_id}_{n}" for n in range(2, 100))]
    async with running(tmp_path) as spool:
        calls = [await spool.create(opened) for _ in names]
        assert [call.folder.name for call in calls] == names
        assert all(map(is_locked, (call.folder for call in calls)))
        with pytest.raises(SpoolError, match="cannot be created") as caught:
            await spool.create(opened)
        assert not caught.value.full
        assert entries(tmp_path) == set(names)
        assert await spool.probe()
        os.pwrite(calls[1].audio_fd, b"ab", 0)
        for call in calls:
            call.release()
        assert len(await spool.adopt()) == len(names)
        survey = survey_of(tmp_path, {opened.session_id})
        assert (survey.calls, survey.oldest_seconds) == (len(names), 0)


def survey_of(folder: Path, live: set[str]) -> SpoolSurvey:
    return survey(folder, live, time.time())


async def test_create_makes_private_files_and_locks_them(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "spool"
    async with running(folder) as spool:
        opened = make_opened()
        call = await spool.create(opened)
        assert call.folder == folder / opened.session_id
        assert entries(folder) == {opened.session_id}
        assert entries(call.folder) == {disk.JOURNAL, disk.AUDIO}
        assert folder.stat().st_mode & 0o777 == 0o700
        assert call.folder.stat().st_mode & 0o777 == 0o700
        for path in call.folder.iterdir():
            assert path.stat().st_mode & 0o777 == 0o600
        assert journal_of(call.folder).opened == opened
        assert is_locked(call.folder)
        assert not os.get_inheritable(call.audio_fd)
        call.release()
        assert not is_locked(call.folder)


async def test_create_reserves_room_for_the_journal(tmp_path: Path) -> None:
    async with running(tmp_path) as spool:
        call = await spool.create(make_opened())
        status = (call.folder / disk.JOURNAL).stat()
        assert status.st_size < 4096
        assert status.st_blocks * 512 >= status.st_size + disk.JOURNAL_ROOM_BYTES


async def test_calls_of_one_instant_share_a_few_hops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hops: list[str] = []
    run, sync = Group.run, disk.Syncer.sync

    def counted_run(self: Group) -> None:
        hops.append("write")
        run(self)

    def counted_sync(self: disk.Syncer, calls: Collection[disk.CallFiles]) -> None:
        hops.append("sync")
        sync(self, calls)

    monkeypatch.setattr(Group, "run", counted_run)
    monkeypatch.setattr(disk.Syncer, "sync", counted_sync)
    async with running(tmp_path) as spool:
        calls: list[SpooledCall] = []

        async def begin() -> None:
            calls.append(await spool.create(make_opened()))

        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(begin)
        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(spool.seal, call, make_closed(0))
        assert len(entries(tmp_path)) == 200
        # One may go ahead alone before the others have asked.
        assert hops.count("write") <= 4
        assert hops.count("sync") <= 2
        assert all(journal_of(call.folder).closed is not None for call in calls)


async def test_spool_that_cannot_be_written_says_so_before_the_first_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_spool_fd: int) -> None:
        raise OSError(errno.EROFS, "read-only file system")

    write_call(tmp_path, [make_opened(), make_closed(2)], b"ab")
    monkeypatch.setattr(disk, "try_writing", refuse)
    async with running(tmp_path) as spool:
        assert not spool.can_record
        assert spool.statistics().faults == 1
        assert len(await spool.adopt()) == 1
        with pytest.raises(SpoolError, match="takes no new calls: read-only"):
            await spool.create(make_opened())
        monkeypatch.undo()
        assert await spool.probe()
        await spool.create(make_opened())


async def test_create_below_low_water_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, low_water_bytes=2**60) as spool:
        assert not spool.can_record
        assert spool.free_bytes > 0
        with pytest.raises(SpoolError, match="must stay free") as caught:
            await spool.create(make_opened())
        assert caught.value.full
        assert entries(tmp_path) == set()


@pytest.mark.parametrize(
    ("code", "no_room", "refuses"),
    [
        (errno.ENOSPC, True, True),
        (errno.EDQUOT, True, True),
        (errno.EIO, False, True),
        (errno.EROFS, False, True),
        (errno.EMFILE, False, False),
    ],
)
async def test_create_on_a_disk_that_refuses(
    tmp_path: Path,
    full: Callable[[int], Callable[[], None]],
    code: int,
    no_room: bool,
    refuses: bool,
) -> None:
    async with running(tmp_path) as spool:
        mend = full(code)
        with pytest.raises(SpoolError, match=os.strerror(code)) as caught:
            await spool.create(make_opened())
        assert caught.value.full is no_room
        assert isinstance(caught.value.__cause__, OSError)
        assert entries(tmp_path) == set()
        assert spool.can_record is not refuses
        assert await spool.probe() is not refuses
        mend()
        assert await spool.probe()
        assert entries(tmp_path) == set()
        await spool.create(make_opened())


async def test_create_refuses_json_that_cannot_be_written(tmp_path: Path) -> None:
    async with running(tmp_path) as spool:
        with pytest.raises(SpoolError, match="cannot be written"):
            await spool.create(make_opened(custom_config=float("nan")))
        assert entries(tmp_path) == set()


async def test_cancelled_create_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = disk.create
    made: list[disk.CallFiles | OSError] = []
    async with running(tmp_path) as spool:
        scope = trio.CancelScope()

        def slow_create(
            spool_fd: int,
            requests: Sequence[tuple[str, bytes]],
            spares: list[disk.Spare],
            *,
            keep_files: bool,
        ) -> list[disk.CallFiles | OSError]:
            files = create(spool_fd, requests, spares, keep_files=keep_files)
            made.extend(files)
            trio.from_thread.run_sync(scope.cancel)
            return files

        monkeypatch.setattr(disk, "create", slow_create)
        with scope:
            await spool.create(make_opened())
        assert scope.cancelled_caught
        monkeypatch.undo()
        await spool.flush()
        (files,) = made
        assert isinstance(files, disk.CallFiles)
        assert entries(tmp_path) == set()
        assert files.audio_fd == -1
        assert not files.lock.held
        with trio.CancelScope() as scope:
            scope.cancel()
            await spool.create(make_opened())
        await spool.flush()
        assert entries(tmp_path) == set()
        assert spool.statistics().calls == 0


async def test_spool_stopped_while_creating_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = disk.create

    async with trio.open_nursery() as nursery:
        spool = Spool(tmp_path, low_water_bytes=0, spares=0)
        await nursery.start(spool.run)

        def slow_create(
            spool_fd: int,
            requests: Sequence[tuple[str, bytes]],
            spares: list[disk.Spare],
            *,
            keep_files: bool,
        ) -> list[disk.CallFiles | OSError]:
            files = create(spool_fd, requests, spares, keep_files=keep_files)
            trio.from_thread.run_sync(nursery.cancel_scope.cancel)
            return files

        monkeypatch.setattr(disk, "create", slow_create)
        nursery.start_soon(spool.create, make_opened())
    assert entries(tmp_path) == set()
    assert not spool.can_record
    with pytest.raises(SpoolError, match="not running"):
        await spool.create(make_opened())


async def test_spool_stopped_lets_nobody_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks while the last group is at work gets an answer."""
    errors: list[str] = []
    write_steps = disk.write_steps

    async with trio.open_nursery() as callers, trio.open_nursery() as nursery:
        spool = Spool(tmp_path, low_water_bytes=0)
        await nursery.start(spool.run)
        first = await spool.create(make_opened())
        second = await spool.create(make_opened())

        async def ask(work: Callable[[], Awaitable[object]]) -> None:
            try:
                await work()
            except SpoolError as exc:
                errors.append(str(exc))

        async def ask_and_stop() -> None:
            callers.start_soon(ask, lambda: spool.create(make_opened()))
            callers.start_soon(ask, lambda: spool.seal(second, make_closed(0)))
            callers.start_soon(ask, spool.flush)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

        def slow_write(journals: Journals, calls: Calls) -> None:
            monkeypatch.undo()
            trio.from_thread.run(ask_and_stop)
            write_steps(journals, calls)

        monkeypatch.setattr(disk, "write_steps", slow_write)
        callers.start_soon(ask, lambda: spool.seal(first, make_closed(0)))
        await trio.Event().wait()
    # The first seal was written but is not on disk for sure; only the flush is done.
    assert errors == ["the spool is not running"] * 3
    assert spool.statistics().waiting == 0
    assert entries(tmp_path) == {first.folder.name, second.folder.name}
    for call in (first, second):
        call.release()
        assert call.audio_fd == -1


async def test_run_on_something_that_is_no_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("")
    spool = Spool(tmp_path / "spool", low_water_bytes=0)
    with pytest.raises(SpoolError, match="cannot be used"):
        await spool.run()


# Facts


async def test_append_is_written_soon_and_known_at_once(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(tmp_path) as spool:
        call = await spool.create(make_opened())
        spool.append(call, GAP)
        spool.append(call, LanguageFact("fr", 4))
        assert call.record.gaps == [Gap(GapKind.PAUSED, 2, 8)]
        await spool.flush()
        record = journal_of(call.folder)
        assert record.gaps == [Gap(GapKind.PAUSED, 2, 8)]
        assert record.languages == [LanguageFact("fr", 4)]


async def test_append_is_written_when_the_spool_stops(tmp_path: Path) -> None:
    async with running(tmp_path) as spool:
        call = await spool.create(make_opened())
        spool.append(call, GAP)
    assert journal_of(call.folder).gaps == [Gap(GapKind.PAUSED, 2, 8)]


async def test_append_survives_a_disk_that_refuses_for_a_while(
    tmp_path: Path, full: Callable[[int], Callable[[], None]]
) -> None:
    async with running(tmp_path) as spool:
        call = await spool.create(make_opened())
        mend = full(errno.ENOSPC)
        spool.append(call, GAP)
        with pytest.raises(SpoolError, match="1 journals"):
            await spool.flush()
        spool.append(call, LanguageFact("fr", 4))
        with pytest.raises(SpoolError):
            await spool.flush()
        statistics = spool.statistics()
        assert statistics.unwritten == 1
        assert statistics.faults == 1
        # Other calls are not held up, nor is the worker dead.
        assert journal_of(call.folder).gaps == []
        mend()
        await spool.flush()
        assert spool.statistics().unwritten == 0
        record = journal_of(call.folder)
        assert record.gaps == [Gap(GapKind.PAUSED, 2, 8)]
        assert record.languages == [LanguageFact("fr", 4)]


@contextlib.contextmanager
def files_no_longer_than(size_bytes: int) -> Iterator[None]:
    """Has the kernel cut off what is written past a size, and refuse the rest."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


async def test_append_after_half_a_write_overwrites_it(tmp_path: Path) -> None:
    async with running(tmp_path) as spool:
        call = await spool.create(make_opened())
        half_bytes = (call.folder / disk.JOURNAL).stat().st_size + 10
        with files_no_longer_than(half_bytes):
            spool.append(call, GAP)
            with pytest.raises(SpoolError):
                await spool.flush()
        # Killed here, the journal is good up to the line that is torn.
        assert (call.folder / disk.JOURNAL).stat().st_size == half_bytes
        assert journal_of(call.folder).gaps == []
        await spool.seal(call, make_closed(0))
        record = journal_of(call.folder)
        assert record.gaps == [Gap(GapKind.PAUSED, 2, 8)]
        assert record.closed == make_closed(0)


async def test_append_to_a_call_that_was_given_up_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as spool:
        call = await spool.create(make_opened())
        call.release()
        call.release()
        with pytest.raises(SpoolError, match="given up"):
            spool.append(call, GAP)
        with pytest.raises(SpoolError, match="given up"):
            await spool.seal(call, make_closed(0))


# Sealing


async def test_seal_cuts_audio_to_whole_frames_and_writes_the_fact(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as spool:
        call = await spool.create(make_opened())
        os.pwrite(call.audio_fd, b"abcdefgh", 0)
        assert call.size_bytes == 8
        spool.append(call, GAP)
        await spool.seal(call, make_closed(5))
        assert (call.folder / disk.AUDIO).read_bytes() == b"abcd"
        assert call.size_bytes == 4
        assert call.read_at(1, 100) == b"bcd"
        assert call.read_at(4, 1) == b""
        record = journal_of(call.folder)
        assert record.closed == make_closed(4)
        assert record.gaps == [Gap(GapKind.PAUSED, 2, 8)]


async def test_seal_again_writes_no_second_fact(tmp_path: Path) -> None:
    async with running(tmp_path) as spool:
        call = await spool.create(make_opened())
        await spool.seal(call, make_closed(0))
        size = (call.folder / disk.JOURNAL).stat().st_size
        await spool.seal(call, make_closed(0))
        assert (call.folder / disk.JOURNAL).stat().st_size == size


async def test_seal_of_audio_that_is_not_there_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as spool:
        call = await spool.create(make_opened())
        os.pwrite(call.audio_fd, b"ab", 0)
        with pytest.raises(SpoolError, match="2 bytes of audio are stored, not 4"):
            await spool.seal(call, make_closed(4))
        assert call.record.closed is None
        assert journal_of(call.folder).closed is None
        await spool.seal(call, make_closed(call.size_bytes, complete=False))
        assert journal_of(call.folder).closed == make_closed(2, complete=False)


async def test_seal_brings_everything_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()

    def note(fd: int) -> None:
        synced.add(os.fstat(fd).st_ino)

    async with running(tmp_path) as spool:
        call = await spool.create(make_opened())
        monkeypatch.setattr(os, "fdatasync", note)
        monkeypatch.setattr(os, "fsync", note)
        await spool.seal(call, make_closed(0))
        paths = [tmp_path, call.folder, *call.folder.iterdir()]
        assert synced == {path.stat().st_ino for path in paths}


async def test_seal_of_many_syncs_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []

    def note(fd: int) -> int:
        synced.append(fd)
        return 0

    monkeypatch.setattr(disk, "_syncfs", note)
    async with running(tmp_path) as spool:
        calls = [await spool.create(make_opened()) for _ in range(20)]
        monkeypatch.setattr(os, "fdatasync", lambda _fd: pytest.fail("one by one"))
        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(spool.seal, call, make_closed(0))
    assert len(synced) == 1


async def test_seal_of_many_asks_each_when_the_whole_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    def refuse(_fd: int) -> int:
        nonlocal asked
        asked += 1
        return -1

    fdatasync = os.fdatasync
    bad = -1

    def sync_one(fd: int) -> None:
        if fd == bad:
            raise OSError(errno.EIO, "bad sector")
        fdatasync(fd)

    failed: list[SpooledCall] = []
    monkeypatch.setattr(disk, "_syncfs", refuse)
    monkeypatch.setattr(os, "fdatasync", sync_one)

    async with running(tmp_path) as spool:

        async def seal(call: SpooledCall) -> None:
            try:
                await spool.seal(call, make_closed(0))
            except SpoolError:
                failed.append(call)

        calls = [await spool.create(make_opened()) for _ in range(20)]
        bad = calls[7].audio_fd
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for call in calls:
                    nursery.start_soon(seal, call)
        # The kernel tells of an error once; a call that had one stays doubtful.
        bad = -1
        await seal(calls[7])
        assert failed == [calls[7]] * 3
        assert asked == 1


async def test_cancelled_seal_is_sealed_nevertheless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as spool:
        call = await spool.create(make_opened())
        fdatasync = os.fdatasync

        def slow(fd: int) -> None:
            trio.from_thread.run_sync(scope.cancel)
            fdatasync(fd)

        monkeypatch.setattr(os, "fdatasync", slow)
        with trio.CancelScope() as scope:
            await spool.seal(call, make_closed(0))
        assert scope.cancelled_caught
        call.release()
    assert journal_of(call.folder).closed == make_closed(0)
    assert call.audio_fd == -1


async def test_release_waits_for_threads_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fdatasync = os.fdatasync
    open_then: list[int] = []

    async with running(tmp_path) as spool:
        call = await spool.create(make_opened())

        def release_now(fd: int) -> None:
            trio.from_thread.run_sync(call.release)
            open_then.append(call.audio_fd)
            fdatasync(fd)

        monkeypatch.setattr(os, "fdatasync", release_now)
        await spool.seal(call, make_closed(0))
        assert all(fd >= 0 for fd in open_then)
        assert call.audio_fd == -1


async def test_seal_that_cannot_be_written_does_not_count(
    tmp_path: Path, full: Callable[[int], Callable[[], None]]
) -> None:
    async with running(tmp_path) as spool:
        call = await spool.create(make_opened())
        spool.append(call, GAP)
        mend = full(errno.ENOSPC)
        with pytest.raises(SpoolError) as caught:
            await spool.seal(call, make_closed(0))
        assert caught.value.full
        assert call.record.closed is None
        mend()
        await spool.seal(call, make_closed(0, reason="later"))
        record = journal_of(call.folder)
        assert record.closed == make_closed(0, reason="later")
        assert record.gaps == [Gap(GapKind.PAUSED, 2, 8)]


async def test_live_calls_are_synced_regularly(
    tmp_path: Path,
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    synced = trio.Event()

    def note(_fd: int) -> None:
        trio.from_thread.run_sync(synced.set)

    async with running(tmp_path) as spool:
        monkeypatch.setattr(os, "fdatasync", note)
        # Again, since the spool stops looking when there is no call.
        for _ in range(3):
            call = await spool.create(make_opened())
            synced = trio.Event()
            await synced.wait()
            await spool.remove(call)
        synced = trio.Event()
        with trio.move_on_after(1000):
            await synced.wait()
        assert not synced.is_set()


async def test_statistics_tell_how_the_spool_does(tmp_path: Path) -> None:
    async with running(tmp_path) as spool:
        call = await spool.create(make_opened())
        await spool.seal(call, make_closed(0))
        statistics = spool.statistics()
        assert statistics.calls == 1
        assert statistics.waiting == statistics.unwritten == statistics.faults == 0
        assert statistics.free_bytes == spool.free_bytes > 0
        assert statistics.sync_seconds > 0


# Removing


async def test_remove_leaves_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as spool:
        call = await spool.create(make_opened())
        await spool.seal(call, make_closed(0))
        spool.append(call, Done())
        await spool.remove(call)
        assert entries(tmp_path) == set()
        assert call.audio_fd == -1
        assert spool.statistics().calls == 0
        with pytest.raises(SpoolError, match="given up"):
            await spool.remove(call)


async def test_remove_that_fails_gives_the_call_up(tmp_path: Path) -> None:
    async with running(tmp_path) as spool:
        call = await spool.create(make_opened())
        await spool.seal(call, make_closed(0))
        await spool.commit(call, Done())
        (call.folder / "foreign").write_text("")
        with pytest.raises(SpoolError, match="not empty"):
            await spool.remove(call)
        assert call.audio_fd == -1
        assert entries(call.folder) == {"foreign"}


# Adopting


async def test_adopt_takes_a_call_that_was_cut_off(tmp_path: Path) -> None:
    opened = make_opened()
    folder = write_call(tmp_path, [opened, GAP], b"abcde")
    os.utime(folder / disk.AUDIO, (1_000_000_000, 1_000_000_000))
    async with running(tmp_path) as spool:
        (call,) = await spool.adopt()
        expected = ClosedFact(
            "interrupted", 4, "2001-09-09T01:46:40.000Z", complete=False
        )
        assert call.record.opened == opened
        assert call.record.closed == expected
        assert call.read_at(0, 10) == b"abcd"
        assert journal_of(folder).closed == expected
        assert is_locked(folder)
        assert await spool.adopt() == []
        await spool.remove(call)
        assert entries(tmp_path) == set()


KILLED_PROCESS = """
import os, sys, trio
from pathlib import Path
from tests.recording.factory import make_opened, running
async def main():
    async with running(Path(sys.argv[1])) as spool:
        call = await spool.create(make_opened())
        os.pwrite(call.audio_fd, b"abcd", 0)
        print(call.folder.name, flush=True)
        await trio.sleep_forever()
trio.run(main)
"""


def kill_a_process_with_a_call(folder: Path) -> str:
    command = [sys.executable, "-c", KILLED_PROCESS, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        assert is_locked(folder / name)
        process.kill()
    return name


async def test_adopt_takes_the_call_of_a_process_that_was_killed(
    tmp_path: Path,
) -> None:
    name = kill_a_process_with_a_call(tmp_path)
    async with running(tmp_path) as spool:
        (call,) = await spool.adopt()
        assert call.folder.name == name
        assert call.read_at(0, 10) == b"abcd"


async def test_adopt_takes_a_sealed_call_as_it_is(tmp_path: Path) -> None:
    folder = write_call(tmp_path, [make_opened(), make_closed(4)], b"abcd")
    before = (folder / disk.JOURNAL).read_bytes()
    async with running(tmp_path) as spool:
        (call,) = await spool.adopt()
        assert call.record.closed == make_closed(4)
        assert (folder / disk.JOURNAL).read_bytes() == before


async def test_adopt_marks_a_sealed_call_whose_audio_is_gone(tmp_path: Path) -> None:
    write_call(tmp_path, [make_opened(), make_closed(4)], b"ab")
    async with running(tmp_path) as spool:
        (call,) = await spool.adopt()
        closed = call.record.closed
        assert closed is not None
        assert (closed.reason, closed.stored_bytes, closed.complete) == (
            "damaged",
            2,
            False,
        )


async def test_adopt_leaves_calls_of_other_processes(tmp_path: Path) -> None:
    folder = write_call(tmp_path, [make_opened()], b"ab")
    async with running(tmp_path) as spool, running(tmp_path) as other:
        own = await spool.create(make_opened())
        with (folder / disk.JOURNAL).open() as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            assert await spool.adopt() == []
            assert await other.adopt() == []
        (call,) = await other.adopt()
        assert call.folder == folder
        assert await spool.adopt() == []
        own.release()
        (own_again,) = await spool.adopt()
        assert own_again.folder == own.folder


async def test_adopt_takes_no_more_than_asked(tmp_path: Path) -> None:
    for _ in range(5):
        write_call(tmp_path, [make_opened()])
    async with running(tmp_path) as spool:
        first = await spool.adopt(3)
        second = await spool.adopt(3)
        assert (len(first), len(second)) == (3, 2)
        assert {call.folder for call in first}.isdisjoint(
            call.folder for call in second
        )


async def test_adopt_takes_the_oldest_first(tmp_path: Path) -> None:
    folders = [write_call(tmp_path, [make_opened()], b"ab") for _ in range(9)]
    by_age = sorted(folders, key=lambda folder: folder.name[::-1])
    for age, folder in enumerate(reversed(by_age)):
        os.utime(folder, (0, time.time() - 60 * age))
    async with running(tmp_path) as spool:
        adopted = [await spool.adopt(3) for _ in range(3)]
    assert [{call.folder for call in calls} for calls in adopted] == [
        set(by_age[start : start + 3]) for start in (0, 3, 6)
    ]


async def test_adopt_finishes_what_was_being_removed(tmp_path: Path) -> None:
    write_call(tmp_path, [make_opened(), make_closed(4), Done()], b"abcd")
    write_call(tmp_path, [make_opened(), make_closed(4), Done()], None)
    (tmp_path / make_opened().session_id).mkdir()
    async with running(tmp_path) as spool:
        assert await spool.adopt() == []
        assert entries(tmp_path) == set()


@pytest.mark.parametrize("journal", [b"", b'{"fact":"opened","session_id":"1', None])
async def test_adopt_removes_a_call_that_never_began(
    tmp_path: Path, journal: bytes | None
) -> None:
    folder = tmp_path / make_opened().session_id
    folder.mkdir()
    (folder / disk.AUDIO).write_bytes(b"")
    if journal is not None:
        (folder / disk.JOURNAL).write_bytes(journal)
    async with running(tmp_path) as spool:
        assert await spool.adopt() == []
        assert entries(tmp_path) == set()


async def test_adopt_removes_half_made_calls_once_they_are_old(tmp_path: Path) -> None:
    opened = make_opened()
    old, new, empty = (tmp_path / f"{disk.NEW}{name}" for name in "abc")
    write_call(tmp_path, [opened]).rename(old)
    write_call(tmp_path, [opened]).rename(new)
    empty.mkdir()
    held = write_call(tmp_path, [opened]).rename(tmp_path / f"{disk.NEW}d")
    full = write_call(tmp_path, [opened], b"ab").rename(tmp_path / f"{disk.NEW}e")
    probe = tmp_path / f"{disk.PROBE}a"
    probe.write_bytes(b"")
    fresh = tmp_path / f"{disk.PROBE}b"
    fresh.write_bytes(b"")
    long_ago = time.time() - 2 * leftovers.PATIENCE
    for path in (old, empty, held, full, probe):
        os.utime(path, (long_ago, long_ago))
    async with running(tmp_path) as spool:
        with (held / disk.JOURNAL).open() as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            assert await spool.adopt() == []
        assert entries(tmp_path) == {new.name, held.name, fresh.name, "aside"}
        assert entries(tmp_path / "aside") == {full.name}


def make_nonsense(spool: Path, outside: Path) -> dict[str, tuple[Path, str]]:
    """All kinds of things that are no calls, with what is said of each."""
    spool.mkdir(exist_ok=True)
    things: dict[str, tuple[Path, str]] = {}

    def add(path: Path, reason: str) -> None:
        things[path.name] = (path, reason)

    def name() -> Path:
        return spool / make_opened().session_id

    note = spool / "notes.txt"
    note.write_text("hello")
    add(note, "name is not a session id")
    for prefix in ("", disk.NEW):
        # No text in any encoding that we write.
        strange = spool / os.fsdecode(prefix.encode() + b"caf\xe9")
        strange.write_text("")
        add(strange, "not a folder" if prefix else "name is not a session id")
    probe = spool / f"{disk.PROBE}a"
    probe.mkdir()
    add(probe, "not a plain file")
    upper = spool / make_opened().session_id.upper()
    upper.mkdir()
    add(upper, "name is not a session id")
    plain = name()
    plain.write_text("")
    add(plain, "not a folder")
    link = name()
    link.symlink_to(outside)
    add(link, "not a folder")
    pipe = name()
    os.mkfifo(pipe)
    add(pipe, "not a folder")
    unreadable = write_call(spool, [make_opened(), b"{]\n", Done()], b"abcd")
    add(unreadable, "journal line 2")
    missing = write_call(spool, [make_opened(), GAP], None)
    add(missing, "audio is missing")
    headless = name()
    headless.mkdir()
    (headless / disk.AUDIO).write_bytes(b"abcd")
    add(headless, "no journal")
    torn = name()
    torn.mkdir()
    (torn / disk.AUDIO).write_bytes(b"abcd")
    (torn / disk.JOURNAL).write_bytes(b'{"fact":"op')
    add(torn, "no first line")
    foreign = name()
    foreign.mkdir()
    (foreign / "x").write_text("")
    add(foreign, "no journal")
    other = write_call(spool, [make_opened()], b"ab")
    moved = other.rename(name())
    add(moved, "another session")
    for entry in (disk.JOURNAL, disk.AUDIO):
        linked = write_call(spool, [make_opened()], b"ab")
        target = outside / f"{linked.name}-{entry}"
        (linked / entry).rename(target)
        (linked / entry).symlink_to(target)
        add(linked, f"{entry} is not a plain file")
        folder = write_call(spool, [make_opened()], b"ab")
        (folder / entry).unlink()
        (folder / entry).mkdir()
        add(folder, f"{entry} is not a plain file")
        piped = write_call(spool, [make_opened()], b"ab")
        (piped / entry).unlink()
        os.mkfifo(piped / entry)
        add(piped, f"{entry} is not a plain file")
    return things


async def test_adopt_moves_nonsense_aside_and_goes_on(tmp_path: Path) -> None:
    spool_folder, outside = tmp_path / "spool", tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    things = make_nonsense(spool_folder, outside)
    untouched = {path: path.read_bytes() for path in outside.iterdir()}
    (spool_folder / "lost+found").mkdir()
    good = write_call(spool_folder, [make_opened()], b"abcd")
    async with running(spool_folder) as spool:
        (call,) = await spool.adopt()
        assert call.folder == good
        assert entries(spool_folder) == {good.name, "aside", "lost+found"}
        assert entries(spool_folder / "aside") == set(things)
        for name, (_, reason) in things.items():
            said = (spool_folder / "aside" / name / "reason.txt").read_text()
            assert reason in said
        assert {path: path.read_bytes() for path in outside.iterdir()} == untouched
        assert (
            spool_folder / "aside" / "notes.txt" / "notes.txt"
        ).read_text() == "hello"
        assert await spool.adopt() == []


async def test_adopt_gives_a_second_thing_of_a_name_a_number(tmp_path: Path) -> None:
    for text in ("one", "two"):
        (tmp_path / "notes").mkdir()
        (tmp_path / "notes" / "reason.txt").write_text(text)
        async with running(tmp_path) as spool:
            await spool.adopt()
    aside = tmp_path / "aside"
    assert entries(aside) == {"notes", "notes_2"}
    assert (aside / "notes" / "reason.txt").read_text() == "one"
    assert (aside / "notes_2" / "reason.txt").read_text() == "two"
    assert len(entries(aside / "notes")) == 2


async def test_adopt_leaves_what_cannot_be_moved(tmp_path: Path) -> None:
    (tmp_path / "aside").symlink_to(tmp_path)
    (tmp_path / "notes").write_text("hello")
    good = write_call(tmp_path, [make_opened()])
    async with running(tmp_path) as spool:
        (call,) = await spool.adopt()
        assert call.folder == good
        assert (tmp_path / "notes").read_text() == "hello"
        assert spool.statistics().faults == 1


async def test_adopt_stops_short_of_the_last_open_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        write_call(tmp_path, [make_opened()])
    examine = leftovers._examine
    seen = 0

    def examine_few(folder_fd: int, files: disk.CallFiles) -> object:
        nonlocal seen
        seen += 1
        if seen > 2:
            raise OSError(errno.EMFILE, "too many open files")
        return examine(folder_fd, files)

    monkeypatch.setattr(leftovers, "_examine", examine_few)
    async with running(tmp_path) as spool:
        assert len(await spool.adopt()) == 2
        assert seen == 3


async def test_adopt_passes_over_a_call_that_cannot_be_sealed(
    tmp_path: Path, full: Callable[[int], Callable[[], None]]
) -> None:
    write_call(tmp_path, [make_opened()], b"ab")
    sealed = write_call(tmp_path, [make_opened(), make_closed(2)], b"ab")
    async with running(tmp_path) as spool:
        mend = full(errno.ENOSPC)
        (call,) = await spool.adopt()
        assert call.folder == sealed
        mend()
        assert len(await spool.adopt()) == 1


async def test_cancelled_adopt_gives_all_calls_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [write_call(tmp_path, [make_opened()], b"ab") for _ in range(3)]
    async with running(tmp_path) as spool:
        write_steps = disk.write_steps

        def cancel_then_write(journals: Journals, calls: Calls) -> None:
            trio.from_thread.run_sync(scope.cancel)
            write_steps(journals, calls)

        monkeypatch.setattr(disk, "write_steps", cancel_then_write)
        with trio.CancelScope() as scope:
            await spool.adopt()
        assert scope.cancelled_caught
        monkeypatch.undo()
        while spool.statistics().waiting:
            await trio.lowlevel.checkpoint()
        assert not any(map(is_locked, folders))
        assert len(await spool.adopt()) == 3


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


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_adopt_after_a_crash_anywhere(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever was written when the process died, the rest of the call is found."""
    channels = data.draw(st.sampled_from([("external",), ("external", "internal")]))
    opened = make_opened(media=Media("PCMU", channels, 8000))
    audio = bytes(range(40))
    facts: list[Fact] = [
        opened,
        GAP,
        GapFact(GapKind.LOST, 30, 5),
        LanguageFact("fr", 3),
    ]
    journal = b"".join(map(encode, facts))
    journal_size = data.draw(st.integers(0, len(journal)))
    audio_size = data.draw(st.integers(0, len(audio)))
    spool_folder = tmp_path_factory.mktemp("spool")
    folder = spool_folder / opened.session_id
    folder.mkdir()
    (folder / disk.JOURNAL).write_bytes(journal[:journal_size])
    (folder / disk.AUDIO).write_bytes(audio[:audio_size])
    begun = journal_size >= len(encode(opened))

    async def adopt() -> None:
        async with running(spool_folder) as spool:
            calls = await spool.adopt()
            if begun:
                (call,) = calls
                whole = audio_size - audio_size % len(channels)
                assert call.size_bytes == whole
                assert call.read_at(0, 100) == audio[:whole]
                known, _ = replay(journal[:journal_size])
                assert known is not None
                assert call.record.gaps == known.gaps
                spool.append(call, LanguageFact("it", 9))
                await spool.flush()
                again = journal_of(folder)
                assert again.languages == [*known.languages, LanguageFact("it", 9)]
                assert again.closed == call.record.closed
                assert call.record.timeline().total_samples(
                    whole // len(channels), cut=False
                ) >= whole // len(channels)
            elif audio_size:
                assert calls == []
                kept = spool_folder / "aside" / opened.session_id / disk.AUDIO
                assert kept.read_bytes() == audio[:audio_size]
            else:
                assert calls == []
                assert entries(spool_folder) == set()

    trio.run(adopt)


# A full disk


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk to fill")
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "audiohook-test", str(folder)]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    if done.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(path: Path) -> None:
    """Writes until not one more byte fits."""
    with path.open("wb", buffering=0) as stream:
        for size in (4096, 1):
            with contextlib.suppress(OSError):
                while stream.write(bytes(size)):
                    pass


async def test_full_disk_keeps_the_facts_of_live_calls(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    with small_disk(folder):
        async with running(folder) as spool:
            call = await spool.create(make_opened())
            os.pwrite(call.audio_fd, b"abcd", 0)
            filler = folder / call.folder.name / "filler"
            fill(filler)
            with pytest.raises(SpoolError) as caught:
                await spool.create(make_opened())
            assert caught.value.full
            assert not spool.can_record
            for number in range(50):
                spool.append(call, GapFact(GapKind.LOST, 2, number))
            spool.append(call, Stored("key", 1, "00"))
            await spool.seal(call, make_closed(4, complete=False))
            record = journal_of(call.folder)
            assert len(record.gaps) == 50
            assert record.closed == make_closed(4, complete=False)
            filler.unlink()
            assert await spool.probe()
            await spool.remove(await spool.create(make_opened()))
            await spool.remove(call)
            assert entries(folder) == set()
