"""What there is of a call in a store, down to the last version, and its removal.

A trace is whatever somebody could still read, count or restore: an object, an older
version of one, a marker that says that one was deleted, an upload that nobody has
finished. Recordings are never removed but through here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

import trio

from audiohook.errors import UploadError
from audiohook.storage.base import StoreFault

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from typing_extensions import AsyncGenerator

_ID: Final = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_NAME: Final = re.compile(
    r"(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2})T[0-9]{2}-[0-9]{2}-[0-9]{2}\.[0-9]{3}Z"
    rf"_(?P<conversation>{_ID})_(?P<participant>{_ID})(?:_[0-9]{{1,3}})?"
)
# Requests to the store at a time for one call.
_REQUESTS: Final = 4


class TraceKind(StrEnum):
    """What a trace is."""

    OBJECT = "object"
    """An object, or a version of one."""
    MARKER = "marker"
    """A note of the store that an object was deleted, whose versions may be there."""
    UPLOAD = "upload"
    """Parts of an object that was not finished."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One thing that there is of a call.

    Attributes:
        kind: What it is.
        key: Where.
        version: Which version, or which upload; empty where there are none.
        size: Bytes; 0 if the store does not say.
    """

    kind: TraceKind
    key: str
    version: str
    size: int


class Reason(StrEnum):
    """Why something could not be removed."""

    LOCKED = "locked"
    """Object Lock keeps it until a certain time."""
    HELD = "held"
    """A legal hold keeps it until somebody takes it off."""
    DENIED = "denied"
    """The role or the user may not delete it."""
    UNKNOWN = "unknown"
    """Nobody can tell whether it is of the session that is meant."""


WHY_KEPT: Final = {
    Reason.LOCKED: "Object Lock keeps it",
    Reason.HELD: "a legal hold keeps it until somebody takes that off",
    Reason.DENIED: "denied: allow s3:DeleteObjectVersion, or write to the folder",
    Reason.UNKNOWN: "nobody can tell which session it is of; look at it by hand",
}
"""The same for a person, with what is to be done about it."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Something that could not be removed.

    Attributes:
        trace: What.
        reason: Why.
        until: For how long, in UTC, if that is known.
    """

    trace: Trace
    reason: Reason
    until: str | None = None


class Traces(Protocol):
    """A store as somebody sees it who has to remove all of a call."""

    def names(self, prefix: str) -> AsyncGenerator[list[str]]:
        """List the names of all recordings of which there is any trace.

        Args:
            prefix: What their keys begin with, with a slash at the end.

        Yields:
            Names, some at a time; the same one may come twice.

        Raises:
            UploadError: The store did not do as asked.
        """

    def beginning(self, start: str) -> AsyncGenerator[list[Trace]]:
        """List current objects and unfinished uploads whose keys begin so.

        Args:
            start: Such as ``calls/2026-11-22T``.

        Yields:
            What one request gave.

        Raises:
            UploadError: The store did not do as asked.
        """

    async def below(self, folder: str) -> list[Trace]:
        """List all traces below a folder.

        Args:
            folder: Such as ``calls/NAME``; a slash is put behind it, so that it is
                never the beginning of another name.

        Raises:
            UploadError: The store did not do as asked.
        """

    async def content(self, trace: Trace) -> bytes | None:
        """Return a small object, or a version of one; ``None`` if it is gone.

        Raises:
            UploadError: The store did not do as asked, or it is too large.
        """

    async def notes(self, trace: Trace) -> dict[str, str]:
        """Return what is kept beside an object; nothing if it is gone.

        Raises:
            UploadError: The store did not do as asked.
        """

    async def remove(self, trace: Trace) -> Kept | None:
        """Remove a trace for ever; no fault if it is gone.

        Returns:
            Why it is still there, if nobody can change that for now.

        Raises:
            UploadError: The store did not do as asked; try again later.
        """

    async def hide(self, key: str) -> None:
        """Have nobody find an object any more that cannot be removed yet.

        Raises:
            UploadError: The store did not do as asked.
        """

    async def tidy(self, folder: str, keys: Collection[str]) -> None:
        """Remove what is left of a folder that nothing is in.

        Args:
            folder: Such as ``calls/NAME``.
            keys: What was in it.

        Raises:
            UploadError: The store did not do as asked.
        """


def conversation_of(name: str) -> str | None:
    """Tell the conversation in the name of a recording.

    It is the nil UUID for an id that was no UUID; None if the name is not one of ours.
    """
    match = _NAME.fullmatch(name)
    return None if match is None else match["conversation"]


async def remove_all(traces: Traces, there: Sequence[Trace]) -> list[Kept]:
    """Remove traces: those first that others act by, and markers last.

    What a marker hides must not come to light again because it is locked.

    Args:
        traces: The store.
        there: What is to be removed.

    Returns:
        What cannot be removed. Nobody finds it who does not ask for versions.

    Raises:
        UploadError: The store did not do as asked; try again later.
    """
    kept: list[Kept] = []
    stages = (
        [each for each in there if each.kind is TraceKind.UPLOAD],
        [each for each in there if _is_job(each)],
        [each for each in there if each.kind is TraceKind.OBJECT and not _is_job(each)],
    )
    for stage in stages:
        kept += await _remove_side_by_side(traces, stage)
    locked = {each.trace.key for each in kept}
    markers = [each for each in there if each.kind is TraceKind.MARKER]
    free = [each for each in markers if each.key not in locked]
    kept += await _remove_side_by_side(traces, free)
    hidden = {each.key for each in markers}
    for key in locked - hidden:
        try:
            await traces.hide(key)
        except UploadError as error:
            # That it is there is said in any case.
            if error.fault != StoreFault.DENIED:
                raise
    return kept


async def _remove_side_by_side(traces: Traces, there: Sequence[Trace]) -> list[Kept]:
    waiting, kept = list(there), []
    faults: list[UploadError] = []

    async def remove() -> None:
        while waiting and not faults:
            try:
                left = await traces.remove(waiting.pop())
            except UploadError as error:
                faults.append(error)
                return
            if left is not None:
                kept.append(left)

    async with trio.open_nursery() as nursery:
        for _ in range(_REQUESTS):
            nursery.start_soon(remove)
    if faults:
        raise faults[0]
    return kept


def _is_job(trace: Trace) -> bool:
    return trace.kind is TraceKind.OBJECT and "/jobs/" in trace.key
