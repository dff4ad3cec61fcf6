"""The page of live calls, of a service that has some."""

from __future__ import annotations

import html
import json
import re
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
import trio

from audiohook.call import Pulse
from audiohook.glance import Glance
from audiohook.recording import levels
from audiohook.recording.disk import AUDIO
from audiohook.recording.levels import FLOOR, SILENT, Level, latest_levels
from audiohook.web.feed import MOST_VIEWERS
from tests.waiting import wait_until
from tests.web.visiting import Page, page_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
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


class FakeLive:
    """A call of the desk, as far as a glance takes it."""

    def __init__(self, session: str, *, age: float) -> None:
        party = SimpleNamespace(id="p", ani="", ani_name="", dnis="")
        parameters = SimpleNamespace(conversation_id="c", participant=party)
        self.session_id = session
        self.age = age
        self.state = "open"
        self.opened = SimpleNamespace(parameters=parameters)
        self.control = SimpleNamespace(standing=SimpleNamespace(held="recording"))

    def pulse(self) -> Pulse:
        return Pulse(None, 0, 0.0, 0.0, None, (), None)


def glance_at(calls: list[FakeLive], clock: Callable[[], float]) -> Glance:
    desk: Any = FakeDesk(calls)
    unused: Any = None
    return Glance(desk, unused, unused, clock=clock)


class FakeDesk:
    def __init__(self, calls: list[FakeLive]) -> None:
        self.calls = calls

    def __len__(self) -> int:
        return len(self.calls)

    def newest_calls(self, most: int) -> list[FakeLive]:
        return self.calls[:most]


def shown(text: str) -> list[str]:
    """Returns the conversations on a page, as they come."""
    return re.findall(r'data-field="conversation">([^<]+)</code>', text)[
        : text.count("data-session=")
    ]


@asynccontextmanager
async def viewer(page: Page, path: str = "/live/events") -> AsyncIterator[Viewer]:
    port = page.house.service.admin_port
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        await stream.send_all(head.encode("ascii"))
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


async def test_any_live_call_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audiohook.web.live.MOST_CALLS", 2)
    conversations = [f"{number:08d}-1111-4111-8111-111111111111" for number in range(5)]
    async with page_of(tmp_path) as page, trio.open_nursery() as nursery:
        assert "0 calls are live." in await page.text("/live")
        assert "No call is live." in await page.text("/live")
        for number, conversation in enumerate(conversations):
            options: dict[str, Any] = {
                "conversation_id": conversation,
                "ani": f"tel:+49 30 12345{number}",
                "ani_name": f"Zoë <{number}>",
                "fast": False,
                "duration": 60.0,
            }
            nursery.start_soon(partial(page.house.call, **options))
            await page.house.wait_streaming(number + 1)
        first = await page.text("/")
        assert shown(first) == conversations[:2:-1]
        assert re.search(r'data-total="others">3</span> more are live', first)

        seen, path = [], "/live"
        for left in (3, 3, 4):
            text = await page.text(path)
            assert "5 calls are live." in text
            assert f"{left} of them are not on this page." in text
            seen += shown(text)
            if (older := re.search(r'href="([^"]+)" rel="next"', text)) is not None:
                path = html.unescape(older[1])
        assert seen == conversations[::-1]

        for wanted, found in {
            conversations[1][:10].upper(): [1],
            "zoë <3>": [3],
            "(030) 12345-2": [2],
            "30 123452": [2],
            "123": [4, 3],
            "4": [4, 3],
            "nobody": [],
        }.items():
            text = await page.text(f"/live?{urlencode({'find': wanted})}")
            assert shown(text) == [conversations[number] for number in found], wanted
            assert html.escape(wanted) in text
            # Numbers are hidden from who only looks.
            assert "12345" not in text.replace(wanted, "")
        assert (await page.get(f"/live?find={'x' * 201}")).status_code == 400
        # What makes no sense is where it begins.
        assert len(shown(await page.text("/live?after=nonsense"))) == 2
        nursery.cancel_scope.cancel()


async def test_list_goes_on_behind_a_call_that_has_ended(tmp_path: Path) -> None:
    now = 2000.0
    calls = [FakeLive(f"{number:036d}", age=float(number)) for number in range(10)]
    glance = glance_at(calls, lambda: now)
    first = await glance.find("", None, 4)
    assert [each.session for each in first.calls] == [c.session_id for c in calls[:4]]
    assert (first.listed, first.matching) == (10, 10)
    assert first.next is not None
    # The last of the page ends, and time goes on.
    del calls[3]
    now += 7.0
    for each in calls:
        each.age += 7.0
    second = await glance.find("", first.next, 4)
    assert [each.session for each in second.calls] == [c.session_id for c in calls[3:7]]
    third = await glance.find("", second.next, 4)
    assert [each.session for each in third.calls] == [c.session_id for c in calls[7:]]
    assert third.next is None


async def test_search_in_thousands_lets_others_run() -> None:
    calls = [FakeLive(f"{number:036d}", age=1.0) for number in range(5000)]
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        found = await glance_at(calls, lambda: 0.0).find("4999", None, 50)
        nursery.cancel_scope.cancel()
    assert found.matching == 1
    assert turns >= 25


async def test_one_search_is_made_at_a_time() -> None:
    calls = [FakeLive(f"{number:036d}", age=1.0) for number in range(1000)]
    glance = glance_at(calls, lambda: 0.0)
    order: list[str] = []
    listed = FakeDesk.newest_calls

    def begin(desk: FakeDesk, most: int) -> list[FakeLive]:
        order.append("begins")
        return listed(desk, most)

    desk: Any = glance._desk
    desk.newest_calls = partial(begin, desk)

    async def find() -> None:
        await glance.find("nobody", None, 50)
        order.append("ends")

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(find)
    assert order.count("ends") == 3
    # While one is at it no other has begun.
    places = [place for place, each in enumerate(order) if each == "begins"]
    assert order[places[0] + 1] == order[places[1] + 1] == "ends"


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
