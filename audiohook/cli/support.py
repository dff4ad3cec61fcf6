"""Commands for cases in which somebody asks what Genesys and we said."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import trio
import typer
from rich.console import Console

from audiohook import dialogue as dialogues
from audiohook import settings
from audiohook.cli.app import EnvFile, app, examples, start_log


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
    env_file: EnvFile = Path(".env"),
) -> None:
    """Show the text messages of a call, which KEEP_DIALOGUE has stored beside it.

    Ends with 1 if there are none.
    """
    chosen = settings.load(env_file=env_file)
    log = start_log(chosen)
    console = Console(highlight=False, soft_wrap=as_json)
    show = partial(dialogues.show, chosen, recording, console, as_json=as_json, log=log)
    sys.exit(trio.run(show))
