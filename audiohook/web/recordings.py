"""The page of recordings: the newest first, and what somebody looks for."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from audiohook.errors import CallIndexError
from audiohook.index.search import Query

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.responses import Response

    from audiohook.web.gate import Visit
    from audiohook.web.surroundings import Surroundings

PAGE: Final = 50
"""Recordings on a page."""

FIELDS: Final = ("text", "number", "conversation", "participant", "since", "until")
"""What is looked for, by the names of the form."""

_LONGEST: Final = 200
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_OFFSET: Final = re.compile(r"-?[0-9]{1,4}")
_MOST_MINUTES: Final = 16 * 60
_BEFORE: Final = re.compile(r"[0-9]{1,18}")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody looks for.

    Attributes:
        query: It, as the index takes it; None if it makes no sense.
        given: It, as it came.
        fault: Why it makes no sense; empty if it does.
    """

    query: Query | None
    given: Mapping[str, str]
    fault: str = ""


class RecordingPages:
    """Finds recordings.

    Args:
        surroundings: What the page knows of the service.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        self._around = surroundings

    async def show(self, visit: Visit) -> Response:
        """Show a page of them."""
        wish = read_wish(visit.request.query_params)
        page, more, fault = [], False, wish.fault
        if wish.query is not None:
            try:
                # One more than wanted tells whether there is another page.
                found = await self._around.index.search(wish.query, PAGE + 1)
            except CallIndexError as error:
                if not error.costly:
                    raise
                fault = (
                    "That would take too long. Name a time, a number or rarer words."
                )
            else:
                page, more = found[:PAGE], len(found) > PAGE
        given = {name: wish.given[name] for name in FIELDS if wish.given.get(name)}
        return visit.render(
            "recordings.html",
            status=400 if fault else 200,
            recordings=[
                (each.entry.key.rpartition("/")[2], each.entry) for each in page
            ],
            older=_older(wish.given, page[-1].id) if more else None,
            is_first=not wish.given.get("before"),
            newest=f"/recordings?{urlencode(given)}" if given else "/recordings",
            given={name: given.get(name, "") for name in FIELDS},
            fault=fault,
            index=self._around.index.statistics(),
        )


def read_wish(parameters: Mapping[str, str]) -> Wish:
    """Read what somebody looks for out of the parameters of an address."""
    given = {name: text.strip() for name, text in parameters.items() if text.strip()}
    if any(len(text) > _LONGEST for text in given.values()):
        return Wish(None, {}, f"More than {_LONGEST} characters are too many.")
    try:
        return Wish(_query(given), given)
    except ValueError as error:
        return Wish(None, given, str(error))


def _query(given: Mapping[str, str]) -> Query:
    query = Query(
        conversation=_identity(given, "conversation"),
        participant=_identity(given, "participant"),
        number=given.get("number"),
        text=given.get("text"),
        since_ms=_midnight(given, "since"),
    )
    until = _midnight(given, "until", days=1)
    before = given.get("before")
    if before is not None and not _BEFORE.fullmatch(before):
        raise ValueError("The address of that page is none of ours.")
    return replace(
        query, until_ms=until, before=None if before is None else int(before)
    )


def _identity(given: Mapping[str, str], name: str) -> str | None:
    text = given.get(name)
    if text is None:
        return None
    text = text.lower()
    if not _UUID.fullmatch(text):
        raise ValueError(f"The {name} is looked for by its whole id, a UUID.")
    return text


def _midnight(given: Mapping[str, str], name: str, *, days: int = 0) -> int | None:
    """Return when a day begins where its reader is, in milliseconds since 1970.

    Args:
        given: The day, and by how many minutes UTC is ahead there, as a script says;
            without one it is a day of UTC.
        name: Of the day.
        days: So many days later.
    """
    text = given.get(name)
    if text is None:
        return None
    ahead = given.get(f"{name}Offset", "0")
    try:
        if not _DATE.fullmatch(text):
            raise ValueError(text)
        day = date.fromisoformat(text) + timedelta(days=days)
        minutes = int(ahead) if _OFFSET.fullmatch(ahead) else 0
        bounded = max(-_MOST_MINUTES, min(_MOST_MINUTES, minutes))
        moment = datetime(day.year, day.month, day.day, tzinfo=UTC)
        moment += timedelta(minutes=bounded)
    except (ValueError, OverflowError):
        raise ValueError("A day is written as 2026-11-22.") from None
    return max(0, round((moment - _EPOCH).total_seconds() * 1000))


def _older(given: Mapping[str, str], last: int) -> str:
    kept = {
        name: given[name]
        for name in (*FIELDS, "sinceOffset", "untilOffset")
        if name in given
    }
    return f"/recordings?{urlencode({**kept, 'before': str(last)})}"
