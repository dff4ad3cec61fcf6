"""Somebody at a shell who types what the pages say, beside a service of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tests.documents import Block
    from tests.slow.processes import Server, Site

OURS = str(Path(sys.executable).parent)
ANSWER_SECONDS = 60.0
# What the pages call a service that was started without further settings.
PORT = "127.0.0.1:3000"
ADMIN_PORT = "127.0.0.1:9090"
NAME = "https://audiohook.example.com"


def _typing(site: Site, text: str) -> list[str]:
    # Silent, and with an exit code for an answer that is an error.
    curl = 'curl() { command curl -sS --fail-with-body "$@"; }'
    return [*site.prefix, "bash", "-euo", "pipefail", "-c", f"{curl}\n{text}"]


def _environment(site: Site, environment: Mapping[str, str] | None) -> dict[str, str]:
    path = f"{OURS}:{os.environ['PATH']}:/usr/sbin"
    return {**site.environment(), "PATH": path, **(environment or {})}


async def shell(
    site: Site,
    text: str,
    *,
    code: int = 0,
    answers: str = "",
    seconds: float = ANSWER_SECONDS,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Types a command in the folder that a site works in; what it prints.

    Args:
        site: The machine.
        text: What is typed.
        code: What it has to end with.
        answers: What it is answered when it asks.
        seconds: How long it may take.
        environment: Besides that of the site.
    """
    with trio.fail_after(seconds):
        done = await trio.run_process(
            _typing(site, text),
            cwd=site.work,
            # Without a terminal, so that what asks for a passphrase reads its answer.
            start_new_session=True,
            env=_environment(site, environment),
            stdin=answers.encode(),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    assert done.returncode == code, (text, done.stdout.decode(), done.stderr.decode())
    return done.stdout.decode()


@asynccontextmanager
async def going_on(
    site: Site, text: str, *, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Path]:
    """Types a command that goes on while the block lasts, and is killed then.

    Args:
        site: The machine.
        text: What is typed.
        environment: Besides that of the site.

    Yields:
        The file that it prints into.
    """
    with TemporaryDirectory(dir=site.base) as folder:
        with (printed := Path(folder) / "printed").open("wb") as stream:
            process = await trio.lowlevel.open_process(
                _typing(site, text),
                cwd=site.work,
                start_new_session=True,
                env=_environment(site, environment),
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=stream,
            )
        try:
            yield printed
        finally:
            # With whatever it has started.
            os.killpg(process.pid, signal.SIGKILL)
            with trio.CancelScope(shield=True):
                await process.wait()


def below(block: Block) -> list[str]:
    """Returns what a page shows below each command of a block."""
    joined = re.sub(r"\s*\\\n\s*", " ", block.text)
    parts = re.split("|".join(map(re.escape, block.all_commands())), joined)
    return [part.strip("\n") for part in parts[1:]]


@dataclass(slots=True)
class Desk:
    """Whoever has a service, and goes through the pages with it.

    Attributes:
        site: The machine.
        server: The service.
        names: Variables of the shell.
        first: What is typed in each shell before all else.
        instead: What is typed in place of what the page says.
    """

    site: Site
    server: Server
    names: dict[str, str] = field(default_factory=dict)
    instead: dict[str, str] = field(default_factory=dict)
    first: str = ""

    async def type(
        self,
        text: str,
        *,
        code: int = 0,
        answers: str = "",
        instead: Mapping[str, str] | None = None,
    ) -> str:
        """Types a command, with the ports and names of this service in it.

        Args:
            text: As the page has it.
            code: What it has to end with.
            answers: What it is answered when it asks.
            instead: What is typed in place of what this page says; each has to be
                in it.
        """
        for old, new in (instead or {}).items():
            assert old in text, (old, text)
            text = text.replace(old, new)
        text = f"{self.first}\n{text}"
        places = {
            NAME: f"http://127.0.0.1:{self.server.port}",
            PORT: f"127.0.0.1:{self.server.port}",
            f"http://{ADMIN_PORT}": self.server.admin_uri,
            **self.instead,
        }
        for old, new in places.items():
            text = text.replace(old, new)
        return await shell(
            self.site, text, code=code, answers=answers, environment=self.names
        )


async def report_missed(at: Desk, conversation: str) -> str:
    """Hands in an event of Genesys about a conversation, with a token in ``$T``; its day."""
    when = datetime.now(UTC) - timedelta(hours=1)
    event = {
        "eventEntity": {"id": "AUDIOHOOK-0006", "description": "No answer."},
        "conversationId": conversation,
        "timestamp": f"{when:%Y-%m-%dT%H:%M:%SZ}",
    }
    told = await at.type(
        'curl -X POST -H "Authorization: Bearer $T" -H "Content-Type: application/json"'
        f" -d '{json.dumps(event)}' \"$B/genesys/events\""
    )
    assert json.loads(told)["taken"] == 1, told
    return f"{when:%Y-%m-%d}"
