"""What is counted, for whoever watches the service.

One object holds the counters of one service, in a registry of its own, so that
two services in one process (as in tests) do not count into each other.

Labels take fixed words only; nothing that a peer chooses becomes one. Every word
is there from the start, so that what has never happened is seen as 0 and its first
time as an increase, and a page of figures does not grow with what happens.

What stands somewhere already, such as the number of live calls, is not counted
here a second time: see `audiohook.admin.gauges`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

# A third of the page would tell, of each series, when this process began.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's lack

# Answers are due within 5 s, and one pass of the pump takes 0.2 s of that.
_LATENCY_BUCKETS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 4.0, 5.0, 10.0)
# A pass that is late by 5 s is too late for every answer.
_LAG_BUCKETS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

REFUSALS: Final = (
    # Before there was a request.
    "bad_request",
    "handshake_timeout",
    "head_too_long",
    "network",
    "no_request",
    "not_a_proxy",
    "not_an_upgrade",
    "proxy_header",
    "tls",
    # By the request's headers.
    "expired",
    "failed",
    "invalid",
    "malformed",
    "organization",
    "precondition",
    "replayed",
    "unexpected_signature",
    "unknown_key",
    "unsigned",
    "unsupported",
)
"""Why a connection did not become a session."""

TURNED_AWAY: Final = ("disk", "draining", "key_calls", "key_rate", "max_calls")
"""Why a session was not opened: `audiohook.admission.TurnedAway`."""

OUTCOMES: Final = (
    "bad_frames",
    "ended",
    "failed",
    "lost",
    "no_upgrade",
    "not_closed_by_peer",
    "not_sealed",
    "probe",
    "refused",
    "timeout_closing",
    "timeout_idle",
    "timeout_open",
)
"""How a session ended."""

GAPS: Final = ("discarded", "lost", "paused")
"""Kinds of gaps: `audiohook.protocol.timeline.GapKind`."""

STORE_FAULTS: Final = (
    "away",
    "bad_key_or_secret",
    "busy",
    "certificate",
    "clock",
    "denied",
    "encryption",
    "no_bucket",
    "other",
    # Not the store's.
    "disk",
    "unexpected",
)
"""Why a call was not stored: `audiohook.storage.base.StoreFault`, and what else."""

SESSION_STATES: Final = (
    "connected",
    "opening",
    "open",
    "rejecting",
    "disconnecting",
    "closing",
    "closed",
    "ended",
)
"""Where a session stands: `audiohook.protocol.state.State`."""

UPLOAD_STATES: Final = ("waiting", "active")
"""Where a call stands on its way to the store."""

JOB_STATES: Final = (
    "without_audio",
    "ready",
    "doubtful",
    "submitted",
    "ended",
    "settled",
)
"""Where a transcription job stands: `audiohook.transcription.job.State`."""

TRANSCRIPT_OUTCOMES: Final = ("completed", "failed", "parked", "resubmitted")
"""What happened to a job: the last two are not its end."""

TRANSCRIPTION_FAULTS: Final = (
    "away",
    "bad_key",
    "bad_request",
    "balance",
    "busy",
    "download",
    "media",
    "misled",
    "not_found",
    "other",
    "theirs",
)
"""Why a request failed: `audiohook.transcription.base.TranscriptFault`."""

WEBHOOK_OUTCOMES: Final = ("malformed", "refused", "taken", "unknown")
"""What a report was: about a job that waits, about none, or none at all."""

NOTIFICATION_OUTCOMES: Final = ("dead", "failed", "sent")
"""What came of a notification; the middle one is not its end."""

GENESYS_EVENTS: Final = ("ignored", "known", "taken")
"""What an event of Genesys was: without a code of ours, or not the first time, or new."""


class Metrics:
    """Counters of one service.

    Attributes:
        registry: Holds all of them, for a page that shows them.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.refused = self._counter(
            "audiohook_handshakes_refused",
            "Connections that did not become a session, by reason.",
            "reason",
            REFUSALS,
        )
        self.turned_away = self._counter(
            "audiohook_calls_turned_away",
            "Sessions that were sent away when they asked to be opened, by reason.",
            "reason",
            TURNED_AWAY,
        )
        self.calls = self._counter(
            "audiohook_calls",
            "Sessions that have ended, by how they ended.",
            "outcome",
            OUTCOMES,
        )
        self.probes = self._counter(
            "audiohook_probes", "Connection probes that were answered."
        )
        self.violations = self._counter(
            "audiohook_protocol_violations",
            "Messages from peers that broke the protocol.",
        )
        self.audio_bytes = self._counter(
            "audiohook_audio_bytes", "Audio that sessions have sent."
        )
        self.frames = self._counter(
            "audiohook_audio_frames", "Messages in which audio came."
        )
        self.lost_bytes = self._counter(
            "audiohook_audio_lost_bytes",
            "Audio that came but could not be written to the spool.",
        )
        self.gaps = self._counter(
            "audiohook_gaps", "Gaps in the recordings, by kind.", "kind", GAPS
        )
        self.gap_seconds = self._counter(
            "audiohook_gap_seconds",
            "Length of the gaps in the recordings, by kind.",
            "kind",
            GAPS,
        )
        self.opening = self._histogram(
            "audiohook_opened_latency_seconds",
            "Time from a client's open to our answer.",
            _LATENCY_BUCKETS,
        )
        self.closing = self._histogram(
            "audiohook_closed_latency_seconds",
            "Time from a client's close to our closed.",
            _LATENCY_BUCKETS,
        )
        self.pump_lag = self._histogram(
            "audiohook_pump_lag_seconds",
            "Time by which a pass over the live calls came late; every answer waits"
            " for one.",
            _LAG_BUCKETS,
        )
        self.stored = self._counter(
            "audiohook_calls_stored", "Calls whose recording is complete in the store."
        )
        self.store_failures = self._counter(
            "audiohook_store_failures",
            "Attempts to store a call that failed and will be made again, by fault.",
            "fault",
            STORE_FAULTS,
        )
        self.transcripts = self._counter(
            "audiohook_transcripts",
            "Files that came to have a transcript, or not, by what happened.",
            "outcome",
            TRANSCRIPT_OUTCOMES,
        )
        self.transcription_faults = self._counter(
            "audiohook_transcription_failures",
            "Requests to the transcription service that failed, by fault.",
            "fault",
            TRANSCRIPTION_FAULTS,
        )
        self.webhooks = self._counter(
            "audiohook_webhooks",
            "Reports that came from the transcription service, by what they were.",
            "outcome",
            WEBHOOK_OUTCOMES,
        )
        self.notifications = self._counter(
            "audiohook_notifications",
            "Notifications of what becomes of calls: sent, tried in vain, given up.",
            "outcome",
            NOTIFICATION_OUTCOMES,
        )
        self.genesys_events = self._counter(
            "audiohook_genesys_events",
            "Operational events that Genesys has handed in, by what they were.",
            "outcome",
            GENESYS_EVENTS,
        )

    def _counter(
        self, name: str, text: str, label: str | None = None, words: Sequence[str] = ()
    ) -> Counter:
        labels = () if label is None else (label,)
        counter = Counter(name, text, labels, registry=self.registry)
        for word in words:
            counter.labels(word)
        return counter

    def _histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(name, text, buckets=buckets, registry=self.registry)
