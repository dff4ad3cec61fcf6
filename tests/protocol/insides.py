"""Everything that a session remembers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audiohook.protocol.session import Session

# Those that are kept where a ping can be answered in C.
NUMBERS_KEPT = (
    "_now",
    "_deadline",
    "_pinged_at",
    "_seq",
    "_peer_seq",
    "_seen_audio_bytes",
)


def insides(session: Session) -> dict[str, Any]:
    values = slots_of(session) | {name: getattr(session, name) for name in NUMBERS_KEPT}
    facts, hold = slots_of(values.pop("_facts")), slots_of(values.pop("_hold"))
    timeline = facts.pop("timeline")
    allowances = [hold.pop("texts"), *hold.pop("_kinds").values()]
    return values | {
        "allowances": [(each.left, each.filled_at) for each in allowances],
        "facts": facts,
        "hold": hold,
        "gaps": timeline.gaps,
        "start": timeline.start_samples,
    }


def slots_of(thing: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever has slots
    return {name: getattr(thing, name) for name in thing.__slots__}
