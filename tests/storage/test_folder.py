from __future__ import annotations

import errno
import hashlib
import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from audiohook.errors import KeyExistsError, UploadError
from audiohook.storage import folder as folder_module
from audiohook.storage.base import (
    KEY_LIMIT_BYTES,
    READ_LIMIT_BYTES,
    BytesBlob,
    StoredObject,
    check_key,
)
from audiohook.storage.folder import CHUNK_BYTES, LEFTOVER_AGE, FolderStore
from tests.recording.factory import entries

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

KEY = "calls/2026_a/audio/a.wav"


async def put(store: FolderStore, key: str, data: bytes) -> StoredObject:
    return await store.put(key, BytesBlob(data), metadata={}, token="t")


def files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


async def test_put_stores_all_of_it_and_tells_its_checksum(tmp_path: Path) -> None:
    data = os.urandom(2 * CHUNK_BYTES + 7)
    with umask(0):
        stored = await put(FolderStore(tmp_path / "new" / "root"), KEY, data)
    digest = hashlib.sha256(data).hexdigest()
    assert stored == StoredObject(KEY, len(data), digest)
    root = tmp_path / "new" / "root"
    assert files(root) == {KEY: data}
    assert (root / KEY).stat().st_mode & 0o7777 == 0o640
    assert (root / KEY).stat().st_nlink == 1
    assert (root / KEY).parent.stat().st_mode & 0o7777 == 0o750


async def test_put_of_nothing_makes_an_empty_file(tmp_path: Path) -> None:
    stored = await put(FolderStore(tmp_path), KEY, b"")
    assert stored.size == 0
    assert files(tmp_path) == {KEY: b""}


async def test_put_again_is_the_same(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    first = await put(store, KEY, b"content")
    before = (tmp_path / KEY).stat()
    assert await put(store, KEY, b"content") == first
    assert (tmp_path / KEY).stat().st_ino == before.st_ino
    assert files(tmp_path) == {KEY: b"content"}


@pytest.mark.parametrize("other", [b"different", b"CONTENT", b""])
async def test_put_over_something_else_is_refused(tmp_path: Path, other: bytes) -> None:
    store = FolderStore(tmp_path)
    await put(store, KEY, other)
    with pytest.raises(KeyExistsError) as caught:
        await put(store, KEY, b"content")
    assert caught.value.key == KEY
    assert files(tmp_path) == {KEY: other}


@pytest.mark.parametrize("kind", ["link", "dangling", "folder", "pipe"])
async def test_put_where_there_is_no_plain_file_is_refused(
    tmp_path: Path, kind: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"content")
    path = tmp_path / "root" / KEY
    path.parent.mkdir(parents=True)
    if kind == "link":
        path.symlink_to(elsewhere)
    elif kind == "dangling":
        path.symlink_to(tmp_path / "nowhere")
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    # Of the very size, so that only the kind can tell.
    data = bytes(path.lstat().st_size)
    with pytest.raises(KeyExistsError):
        await put(FolderStore(tmp_path / "root"), KEY, data)
    assert elsewhere.read_bytes() == b"content"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("other", [b"content", b"CONTENT"])
async def test_put_that_loses_a_race_does_not_overwrite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool, other: bytes
) -> None:
    """Somebody else takes the name while we write."""
    give_name = folder_module._give_name

    def late(temporary: Path, path: Path) -> None:
        path.write_bytes(other)
        give_name(temporary, path)

    def no_links(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(folder_module, "_give_name", late)
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    store = FolderStore(tmp_path)
    if other == b"content":
        assert (await put(store, KEY, b"content")).size == len(other)
    else:
        with pytest.raises(KeyExistsError):
            await put(store, KEY, b"content")
    assert files(tmp_path) == {KEY: other}


async def test_put_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    await put(FolderStore(tmp_path), KEY, b"content")
    assert files(tmp_path) == {KEY: b"content"}
    monkeypatch.setattr(folder_module, "_renameat2", None)
    with pytest.raises(UploadError, match="no links here"):
        await put(FolderStore(tmp_path), "other", b"content")
    assert files(tmp_path) == {KEY: b"content"}


async def test_put_syncs_the_file_and_the_folders_it_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    fsync = os.fsync

    def note(fd: int) -> None:
        synced.add(os.fstat(fd).st_ino)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", note)
    root = tmp_path / "root"
    await put(FolderStore(root), KEY, b"content")
    path = root / KEY
    folders = [folder for folder in path.parents if folder.is_relative_to(tmp_path)]
    assert synced == {each.stat().st_ino for each in [path, *folders]}


@pytest.mark.parametrize(
    ("code", "retryable"),
    [
        (errno.ENOSPC, True),
        (errno.EDQUOT, True),
        (errno.EIO, True),
        (errno.EACCES, False),
        (errno.EROFS, False),
    ],
)
@pytest.mark.parametrize("name", ["fsync", "link", "open"])
async def test_put_on_a_disk_that_refuses_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    code: int,
    retryable: bool,
) -> None:
    def refuse(*_args: object, **_kwargs: object) -> object:
        raise OSError(code, os.strerror(code))

    store = FolderStore(tmp_path)
    await put(store, KEY + ".first", b"content")
    monkeypatch.setattr(os, name, refuse)
    with pytest.raises(UploadError, match=os.strerror(code)) as caught:
        await put(store, KEY, b"content")
    assert caught.value.retryable is retryable
    assert KEY in str(caught.value)
    monkeypatch.undo()
    assert files(tmp_path) == {KEY + ".first": b"content"}
    await put(store, KEY, b"content")


