from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from audiohook.errors import ReceiverError
from audiohook.notify import receiver as receiver_module
from audiohook.notify.letter import Letter
from audiohook.notify.receiver import Receiver, make_client
from audiohook.setting_values import decode_notify_secrets
from tests.notify.reader import OTHER_SECRET, SECRET, verify
from tests.transcription.scripted_server import (
    NOTHING,
    RESET,
    SILENCE,
    Answer,
    ScriptedServer,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LETTER = Letter("id-1", "a", "stored", "a", b'{"a":1}')


@asynccontextmanager
async def receiving(
    answer: Answer, *secrets: str
) -> AsyncIterator[tuple[Receiver, ScriptedServer]]:
    server = ScriptedServer(lambda _: answer)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        async with make_client(server.url, connections=2) as http:
            found = decode_notify_secrets(",".join(secrets or (SECRET,)))
            yield (
                Receiver(f"{server.url}/hook?a=b", found, http, clock=time.time),
                server,
            )
        nursery.cancel_scope.cancel()


async def refused(answer: Answer) -> ReceiverError:
    async with receiving(answer) as (receiver, _):
        with pytest.raises(ReceiverError) as found:
            await receiver.take(LETTER)
    return found.value


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_any_success_counts_and_the_request_can_be_verified(status: int) -> None:
    async with receiving(Answer(status), SECRET, OTHER_SECRET) as (receiver, server):
        await receiver.take(LETTER)
        await receiver.take(LETTER)
    for heard in server.heard:
        assert (heard.method, heard.target) == ("POST", "/hook?a=b")
        assert heard.body == LETTER.body
        assert heard.headers["content-type"].startswith("application/cloudevents+json")
        verify(heard)
        verify(heard, OTHER_SECRET)
    assert server.connections == 1


@pytest.mark.parametrize(
    ("status", "is_common", "lasting", "gone"),
    [
        (400, False, False, False),
        (401, True, True, False),
        (404, True, True, False),
        (410, True, True, True),
        (422, False, False, False),
        (429, True, False, False),
        (500, True, False, False),
        (503, True, False, False),
    ],
)
async def test_refusals_tell_whose_fault_it_is(
    status: int, is_common: bool, lasting: bool, gone: bool
) -> None:
    error = await refused(Answer(status, b"<html>secret</html>"))
    assert (error.is_common, error.lasting, error.gone) == (is_common, lasting, gone)
    assert str(status) in str(error)
    assert "secret" not in str(error)


async def test_redirects_are_not_followed() -> None:
    elsewhere = ScriptedServer(lambda _: Answer())
    async with trio.open_nursery() as nursery:
        await nursery.start(elsewhere.serve)
        error = await refused(Answer(307, headers=(("Location", elsewhere.url),)))
        nursery.cancel_scope.cancel()
    assert error.lasting
    assert "redirects are not followed" in str(error)
    assert elsewhere.heard == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        ("99999", 3600.0),
        ("1" * 400, None),
        ("soon", None),
        ("-5", None),
    ],
)
async def test_receiver_may_say_when_to_come_again(
    text: str, seconds: float | None
) -> None:
    answer = Answer(503, headers=(("Retry-After", text),))
    assert (await refused(answer)).retry_after == seconds


@pytest.mark.parametrize("answer", [NOTHING, RESET, Answer(200, b"x" * 99, keep=10)])
async def test_answer_that_breaks_off_is_none(answer: Answer) -> None:
    error = await refused(answer)
    assert error.is_common
    assert "127.0.0.1" in str(error)
    assert "hook" not in str(error)


async def test_success_with_a_body_that_never_ends_counts_and_is_not_read() -> None:
    answer = Answer(200, b"x" * 5_000_000)
    async with receiving(answer) as (receiver, server):
        await receiver.take(LETTER)
        await receiver.take(LETTER)
    assert server.connections == 2


async def test_receiver_that_says_nothing_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(receiver_module, "_REQUEST", 0.2)
    assert "too long" in str(await refused(SILENCE))


async def test_nobody_there_is_the_receivers_fault() -> None:
    async with make_client("http://127.0.0.1:1/", connections=1) as http:
        nobody = Receiver("http://127.0.0.1:1/", [b"x" * 24], http, clock=time.time)
        with pytest.raises(ReceiverError, match="cannot be reached") as found:
            await nobody.take(LETTER)
    assert found.value.is_common
