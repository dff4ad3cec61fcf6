"""What came of a simulated call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from audiohook.protocol.messages import Channel, DisconnectReason
    from audiohook.simulator.options import CallOptions
    from audiohook.simulator.rules import Breach
    from audiohook.simulator.session import ClientSession


@dataclass(frozen=True, slots=True, kw_only=True)
class CallReport:
    """One simulated call, told afterwards.

    Attributes:
        session_id: Session.
        conversation_id: Conversation.
        breaches: What the server did wrong, in order; empty if nothing.
        channels: Channels that the server chose; empty if it wanted no audio.
        frames: Frames of audio sent.
        audio_bytes: Their bytes.
        audio_samples: Their samples per channel.
        position_samples: Stream position at the end, gaps included.
        texts_sent: Text messages sent.
        texts_received: Text messages received.
        events_received: Those of them that were ``event``.
        opened_latency: Seconds from ``open`` to ``opened``; None if it never came.
        pong_latencies: Round trips of the pings, in seconds.
        closed_latency: Seconds from ``close`` to ``closed``; None if it never came.
        disconnect_reason: Reason of the server's ``disconnect``, if it sent one.
        duration: Seconds from the start to the end of everything.
    """

    session_id: str
    conversation_id: str
    breaches: tuple[Breach, ...]
    channels: tuple[Channel, ...]
    frames: int
    audio_bytes: int
    audio_samples: int
    position_samples: int
    texts_sent: int
    texts_received: int
    events_received: int
    opened_latency: float | None
    pong_latencies: tuple[float, ...]
    closed_latency: float | None
    disconnect_reason: DisconnectReason | None
    duration: float

    @property
    def ok(self) -> bool:
        """True if the server did nothing wrong."""
        return not self.breaches


def report_of(
    options: CallOptions, session: ClientSession, duration: float
) -> CallReport:
    """Sum up a session that is over.

    Args:
        options: The call.
        session: Its session.
        duration: Seconds that it took.
    """
    media = session.media
    return CallReport(
        session_id=options.session_id,
        conversation_id=options.conversation_id,
        breaches=tuple(session.breaches),
        channels=() if media is None else media.channels,
        frames=session.frames_sent,
        audio_bytes=session.bytes_sent,
        audio_samples=session.samples_sent,
        position_samples=session.position_samples,
        texts_sent=session.texts_sent,
        texts_received=session.texts_received,
        events_received=session.events_received,
        opened_latency=session.opened_latency,
        pong_latencies=tuple(session.pong_latencies),
        closed_latency=session.closed_latency,
        disconnect_reason=session.disconnect_reason,
        duration=duration,
    )
