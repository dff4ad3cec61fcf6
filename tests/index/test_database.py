from __future__ import annotations

import json
import os
import sqlite3
import stat
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audiohook.errors import CallIndexError
from audiohook.index import database as database_module
from audiohook.index.database import DAMAGED_NAME, FILE_NAME, Database
from audiohook.index.entry import RecordingState, entry_of
from audiohook.index.search import Query
from tests.index.recordings import EPOCH, name_of, summary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from audiohook.index.entry import Entry


def entry(number: int, **changes: object) -> Entry:
    facts = summary(number, **changes)
    return entry_of(f"calls/{name_of(facts)}/call.json", json.dumps(facts).encode())


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "index")
    yield database
    database.close()


@pytest.fixture
def plain(index: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """One of an SQLite without FTS5."""
    monkeypatch.setattr(database_module, "_WORDS", "CREATE VIRTUAL TABLE x USING no()")
    index.count()
    assert not index.has_fts
    return index


def keys(index: Database, query: Query, limit: int = 100) -> list[str]:
    return [each.entry.key for each in index.search(query, limit)]


def test_newest_is_first_and_pages_follow(index: Database) -> None:
    entries = [entry(number) for number in (3, 1, 4, 2, 0)]
    index.put([(each, None) for each in entries])
    wanted = sorted((each.key for each in entries), reverse=True)
    assert keys(index, Query()) == wanted
    seen, before = [], None
    while page := index.search(Query(before=before), 2):
        seen += [each.entry.key for each in page]
        before = page[-1].id
    assert seen == wanted
    assert index.count() == 5
    assert index.newest_ms() == round((EPOCH + 4) * 1000)


def test_recordings_of_one_millisecond_are_all_there(index: Database) -> None:
    start = entry(1).started_at
    many = [entry(number, start=start) for number in range(50)]
    index.put([(each, None) for each in many])
    assert len(set(keys(index, Query()))) == 50


def test_what_is_known_is_replaced(index: Database) -> None:
    one = entry(1)
    index.put([(one, None)])
    (before,) = index.search(Query(), 9)
    index.put([(entry(1, transcripts=[{"status": "parked", "objects": []}]), "hello")])
    (after,) = index.search(Query(text="hello"), 9)
    assert after.id == before.id
    assert after.entry.state is RecordingState.PARKED
    assert index.by_key(one.key) == after
    assert index.by_key("calls/none") is None
    index.put([(one, "other")])
    assert keys(index, Query(text="hello")) == []


def test_each_condition_and_all_together(index: Database) -> None:
    entries = {number: entry(number) for number in range(20)}
    index.put([(each, f"word{n} common") for n, each in entries.items()])
    seven = entries[7]
    query = Query(
        conversation=seven.conversation,
        participant=seven.participant,
        number="01000007",
        since_ms=round((EPOCH + 7) * 1000),
        until_ms=round((EPOCH + 7) * 1000) + 1,
        text="common word7",
    )
    assert keys(index, query) == [seven.key]
    for name in ("conversation", "participant", "number", "text"):
        assert keys(index, Query(**{name: getattr(query, name)})) == [seven.key], name
    assert keys(index, Query(since_ms=query.since_ms))[-1] == seven.key
    assert keys(index, Query(until_ms=query.until_ms))[0] == seven.key
    for other in (
        Query(conversation=seven.conversation, text="word8"),
        Query(number="01000008", text="word7"),
        Query(conversation="x"),
        Query(number="01000007", participant=entries[8].participant),
        Query(text="common", until_ms=round(EPOCH * 1000)),
    ):
        assert keys(index, other) == []


def test_number_of_many_calls_and_numbers_that_end_alike(index: Database) -> None:
    index.put([(entry(number), "common") for number in range(30)])
    assert len(keys(index, Query(number="0800 1234"))) == 30
    assert keys(index, Query(number="+498001234"), 3) == keys(index, Query(), 3)
    # 10 of 30 end in 000 and something, all of them in their order.
    assert len(keys(index, Query(number="301000029"))) == 1
    assert keys(index, Query(number="1234", text="common"), 5) == keys(
        index, Query(), 5
    )


def test_many_candidates_are_found_by_their_words(
    index: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audiohook.index.search._FEW", 3)
    index.put([(entry(number), f"common w{number}") for number in range(10)])
    assert len(keys(index, Query(number="1234", text="common"))) == 10
    assert len(keys(index, Query(number="1234", text="w5"))) == 1
    assert len(keys(index, Query(number="000005", text="w5"))) == 1
    assert keys(index, Query(number="000006", text="w5")) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("zoe", True),
        ("ZOË", True),
        ("straße", True),
        ("credit card", True),
        ("card credit", True),
        ("cred*", True),
        ("cred", False),
        ("credit missing", False),
        ('"credit" AND (', True),
        ("credit OR missing", False),
        ("it's", True),
        ("NEAR(", False),
        ("* ? ' \"", False),
        ("", False),
        ("text:credit", False),
        ("-credit", True),
        ("\x00\u202e", False),
    ],
)
def test_words_of_a_transcript(index: Database, text: str, found: bool) -> None:
    said = "My name is Zoë, Straße 5. It's my credit card and"
    index.put([(entry(1), said)])
    assert bool(keys(index, Query(text=text))) is found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(text=st.text(max_size=40))
def test_no_text_is_a_fault(index: Database, text: str) -> None:
    index.put([(entry(1), "x")])
    index.search(Query(text=text, number=text, conversation=text), 5)
    index.search(Query(text=text), 5)


