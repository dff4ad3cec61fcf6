"""Figures that are read when somebody asks for them, and counted nowhere else.

So they cost the calls nothing, and are never out of step with what they show.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector

from audiohook import __version__
from audiohook.metrics import JOB_STATES, SESSION_STATES, UPLOAD_STATES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from prometheus_client import Metric

    from audiohook.admin.figures import (
        Lookout,
        NotificationFigures,
        ServiceFigures,
        TranscriptionFigures,
        Watched,
    )


class Gauges(Collector):
    """Reads a service's figures.

    Args:
        watched: The service.
        lookout: What is looked up beside it.
    """

    def __init__(self, watched: Watched, lookout: Lookout) -> None:
        self._watched = watched
        self._lookout = lookout

    def describe(self) -> Iterable[Metric]:
        """Names nothing, so that nothing is read before somebody asks."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Reads all figures."""
        found = self._watched.statistics()
        yield _BUILD
        yield from _calls(found, self._watched.desk.live_by_state())
        yield from _pump(found)
        yield from _spool(found)
        yield from _deliveries(found)
        yield from _transcriptions(found.transcriptions)
        yield from _notifications(found.notifications)
        yield from self._look_around()

    def _look_around(self) -> Iterator[Metric]:
        latest = self._lookout.latest
        spool = latest.spool
        if spool is not None:
            yield _gauge(
                "audiohook_spool_calls",
                "Calls in the spool, of all processes, live ones among them.",
                spool.calls,
            )
            yield _gauge(
                "audiohook_spool_used_bytes",
                "What the calls in the spool take up on the disk.",
                spool.used_bytes,
            )
            yield _gauge(
                "audiohook_spool_oldest_seconds",
                "Since the oldest call in the spool that is not live ended, or was"
                " stored and waits for its transcript since; 0 without such a call.",
                spool.oldest_seconds,
            )
            yield _gauge(
                "audiohook_spool_aside",
                "Entries of the spool that were put aside for a person to look at.",
                spool.aside,
            )
            yield _gauge(
                "audiohook_spool_size_bytes",
                "Size of the spool's disk.",
                spool.size_bytes,
            )
            yield _gauge(
                "audiohook_spool_free_bytes",
                "Room on the spool's disk.",
                spool.free_bytes,
            )
        yield from latest.process


def _calls(found: ServiceFigures, states: Mapping[str, int]) -> Iterator[Metric]:
    yield _by_word(
        "audiohook_calls_live",
        "Sessions that are live now, by state.",
        "state",
        SESSION_STATES,
        states,
    )
    yield _gauge(
        "audiohook_handshakes_in_flight",
        "Connections that have not asked for anything yet.",
        found.handshakes,
    )
    yield _gauge(
        "audiohook_draining",
        "1 while new calls are sent away because the service stops.",
        found.draining,
    )
    yield _gauge(
        "audiohook_ready",
        "1 if a new call is welcome, 0 if it is sent away for whatever reason.",
        found.refusal is None,
    )
    yield _gauge(
        "audiohook_can_record", "1 if the disk takes new calls.", found.can_record
    )


def _pump(found: ServiceFigures) -> Iterator[Metric]:
    pump = found.pump
    yield _counter("audiohook_pump_passes", "Passes over all live calls.", pump.passes)
    yield _gauge(
        "audiohook_pump_worst_lag_seconds",
        "Most that a pass has come late since the start.",
        pump.worst_lag,
    )
    yield _gauge(
        "audiohook_pump_buffered_bytes",
        "Audio that is not in its file yet.",
        pump.buffered_bytes,
    )
    yield _counter(
        "audiohook_pump_failed_writes",
        "Writes of audio that the disk refused.",
        pump.failed_writes,
    )


def _spool(found: ServiceFigures) -> Iterator[Metric]:
    spool = found.spool
    yield _gauge(
        "audiohook_spool_unwritten_journals",
        "Calls with lines that are not in their journals yet.",
        spool.unwritten,
    )
    yield _counter(
        "audiohook_spool_faults", "Refusals by the spool's disk.", spool.faults
    )
    yield _gauge(
        "audiohook_spool_sync_seconds",
        "How long the last group of calls took to be brought to the disk.",
        spool.sync_seconds,
    )


def _deliveries(found: ServiceFigures) -> Iterator[Metric]:
    deliveries = found.deliveries
    yield _by_word(
        "audiohook_uploads",
        "Calls on their way to the store, by state.",
        "state",
        UPLOAD_STATES,
        {"waiting": deliveries.waiting, "active": deliveries.active},
    )
    yield _gauge(
        "audiohook_store_down",
        "1 while the store fails as such, and is only tried now and then, or has not"
        " answered since the start.",
        found.store_fault is not None,
    )


def _transcriptions(found: TranscriptionFigures | None) -> Iterator[Metric]:
    yield _gauge(
        "audiohook_transcription_calls",
        "Calls that wait for their transcripts.",
        found.calls if found else 0,
    )
    yield _by_word(
        "audiohook_transcription_jobs",
        "Transcription jobs that are not done, by state.",
        "state",
        JOB_STATES,
        found.jobs if found else {},
    )
    yield _gauge(
        "audiohook_transcription_jobs_parked",
        "Transcription jobs that wait until somebody mends something.",
        found.parked if found else 0,
    )
    yield _gauge(
        "audiohook_transcription_down",
        "1 while the transcription service fails as such, and is only tried now and"
        " then.",
        found is not None and found.fault is not None,
    )


def _notifications(found: NotificationFigures | None) -> Iterator[Metric]:
    yield _gauge(
        "audiohook_notifications_waiting",
        "Notifications that wait to be sent.",
        found.waiting if found else 0,
    )
    yield _gauge(
        "audiohook_notifications_oldest_seconds",
        "For how long the oldest notification waits; 0 if none does.",
        found.oldest_seconds if found else 0,
    )
    yield _gauge(
        "audiohook_notifications_dead",
        "Notifications that were given up, and wait for `audiohook notify --resend`.",
        found.dead if found else 0,
    )
    yield _gauge(
        "audiohook_receiver_down",
        "1 while the receiver of notifications fails as such, and is only tried now"
        " and then.",
        found is not None and found.fault is not None,
    )


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _by_word(
    name: str,
    text: str,
    label: str,
    words: Sequence[str],
    values: Mapping[str, int],
) -> Metric:
    """Makes one figure for each word, also for those that have none now."""
    family = GaugeMetricFamily(name, text, labels=(label,))
    for word in words:
        family.add_metric((word,), values.get(word, 0))
    return family


_BUILD: Final = InfoMetricFamily(
    "audiohook_build",
    "What runs here.",
    value={"version": __version__, "python": platform.python_version()},
)
