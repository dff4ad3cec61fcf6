"""What the stand-in answers, held against the service's own description."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from audiohook.simulator.assemblyai import Endpoint, Fault, JobFault, Pace
from tests import assemblyai_spec as spec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

    from tests.simulator.assemblyai.conftest import House
    from tests.simulator.assemblyai.tools import Site

    Start = Callable[..., Awaitable[House]]

MODELS = {"speech_models": ["universal-3-5-pro", "universal-2"]}


@pytest.mark.parametrize(
    "asked",
    [
        {"multichannel": True},
        {"speaker_labels": True, "speaker_options": {"max_speakers_expected": 2}},
        {"multichannel": True, "speaker_labels": True},
        {
            "language_detection": True,
            "keyterms_prompt": ["parcel"],
            "prompt": "A call about a parcel.",
            "speech_threshold": 0.1,
            "redact_pii": True,
            "redact_pii_audio": True,
            "redact_pii_policies": ["phone_number"],
            "redact_pii_sub": "entity_name",
            "webhook_auth_header_name": "X-Secret",
            "webhook_auth_header_value": "s",
        },
    ],
)
async def test_a_job_from_request_to_deletion(
    clock: MockClock, start: Start, site: Site, asked: dict[str, object]
) -> None:
    house = await start(pace=Pace(processing=5))
    asked = {**MODELS, **asked, "webhook_url": f"{site.url}/hook"}
    url = f"{site.url}/talk.wav"
    spec.hold("TranscriptParams", {"audio_url": url, **asked})
    job = await house.submit(url, **asked)
    spec.hold("Transcript", job)
    spec.hold("Transcript", (await house.get(job["id"])).json())
    await house.standin.wait_idle()
    body = (await house.get(job["id"])).json()
    spec.hold("Transcript", body)
    for line in body["utterances"] or ():
        spec.hold("TranscriptUtterance", line)
    for word in body["words"]:
        spec.hold("TranscriptWord", word)
    for hook in site.hooks:
        spec.hold("TranscriptWebhookNotification", hook.body)
    if "redact_pii_audio" in asked:
        redacted = (await house.get(job["id"], "/redacted-audio")).json()
        spec.hold("RedactedAudioResponse", redacted)
    sentences = (await house.get(job["id"], "/sentences")).json()
    spec.hold("SentencesResponse", sentences)
    for sentence in sentences["sentences"]:
        spec.hold("TranscriptSentence", sentence)
    paragraphs = (await house.get(job["id"], "/paragraphs")).json()
    spec.hold("ParagraphsResponse", paragraphs)
    for paragraph in paragraphs["paragraphs"]:
        spec.hold("TranscriptParagraph", paragraph)
    search = await house.get(job["id"], "/word-search?words=parcel")
    spec.hold("WordSearchResponse", search.json())
    deleted = await house.client.delete(f"/v2/transcript/{job['id']}")
    spec.hold("Transcript", deleted.json())
    spec.hold("Transcript", (await house.get(job["id"])).json())


async def test_a_job_that_fails(clock: MockClock, start: Start, site: Site) -> None:
    house = await start()
    house.standin.faults.script_jobs(JobFault.SERVER)
    body = await house.result(f"{site.url}/talk.wav", **MODELS)
    assert body["status"] == "error"
    spec.hold("Transcript", body)


async def test_lists(clock: MockClock, start: Start, site: Site) -> None:
    house = await start(pace=Pace(processing=5))
    house.standin.faults.script_jobs(JobFault.SERVER)
    for _ in range(2):
        await house.submit(f"{site.url}/talk.wav", **MODELS)
    spec.hold("TranscriptList", (await house.client.get("/v2/transcript")).json())
    await house.standin.wait_idle()
    await house.submit(f"{site.url}/talk.wav", **MODELS)
    asked = {"limit": "1", "status": "queued", "created_on": "2001-01-01"}
    ids = list(house.standin.account().jobs)
    for query in (
        {},
        {"limit": "1"},
        asked,
        {"before_id": ids[1]},
        {"after_id": ids[0], "throttled_only": "false"},
    ):
        known = spec.parameters("/v2/transcript", "get")
        assert not known or set(query) <= set(known)
        page = (await house.client.get("/v2/transcript", params=query)).json()
        spec.hold("TranscriptList", page)
        spec.hold("PageDetails", page["page_details"])
        for item in page["transcripts"]:
            spec.hold("TranscriptListItem", item)


async def test_upload(clock: MockClock, start: Start) -> None:
    house = await start()
    answer = await house.client.post("/v2/upload", content=b"x")
    spec.hold("UploadedFile", answer.json())


async def test_errors(clock: MockClock, start: Start) -> None:
    house = await start()
    house.standin.faults.script(
        Endpoint.LIST, Fault.ERROR_500, Fault.RATE, Fault.UNAUTHORIZED, Fault.FORBIDDEN
    )
    for status in (500, 429, 401, 403):
        answer = await house.client.get("/v2/transcript")
        assert answer.status_code == status
        spec.hold("Error", answer.json())
    spec.hold("Error", (await house.get("nonsense")).json())
    answer = await house.client.post("/v2/transcript", json={})
    spec.hold("Error", answer.json())


def test_the_judge_refuses_what_is_wrong() -> None:
    if spec.is_there():
        with pytest.raises(AssertionError, match="required property"):
            spec.hold("Transcript", {"id": "x"})
        with pytest.raises(AssertionError, match=r"has no .*'tyop'"):
            spec.hold("Error", {"error": "x", "tyop": 1})
        with pytest.raises(AssertionError, match="audio_url"):
            spec.hold("TranscriptParams", MODELS)
    else:
        spec.hold("Transcript", {"id": "x"})
