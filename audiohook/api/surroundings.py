"""What the API knows of the service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from audiohook.call import Call
    from audiohook.erasure.eraser import Eraser
    from audiohook.index.keeper import CallIndex
    from audiohook.recording.record import CallRecord
    from audiohook.storage.base import Store


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the API knows of the service.

    Attributes:
        live: Returns the live calls.
        spooled: Returns what is known of calls on the local disk.
        index: Finds recordings.
        store: Where they are.
        prefix: What their keys begin with.
        spool: Folder that other processes may share.
        base: Where the API is on its server.
        log: For what was done by whom.
        eraser: Has calls erased.
    """

    live: Callable[[], Sequence[Call]]
    spooled: Callable[[], Sequence[CallRecord]]
    index: CallIndex
    store: Store
    prefix: str
    spool: Path
    base: str
    log: FilteringBoundLogger
    eraser: Eraser
