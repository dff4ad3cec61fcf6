"""Finding a recording among many, and the next page of what was found.

Run with ``AUDIOHOOK_BENCH_RECORDINGS=100000 python -m pytest bench/test_index.py
--benchmark-only -q``; to fill the index takes a minute or two, so there are fewer
without that. Each question is one that a person asks, and its answer a page of 50.
What is promised for 100,000 is 100 ms; see ``median``.
"""

from __future__ import annotations

import os
import random
import uuid
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING

import pytest

from audiohook.index.database import Database
from audiohook.index.entry import Entry, RecordingState
from audiohook.index.search import ID_BITS, Query
from audiohook.recording.journal import utc_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_benchmark.fixture import BenchmarkFixture

RECORDINGS = int(os.environ.get("AUDIOHOOK_BENCH_RECORDINGS", "5000"))
PAGE = 50
EPOCH = 1_780_000_000.0
WORDS = 120
HOTLINE = "tel:+498001234"


def conversation(number: int) -> str:
    return str(uuid.UUID(int=number, version=4))


def entry(number: int) -> Entry:
    started_at = utc_text(EPOCH + number * 3.7)
    name = f"{started_at.replace(':', '-')}_{conversation(number)}_{conversation(7)}"
    return Entry(
        key=f"calls/{name}",
        session=conversation(number + 10**9),
        conversation=conversation(number),
        participant=conversation(number % 5000 + 10**10),
        ani=f"tel:+4930{number % 40_000:07d}",
        ani_name="",
        # All came in by one number, so that finds all of them.
        dnis=HOTLINE,
        started_at=started_at,
        duration=180.0,
        language="en-US",
        complete=True,
        state=RecordingState.TRANSCRIBED,
    )


def word(number: int) -> str:
    """Makes a word of syllables, so that many begin alike, as those of a language."""
    syllables = []
    rest = number * 7919 + 12_345
    while rest:
        rest, letters = divmod(rest, 100)
        syllables.append("bdfgklmnprstvwzcjhxy"[letters // 5] + "aeiou"[letters % 5])
    return "".join(syllables)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    chance = random.Random(5)
    # As in speech: few words are said all the time, and most of them rarely.
    vocabulary = [word(number) for number in range(20_000)]
    weights = list(accumulate(1 / (rank + 1) for rank in range(len(vocabulary))))
    database = Database(tmp_path_factory.mktemp("index"))
    for first in range(0, RECORDINGS, 1000):
        batch = []
        for number in range(first, first + 1000):
            words = chance.choices(vocabulary, cum_weights=weights, k=WORDS)
            if number == RECORDINGS // 2:
                words.append("needle")
            batch.append((entry(number), " ".join(words)))
        database.put(batch)
    yield database
    database.close()


QUESTIONS = {
    "newest": Query(),
    "conversation": Query(conversation=conversation(RECORDINGS // 3)),
    "participant": Query(participant=conversation(123 + 10**10)),
    "number": Query(number="030 0001234"),
    "number of all": Query(number="0800 1234"),
    "end of many numbers": Query(number="1234"),
    "time": Query(
        since_ms=round((EPOCH + 1000) * 1000), until_ms=round((EPOCH + 90_000) * 1000)
    ),
    "rare word": Query(text="needle"),
    "common word": Query(text=word(0)),
    "common words": Query(text=f"{word(0)} {word(1)} {word(2)} {word(3)}"),
    "words of few": Query(text=f"{word(0)} needle"),
    "beginning of a word": Query(text=f"{word(1)[:4]}*"),
    "two letters of a word": Query(text=f"{word(1)[:2]}*"),
    "rare word, number of all": Query(text="needle", number="08001234"),
    "common word, number of all": Query(text=word(0), number="08001234"),
    "common word, participant": Query(
        text=word(0), participant=conversation(123 + 10**10)
    ),
    "common word, time": Query(
        text=word(0),
        since_ms=round((EPOCH + 1000) * 1000),
        until_ms=round((EPOCH + 90_000) * 1000),
    ),
}


@pytest.mark.parametrize("page", ["first", "next", "deep"])
@pytest.mark.parametrize("name", QUESTIONS)
def test_find(
    benchmark: BenchmarkFixture, index: Database, name: str, page: str
) -> None:
    benchmark.group = page
    query = QUESTIONS[name]
    if page == "next":
        found = index.search(query, PAGE)
        query = replace(query, before=found[-1].id)
    elif page == "deep":
        middle = round((EPOCH + RECORDINGS * 3.7 / 10) * 1000)
        query = replace(query, before=middle << ID_BITS)
    answer = benchmark(index.search, query, PAGE)
    benchmark.extra_info["found"] = len(answer)


def test_take_in(benchmark: BenchmarkFixture, index: Database) -> None:
    benchmark.group = "take in one"
    one = entry(RECORDINGS // 4)
    benchmark(index.put, [(one, "some words that were said")])
