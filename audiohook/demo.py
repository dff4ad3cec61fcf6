"""One simulated call through a service of its own, and what came out of it."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio
from rich.table import Table

from audiohook import _ulaw, settings
from audiohook.errors import ConfigError
from audiohook.keys import configured_keys
from audiohook.recording.wav import read_info
from audiohook.service import Service
from audiohook.simulator.assemblyai import DEFAULT_KEY, Pace, StandIn
from audiohook.simulator.client import place_call
from audiohook.simulator.dialogue import Dialogue
from audiohook.simulator.options import CallOptions
from audiohook.storing import SPOOL_FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from structlog.typing import FilteringBoundLogger

    from audiohook.settings import Settings
    from audiohook.simulator.report import CallReport

SECONDS = 1.0

_KEY_BYTES = 24
_JOB_SECONDS = 1 * SECONDS
# To store and transcribe; the first look at a job comes after three seconds.
_SETTLE_DEADLINE = 30 * SECONDS
_LOOK_INTERVAL = 0.05 * SECONDS

_FILES: Final = {
    "audio": (".wav", ".raw", ".dat"),
    "transcripts": (".json", ".txt", ".srt", ".vtt"),
}
"""What a recording has, by its folders, besides ``call.json``."""


def run_demo(
    recordings_dir: Path,
    wav: Path | None,
    console: Console,
    *,
    log: FilteringBoundLogger,
) -> int:
    """Plays one call, and shows the dialogue, the recording and the transcript.

    A stand-in for AssemblyAI makes the transcript. So nothing that waits in the
    folder's own spool may be touched, and the call is recorded beside it first.

    Args:
        recordings_dir: Where the recording is to be.
        wav: What the caller plays; None for a built-in conversation.
        console: Where to print.
        log: Where the service writes its lines.

    Returns:
        0 if all went well, 1 if not.

    Raises:
        ConfigError: The WAV or the folder cannot be used.
    """
    try:
        recordings_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".demo-", dir=recordings_dir) as stage:
            report, conversation = _play(Path(stage), wav, console, log=log)
            folders = _move(Path(stage), recordings_dir, conversation)
    except OSError as error:
        raise ConfigError(
            f"--recordings-dir: {recordings_dir}: {error.strerror or error}; it must"
            " be a folder that this user may write to, for example recordings"
        ) from error
    if not folders:
        console.print("nothing was recorded", style="red")
        return 1
    complete = [_show(folder, console) for folder in folders]
    return 0 if report.ok and all(complete) else 1


def _play(
    stage: Path, wav: Path | None, console: Console, *, log: FilteringBoundLogger
) -> tuple[CallReport, str]:
    """Plays one call; returns how it went, and its conversation's id."""
    key = secrets.token_urlsafe(_KEY_BYTES)
    standin = StandIn(pace=Pace(processing=_JOB_SECONDS))

    async def run() -> tuple[CallReport, str]:
        async with trio.open_nursery() as nursery:
            url = await nursery.start(standin.serve)
            chosen = _settings(stage, key, url)
            service = Service(chosen, configured_keys(chosen), log=log)
            port = await nursery.start(service.run)
            options = CallOptions(
                uri=f"ws://127.0.0.1:{port}/demo", wav=wav, api_key=key
            )
            report = await place_call(options, dialogue=Dialogue(console))
            with trio.move_on_after(_SETTLE_DEADLINE):
                # A call leaves the spool when nothing is left to be done for it.
                while any((stage / SPOOL_FOLDER).glob("*-*-*-*-*")):  # noqa: ASYNC110 - files tell nobody
                    await trio.sleep(_LOOK_INTERVAL)
            service.stop()
            await service.wait_stopped()
            nursery.cancel_scope.cancel()
        return report, options.conversation_id

    return trio.run(run)


def _settings(stage: Path, key: str, transcriber: str) -> Settings:
    """Makes the settings of the service.

    Those of the environment do not count: the demonstration must not end in
    somebody's bucket.
    """
    with _without_settings():
        return settings.load(
            env_file=Path(os.devnull),
            port=0,
            host="127.0.0.1",
            admin_port=0,
            api_key=key,
            recordings_dir=stage,
            assemblyai_api_key=DEFAULT_KEY,
            assemblyai_base_url=transcriber,
        )


@contextmanager
def _without_settings() -> Iterator[None]:
    """Has no setting in the environment while the block lasts."""
    names = {name.upper() for name in settings.Settings.model_fields}
    names.add("CREDENTIALS_DIRECTORY")
    hidden = {name: os.environ.pop(name) for name in names & os.environ.keys()}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _move(stage: Path, recordings_dir: Path, conversation: str) -> list[Path]:
    """Moves recordings to where they belong; returns their folders."""
    moved = []
    for folder in sorted(stage.glob(f"*/*{conversation}*")):
        target = recordings_dir / folder.relative_to(stage)
        target.parent.mkdir(exist_ok=True)
        moved.append(folder.rename(target))
    return moved


def _show(folder: Path, console: Console) -> bool:
    """Prints what was said, where each file is, and what the WAV holds.

    Returns:
        Whether nothing is missing.
    """
    name = folder.name
    text = folder / "transcripts" / f"{name}.txt"
    if text.is_file():
        console.print(text.read_text(), markup=False)
    missing = 0
    for path in _expected(folder):
        if path.is_file():
            console.print(f"{path}  {path.stat().st_size:,} bytes", markup=False)
        else:
            missing += 1
            console.print(f"{path}  is missing", markup=False, style="red")
    if not missing:
        console.print(_channels(folder))
    return not missing and text.stat().st_size > 0


def _expected(folder: Path) -> list[Path]:
    """Names all files that a recording with its transcript has."""
    return [
        *(
            folder / place / f"{folder.name}{ending}"
            for place, endings in _FILES.items()
            for ending in endings
        ),
        folder / "call.json",
    ]


def _channels(folder: Path) -> Table:
    facts = json.loads((folder / "call.json").read_bytes())
    table = Table("channel", "length", "peak", "RMS")
    path = folder / "audio" / f"{folder.name}.wav"
    with path.open("rb") as stream:
        info = read_info(stream)
    seconds = info.data_bytes / (info.rate_hz * info.channels * info.bits // 8)
    levels = _levels(path.with_suffix(".raw"), info.channels)
    names = facts["media"]["channels"]
    for name, (peak, rms) in zip(names, levels, strict=True):
        table.add_row(name, f"{seconds:.3f} s", str(peak), f"{rms:.0f}")
    return table


def _levels(raw: Path, channels: int) -> tuple[tuple[int, float], ...]:
    return _ulaw.peak_rms(raw.read_bytes(), channels)
