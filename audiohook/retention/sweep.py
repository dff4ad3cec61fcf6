"""Removes from a folder what was kept for its time.

What is removed is what ``call.json`` lists, so what is not ours stays. It says so
first, and the files go then: whoever is killed in between finds the same call again.
How old a call is it says itself; the times of files mean nothing, since a copy has
others.
"""

from __future__ import annotations

import json
import re
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import trio

from audiohook.errors import KeyExistsError, UploadError
from audiohook.recording.journal import utc_text
from audiohook.retention.terms import SECONDS_A_DAY, keep_of
from audiohook.storage.layout import SUMMARY_NAME, is_wav_key, job_key
from audiohook.storage.traces import Trace, TraceKind, conversation_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from structlog.typing import FilteringBoundLogger

    from audiohook.retention.terms import Keep, Over
    from audiohook.storage.folder import FolderStore

SECONDS = 1.0

# Between two calls of which something is removed, so that a disk stays usable.
_PAUSE: Final = 0.02 * SECONDS
_TIME: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})T([0-9]{2})-([0-9]{2})-([0-9]{2}\.[0-9]{3})Z"
)
# As deep as settings of calls may have put them, and other folders are passed over.
_DEEPEST: Final = 8
_MOST_PREFIXES: Final = 1000


@dataclass(slots=True)
class Swept:
    """What a sweep has come to.

    Attributes:
        audio: Calls of which the audio was removed.
        transcripts: Calls of which the transcripts were removed.
        calls: Calls that are gone altogether.
        bytes: Of all files that were removed.
        failed: Calls that could not be seen to.
    """

    audio: int = 0
    transcripts: int = 0
    calls: int = 0
    bytes: int = 0
    failed: int = 0


