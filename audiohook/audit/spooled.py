"""What the local disk has of a day's calls. It blocks; call it from a thread."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from audiohook.erasure import local

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(slots=True)
class SpooledDay:
    """Calls of a day that are on the local disk.

    Attributes:
        live: Sessions that are going on.
        waiting: Sessions that wait, for the store or for their transcripts.
        delivered: Those among them that the store has.
        names: Names of their recordings by session, as far as they are planned.
        aside: Names of what was put aside.
    """

    live: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    delivered: set[str] = field(default_factory=set)
    names: dict[str, str] = field(default_factory=dict)
    aside: list[str] = field(default_factory=list)

    def is_delivered(self, session: str) -> bool:
        """Tell whether the store has a call."""
        return session in self.delivered


def look(spool: Path, day: str) -> SpooledDay:
    """Look at the spool, and leave it as it is.

    Args:
        spool: The spool's folder.
        day: Such as ``2026-11-22``.

    Raises:
        ErasureError: It cannot be read.
    """
    found = SpooledDay()
    for record, is_held in local.calls_of(
        spool, lambda opened: opened.started_at[:10] == day
    ):
        session = record.opened.session_id
        if record.closed is None and is_held:
            found.live.append(session)
            continue
        found.waiting.append(session)
        if record.planned is not None:
            found.names[session] = record.planned.name
        if record.delivered:
            found.delivered.add(session)
    found.aside += local.put_aside_on(spool, day)
    return found
