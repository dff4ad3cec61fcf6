from __future__ import annotations

import json
import shutil
import threading
from itertools import chain
from typing import TYPE_CHECKING

import pytest
import structlog
import trio
import trio.testing

from audiohook.errors import UploadError
from audiohook.index import keeper
from audiohook.index.database import FILE_NAME, Database
from audiohook.index.entry import RecordingState
from audiohook.index.keeper import CallIndex
from audiohook.index.search import Query
from audiohook.storage.base import BytesBlob, ListableStore
from audiohook.storage.folder import FolderStore
from tests.house import house
from tests.index.recordings import Shelf, name_of, summary
from tests.storage.conftest import *  # noqa: F403 - the bucket's fixtures
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from audiohook.storage.s3 import S3Store


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "store")


def index_of(tmp_path: Path, shelf: Shelf) -> CallIndex:
    store = FolderStore(shelf.root)
    log = structlog.get_logger("audiohook")
    return CallIndex(tmp_path / "index", store, places=lambda: ["calls/"], log=log)


async def wait_found(index: CallIndex, keys: list[str], **query: str) -> None:
    """Waits until these recordings are found, and no others."""
    with trio.fail_after(20):
        while await found(index, **query) != keys:  # noqa: ASYNC110 - in a thread
            await trio.sleep(0.01)


async def found(index: CallIndex, **query: str) -> list[str]:
    return [each.entry.key for each in await index.search(Query(**query), 1000)]  # type: ignore[arg-type]  # texts only


async def state(index: CallIndex, key: str) -> RecordingState | None:
    hit = await index.by_key(key)
    return None if hit is None else hit.entry.state


async def test_index_is_made_of_the_store_alone(tmp_path: Path, shelf: Shelf) -> None:
    keys = [shelf.add(number, f"word{number}") for number in range(250)]
    gone = shelf.add(300)
    (shelf.root / "calls" / "2026-01-01T00-00-00.000Z_x_y").mkdir()
    broken = shelf.root / "calls" / "2026-01-02T00-00-00.000Z_x_y"
    broken.mkdir()
    (broken / "call.json").write_text("{")
    index = index_of(tmp_path, shelf)
    told: list[int] = []
    done = await index.build(told.append)
    assert (done.taken, done.unreadable, done.forgotten) == (251, 1, 0)
    assert told[-1] == done.seen == 253
    assert await found(index, text="word7") == [keys[7]]
    shutil.rmtree(shelf.root / gone)
    done = await index.build()
    assert (done.taken, done.forgotten) == (250, 1)
    assert len(await found(index)) == 250
    index.close()


