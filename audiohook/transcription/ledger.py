"""The account's own list of jobs: the only witness of a request without an answer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import unquote, urlsplit

from audiohook.errors import TranscriptError
from audiohook.transcription.base import TranscriptFault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from audiohook.transcription.base import ListedTranscript, TranscriptPage

ReadPage: TypeAlias = "Callable[[str | None], Awaitable[TranscriptPage]]"
"""Fetches a page: what is older than the job with that id, or the newest."""


MOST_PAGES: Final = 5_000
"""Longest list that is read to its end: a million jobs, of which none is too old."""

Place: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Query:
    """A job that somebody looks for.

    Attributes:
        audio_url: What it is of, without a query.
        created_after: It was not made before, in seconds since 1970.
        known: Ids of other jobs of the same audio.
    """

    audio_url: str
    created_after: float
    known: Collection[str]

    @property
    def place(self) -> Place:
        """Where the audio is, however its address is written."""
        return place_of(self.audio_url)

    def matches(self, item: ListedTranscript) -> bool:
        """Tell whether an entry of the list is the job."""
        if place_of(item.audio_url) != self.place or item.id in self.known:
            return False
        created = created_epoch(item.created)
        return created is None or created >= self.created_after


async def search(read_page: ReadPage, queries: Sequence[Query]) -> list[str | None]:
    """Look for any number of jobs in one pass over the list.

    The pass begins with the newest and ends as soon as all are found, or whatever
    follows is older than all of them.

    Args:
        read_page: Fetches a page.
        queries: What is looked for.

    Returns:
        The id of each job; None for one that was not in the list when this began.

    Raises:
        TranscriptError: The list could not be read to the end.
    """
    found: list[str | None] = [None] * len(queries)
    missing: dict[Place, list[int]] = {}
    for number, query in enumerate(queries):
        missing.setdefault(query.place, []).append(number)
    before_id: str | None = None
    passed: set[str | None] = {None}
    while missing:
        page = await read_page(before_id)
        for item in page.items:
            _note(item, queries, missing, found)
        before_id = page.before_id
        if before_id is None or _is_past(page, queries, missing):
            break
        if before_id in passed or len(passed) == MOST_PAGES:
            raise TranscriptError(
                "the list of jobs has no end", fault=TranscriptFault.AWAY
            )
        passed.add(before_id)
    return found


def place_of(audio_url: str) -> Place:
    """Tell where audio is: the host and the path, with nothing escaped.

    An address comes back from the service as it likes to write it; brackets, quotes
    and asterisks in a key can be written in two ways.

    Args:
        audio_url: Without a query.
    """
    try:
        parts = urlsplit(audio_url)
        return parts.netloc.lower(), unquote(parts.path)
    except ValueError:
        return "", audio_url


def created_epoch(created: str) -> float | None:
    """Read when a job was made.

    Args:
        created: As in the list; without a zone it is UTC.

    Returns:
        Seconds since 1970; None if it says nothing that we understand.
    """
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


def _note(
    item: ListedTranscript,
    queries: Sequence[Query],
    missing: dict[Place, list[int]],
    found: list[str | None],
) -> None:
    """Give an entry of the list to the one that looks for it."""
    place = place_of(item.audio_url)
    numbers = missing.get(place, [])
    for number in numbers:
        if queries[number].matches(item):
            found[number] = item.id
            numbers.remove(number)
            if not numbers:
                del missing[place]
            return


def _is_past(
    page: TranscriptPage, queries: Sequence[Query], missing: dict[Place, list[int]]
) -> bool:
    """Tell whether all that follows a page is too old."""
    if not missing or not page.items:
        return not missing
    oldest = min(
        queries[number].created_after
        for numbers in missing.values()
        for number in numbers
    )
    last = created_epoch(page.items[-1].created)
    return last is not None and last < oldest
