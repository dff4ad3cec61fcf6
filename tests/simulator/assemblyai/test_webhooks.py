from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from audiohook.simulator.assemblyai import JobFault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

    from tests.simulator.assemblyai.conftest import House
    from tests.simulator.assemblyai.tools import Site

    Start = Callable[..., Awaitable[House]]

HEADER = {
    "webhook_auth_header_name": "X-Hook-Secret",
    "webhook_auth_header_value": "open sesame",
}


async def test_the_end_is_told(clock: MockClock, start: Start, site: Site) -> None:
    house = await start()
    house.standin.faults.script_jobs(None, JobFault.SERVER)
    hook = {"webhook_url": f"{site.url}/hook?call=7", **HEADER}
    good = await house.result(f"{site.url}/talk.wav", **hook)
    bad = await house.result(f"{site.url}/talk.wav", **hook)
    assert [each.body for each in site.hooks] == [
        {"transcript_id": good["id"], "status": "completed"},
        {"transcript_id": bad["id"], "status": "error"},
    ]
    for each in site.hooks:
        assert (each.path, each.query) == ("/hook", {"call": "7"})
        assert each.headers["x-hook-secret"] == "open sesame"
    assert good["webhook_status_code"] == 200
    assert good["webhook_auth"] is True
    assert "open sesame" not in str(good)
    assert house.standin.statistics().webhooks_sent == 2


@pytest.mark.parametrize(
    ("statuses", "times", "last", "taken"),
    [
        ((503, 503, 204), [0, 10, 20], 204, True),
        ((302, 200), [0, 10], 200, True),
        ((503, 404, 200), [0, 10], 404, False),
        ((500,), list(range(0, 100, 10)), 500, False),
        # Ten seconds for the answer, and ten until the next try.
        ((None, None, 200), [0, 20, 40], 200, True),
        ((None,), list(range(0, 200, 20)), None, False),
    ],
)
async def test_tries(
    clock: MockClock,
    start: Start,
    site: Site,
    statuses: tuple[int | None, ...],
    times: list[int],
    last: int | None,
    taken: bool,
) -> None:
    site.statuses = statuses
    house = await start()
    begun = trio.current_time()
    body = await house.result(f"{site.url}/talk.wav", webhook_url=f"{site.url}/hook")
    assert [round(hook.at - begun) for hook in site.hooks] == times
    assert body["webhook_status_code"] == last
    figures = house.standin.statistics()
    assert (figures.webhooks_sent, figures.webhooks_failed) == (taken, not taken)


async def test_nobody_there(clock: MockClock, start: Start, site: Site) -> None:
    house = await start()
    for url in ("http://127.0.0.1:1/", "nonsense", "http://["):
        body = await house.result(f"{site.url}/talk.wav", webhook_url=url)
        assert body["status"] == "completed"
        assert body["webhook_status_code"] is None
    assert house.standin.statistics().webhooks_failed == 3


async def test_lost(clock: MockClock, start: Start, site: Site) -> None:
    house = await start()
    house.standin.faults.webhooks_lost = True
    await house.result(f"{site.url}/talk.wav", webhook_url=f"{site.url}/hook")
    assert site.hooks == []


async def test_redacted_audio_is_told_without_an_id(
    clock: MockClock, start: Start, site: Site
) -> None:
    house = await start()
    body = await house.result(
        f"{site.url}/talk.wav",
        webhook_url=f"{site.url}/hook?id=1",
        redact_pii=True,
        redact_pii_audio=True,
    )
    first, second = (hook.body for hook in site.hooks)
    assert first["transcript_id"] == body["id"]
    assert second.keys() == {"status", "redacted_audio_url"}
