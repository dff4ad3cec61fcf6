"""The commands of the pages, typed into a shell beside a service that runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from audiohook.settings import load
from tests.documents import shown, typed
from tests.house import KEY
from tests.printed import assert_alike, assert_printed, read_shown
from tests.slow.desk import ANSWER_SECONDS, Desk, below, report_missed, shell
from tests.slow.processes import Site
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.documents import Block

pytestmark = pytest.mark.slow

# The conversations of all examples in docs/api.md.
CONVERSATION = "9d3c1b52-7c0a-4f0e-8f0e-2f4a6c1d9b11"
ERASED = "4d029331-a63c-4ec1-9132-bd3b294f2331"
MISSED = "34c18827-77a6-4970-ad66-6f2966c85bad"


async def ask(at: Desk, block: Block, number: int = 0) -> Any:  # noqa: ANN401 - JSON
    """Types one of the requests of a block, whose answer is to be as it shows it."""
    printed = await at.type(block.commands()[number])
    real = json.loads(printed) if printed else None
    if answer := below(block)[number]:
        assert_alike(read_shown(answer), real)
    return real


async def call(at: Desk, conversation: str, *options: str) -> None:
    uri = f"ws://127.0.0.1:{at.server.port}/"
    words = ("call", uri, "--api-key", KEY, "--conversation", conversation, *options)
    done = await at.site.command(*words)
    assert b"the server kept to the protocol" in done.stdout, done


def is_gone(folder: Path) -> bool:
    return not folder.exists()


async def wait_stored(at: Desk) -> str:
    """Waits until no call is left in the spool; the name of the newest recording."""
    await at.site.wait_stored()
    return max(path.name for path in (at.site.recordings / "calls").iterdir())


@asynccontextmanager
async def desk(tmp_path: Path, token: Block) -> AsyncIterator[Desk]:
    """Has a service with an API, and the token of the page, with further rights."""
    tokens = tmp_path / "tokens.json"
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site", {"API_TOKENS_FILE": str(tokens)})
    (command,) = token.commands()
    said = await shell(site, command)
    assert_printed(below(token)[0], said)
    said = await shell(site, f"{command} --scope erase --scope report")
    (secret,) = re.findall(r"^\s+(ah_\S+)$", said, re.MULTILINE)
    (entry,) = re.findall(r'^\s+("crm": \{.*\})$', said, re.MULTILINE)
    tokens.write_text(f"{{{entry}}}")
    tokens.chmod(0o600)
    (of_the_page,) = re.findall(r"ah_\S+", token.text)
    async with site.serve() as server:
        yield Desk(site, server, {"NAME": ""}, {of_the_page: secret})


async def test_page_of_the_api_is_true_word_for_word(tmp_path: Path) -> None:
    token = typed("docs/api.md", "audiohook token crm")
    async with desk(tmp_path, token) as at, trio.open_nursery() as nursery:
        openapi = typed("docs/api.md", "curl http://127.0.0.1:9090/api/v1/openapi")
        assert (await ask(at, openapi))["openapi"]
        at.first = typed("docs/api.md", "T=").text

        nursery.start_soon(call, at, CONVERSATION, "--duration", "60")
        await wait_until(
            lambda: any(
                path.stat().st_size
                for path in at.site.recordings.glob(".spool/*/audio.ulaw")
            ),
            ANSWER_SECONDS,
        )
        hold = typed(
            "docs/api.md", 'curl -X POST -H "Authorization: Bearer $T" -H "Content-Type'
        )
        await ask(at, hold, 0)
        await ask(
            at, typed("docs/api.md", 'curl -H "Authorization: Bearer $T" "$B/live')
        )
        await ask(at, hold, 1)
        end = typed(
            "docs/api.md", 'curl -X POST -H "Authorization: Bearer $T" "$B/calls'
        )
        await ask(at, end)
        name = at.names["NAME"] = await wait_stored(at)
        facts = json.loads(
            (at.site.recordings / "calls" / name / "call.json").read_text()
        )
        fragment = read_shown(shown("docs/api.md", '"gaps"').text)
        assert_alike(fragment, {each: facts[each] for each in fragment})
        await wait_until(lambda: bool(at.server.lines("call_ended")), ANSWER_SECONDS)

        await ask(
            at,
            typed(
                "docs/api.md",
                'curl -H "Authorization: Bearer $T" "$B/calls?conversation=',
            ),
        )
        await ask(
            at, typed("docs/api.md", 'curl -H "Authorization: Bearer $T" "$B/calls/9')
        )
        part = typed("docs/api.md", 'curl -H "Authorization: Bearer $T" -H "Range')
        assert_headers(below(part)[0], await at.type(part.commands()[0]))
        assert (at.site.work / "head.wav").read_bytes().startswith(b"RIFF")
        # The call is over, so it cannot be ended once more.
        refused = shown("docs/api.md", "HTTP/1.1 409")
        (command,) = end.commands()
        told = await at.type(command, instead={"curl": "command curl -sS -i"})
        head, body = told.split("\r\n\r\n")
        shown_head, shown_body = refused.text.split("\n\n")
        assert_headers(shown_head, head)
        assert json.loads(body) == json.loads(shown_body)

        day = await report_missed(at, MISSED)
        told = await at.type(
            f'curl -H "Authorization: Bearer $T" "$B/missed?day={day}"'
        )
        missed = shown("docs/api.md", '{"day"')
        assert_alike(read_shown(missed.text), json.loads(told))
        assert json.loads(told)["missed"] == [MISSED]

        # Twice, since what is erased by the one request is not there for the other.
        for erase in (
            typed("docs/api.md", "curl -X DELETE"),
            typed("docs/erase.md", "curl -X DELETE"),
        ):
            await call(at, ERASED, "--fast")
            name = await wait_stored(at)
            assert ERASED in name
            order = await ask(at, erase)
            answer = (
                f'curl -H "Authorization: Bearer $T" "$B/erasures/{order["reference"]}"'
            )
            folder = at.site.recordings / "calls" / name
            await wait_until(partial(is_gone, folder), ANSWER_SECONDS)
            assert json.loads(await at.type(answer))["reference"] == order["reference"]


def assert_headers(shown: str, printed: str) -> None:
    """Checks that there are headers as the page shows them, with such values."""
    printed = re.sub(r"\betag: .*", "etag: …", printed)
    assert_printed(re.sub(r"etag: .*", "etag: …", shown), printed)


async def test_key_and_secret_of_the_page_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    block = typed("docs/genesys.md", "API_KEY=$(")
    printed = await shell(Site(tmp_path / "site"), block.text)
    for name in ("API_KEY", "CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".env").write_text(printed)
    assert load(env_file=tmp_path / ".env").client_secret is not None


def test_every_tool_that_is_typed_here_is_installed() -> None:
    assert [
        name for name in ("curl", "openssl", "bash") if not shutil.which(name)
    ] == []
    subprocess.run(["curl", "--version"], check=True, capture_output=True)
