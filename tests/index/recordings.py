"""Recordings as a store holds them, made up."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from audiohook.recording.journal import utc_text

if TYPE_CHECKING:
    from pathlib import Path

EPOCH = 1_790_000_000.0


def summary(number: int, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """The ``call.json`` of a call; later for a greater number."""
    started_at = utc_text(EPOCH + number)
    return {
        "sessionId": str(uuid.UUID(int=number + 1, version=4)),
        "conversationId": str(uuid.UUID(int=number + 10_000, version=4)),
        "participant": {
            "id": str(uuid.UUID(int=number + 20_000, version=4)),
            "ani": f"tel:+49301{number:06d}",
            "aniName": "Anna",
            "dnis": "tel:+498001234",
        },
        "start": started_at,
        "duration": 12.5,
        "language": "de-DE",
        "ended": {"reason": "end", "complete": True, "paused": False},
        "transcripts": [],
        **changes,
    }


def name_of(facts: dict[str, Any]) -> str:
    start = facts["start"].replace(":", "-")
    return f"{start}_{facts['conversationId']}_{facts['participant']['id']}"


@dataclass
class Shelf:
    """A folder store's folder that is filled by hand."""

    root: Path
    names: list[str] = field(default_factory=list)

    def add(
        self,
        number: int,
        text: str | None = None,
        **changes: Any,  # noqa: ANN401 - JSON
    ) -> str:
        """Puts a recording there; returns where."""
        facts = summary(number, **changes)
        name = name_of(facts)
        folder = self.root / "calls" / name
        folder.mkdir(parents=True, exist_ok=True)
        if text is not None:
            key = f"calls/{name}/transcripts/{name}.txt"
            facts["transcripts"] = [
                {"status": "completed", "objects": [{"key": key}, {"key": "x.json"}]}
            ]
            (folder / "transcripts").mkdir(exist_ok=True)
            (self.root / key).write_text(f"[00:00:01] customer: {text}\n")
        (folder / "call.json").write_text(json.dumps(facts))
        self.names.append(name)
        return f"calls/{name}"
