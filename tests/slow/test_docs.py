"""The commands of the pages, typed into a shell beside a service that runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from audiohook.settings import load
from tests.documents import ROOT, Block, all_blocks, blocks
from tests.house import KEY
from tests.slow.processes import Server, Site
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.slow

OURS = str(Path(sys.executable).parent)
# A call of that conversation is in all examples of docs/api.md.
CONVERSATION = "9d3c1b52-7c0a-4f0e-8f0e-2f4a6c1d9b11"
OUTSIDE = "https://audiohook.example.com"
ANSWER_SECONDS = 20.0


async def shell(site: Site, text: str, **environment: str) -> str:
    """Types a command; what it prints.

    Raises:
        subprocess.CalledProcessError: It failed, or was answered with an error.
    """
    path = f"{OURS}:{os.environ['PATH']}"
    # Silent, and with an exit code for an answer that is an error.
    curl = 'curl() { command curl -sS --fail-with-body "$@"; }'
    with trio.fail_after(ANSWER_SECONDS):
        done = await trio.run_process(
            ["bash", "-euo", "pipefail", "-c", f"{curl}\n{text}"],
            cwd=site.work,
            env=site.environment() | {"PATH": path} | environment,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    assert done.returncode == 0, (text, done.stdout, done.stderr)
    return done.stdout.decode()


def shown_keys(block: Block, command: str) -> set[str]:
    """Returns the first key of each answer that the page shows below a command."""
    first = command.split()[-1].strip('"').rpartition("/")[2]
    below = block.text[block.text.index(first) :]
    answer = re.search(r'\n\n\{"(\w+)"', below)
    return {answer[1]} if answer else set()


class Desk:
    """Somebody who goes through the pages with a service of their own."""

    def __init__(self, site: Site, server: Server, token: str) -> None:
        self.site = site
        self.server = server
        self.names = {
            "T": token,
            "B": f"{server.admin_uri}/api/v1",
            "NAME": "",
        }

    async def type(self, block: Block, command: str) -> None:
        text = command.replace(OUTSIDE, f"http://127.0.0.1:{self.server.port}")
        text = text.replace("http://127.0.0.1:9090", self.server.admin_uri)
        printed = await shell(self.site, text, **self.names)
        keys = shown_keys(block, command)
        if keys and printed.lstrip().startswith("{"):
            answer: dict[str, Any] = json.loads(printed)
            assert keys <= answer.keys(), text


def curls() -> list[tuple[Block, str]]:
    return [
        (block, command)
        for block in all_blocks()
        for command in block.commands()
        if command.startswith("curl ")
    ]


def phase_of(command: str) -> int:
    """Orders what is asked: while the call lasts, to end it, of the recording, erasing."""
    if re.search(r"/(live|pause|resume)\b", command):
        return 0
    if re.search(r'/end"?$', command):
        return 1
    return 3 if "DELETE" in command else 2


@asynccontextmanager
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    tokens = tmp_path / "tokens.json"
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site", {"API_TOKENS_FILE": str(tokens)})
    # As docs/api.md says, with the right to all that any page asks for.
    said = await shell(
        site, "audiohook token crm --scope read --scope control --scope erase"
    )
    (token,) = re.findall(r"^\s+(ah_\S+)$", said, re.MULTILINE)
    (entry,) = re.findall(r'^\s+("crm": \{.*\})$', said, re.MULTILINE)
    tokens.write_text(f"{{{entry}}}")
    tokens.chmod(0o600)
    async with site.serve() as server:
        yield Desk(site, server, token)


async def test_requests_of_the_pages_are_answered_as_they_show(tmp_path: Path) -> None:
    found = curls()
    assert len(found) >= 8
    async with desk(tmp_path) as at, trio.open_nursery() as nursery:
        call = (
            f"audiohook call ws://127.0.0.1:{at.server.port}/ --api-key {KEY}"
            f" --conversation {CONVERSATION} --duration 60 || true"
        )
        nursery.start_soon(shell, at.site, call)
        await wait_until(lambda: bool(at.server.lines("call_opened")), ANSWER_SECONDS)
        # Some audio, so that there is a recording to be asked for.
        await trio.sleep(2)
        for phase in range(4):
            for block, command in found:
                if phase_of(command) == phase:
                    await at.type(block, command)
            if phase == 1:
                await at.site.wait_stored()
                (folder,) = (at.site.recordings / "calls").glob("*")
                at.names["NAME"] = folder.name
                await wait_until(lambda: bool(at.server.lines("call_ended")), 10)


async def test_key_and_secret_of_the_page_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    page = ROOT / "docs" / "genesys.md"
    (block,) = [each for each in blocks(page) if "openssl rand" in each.text]
    printed = await shell(Site(tmp_path / "site"), block.text)
    for name in ("API_KEY", "CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".env").write_text(printed)
    assert load(env_file=tmp_path / ".env").client_secret is not None


async def test_missed_transcripts_are_made_as_the_page_says(tmp_path: Path) -> None:
    page = ROOT / "docs" / "assemblyai.md"
    (command,) = [
        command
        for block in blocks(page)
        for command in block.commands()
        if command.startswith("grep ")
    ]
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site")
    async with site.serve() as server:
        uri = f"ws://127.0.0.1:{server.port}/"
        await shell(site, f"audiohook call {uri} --api-key {KEY} --fast")
        await site.wait_stored()
    # The day of the example is not that of the call.
    command = "cd .. && " + re.sub(r"calls/\d{4}-\d\d-\d\dT\*", "calls/*", command)
    async with site.run(
        "stand-in",
        "-m",
        "audiohook",
        "stand-in",
        "--port",
        "0",
        "--key",
        "k" * 32,
        "--seconds-a-job",
        "0",
    ) as stand_in:
        await wait_until(lambda: "http://" in stand_in.log.read_text(), ANSWER_SECONDS)
        (base,) = re.findall(r"http://[\d.:]+", stand_in.log.read_text())[:1]
        await shell(
            site, command, ASSEMBLYAI_API_KEY="k" * 32, ASSEMBLYAI_BASE_URL=base
        )
    ((recording,),) = site.stored().values()
    assert [each.suffix for each in sorted(recording.folder.glob("transcripts/*"))] == [
        ".json",
        ".srt",
        ".txt",
        ".vtt",
    ]


def test_every_tool_that_is_typed_here_is_installed() -> None:
    assert [
        name for name in ("curl", "openssl", "bash") if not shutil.which(name)
    ] == []
    subprocess.run(["curl", "--version"], check=True, capture_output=True)
