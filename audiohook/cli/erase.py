"""The command that has calls erased."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated

import trio
import typer

from audiohook import settings
from audiohook.cli.app import DEFAULT_ENV_FILE, EnvFile, app, examples, start_log
from audiohook.cli.console import make_console
from audiohook.erase import DEFAULT_WAIT, Demand
from audiohook.erase import erase as run_erase
from audiohook.erase import show as run_show
from audiohook.errors import ConfigError
from audiohook.recording.journal import is_uuid


@app.command(
    epilog=examples(
        "audiohook erase 9d3c1b52-7c0a-4f0e-8f0e-2f4a6c1d9b11 --dry-run",
        "audiohook erase 9d3c1b52-7c0a-4f0e-8f0e-2f4a6c1d9b11",
        "audiohook erase --pending",
    )
)
def erase(
    conversation: Annotated[str, typer.Argument(help="Id of the conversation.")] = "",
    *,
    session: Annotated[
        str, typer.Option(help="Only this session of it.", metavar="ID")
    ] = "",
    end: Annotated[
        bool, typer.Option("--end", help="End the call first if it is live.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be erased.")
    ] = False,
    pending: Annotated[
        bool,
        typer.Option("--pending", help="Go on with all that is under way instead."),
    ] = False,
    wait: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="How long to wait for it.")
    ] = DEFAULT_WAIT,
    env_file: EnvFile = DEFAULT_ENV_FILE,
) -> None:
    """Erase every trace of a conversation: for ever, here and at AssemblyAI.

    Ends with 1 if something is left that cannot be erased now, which is said; the
    service goes on with it. A live call is refused, unless it is to be ended.
    """
    if pending == bool(conversation) or (pending and (session or dry_run)):
        raise ConfigError("erase: name a conversation, or --pending alone")
    session = session.lower()
    if session and not is_uuid(session):
        raise ConfigError("erase: --session is not the id of a session")
    chosen = settings.load(env_file=env_file)
    log = start_log(chosen, quiet=True)
    console = make_console()
    demand = Demand(conversation or None, session or None, end=end, wait=wait)
    if dry_run:
        sys.exit(trio.run(partial(run_show, chosen, demand, console)))
    if not (yes or pending):
        typer.confirm("Erase it for ever?", abort=True)
    sys.exit(trio.run(partial(run_erase, chosen, demand, console, log=log)))