def test_without_fts_any_part_of_a_word_is_found(plain: Database) -> None:
    plain.put([(entry(1), "my credit card"), (entry(2), "100% done_x")])
    assert len(keys(plain, Query(text="redit ard"))) == 1
    assert len(keys(plain, Query(text="100%"))) == 1
    assert keys(plain, Query(text="1%0")) == []
    assert keys(plain, Query(text="m_credit")) == []
    assert len(keys(plain, Query(conversation=entry(1).conversation, text="card"))) == 1
    assert plain.erase(entry(1).conversation) == 1
    assert keys(plain, Query(text="card")) == []


def contents(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


def test_nothing_is_left_of_what_is_erased(index: Database, tmp_path: Path) -> None:
    party = {
        "id": "participant-xyzzy",
        "ani": "tel:+4915799887766",
        "aniName": "Xanthippe",
        "dnis": "tel:+498001234",
    }
    secret = entry(5, participant=party, conversationId="conversation-plugh")
    text = "my unusual word is frobnicate " * 200
    index.put([(entry(number), f"said {number}") for number in range(300)])
    index.put([(secret, text)])
    index.put([(entry(number), f"said {number}") for number in range(300, 600)])
    marks = (b"xyzzy", b"9799887766"[::-1], b"Xanthippe", b"plugh", b"frobnicate")
    folder = tmp_path / "index"
    before = contents(folder)
    assert all(mark in before for mark in (b"xyzzy", b"Xanthippe", b"frobnicate"))
    (folder / DAMAGED_NAME).write_bytes(b"plugh")
    assert index.erase("conversation-plugh") == 1
    after = contents(folder)
    assert [mark for mark in marks if mark in after] == []
    assert b"66778899751" not in after
    assert index.count() == 600
    assert len(keys(index, Query(text="said"), 1000)) == 600
    assert len(keys(index, Query(number="1234"), 1000)) == 600
    assert index.erase("conversation-plugh") == 0


def test_files_are_for_their_owner_alone(index: Database, tmp_path: Path) -> None:
    index.put([(entry(1), "x")])
    folder = tmp_path / "index"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


@pytest.mark.parametrize("damage", ["rubbish", "middle", "words"])
def test_damaged_file_is_set_aside(
    index: Database, tmp_path: Path, damage: str
) -> None:
    index.put([(entry(number), "some words " * 50) for number in range(200)])
    index.close()
    path = tmp_path / "index" / FILE_NAME
    if damage == "rubbish":
        path.write_bytes(b"this is no database, but it is long enough" * 100)
    elif damage == "middle":
        data = bytearray(path.read_bytes())
        data[4096 : len(data) // 2] = os.urandom(len(data) // 2 - 4096)
        path.write_bytes(data)
    else:
        with sqlite3.connect(path) as connection:
            connection.execute(
                "UPDATE words_data SET block = X'00112233' WHERE id > 10"
            )
        connection.close()
    with pytest.raises(CallIndexError) as caught:
        index.search(Query(text="words"), 200)
    assert caught.value.damaged
    index.set_aside()
    assert (tmp_path / "index" / DAMAGED_NAME).exists()
    assert index.count() == 0
    assert not index.is_whole()
    index.put([(entry(1), "words")])
    # A sound one stays where it is, whoever says what.
    index.set_aside()
    assert index.count() == 1


def test_another_process_that_set_it_aside_is_noticed(
    index: Database, tmp_path: Path
) -> None:
    index.put([(entry(1), None)])
    path = tmp_path / "index" / FILE_NAME
    path.rename(path.with_name("other"))
    assert index.count() == 0
    index.put([(entry(2), None)])
    assert index.count() == 1


def test_file_of_another_version_is_begun_anew(index: Database, tmp_path: Path) -> None:
    index.put([(entry(1), None)])
    index.close()
    connection = sqlite3.connect(tmp_path / "index" / FILE_NAME)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert index.count() == 0


def test_two_processes_write_by_turns(tmp_path: Path) -> None:
    faults: list[BaseException] = []

    def write(first: int) -> None:
        database = Database(tmp_path)
        try:
            for number in range(first, first + 40):
                database.put([(entry(number), "x")])
        except BaseException as error:  # noqa: BLE001 - told to the test
            faults.append(error)
        finally:
            database.close()

    threads = [threading.Thread(target=write, args=(n * 1000,)) for n in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert faults == []
    database = Database(tmp_path)
    assert database.count() == 160
    database.close()


def test_question_that_takes_too_long_is_given_up(
    index: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.put([(entry(number), "x") for number in range(300)])
    monkeypatch.setattr(database_module, "_SEARCH_LIMIT", 1e-9)
    monkeypatch.setattr(database_module, "_STEPS", 1)
    index.close()
    with pytest.raises(CallIndexError) as caught:
        index.search(Query(text="x"), 100)
    assert caught.value.costly


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    database = Database(tmp_path / "file" / "index")
    with pytest.raises(CallIndexError, match="Not a directory"):
        database.put([(entry(1), None)])


def test_full_disk_changes_nothing_and_passes(index: Database, tmp_path: Path) -> None:
    index.put([(entry(1), None)])
    connection = index._connected()
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(CallIndexError, match="full") as caught:
        index.put([(entry(number), "word " * 900) for number in range(2, 99)])
    assert not caught.value.damaged
    # It opens the file anew, without that bound.
    assert index.count() == 1
    index.put([(entry(2), "word")])
    assert index.count() == 2


def test_link_in_place_of_the_file_is_not_followed(
    index: Database, tmp_path: Path
) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / FILE_NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CallIndexError):
        index.count()
    assert not (tmp_path / "elsewhere").exists()
