"""Commands that stand for others: Genesys Cloud, many of its calls, AssemblyAI."""

from __future__ import annotations

import logging
import secrets
import sys
import uuid
from pathlib import Path
from typing import Annotated

import typer

from audiohook import logs, settings
from audiohook.cli.app import DEFAULT_ENV_FILE, app, examples, own_log
from audiohook.cli.console import make_console
from audiohook.demo import run_demo
from audiohook.simulator.assemblyai import DEFAULT_KEY, Limits, Pace, StandIn
from audiohook.simulator.assemblyai.command import run_stand_in
from audiohook.simulator.client import run_call
from audiohook.simulator.load.command import LoadCommand, run_load
from audiohook.simulator.load.options import LoadOptions, parse_lengths
from audiohook.simulator.options import (
    CallOptions,
    parse_channels,
    parse_custom_config,
    parse_span,
)

# How the server is reached, whoever calls it.
ApiKey = Annotated[
    str | None,
    typer.Option(envvar="API_KEY", help="Sent as X-API-KEY; without it that of .env."),
]
ClientSecret = Annotated[
    str | None,
    typer.Option(envvar="CLIENT_SECRET", help="In base64; signs each request."),
]
CaFile = Annotated[Path | None, typer.Option(help="Certificates to trust, PEM.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Trust any certificate.")]


def _keys(
    api_key: str | None, client_secret: str | None
) -> tuple[str | None, str | None]:
    """Returns key and secret, those of .env in this folder where none is given.

    Raises:
        ConfigError: Something in that file makes no sense.
    """
    if api_key is None and client_secret is None and DEFAULT_ENV_FILE.exists():
        chosen = settings.load(env_file=DEFAULT_ENV_FILE)
        if chosen.api_key is not None:
            api_key = chosen.api_key.get_secret_value()
        if chosen.client_secret is not None:
            client_secret = chosen.client_secret.get_secret_value()
    return api_key, client_secret


@app.command(
    epilog=examples(
        "audiohook call ws://127.0.0.1:3000/ --api-key KEY",
        "audiohook call wss://audiohook.example.com/ --wav call.wav --pause 2:1.5",
    )
)
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
    api_key: ApiKey = None,
    client_secret: ClientSecret = None,
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
    channels: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Channels in the order that they are offered in, such as"
            " internal,external; without it external comes first.",
        ),
    ] = None,
    language: Annotated[str, typer.Option(help="Language of the call.")] = "en-US",
    custom_config: Annotated[
        str | None, typer.Option(metavar="JSON", help="customConfig of the call.")
    ] = None,
    ca_file: CaFile = None,
    insecure: Insecure = False,
) -> None:
    """Make one call to an AudioHook server, as Genesys Cloud would.

    Ends with 1, and a line that says why, if the server breaks a rule of the
    protocol.
    """
    api_key, client_secret = _keys(api_key, client_secret)
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
        channels=parse_channels(channels) if channels else None,
        language=language,
        custom_config=parse_custom_config(custom_config) if custom_config else None,
        ca_file=ca_file,
        insecure=insecure,
        conversation_id=conversation or str(uuid.uuid4()),
    )
    sys.exit(run_call(options, make_console()))


@app.command(
    epilog=examples(
        "audiohook load ws://127.0.0.1:3000/ --calls 500 --duration 30..90",
        "audiohook load ws://127.0.0.1:3000/ --manifest m.jsonl --verify recordings",
    )
)
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
    api_key: ApiKey = None,
    client_secret: ClientSecret = None,
    ca_file: CaFile = None,
    insecure: Insecure = False,
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
        api_key, client_secret = _keys(api_key, client_secret)
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
    sys.exit(run_load(command, make_console()))


@app.command(epilog=examples("audiohook demo", "audiohook demo --wav call.wav"))
def demo(
    *,
    recordings_dir: Annotated[
        Path, typer.Option(help="Where the recording is to be stored.")
    ] = Path("recordings"),
    wav: Annotated[Path | None, typer.Option(help="Play this WAV instead.")] = None,
) -> None:
    """Play one simulated call through a service of its own, and show the result."""
    logs.configure("auto", logging.WARNING)
    console = make_console()
    sys.exit(run_demo(recordings_dir, wav, console, log=own_log()))


@app.command(epilog=examples("audiohook stand-in --port 8100 --fail 0.1"))
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

    It fetches the audio and finds who speaks when, but the words are its own.
    From this machine, GET /stand-in/statistics tells what it has done, and POST
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
