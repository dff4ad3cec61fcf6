"""The command for notifications that did not arrive."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated

import trio
import typer

from audiohook import settings
from audiohook.cli.app import DEFAULT_ENV_FILE, EnvFile, app, examples, start_log
from audiohook.errors import ConfigError
from audiohook.metrics import Metrics
from audiohook.notify.database import Database
from audiohook.notify.letter import Entry, Standing
from audiohook.notifying import make_notifying, outbox_folder
from audiohook.recording.journal import utc_text

if TYPE_CHECKING:
    from audiohook.settings import Settings

SECONDS = 1.0

_MOST_SHOWN = 1000
# How long the command waits for what it sends itself.
_PATIENCE = 60 * SECONDS


@app.command(
    epilog=examples("audiohook notify --list", "audiohook notify --resend --all")
)
def notify(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Notifications.")
    ] = None,
    *,
    show: Annotated[
        bool, typer.Option("--list", help="Show what waits, and what was given up.")
    ] = False,
    resend: Annotated[
        bool, typer.Option("--resend", help="Send those after all, and at once.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="With --resend: all that were given up.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --list: one JSON object a line.")
    ] = False,
    env_file: EnvFile = DEFAULT_ENV_FILE,
) -> None:
    """Show notifications that did not arrive, or have them sent after all.

    A service that runs sends them; otherwise this command does. Ends with 1 if
    some did not arrive, or are not there.
    """
    if show == resend:
        raise typer.BadParameter("either --list or --resend is needed")
    if resend and bool(ids) == everything:
        raise typer.BadParameter("--resend needs ids of notifications, or --all")
    chosen = settings.load(env_file=env_file)
    if chosen.notify_url is None:
        raise ConfigError(
            "NOTIFY_URL: is not set, so nobody is told anything; for example"
            " NOTIFY_URL=https://example.com/audiohook"
        )
    database = Database(outbox_folder(chosen))
    try:
        if show:
            _show(database, as_json=as_json)
            return
        found = database.resend(ids or None, time.time())
    finally:
        database.close()
    for missing in sorted(set(ids or ()) - found):
        typer.echo(f"{missing}: neither waits nor was given up", err=True)
    left = trio.run(_send, chosen) if found else 0
    if left is None:
        typer.echo(f"{len(found)} handed to the service that runs")
    else:
        typer.echo(f"{len(found) - min(left, len(found))} sent, {left} wait")
    sys.exit(1 if left or set(ids or ()) - found else 0)


def _show(database: Database, *, as_json: bool) -> None:
    entries = [
        entry
        for state in (Standing.DEAD, Standing.WAITING)
        for entry in database.entries(state, _MOST_SHOWN)
    ]
    if as_json:
        for entry in entries:
            typer.echo(json.dumps(_row(entry)))
        return
    counts = database.counts()
    for entry in entries:
        # Lines, and no table: whoever has one sent again needs its whole id, which a
        # terminal has no room for in a column.
        why = f": {entry.reason}" if entry.reason else ""
        typer.echo(
            f"{entry.id}  {entry.kind}  conversation {entry.conversation}  {entry.state}"
            f" since {utc_text(entry.since)}, {entry.tries} tries{why}"
        )
    typer.echo(f"{counts.waiting} wait, {counts.dead} were given up")


def _row(entry: Entry) -> dict[str, object]:
    return {
        "id": entry.id,
        "kind": entry.kind,
        "conversation": entry.conversation,
        "state": entry.state,
        "since": utc_text(entry.since),
        "tries": entry.tries,
        "reason": entry.reason,
    }


async def _send(chosen: Settings) -> int | None:
    """Sends what waits; returns how many are left, or None if a service sends."""
    made = make_notifying(chosen, metrics=Metrics(), log=start_log(chosen))
    assert made is not None
    if not await made.outbox.ask(Database.become_sender):
        await made.outbox.ask(Database.close)
        return None
    async with trio.open_nursery() as nursery:
        await nursery.start(made.outbox.run)
        await nursery.start(made.sender.run)
        with trio.move_on_after(_PATIENCE):
            await made.sender.wait_settled()
        left = (await made.outbox.ask(Database.counts)).waiting
        nursery.cancel_scope.cancel()
    await made.aclose()
    return left
