from __future__ import annotations

import re
from types import SimpleNamespace
from typing import TYPE_CHECKING

import structlog
import trio

from audiohook.backlog import Backlog
from audiohook.errors import SpoolError, TranscriptError, UploadError
from audiohook.index.keeper import IndexStatistics
from audiohook.storage.base import StoreFault
from audiohook.transcription.base import TranscriptFault
from audiohook.transcription.pace import Pace
from audiohook.web.pages import Pages
from audiohook.web.surroundings import Spooled
from audiohook.web.waiting import WaitingPages
from tests.storage.test_delivery import FakeCall, FakeStore, Hub
from tests.transcription.office import Call, Office, scheduling
from tests.web.test_feed import read
from tests.web.test_live import viewer
from tests.web.visiting import PASSWORD, SAME_ORIGIN, page_of

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from audiohook.transcription.scheduler import Transcriptions

SURVEY = Spooled(
    calls=3, used_bytes=4096, oldest_seconds=60.0, aside=0, free_bytes=2**30
)


class FakeLookout:
    def __init__(self) -> None:
        self.latest = SimpleNamespace(spool=SURVEY)

    async def look(self) -> None:
        await trio.lowlevel.checkpoint()


def backlog_of(hub: Hub, jobs: Transcriptions | None = None) -> Backlog:
    lookout: Any = FakeLookout()
    fault = "the bucket is not there"
    return Backlog(hub.deliveries, jobs, lookout, store_fault=lambda: fault)


async def test_calls_that_wait_say_why_and_what_mends_them(
    nursery: trio.Nursery, autojump_clock: object
) -> None:
    async def work(what: str) -> None:
        if what == "bad":
            raise SpoolError("bad sector")
        raise UploadError(
            "denied: allow s3:PutObject", retryable=False, fault=StoreFault.OTHER
        )

    hub = Hub(FakeStore(work=work))
    await hub.start(nursery)
    hub.add(FakeCall("bad", 2), FakeCall("refused", 1))
    await hub.deliveries.wait_settled()
    view = await backlog_of(hub).look(10)
    assert view.spool == SURVEY
    assert view.uploads == {"waiting": 2, "active": 0}
    assert view.store_fault == "the bucket is not there"
    assert view.jobs is None
    first, second = view.oldest
    assert (first.reason, first.mend) == ("denied: allow s3:PutObject", True)
    assert (second.reason, second.mend) == ("bad sector", False)
    assert first.started_at < second.started_at
    assert first.tries == second.tries == 1
    assert second.again_in == 1
    assert [call.session for call in view.parked] == [first.session]


async def test_delivery_is_tried_again_at_once_when_somebody_says_so(
    nursery: trio.Nursery, autojump_clock: object
) -> None:
    is_denied = True

    async def work(_what: str) -> None:
        if is_denied:
            raise UploadError("denied", retryable=False, fault=StoreFault.DENIED)

    hub = Hub(FakeStore(work=work))
    await hub.start(nursery)
    hub.add(FakeCall("a"), FakeCall("b", 1))
    await hub.deliveries.wait_settled()
    assert hub.deliveries.statistics().fault == "denied"
    await trio.sleep(31)
    is_denied = False
    before = trio.current_time()
    backlog_of(hub).retry()
    while hub.deliveries.statistics().stored < 2:  # noqa: ASYNC110 - the clock is fast
        await trio.sleep(0.01)
    assert trio.current_time() - before < 0.1
    assert hub.deliveries.statistics().fault is None


async def test_parked_jobs_say_why_and_are_tried_again_at_once(
    nursery: trio.Nursery, autojump_clock: object
) -> None:
    is_wrong = True
    error = TranscriptError(
        "the key is wrong: correct ASSEMBLYAI_API_KEY",
        fault=TranscriptFault.BAD_KEY,
        retryable=False,
    )
    office = Office(lambda _: 1.0, Pace(), lambda _: error if is_wrong else None)
    hub = Hub(FakeStore())
    with structlog.testing.capture_logs():
        async with scheduling(office, [Call(1), Call(2)], parallel=5) as jobs:
            await trio.sleep(120)
            backlog = backlog_of(hub, jobs)
            view = await backlog.look(10)
            assert view.parked_jobs == 2
            assert view.transcription_fault == str(error)
            assert [each.reason for each in view.parked] == [str(error)] * 2
            assert {each.state for each in view.parked} == {"parked"}
            assert len(view.oldest) == 2
            assert len((await backlog.look(1)).parked) == 1
            is_wrong = False
            before = trio.current_time()
            backlog.retry()
            while jobs.statistics().completed < 2:  # noqa: ASYNC110 - the clock is fast
                await trio.sleep(0.1)
            # Not after the half hour that a parked job waits; a job takes seconds.
            assert trio.current_time() - before < 20


