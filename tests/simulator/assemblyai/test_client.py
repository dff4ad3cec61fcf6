"""The service's own client against the stand-in: do they mean the same?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from audiohook.errors import TranscriptError
from audiohook.simulator.assemblyai import DEFAULT_KEY, Endpoint, Fault, JobFault
from audiohook.transcription.assemblyai import AssemblyAI, make_client
from audiohook.transcription.base import TranscriptFault
from audiohook.transcription.parameters import Parameters, Webhook
from tests.simulator.assemblyai.tools import TALK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trio.testing import MockClock

    from tests.simulator.assemblyai.conftest import House
    from tests.simulator.assemblyai.tools import Site

    Start = Callable[..., Awaitable[House]]


async def whole(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def test_a_job_from_upload_to_deletion(
    clock: MockClock, start: Start, site: Site
) -> None:
    house = await start()
    async with make_client(house.standin.base_url, DEFAULT_KEY) as http:
        client = AssemblyAI(http)
        url = await client.upload(whole(TALK), len(TALK))
        webhook = Webhook(f"{site.url}/hook?job=1", "secret")
        parameters = Parameters(language="detect").body(
            url, channels=2, language="en-US", webhook=webhook
        )
        job = await client.submit(parameters)
        await house.standin.wait_idle()
        found = await client.get(job.id)
        assert found.usable
        assert [line["channel"] for line in found.body["utterances"]] == ["1", "2"]
        page = await client.list_page()
        assert [listed.id for listed in page.items] == [job.id]
        gone = await client.delete(job.id)
        assert gone.deleted
        assert not (await client.get(job.id)).usable
        with pytest.raises(TranscriptError) as caught:
            await client.get("nonsense")
        assert caught.value.fault == TranscriptFault.NOT_FOUND
    (hook,) = site.hooks
    assert hook.headers["x-audiohook-secret"] == "secret"


@pytest.mark.parametrize(
    ("fault", "meaning", "unknown"),
    [
        (Fault.EMPTY_503, TranscriptFault.AWAY, None),
        (Fault.ERROR_504, TranscriptFault.AWAY, None),
        (Fault.RATE, TranscriptFault.BUSY, False),
        (Fault.UNAUTHORIZED, TranscriptFault.BAD_KEY, False),
        (Fault.GARBAGE, TranscriptFault.AWAY, True),
        (Fault.LOST, TranscriptFault.AWAY, True),
        (Fault.STALL, TranscriptFault.AWAY, True),
    ],
)
async def test_requests_that_fail(
    clock: MockClock,
    start: Start,
    fault: Fault,
    meaning: TranscriptFault,
    unknown: bool | None,
) -> None:
    house = await start()
    house.standin.faults.script(Endpoint.SUBMIT, fault)
    async with make_client(house.standin.base_url, DEFAULT_KEY) as http:
        with pytest.raises(TranscriptError) as caught:
            await AssemblyAI(http).submit(
                Parameters().body("http://127.0.0.1:1/a.wav", channels=2)
            )
    assert caught.value.fault == meaning
    if unknown is not None:
        assert caught.value.outcome_unknown is unknown
    if fault is Fault.RATE:
        assert caught.value.retry_after == 1


@pytest.mark.parametrize(
    ("fault", "meaning"),
    [
        (JobFault.DOWNLOAD, TranscriptFault.DOWNLOAD),
        (JobFault.NO_AUDIO, TranscriptFault.MEDIA),
        (JobFault.TOO_SHORT, TranscriptFault.MEDIA),
        (JobFault.THRESHOLD, TranscriptFault.MEDIA),
        (JobFault.LANGUAGE, TranscriptFault.MEDIA),
        (JobFault.SERVER, TranscriptFault.THEIRS),
    ],
)
async def test_jobs_that_fail(
    clock: MockClock,
    start: Start,
    site: Site,
    fault: JobFault,
    meaning: TranscriptFault,
) -> None:
    house = await start()
    house.standin.faults.script_jobs(fault)
    async with make_client(house.standin.base_url, DEFAULT_KEY) as http:
        client = AssemblyAI(http)
        job = await client.submit(Parameters().body(f"{site.url}/talk.wav", channels=2))
        await house.standin.wait_idle()
        assert (await client.get(job.id)).fault is meaning


async def test_balance_and_models(clock: MockClock, start: Start) -> None:
    house = await start()
    body = Parameters().body("http://127.0.0.1:1/a.wav", channels=2)
    async with make_client(house.standin.base_url, DEFAULT_KEY) as http:
        client = AssemblyAI(http)
        house.standin.faults.balance_negative = True
        with pytest.raises(TranscriptError) as caught:
            await client.submit(body)
        assert caught.value.fault == TranscriptFault.BALANCE
        house.standin.faults.clear()
        house.standin.faults.retired.add("universal-2")
        with pytest.raises(TranscriptError, match="universal-2") as caught:
            await client.submit(body)
        assert caught.value.fault == TranscriptFault.BAD_REQUEST
