from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from audiohook import sqlite_file
from audiohook.errors import OutboxError
from audiohook.notify.database import DAMAGED_NAME, FILE_NAME, Database
from audiohook.notify.letter import Letter

if TYPE_CHECKING:
    from pathlib import Path

BODY = b"what was said of a call"


def mentions(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir() if BODY in each.read_bytes())


def test_what_is_erased_is_in_no_file_even_if_somebody_was_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_LIMIT", 0.1)
    outbox = Database(tmp_path)
    outbox.change(
        [Letter("1", "a", "stored", "a", BODY), Letter("2", "b", "x", "b", b"")], []
    )
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM notifications").fetchone() == (2,)
        with pytest.raises(OutboxError, match="somebody reads it"):
            outbox.erase("a")
        reader.execute("ROLLBACK")
    # It is asked again, and by then nobody reads.
    assert outbox.erase("a") == 0
    assert mentions(tmp_path) == []
    assert outbox.counts().waiting == 1
    outbox.close()


@pytest.mark.parametrize("met_by_both", [False, True])
def test_file_that_another_process_has_begun_anew_is_used_and_not_set_aside(
    tmp_path: Path, met_by_both: bool
) -> None:
    first, second = Database(tmp_path), Database(tmp_path)
    for each in (first, second):
        # Both have the one open that is found to be damaged.
        assert each.counts().waiting == 0
    first.set_aside()
    first.change([Letter("1", "a", "stored", "a", BODY)], [])
    if met_by_both:
        second.set_aside()
    second.change([Letter("2", "b", "stored", "b", BODY)], [])
    first.change([Letter("3", "c", "stored", "c", BODY)], [])
    # Whoever sends sees all of them.
    third = Database(tmp_path)
    for each in (first, second, third):
        assert each.counts().waiting == 3
        each.close()
    with closing(sqlite3.connect(tmp_path / DAMAGED_NAME)) as aside:
        rows = aside.execute("SELECT count(*) FROM notifications").fetchone()
    assert rows == (0,)
