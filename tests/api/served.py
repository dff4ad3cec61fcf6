"""A service with an API, and who asks it."""

from __future__ import annotations

import hashlib
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import jsonschema
import trio

from tests.house import House, house

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

READER, CONTROLLER, ERASER = "ah_reader", "ah_controller", "ah_eraser"
REPORTER = "ah_reporter"
SCOPES = {
    READER: ["read"],
    CONTROLLER: ["control", "read"],
    ERASER: ["erase"],
    REPORTER: ["report"],
}


def write_tokens(path: Path, tokens: dict[str, list[str]] | None = None) -> Path:
    """Writes a file of tokens; each is named after its last word."""
    known = SCOPES if tokens is None else tokens
    entries = {
        token.removeprefix("ah_"): {
            "sha256": hashlib.sha256(token.encode()).hexdigest(),
            "scopes": scopes,
        }
        for token, scopes in known.items()
    }
    path.write_text(json.dumps(entries))
    return path


class Api:
    """The API of a service, asked with a token.

    Each answer is held against the document that the service gives out.
    """

    def __init__(self, house: House, client: httpx.AsyncClient) -> None:
        self.house = house
        self.client = client
        self.document: dict[str, Any] = {}

    async def load(self) -> None:
        answer = await self.client.get("/api/v1/openapi.json")
        assert answer.status_code == 200
        self.document = answer.json()

    async def ask(
        self,
        method: str,
        path: str,
        *,
        token: str = CONTROLLER,
        **more: Any,  # noqa: ANN401 - httpx
    ) -> httpx.Response:
        headers = {"authorization": f"Bearer {token}", **more.pop("headers", {})}
        if not token:
            del headers["authorization"]
        answer = await self.client.request(
            method, f"/api/v1{path}", headers=headers, **more
        )
        self.check(method, path, answer)
        return answer

    def check(self, method: str, path: str, answer: httpx.Response) -> None:
        """Holds an answer against the document."""
        operation = self.operation(method, path)
        if operation is None:
            assert answer.status_code in (404, 405), answer.text
            assert answer.headers["content-type"] == "application/problem+json"
            return
        response = operation["responses"][str(answer.status_code)]
        content = response.get("content")
        if content is None:
            return
        kind = answer.headers["content-type"].partition(";")[0]
        schema = content[kind]["schema"]
        if "json" in kind and method != "HEAD" and "$ref" in schema:
            whole = {**schema, "components": self.document["components"]}
            jsonschema.Draft202012Validator(whole).validate(answer.json())

    def operation(self, method: str, path: str) -> dict[str, Any] | None:
        given = path.partition("?")[0].split("/")
        for template, methods in self.document["paths"].items():
            parts = template.split("/")
            if len(parts) == len(given) and all(
                one.startswith("{") or one == other
                for one, other in zip(parts, given, strict=True)
            ):
                return methods.get(method.lower())  # type: ignore[no-any-return]
        return None

    async def get(self, path: str, **more: Any) -> httpx.Response:  # noqa: ANN401 - httpx
        return await self.ask("GET", path, **more)

    async def post(self, path: str, **more: Any) -> httpx.Response:  # noqa: ANN401 - httpx
        return await self.ask("POST", path, **more)

    async def wait_indexed(self, recordings: int) -> list[dict[str, Any]]:
        """Waits until so many recordings are found."""
        with trio.fail_after(20):
            while True:
                found: list[dict[str, Any]] = (await self.get("/calls")).json()[
                    "recordings"
                ]
                if len(found) >= recordings:
                    return found
                await trio.sleep(0.05)


@asynccontextmanager
async def api_of(folder: Path, **flags: object) -> AsyncIterator[Api]:
    """Runs a service with an API while the block lasts."""
    flags.setdefault("api_tokens_file", write_tokens(folder / "tokens.json"))
    async with house(folder / "recordings", **flags) as it:  # type: ignore[arg-type]
        base = f"http://127.0.0.1:{it.service.admin_port}"
        async with httpx.AsyncClient(base_url=base) as client:
            api = Api(it, client)
            await api.load()
            yield api
