from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest
from trio.testing import MockClock

from audiohook.simulator.assemblyai import DEFAULT_KEY, StandIn
from audiohook.simulator.assemblyai.webhooks import Body
from tests.simulator.assemblyai.tools import Site

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import trio


class House:
    """A stand-in that serves, and a client with its key."""

    def __init__(self, standin: StandIn, client: httpx.AsyncClient) -> None:
        self.standin = standin
        self.client = client

    async def submit(self, audio_url: str, **more: object) -> dict[str, Any]:
        answer = await self.client.post(
            "/v2/transcript", json={"audio_url": audio_url, **more}
        )
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def get(self, job_id: str, part: str = "") -> httpx.Response:
        return await self.client.get(f"/v2/transcript/{job_id}{part}")

    async def result(self, audio_url: str, **more: object) -> dict[str, Any]:
        """Submits a job and returns it at its end."""
        job = await self.submit(audio_url, **more)
        await self.standin.wait_idle()
        answer = await self.get(job["id"])
        assert answer.status_code == 200
        body: dict[str, Any] = answer.json()
        return body


class _Transport(httpx.AsyncHTTPTransport):
    # Where a connection breaks amid a request, httpx's own body is left half-run.
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if isinstance(request.stream, httpx.ByteStream):
            request.stream = Body(request.content)
        return await super().handle_async_request(request)


@pytest.fixture
def clock() -> MockClock:
    # A moment of real time for what is under way in the kernel's sockets.
    return MockClock(autojump_threshold=0.02)


@pytest.fixture
async def site(nursery: trio.Nursery) -> Site:
    site = Site()
    await nursery.start(site.serve)
    return site


@pytest.fixture
async def start(
    nursery: trio.Nursery,
) -> AsyncIterator[Callable[..., Awaitable[House]]]:
    clients: list[httpx.AsyncClient] = []

    async def begin(
        *, keys: tuple[str, ...] = (DEFAULT_KEY,), **options: object
    ) -> House:
        standin = StandIn(keys=keys, **options)  # type: ignore[arg-type]
        base_url = await nursery.start(standin.serve)
        client = httpx.AsyncClient(
            base_url=base_url,
            headers={"Authorization": keys[0]},
            timeout=100,
            trust_env=False,
            transport=_Transport(verify=False),
        )
        clients.append(client)
        return House(standin, client)

    yield begin
    for client in clients:
        await client.aclose()
