"""A restart in the middle of calls, from one process to the next."""

from __future__ import annotations

import socket
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
import trio

from audiohook.simulator.client import place_call
from audiohook.simulator.options import CallOptions
from tests.house import KEY
from tests.slow.processes import Site, numbered_audio, sound_audio, tell, write_wav
from tests.slow.runners import SOCKET_AT_3
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from audiohook.simulator.report import CallReport

pytestmark = pytest.mark.slow

LIVE_CALLS = 100
LIVE_SECONDS = 15.0
NEW_CALLS = 30
NEW_SECONDS = 1.0

_HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


class Prober:
    """Knocks at the port all the time, as many at once as it has tasks."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.answers: Counter[str] = Counter()

    async def knock(self) -> None:
        while True:
            self.answers[await self._ask()] += 1

    async def _ask(self) -> str:
        try:
            with trio.fail_after(10):
                async with await trio.open_tcp_stream(
                    "127.0.0.1", self._port
                ) as stream:
                    await stream.send_all(_HEALTH)
                    answer = await stream.receive_some()
        except (OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
            return repr(error)
        return answer.split(b"\r\n")[0].decode()


@pytest.mark.parametrize("way", ["inherited", "shared"])
async def test_restart_in_mid_call_loses_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    site = Site(tmp_path, {"DRAIN_TIMEOUT": "60"})
    with socket.socket() as kept:
        # What systemd does, which holds the socket while services come and go.
        if way == "shared":
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        kept.bind(("127.0.0.1", 0))
        port = kept.getsockname()[1]
        options: dict[str, Any] = {"REUSE_PORT": "true", "PORT": str(port)}
        if way == "inherited":
            kept.listen(4096)
            options = {
                "runner": ("-c", SOCKET_AT_3, str(kept.fileno())),
                "pass_fds": (kept.fileno(),),
            }
        reports: list[CallReport] = []
        numbers: dict[str, int] = {}

        async def call(number: int, seconds: float) -> None:
            wav = write_wav(tmp_path / f"{number}.wav", numbered_audio(number, seconds))
            chosen = CallOptions(uri=f"ws://127.0.0.1:{port}/", api_key=KEY, wav=wav)
            numbers[chosen.session_id] = number
            reports.append(await place_call(chosen))

        prober = Prober(port)
        async with AsyncExitStack() as stack, trio.open_nursery() as knocking:
            old = await stack.enter_async_context(site.serve(**options))
            for _ in range(3):
                knocking.start_soon(prober.knock)
            async with trio.open_nursery() as calls:
                for number in range(LIVE_CALLS):
                    calls.start_soon(call, number, LIVE_SECONDS)
                await wait_until(lambda: len(old.lines("call_opened")) == LIVE_CALLS)
                new = await stack.enter_async_context(site.serve(**options))
                old.terminate()
                await wait_until(lambda: old.lines("draining"))
                assert old.lines("draining")[0]["live"] == LIVE_CALLS
                for number in range(LIVE_CALLS, LIVE_CALLS + NEW_CALLS):
                    calls.start_soon(call, number, NEW_SECONDS)
            assert await old.wait() == 0
            await site.wait_stored()
            knocking.cancel_scope.cancel()
            assert len(old.lines("call_ended")) == LIVE_CALLS
            assert len(new.lines("call_ended")) == NEW_CALLS
    tell(capsys, f"{way}: {dict(prober.answers)}")
    assert set(prober.answers) == {"HTTP/1.1 200 OK"}
    stored = site.stored()
    assert len(stored) == len(reports) == LIVE_CALLS + NEW_CALLS
    for report in reports:
        assert report.ok, report.breaches
        (recording,) = stored[report.session_id]
        assert recording.facts["ended"]["complete"] is True
        seconds = LIVE_SECONDS if numbers[report.session_id] < LIVE_CALLS else 1.0
        whole = numbered_audio(numbers[report.session_id], seconds)
        assert sound_audio(recording, site.recordings) == whole
