"""A service to watch that takes no calls."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx

from audiohook.admin.pages import make_app
from audiohook.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from starlette.types import ASGIApp

NOW = 1_800_000_000.0


@dataclass(frozen=True)
class FakePump:
    passes: int = 7
    lag: float = 0.0
    worst_lag: float = 0.25
    buffered_bytes: int = 1600
    failed_writes: int = 0


@dataclass(frozen=True)
class FakeSpool:
    unwritten: int = 0
    faults: int = 0
    sync_seconds: float = 0.125


@dataclass(frozen=True)
class FakeDeliveries:
    waiting: int = 3
    active: int = 2
    fault: str | None = None


@dataclass(frozen=True)
class FakeTranscriptions:
    calls: int = 6
    jobs: dict[str, int] = field(default_factory=lambda: {"submitted": 5, "ready": 1})
    parked: int = 1
    fault: str | None = None


@dataclass(frozen=True)
class FakeNotifications:
    waiting: int = 8
    dead: int = 1
    oldest_seconds: float = 90.0
    fault: str | None = None


@dataclass(frozen=True)
class FakeStatistics:
    handshakes: int = 4
    draining: bool = False
    can_record: bool = True
    refusal: str | None = None
    pump: FakePump = FakePump()
    spool: FakeSpool = FakeSpool()
    deliveries: FakeDeliveries = FakeDeliveries()
    store_fault: str | None = None
    transcriptions: FakeTranscriptions | None = FakeTranscriptions()
    notifications: FakeNotifications | None = FakeNotifications()


class FakeDesk:
    def __init__(self, metrics: Metrics) -> None:
        self.states = Counter({"open": 10, "closing": 1})
        self.sessions: set[str] = set()
        self._metrics = metrics

    def live_by_state(self) -> Counter[str]:
        return self.states

    def live_sessions(self) -> set[str]:
        return self.sessions

    def count_audio(self) -> None:
        self._metrics.audio_bytes.inc(1600)


class FakeService:
    def __init__(self) -> None:
        self.metrics = Metrics()
        self.desk = FakeDesk(self.metrics)
        self.now = FakeStatistics()

    def statistics(self) -> FakeStatistics:
        return self.now


def app_of(
    service: FakeService, spool: Path, hosts: Collection[str] | None = None
) -> ASGIApp:
    return make_app(service, spool=spool, hosts=hosts, clock=lambda: NOW)


def client_of(app: ASGIApp) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost:9090")
