"""The endpoints, over real sockets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import trio

from audiohook.simulator.assemblyai import JobFault, Limits, Pace
from tests.simulator.assemblyai.tools import TALK, make_wav

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trio.testing import MockClock

    from tests.simulator.assemblyai.conftest import House
    from tests.simulator.assemblyai.tools import Site

    Start = Callable[..., Awaitable[House]]

LOOKUP = {"error": "Transcript lookup error, transcript id not found"}
SIGNED = "?X-Amz-Signature=abc"


async def test_two_channels_come_back_with_their_voices(
    clock: MockClock, start: Start, site: Site
) -> None:
    house = await start()
    body = await house.result(f"{site.url}/talk.wav{SIGNED}", multichannel=True)
    assert body["status"] == "completed"
    assert body["audio_url"] == f"{site.url}/talk.wav{SIGNED}"
    assert (body["audio_channels"], body["audio_duration"]) == (2, 8)
    assert body["speech_model_used"] == "universal-3-5-pro"
    assert body["language_code"] == "en_us"
    assert body["error"] is None
    times = [
        (line["channel"], line["speaker"], line["start"], line["end"])
        for line in body["utterances"]
    ]
    assert [each[:2] for each in times] == [("1", "1"), ("2", "2")]
    for (_, _, *found), wanted in zip(times, ((500, 3000), (3500, 7000)), strict=True):
        assert found == pytest.approx(wanted, abs=20)
    assert body["text"] == " ".join(line["text"] for line in body["utterances"])
    assert body["words"] == [w for line in body["utterances"] for w in line["words"]]
    assert {word["channel"] for word in body["words"]} == {"1", "2"}
    assert 0 < body["confidence"] < 1


async def test_overlapping_voices_overlap(
    clock: MockClock, start: Start, site: Site
) -> None:
    site.files["/both.wav"] = make_wav(4, ((1, 3),), ((0.5, 3.5),))
    house = await start()
    body = await house.result(f"{site.url}/both.wav", multichannel=True)
    assert [line["channel"] for line in body["utterances"]] == ["2", "1"]
    starts = [word["start"] for word in body["words"]]
    assert starts == sorted(starts)
    assert [w["channel"] for w in body["words"]] != sorted(
        (w["channel"] for w in body["words"]), reverse=True
    )


@pytest.mark.parametrize(
    ("asked", "speakers", "channels"),
    [
        ({"speaker_labels": True}, ["A", "B"], {None}),
        ({"speaker_labels": True, "multichannel": True}, ["1A", "2A"], {"1", "2"}),
    ],
)
async def test_speakers(
    clock: MockClock,
    start: Start,
    site: Site,
    asked: dict[str, Any],
    speakers: list[str],
    channels: set[str | None],
) -> None:
    site.files["/a.wav"] = make_wav(8, ((0.5, 3),), ((4, 7),))
    house = await start()
    body = await house.result(f"{site.url}/a.wav", **asked)
    assert [line["speaker"] for line in body["utterances"]] == speakers
    assert {word["channel"] for word in body["words"]} == channels


async def test_without_channels_and_speakers_there_are_no_utterances(
    clock: MockClock, start: Start, site: Site
) -> None:
    house = await start()
    body = await house.result(f"{site.url}/talk.wav")
    assert body["utterances"] is None
    assert "audio_channels" not in body
    assert {(w["speaker"], w["channel"]) for w in body["words"]} == {(None, None)}
    assert body["text"]


async def test_a_part_of_the_audio(clock: MockClock, start: Start, site: Site) -> None:
    house = await start()
    body = await house.result(
        f"{site.url}/talk.wav",
        multichannel=True,
        audio_start_from=1000,
        audio_end_at=5000,
    )
    times = [(line["start"], line["end"]) for line in body["utterances"]]
    assert times == [(1000, 3000), (3500, 5000)]


async def test_detected_language(clock: MockClock, start: Start, site: Site) -> None:
    house = await start()
    job = await house.submit(f"{site.url}/talk.wav", language_detection=True)
    assert job["language_code"] is None
    await house.standin.wait_idle()
    body = (await house.get(job["id"])).json()
    assert (body["language_code"], body["language_confidence"]) == ("en", 0.9821)


async def test_exports(clock: MockClock, start: Start, site: Site) -> None:
    house = await start()
    body = await house.result(f"{site.url}/talk.wav", multichannel=True)
    job_id = body["id"]
    sentences = (await house.get(job_id, "/sentences")).json()
    assert sentences["id"] == job_id
    assert " ".join(each["text"] for each in sentences["sentences"]) == body["text"]
    paragraphs = (await house.get(job_id, "/paragraphs")).json()
    assert paragraphs["paragraphs"] == body["utterances"]
    srt = await house.get(job_id, "/srt?chars_per_caption=20")
    assert srt.headers["content-type"].startswith("text/plain")
    blocks = srt.text.strip().split("\n\n")
    assert [block.split("\n")[0] for block in blocks] == [
        str(number) for number in range(1, len(blocks) + 1)
    ]
    for block in blocks:
        _, times, text = block.split("\n")
        assert re.fullmatch(r"00:00:\d\d,\d{3} --> 00:00:\d\d,\d{3}", times)
        assert len(text) <= 20
    assert " ".join(block.split("\n")[2] for block in blocks) == body["text"]
    vtt = (await house.get(job_id, "/vtt")).text
    assert vtt.startswith("WEBVTT\n\n00:00.")
    words = body["words"][:3]
    phrase = " ".join(word["text"].strip(".,?").lower() for word in words)
    searched = f"/word-search?words={phrase},the,xyz,{'the ' * 6}"
    found = (await house.get(job_id, searched)).json()
    assert found["total_count"] == sum(match["count"] for match in found["matches"])
    assert [match["text"] for match in found["matches"]] == [phrase, "the"]
    match = found["matches"][0]
    assert match["timestamps"] == [[words[0]["start"], words[2]["end"]]]
    assert (match["indexes"], match["count"]) == ([0], 1)
    for part in ("/word-search", "/srt?chars_per_caption=0", "/redacted-audio"):
        assert (await house.get(job_id, part)).status_code == 400
    assert (await house.get(job_id, "/summary")).status_code == 404


async def test_exports_need_a_completed_transcript(
    clock: MockClock, start: Start, site: Site
) -> None:
    house = await start(pace=Pace(processing=10))
    job = await house.submit(f"{site.url}/talk.wav")
    answer = await house.get(job["id"], "/srt")
    assert answer.status_code == 400
    assert "status of" in answer.json()["error"]
    assert (await house.get("nonsense", "/srt")).json() == LOOKUP


async def test_redacted_audio(clock: MockClock, start: Start, site: Site) -> None:
    house = await start(pace=Pace(processing=10))
    asked = {"redact_pii": True, "redact_pii_audio": True}
    job = await house.submit(f"{site.url}/talk.wav", **asked)
    assert (await house.get(job["id"], "/redacted-audio")).status_code == 202
    await house.standin.wait_idle()
    found = (await house.get(job["id"], "/redacted-audio")).json()
    assert found["status"] == "redacted_audio_ready"
    audio = await house.client.get(
        found["redacted_audio_url"], headers={"Authorization": ""}
    )
    assert audio.content.startswith(b"RIFF")
    await trio.sleep(25 * 3600)
    assert (await house.get(job["id"], "/redacted-audio")).status_code == 400


@pytest.mark.parametrize("key", ["", "wrong", "Bearer stand-in-key"])
async def test_only_a_raw_key_is_taken(
    clock: MockClock, start: Start, key: str
) -> None:
    house = await start()
    answer = await house.client.get("/v2/transcript", headers={"Authorization": key})
    assert answer.status_code == 401
    assert answer.json() == {"error": "Authentication error, API token missing/invalid"}


async def test_accounts_are_apart(clock: MockClock, start: Start, site: Site) -> None:
    house = await start(keys=("one", "two"))
    job = await house.submit(f"{site.url}/talk.wav")
    other = {"Authorization": "two"}
    path = f"/v2/transcript/{job['id']}"
    foreign = await house.client.get(path, headers=other)
    assert (foreign.status_code, foreign.json()) == (400, LOOKUP)
    assert (await house.client.delete(path, headers=other)).json() == LOOKUP
    page = await house.client.get("/v2/transcript", headers=other)
    assert page.json()["transcripts"] == []
    uploaded = (await house.client.post("/v2/upload", content=TALK)).json()
    answer = await house.client.post(
        "/v2/transcript", json={"audio_url": uploaded["upload_url"]}, headers=other
    )
    assert answer.status_code == 403
    assert answer.json() == {"error": "Cannot access uploaded file"}


async def test_upload_is_transcribed_and_goes_with_its_transcript(
    clock: MockClock, start: Start
) -> None:
    house = await start()

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(TALK), 1000):
            yield TALK[at : at + 1000]

    answer = await house.client.post("/v2/upload", content=pieces())
    url = answer.json()["upload_url"]
    assert url.startswith("https://cdn.assemblyai.com/upload/")
    body = await house.result(url, multichannel=True)
    assert body["status"] == "completed"
    assert len(body["utterances"]) == 2
    figures = house.standin.statistics()
    assert (figures.uploads, figures.upload_bytes) == (1, len(TALK))
    await house.client.delete(f"/v2/transcript/{body['id']}")
    again = await house.result(url)
    assert again["status"] == "error"
    assert again["error"].startswith("Download error")


async def test_upload_bounds(clock: MockClock, start: Start) -> None:
    house = await start(limits=Limits(upload_bytes=2000))
    assert (await house.client.post("/v2/upload", content=b"")).status_code == 400
    assert (await house.client.post("/v2/upload", content=b"x" * 2000)).is_success
    answer = await house.client.post("/v2/upload", content=b"x" * 2001)
    assert answer.status_code == 413


async def test_delete(clock: MockClock, start: Start, site: Site) -> None:
    house = await start(pace=Pace(processing=5))
    job = await house.submit(f"{site.url}/talk.wav{SIGNED}", multichannel=True)
    path = f"/v2/transcript/{job['id']}"
    early = await house.client.delete(path)
    assert (early.status_code, early.json()) == (400, LOOKUP)
    await house.standin.wait_idle()
    assert (await house.get(job["id"])).json()["utterances"]
    for _ in range(2):
        answer = await house.client.delete(path)
        assert answer.status_code == 200
        # It looks like a good one.
        for body in (answer.json(), (await house.get(job["id"])).json()):
            assert body["status"] == "completed"
            assert body["text"] == "Deleted by user."
            assert body["audio_url"] == "http://deleted_by_user"
            assert body["words"] is body["utterances"] is None
    (item,) = (await house.client.get("/v2/transcript")).json()["transcripts"]
    assert item["audio_url"] == "http://deleted_by_user"
    assert (await house.get(job["id"], "/sentences")).json()["sentences"] == []


async def test_list_is_paged_from_newest_to_oldest(
    clock: MockClock, start: Start, site: Site
) -> None:
    house = await start()
    ids = [
        (await house.submit(f"{site.url}/talk.wav?n={number}"))["id"]
        for number in range(5)
    ]
    await house.standin.wait_idle()
    seen: list[str] = []
    url: str | None = "/v2/transcript?limit=2"
    while url is not None:
        page = (await house.client.get(url)).json()
        assert page["page_details"]["limit"] == 2
        assert page["page_details"]["result_count"] == len(page["transcripts"])
        seen += [item["id"] for item in page["transcripts"]]
        url = page["page_details"]["prev_url"]
    assert seen == ids[::-1]
    newer = page["page_details"]["next_url"]
    assert newer is not None
    page = (await house.client.get(newer)).json()
    assert [item["id"] for item in page["transcripts"]] == [ids[2], ids[1]]
    item = page["transcripts"][0]
    assert item["resource_url"] == f"{house.standin.base_url}/v2/transcript/{ids[2]}"
    assert urlsplit(item["audio_url"]).query == "n=2"


async def test_list_is_filtered(clock: MockClock, start: Start, site: Site) -> None:
    house = await start()
    house.standin.faults.script_jobs(JobFault.SERVER)
    first = await house.submit(f"{site.url}/talk.wav")
    second = await house.submit(f"{site.url}/talk.wav")
    await house.standin.wait_idle()

    async def ids(query: str) -> list[str]:
        page = (await house.client.get(f"/v2/transcript?{query}")).json()
        return [item["id"] for item in page["transcripts"]]

    assert await ids("status=error") == [first["id"]]
    assert await ids("status=completed") == [second["id"]]
    page = (await house.client.get("/v2/transcript")).json()
    created, failed = page["transcripts"][0]["created"], page["transcripts"][1]
    assert failed["error"].startswith("Server error")
    day = created.partition("T")[0]
    assert await ids(f"created_on={day}") == [second["id"], first["id"]]
    assert await ids("created_on=2001-01-01") == []
    assert await ids("throttled_only=true") == []
    await trio.sleep(24 * 3600)
    third = await house.submit(f"{site.url}/talk.wav")
    assert await ids(f"created_on={day}&limit=1") == [second["id"]]
    assert (await ids("limit=200"))[0] == third["id"]


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=201", "limit=x", "status=done", "created_on=1/2/26"]
    + [f"{name}=nonsense" for name in ("before_id", "after_id")],
)
async def test_list_refuses_nonsense(
    clock: MockClock, start: Start, query: str
) -> None:
    house = await start()
    answer = await house.client.get(f"/v2/transcript?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/v2/transcript"),
        ("POST", "/v2/transcript/x"),
        ("GET", "/v2/upload"),
        ("GET", "/"),
        ("GET", "/v2/transcript/x/y/z"),
        ("GET", "/redacted-audio/x.wav"),
    ],
)
async def test_nothing_there(
    clock: MockClock, start: Start, method: str, path: str
) -> None:
    house = await start()
    answer = await house.client.request(method, path, content=b"x" * 100_000)
    assert (answer.status_code, answer.json()) == (404, {"error": "Not found"})
    # The connection goes on.
    assert (await house.client.get("/v2/transcript")).status_code == 200


async def test_body_that_is_no_json(clock: MockClock, start: Start) -> None:
    house = await start()
    for content in (b"", b"{", b"[" * 100_000, b"\xff"):
        answer = await house.client.post("/v2/transcript", content=content)
        assert answer.status_code == 400, content[:10]
    answer = await house.client.post("/v2/transcript", content=b" " * 1_100_000)
    assert answer.status_code == 413


async def test_too_many_requests(clock: MockClock, start: Start) -> None:
    house = await start(limits=Limits(requests=2))
    for _ in range(2):
        assert (await house.client.get("/v2/transcript")).status_code == 200
    answer = await house.client.get("/v2/transcript")
    assert answer.status_code == 429
    wait = int(answer.headers["Retry-After"])
    assert 299 <= wait <= 301
    await trio.sleep(wait)
    assert (await house.client.get("/v2/transcript")).status_code == 200
