"""What a step has brought a job, if it is worth a line in the log."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from audiohook.recording.transcripts import JobStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from audiohook.recording.transcripts import JobRecord


class Upshot(StrEnum):
    """What has come of a job, in the words in which it is counted."""

    COMPLETED = "completed"
    """Its transcript is stored."""
    FAILED = "failed"
    """There will be no transcript."""
    PARKED = "parked"
    """It waits until somebody mends something."""
    RESUBMITTED = "resubmitted"
    """The service has failed it, and it is asked for again."""


@dataclass(frozen=True, slots=True)
class News:
    """A line for the log.

    Attributes:
        level: Of the line, as `logging` has them.
        event: What the line is called.
        upshot: What has come of the job.
        values: What else is in it.
    """

    level: int
    event: str
    upshot: Upshot
    values: Mapping[str, object]


def news_of(record: JobRecord, status: JobStatus, failures: int) -> News | None:
    """Say what a step has brought; None if there is nothing to say.

    Args:
        record: The job's, after it.
        status: How the job stood before.
        failures: How often the service had failed it before.
    """
    now = record.status
    about: dict[str, object] = {
        "audio": record.planned.key,
        "transcript": record.ids[-1] if record.ids else None,
    }
    if now is not status:
        match now:
            case JobStatus.COMPLETED:
                about["model"] = None if record.stored is None else record.stored.model
                return News(logging.INFO, "call_transcribed", Upshot.COMPLETED, about)
            case JobStatus.FAILED:
                about["reason"] = record.reason
                return News(
                    logging.WARNING, "transcript_given_up", Upshot.FAILED, about
                )
            case JobStatus.PARKED:
                about["reason"] = record.reason
                return News(logging.WARNING, "transcript_parked", Upshot.PARKED, about)
    if record.failures == failures:
        return None
    about |= {
        "fault": record.last_fault,
        "reason": record.last_reason,
        "failures": record.failures,
    }
    return News(logging.WARNING, "transcript_failed", Upshot.RESUBMITTED, about)
