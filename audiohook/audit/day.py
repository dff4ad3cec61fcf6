"""One day's calls, held against everything that knows of them.

The store is asked for the names of that day alone, since names begin with the date:
a request for each thousand files, and one for each call's JSON. How many calls of
other days there are does not matter.
"""

from __future__ import annotations

import hashlib
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from audiohook.audit.findings import (
    CallFiles,
    Finding,
    Judgement,
    Kind,
    judge,
)
from audiohook.audit.spooled import look
from audiohook.errors import UploadError
from audiohook.index.search import Query
from audiohook.retention.terms import keep_of
from audiohook.storage.layout import SUMMARY_NAME, in_bucket
from audiohook.storage.traces import TraceKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from audiohook.audit.spooled import SpooledDay
    from audiohook.erasure.places import Place
    from audiohook.index.search import Found
    from audiohook.retention.terms import Keep, Over
    from audiohook.storage.base import ReadableStore

MIB: Final = 1024 * 1024

_PARALLEL: Final = 8
_CHUNK_BYTES: Final = 4 * MIB
_INDEX_PAGE: Final = 500


@dataclass(slots=True)
class Report:
    """What an audit has found.

    Attributes:
        day: The day, in UTC.
        calls: Recordings that are there.
        incomplete: Those among them of which audio is known to be lost.
        live: Calls of the day that are going on.
        has_index: Whether there was an index to compare with.
        requests: Requests to the store.
        findings: What is missing or wrong.
    """

    day: date
    calls: int = 0
    incomplete: int = 0
    live: int = 0
    has_index: bool = False
    requests: int = 0
    findings: list[Finding] = field(default_factory=list)


