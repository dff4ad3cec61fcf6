from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
import trio

from audiohook.notify.database import Database
from audiohook.notify.letter import Letter, Settlement, Standing
from tests.notify.reader import SECRET
from tests.notify.test_telling import Ear, telling
from tests.test_cli import run
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

LONG = "57aa0600-6d94-58e1-89a9-0f8abf5f3f09"
DEAD = (LONG, "dead-2")


def prepare(recordings: Path) -> None:
    """Puts into an outbox what was given up, and one that waits."""
    database = Database(recordings / ".spool" / ".notify")
    letters = [
        Letter(each, each, "stored", each, b"{}", since=1.0)
        for each in (*DEAD, "waiting")
    ]
    database.change(letters, [])
    settled = [
        Settlement(each, Standing.DEAD, "answered [500]", time.time()) for each in DEAD
    ]
    database.change([], settled)
    database.close()


def test_what_did_not_arrive_is_listed(tmp_path: Path) -> None:
    prepare(tmp_path / "recordings")
    known = {"NOTIFY_URL": "http://127.0.0.1:1/", "NOTIFY_SECRET": SECRET}
    # Ids are typed again, so they are whole on a terminal of the usual width.
    shown = run(tmp_path, "notify", "--list", COLUMNS="80", **known)
    assert shown.returncode == 0
    assert f"{LONG}  stored  conversation {LONG}  dead since 1970-01-01" in shown.stdout
    assert "1 wait, 2 were given up" in shown.stdout
    assert "answered [500]" in shown.stdout
    lines = run(tmp_path, "notify", "--list", "--json", **known).stdout.splitlines()
    found = [json.loads(line) for line in lines]
    assert [each["id"] for each in found] == [*DEAD, "waiting"]
    assert found[0]["since"] == "1970-01-01T00:00:01.000Z"


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "text"),
    [
        (["--list"], {}, 2, "NOTIFY_URL: is not set"),
        ([], {}, 2, "either --list or --resend"),
        (["--list", "--resend"], {}, 2, "either --list or --resend"),
        (["--resend"], {}, 2, "needs ids"),
        (["--resend", "--all", "x"], {}, 2, "needs ids"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path,
    arguments: list[str],
    environment: dict[str, str],
    code: int,
    text: str,
) -> None:
    done = run(tmp_path, "notify", *arguments, **environment)
    assert done.returncode == code
    assert text in done.stderr


async def test_command_sends_by_itself_where_no_service_runs(tmp_path: Path) -> None:
    ear = Ear()
    prepare(tmp_path / "recordings")
    async with trio.open_nursery() as nursery:
        await nursery.start(ear.server.serve)

        async def resend(*arguments: str) -> tuple[int, str]:
            done = await trio.to_thread.run_sync(
                lambda: run(
                    tmp_path,
                    "notify",
                    "--resend",
                    *arguments,
                    NOTIFY_URL=ear.server.url,
                    NOTIFY_SECRET=SECRET,
                )
            )
            return done.returncode, done.stdout + done.stderr

        code, text = await resend(LONG, "nobody")
        assert code == 1
        assert "nobody: neither waits nor was given up" in text
        assert "1 sent, 0 wait" in text
        # The one that waited goes with it.
        sent = {each.headers["webhook-id"] for each in ear.server.heard}
        assert sent == {LONG, "waiting"}
        code, text = await resend("--all")
        assert (code, ear.server.heard[-1].headers["webhook-id"]) == (0, "dead-2")
        code, text = await resend("--all")
        assert code == 0
        nursery.cancel_scope.cancel()
    assert len(ear.server.heard) == 3


async def test_service_that_runs_sends_what_the_command_gives_it(
    tmp_path: Path,
) -> None:
    ear = Ear()
    recordings = tmp_path / "recordings"
    prepare(recordings)
    async with telling(recordings, ear):
        await wait_until(lambda: len(ear.server.heard) == 1)
        done = await trio.to_thread.run_sync(
            lambda: run(
                tmp_path,
                "notify",
                "--resend",
                "--all",
                NOTIFY_URL=ear.server.url,
                NOTIFY_SECRET=SECRET,
            )
        )
        assert (done.returncode, done.stdout) == (
            0,
            "2 handed to the service that runs\n",
        )
        await wait_until(lambda: len(ear.server.heard) == 3)
