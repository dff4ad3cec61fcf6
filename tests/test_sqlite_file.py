"""A file of SQLite that several processes share."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING

import pytest

from audiohook import sqlite_file
from audiohook.sqlite_file import open_file, transaction

if TYPE_CHECKING:
    from pathlib import Path


def test_file_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.sqlite"
    connection, inode = open_file(path, "FULL")
    connection.execute("CREATE TABLE t (a)")
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_ino == inode
    for each in path.parent.iterdir():
        assert each.stat().st_mode & 0o777 == 0o600
    connection.close()


def test_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"")
    path = tmp_path / "a.sqlite"
    path.symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="symbolic links"):
        open_file(path, "NORMAL")
    assert (tmp_path / "outside").read_bytes() == b""


def test_many_that_open_a_new_file_at_once_all_get_it(tmp_path: Path) -> None:
    """SQLite lets nobody wait who turns the log on."""
    failures: list[BaseException] = []
    start = threading.Barrier(8)

    def use() -> None:
        start.wait()
        try:
            connection, _ = open_file(tmp_path / "a.sqlite", "NORMAL")
            with transaction(connection):
                connection.execute("CREATE TABLE IF NOT EXISTS t (a)")
                connection.execute("INSERT INTO t VALUES (1)")
            connection.close()
        except BaseException as exc:  # noqa: BLE001 - told by the thread that waits
            failures.append(exc)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert failures == []
    connection, _ = open_file(tmp_path / "a.sqlite", "NORMAL")
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (8,)
    connection.close()


def test_transaction_that_raises_changes_nothing(tmp_path: Path) -> None:
    connection, _ = open_file(tmp_path / "a.sqlite", "NORMAL")
    assert sqlite_file.mark_of(connection) == (0, 0)

    def fail() -> None:
        with transaction(connection):
            connection.execute("CREATE TABLE t (a)")
            sqlite_file.set_mark(connection, 7, 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert connection.execute("SELECT * FROM sqlite_schema").fetchall() == []
    assert sqlite_file.mark_of(connection) == (0, 0)
    connection.close()


def test_file_that_is_none_of_sqlites_is_damage(tmp_path: Path) -> None:
    (tmp_path / "a.sqlite").write_bytes(b"no database, though long enough" * 100)
    with pytest.raises(sqlite3.DatabaseError) as caught:
        open_file(tmp_path / "a.sqlite", "NORMAL")
    assert sqlite_file.is_damage(caught.value)
    assert not sqlite_file.is_damage(sqlite3.OperationalError("anything"))
    sqlite_file.rename(tmp_path, "a.sqlite", "b.sqlite")
    sqlite_file.rename(tmp_path, "a.sqlite", "b.sqlite")
    assert [each.name for each in tmp_path.iterdir()] == ["b.sqlite"]