class FolderSweep:
    """Goes once through a part of a folder.

    Args:
        store: The folder.
        prefix: What the keys begin with.
        keeps: How long what is kept, see `terms.keep_of`.
        changed: Told of each JSON that says something new: its key and its content.
        forgotten: Told of the folder of each call that is gone.
        log: For what an operator must see.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        store: FolderStore,
        prefix: str,
        keeps: Mapping[str, Keep],
        *,
        changed: Callable[[str, bytes], None],
        forgotten: Callable[[str], None],
        log: FilteringBoundLogger,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._traces = store.traces
        self._prefix = prefix
        self._keeps = keeps
        self._changed = changed
        self._forgotten = forgotten
        self._log = log
        self._clock = clock

    async def run(self, busy: Collection[str]) -> Swept:
        """Remove what is due.

        Args:
            busy: Names of recordings that still wait for something; their time
                comes when they are done.

        Raises:
            UploadError: The folder cannot be listed.

        *Cancellation:* Between two files; the next sweep goes on.
        """
        swept = Swept()
        prefixes = [(self._prefix, 0)]
        while prefixes:
            prefix, depth = prefixes.pop()
            deeper = await self._sweep_prefix(prefix, busy, swept)
            if depth < _DEEPEST:
                below = sorted(deeper)[:_MOST_PREFIXES]
                prefixes += [(f"{prefix}{each}/", depth + 1) for each in below]
        return swept

    async def _sweep_prefix(
        self, prefix: str, busy: Collection[str], swept: Swept
    ) -> set[str]:
        """Remove what is due right below a prefix; returns other folders there."""
        deeper: set[str] = set()
        keep = keep_of(self._keeps, prefix)
        first = keep.first_days
        # By their names alone most calls are too young.
        latest = -1.0 if first is None else self._clock() - first * SECONDS_A_DAY
        async with aclosing(self._traces.names(prefix)) as pages:
            async for names in pages:
                for name in names:
                    if conversation_of(name) is None:
                        deeper.add(name)
                    elif name not in busy and _may_be_due(name, latest):
                        await self._see_to(f"{prefix}{name}", keep, swept)
                # A place to be cancelled, if nothing was due.
                await trio.lowlevel.checkpoint()
        return deeper

    async def _see_to(self, folder: str, keep: Keep, swept: Swept) -> None:
        try:
            if await self._sweep_call(folder, keep, swept):
                await trio.sleep(_PAUSE)
        except KeyExistsError:
            # Somebody has changed it meanwhile; tomorrow is another day.
            return
        except UploadError as error:
            swept.failed += 1
            if swept.failed == 1:
                self._log.warning("retention_fails", error=str(error))

    async def _sweep_call(self, folder: str, keep: Keep, swept: Swept) -> bool:
        """Remove what is due of a call; tells whether anything was."""
        key = f"{folder}/{SUMMARY_NAME}"
        there = await self._traces.below(folder)
        if not any(each.key == key for each in there):
            return False
        found = await self._store.fetch(key)
        call = None if found is None else _parse(found.data)
        if found is None or call is None:
            return False
        now = self._clock()
        over = keep.over(_ended_at(call), now)
        due = {
            each.key: each
            for each in there
            if each.key in set(_due(call, folder, over))
        }
        call_days = keep.call_days
        is_over = call_days is not None and over.audio and over.transcripts
        if not is_over and not due:
            return False
        if is_over:
            await self._remove_call(folder, there, call, swept)
            return True
        told = _with_marks(call, over, now)
        if told is not None:
            await self._store.swap(key, told, found.tag, metadata={})
            self._changed(key, told)
        await self._remove(due.values(), swept)
        await self._traces.tidy(folder, list(due))
        swept.audio += over.audio
        swept.transcripts += over.transcripts
        return True

    async def _remove_call(
        self,
        folder: str,
        there: list[Trace],
        call: Mapping[str, Any],
        swept: Swept,
    ) -> None:
        ours = {*_listed(call, folder), *_jobs(call)}
        summary = f"{folder}/{SUMMARY_NAME}"
        # The JSON last: without it nobody would know what else is ours.
        await self._remove([each for each in there if each.key in ours], swept)
        await self._remove(
            [Trace(TraceKind.OBJECT, summary, "", _size(there, summary))], swept
        )
        await self._traces.tidy(folder, ())
        self._forgotten(folder)
        swept.calls += 1

    async def _remove(self, traces: Collection[Trace], swept: Swept) -> None:
        for each in traces:
            if await self._traces.remove(each) is not None:
                raise UploadError(f"{each.key} cannot be removed: denied")
            swept.bytes += each.size


def _may_be_due(name: str, latest: float) -> bool:
    match = _TIME.match(name)
    if match is None:
        return False
    text = f"{match[1]}T{match[2]}:{match[3]}:{match[4]}+00:00"
    try:
        return datetime.fromisoformat(text).timestamp() <= latest
    except ValueError:
        return False


def _ended_at(call: Mapping[str, Any]) -> float:
    """When a call ended; a time that makes no sense lies in the future."""
    for name in ("end", "start"):
        value = call.get(name)
        if isinstance(value, str):
            try:
                moment = datetime.fromisoformat(value)
            except ValueError:
                continue
            if moment.tzinfo is not None:
                return moment.timestamp()
    return datetime.max.replace(tzinfo=UTC).timestamp()


def _due(call: Mapping[str, Any], folder: str, over: Over) -> Iterator[str]:
    for key in _listed(call, folder):
        kind = key.removeprefix(f"{folder}/").partition("/")[0]
        if (kind == "audio" and over.audio) or (
            kind == "transcripts" and over.transcripts
        ):
            yield key
    if over.transcripts:
        yield from _jobs(call)


def _listed(call: Mapping[str, Any], folder: str) -> Iterator[str]:
    """List the files that a call's JSON lists, as far as they are the call's."""
    transcripts = call.get("transcripts")
    for holder in (call, *(transcripts if isinstance(transcripts, list) else ())):
        objects = holder.get("objects") if isinstance(holder, dict) else None
        for each in objects if isinstance(objects, list) else ():
            key = each.get("key") if isinstance(each, dict) else None
            if isinstance(key, str) and key.startswith(f"{folder}/"):
                yield key


def _jobs(call: Mapping[str, Any]) -> Iterator[str]:
    transcripts = call.get("transcripts")
    for each in transcripts if isinstance(transcripts, list) else ():
        audio = each.get("audio") if isinstance(each, dict) else None
        if isinstance(audio, str) and is_wav_key(audio):
            yield job_key(audio)


def _parse(data: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    is_ours = isinstance(value, dict) and isinstance(value.get("sessionId"), str)
    return value if is_ours else None


def _with_marks(call: dict[str, Any], over: Over, now: float) -> bytes | None:
    """Say in a call's JSON what was removed, and when; None if it is said."""
    known = call.get("removed")
    marks: dict[str, str | None] = {"audio": None, "transcripts": None}
    if isinstance(known, dict):
        marks |= {name: known.get(name) for name in marks}
    before = dict(marks)
    if over.audio and marks["audio"] is None:
        marks["audio"] = utc_text(now)
    if over.transcripts and marks["transcripts"] is None:
        marks["transcripts"] = utc_text(now)
    if marks == before:
        return None
    told = {**call, "removed": marks}
    try:
        return (json.dumps(told, indent=2, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:
        # Half a surrogate pair, which JSON can carry only as an escape.
        return (json.dumps(told, indent=2) + "\n").encode()


def _size(there: Collection[Trace], key: str) -> int:
    return sum(each.size for each in there if each.key == key)