class Audit:
    """Compares what is known of a day's calls.

    Args:
        places: All that recordings may be in.
        at: Returns a part of the store by what keys there begin with.
        store: How it is read, in whichever bucket.
        spool: The spool's folder.
        search: Finds recordings in the index; None if there is no index.
        keeps: How long things are kept, by prefixes.
        now: Unix time in seconds.
        deep: Whether to read all files and compare their checksums.
    """

    def __init__(
        self,
        places: Sequence[Place],
        *,
        at: Callable[[str], Place],
        store: ReadableStore,
        spool: Path,
        search: Callable[[Query, int], list[Found]] | None,
        keeps: Mapping[str, Keep],
        now: float,
        deep: bool = False,
    ) -> None:
        self._places = places
        self._at = at
        self._store = store
        self._spool = spool
        self._search = search
        self._keep_of = keeps
        self._now = now
        self._deep = deep
        self._threads = trio.CapacityLimiter(1)

    async def of(self, day: date) -> Report:
        """Audit a day.

        Raises:
            UploadError: A store did not do as asked, so nobody can tell.
            CallIndexError: The index cannot be read.
            ErasureError: The spool cannot be read.
        """
        report = Report(day)
        # The spool first: what leaves it meanwhile is in the store afterwards.
        spooled = await trio.to_thread.run_sync(
            partial(look, self._spool, day.isoformat()), limiter=self._threads
        )
        report.live = len(spooled.live)
        indexed = await self._indexed(day)
        known: set[str] = set()
        # Settings of calls may have put some deeper; the index knows where.
        starts = {in_bucket(each.bucket, each.prefix): each for each in self._places}
        for key in indexed or ():
            start = f"{key.rpartition('/')[0]}/"
            starts.setdefault(start, self._at(start))
        for place in starts.values():
            known |= await self._look_at(place, day, spooled, report)
        for name in spooled.waiting:
            if not spooled.is_delivered(name):
                report.findings.append(
                    Finding(Kind.NOT_STORED, spooled.names.get(name, name))
                )
        report.findings += [Finding(Kind.ASIDE, each) for each in spooled.aside]
        if indexed is not None:
            report.has_index = True
            report.findings += [
                Finding(Kind.NOT_IN_INDEX, each.rpartition("/")[2])
                for each in known - indexed
            ]
            report.findings += [
                Finding(Kind.ONLY_IN_INDEX, each.rpartition("/")[2])
                for each in indexed - known
            ]
        report.findings.sort(key=lambda each: (each.name, each.kind, each.detail))
        return report

    async def _look_at(
        self, place: Place, day: date, spooled: SpooledDay, report: Report
    ) -> set[str]:
        """Judge all calls of a place; returns the folders of those that are there."""
        calls: dict[str, CallFiles] = {}
        pages = place.traces.beginning(f"{place.prefix}{day.isoformat()}T")
        async with aclosing(pages) as each_page:
            async for page in each_page:
                report.requests += 1
                for trace in page:
                    rest = trace.key.removeprefix(place.prefix)
                    files = calls.setdefault(rest.partition("/")[0], CallFiles())
                    if trace.kind is TraceKind.UPLOAD:
                        files.uploads.add(trace.key)
                    else:
                        files.sizes[trace.key] = trace.size
        waiting = set(spooled.names.values())
        start = in_bucket(place.bucket, place.prefix)
        over = keep_of(self._keep_of, start).over_on(day, self._now)
        await _Pool(self, place, calls, waiting, report).run(over)
        return {
            f"{start}{name}"
            for name, files in calls.items()
            if f"{place.prefix}{name}/{SUMMARY_NAME}" in files.sizes
        }

    async def read(self, place: Place, key: str) -> bytes | None:
        """Read a small file.

        Raises:
            UploadError: The store did not do as asked.
        """
        return await self._store.read(in_bucket(place.bucket, key))

    async def check_content(
        self, place: Place, name: str, judged: Judgement, sizes: dict[str, int]
    ) -> list[Finding]:
        """Read files, and hold them against their checksums.

        Raises:
            UploadError: The store did not do as asked.
        """
        if not self._deep:
            return []
        found = []
        for key, sha256 in judged.expected.items():
            digest = hashlib.sha256()
            for offset in range(0, sizes[key], _CHUNK_BYTES):
                length = min(_CHUNK_BYTES, sizes[key] - offset)
                where = in_bucket(place.bucket, key)
                digest.update(await self._store.read_range(where, offset, length))
            if digest.hexdigest() != sha256:
                found.append(Finding(Kind.CHECKSUM, name, key))
        return found

    async def _indexed(self, day: date) -> set[str] | None:
        """Return the folders of a day's calls that the index knows."""
        if self._search is None:
            return None
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
        since = round(midnight.timestamp() * 1000)
        until = round((midnight + timedelta(days=1)).timestamp() * 1000)
        indexed: set[str] = set()
        before: int | None = None
        while True:
            query = Query(since_ms=since, until_ms=until, before=before)
            page = await trio.to_thread.run_sync(
                self._search, query, _INDEX_PAGE, limiter=self._threads
            )
            indexed |= {each.entry.key for each in page}
            if len(page) < _INDEX_PAGE:
                return indexed
            before = page[-1].id


class _Pool:
    """Judges calls side by side."""

    def __init__(
        self,
        audit: Audit,
        place: Place,
        calls: dict[str, CallFiles],
        waiting: set[str],
        report: Report,
    ) -> None:
        self._audit = audit
        self._place = place
        self._calls = calls
        self._names = sorted(calls)
        self._waiting = waiting
        self._report = report
        self._fault: UploadError | None = None

    async def run(self, expired: Over) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(_PARALLEL):
                nursery.start_soon(self._work, expired)
        if self._fault is not None:
            raise self._fault

    async def _work(self, expired: Over) -> None:
        while self._names and self._fault is None:
            try:
                await self._judge(self._names.pop(), expired)
            except UploadError as error:
                self._fault = error

    async def _judge(self, name: str, expired: Over) -> None:
        place, report = self._place, self._report
        folder = f"{place.prefix}{name}"
        files, summary = self._calls[name], None
        key = f"{folder}/{SUMMARY_NAME}"
        if key in files.sizes:
            summary = await self._audit.read(place, key)
            report.requests += 1
        judged = judge(
            name, folder, files, summary, expired, is_spooled=name in self._waiting
        )
        report.calls += summary is not None
        report.incomplete += not judged.is_complete
        report.findings += judged.findings
        report.findings += await self._audit.check_content(
            place, name, judged, files.sizes
        )
