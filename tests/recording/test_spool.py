"""Calls of a spool from their beginning to their removal, and its own."""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from audiohook.errors import SpoolError
from audiohook.recording import disk
from audiohook.recording.groups import Group
from audiohook.recording.journal import (
    Done,
)
from audiohook.recording.spool import Spool
from audiohook.recording.survey import SpoolSurvey, survey
from tests.recording.factory import (
    entries,
    is_locked,
    journal_of,
    make_closed,
    make_opened,
    running,
    write_call,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence
    from pathlib import Path

    from audiohook.recording._files import Journals
    from audiohook.recording.spooled import SpooledCall
    from tests.recording.factory import Calls


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
        (errno.ENOENT, False, True),
        (errno.ESTALE, False, True),
        (errno.EACCES, False, True),
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


async def test_create_cancelled_in_the_turn_in_which_it_is_done_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as spool:
        scope = trio.CancelScope()
        settle = spool._settle_group

        def settle_late(group: Group) -> None:
            # Whoever waits is cancelled, and has not run since.
            scope.cancel()
            settle(group)

        monkeypatch.setattr(spool, "_settle_group", settle_late)
        with scope:
            await spool.create(make_opened())
        assert scope.cancelled_caught
        assert spool.statistics().calls == 0
        monkeypatch.undo()
        await spool.flush()
        assert entries(tmp_path) == set()
        assert await spool.adopt() == []


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


async def test_statistics_tell_how_the_spool_does(tmp_path: Path) -> None:
    async with running(tmp_path) as spool:
        call = await spool.create(make_opened())
        await spool.seal(call, make_closed(0))
        statistics = spool.statistics()
        assert statistics.calls == 1
        assert statistics.waiting == statistics.unwritten == statistics.faults == 0
        assert statistics.free_bytes == spool.free_bytes > 0
        assert statistics.sync_seconds > 0


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


async def test_more_at_once_than_fit_into_a_group_come_to_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audiohook.recording.spool._CREATED_AT_ONCE", 2)
    monkeypatch.setattr("audiohook.recording.spool._REMOVED_AT_ONCE", 2)
    calls: list[SpooledCall] = []
    async with running(tmp_path) as spool:

        async def create() -> None:
            calls.append(await spool.create(make_opened()))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(create)
        assert entries(tmp_path) == {call.folder.name for call in calls}
        for call in calls:
            await spool.seal(call, make_closed(0))
        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(spool.remove, call)
        assert entries(tmp_path) == set()


async def test_folder_that_cannot_be_listed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async with running(tmp_path) as spool:
        monkeypatch.setattr("audiohook.recording.leftovers.find", refuse)
        with pytest.raises(SpoolError, match="cannot be listed"):
            await spool.adopt()
        monkeypatch.undo()
        assert await spool.adopt() == []
