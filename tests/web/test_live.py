"""The page of live calls, of a service that has some."""

from __future__ import annotations

import json
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from audiohook.recording import levels
from audiohook.recording.disk import AUDIO
from audiohook.recording.levels import FLOOR, SILENT, Level, latest_levels
from audiohook.web.feed import MOST_VIEWERS
from tests.waiting import wait_until
from tests.web.visiting import Page, page_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

# µ-law: the loudest there is, and silence.
EVENT = re.compile(rb"event: (\w+)\ndata: (.*)\n\n")
LOUD, SILENCE = b"\x80", b"\xff"


class Viewer:
    """A connection that watches, as plain as it can be."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._text = b""

    async def next(self) -> tuple[str, Any]:
        """Returns the next event."""
        # Lines between are those of the chunks in which they come.
        while (found := EVENT.search(self._text)) is None:
            more = await self._stream.receive_some()
            assert more, self._text
            self._text += more
        self._text = self._text[found.end() :]
        return found[1].decode(), json.loads(found[2])


@asynccontextmanager
async def viewer(page: Page) -> AsyncIterator[Viewer]:
    port = page.house.service.admin_port
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET /live/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        yield Viewer(stream)


async def test_live_call_is_shown_as_it_goes_on(tmp_path: Path) -> None:
    async with page_of(tmp_path) as page, trio.open_nursery() as nursery:
        assert "No call is live." in await page.text("/")
        nursery.start_soon(
            lambda: page.house.call(
                fast=False,
                duration=60.0,
                ani_name="Anna <b>",
                language="de-DE",
                pauses=((1.0, 0.4),),
            )
        )
        await page.house.wait_streaming()
        row: dict[str, Any] = {"gaps": 0}
        totals: dict[str, Any] = {"rate": None}
        heard: set[str] = set()
        async with viewer(page) as it:
            with trio.fail_after(20):
                while len(heard) < 2 or not row["gaps"] or not totals["rate"]:
                    _, data = await it.next()
                    totals.update(data.get("totals", {}))
                    for fields in data.get("calls", {}).values():
                        row.update(fields)
                    heard.add(str(row.get("levels")))
        assert totals["live"] == 1
        assert row["name"] == "Anna <b>"
        assert row["language"] == "de-DE"
        assert row["held"] == "recording"
        assert row["gapSeconds"] == 0.4
        assert row["pinged"] is not None
        assert [channel for channel, *_ in row["levels"]] == ["external", "internal"]
        text = await page.text("/")
        assert "Anna &lt;b&gt;" in text
        assert "Anna <b>" not in text
        nursery.cancel_scope.cancel()


async def test_refused_handshakes_are_told_by_reason(tmp_path: Path) -> None:
    async with page_of(tmp_path) as page:
        report = await page.house.call(api_key="bm90IHRoZSBrZXk=")
        assert not report.ok
        text = await page.text("/")
        assert "<dt>unknown key</dt><dd>1</dd>" in text


async def test_viewers_are_bounded(tmp_path: Path) -> None:
    async with page_of(tmp_path) as page, trio.open_nursery() as nursery:
        watching = 0

        async def watch() -> None:
            nonlocal watching
            async with viewer(page) as it:
                await it.next()
                watching += 1
                await trio.sleep_forever()

        for _ in range(MOST_VIEWERS):
            nursery.start_soon(watch)
        await wait_until(lambda: watching == MOST_VIEWERS)
        answer = await page.get("/live/events")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
        # The page itself goes on.
        await page.text("/")
        nursery.cancel_scope.cancel()


async def test_nobody_is_watched_without_the_password(tmp_path: Path) -> None:
    async with page_of(tmp_path, admin_password="a long enough password") as page:
        assert (await page.get("/live/events")).status_code == 303


@pytest.mark.parametrize(
    ("audio", "channels", "loud"),
    [
        (LOUD + SILENCE, 2, [Level(0, 0), SILENT]),
        (SILENCE + LOUD, 2, [SILENT, Level(0, 0)]),
        (LOUD, 1, [Level(0, 0)]),
        (b"", 2, [SILENT, SILENT]),
    ],
)
def test_levels_are_those_of_the_end_of_the_audio(
    tmp_path: Path, audio: bytes, channels: int, loud: list[Level]
) -> None:
    (tmp_path / AUDIO).write_bytes(b"\x90" * 100_000 + audio * 4000)
    if not audio:
        (tmp_path / AUDIO).write_bytes(b"")
    assert list(latest_levels(tmp_path, channels)) == loud
    # Half a frame at the end is not there yet.
    with (tmp_path / AUDIO).open("ab") as stream:
        stream.write(b"\x80" if channels == 2 else b"")
    assert list(latest_levels(tmp_path, channels)) == loud


def test_call_whose_audio_is_gone_is_silent(tmp_path: Path) -> None:
    assert latest_levels(tmp_path, 2) == (SILENT, SILENT)
    (tmp_path / AUDIO).symlink_to("/dev/zero")
    assert latest_levels(tmp_path, 1) == (SILENT,)


def test_level_is_never_below_the_floor() -> None:
    assert levels._decibels(0.001) == FLOOR
