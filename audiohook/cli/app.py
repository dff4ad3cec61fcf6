"""What all commands share: the application, its log, and its errors."""

from __future__ import annotations

import errno
import io
import logging
import os
import select
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

_EXIT_FAILURE = 1
_EXIT_USAGE = 2

# Of writing to a pipe that nobody reads, or to a disk that is full.
_NO_OUTPUT = frozenset({errno.EPIPE, errno.ENOSPC})

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
        try:
            app()
        finally:
            sys.stdout.flush()
    except (AudioHookError, OSError, BaseExceptionGroup) as error:
        sys.exit(_say_why(error))


def _say_why(error: BaseException) -> int:
    """Says in one line each what ended a command; what is none of those is raised."""
    leaves = _leaves(error)
    if all(isinstance(each, AudioHookError) for each in leaves):
        for fault in faults(error):
            print(f"audiohook: {fault}", file=sys.stderr)  # noqa: T201
        return _EXIT_USAGE
    if all(isinstance(each, SystemExit) for each in leaves):
        # That of rich, from inside a nursery, when nobody reads on: `demo | head`.
        _let_output_go()
        return _EXIT_FAILURE
    (first, *more) = leaves
    if more or not isinstance(first, OSError) or first.errno not in _NO_OUTPUT:
        raise error
    # Else it is about a file or a connection of the command's.
    if not _is_output_gone():
        raise error
    _let_output_go()
    if first.errno != errno.EPIPE:
        print(  # noqa: T201
            f"audiohook: cannot write ({first.strerror}): is the disk of the output"
            " full?",
            file=sys.stderr,
        )
    return _EXIT_FAILURE


def _is_output_gone() -> bool:
    """Tells whether what a command prints, or logs, cannot be written."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            return True
        # Of a pipe that nobody reads this tells though nothing is left to be written.
        watch = select.poll()
        watch.register(stream.fileno(), 0)
        if watch.poll(0):
            return True
    return False


def _let_output_go() -> None:
    """Sends what is still to be written nowhere, so that the end is quiet.

    Source: Python's documentation of SIGPIPE, in the module signal.
    """
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - no path of ours
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def faults(error: BaseException) -> list[str]:
    """Returns what each error of a group says to whoever typed the command."""
    return [_text_of(each) for each in _leaves(error)]


def _text_of(error: BaseException) -> str:
    """Say what stops the start, by the name of the setting that is to blame."""
    if isinstance(error, SpoolError | CallIndexError):
        return (
            f"RECORDINGS_DIR: {error} (in {Path.cwd()}); name a folder that this user"
            " may write to, for example RECORDINGS_DIR=/var/lib/audiohook"
        )
    return str(error)


def _leaves(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for each in error.exceptions for leaf in _leaves(each)]


def examples(*lines: str) -> str:
    """Returns what a command's help ends with.

    Args:
        *lines: As they are typed.
    """
    return "\n\n".join(["Examples:", *lines])


def counted(count: int, thing: str) -> str:
    """Say how many there are of something, such as ``1 call`` or ``2 calls``.

    Args:
        count: How many.
        thing: What one of them is called.
    """
    return f"{count} {thing}{'' if count == 1 else 's'}"


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
