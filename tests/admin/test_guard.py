from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from starlette.responses import PlainTextResponse

from audiohook.admin.guard import Guard, hosts_for
from tests.admin.watched import client_of

if TYPE_CHECKING:
    from collections.abc import Collection

LONGEST = 100


def guarded(hosts: Collection[str] | None) -> Guard:
    return Guard(PlainTextResponse("in"), hosts=hosts, longest_body=LONGEST)


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ("LocalHost", {"localhost", "127.0.0.1", "::1"}),
        ("127.8.9.1", {"localhost", "127.0.0.1", "::1", "127.8.9.1"}),
        ("0.0.0.0", None),
        ("10.0.0.1", None),
    ],
)
def test_names_are_known_where_only_this_machine_asks(
    host: str, names: set[str] | None
) -> None:
    assert hosts_for(host) == names


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:9090", 200),
        ("127.0.0.1", 200),
        ("127.0.0.1:1", 200),
        ("127.0.0.2:9090", 200),
        ("[::1]", 200),
        ("[::1]:9090", 200),
        ("", 200),
        ("evil.example", 421),
        ("evil.example:9090", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example:9090", 421),
        ("127.0.0.3", 421),
        ("[::1", 200),
        ("[evil.example]", 421),
        (":9090", 421),
        ("\xff", 421),
    ],
)
async def test_port_on_loopback_answers_to_its_names_only(
    host: str, status: int
) -> None:
    async with client_of(guarded(hosts_for("127.0.0.2"))) as client:
        answer = await client.get("/", headers=[(b"host", host.encode("latin-1"))])
        assert answer.status_code == status


async def test_port_elsewhere_answers_to_any_name() -> None:
    async with client_of(guarded(hosts_for("0.0.0.0"))) as client:
        answer = await client.get("/", headers={"host": "metrics.example:80"})
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"content-length": "0"}, 200),
        ({"content-length": str(LONGEST)}, 200),
        ({"content-length": str(LONGEST + 1)}, 413),
        ({"content-length": "9" * 5000}, 413),
        ({"content-length": "-1"}, 413),
        ({"content-length": "x"}, 413),
        ({"transfer-encoding": "chunked"}, 411),
    ],
)
async def test_body_is_short_and_says_so(headers: dict[str, str], status: int) -> None:
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
    }
    answer = await ask(guarded(None), scope)
    assert answer[0]["status"] == status
    closes = (b"connection", b"close") in answer[0]["headers"]
    assert closes == (status != 200)


async def test_websocket_with_a_wrong_host_is_refused() -> None:
    scope = {"type": "websocket", "path": "/", "headers": [(b"host", b"evil.example")]}
    first, *_ = await ask(guarded({"localhost"}), scope)
    assert (first["type"], first["status"]) == ("websocket.http.response.start", 421)


async def test_start_and_stop_of_the_application_go_through() -> None:
    seen = []

    async def app(scope: Any, receive: object, send: object) -> None:  # noqa: ANN401
        seen.append(scope["type"])

    await ask(Guard(app, hosts={"localhost"}), {"type": "lifespan"})
    assert seen == ["lifespan"]


async def test_headers_of_an_answer_are_added_and_not_replaced() -> None:
    page = PlainTextResponse("x", headers={"cache-control": "max-age=60"})
    async with client_of(Guard(page, hosts=None)) as client:
        headers = (await client.get("/")).headers
    assert headers["cache-control"] == "max-age=60"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"


async def ask(app: Guard, scope: dict[str, Any]) -> list[Any]:
    """Returns what an application sends."""
    sent = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:  # noqa: ANN401
        sent.append(message)

    await app(scope, receive, send)
    return sent
