"""The command ``audiohook``."""

from __future__ import annotations

import gc
import logging
import os
import secrets
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
import trio
import typer
from rich.console import Console

from audiohook import __version__, install, logs, recovery, service, settings, systemd
from audiohook.authentication import configured_keys
from audiohook.checks import describe_permissions, run_checks
from audiohook.demo import run_demo
from audiohook.errors import AudioHookError
from audiohook.simulator.assemblyai import DEFAULT_KEY, Limits, Pace, StandIn
from audiohook.simulator.assemblyai.command import run_stand_in
from audiohook.simulator.client import run_call
from audiohook.simulator.load.command import LoadCommand, run_load
from audiohook.simulator.load.options import LoadOptions, parse_lengths
from audiohook.simulator.options import CallOptions, parse_custom_config, parse_span

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

_EXIT_USAGE = 2
_KEY_BYTES = 24
_GC_THRESHOLDS = (20_000, 20, 50)

app = typer.Typer(
    name="audiohook",
    help="Records Genesys Cloud calls that come by AudioHook Monitor.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

EnvFile = Annotated[
    Path, typer.Option(help="File with settings, one NAME=value a line.")
]


def main() -> None:
    """Runs the command; ends the process with its exit code."""
    try:
        app()
    except* AudioHookError as group:
        for error in _leaves(group):
            print(f"audiohook: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(_EXIT_USAGE)


def _leaves(group: BaseExceptionGroup[AudioHookError]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


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


@app.command()
def serve(
    *,
    port: Annotated[int | None, typer.Option(help="Port; overrides PORT.")] = None,
    host: Annotated[str | None, typer.Option(help="Address; overrides HOST.")] = None,
    recordings_dir: Annotated[
        Path | None, typer.Option(help="Folder; overrides RECORDINGS_DIR.")
    ] = None,
    env_file: EnvFile = Path(".env"),
) -> None:
    """Run the service until SIGTERM, which lets live calls end first."""
    notifier = systemd.Notifier.from_environment()
    inherited = systemd.inherited_sockets()

    def read() -> settings.Settings:
        return settings.load(
            env_file=env_file, port=port, host=host, recordings_dir=recordings_dir
        )

    chosen = read()
    log = _start_log(chosen)
    keys = configured_keys(chosen)
    announce: Callable[[int], None] = _no_announcement
    if not keys:
        key = secrets.token_urlsafe(_KEY_BYTES)
        keys = {key: None}
        announce = _announcement(key)
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


def _announcement(key: str) -> Callable[[int], None]:
    """Returns what tells a person how to make a first call; the key is shown once."""

    def announce(port: int) -> None:
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(
            "\nNo API_KEY is set: this key is good until the service stops, and only"
            " this machine can connect."
            f"\n\n    API key  {key}"
            "\n\nMake a call from another shell:"
            f"\n\n    {_own_command()} call ws://127.0.0.1:{port}/ --api-key {key}\n",
            markup=False,
        )

    return announce


def _own_command() -> str:
    """How the person at the keyboard reaches this program."""
    path = Path(sys.argv[0])
    if path.name == "__main__.py":
        return "python -m audiohook"
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


@app.command()
def recover(*, env_file: EnvFile = Path(".env")) -> None:
    """Finish what an earlier process left in the spool, without serving."""
    chosen = settings.load(env_file=env_file)
    log = _start_log(chosen)

    async def run() -> int:
        found = await recovery.recover(chosen, log=log)
        typer.echo(f"{found.stored} calls stored, {found.waiting} left in the spool")
        if found.transcribed or found.untranscribed:
            typer.echo(
                f"{found.transcribed} transcripts stored,"
                f" {found.untranscribed} calls left that wait for theirs"
            )
        return 1 if found.waiting or found.untranscribed else 0

    sys.exit(trio.run(run))


@app.command()
def call(
    uri: Annotated[str, typer.Argument(help="Such as ws://127.0.0.1:3000/.")],
    *,
    wav: Annotated[
        Path | None,
        typer.Option(
            help="µ-law or PCM16 WAV, 8 kHz, mono or stereo; without it a built-in"
            " conversation is played."
        ),
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="API_KEY", help="Sent as X-API-KEY.")
    ] = None,
    client_secret: Annotated[
        str | None,
        typer.Option(envvar="CLIENT_SECRET", help="In base64; signs the request."),
    ] = None,
    duration: Annotated[
        float, typer.Option(help="Seconds of the built-in conversation.")
    ] = 10.0,
    fast: Annotated[
        bool, typer.Option("--fast", help="As fast as it goes, not in real time.")
    ] = False,
    probe: Annotated[
        bool, typer.Option("--probe", help="Only try the connection, as Genesys does.")
    ] = False,
    pause: Annotated[
        list[str] | None,
        typer.Option(metavar="AT:LENGTH", help="Pause there; may be repeated."),
    ] = None,
    discard: Annotated[
        list[str] | None,
        typer.Option(metavar="AT:LENGTH", help="Lose audio there; may be repeated."),
    ] = None,
    hang_up: Annotated[
        bool,
        typer.Option("--hang-up", help="Drop the socket at the end, without close."),
    ] = False,
    hang_up_at: Annotated[
        float | None, typer.Option(help="Drop the socket at that second.")
    ] = None,
    frame_ms: Annotated[int, typer.Option(help="Length of a frame of audio.")] = 200,
    vary_frames: Annotated[
        int | None,
        typer.Option(metavar="SEED", help="Frames of random lengths instead."),
    ] = None,
    conversation: Annotated[
        str | None, typer.Option(help="Conversation id; random without it.")
    ] = None,
    language: Annotated[str, typer.Option(help="Language of the call.")] = "en-US",
    custom_config: Annotated[
        str | None, typer.Option(metavar="JSON", help="customConfig of the call.")
    ] = None,
    ca_file: Annotated[
        Path | None, typer.Option(help="Certificates to trust, PEM.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Trust any certificate.")
    ] = False,
) -> None:
    """Make one call to an AudioHook server, as Genesys Cloud would.

    Ends with 1, and a line that says why, if the server breaks a rule of the
    protocol.
    """
    options = CallOptions(
        uri=uri,
        wav=wav,
        api_key=api_key,
        client_secret=client_secret,
        duration=duration,
        fast=fast,
        probe=probe,
        pauses=tuple(parse_span(span) for span in pause or ()),
        discards=tuple(parse_span(span) for span in discard or ()),
        hang_up=hang_up,
        hang_up_at=hang_up_at,
        frame_ms=frame_ms,
        frame_seed=vary_frames,
        language=language,
        custom_config=parse_custom_config(custom_config) if custom_config else None,
        ca_file=ca_file,
        insecure=insecure,
        conversation_id=conversation or str(uuid.uuid4()),
    )
    sys.exit(run_call(options, Console(highlight=False, soft_wrap=True)))


@app.command()
def load(
    uri: Annotated[
        str | None,
        typer.Argument(help="Such as ws://127.0.0.1:3000/; none to verify only."),
    ] = None,
    *,
    calls: Annotated[int, typer.Option(help="Calls at a time.")] = 100,
    duration: Annotated[
        str,
        typer.Option(
            metavar="SECONDS", help="Length of a call: 60, 30..90, or exp:60 (mean)."
        ),
    ] = "60",
    total: Annotated[
        int | None, typer.Option(help="Calls in all: one that ends is followed.")
    ] = None,
    keep: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="For so long a call that ends is followed."
        ),
    ] = None,
    ramp: Annotated[
        float, typer.Option(metavar="SECONDS", help="Time for the first to begin in.")
    ] = 5.0,
    rate: Annotated[
        float | None, typer.Option(help="New calls a second, at most.")
    ] = None,
    together: Annotated[
        bool, typer.Option("--together", help="All calls end in the same instant.")
    ] = False,
    frame_bytes: Annotated[int, typer.Option(help="Bytes of a stereo frame.")] = 1600,
    speed: Annotated[
        float, typer.Option(help="So many times faster than real time.")
    ] = 1.0,
    pause: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of calls that pause.")
    ] = 0.0,
    discard: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of calls that lose audio.")
    ] = 0.0,
    hang_up: Annotated[
        float,
        typer.Option(metavar="SHARE", help="Share of calls that drop the socket."),
    ] = 0.0,
    probe: Annotated[
        float,
        typer.Option(metavar="SHARE", help="Share of calls that are probes."),
    ] = 0.0,
    api_key: Annotated[
        str | None, typer.Option(envvar="API_KEY", help="Sent as X-API-KEY.")
    ] = None,
    client_secret: Annotated[
        str | None,
        typer.Option(envvar="CLIENT_SECRET", help="In base64; signs the requests."),
    ] = None,
    ca_file: Annotated[
        Path | None, typer.Option(help="Certificates to trust, PEM.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Trust any certificate.")
    ] = False,
    processes: Annotated[
        int, typer.Option(help="Processes to share the calls among.")
    ] = 1,
    seed: Annotated[
        int | None, typer.Option(help="Makes the same random choices again.")
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            help="Write there what was sent, a line of JSON a call; without a URI,"
            " read it."
        ),
    ] = None,
    verify: Annotated[
        str | None,
        typer.Option(
            metavar="STORE",
            help="Compare the recordings afterwards, sample for sample: folder or"
            " s3://bucket/prefix.",
        ),
    ] = None,
    raw_only: Annotated[
        bool, typer.Option("--raw-only", help="Compare only the .raw files there.")
    ] = False,
    wait: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="How long to wait for recordings."),
    ] = 60.0,
    report: Annotated[
        Path | None, typer.Option("--json", help="Write the figures there.")
    ] = None,
) -> None:
    """Make many calls to an AudioHook server at once, in real time.

    Ends with 1 if a call failed, if a recording is not what was sent, or if this
    machine was too slow for the load.
    """
    options = None
    if uri is not None:
        options = LoadOptions(
            uri=uri,
            calls=calls,
            lengths=parse_lengths(duration),
            total=total,
            keep=keep,
            ramp=ramp,
            rate=rate,
            together=together,
            frame_bytes=frame_bytes,
            speed=speed,
            pause=pause,
            discard=discard,
            hang_up=hang_up,
            probe=probe,
            api_key=api_key,
            client_secret=client_secret,
            ca_file=ca_file,
            insecure=insecure,
            processes=processes,
            seed=secrets.randbelow(2**32) if seed is None else seed,
        )
    command = LoadCommand(
        load=options,
        manifest=manifest,
        store=verify,
        raw_only=raw_only,
        wait=wait,
        report=report,
    )
    sys.exit(run_load(command, Console(highlight=False, soft_wrap=True)))


