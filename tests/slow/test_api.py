"""The API of a real process against its own document, by Schemathesis.

Two runs: one in which everything is made up, and one that is about a call that is
live and a recording that is there. AUDIOHOOK_API_SECONDS is how long both take
together; ten minutes are worth an evening.
"""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from audiohook.simulator.client import place_call
from audiohook.simulator.options import CallOptions
from tests.api.served import write_tokens
from tests.house import KEY
from tests.slow.processes import Site, tell
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.slow.processes import Server

pytestmark = pytest.mark.slow

SECONDS = int(os.environ.get("AUDIOHOOK_API_SECONDS", "20"))
# What Schemathesis needs to end what it has begun.
SLACK_SECONDS = 60
# Below the bound of a token, which would answer for everything else.
RATE = "45/s"
LIVE = str(uuid.UUID(int=0xA11CE, version=4))
ALL = "ah_all"
# A made-up id is of the right form, but nobody's: that is a good answer, as is that
# a call cannot be paused. What is to be erased is there until it is.
NOT_ASKED = "positive_data_acceptance,use_after_free"
# How a request may be refused that is not as the document has it: 413 as well, since
# what is beyond a bound of the document may be beyond that of a body, too.
REFUSED = (400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429)


async def examine(
    server: Server, folder: Path, seconds: int, parameters: dict[str, str]
) -> str:
    """Has Schemathesis look for faults; what it says of them."""
    port = admin_port(server)
    _write_parameters(folder, parameters)
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"http://127.0.0.1:{port}/api/v1/openapi.json",
        "--header",
        f"Authorization:Bearer {ALL}",
        "--checks=all",
        f"--exclude-checks={NOT_ASKED}",
        f"--max-time={seconds}",
        f"--rate-limit={RATE}",
        "--continue-on-failure",
        "--suppress-health-check=all",
        "--request-timeout=20",
        "--no-color",
    ]
    with trio.fail_after(seconds + SLACK_SECONDS):
        done = await trio.run_process(
            command, cwd=folder, capture_stdout=True, capture_stderr=True, check=False
        )
    text = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, text[-6000:]
    return text


def _write_parameters(folder: Path, parameters: dict[str, str]) -> None:
    folder.mkdir()
    lines = [f'"{name}" = "{value}"' for name, value in parameters.items()]
    refused = f"expected-statuses = {list(REFUSED)}"
    text = ["[parameters]", *lines, "[checks.negative_data_rejection]", refused, ""]
    (folder / "schemathesis.toml").write_text("\n".join(text))


def admin_port(server: Server) -> int:
    (line,) = server.lines("admin_listening")
    port: int = line["port"]
    return port


async def test_no_answer_that_the_document_does_not_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nursery: trio.Nursery
) -> None:
    site = Site(tmp_path)
    scopes = {ALL: ["read", "control", "erase", "report"]}
    tokens = write_tokens(tmp_path / "tokens.json", scopes)
    site.settings["API_TOKENS_FILE"] = str(tokens)
    async with site.serve() as server:
        call = CallOptions(uri=server.uri, api_key=KEY, duration=1.0, fast=True)
        assert (await place_call(call)).ok
        await site.wait_stored()
        ((recording,),) = site.stored().values()
        name = recording.folder.name
        first = await examine(server, tmp_path / "first", SECONDS // 2, {})

        async def keep_calling() -> None:
            # It is ended again and again.
            while True:
                options = CallOptions(
                    uri=server.uri,
                    api_key=KEY,
                    conversation_id=LIVE,
                    duration=3600.0,
                    frame_ms=20,
                )
                await place_call(options)

        async with trio.open_nursery() as calling:
            calling.start_soon(keep_calling)
            await wait_until(lambda: server.lines("call_opened")[1:])
            second = await examine(
                server,
                tmp_path / "second",
                SECONDS - SECONDS // 2,
                {
                    "path.conversation": LIVE,
                    "path.name": name,
                    "path.file": f"{name}.wav",
                },
            )
            calling.cancel_scope.cancel()
        controlled = server.lines("call_controlled")
        assert {line["action"] for line in controlled} >= {"pause", "resume", "end"}
        assert server.lines("api_failed") == []
        server.terminate()
        assert await server.wait() == 0
    for text in (first, second):
        tell(capsys, "\n".join(text.strip().splitlines()[-12:]))
