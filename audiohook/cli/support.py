"""Commands for cases in which somebody asks what Genesys and we said."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Annotated

import trio
import typer

from audiohook import dialogue as dialogues
from audiohook import settings
from audiohook.cli.app import (
    DEFAULT_ENV_FILE,
    EnvFile,
    app,
    day_of,
    examples,
    start_log,
)
from audiohook.cli.console import make_console
from audiohook.missed.ledger import EVENTS_FOLDER, EventLedger
from audiohook.missed.review import Finding, Reported, review
from audiohook.recording.elsewhere import look_elsewhere
from audiohook.recording.journal import utc_text
from audiohook.storage.s3 import S3Store
from audiohook.storing import SPOOL_FOLDER, make_index, make_store


@app.command(epilog=examples("audiohook dialogue 4d029331-a63c-4ec1-9132-bd3b294f2331"))
def dialogue(
    recording: Annotated[
        str,
        typer.Argument(
            metavar="KEY|CONVERSATION",
            help="A call's folder, its WAV or its call.json; or a conversation's id.",
        ),
    ],
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="As it is stored: one JSON object a line.")
    ] = False,
    env_file: EnvFile = DEFAULT_ENV_FILE,
) -> None:
    """Show the text messages of a call, which KEEP_DIALOGUE has stored beside it.

    Ends with 1 if there are none.
    """
    chosen = settings.load(env_file=env_file)
    log = start_log(chosen)
    console = make_console()
    show = partial(dialogues.show, chosen, recording, console, as_json=as_json, log=log)
    sys.exit(trio.run(show))


@app.command(epilog=examples("audiohook missed", "audiohook missed --day 2026-11-25"))
def missed(
    *,
    day: Annotated[
        str, typer.Option(metavar="YYYY-MM-DD", help="In UTC; today without it.")
    ] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line.")
    ] = False,
    env_file: EnvFile = DEFAULT_ENV_FILE,
) -> None:
    """List the calls that Genesys says it could not deliver, and what became of them.

    Ends with 1 if there is no recording of one of them.
    """
    chosen = settings.load(env_file=env_file)
    log = start_log(chosen)
    wanted = day_of(day) if day else datetime.now(UTC).date()
    spool = chosen.recordings_dir / SPOOL_FOLDER
    store = make_store(chosen)
    index = make_index(chosen, store, log=log)
    waiting = {each.lower() for each in look_elsewhere(spool, ())}

    async def run() -> list[Reported]:
        try:
            ledger = EventLedger(spool / EVENTS_FOLDER)
            return await review(ledger, index, wanted, waiting)
        finally:
            index.close()
            if isinstance(store, S3Store):
                store.close()

    found = trio.run(run)
    console = make_console(markup=False)
    for each in found:
        event = each.event
        if as_json:
            line = {**asdict(event), "at": utc_text(event.at), "finding": each.finding}
            typer.echo(json.dumps(line))
        else:
            console.print(
                f"{utc_text(event.at)} {event.code} {event.conversation or '-'}"
                f" {each.finding}: {event.text}"
            )
    lost = {each.event.conversation for each in found if each.finding == Finding.MISSED}
    if not as_json:
        console.print(f"{len(found)} events, {len(lost)} conversations not recorded")
    sys.exit(1 if lost else 0)