@app.command()
def check(
    *,
    iam: Annotated[
        bool,
        typer.Option(
            "--iam", help="Only print what an AWS account must allow, and tidy up."
        ),
    ] = False,
    env_file: EnvFile = Path(".env"),
) -> None:
    """Try the settings for real, and say in one line each what is wrong.

    Ends with 1 if anything does not work.
    """
    chosen = settings.load(env_file=env_file)
    _start_log(chosen)
    if iam:
        typer.echo(describe_permissions(chosen))
        return
    console = Console(highlight=False, soft_wrap=True)
    sys.exit(trio.run(run_checks, chosen, console))


@app.command()
def demo(
    *,
    recordings_dir: Annotated[
        Path, typer.Option(help="Where the recording is to be stored.")
    ] = Path("recordings"),
    wav: Annotated[Path | None, typer.Option(help="Play this WAV instead.")] = None,
) -> None:
    """Play one simulated call through a service of its own, and show the result."""
    logs.configure("auto", logging.WARNING)
    console = Console(highlight=False, soft_wrap=True)
    sys.exit(run_demo(recordings_dir, wav, console, log=_log()))


@app.command()
def stand_in(
    *,
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8100,
    host: Annotated[str, typer.Option(help="Address.")] = "127.0.0.1",
    key: Annotated[
        list[str] | None,
        typer.Option(help="API key to accept; each is an account of its own."),
    ] = None,
    fail: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of requests that fail.")
    ] = 0.0,
    seconds_a_job: Annotated[
        float, typer.Option(min=0, help="How long a job takes.")
    ] = 2.0,
    parallel: Annotated[
        int, typer.Option(min=1, help="Jobs of an account at a time.")
    ] = 200,
    seed: Annotated[int, typer.Option(help="Of the failures, which are chance.")] = 0,
) -> None:
    """Run a stand-in for AssemblyAI's API, for tests and demonstrations.

    It fetches the audio and finds who speaks when, but the words are its own. From
    this machine, GET /stand-in/statistics tells what it has done, and POST
    /stand-in/faults makes it fail.
    """
    keys = tuple(key or (DEFAULT_KEY,))
    standin = StandIn(
        keys=keys,
        pace=Pace(processing=seconds_a_job),
        limits=Limits(parallel=parallel),
        seed=seed,
    )

    def announce(url: str) -> None:
        typer.echo(f"stand-in for AssemblyAI: {url}  key {keys[0]}")

    run_stand_in(standin, host=host, port=port, fail=fail, announce=announce)


