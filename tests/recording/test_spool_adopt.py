"""Calls that a spool takes over from processes that are gone."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audiohook.protocol.timeline import GapKind
from audiohook.recording import disk, leftovers
from audiohook.recording.journal import (
    ClosedFact,
    Done,
    GapFact,
    LanguageFact,
    Media,
    encode,
)
from audiohook.recording.record import replay
from tests.children import child
from tests.recording.factory import (
    GAP,
    entries,
    is_locked,
    journal_of,
    make_closed,
    make_opened,
    running,
    write_call,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from audiohook.recording._files import Journals
    from audiohook.recording.journal import Fact
    from tests.recording.factory import Calls


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
    with child(command, stdout=subprocess.PIPE) as process:
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
