"""The admin port of a whole service, and the limits that it shows at work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from audiohook.admin import pages
from audiohook.errors import ConfigError
from tests.admin.reading import parse_openmetrics, samples
from tests.house import House, house, make_service
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def fresh_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_SAME_PAGE", 0.0)


async def get(it: House, path: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        url = f"http://127.0.0.1:{it.service.admin_port}{path}"
        return await client.get(url, headers=headers)


async def scrape(it: House) -> dict[str, float]:
    return samples((await get(it, "/metrics")).text)


async def test_figures_of_a_call_as_it_lives_and_ends(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        assert (await get(it, "/ready")).status_code == 200
        before = await scrape(it)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: it.call(duration=2.0, fast=False, discards=((0.5, 1.5),))
            )
            await it.wait_streaming()
            await wait_until(lambda: it.service.statistics().pump.buffered_bytes)
            during = await scrape(it)
            stats = (await get(it, "/stats")).json()
        await it.settle()
        after = await scrape(it)
    assert before.keys() == during.keys() == after.keys()
    assert during["audiohook_calls_live{state=open}"] == 1
    assert 0 < during["audiohook_audio_bytes_total"] < 32_000
    assert during["audiohook_audio_frames_total"] > 0
    assert stats["live"] == 1
    assert stats["live_by_state"] == {"open": 1}
    assert stats["spool_survey"]["calls"] <= 1
    assert after["audiohook_calls_live{state=open}"] == 0
    assert after["audiohook_audio_bytes_total"] == 32_000
    assert after["audiohook_calls_total{outcome=ended}"] == 1
    assert after["audiohook_calls_stored_total"] == 1
    assert after["audiohook_gaps_total{kind=discarded}"] == 1
    assert after["audiohook_gap_seconds_total{kind=discarded}"] == 1.5
    assert after["audiohook_opened_latency_seconds_count"] == 1
    assert after["audiohook_closed_latency_seconds_count"] == 1
    assert after["audiohook_pump_lag_seconds_count"] > 10


async def test_openmetrics_of_a_whole_service(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        answer = await get(it, "/metrics", accept="application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
    assert {"audiohook_calls", "process_open_fds"} <= {
        family.name for family in parse_openmetrics(answer.text)
    }


async def test_stats_with_transcription(tmp_path: Path) -> None:
    async with house(tmp_path, assemblyai_api_key="k") as it:
        stats = (await get(it, "/stats")).json()
    assert stats["transcriptions"]["jobs"]["submitted"] == 0


async def test_websites_cannot_read_it_by_a_name_of_their_own(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        assert (await get(it, "/stats", host="evil.example")).status_code == 421


async def test_port_answers_while_the_service_drains(tmp_path: Path) -> None:
    async with house(tmp_path, drain_timeout=60.0) as it:
        async with it.live_call():
            it.service.stop()
            await wait_until(lambda: it.service.statistics().draining)
            for path, text in (
                ("/health", "draining\n"),
                ("/ready", "Service stops\n"),
            ):
                answer = await get(it, path)
                assert (answer.status_code, answer.text) == (503, text)
            found = await scrape(it)
    assert found["audiohook_draining"] == 1
    assert found["audiohook_ready"] == 0


async def test_port_in_use_is_one_line(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        second = make_service(tmp_path, admin_port=it.service.admin_port)
        with pytest.raises(ExceptionGroup) as caught:
            await second.run()
    faults = caught.value.split(ConfigError)[0]
    assert f"ADMIN_PORT: {it.service.admin_port} is in use" in repr(faults)


@pytest.mark.parametrize(
    ("limits", "label"),
    [
        ({"max_calls": 1}, "max_calls"),
        ({"max_calls_per_key": 1}, "key_calls"),
        ({"new_calls_per_key": "0.000001:1"}, "key_rate"),
    ],
)
async def test_call_beyond_a_limit_is_asked_to_come_again(
    tmp_path: Path,
    lines: list[Any],
    limits: dict[str, Any],
    label: str,
) -> None:
    async with house(tmp_path, **limits) as it:
        async with it.live_call():
            report = await it.call(duration=0.5)
            # Upgraded and then sent away: a refused upgrade is never tried again.
            assert "disconnect" in str(report.breaches)
            assert "HTTP" not in str(report.breaches)
        await it.settle()
        assert len(it.recordings()) == 1
        found = await scrape(it)
    assert found[f"audiohook_calls_turned_away_total{{reason={label}}}"] == 1
    assert found["audiohook_calls_total{outcome=refused}"] == 1
    assert found["audiohook_calls_total{outcome=ended}"] == 1
    (line,) = [line for line in lines if line["event"] == "call_turned_away"]
    assert line["reason"] == label
    assert line["session"]
    assert line["correlation"]
    assert line["conversation"]


async def test_calls_that_are_turned_away_take_no_place(tmp_path: Path) -> None:
    async with house(tmp_path, max_calls_per_key=1) as it:
        for _ in range(3):
            assert (await it.call(duration=0.5)).ok
        async with it.live_call():
            for _ in range(3):
                assert not (await it.call(duration=0.5)).ok
            assert it.service.statistics().refusal is None
        assert (await it.call(duration=0.5)).ok
        await it.settle()
        assert len(it.recordings()) == 5


async def test_lines_of_a_call_have_its_ids(tmp_path: Path, lines: list[Any]) -> None:
    async with house(tmp_path) as it:
        report = await it.call(duration=0.5)
        assert report.ok
        await it.settle()
        (recording,) = it.recordings()
    told = [line for line in lines if line["event"].startswith("call_")]
    # The recording may be stored before the peer has closed its connection.
    assert told[0]["event"] == "call_opened"
    assert {line["event"] for line in told[1:]} == {"call_ended", "call_stored"}
    facts = recording.facts
    for line in told:
        assert line["session"] == facts["sessionId"]
        assert line["conversation"] == facts["conversationId"]
        assert line["correlation"] == facts["correlationId"]
        # Nothing about people.
        text = str(line)
        for personal in ("ani", "dnis", "tel:", "participant"):
            assert personal not in text.replace("channels", "")


@pytest.mark.parametrize("language", ["de-AT", "es-419", "Zoë Müller", "x" * 64])
async def test_language_is_logged_only_if_it_is_one(
    tmp_path: Path, lines: list[Any], language: str
) -> None:
    async with house(tmp_path) as it:
        await it.call(duration=0.5, language=language)
        await it.settle()
        (recording,) = it.recordings()
    (line,) = [line for line in lines if line["event"] == "call_opened"]
    assert line["language"] == (language if len(language) < 8 else None)
    assert recording.facts["language"] == language