class FakeIndex:
    def statistics(self) -> IndexStatistics:
        return IndexStatistics(waiting=2, failures=0, building=False)


async def test_page_is_sent_what_changes_and_nothing_else(
    nursery: trio.Nursery, autojump_clock: object
) -> None:
    is_denied = True

    async def work(_what: str) -> None:
        if is_denied:
            raise UploadError("<denied>", retryable=True, fault=StoreFault.AWAY)

    hub = Hub(FakeStore(work=work))
    await hub.start(nursery)
    backlog = backlog_of(hub)
    around: Any = SimpleNamespace(
        waiting=backlog.look, index=FakeIndex(), clock=lambda: 1e9 + trio.current_time()
    )
    feed = WaitingPages(around, Pages(show_numbers=False)).feed
    stream: Any = feed.events()
    assert await anext(stream) == b"retry: 1000\n\n"
    name, whole = read(await anext(stream))
    assert name == "whole"
    assert set(whole) == {"now", "faults", "figures", "parked", "oldest"}
    assert "All calls that are over are stored." in whole["oldest"]
    assert 'data-figure="uploads-waiting">0' in whole["figures"]
    name, change = read(await anext(stream))
    assert (name, set(change)) == ("change", {"now"})

    async def changed(part: str, text: str) -> set[str]:
        """Returns the parts that come with one in which a text is."""
        while True:
            _, change = read(await anext(stream))
            if text in change.get(part, ""):
                return set(change)

    hub.add(FakeCall("a"))
    assert await changed("oldest", "&lt;denied&gt;") == {"now", "figures", "oldest"}
    assert re.search(r'data-due="[0-9]{10}"', (await feed.latest()).state["oldest"])
    is_denied = False
    backlog.retry()
    found = await changed("oldest", "All calls that are over are stored.")
    assert found == {"now", "figures", "oldest"}
    await stream.aclose()


async def test_page_says_how_many_it_does_not_show(
    nursery: trio.Nursery, autojump_clock: object
) -> None:
    async def work(_what: str) -> None:
        raise UploadError("away", retryable=True, fault=StoreFault.AWAY)

    hub = Hub(FakeStore(work=work))
    await hub.start(nursery)
    hub.add(*[FakeCall(str(number), number) for number in range(60)])
    await hub.deliveries.wait_settled()
    around: Any = SimpleNamespace(
        waiting=backlog_of(hub).look, index=FakeIndex(), clock=trio.current_time
    )
    frame = await WaitingPages(around, Pages(show_numbers=False)).feed.latest()
    assert frame.state["oldest"].count("data-session=") == 50
    active = hub.deliveries.statistics().active
    assert f"{10 - active} more are not shown here." in frame.state["oldest"]


async def test_what_waits_is_watched_as_live_calls_are(tmp_path: Path) -> None:
    async with page_of(tmp_path, admin_password=PASSWORD) as page:
        assert (await page.get("/waiting/events")).status_code == 303
        await page.log_in()
        # A script asks whether it would be let in.
        answer = await page.client.head("/waiting/events")
        assert (answer.status_code, answer.text) == (200, "")
    async with page_of(tmp_path) as page, viewer(page, "/waiting/events") as it:
        name, whole = await it.next()
        assert name == "whole"
        assert "All calls that are over are stored." in whole["oldest"]


async def test_page_shows_what_waits_and_has_it_tried_again(tmp_path: Path) -> None:
    async with page_of(tmp_path) as page:
        text = await page.text("/waiting")
        assert "All calls that are over are stored." in text
        fields: dict[str, Any] = {"token": await page.token("/waiting")}
        seen = []
        for _ in range(3):
            answer = await page.post("/waiting/retry", fields)
            assert answer.status_code == 303
            seen.append(answer.headers["location"])
        assert seen == ["/waiting?tried=yes"] * 2 + ["/waiting?tried=soon"]
        for path in seen:
            await page.text(path)
        assert (await page.post("/waiting/retry", {})).status_code == 403
        cross = {**SAME_ORIGIN, "sec-fetch-site": "cross-site"}
        refused = await page.post("/waiting/retry", fields, cross)
        assert refused.status_code == 403
        assert (await page.get("/waiting/retry")).status_code == 405
