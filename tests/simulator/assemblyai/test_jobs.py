"""Jobs over time, and how they end."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import trio

from audiohook.recording.wav import Encoding, header
from audiohook.simulator.assemblyai import (
    JobFault,
    Limits,
    Pace,
    Policy,
    StandIn,
)
from tests.simulator.assemblyai.tools import Site, make_wav

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

    from tests.simulator.assemblyai.conftest import House

    Start = Callable[..., Awaitable[House]]

SILENCE = make_wav(2, (), ())


async def test_states_over_time(clock: MockClock, start: Start, site: Site) -> None:
    house = await start(pace=Pace(queued=2, processing=3, a_minute_of_audio=60))
    job = await house.submit(f"{site.url}/talk.wav")
    assert job["status"] == "queued"
    begun = trio.current_time()
    seen: dict[str, int] = {}
    while "completed" not in seen:
        status = (await house.get(job["id"])).json()["status"]
        seen.setdefault(status, round(trio.current_time() - begun))
        await trio.sleep(0.5)
    # The audio has 8 seconds, which take 8 more.
    assert seen == {"queued": 0, "processing": 2, "completed": 13}


async def test_more_than_the_limit_wait_in_line(
    clock: MockClock, start: Start, site: Site
) -> None:
    house = await start(limits=Limits(parallel=2), pace=Pace(processing=10))
    jobs = [await house.submit(f"{site.url}/talk.wav?{n}") for n in range(5)]
    await trio.sleep(5)

    async def look() -> list[tuple[str, bool | None]]:
        bodies = [(await house.get(job["id"])).json() for job in jobs]
        return [(body["status"], body["throttled"]) for body in bodies]

    assert await look() == [("processing", None)] * 2 + [("queued", True)] * 3
    page = (await house.client.get("/v2/transcript?throttled_only=true")).json()
    assert len(page["transcripts"]) == 3
    await trio.sleep(10)
    assert await look() == [
        *[("completed", None)] * 2,
        *[("processing", None)] * 2,
        ("queued", True),
    ]
    await house.standin.wait_idle()
    figures = house.standin.statistics()
    assert figures.most_parallel == 2
    assert figures.most_open == 5
    assert (figures.submitted, figures.billed, figures.open) == (5, 5, 0)
    assert figures.audio["/talk.wav"].billed == 5


async def test_negative_balance_refuses_and_slows_down(
    clock: MockClock, start: Start, site: Site
) -> None:
    house = await start(pace=Pace(queued=1, processing=10))
    for _ in range(3):
        await house.submit(f"{site.url}/talk.wav")
    house.standin.faults.balance_negative = True
    answer = await house.client.post(
        "/v2/transcript", json={"audio_url": f"{site.url}/talk.wav"}
    )
    assert answer.status_code == 400
    assert "balance is negative" in answer.json()["error"]
    await house.standin.wait_idle()
    assert house.standin.statistics().most_parallel == 1
    house.standin.faults.balance_negative = False
    await house.submit(f"{site.url}/talk.wav")


@pytest.mark.parametrize(
    ("wav", "more", "error"),
    [
        (make_wav(0.15, ((0, 0.15),)), {}, "Audio duration is too short."),
        (b"<html>no</html>", {}, "does not appear to contain audio"),
        (b"", {}, "does not appear to contain audio"),
        (make_wav(40, ((0, 10),)), {"speech_threshold": 0.5}, "threshold 0.25"),
        (None, {}, "Download error, .*/a.wav.s=1. .*404"),
        (
            make_wav(1, ((0, 1),)),
            {"language_detection": True, "language_confidence_threshold": 0.99},
            "below the requested confidence threshold",
        ),
    ],
)
async def test_audio_that_will_not_do(
    clock: MockClock,
    start: Start,
    site: Site,
    wav: bytes | None,
    more: dict[str, object],
    error: str,
) -> None:
    if wav is not None:
        site.files["/a.wav"] = wav
    house = await start()
    body = await house.result(f"{site.url}/a.wav?s=1", **more)
    assert body["status"] == "error"
    assert re.search(error, body["error"]), body["error"]
    assert body["text"] is None
    figures = house.standin.statistics()
    assert (figures.failed, figures.billed) == (1, 0)


async def test_short_audio_is_not_held_against_a_speech_threshold(
    clock: MockClock, start: Start, site: Site
) -> None:
    house = await start()
    body = await house.result(f"{site.url}/talk.wav", speech_threshold=1.0)
    assert body["status"] == "completed"


async def test_silence_costs_money(clock: MockClock, start: Start, site: Site) -> None:
    site.files["/silence.wav"] = SILENCE
    house = await start()
    body = await house.result(f"{site.url}/silence.wav", multichannel=True)
    assert (body["status"], body["text"]) == ("completed", "")
    assert body["words"] == body["utterances"] == []
    assert house.standin.statistics().billed == 1


async def test_silence_fails_where_the_policy_says_so(
    clock: MockClock, start: Start, site: Site
) -> None:
    site.files["/silence.wav"] = SILENCE
    house = await start(policy=Policy(silence_fails=True))
    body = await house.result(f"{site.url}/silence.wav")
    assert body["status"] == "error"
    assert "does not appear to contain audio" in body["error"]


async def test_audio_that_cannot_be_reached(clock: MockClock, start: Start) -> None:
    house = await start()
    for url in ("http://127.0.0.1:1/a.wav?s=1", f"http://{'h' * 80}/a.wav"):
        body = await house.result(url)
        assert body["status"] == "error"
        assert body["error"].startswith(f"Download error, unable to download {url}.")


async def test_audio_that_takes_too_long_to_come(
    clock: MockClock, start: Start, nursery: trio.Nursery
) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        house = await start(limits=Limits(download=60))
        body = await house.result(f"http://127.0.0.1:{port}/a.wav")
    assert body["error"].startswith("Download error")


async def test_audio_that_is_too_long(
    clock: MockClock, start: Start, site: Site
) -> None:
    house = await start(limits=Limits(media_bytes=1000))
    body = await house.result(f"{site.url}/talk.wav")
    assert body["error"] == "Audio duration is too long."
    house = await start(limits=Limits(media_seconds=7.9))
    body = await house.result(f"{site.url}/talk.wav")
    assert body["error"] == "Audio duration is too long."


async def test_long_audio_is_written_to_a_file(start: Start, site: Site) -> None:
    # On the real clock, since a thread works on it.
    frames = 3_000_000
    hum = make_wav(1, ((0, 1),), encoding=Encoding.PCM16)[44:]
    site.files["/long.wav"] = header(Encoding.PCM16, 1, frames) + b"".join(
        (bytes(2_000_000), hum, bytes(2 * frames - 2_000_000 - len(hum)))
    )
    house = await start()
    body = await house.result(f"{site.url}/long.wav", speaker_labels=True)
    (line,) = body["utterances"]
    assert (line["start"], line["end"]) == (125_000, 126_000)
    assert body["audio_duration"] == 375
    answer = await house.client.post("/v2/upload", content=site.files["/long.wav"])
    again = await house.result(answer.json()["upload_url"], speaker_labels=True)
    assert again["utterances"] == body["utterances"]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (JobFault.DOWNLOAD, "Download error, "),
        (JobFault.NO_AUDIO, "Transcoding failed. File does not appear to"),
        (JobFault.TOO_SHORT, "Audio duration is too short."),
        (JobFault.THRESHOLD, "Audio speech threshold"),
        (JobFault.LANGUAGE, "detected language"),
        (JobFault.SERVER, "Server error"),
    ],
)
async def test_ordered_ends(
    clock: MockClock, start: Start, site: Site, fault: JobFault, error: str
) -> None:
    house = await start()
    house.standin.faults.script_jobs(fault)
    body = await house.result(f"{site.url}/talk.wav")
    assert body["status"] == "error"
    assert body["error"].startswith(error)
    assert (await house.result(f"{site.url}/talk.wav"))["status"] == "completed"


async def test_a_job_that_never_ends(
    clock: MockClock, start: Start, site: Site
) -> None:
    house = await start()
    house.standin.faults.script_jobs(JobFault.STUCK)
    job = await house.submit(f"{site.url}/talk.wav")
    await trio.sleep(20 * 3600)
    assert (await house.get(job["id"])).json()["status"] == "processing"


async def test_served_again_with_all_its_jobs(
    clock: MockClock, nursery: trio.Nursery, site: Site, start: Start
) -> None:
    standin = StandIn(pace=Pace(processing=50))
    account = standin.account()
    async with trio.open_nursery() as first:
        await first.start(standin.serve)
        account.submit(
            {"audio_url": f"{site.url}/talk.wav"},
            model="m",
            language="en",
            now=trio.current_time(),
        )
        # Nobody had told it.
        standin.faults.balance_negative = True
        await trio.sleep(10)
        first.cancel_scope.cancel()
    assert standin.statistics().open == 1
    await nursery.start(standin.serve)
    await standin.wait_idle()
    (job,) = account.jobs.values()
    assert job.status == "completed"


async def test_ten_thousand_open_jobs(clock: MockClock, start: Start) -> None:
    house = await start(limits=Limits(parallel=1), pace=Pace(queued=3600))
    account = house.standin.account()
    for number in range(10_000):
        account.submit(
            {"audio_url": f"http://127.0.0.1:1/{number}.wav"},
            model="m",
            language="en",
            now=trio.current_time(),
        )
    ids = list(account.jobs)
    for job_id in ids[::500]:
        assert (await house.get(job_id)).json()["status"] == "queued"
    page = (await house.client.get("/v2/transcript?limit=200")).json()
    assert [item["id"] for item in page["transcripts"]] == ids[:-201:-1]
    assert house.standin.statistics().most_open == 10_000
