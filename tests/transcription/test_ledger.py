from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from audiohook.errors import TranscriptError
from audiohook.transcription import ledger
from audiohook.transcription.base import (
    ListedTranscript,
    TranscriptPage,
    TranscriptStatus,
)
from audiohook.transcription.ledger import Query, search

if TYPE_CHECKING:
    from collections.abc import Sequence

    from audiohook.transcription.ledger import ReadPage

HOUR = 3600.0
NOON = 1_795_608_000.0
URL = "https://bucket.example/calls/a.wav"


def listed(
    number: int, url: str = "https://x/other.wav", at: str = "2026-11-25T12:00:00"
) -> ListedTranscript:
    return ListedTranscript(f"t{number}", TranscriptStatus.QUEUED, at, url)


def pages(*contents: Sequence[ListedTranscript]) -> ReadPage:
    """A list of so many pages."""
    left = list(contents)

    async def read(before_id: str | None) -> TranscriptPage:
        items = tuple(left.pop(0))
        return TranscriptPage(items, items[-1].id if left else None)

    return read


def query(url: str = URL, *, known: Sequence[str] = (), since: float = 0) -> Query:
    return Query(url, since, frozenset(known))


async def test_newest_of_the_same_audio_is_found_unless_it_is_known() -> None:
    listing = [[listed(9), listed(8, URL), listed(7, URL)], [listed(6, URL)]]
    assert await search(pages(*listing), [query()]) == ["t8"]
    assert await search(pages(*listing), [query(known=["t8"])]) == ["t7"]
    assert await search(pages(*listing), [query(known=["t8", "t7"])]) == ["t6"]
    known = ["t8", "t7", "t6"]
    assert await search(pages(*listing), [query(known=known)]) == [None]


async def test_two_that_look_for_the_same_audio_find_one_each() -> None:
    listing = [[listed(8, URL), listed(7, URL)]]
    assert await search(pages(*listing), [query(), query()]) == ["t8", "t7"]


@pytest.mark.parametrize(
    "theirs",
    [
        "https://bucket.example/a%20b/it%27s%20%28x%29%21%2A.wav",
        "https://bucket.example/a%20b/it's%20(x)!*.wav",
        "https://BUCKET.example/a b/it's (x)!*.wav",
        "http://bucket.example/a%20b/it%27s%20(x)!%2a.wav",
    ],
)
async def test_audio_is_the_same_however_its_address_is_written(theirs: str) -> None:
    ours = "https://bucket.example/a%20b/it%27s%20%28x%29%21%2A.wav"
    assert await search(pages([listed(1, theirs)]), [query(ours)]) == ["t1"]


@pytest.mark.parametrize(
    "theirs",
    [
        "https://bucket.example/A%20b/x.wav",
        "https://bucket.example/a%20b/x.wav/",
        "https://other.example/a%20b/x.wav",
        "http://deleted_by_user",
        "https://[",
        "",
    ],
)
async def test_other_audio_is_not_taken_for_it(theirs: str) -> None:
    ours = "https://bucket.example/a%20b/x.wav"
    assert await search(pages([listed(1, theirs)]), [query(ours)]) == [None]


async def test_search_ends_where_all_is_too_old() -> None:
    since = NOON - HOUR
    young, old = "2026-11-25T11:59:00", "2026-11-25T10:00:00Z"
    listing = [[listed(2, at=young)], [listed(1, at=old)], [listed(0, URL, at=old)]]
    read = pages(*listing)
    assert await search(read, [query(since=since)]) == [None]


async def test_list_that_never_ends_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledger, "MOST_PAGES", 50)
    numbers = itertools.count()

    async def read(_: str | None) -> TranscriptPage:
        item = listed(next(numbers))
        return TranscriptPage((item,), item.id)

    with pytest.raises(TranscriptError, match="has no end"):
        await search(read, [query()])
    assert next(numbers) == 50


async def test_list_that_goes_in_circles_is_given_up() -> None:
    async def read(before_id: str | None) -> TranscriptPage:
        item = listed(1 if before_id == "t2" else 2)
        return TranscriptPage((item,), item.id)

    with pytest.raises(TranscriptError, match="has no end"):
        await search(read, [query()])
