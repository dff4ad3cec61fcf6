"""Stores that fail, die, are away, and have much to take at once."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import trio

from audiohook.file_limit import raise_file_limit
from audiohook.simulator.client import place_call
from audiohook.simulator.load.shelf import open_shelf
from audiohook.simulator.load.verify import verify
from audiohook.simulator.options import CallOptions
from bench.samples import sample
from tests.faultproxy import (
    INTERNAL_ERROR,
    SLOW_DOWN,
    Answer,
    Cut,
    Delay,
    FaultProxy,
    Hang,
    Reset,
    SwallowAnswer,
    Throttle,
)
from tests.house import KEY
from tests.simulator.load.runs import Run
from tests.slow.bucket import Bucket, Mortal, aws_settings
from tests.slow.processes import (
    Server,
    Site,
    numbered_audio,
    sound_audio,
    tell,
    worst,
    write_wav,
)
from tests.slow.scale import scaled
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from audiohook.simulator.report import CallReport

pytestmark = pytest.mark.slow

SEED = 5
SHARE = 0.2
# The last, on which a request waits for a minute, ends when the store is killed.
FAULTS = [
    Delay(0.5),
    Cut(20_000),
    Reset(),
    Throttle(500_000),
    INTERNAL_ERROR,
    SLOW_DOWN,
    Answer(503, "ServiceUnavailable"),
    SwallowAnswer(),
]
DEADLY_FAULTS = [*FAULTS, Hang()]
CALLS = 100
LONG_CALLS = 2
SPREAD_SECONDS = 8.0
# When the store is killed, and how long it is away.
DEATHS = (3.0, 9.0)
AWAY_SECONDS = 1.5
# With pauses of up to half a minute.
STORE_SECONDS = 90.0

AWAY_CALLS = scaled(100, 200)
# Eight are stored at a time.
TOLERANCE = 16

MANY_CALLS = scaled(300, 1000)
# The process itself; and eight parts on their way.
RSS_LIMIT_MIB = 200
UPLOADS_LIMIT_MIB = 64
MIB = 1024 * 1024


def load_on(server: Server, calls: int, ramp: float) -> Run:
    """Prepares calls of a second each."""
    return Run(server.uri, calls=calls, ramp=ramp, api_key=KEY)


async def run_load(load: Run) -> None:
    """Has all calls made; none may notice anything."""
    await load.make()
    assert [call.faults for call in load.calls if call.faults] == []


async def check_loads(bucket: Bucket, loads: Sequence[Run], root: Path) -> None:
    """Holds a bucket against what was said."""
    calls = [call for load in loads for call in load.calls]
    recordings = await trio.to_thread.run_sync(bucket.fetch, root)
    assert set(recordings) == {call.session for call in calls}
    for (recording,) in recordings.values():
        assert recording.facts["ended"]["complete"] is True
        sound_audio(recording, root)
    verdict = await verify(calls, open_shelf(str(root)))
    assert (verdict.sound, verdict.faults) == (len(calls), [])
    sizes = await trio.to_thread.run_sync(bucket.sizes)
    assert len(sizes) == 4 * len(calls)


@pytest.fixture
def far_bucket(mortal: Mortal) -> Bucket:
    """An empty bucket of a store that is away now."""
    mortal.start()
    bucket = Bucket(mortal.store)
    bucket.create()
    mortal.kill()
    return bucket


async def test_calls_do_not_notice_a_store_that_fails_and_dies(
    tmp_path: Path,
    mortal: Mortal,
    far_bucket: Bucket,
    mortal_proxy: FaultProxy,
    capsys: pytest.CaptureFixture[str],
) -> None:
    draw = random.Random(SEED)
    proxy = mortal_proxy
    await trio.to_thread.run_sync(mortal.start)
    proxy.at_random(SEED, SHARE, DEADLY_FAULTS)
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site", aws_settings(proxy.url, far_bucket.name))
    said: dict[str, bytes] = {}
    reports: list[CallReport] = []

    async def call(server: Server, number: int, begin: float) -> None:
        is_long = number < LONG_CALLS
        audio = numbered_audio(number, 400.0 if is_long else draw.uniform(0.5, 3.0))
        wav = write_wav(site.base / f"{number}.wav", audio)
        options = CallOptions(uri=server.uri, api_key=KEY, wav=wav, fast=is_long)
        said[options.session_id] = audio
        await trio.sleep(begin)
        reports.append(await place_call(options))

    async def die() -> None:
        for death in DEATHS:
            await trio.sleep_until(began + death)
            await trio.to_thread.run_sync(mortal.kill)
            await trio.sleep(AWAY_SECONDS)
            await trio.to_thread.run_sync(mortal.start)
        proxy.at_random(SEED + 1, SHARE, FAULTS)

    async with site.serve() as server:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(die)
            for number in range(CALLS):
                begin = draw.uniform(0.0, SPREAD_SECONDS)
                nursery.start_soon(call, server, number, begin)
        ended = trio.current_time()
        await wait_until(lambda: not site.spooled(), STORE_SECONDS)
        took = trio.current_time() - ended
        assert not server.lines("delivery_failed")
    tell(
        capsys,
        f"{len(proxy.requests)} requests for {CALLS} calls, the last stored"
        f" {took:.0f} s after the last call and death; worst `closed`"
        f" {worst([r.closed_latency for r in reports if r.closed_latency])}",
    )
    assert [report.breaches for report in reports if not report.ok] == []
    assert len(reports) == CALLS
    root = tmp_path / "fetched"
    recordings = await trio.to_thread.run_sync(far_bucket.fetch, root)
    assert set(recordings) == set(said)
    for session, audio in said.items():
        (recording,) = recordings[session]
        assert recording.facts["ended"]["complete"] is True
        assert sound_audio(recording, root) == audio
    sizes = await trio.to_thread.run_sync(far_bucket.sizes)
    assert len(sizes) == 4 * CALLS
    left = await trio.to_thread.run_sync(far_bucket.parts)
    assert not any(left.values()), left


async def test_store_that_was_away_gets_the_oldest_call_first(
    tmp_path: Path,
    mortal: Mortal,
    far_bucket: Bucket,
    mortal_proxy: FaultProxy,
    capsys: pytest.CaptureFixture[str],
) -> None:
    proxy = mortal_proxy
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site", aws_settings(proxy.url, far_bucket.name))
    loads = []
    async with site.serve() as server:
        loads.append(load_on(server, AWAY_CALLS // 2, ramp=3.0))
        await run_load(loads[0])
        server.kill()
    async with site.serve() as server:
        loads.append(load_on(server, AWAY_CALLS // 2, ramp=3.0))
        await run_load(loads[1])
        assert len(site.spooled()) == AWAY_CALLS
        told = server.lines("store_fails")
        seen = len(proxy.requests)
        back = trio.current_time()
        await trio.to_thread.run_sync(mortal.start)
        await wait_until(lambda: not site.spooled(), STORE_SECONDS)
        took = trio.current_time() - back
    assert 1 <= len(told) <= 2
    # What is stored last of a call, in the order in which it was sent.
    ends = "/call.json"
    stored = [
        each.target.split("?")[0]
        for each in proxy.requests[seen:]
        if each.method == "PUT" and each.target.split("?")[0].endswith(ends)
    ]
    assert len(stored) == len(set(stored)) == AWAY_CALLS
    # Their names begin with the time when they did.
    late = [abs(place - stored.index(key)) for place, key in enumerate(sorted(stored))]
    tell(
        capsys,
        f"{AWAY_CALLS} calls stored {took:.1f} s after the store came back;"
        f" at most {max(late)} places from their order",
    )
    assert max(late) <= TOLERANCE
    await check_loads(far_bucket, loads, tmp_path / "fetched")


async def test_memory_does_not_grow_with_the_calls_that_wait(
    tmp_path: Path,
    mortal: Mortal,
    far_bucket: Bucket,
    capsys: pytest.CaptureFixture[str],
) -> None:
    raise_file_limit(None)
    (tmp_path / "site").mkdir()
    url = f"http://127.0.0.1:{mortal.port}"
    site = Site(tmp_path / "site", aws_settings(url, far_bucket.name))
    async with site.serve() as server:
        idle = sample(server.pid).rss_bytes
        load = load_on(server, MANY_CALLS, ramp=3.0)
        await run_load(load)
        await wait_until(lambda: server.lines("store_fails"))
        assert len(site.spooled()) == MANY_CALLS
        waiting = sample(server.pid).rss_bytes
        await trio.to_thread.run_sync(mortal.start)
        began = trio.current_time()
        cpu = sample(server.pid).cpu
        seen = []
        with trio.fail_after(STORE_SECONDS):
            while site.spooled():
                seen.append(sample(server.pid).rss_bytes)
                await trio.sleep(0.1)
        took = trio.current_time() - began
        cpu = sample(server.pid).cpu - cpu
    shown = ", ".join(f"{each / MIB:.0f}" for each in seen[:: max(1, len(seen) // 12)])
    tell(
        capsys,
        f"memory in MiB: idle {idle / MIB:.0f}, with {MANY_CALLS} calls waiting"
        f" {waiting / MIB:.0f}, while they are stored {shown}; {took:.1f} s,"
        f" {cpu / MANY_CALLS * 1000:.1f} ms of processor time each",
    )
    assert max(seen) < RSS_LIMIT_MIB * MIB
    assert max(seen) - waiting < UPLOADS_LIMIT_MIB * MIB
    await check_loads(far_bucket, [load], tmp_path / "fetched")
