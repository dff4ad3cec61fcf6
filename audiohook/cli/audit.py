"""The command that audits a day."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import trio
import typer

from audiohook import settings
from audiohook.audit.day import Audit
from audiohook.cli.app import (
    DEFAULT_ENV_FILE,
    EnvFile,
    app,
    counted,
    day_of,
    examples,
    start_log,
)
from audiohook.cli.console import make_console
from audiohook.erasing import Places
from audiohook.index.database import FILE_NAME, Database
from audiohook.index.keeper import INDEX_FOLDER
from audiohook.key_ring import gather_keys
from audiohook.retention.terms import keeps_of
from audiohook.storage.s3 import S3Store
from audiohook.storing import SPOOL_FOLDER, make_store

if TYPE_CHECKING:
    from datetime import date
    from pathlib import Path

    from audiohook.audit.day import Report


@app.command(
    epilog=examples(
        "audiohook audit --day 2026-11-25",
        "audiohook audit --day 2026-11-25 --deep --json",
    )
)
def audit(
    day: Annotated[
        str,
        typer.Option(metavar="YYYY-MM-DD", help="Day in UTC; calls that began then."),
    ],
    *,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read all files and compare their checksums.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    env_file: EnvFile = DEFAULT_ENV_FILE,
) -> None:
    """Tell of every call of a day that is missing something.

    Compares the store, the spool, the transcripts and the index, and changes nothing.
    Ends with 0 if nothing is missing, 1 if something is, 2 if that cannot be told.
    """
    chosen = settings.load(env_file=env_file)
    start_log(chosen, quiet=True)
    report = trio.run(_audit, chosen, day_of(day), deep)
    if as_json:
        typer.echo(json.dumps(_to_json(report), indent=2))
    else:
        _print(report)
    sys.exit(1 if report.findings else 0)


async def _audit(chosen: settings.Settings, day: date, deep: bool) -> Report:
    keys = await trio.to_thread.run_sync(gather_keys, chosen)
    store = make_store(chosen, lambda: keys)
    places = Places(chosen, store, lambda: keys)
    spool = chosen.recordings_dir / SPOOL_FOLDER
    with ExitStack() as closing:
        if isinstance(store, S3Store):
            closing.callback(store.close)
        database = await trio.to_thread.run_sync(_open_index, spool / INDEX_FOLDER)
        if database is not None:
            closing.callback(database.close)
        return await Audit(
            places(),
            at=places.at,
            store=store,
            spool=spool,
            search=None if database is None else database.search,
            keeps=keeps_of(chosen, keys.values()),
            now=time.time(),
            deep=deep,
        ).of(day)


def _open_index(folder: Path) -> Database | None:
    """Open the index, if there is one that knows the whole store."""
    if not (folder / FILE_NAME).is_file():
        return None
    database = Database(folder)
    if database.is_whole():
        return database
    database.close()
    return None


def _to_json(report: Report) -> dict[str, object]:
    return {
        "day": report.day.isoformat(),
        "calls": report.calls,
        "incomplete": report.incomplete,
        "live": report.live,
        "hasIndex": report.has_index,
        "requests": report.requests,
        "findings": [asdict(each) for each in report.findings],
    }


def _print(report: Report) -> None:
    console = make_console()
    for each in report.findings:
        console.print(f"{each.kind:18} {each.name}  {each.detail}", markup=False)
    index = "" if report.has_index else "; there is no whole index to compare with"
    console.print(
        f"{report.day}: {counted(report.calls, 'call')} stored ({report.incomplete} cut off),"
        f" {report.live} live, {counted(len(report.findings), 'thing')} missing or wrong;"
        f" {counted(report.requests, 'request')} to the store{index}",
        markup=False,
    )
