"""Commands for whoever installs the service and looks after it."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import trio
import typer

from audiohook import install, settings
from audiohook.api.tokens import Scope, make_token
from audiohook.checks import (
    CHECKS,
    Expectations,
    Findings,
    approach_of,
    check_from_outside,
    describe_permissions,
    names_in_environment,
    run_checks,
    tell_config_fault,
)
from audiohook.cli.app import DEFAULT_ENV_FILE, EnvFile, app, examples, start_log
from audiohook.cli.console import make_console
from audiohook.errors import ConfigError
from audiohook.key_ring import gather_keys
from audiohook.storage.s3 import S3Store
from audiohook.storing import make_index, make_store
from audiohook.transcribe import DEFAULT_WAIT, Order
from audiohook.transcribe import transcribe as run_transcribe


@app.command(
    epilog=examples(
        "audiohook check",
        "audiohook check --only spool --only clock --json",
        "audiohook check --from-outside wss://audiohook.example.com/ --api-key KEY"
        " --secret-file secret.txt",
    )
)
def check(
    *,
    from_outside: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="Try instead whether Genesys gets through, by the URI of the"
            " integration.",
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(help="Key for --from-outside; without it API_KEY."),
    ] = None,
    secret_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the client secret for --from-outside; without it"
            " CLIENT_SECRET."
        ),
    ] = None,
    patient: Annotated[
        bool,
        typer.Option(
            "--patient", help="With --from-outside, be quiet for 25 s as well."
        ),
    ] = False,
    ca_file: Annotated[
        Path | None,
        typer.Option(help="Certificates to trust for --from-outside, PEM."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Public name that the certificate has to be for."),
    ] = None,
    minutes: Annotated[
        float, typer.Option(min=0, help="Length of a call, for the disk it needs.")
    ] = 10.0,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="CHECK", help=f"One of {', '.join(CHECKS)}; repeatable."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead.")
    ] = False,
    iam: Annotated[
        bool,
        typer.Option(
            "--iam", help="Only print what an AWS account must allow, and tidy up."
        ),
    ] = False,
    erase: Annotated[
        bool, typer.Option("--erase", help="With --iam: calls may be erased, too.")
    ] = False,
    env_file: EnvFile = DEFAULT_ENV_FILE,
) -> None:
    """Try the settings for real, and say in one line each what is wrong.

    Ends with 1 if anything does not work.
    """
    findings = Findings(make_console(), as_json=as_json)
    # As it was before the log is started, which hands AWS's names of .env to botocore.
    environment = names_in_environment()
    try:
        chosen = settings.load(env_file=env_file)
    except ConfigError as error:
        sys.exit(tell_config_fault(error, findings))
    start_log(chosen)
    if iam:
        typer.echo(describe_permissions(chosen, erase=erase))
        return
    if from_outside is not None:
        approach = approach_of(
            from_outside, chosen, api_key=api_key, secret_file=secret_file
        )
        approach = replace(approach, ca_file=ca_file, patient=patient)
        sys.exit(trio.run(check_from_outside, approach, findings))
    run = partial(
        run_checks,
        chosen,
        findings,
        expectations=Expectations(name, minutes, env_file, environment),
        only=only or (),
    )
    sys.exit(trio.run(run))


@app.command(
    epilog=examples(
        "audiohook transcribe calls/2026-11-25T21-02-32.375Z_…",
        "audiohook transcribe s3://my-recordings/calls/… --again",
    )
)
def transcribe(
    keys: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY...",
            help="A call's folder, its WAV or its call.json: as a key, a path or s3://…",
        ),
    ],
    *,
    again: Annotated[
        bool,
        typer.Option(
            "--again", help="Ask for another one where there is a transcript."
        ),
    ] = False,
    wait: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="How long to wait for them.")
    ] = DEFAULT_WAIT,
    env_file: EnvFile = DEFAULT_ENV_FILE,
) -> None:
    """Have stored recordings transcribed, with a service running or without.

    Ends with 1 if anything has no transcript then; to run it again goes on where
    it ended, and pays for nothing twice.
    """
    chosen = settings.load(env_file=env_file)
    log = start_log(chosen, quiet=True)
    order = Order(keys, again=again, wait=wait)
    console = make_console()
    sys.exit(trio.run(partial(run_transcribe, chosen, order, console, log=log)))


@app.command(epilog=examples("audiohook token crm --scope read --scope control"))
def token(
    name: Annotated[str, typer.Argument(help="Whose it is, such as crm.")],
    *,
    scope: Annotated[
        list[Scope], typer.Option(help="What it is good for; may be repeated.")
    ],
) -> None:
    """Make a token for the API, and show it once."""
    made, entry = make_token(name, scope)
    typer.echo(f"Token, shown once:\n\n    {made}\n")
    typer.echo(f"Into the object in API_TOKENS_FILE:\n\n    {entry}\n")
    typer.echo(
        "Then reload the service (SIGHUP), or start it with API_TOKENS_FILE set."
    )


@app.command(epilog=examples("audiohook index"))
def index(*, env_file: EnvFile = DEFAULT_ENV_FILE) -> None:
    """Make the index of recordings anew, from what the store holds.

    Ends with 1 if some of it cannot be read.
    """
    chosen = settings.load(env_file=env_file)
    log = start_log(chosen)

    async def run() -> int:
        # Calls may be in buckets, or below prefixes, of their keys alone.
        keys = await trio.to_thread.run_sync(gather_keys, chosen)
        store = make_store(chosen, lambda: keys)
        calls = make_index(chosen, store, lambda: keys, log=log)
        console = make_console(stderr=True)
        try:
            with console.status("reading the store …") as status:
                done = await calls.build(
                    lambda seen: status.update(f"{seen:,} recordings …")
                )
        finally:
            calls.close()
            if isinstance(store, S3Store):
                store.close()
        typer.echo(
            f"{done.taken:,} recordings in the index,"
            f" {done.forgotten:,} that are gone taken out"
        )
        if done.unreadable:
            typer.echo(f"{done.unreadable:,} have a call.json that cannot be read")
        return 1 if done.unreadable else 0

    sys.exit(trio.run(run))


@app.command(
    epilog=examples(
        "audiohook install-service --dry-run", "audiohook install-service --instances 4"
    )
)
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
    where = "" if root == Path("/") else " on the machine that this is for"
    typer.echo(f"\nAs root{where}, type next:\n")
    for command in installation.next_steps(root):
        typer.echo(f"    {command}")
