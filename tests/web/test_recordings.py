from __future__ import annotations

import re
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
import trio

from audiohook.index.database import FILE_NAME, Database
from audiohook.index.keeper import INDEX_FOLDER
from audiohook.index.search import Query, Search
from audiohook.storage.folder import FolderStore
from audiohook.web.recordings import PAGE, read_wish
from tests.index.recordings import EPOCH, Shelf, summary
from tests.index.test_database import entry
from tests.waiting import wait_until
from tests.web.visiting import Page, page_of

if TYPE_CHECKING:
    from pathlib import Path

LINK = re.compile(r'<a href="/calls/([^"]+)">')
DAY_MS = 86_400_000
NOON_MS = 1_795_348_800_000  # 2026-11-22 12:00 UTC


async def wait_found(page: Page, count: int, path: str = "/recordings") -> str:
    with trio.fail_after(20):
        while True:
            text = await page.text(path)
            if len(LINK.findall(text)) >= count:
                return text
            await trio.sleep(0.05)


async def test_pages_follow_each_other_from_the_newest(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    for number in range(PAGE * 2 + 3):
        shelf.add(number, "parcel" if number % 2 else None)
    async with page_of(tmp_path) as page:
        await wait_found(page, PAGE)
        index = page.house.service.index
        await wait_until(lambda: not index.statistics().building)
        path, seen, pages = "/recordings", [], 0
        while True:
            text = await page.text(path)
            seen += LINK.findall(text)
            pages += 1
            older = re.search(r'href="([^"]+)" rel="next"', text)
            if older is None:
                break
            path = older[1].replace("&amp;", "&")
        assert pages == 3
        assert seen == sorted(shelf.names, reverse=True)
        assert ">Newest</a>" in text

        odd = await page.text("/recordings?text=parcel")
        assert len(LINK.findall(odd)) == PAGE
        assert "text=parcel&amp;before=" in odd
        for name in seen[:1]:
            assert (await page.get(f"/calls/{name}")).status_code == 200


async def test_numbers_are_hidden_unless_they_are_asked_for(tmp_path: Path) -> None:
    Shelf(tmp_path / "a").add(1)
    Shelf(tmp_path / "b").add(1)
    number = summary(1)["participant"]["ani"]
    async with page_of(tmp_path / "a") as page:
        text = await wait_found(page, 1)
        assert number not in text
        assert "••••01" in text
        # Whoever knows one finds it nevertheless.
        assert len(LINK.findall(await page.text(f"/recordings?number={number[-6:]}")))
    async with page_of(tmp_path / "b", show_numbers=True) as page:
        assert number in await wait_found(page, 1)


async def test_foreign_text_is_escaped(tmp_path: Path) -> None:
    party = {**summary(1)["participant"], "aniName": "<script>x</script>\u202e"}
    Shelf(tmp_path).add(1, participant=party, language="<b>")
    async with page_of(tmp_path) as page:
        text = await wait_found(page, 1)
    assert "<bdi>&lt;script&gt;x&lt;/script&gt;⟨U+202E⟩</bdi>" in text
    assert "<bdi>&lt;b&gt;</bdi>" in text


async def test_index_that_is_lost_is_made_anew(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    for number in range(3):
        shelf.add(number)
    async with page_of(tmp_path) as page:
        await wait_found(page, 3)
        for path in (tmp_path / ".spool" / INDEX_FOLDER).glob(f"{FILE_NAME}*"):
            path.unlink()
        assert "Nothing is recorded yet." in await page.text("/recordings")
        # All else goes on.
        report = await page.house.call(duration=0.5)
        assert report.ok
        await page.house.service.index.build()
        await wait_found(page, 4)


async def test_page_says_while_the_index_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = trio.Event()

    async def wait(self: FolderStore, prefix: str, *, after: str = "") -> Any:  # noqa: ANN401
        await gate.wait()
        async for names in list_names(self, prefix, after=after):
            yield names

    list_names = FolderStore.list_names
    monkeypatch.setattr(FolderStore, "list_names", wait)
    Shelf(tmp_path).add(1)
    async with page_of(tmp_path) as page:
        assert "The index is being made" in await page.text("/recordings")
        assert "The index is being made" in await page.text("/waiting")
        gate.set()
        # It is found a moment before the whole store has been gone through.
        index = page.house.service.index
        await wait_until(lambda: not index.statistics().building)
        assert "The index is being made" not in await wait_found(page, 1)


async def test_question_that_makes_no_sense_is_told(tmp_path: Path) -> None:
    async with page_of(tmp_path) as page:
        for asked in (
            "conversation=x",
            "since=yesterday",
            "before=x",
            "text=" + "x" * 201,
        ):
            answer = await page.get(f"/recordings?{asked}")
            assert answer.status_code == 400
            assert 'role="alert"' in answer.text


@pytest.mark.parametrize(
    ("given", "since_ms", "until_ms"),
    [
        ({"since": "2026-11-22"}, NOON_MS - DAY_MS // 2, None),
        ({"until": "2026-11-22"}, None, NOON_MS + DAY_MS // 2),
        # In Kolkata a day begins five and a half hours earlier.
        (
            {"since": "2026-11-22", "sinceOffset": "-330"},
            NOON_MS - DAY_MS // 2 - 330 * 60_000,
            None,
        ),
        (
            {"until": "2026-11-22", "untilOffset": "480"},
            None,
            NOON_MS + DAY_MS // 2 + 480 * 60_000,
        ),
        ({"since": "2026-11-22", "sinceOffset": "x"}, NOON_MS - DAY_MS // 2, None),
        (
            {"since": "2026-11-22", "sinceOffset": "9999"},
            NOON_MS - DAY_MS // 2 + 960 * 60_000,
            None,
        ),
        ({"since": "0001-01-01"}, 0, None),
    ],
)
def test_day_begins_where_its_reader_is(
    given: dict[str, str], since_ms: int | None, until_ms: int | None
) -> None:
    query = read_wish(given).query
    assert query is not None
    assert (query.since_ms, query.until_ms) == (since_ms, until_ms)


@pytest.mark.parametrize(
    "given",
    [
        {"since": "2026-02-30"},
        {"until": "9999-12-31"},
        {"since": "20261122"},
        {"conversation": "1"},
        {"participant": "../x"},
        {"before": "-1"},
        {"before": "9" * 19},
    ],
)
def test_what_makes_no_sense_is_not_asked(given: dict[str, str]) -> None:
    wish = read_wish(given)
    assert wish.query is None
    assert wish.fault


def test_empty_fields_ask_for_nothing() -> None:
    assert read_wish({"text": " ", "since": "", "sinceOffset": "5"}).query == Query()


QUESTIONS = {
    "newest": Query(),
    "next": Query(before=2**62),
    "conversation": Query(conversation=summary(7)["conversationId"]),
    "participant": Query(participant=summary(7)["participant"]["id"]),
    "number": Query(number="000007"),
    "day": Query(since_ms=round(EPOCH * 1000), until_ms=round(EPOCH * 1000) + DAY_MS),
    "word": Query(text="parcel"),
    "word, next": Query(text="parcel", before=2**62),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_no_question_reads_or_sorts_the_whole_table(tmp_path: Path, name: str) -> None:
    """Whatever is asked, SQLite goes along an index, and in the order of the answer."""
    database = Database(tmp_path)
    database.put([(entry(number), "parcel") for number in range(200)])
    database.close()
    asked: list[str] = []
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        connection.set_trace_callback(asked.append)
        found = Search(connection, QUESTIONS[name], has_fts=True).run(PAGE + 1)
        connection.set_trace_callback(None)
        assert found
        steps = [
            row[3]
            for text in asked
            if text.startswith("SELECT")
            for row in connection.execute(f"EXPLAIN QUERY PLAN {text}")
        ]
    connection.close()
    assert steps
    for step in steps:
        assert "TEMP B-TREE" not in step, step
        assert not re.fullmatch(r"SCAN (r|recordings|uses|numbers)", step), step
