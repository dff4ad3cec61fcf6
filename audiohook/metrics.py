"""What is counted, for whoever watches the service.

One object holds the counters of one service, in a registry of its own, so that
two services in one process (as in tests) do not count into each other. Labels
take fixed words only; nothing that a peer chooses becomes one.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# Answers are due within 5 s, and one pass of the pump takes 0.2 s of that.
_LATENCY_BUCKETS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 4.0, 5.0, 10.0)


class Metrics:
    """Counters of one service.

    Attributes:
        registry: Holds all of them, for a page that shows them.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.refused = Counter(
            "audiohook_handshakes_refused",
            "Connections that did not become a session, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self.calls = Counter(
            "audiohook_calls",
            "Sessions that have ended, by how they ended.",
            ["outcome"],
            registry=self.registry,
        )
        self.probes = Counter(
            "audiohook_probes",
            "Connection probes that were answered.",
            registry=self.registry,
        )
        self.live = Gauge(
            "audiohook_calls_live",
            "Sessions that are open now.",
            registry=self.registry,
        )
        self.violations = Counter(
            "audiohook_protocol_violations",
            "Messages from peers that broke the protocol.",
            registry=self.registry,
        )
        self.audio_bytes = Counter(
            "audiohook_audio_bytes",
            "Audio taken in by sessions that have ended.",
            registry=self.registry,
        )
        self.lost_bytes = Counter(
            "audiohook_audio_lost_bytes",
            "Audio that came but could not be written to the spool.",
            registry=self.registry,
        )
        self.gaps = Counter(
            "audiohook_gaps",
            "Gaps in the recordings, by kind.",
            ["kind"],
            registry=self.registry,
        )
        self.closing = Histogram(
            "audiohook_closed_latency_seconds",
            "Time from a client's close to our closed.",
            buckets=_LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.opening = Histogram(
            "audiohook_opened_latency_seconds",
            "Time from a client's open to our answer.",
            buckets=_LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.stored = Counter(
            "audiohook_calls_stored",
            "Calls whose recording is complete in the store.",
            registry=self.registry,
        )
        self.store_failures = Counter(
            "audiohook_store_failures",
            "Attempts to store a call that failed and will be made again.",
            registry=self.registry,
        )
