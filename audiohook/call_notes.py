"""What is told of one call: counts, and lines in the log."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from audiohook._divert import Lane
    from audiohook.authentication import Credentials
    from audiohook.call_surroundings import Surroundings


class CallNotes:
    """Keeps what the last line about a call tells, and writes its lines.

    Args:
        credentials: Who asked for it.
        surroundings: Where counts and lines go.
        lane: What has come of its audio.

    Attributes:
        began: When it came, on Trio's clock.
        conversation: What ``open`` said it belongs to; None before that.
        gaps: Gaps so far.
        lost_bytes: Audio that came and could not be kept.
        outcome: How it ends, as far as is known.
        violations: Messages that broke the protocol.
    """

    __slots__ = (
        "_around",
        "_counted_bytes",
        "_counted_frames",
        "_ids",
        "_lane",
        "_log",
        "began",
        "conversation",
        "gaps",
        "lost_bytes",
        "outcome",
        "violations",
    )

    def __init__(
        self, credentials: Credentials, surroundings: Surroundings, lane: Lane
    ) -> None:
        self._around = surroundings
        self._lane = lane
        self._counted_bytes = 0
        self._counted_frames = 0
        self._ids = {
            "session": credentials.session_id,
            "correlation": credentials.correlation_id,
        }
        self._log = surroundings.log.bind(**self._ids)
        self.began = trio.current_time()
        self.conversation: str | None = None
        self.gaps = 0
        self.lost_bytes = 0
        self.outcome = "lost"
        self.violations = 0

    def name(self, conversation: str) -> None:
        """Has all further lines tell what conversation the call belongs to."""
        self.conversation = self._ids["conversation"] = conversation
        self._log = self._log.bind(**self._ids)

    def take_counts(self) -> tuple[int, int]:
        """Returns bytes and frames of audio that came since this was last asked."""
        audio_bytes, frames = self._lane.audio_bytes, self._lane.messages
        new = audio_bytes - self._counted_bytes, frames - self._counted_frames
        self._counted_bytes, self._counted_frames = audio_bytes, frames
        return new

    def count_violation(self) -> None:
        """Counts a message that broke the protocol."""
        self.violations += 1
        self._around.metrics.violations.inc()

    def sum_up(self, *, recorded: bool, sealed: bool) -> None:
        """Counts the call, and writes its last line.

        Args:
            recorded: Whether there is a recording of it.
            sealed: Whether that is on disk whole.
        """
        lane = self._lane
        self._around.metrics.calls.labels(self.outcome).inc()
        audio_bytes, frames = self.take_counts()
        self._around.metrics.audio_bytes.inc(audio_bytes)
        self._around.metrics.frames.inc(frames)
        self.tell(
            "ended",
            recorded=recorded,
            outcome=self.outcome,
            seconds=round(trio.current_time() - self.began, 3),
            audio_bytes=lane.audio_bytes,
            frames=lane.messages,
            gaps=self.gaps,
            lost_bytes=self.lost_bytes,
            violations=self.violations,
            sealed=sealed,
        )

    def tell(self, what: str, *, recorded: bool, **values: object) -> None:
        """Writes one of the two lines that each session has.

        What is recorded costs its peer something; the rest it could cause at will.
        """
        if recorded:
            self._log.info(f"call_{what}", **values)
        else:
            self.noise(logging.INFO, f"session_{what}", **values)

    def noise(self, level: int, event: str, **values: object) -> None:
        """Writes a line of a kind that may come often."""
        self._around.noise.write(level, event, **self._ids, **values)