@app.command()
def install_service(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be written.")
    ] = False,
    instances: Annotated[
        int,
        typer.Option(
            help="So many that share a port, each on a core of its own; without it"
            " one, which systemd hands its port."
        ),
    ] = 0,
    port: Annotated[int, typer.Option(help="Port of the one.")] = 3000,
    user: Annotated[str, typer.Option(help="User to run as.")] = "audiohook",
    state: Annotated[
        str, typer.Option(help="Name of the spool's folder, below /var/lib.")
    ] = "audiohook",
    env_file: Annotated[
        Path, typer.Option(help="Where the service finds its settings.")
    ] = Path("/etc/audiohook/audiohook.env"),
    root: Annotated[
        Path, typer.Option(help="Write below this folder, to make a package.")
    ] = Path("/"),
) -> None:
    """Write systemd's units for this installation, and tell what to type next."""
    installation = install.Installation(
        user=user, state=state, env_file=env_file, port=port, instances=instances
    )
    if dry_run:
        for path, text in installation.files().items():
            typer.echo(f"# {root / path}\n{text}")
        return
    if root == Path("/"):
        install.check_reachable(installation)
    for path in install.write(installation, root):
        typer.echo(f"wrote {path}")
    typer.echo("\nAs root, type next:\n")
    for command in installation.next_steps():
        typer.echo(f"    {command}")


def _calm_garbage_collector() -> None:
    """Makes full collections rare.

    Live calls are thousands of objects that hang together and stay for long; to
    walk over them after every few hundred allocations took a tenth of the whole
    service's time. Calls that end leave cycles, so it is not switched off.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def _start_log(chosen: settings.Settings) -> FilteringBoundLogger:
    logs.configure(chosen.log_format, logs.LEVELS[chosen.log_level])
    # botocore finds the AWS names of .env where it always looks.
    os.environ.update(chosen.aws_environment())
    return _log()


def _log() -> FilteringBoundLogger:
    log: FilteringBoundLogger = structlog.get_logger(logs.OWN_LOGGERS)
    return log
