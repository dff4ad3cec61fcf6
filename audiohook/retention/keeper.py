"""Has what was kept for its time removed, once a day, and the index follow."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from audiohook.erasure.local import calls_of
from audiohook.errors import CallIndexError, ErasureError, UploadError
from audiohook.recording.journal import utc_text
from audiohook.retention.sweep import FolderSweep
from audiohook.retention.terms import SECONDS_A_DAY, keep_of
from audiohook.storage.folder import FolderStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from audiohook.erasure.places import Place
    from audiohook.index.entry import Entry
    from audiohook.index.keeper import CallIndex
    from audiohook.retention.terms import Keep, Over
    from audiohook.storage.s3 import S3Store

SECONDS = 1.0
MINUTES = 60 * SECONDS
HOURS = 60 * MINUTES

# After a start everything else comes first.
_FIRST: Final = 1 * MINUTES
_INTERVAL: Final = 24 * HOURS
_PAGE: Final = 200
# Requests of the look at a bucket, a second, beside those of the calls.
_PAUSE: Final = 0.02 * SECONDS


class Retention:
    """Sees to it that nothing is kept for longer than was said.

    In a folder it removes; in a bucket that is done by the bucket's own rules, and it
    only has the index say so.

    Args:
        store: Where recordings are.
        keeps: Returns how long what is kept, see `terms.keep_of`.
        place: Returns a part of the store.
        index: Follows.
        spool: The spool's folder; calls that are in it are left alone.
        log: For what an operator must see.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        store: FolderStore | S3Store,
        keeps: Callable[[], Mapping[str, Keep]],
        *,
        place: Callable[[str], Place],
        index: CallIndex,
        spool: Path,
        log: FilteringBoundLogger,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._keeps = keeps
        self._place = place
        self._index = index
        self._spool = spool
        self._log = log
        self._clock = clock
        self._threads = trio.CapacityLimiter(1)

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Removes what is due soon after the start, and then daily; until cancelled.

        *Cancellation:* The next start goes on.
        """
        task_status.started()
        await trio.sleep(_FIRST)
        while True:
            try:
                await self.sweep()
            except (UploadError, CallIndexError, ErasureError) as error:
                self._log.warning("retention_fails", error=str(error))
            except Exception:  # noqa: BLE001 - the edge: it must not cost a call
                self._log.exception("retention_fails")
            await trio.sleep(_INTERVAL)

    async def sweep(self) -> None:
        """Remove once what is due.

        Raises:
            UploadError: The store cannot be listed.
            CallIndexError: The index cannot be written.
            ErasureError: The spool cannot be read.
        """
        keeps = self._keeps()
        if all(keep.first_days is None for keep in keeps.values()):
            return
        if isinstance(self._store, FolderStore):
            await self._sweep_folder(self._store, keeps)
        else:
            await self._look_at_buckets(keeps)

    async def _sweep_folder(
        self, store: FolderStore, keeps: Mapping[str, Keep]
    ) -> None:
        busy = await trio.to_thread.run_sync(
            partial(_busy_names, self._spool), limiter=self._threads
        )
        forgotten: list[str] = []
        # One that lies in another is reached from there.
        inner = {a for a in keeps for b in keeps if a != b and a.startswith(b)}
        for prefix in keeps.keys() - inner:
            swept = await FolderSweep(
                store,
                prefix,
                keeps,
                changed=self._index.note,
                forgotten=forgotten.append,
                log=self._log,
                clock=self._clock,
            ).run(busy)
            if swept.audio or swept.transcripts or swept.calls or swept.failed:
                self._log.info(
                    "retention_swept",
                    audio=swept.audio,
                    transcripts=swept.transcripts,
                    calls=swept.calls,
                    bytes=swept.bytes,
                    failed=swept.failed,
                )
        await self._index.forget(forgotten)

    async def _look_at_buckets(self, keeps: Mapping[str, Keep]) -> None:
        """Have the index say what the buckets' rules have removed."""
        days = [keep.first_days for keep in keeps.values()]
        first = min(each for each in days if each is not None)
        now = self._clock()
        before_ms = round((now - first * SECONDS_A_DAY) * 1000)
        after, marked, forgotten = 0, 0, 0
        while True:
            page = await self._index.due(
                before_ms,
                after,
                _PAGE,
                audio=any(each.audio_days is not None for each in keeps.values()),
                transcripts=any(
                    each.transcripts_days is not None for each in keeps.values()
                ),
            )
            for found in page:
                keep = keep_of(keeps, found.entry.key)
                entry = found.entry
                over = keep.over(entry.started_ms / 1000 + entry.duration, now)
                if over.audio or over.transcripts:
                    done = await self._look_at(entry, over, now)
                    marked, forgotten = marked + done[0], forgotten + done[1]
                    await trio.sleep(_PAUSE)
            if len(page) < _PAGE:
                break
            after = page[-1].id
        if marked or forgotten:
            self._log.info("retention_noted", marked=marked, forgotten=forgotten)

    async def _look_at(self, entry: Entry, over: Over, now: float) -> tuple[int, int]:
        """Look what is left of a recording; how many were marked, and forgotten."""
        folders: set[str] = set()
        place = self._place(f"{entry.key}/")
        async for page in place.traces.beginning(place.prefix):
            rests = (each.key.removeprefix(place.prefix) for each in page)
            folders |= {rest.partition("/")[0] for rest in rests}
        if not folders:
            await self._index.forget([entry.key])
            return 0, 1
        audio = transcripts = None
        if over.audio and "audio" not in folders:
            audio = entry.audio_removed_at or utc_text(now)
        if over.transcripts and "transcripts" not in folders:
            transcripts = entry.transcripts_removed_at or utc_text(now)
        if audio is None and transcripts is None:
            return 0, 0
        await self._index.mark_removed(entry.key, audio, transcripts)
        return 1, 0


def _busy_names(spool: Path) -> frozenset[str]:
    """Names of recordings of calls that are in the spool."""
    calls = calls_of(spool, lambda _opened: True)
    plans = (record.planned for record, _ in calls)
    return frozenset(plan.name for plan in plans if plan is not None)
