"""What ``audiohook load`` does: calls, then their recordings, then the verdict."""

from __future__ import annotations

import json
import signal
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from audiohook.errors import ConfigError
from audiohook.simulator.load.control import Crew
from audiohook.simulator.load.display import Display, show_figures, show_verdict
from audiohook.simulator.load.manifest import read_manifest
from audiohook.simulator.load.shelf import open_shelf
from audiohook.simulator.load.verify import STORE_SECONDS, verify

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from audiohook.simulator.load.options import LoadOptions
    from audiohook.simulator.load.verify import Verdict

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadCommand:
    """What is asked for.

    Attributes:
        load: The calls to make; None to verify only.
        manifest: Where to write what was sent, or to read it if there is no load.
        store: Folder or ``s3://bucket/prefix`` in which to look for recordings.
        raw_only: Look only at the audio as received there.
        wait: How long to wait for recordings, in seconds.
        report: Where to write the figures as JSON.

    Raises:
        ConfigError: It does not go together.
    """

    load: LoadOptions | None = None
    manifest: Path | None = None
    store: str | None = None
    raw_only: bool = False
    wait: float = STORE_SECONDS
    report: Path | None = None

    def __post_init__(self) -> None:
        """Check it.

        Raises:
            ConfigError: It does not go together.
        """
        if self.load is None and (self.store is None or self.manifest is None):
            raise ConfigError(
                "name the server to call, or --verify with the --manifest of a load"
            )


@dataclass(slots=True)
class _Outcome:
    interrupted: bool = False
    verdict: Verdict | None = None


def run_load(command: LoadCommand, console: Console) -> int:
    """Do what is asked for, and print how it goes.

    Args:
        command: What.
        console: Where to print.

    Returns:
        0 if all went well; 1 if a call failed, a recording is not as it has to
        be, or we were too slow ourselves; 130 after Ctrl-C.

    Raises:
        AudioHookError: It cannot be done; it may be in groups.
    """
    with _manifest(command) as manifest:
        return trio.run(_run, command, manifest, console)


@contextmanager
def _manifest(command: LoadCommand) -> Iterator[Path | None]:
    """Give the manifest a place, for the time being if nobody wants to keep it."""
    if command.manifest is not None or command.store is None:
        yield command.manifest
        return
    with tempfile.TemporaryDirectory(prefix="audiohook-load-") as folder:
        yield Path(folder) / "manifest.jsonl"


async def _run(command: LoadCommand, manifest: Path | None, console: Console) -> int:
    outcome = _Outcome()
    crew: Crew | None = None
    with Display(console) as display:
        if command.load is not None:
            crew = Crew(command.load, manifest, display.progress)
            await _make_calls(crew, display, outcome)
        if crew is not None and crew.faults and not crew.figures.begun:
            raise ConfigError(crew.faults[0])
        if command.store is not None and manifest is not None:
            outcome.verdict = await _verify(command, command.store, manifest, display)
    if command.load is not None and crew is not None:
        show_figures(console, command.load, crew.figures)
        for fault in crew.faults:
            display.note(fault)
    if outcome.verdict is not None:
        show_verdict(console, outcome.verdict)
    if command.report is not None:
        await _write_report(command.report, crew, outcome.verdict)
    if outcome.interrupted:
        return EXIT_INTERRUPTED
    return EXIT_OK if _is_good(crew, outcome.verdict) else EXIT_FAILED


async def _make_calls(crew: Crew, display: Display, outcome: _Outcome) -> None:
    """Make the calls; a first Ctrl-C ends them as they should, a second at once."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                async for _ in signals:
                    if outcome.interrupted:
                        nursery.cancel_scope.cancel()
                    outcome.interrupted = True
                    display.note("closing all calls; once more drops them")
                    await crew.stop()

            nursery.start_soon(listen)
            await crew.run()
            nursery.cancel_scope.cancel()


async def _verify(
    command: LoadCommand, store: str, manifest: Path, display: Display
) -> Verdict:
    calls = await trio.to_thread.run_sync(lambda: list(read_manifest(manifest)))
    shelf = await trio.to_thread.run_sync(open_shelf, store)
    return await verify(
        calls,
        shelf,
        raw_only=command.raw_only,
        wait=command.wait,
        tell=lambda done: display.verifying(done, len(calls)),
    )


def _is_good(crew: Crew | None, verdict: Verdict | None) -> bool:
    if crew is not None and (
        crew.faults or crew.figures.failed or crew.figures.fell_behind
    ):
        return False
    return verdict is None or not verdict.faults


def report(crew: Crew | None, verdict: Verdict | None) -> dict[str, object]:
    """Sum up what came of it, for programs."""
    figures: dict[str, object] = {}
    if crew is not None:
        figures |= crew.figures.summary() | {"process_faults": crew.faults}
    if verdict is not None:
        figures |= {
            "verified": verdict.sound,
            "compared_bytes": verdict.audio_bytes,
            "faults": verdict.faults,
        }
    return figures


async def _write_report(path: Path, crew: Crew | None, verdict: Verdict | None) -> None:
    text = json.dumps(report(crew, verdict), indent=2) + "\n"
    try:
        await trio.Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
