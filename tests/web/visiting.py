"""A browser's requests to the page, without a browser."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx

from tests.house import House, house

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PASSWORD = "a long enough password"
SAME_ORIGIN = {"sec-fetch-site": "same-origin"}


class Page:
    """The page of a running service, as somebody with a browser has it."""

    def __init__(self, house: House, client: httpx.AsyncClient) -> None:
        self.house = house
        self.client = client

    async def get(self, path: str, **more: str) -> httpx.Response:
        return await self.client.get(path, headers=more)

    async def post(
        self, path: str, fields: dict[str, str], headers: dict[str, str] | None = None
    ) -> httpx.Response:
        return await self.client.post(path, data=fields, headers=headers or SAME_ORIGIN)

    async def token(self, path: str = "/login") -> str:
        """Returns what the forms of a page carry."""
        found = re.search(r'name="token" value="([0-9a-f]{64})"', await self.text(path))
        assert found is not None
        return found[1]

    async def text(self, path: str) -> str:
        answer = await self.get(path)
        assert answer.status_code == 200, answer.text
        return answer.text

    async def log_in(self, password: str = PASSWORD, goal: str = "/") -> httpx.Response:
        fields = {"token": await self.token(), "password": password, "next": goal}
        return await self.post("/login", fields)


@asynccontextmanager
async def page_of(folder: Path, **flags: object) -> AsyncIterator[Page]:
    """Runs a service while the block lasts."""
    async with house(folder, **flags) as it:  # type: ignore[arg-type]
        base = f"http://127.0.0.1:{it.service.admin_port}"
        async with httpx.AsyncClient(base_url=base) as client:
            yield Page(it, client)
