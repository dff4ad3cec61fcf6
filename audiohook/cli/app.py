"""What all commands share: the application, its log, and its errors."""

from __future__ import annotations

import io
import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
import typer

from audiohook import __version__, logs
from audiohook.errors import AudioHookError, CallIndexError, ConfigError, SpoolError

if TYPE_CHECKING:
    from datetime import date

    from structlog.typing import FilteringBoundLogger

    from audiohook.settings import Settings

_EXIT_USAGE = 2

app = typer.Typer(
    name="audiohook",
    help="Records Genesys Cloud calls that come by AudioHook Monitor.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DEFAULT_ENV_FILE = Path(".env")
EnvFile = Annotated[
    Path,
    typer.Option(
        help="File with settings, one NAME=value a line.",
        envvar="AUDIOHOOK_ENV_FILE",
        # Where it is read, it is said in one line how to mend that it cannot be.
        readable=False,
    ),
]


def main() -> None:
    """Runs the command; ends the process with its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A mark that the terminal's character set lacks must not end a command.
        sys.stdout.reconfigure(errors="replace")
    try:
        app()
    except* AudioHookError as group:
        for fault in faults(group):
            print(f"audiohook: {fault}", file=sys.stderr)  # noqa: T201
        sys.exit(_EXIT_USAGE)


def faults(group: BaseExceptionGroup[AudioHookError]) -> list[str]:
    """Returns what each error of a group says to whoever typed the command."""
    return [_text_of(error) for error in _leaves(group)]


def _text_of(error: BaseException) -> str:
    """Say what stops the start, by the name of the setting that is to blame."""
    if isinstance(error, SpoolError | CallIndexError):
        return (
            f"RECORDINGS_DIR: {error} (in {Path.cwd()}); name a folder that this user"
            " may write to, for example RECORDINGS_DIR=/var/lib/audiohook"
        )
    return str(error)


def _leaves(group: BaseExceptionGroup[AudioHookError]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def examples(*lines: str) -> str:
    """Returns what a command's help ends with.

    Args:
        *lines: As they are typed.
    """
    return "\n\n".join(["Examples:", *lines])


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"audiohook {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version."
        ),
    ] = False,
) -> None:
    """Records Genesys Cloud calls that come by AudioHook Monitor."""


def day_of(text: str) -> date:
    """Reads a day as somebody has typed it.

    Args:
        text: Such as ``2026-11-22``.

    Raises:
        ConfigError: It is none.
    """
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        raise ConfigError(
            f"--day: {text[:40]!r} is no day; for example --day 2026-11-22"
        ) from None


def start_log(chosen: Settings, *, quiet: bool = False) -> FilteringBoundLogger:
    """Begins to log as the settings say, and puts AWS's own names where they work.

    Args:
        chosen: What the operator chose.
        quiet: Log errors alone: the command prints what else it would log.
    """
    level = logging.ERROR if quiet else logs.LEVELS[chosen.log_level]
    logs.configure(chosen.log_format, level)
    # botocore finds the AWS names of .env where it always looks.
    os.environ.update(chosen.aws_environment())
    return own_log()


def own_log() -> FilteringBoundLogger:
    """Returns where our lines go."""
    log: FilteringBoundLogger = structlog.get_logger(logs.OWN_LOGGERS)
    return log