async def test_lost_and_damaged_files_are_made_up_for(
    tmp_path: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_PAUSE", 0.01)
    keys = [shelf.add(number, "words") for number in range(20)]
    index = index_of(tmp_path, shelf)
    path = tmp_path / "index" / FILE_NAME

    async def whole() -> None:
        await wait_found(index, sorted(keys, reverse=True), text="words")

    async with trio.open_nursery() as nursery:
        await nursery.start(index.run)
        await whole()
        path.write_bytes(b"no database at all" * 500)
        # Whoever asks meets it first, and has an empty answer for now.
        await found(index)
        await whole()
        nursery.cancel_scope.cancel()
    for each in (tmp_path / "index").iterdir():
        each.unlink()
    async with trio.open_nursery() as nursery:
        await nursery.start(index.run)
        await whole()
        nursery.cancel_scope.cancel()


async def test_what_was_stored_meanwhile_is_found_at_the_start(
    tmp_path: Path, shelf: Shelf
) -> None:
    shelf.add(0)
    index = index_of(tmp_path, shelf)
    await index.build()
    later = shelf.add(1)
    async with trio.open_nursery() as nursery:
        await nursery.start(index.run)
        await wait_until(lambda: not index.statistics().building)
        await wait_found(index, [later, f"calls/{shelf.names[0]}"])
        nursery.cancel_scope.cancel()


class BusyStore(FolderStore):
    """Something happens elsewhere once it has been read the first time."""

    def __init__(self, root: Path, happens: Callable[[], Awaitable[object]]) -> None:
        super().__init__(root)
        self._happens: Callable[[], Awaitable[object]] | None = happens

    async def read(self, key: str) -> bytes | None:
        data = await super().read(key)
        happens, self._happens = self._happens, None
        if happens is not None:
            await happens()
        return data


@pytest.mark.parametrize("is_known", [False, True])
@pytest.mark.parametrize("is_whole", [False, True])
async def test_pass_does_not_undo_what_was_noted_while_it_read(
    tmp_path: Path, shelf: Shelf, is_known: bool, is_whole: bool
) -> None:
    """A call's transcript comes just as the service that was started looks at it."""
    key = shelf.add(1, transcripts=[{"status": "submitted", "objects": []}])
    if is_known:
        index = index_of(tmp_path, shelf)
        await index.build()
        assert await state(index, key) is RecordingState.TRANSCRIBING
        index.close()

    async def transcribe() -> None:
        shelf.add(1, "hello")
        data = (shelf.root / key / "call.json").read_bytes()
        index.note(f"{key}/call.json", data)
        await wait_found(index, [key], text="hello")

    store = BusyStore(shelf.root, transcribe)
    log = structlog.get_logger("audiohook")
    index = CallIndex(tmp_path / "index", store, places=lambda: ["calls/"], log=log)
    async with trio.open_nursery() as nursery:
        if is_whole:
            nursery.start_soon(index._feed)
            await index.build()
        else:
            await nursery.start(index.run)
            await wait_found(index, [key], text="hello")
            await wait_until(lambda: not index.statistics().building)
        assert await found(index, text="hello") == [key]
        assert await state(index, key) is RecordingState.TRANSCRIBED
        nursery.cancel_scope.cancel()
    index.close()


async def test_pass_does_not_undo_what_was_removed_while_it_read(
    tmp_path: Path, shelf: Shelf
) -> None:
    keys = [shelf.add(number, "hello") for number in range(3)]
    index = index_of(tmp_path, shelf)
    await index.build()
    index.close()

    async def remove() -> None:
        await index.mark_removed(keys[0], "2026-12-01T00:00:00.000Z", "2026-12-01")
        await index.forget([keys[1]])

    store = BusyStore(shelf.root, remove)
    log = structlog.get_logger("audiohook")
    index = CallIndex(tmp_path / "index", store, places=lambda: ["calls/"], log=log)
    await index.build()
    assert await found(index) == [keys[2], keys[0]]
    assert await found(index, text="hello") == [keys[2]]
    index.close()


async def test_what_is_stored_is_found_soon(tmp_path: Path, shelf: Shelf) -> None:
    index = index_of(tmp_path, shelf)
    async with trio.open_nursery() as nursery:
        await nursery.start(index.run)
        key = shelf.add(3, "hello")
        data = (shelf.root / key / "call.json").read_bytes()
        index.note(f"{key}/call.json", data)
        await wait_found(index, [key], text="hello")
        assert index.statistics().waiting == 0
        nursery.cancel_scope.cancel()


async def test_too_much_that_waits_is_left_to_the_next_pass(
    tmp_path: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_MOST_WAITING", 3)
    monkeypatch.setattr(keeper, "_MOST_WAITING_BYTES", 10)
    monkeypatch.setattr(keeper, "_PAUSE", 0.01)
    keys = [shelf.add(number) for number in range(9)]
    index = index_of(tmp_path, shelf)
    for key in keys:
        index.note(f"{key}/call.json", b"x" * 20)
    assert index.statistics().waiting == 3
    assert index._waiting_bytes == 0
    async with trio.open_nursery() as nursery:
        await nursery.start(index.run)
        await wait_found(index, sorted(keys, reverse=True))
        nursery.cancel_scope.cancel()


async def test_folder_that_cannot_be_used_costs_nothing(
    tmp_path: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_PAUSE", 0.01)
    (tmp_path / "index").write_bytes(b"")
    index = index_of(tmp_path, shelf)
    async with trio.open_nursery() as nursery:
        await nursery.start(index.run)
        index.note("calls/x/call.json", json.dumps(summary(1)).encode())
        # Both that which is noted and the pass have failed.
        await wait_until(lambda: index.statistics().failures == 2)
        (tmp_path / "index").unlink()
        key = shelf.add(2)
        index.note(f"{key}/call.json", (shelf.root / key / "call.json").read_bytes())
        await wait_found(index, [key])
        nursery.cancel_scope.cancel()


async def test_call_of_a_whole_service_is_found(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        assert (await it.call(duration=1.0)).ok
        await it.settle()
        (recording,) = it.recordings()
        index = it.service.index
        await wait_found(index, [f"calls/{recording.folder.name}"])
        (hit,) = await index.search(Query(), 5)
        assert hit.entry.session == recording.facts["sessionId"]
        # It is no leftover of a call that anybody would put aside.
        assert await it.service._spool.adopt() == []
        assert (tmp_path / ".spool" / ".index" / FILE_NAME).exists()
        assert it.spooled() == []


async def test_names_in_a_folder_come_some_at_a_time(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audiohook.storage.folder._PAGE", 10)
    for number in range(35):
        shelf.add(number)
    (shelf.root / "calls" / "file").write_bytes(b"")
    (shelf.root / "calls" / ".hidden").mkdir()
    store = FolderStore(shelf.root)
    assert isinstance(store, ListableStore)
    pages = [names async for names in store.list_names("calls/")]
    assert len(pages) == 4
    assert sorted(chain.from_iterable(pages)) == sorted(shelf.names)
    later = [names async for names in store.list_names("calls/", after=shelf.names[30])]
    assert sorted(chain.from_iterable(later)) == shelf.names[31:]
    assert [names async for names in store.list_names("none/")] == []
    with pytest.raises(UploadError):
        [names async for names in store.list_names("../")]


async def test_names_in_a_bucket_come_page_by_page(s3: S3Store, tmp_path: Path) -> None:
    for number in range(12):
        facts = summary(number)
        key = f"listed/{name_of(facts)}/call.json"
        data = json.dumps(facts).encode()
        await s3.put(key, BytesBlob(data), metadata={}, token="t")
    s3._common = {"MaxKeys": 5}  # type: ignore[dict-item]  # a page of the size wanted
    pages = [names async for names in s3.list_names("listed/")]
    assert len(pages) >= 3
    names = sorted(chain.from_iterable(pages))
    assert names == [name_of(summary(number)) for number in range(12)]
    later = [each async for each in s3.list_names("listed/", after=names[8])]
    assert sorted(chain.from_iterable(later)) == names[9:]
    s3._common = {}
    log = structlog.get_logger("audiohook")
    index = CallIndex(tmp_path / "index", s3, places=lambda: ["listed/"], log=log)
    assert (await index.build()).taken == 12
    assert len(await found(index, number="301000005")) == 1
    index.close()


async def test_file_is_not_closed_under_whoever_is_at_it(
    tmp_path: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end = threading.Event(), threading.Event()
    order: list[str] = []
    close = Database.close

    def noted_close(self: Database) -> None:
        order.append("closed")
        close(self)

    def slow_erase(_self: Database, _conversation: str, _session: str | None) -> int:
        begun.set()
        assert may_end.wait(20)
        order.append("erased")
        return 0

    monkeypatch.setattr(Database, "close", noted_close)
    monkeypatch.setattr(Database, "erase", slow_erase)
    index = index_of(tmp_path, shelf)

    async def let_it_end() -> None:
        await trio.testing.wait_all_tasks_blocked()
        may_end.set()

    async with trio.open_nursery() as others:
        async with trio.open_nursery() as nursery:
            await nursery.start(index.run)
            nursery.start_soon(index.erase, "conversation")
            await wait_until(begun.is_set)
            others.start_soon(let_it_end)
            nursery.cancel_scope.cancel()
    assert order == ["erased", "closed", "closed", "closed"]
    # Who asks later is not kept waiting.
    assert await found(index) == []
    index.close()
