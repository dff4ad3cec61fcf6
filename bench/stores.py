"""From the wire to the bucket: spool, rendering and upload to an S3 on this machine.

The S3 is SeaweedFS, on the load's core. What is uploaded in the window is as much as
comes in: of long calls in parts, which are full at as many moments as there are calls,
of short ones as they end and are followed by others. The time to the object counts
from `closed`, as the client got it, to the server's line that the store has confirmed
all objects of the call; that they are there, and right, is checked afterwards.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from audiohook.protocol.timeline import SAMPLE_RATE_HZ
from audiohook.storage.base import MIB
from bench.measure import Case
from tests.seaweed import BUCKET, running_seaweed
from tests.slow.bucket import aws_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.plan import Bench

PARTS = "parts"
DELIVERY = "delivery"
LENGTH = "length"

FORMS: Final = {
    "WAV alone": {"KEEP_RAW": "false"},
    "WAV and audio as received": {"KEEP_RAW": "true"},
}

# The least that S3 takes, and how long it takes to fill: two channels of PCM16.
_PART_SECONDS: Final = 5 * MIB / (2 * 2 * SAMPLE_RATE_HZ)

# Decoding and comparing costs more than recording did.
_COMPARED = 150


def run_parts(bench: Bench) -> None:
    """Measure long calls, whose parts are uploaded while they live.

    Fewer calls than are meant, and as much faster than real time: a part fills in
    minutes, and each call has to have filled its second before it sends one.
    """
    plan = bench.plan
    if not plan.long_calls:
        return
    turn = _PART_SECONDS / plan.long_speed
    for what, keep_raw in FORMS.items():
        with _bucket(bench, PARTS, what) as environment:
            if environment is None:
                continue
            case = Case(
                calls=plan.long_calls,
                ramp=turn,
                settle=turn + plan.settle,
                window=turn,
                speed=plan.long_speed,
                settings=environment | keep_raw,
                store=f"s3://{BUCKET}/calls/",
                load_environment=environment,
                raw_only=False,
                compare=_COMPARED,
            )
            bench.case(PARTS, case, what=what, speed=plan.long_speed)


def run_delivery(bench: Bench) -> None:
    """Measure calls that are uploaded while others go on."""
    plan = bench.plan
    for what in plan.delivered_forms:
        with _bucket(bench, DELIVERY, what) as environment:
            if environment is None:
                continue
            case = Case(
                calls=plan.delivered,
                # They end as evenly as they begin.
                ramp=plan.delivered_seconds,
                lengths=str(plan.delivered_seconds),
                settle=plan.settle,
                window=2 * plan.window,
                settings=environment | FORMS[what],
                store=f"s3://{BUCKET}/calls/",
                load_environment=environment,
                raw_only=False,
                compare=_COMPARED,
            )
            bench.case(DELIVERY, case, what=what)


def run_length(bench: Bench) -> None:
    """Measure single calls of growing length, faster than real time."""
    with _bucket(bench, LENGTH, "calls of growing length") as environment:
        if environment is None:
            return
        for length, speed in bench.plan.lengths:
            case = Case(
                calls=1,
                ramp=0.0,
                settle=0.0,
                window=0.0,
                margin=length / speed,
                speed=speed,
                settings=environment,
                store=f"s3://{BUCKET}/calls/",
                load_environment=environment,
                raw_only=False,
            )
            bench.case(LENGTH, case, length=length, speed=speed)


@contextmanager
def _bucket(bench: Bench, kind: str, what: str) -> Iterator[dict[str, str] | None]:
    """Run an S3; give the environment in which it is found, None if there is none."""
    ours = os.sched_getaffinity(0)
    # What we start inherits this.
    os.sched_setaffinity(0, {bench.cores.load})
    try:
        folder = tempfile.mkdtemp(dir=bench.folder, prefix="audiohook-bench-s3-")
        with running_seaweed(Path(folder)) as store:
            os.sched_setaffinity(0, ours)
            yield aws_settings(store.url, BUCKET)
    except (pytest.skip.Exception, pytest.fail.Exception) as outcome:
        bench.results.skip(kind, what, str(outcome).partition("\n")[0])
        yield None
    finally:
        os.sched_setaffinity(0, ours)
