"""What is told of a call, as an event that any reader of CloudEvents understands.

Nothing here touches a disk, a network or a clock.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from audiohook.recording.journal import is_uuid

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTENT_TYPE: Final = "application/cloudevents+json; charset=utf-8"
"""Source: CloudEvents 1.0, HTTP Protocol Binding, "Structured Content Mode"."""

TYPE_PREFIX: Final = "org.audiohook.call."
TYPE_VERSION: Final = ".v1"

# Ids of events follow from what they tell, so that whoever tells it again after a
# crash tells the same.
_NAMESPACE: Final = uuid.UUID("5b0f6b0e-6a57-5d3c-9d8e-9f0d5c1f7a61")
# Ids come from the network as they please; a UUID has 36.
_LONGEST_ID: Final = 128


def plain_id(text: str) -> str:
    """Write an id, whatever it holds, as short text in ASCII."""
    plain = text.encode("ascii", errors="backslashreplace").decode("ascii")
    return plain[:_LONGEST_ID]


class Kind(StrEnum):
    """What has become of a call."""

    OPENED = "opened"
    """It is being recorded."""
    STORED = "stored"
    """The store has confirmed all of its audio."""
    TRANSCRIBED = "transcribed"
    """The store has the transcript of one of its files."""
    FAILED = "failed"
    """There will be no transcript of one of its files."""
    ERASED = "erased"
    """Nothing is left of a conversation."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that is told.

    Attributes:
        kind: What.
        conversation: Of which conversation, as Genesys named it.
        session: Of which session; empty if of all.
        time: When it happened, in UTC, see `audiohook.recording.journal.utc_text`.
        data: What else there is to say.
        about: Tells it from others of its kind in the same session.
    """

    kind: Kind
    conversation: str
    session: str
    time: str
    data: Mapping[str, object] = field(default_factory=dict)
    about: str = ""

    @property
    def id(self) -> str:
        """Its id, the same whoever tells it and however often."""
        parts = (self.kind, self.conversation, self.session, self.about)
        return str(uuid.uuid5(_NAMESPACE, "\n".join(map(ascii, parts))))

    @property
    def stream(self) -> str:
        """What it is kept in order with: all that is told of its conversation."""
        return plain_id(self.conversation or self.session)

    def body(self, source: str) -> bytes:
        """Write it as JSON of CloudEvents, in ASCII.

        Args:
            source: Where its keys are, see `audiohook.notifying`.

        Source: CloudEvents 1.0, JSON Event Format.
        """
        conversation = plain_id(self.conversation)
        envelope: dict[str, object] = {
            "specversion": "1.0",
            "id": self.id,
            "source": source,
            "type": f"{TYPE_PREFIX}{self.kind}{TYPE_VERSION}",
            "time": self.time,
            "datacontenttype": "application/json",
            "data": {
                "conversationId": conversation,
                "sessionId": plain_id(self.session) or None,
                **self.data,
            },
        }
        if is_uuid(conversation.lower()):
            envelope["subject"] = conversation
        return json.dumps(envelope, separators=(",", ":"), allow_nan=False).encode()
