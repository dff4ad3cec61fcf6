"""One simulated call through a service of its own, and what came out of it."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from rich.table import Table

from audiohook import _ulaw, settings
from audiohook.authentication import configured_keys
from audiohook.recording.wav import read_info
from audiohook.service import Service
from audiohook.simulator.client import place_call
from audiohook.simulator.dialogue import Dialogue
from audiohook.simulator.options import CallOptions

if TYPE_CHECKING:
    from rich.console import Console
    from structlog.typing import FilteringBoundLogger

    from audiohook.simulator.report import CallReport

_KEY_BYTES = 24


def run_demo(
    recordings_dir: Path,
    wav: Path | None,
    console: Console,
    *,
    log: FilteringBoundLogger,
) -> int:
    """Plays one call, and shows the dialogue and the recording.

    Args:
        recordings_dir: Where the service stores.
        wav: What the caller plays; None for a built-in conversation.
        console: Where to print.
        log: Where the service writes its lines.

    Returns:
        0 if all went well, 1 if not.

    Raises:
        ConfigError: The WAV or the folder cannot be used.
    """
    key = secrets.token_urlsafe(_KEY_BYTES)
    chosen = settings.load(
        env_file=Path(os.devnull),
        port=0,
        host="127.0.0.1",
        admin_port=0,
        api_key=key,
        recordings_dir=recordings_dir,
    )
    service = Service(chosen, configured_keys(chosen), log=log)
    reports: list[CallReport] = []
    conversations: list[str] = []

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            port = await nursery.start(service.run)
            options = CallOptions(
                uri=f"ws://127.0.0.1:{port}/demo", wav=wav, api_key=key
            )
            conversations.append(options.conversation_id)
            reports.append(await place_call(options, dialogue=Dialogue(console)))
            service.stop()

    trio.run(run)
    ok = all(report.ok for report in reports)
    for conversation in conversations:
        folders = sorted(recordings_dir.glob(f"{chosen.s3_key_prefix}*{conversation}*"))
        ok = bool(folders) and ok
        for folder in folders:
            _show(folder, console)
    return 0 if ok else 1


def _show(folder: Path, console: Console) -> None:
    """Prints where each file of a recording is, and what the WAV holds."""
    facts = json.loads((folder / "call.json").read_bytes())
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            console.print(f"{path}  {path.stat().st_size:,} bytes", markup=False)
    table = Table("channel", "length", "peak", "RMS")
    for path in sorted(folder.glob("audio/*.wav")):
        with path.open("rb") as stream:
            info = read_info(stream)
        seconds = info.data_bytes / (info.rate_hz * info.channels * info.bits // 8)
        levels = _levels(path.with_suffix(".raw"), info.channels)
        names = facts["media"]["channels"]
        for name, (peak, rms) in zip(names, levels, strict=True):
            table.add_row(name, f"{seconds:.3f} s", str(peak), f"{rms:.0f}")
    console.print(table)


def _levels(raw: Path, channels: int) -> tuple[tuple[int, float], ...]:
    return _ulaw.peak_rms(raw.read_bytes(), channels)
