from __future__ import annotations

import re
import time
from email.utils import formatdate
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from audiohook.checks import clock
from audiohook.checks.clock import offset
from tests import aws
from tests.checks.tools import checked

if TYPE_CHECKING:
    from pathlib import Path


async def dated(ahead: float | None, *, task_status: trio.TaskStatus[str]) -> None:
    """Answers as a store would whose clock is that far ahead; told its address."""

    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        date = ""
        if ahead is not None:
            date = f"Date: {formatdate(time.time() + ahead, usegmt=True)}\r\n"
        await stream.send_all(
            f"HTTP/1.1 403 No\r\n{date}Content-Length: 0\r\n\r\n".encode()
        )

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(
            partial(trio.serve_tcp, answer, 0, host="127.0.0.1")
        )
        port = listener.socket.getsockname()[1]
        task_status.started(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("ahead", "code", "words"),
    [
        (0.0, 0, "✓ compare the clock with that of 127.0.0.1:"),
        (-2.5, 0, "! compare the clock"),
        (60.0, 1, r"this machine is (59|60) s behind, and Genesys' signatures"),
        (-3600.0, 1, r"this machine is (3599|3600) s ahead, and Genesys' signatures"),
        (None, 0, "→ it does not tell the time"),
    ],
)
@pytest.mark.parametrize("bucket", [True, False])
async def test_clock_is_compared(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ahead: float | None,
    code: int,
    words: str,
    bucket: bool,
) -> None:
    monkeypatch.setattr(clock, "kernel_is_synchronised", lambda: True)
    async with trio.open_nursery() as nursery:
        url = await nursery.start(dated, ahead)
        flags: dict[str, object] = {
            "assemblyai_api_key": "k",
            "assemblyai_base_url": url,
        }
        if bucket:
            flags = {"s3_bucket": "bucket"}
            for name, value in aws.environment(url).items():
                monkeypatch.setenv(name, value)
        found, out = await checked("clock", recordings_dir=tmp_path, **flags)
        nursery.cancel_scope.cancel()
    assert re.search(words, out)
    assert found == code


async def test_store_that_does_not_answer_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "kernel_is_synchronised", lambda: True)
    code, out = await checked(
        "clock",
        recordings_dir=tmp_path,
        assemblyai_api_key="k",
        assemblyai_base_url="http://127.0.0.1:9",
    )
    assert code == 0
    assert "it cannot be asked (ConnectError)" in out


@pytest.mark.parametrize(
    ("state", "line"),
    [
        (True, "✓ something keeps the clock right\n"),
        (False, "! something keeps the clock right\n  → the kernel knows of nothing"),
        (None, "✓ something keeps the clock right\n  → the kernel does not tell"),
    ],
)
async def test_clock_that_nothing_keeps_right_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: bool | None, line: str
) -> None:
    monkeypatch.setattr(clock, "kernel_is_synchronised", lambda: state)
    _, out = await checked("clock", recordings_dir=tmp_path)
    assert line in out


def test_kernel_tells() -> None:
    assert clock.kernel_is_synchronised() in {True, False, None}


@pytest.mark.parametrize(
    ("sent", "received", "least"),
    [(99.5, 99.6, 0.4), (100.0, 100.1, 0.0), (102.0, 102.1, -1.0), (95.0, 110.0, 0.0)],
)
def test_offset_is_the_least_that_is_possible(
    sent: float, received: float, least: float
) -> None:
    found = offset(formatdate(100, usegmt=True), sent, received)
    assert found is not None
    assert found.least == pytest.approx(least)


def test_offset_of_no_date() -> None:
    assert offset("yesterday", 0, 0) is None
