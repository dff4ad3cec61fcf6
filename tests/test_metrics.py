from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prometheus_client import generate_latest

from audiohook import metrics
from audiohook.admission import TurnedAway
from audiohook.metrics import Metrics
from audiohook.protocol.events import Timer
from audiohook.protocol.signature import Refusal
from audiohook.protocol.state import State as SessionState
from audiohook.protocol.timeline import GapKind
from audiohook.storage.base import StoreFault
from audiohook.transcription.base import TranscriptFault
from audiohook.transcription.job import State as JobState
from tests.admin.reading import samples

if TYPE_CHECKING:
    from collections.abc import Collection
    from enum import StrEnum


def words(kinds: type[StrEnum]) -> set[str]:
    return {str(kind) for kind in kinds}


@pytest.mark.parametrize(
    ("listed", "used"),
    [
        (metrics.TURNED_AWAY, {kind.label for kind in TurnedAway}),
        (metrics.GAPS, words(GapKind)),
        (metrics.STORE_FAULTS, words(StoreFault) | {"disk", "unexpected"}),
        (metrics.SESSION_STATES, words(SessionState)),
        (metrics.JOB_STATES, words(JobState)),
        (metrics.TRANSCRIPTION_FAULTS, words(TranscriptFault)),
    ],
)
def test_words_are_those_that_are_used(listed: Collection[str], used: set[str]) -> None:
    assert sorted(listed) == sorted(used)


def test_words_of_refusals_are_those_of_signatures_and_of_the_door() -> None:
    door = {
        "bad_request",
        "handshake_timeout",
        "head_too_long",
        "network",
        "no_request",
        "not_a_proxy",
        "not_an_upgrade",
        "proxy_header",
        "tls",
    }
    assert set(metrics.REFUSALS) == words(Refusal) | door
    assert {f"timeout_{timer}" for timer in Timer} < set(metrics.OUTCOMES)


def test_everything_is_there_from_the_start_as_nothing() -> None:
    found = samples(generate_latest(Metrics().registry).decode())
    assert found["audiohook_handshakes_refused_total{reason=expired}"] == 0
    assert found["audiohook_calls_turned_away_total{reason=key_rate}"] == 0
    assert found["audiohook_calls_total{outcome=lost}"] == 0
    assert found["audiohook_store_failures_total{fault=denied}"] == 0
    assert set(found.values()) == {0}


def test_names_and_labels_are_stable() -> None:
    """A board or an alert somewhere depends on each of them."""
    labels = {
        family.name: sorted({key for one in family.samples for key in one.labels})
        for family in Metrics().registry.collect()
    }
    assert labels == {
        "audiohook_handshakes_refused": ["reason"],
        "audiohook_calls_turned_away": ["reason"],
        "audiohook_calls": ["outcome"],
        "audiohook_probes": [],
        "audiohook_protocol_violations": [],
        "audiohook_audio_bytes": [],
        "audiohook_audio_frames": [],
        "audiohook_audio_lost_bytes": [],
        "audiohook_gaps": ["kind"],
        "audiohook_gap_seconds": ["kind"],
        "audiohook_opened_latency_seconds": ["le"],
        "audiohook_closed_latency_seconds": ["le"],
        "audiohook_pump_lag_seconds": ["le"],
        "audiohook_calls_stored": [],
        "audiohook_store_failures": ["fault"],
        "audiohook_transcripts": ["outcome"],
        "audiohook_transcription_failures": ["fault"],
        "audiohook_notifications": ["outcome"],
        "audiohook_genesys_events": ["outcome"],
        "audiohook_webhooks": ["outcome"],
    }


def test_two_services_in_a_process_do_not_count_into_each_other() -> None:
    first, second = Metrics(), Metrics()
    first.probes.inc()
    assert second.registry.get_sample_value("audiohook_probes_total") == 0
