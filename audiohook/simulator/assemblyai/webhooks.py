"""Telling a customer's server that a job has ended."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from audiohook.simulator.assemblyai.account import Job

SECONDS = 1.0

# As the service's documentation says.
TRIES = 10
PAUSE = 10 * SECONDS
PATIENCE = 10 * SECONDS


async def notify(
    client: httpx.AsyncClient, job: Job, body: Mapping[str, object]
) -> bool:
    """Sends a webhook until it is taken, or hopeless.

    A status of 4xx ends the tries; anything else than 2xx within ten seconds
    leads to the next, up to ten.

    Args:
        client: What to send it with.
        job: It names the receiver, and keeps the status of the last answer.
        body: What to say.

    Returns:
        Whether it was taken.
    """
    headers = {}
    if name := job.parameters.get("webhook_auth_header_name"):
        headers[name] = job.parameters.get("webhook_auth_header_value") or ""
    for number in range(TRIES):
        if number:
            await trio.sleep(PAUSE)
        status = await _post(client, job.parameters["webhook_url"], body, headers)
        if status is None:
            continue
        job.webhook_status = status
        if httpx.codes.is_success(status):
            return True
        if httpx.codes.is_client_error(status):
            return False
    return False


async def _post(
    client: httpx.AsyncClient,
    url: str,
    body: Mapping[str, object],
    headers: Mapping[str, str],
) -> int | None:
    """Sends it once; None if there was no answer."""
    data = json.dumps(body).encode()
    try:
        request = client.build_request(
            "POST",
            url,
            headers={
                "Content-Type": "application/json",
                "Content-Length": str(len(data)),
                **headers,
            },
        )
        request.stream = Body(data)
        with trio.fail_after(PATIENCE):
            response = await client.send(request)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, trio.TooSlowError):
        return None
    return response.status_code


class Body(httpx.AsyncByteStream):
    """The body of one request.

    The one that comes with httpx is a generator, which is left to the garbage
    collector, with a warning, when the connection breaks while it is sent.
    """

    def __init__(self, data: bytes) -> None:
        self._chunks = [data]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._chunks:
            raise StopAsyncIteration
        return self._chunks.pop()
