"""SIGTERM in the middle of many calls, once and twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from audiohook.protocol.messages import DisconnectReason
from audiohook.simulator.client import place_call
from audiohook.simulator.options import CallOptions
from tests.house import KEY
from tests.slow.processes import (
    Site,
    numbered_audio,
    sound_audio,
    tell,
    worst,
    write_wav,
)
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from audiohook.simulator.report import CallReport
    from tests.slow.processes import Server

pytestmark = pytest.mark.slow

CALLS = 200
# Longer than the test, so that no call ends by itself.
CALL_SECONDS = 30.0
# What calls have said when the signal comes.
TALK_SECONDS = 1.0
DRAIN_SECONDS = 5.0
# From the end of the time that live calls are given.
EXIT_SECONDS = 8.0

FEW_CALLS = 20
# A second SIGTERM means now.
AT_ONCE_SECONDS = 5.0
# What may be missing of a call whose `closed` was never sent.
LOSS_BYTES = 16_000


class Calls:
    """Calls to one server that go on until it ends them.

    Args:
        site: Where the server lives.
        server: It.
        count: How many.

    Attributes:
        reports: Of those that are over.
    """

    def __init__(self, site: Site, server: Server, count: int) -> None:
        self._site = site
        self._server = server
        self._count = count
        self._numbers: dict[str, int] = {}
        self.reports: list[CallReport] = []

    async def start(self, nursery: trio.Nursery) -> None:
        """Starts them, and waits until all are open and have said something."""
        for number in range(self._count):
            wav = self._site.base / f"{number}.wav"
            write_wav(wav, numbered_audio(number, CALL_SECONDS))
            options = CallOptions(uri=self._server.uri, api_key=KEY, wav=wav)
            self._numbers[options.session_id] = number
            nursery.start_soon(self._make, options)
        await wait_until(lambda: len(self._server.lines("call_opened")) == self._count)
        await trio.sleep(TALK_SECONDS)
        assert self.reports == []

    async def _make(self, options: CallOptions) -> None:
        self.reports.append(await place_call(options))

    def audio(self, report: CallReport) -> bytes:
        """Returns what that call had to send if it had come to its end."""
        return numbered_audio(self._numbers[report.session_id], CALL_SECONDS)


async def test_drain_ends_and_stores_all_calls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(tmp_path, {"DRAIN_TIMEOUT": str(DRAIN_SECONDS)})
    async with site.serve() as server:
        calls = Calls(site, server, CALLS)
        async with trio.open_nursery() as nursery:
            await calls.start(nursery)
            server.terminate()
            deadline = trio.current_time() + DRAIN_SECONDS
            await wait_until(lambda: server.lines("draining"))
            # One that comes now is sent elsewhere, in a way that lets it try again.
            late = await place_call(CallOptions(uri=server.uri, api_key=KEY))
        with trio.fail_at(deadline + EXIT_SECONDS):
            assert await server.wait() == 0
        took = trio.current_time() - deadline
    closed = [report.closed_latency or 0.0 for report in calls.reports]
    tell(capsys, f"ended {took:.1f} s after the deadline; closed {worst(closed)}")
    assert late.disconnect_reason is DisconnectReason.ERROR
    assert site.spooled() == []
    stored = site.stored()
    assert len(stored) == len(calls.reports) == CALLS
    for report in calls.reports:
        assert report.ok, report.breaches
        assert report.disconnect_reason is DisconnectReason.COMPLETED
        assert report.closed_latency is not None
        (recording,) = stored[report.session_id]
        raw = sound_audio(recording, site.recordings)
        assert 0 < len(raw) == report.audio_bytes
        assert raw == calls.audio(report)[: len(raw)]
        assert recording.facts["ended"]["complete"] is True
    assert site.strays() == []


async def test_second_sigterm_ends_at_once_and_leaves_the_rest_to_recovery(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, {"DRAIN_TIMEOUT": "60"})
    async with site.serve() as server:
        calls = Calls(site, server, FEW_CALLS)
        async with trio.open_nursery() as nursery:
            await calls.start(nursery)
            server.terminate()
            await wait_until(lambda: server.lines("draining"))
            await trio.sleep(TALK_SECONDS)
            assert calls.reports == []
            server.terminate()
            with trio.fail_after(AT_ONCE_SECONDS):
                assert await server.wait() == 0
    ended = await site.command("recover")
    assert ended.returncode == 0, ended.stderr
    assert site.spooled() == []
    stored = site.stored()
    assert len(stored) == len(calls.reports) == FEW_CALLS
    for report in calls.reports:
        (recording,) = stored[report.session_id]
        raw = sound_audio(recording, site.recordings)
        assert raw == calls.audio(report)[: len(raw)]
        assert len(raw) >= report.audio_bytes - LOSS_BYTES
        assert recording.facts["ended"]["complete"] is False
    assert site.strays() == []
