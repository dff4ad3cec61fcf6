"""Facts and audio on their way to the disk, in order and for sure."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from audiohook.errors import SpoolError
from audiohook.protocol.timeline import Gap, GapKind
from audiohook.recording import disk
from audiohook.recording.journal import (
    GapFact,
    LanguageFact,
    Stored,
)
from tests.mounted import mounted
from tests.recording.factory import (
    GAP,
    entries,
    journal_of,
    make_closed,
    make_opened,
    running,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from audiohook.recording.spooled import SpooledCall


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


def fill(path: Path) -> None:
    """Writes until not one more byte fits."""
    with path.open("wb", buffering=0) as stream:
        for size in (4096, 1):
            with contextlib.suppress(OSError):
                while stream.write(bytes(size)):
                    pass


async def test_full_disk_keeps_the_facts_of_live_calls(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    with mounted(folder, "size=512k"):
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
