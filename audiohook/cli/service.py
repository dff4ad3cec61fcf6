"""Commands that run the service, or finish what it left."""

from __future__ import annotations

import gc
import secrets
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import trio
import typer

from audiohook import (
    elsewhere,
    notifying,
    recovery,
    service,
    settings,
    sqs,
    systemd,
    worker,
)
from audiohook.checks.start import warn_at_start
from audiohook.cli.app import (
    DEFAULT_ENV_FILE,
    EnvFile,
    app,
    counted,
    examples,
    faults,
    start_log,
)
from audiohook.cli.console import make_console
from audiohook.errors import AudioHookError, ConfigError
from audiohook.keys import KeyRecord, configured_keys
from audiohook.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_KEY_BYTES = 24
# What a call leaves in cycles, some 60 objects and 5 KB, piles up between two full
# collections: with these numbers that of some 10,000 calls, 50 MiB.
_GC_THRESHOLDS = (20_000, 10, 3)


@app.command(
    epilog=examples(
        "audiohook serve",
        "audiohook serve --port 3001 --recordings-dir /var/lib/audiohook",
    )
)
def serve(
    *,
    port: Annotated[int | None, typer.Option(help="Port; overrides PORT.")] = None,
    host: Annotated[str | None, typer.Option(help="Address; overrides HOST.")] = None,
    recordings_dir: Annotated[
        Path | None, typer.Option(help="Folder; overrides RECORDINGS_DIR.")
    ] = None,
    require_key: Annotated[
        bool,
        typer.Option(
            "--require-key",
            help="End with a fault if no API key is set, instead of making one up.",
        ),
    ] = False,
    env_file: EnvFile = DEFAULT_ENV_FILE,
) -> None:
    """Run the service until SIGTERM, which lets live calls end first."""
    notifier = systemd.Notifier.from_environment()

    def read() -> settings.Settings:
        return settings.load(
            env_file=env_file, port=port, host=host, recordings_dir=recordings_dir
        )

    with _end_told(notifier):
        _serve(notifier, read, env_file, require_key=require_key)


@contextmanager
def _end_told(notifier: systemd.Notifier) -> Iterator[None]:
    """Has the service manager show why the service could not go on.

    What it prints is in the journal only, and the manager tries again every few
    seconds: `systemctl status` would show no reason most of the time.
    """
    try:
        yield
    except* AudioHookError as group:
        notifier.status("; ".join(faults(group)))
        raise
    finally:
        notifier.close()


def _serve(
    notifier: systemd.Notifier,
    read: Callable[[], settings.Settings],
    env_file: Path,
    *,
    require_key: bool,
) -> None:
    inherited = systemd.inherited_sockets()
    chosen = read()
    log = start_log(chosen)
    if env_file != DEFAULT_ENV_FILE and not env_file.exists():
        log.warning("env_file_absent", path=str(env_file))
    warn_at_start(chosen, env_file, log)
    keys = configured_keys(chosen)
    announce: Callable[[int], None] = _no_announcement
    if not keys and chosen.api_keys_secret is None:
        if require_key:
            raise ConfigError(
                "API_KEY: is not set, and neither are API_KEYS_FILE and API_KEYS_SECRET;"
                f" nobody could connect ({_place_of(env_file)})"
            )
        key = secrets.token_urlsafe(_KEY_BYTES)
        keys = {key: KeyRecord()}
        announce = _announcement(key, env_file)
    if chosen.assemblyai_api_key is None:
        log.warning("transcription_off", reason="ASSEMBLYAI_API_KEY is not set")
    _calm_garbage_collector()
    house = service.Service(
        chosen,
        keys,
        log=log,
        read_settings=read,
        notifier=notifier,
        inherited=inherited,
    )
    trio.run(service.serve, house, announce)


def _no_announcement(_port: int) -> None:
    """Says nothing: the operator knows the keys."""


def _announcement(key: str, env_file: Path) -> Callable[[int], None]:
    """Returns what tells a person how to make a first call; the key is shown once."""
    # Whoever has started it in the wrong folder is to see why his key is not known.
    absent = "" if env_file.exists() else f" ({_place_of(env_file)})"

    def announce(port: int) -> None:
        console = make_console(stderr=True)
        console.print(
            f"\nNo API_KEY is set{absent}: this key is good until the service stops, and only"
            " this machine can connect."
            f"\n\n    API key  {key}"
            "\n\nMake a call from another shell:"
            f"\n\n    {_own_command()} call ws://127.0.0.1:{port}/ --api-key {key}\n",
            markup=False,
        )

    return announce


def _place_of(env_file: Path) -> str:
    """Say where settings are looked for, and whether there are any."""
    path = env_file.absolute()
    return f"settings are in {path}" if env_file.exists() else f"there is no {path}"


def _own_command() -> str:
    """How the person at the keyboard reaches this program."""
    path = Path(sys.argv[0])
    if path.name == "__main__.py":
        return "python -m audiohook"
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


@app.command(
    epilog=examples("audiohook recover --env-file /etc/audiohook/audiohook.env")
)
def recover(*, env_file: EnvFile = DEFAULT_ENV_FILE) -> None:
    """Finish what an earlier process left in the spool, without serving."""
    chosen = settings.load(env_file=env_file)
    log = start_log(chosen)

    async def run() -> int:
        found = await recovery.recover(chosen, log=log)
        typer.echo(
            f"{counted(found.stored, 'call')} stored, {found.waiting} left in the spool"
        )
        if found.transcribed or found.untranscribed:
            typer.echo(
                f"{counted(found.transcribed, 'transcript')} stored,"
                f" {counted(found.untranscribed, 'call')} left without one"
            )
        return 1 if found.waiting or found.untranscribed else 0

    sys.exit(trio.run(run))


@app.command(
    "worker",
    epilog=examples(
        "audiohook worker --queue https://sqs.eu-central-1.amazonaws.com/111122223333/calls"
    ),
)
def work(
    *,
    queue: Annotated[
        str, typer.Option(help="Address of the queue that gets the bucket's events.")
    ],
    parallel: Annotated[
        int | None,
        typer.Option(
            min=1, help="Most calls at a time; overrides TRANSCRIBE_PARALLEL."
        ),
    ] = None,
    env_file: EnvFile = DEFAULT_ENV_FILE,
) -> None:
    """Transcribe calls in the bucket as a queue tells of them, until SIGTERM."""
    chosen = settings.load(env_file=env_file, transcribe_parallel=parallel)
    log = start_log(chosen)
    key = elsewhere.find_key(chosen)

    async def run() -> None:
        messages = sqs.Queue(queue)
        await messages.connect()
        async with (
            notifying.telling(chosen, metrics=Metrics(), log=log) as herald,
            elsewhere.transcribing_elsewhere(
                chosen, key, log=log, herald=herald
            ) as place,
        ):
            one = worker.Worker(
                messages, place, log=log, parallel=chosen.transcribe_parallel
            )
            await worker.work_until_told(one, log)
        messages.close()

    trio.run(run)


def _calm_garbage_collector() -> None:
    """Makes full collections rare.

    Live calls are thousands of objects that hang together and stay for long; to
    walk over them after every few hundred allocations took a tenth of the whole
    service's time. Calls that end leave cycles, so it is not switched off.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