async def test_put_below_something_that_is_no_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "calls").write_text("")
    with pytest.raises(UploadError, match="Not a directory") as caught:
        await put(FolderStore(tmp_path), KEY, b"content")
    assert not caught.value.retryable


async def test_put_of_a_blob_that_ends_early_is_refused(tmp_path: Path) -> None:
    class Short(BytesBlob):
        @property
        def size_bytes(self) -> int:
            return len(self.data) + 1

    with pytest.raises(UploadError, match="ends at 7 of 8 bytes"):
        await FolderStore(tmp_path).put(KEY, Short(b"content"), metadata={}, token="t")
    assert files(tmp_path) == {}


async def test_cancelled_put_leaves_nothing(tmp_path: Path) -> None:
    scope = trio.CancelScope()

    class Endless(BytesBlob):
        @property
        def size_bytes(self) -> int:
            return 2**60

        def read_at(self, offset: int, length: int) -> bytes:
            if offset:
                trio.from_thread.run_sync(scope.cancel)
            return self.data

    with scope:
        await FolderStore(tmp_path).put(KEY, Endless(b"x"), metadata={}, token="t")
    assert scope.cancelled_caught
    assert files(tmp_path) == {}


async def test_many_puts_of_one_key_store_one(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    outcomes: list[bool] = []

    async def try_one(number: int) -> None:
        try:
            await put(store, KEY, b"%d" % (number % 4))
        except KeyExistsError:
            outcomes.append(False)
        else:
            outcomes.append(True)

    async with trio.open_nursery() as nursery:
        for number in range(16):
            nursery.start_soon(try_one, number)
    assert sum(outcomes) == 4
    assert set(files(tmp_path)) == {KEY}


async def test_replace_takes_the_place_of_what_is_there(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    for data in (b"one", b"two"):
        stored = await store.replace(KEY, BytesBlob(data), metadata={}, token="t")
        assert stored.sha256 == hashlib.sha256(data).hexdigest()
        assert files(tmp_path) == {KEY: data}


async def test_read_gives_back_what_was_put(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    assert await store.read(KEY) is None
    await put(store, KEY, b"content")
    assert await store.read(KEY) == b"content"
    with pytest.raises(UploadError):
        await store.read("calls")
    os.truncate(tmp_path / KEY, READ_LIMIT_BYTES + 1)
    with pytest.raises(UploadError, match="too large"):
        await store.read(KEY)


async def test_sweep_deletes_old_temporary_files_only(tmp_path: Path) -> None:
    deep = tmp_path / "calls" / "a" / "audio"
    deep.mkdir(parents=True)
    long_ago = time.time() - LEFTOVER_AGE - 60
    names = {
        deep / ".0123.part": long_ago,
        tmp_path / ".4567.part": long_ago,
        deep / ".89ab.part": time.time(),
        deep / "a.wav": long_ago,
        deep / "a.part": long_ago,
        deep / ".hidden": long_ago,
    }
    for path, when in names.items():
        path.write_bytes(b"")
        os.utime(path, (when, when))
    store = FolderStore(tmp_path)
    assert await store.sweep() == 2
    assert await store.sweep() == 0
    assert {path.name for path in map(tmp_path.joinpath, files(tmp_path))} == {
        ".89ab.part",
        "a.wav",
        "a.part",
        ".hidden",
    }
    assert await FolderStore(tmp_path / "missing").sweep() == 0


async def test_sweep_knows_the_names_that_put_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed while it writes leaves what sweep looks for."""
    killed: list[Path] = []

    def keep(path: Path, *, missing_ok: bool = False) -> None:
        killed.append(path)

    monkeypatch.setattr(Path, "unlink", keep)
    await put(FolderStore(tmp_path), KEY, b"content")
    monkeypatch.undo()
    (left,) = killed
    assert left.parent == (tmp_path / KEY).parent
    long_ago = time.time() - LEFTOVER_AGE - 60
    os.utime(left, (long_ago, long_ago))
    assert await FolderStore(tmp_path).sweep() == 1
    assert files(tmp_path) == {KEY: b"content"}


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/etc/passwd",
        "a//b",
        "a/",
        "../a",
        "a/../b",
        "a/./b",
        ".spool/a",
        "a/.hidden",
        "a\\b",
        "a b",
        "a\n",
        "a\x00b",
        "ä",
        "a:b",
        "a" * (KEY_LIMIT_BYTES + 1),
    ],
)
async def test_keys_that_are_no_plain_paths_are_refused(
    tmp_path: Path, key: str
) -> None:
    store = FolderStore(tmp_path / "root")
    operations: list[Callable[[], Awaitable[object]]] = [
        lambda: put(store, key, b""),
        lambda: store.replace(key, BytesBlob(b""), metadata={}, token="t"),
        lambda: store.read(key),
    ]
    for operation in operations:
        with pytest.raises(UploadError) as caught:
            await operation()
        assert not caught.value.retryable
    assert entries(tmp_path) == set()


@given(st.text(max_size=30))
def test_keys_that_pass_stay_below_the_root(key: str) -> None:
    try:
        check_key(key)
    except UploadError:
        return
    assert os.path.normpath(key) == key
    assert not key.startswith(("/", "."))
    assert key.isascii()


# What many processes change


async def test_swap_takes_what_was_read_and_nothing_else(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    assert await store.fetch("jobs/a.json") is None
    first = await store.swap("jobs/a.json", b"1", None, metadata={})
    with pytest.raises(KeyExistsError):
        await store.swap("jobs/a.json", b"2", None, metadata={})
    found = await store.fetch("jobs/a.json")
    assert found is not None
    assert (found.data, found.tag) == (b"1", first)
    assert 0 <= found.age < 60
    second = await store.swap("jobs/a.json", b"2", first, metadata={})
    with pytest.raises(KeyExistsError):
        await store.swap("jobs/a.json", b"3", first, metadata={})
    assert await store.read("jobs/a.json") == b"2"
    (tmp_path / "jobs/a.json").unlink()
    with pytest.raises(KeyExistsError):
        await store.swap("jobs/a.json", b"3", second, metadata={})
    assert files(tmp_path) == {}


async def test_swap_of_many_at_once_lets_one_of_them_through(tmp_path: Path) -> None:
    stores = [FolderStore(tmp_path) for _ in range(8)]
    tag = await stores[0].swap("a.json", b"first", None, metadata={})
    lost: list[int] = []

    async def swap(number: int) -> None:
        try:
            await stores[number].swap("a.json", b"%d" % number, tag, metadata={})
        except KeyExistsError:
            lost.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(swap, number)
    (won,) = set(range(8)) - set(lost)
    assert await stores[0].read("a.json") == b"%d" % won
