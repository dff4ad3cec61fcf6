"""Calls for tests of the disk side."""

from __future__ import annotations

import fcntl
import uuid
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypedDict, Unpack

import trio

from audiohook.protocol.timeline import GapKind
from audiohook.recording import disk
from audiohook.recording.journal import (
    ClosedFact,
    ContinuedSession,
    GapFact,
    Media,
    Opened,
    Participant,
    encode,
)
from audiohook.recording.record import replay
from audiohook.recording.spool import Spool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence
    from pathlib import Path

    from audiohook.call_settings import CallSettings
    from audiohook.recording.journal import Fact
    from audiohook.recording.record import CallRecord

    Calls = Collection[tuple[disk.CallFiles, list[disk.Step]]]

CONVERSATION = "11111111-1111-4111-8111-111111111111"
PARTICIPANT = "22222222-2222-4222-8222-222222222222"
STARTED = "2026-11-22T14:10:44.123Z"
GAP = GapFact(GapKind.PAUSED, 2, 8)


class OpenedChanges(TypedDict, total=False):
    """Fields in which a call differs from the usual."""

    session_id: str
    conversation_id: str
    participant: Participant
    language: str | None
    custom_config: object
    media: Media
    started_at: str
    start_samples: int
    continued_sessions: tuple[ContinuedSession, ...]
    settings: CallSettings | None


def make_opened(**changes: Unpack[OpenedChanges]) -> Opened:
    usual: OpenedChanges = {
        "session_id": str(uuid.uuid4()),
        "conversation_id": CONVERSATION,
        "participant": Participant(PARTICIPANT, "+4930123", "Zoë", "tel:+4940"),
        "language": "de-DE",
        "custom_config": {"team": "north", "weights": [1, 2.5, None]},
        "media": Media("PCMU", ("external", "internal"), 8000),
        "started_at": STARTED,
        "start_samples": 0,
        "continued_sessions": (),
    }
    usual.update(changes)
    return Opened(
        organization_id="33333333-3333-4333-8333-333333333333",
        correlation_id="44444444-4444-4444-8444-444444444444",
        **usual,
    )


def make_closed(
    stored_bytes: int, *, reason: str = "end", complete: bool = True
) -> ClosedFact:
    return ClosedFact(reason, stored_bytes, "2026-11-22T14:11:44.123Z", complete)


def entries(folder: Path) -> set[str]:
    """What is in a folder."""
    return {path.name for path in folder.iterdir()}


@asynccontextmanager
async def running(
    folder: Path, low_water_bytes: int = 0, spares: int = 0, ahead: int = 0
) -> AsyncIterator[Spool]:
    """A spool that runs while the block does; without spares it deletes calls."""
    spool = Spool(folder, low_water_bytes=low_water_bytes, spares=spares)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(spool.run, ahead=ahead))
        yield spool
        nursery.cancel_scope.cancel()


def journal_of(folder: Path) -> CallRecord:
    record, _ = replay((folder / disk.JOURNAL).read_bytes())
    assert record is not None
    return record


def is_locked(folder: Path) -> bool:
    with (folder / disk.JOURNAL).open() as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def write_call(
    spool_folder: Path,
    facts: Sequence[Fact | bytes],
    audio: bytes | None = b"",
) -> Path:
    """Leaves a call behind as a killed process would."""
    lines = [fact if isinstance(fact, bytes) else encode(fact) for fact in facts]
    opened = next(fact for fact in facts if isinstance(fact, Opened))
    folder = spool_folder / opened.session_id
    folder.mkdir(parents=True)
    (folder / disk.JOURNAL).write_bytes(b"".join(lines))
    if audio is not None:
        (folder / disk.AUDIO).write_bytes(audio)
    return folder
