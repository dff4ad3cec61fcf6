"""Runs all checks, and prints a line on each thing that was tried."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from audiohook.checks.store import check_storage
from audiohook.checks.transcription import check_transcription

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from rich.console import Console

    from audiohook.settings import Settings
    from audiohook.verdict import Verdict

CHECKS: Final[Sequence[Callable[[Settings], AsyncGenerator[Verdict, None]]]] = (
    check_storage,
    check_transcription,
)
"""Each tries things one after another, and yields a verdict on each."""


async def run_checks(settings: Settings, console: Console) -> int:
    """Tries everything, and prints a line on each.

    Returns:
        0 if all works, 1 if anything does not.
    """
    failed = 0
    for check in CHECKS:
        async with aclosing(check(settings)) as verdicts:
            async for verdict in verdicts:
                failed += not verdict.ok
                _print(verdict, console)
    return 1 if failed else 0


def _print(verdict: Verdict, console: Console) -> None:
    mark = "[green]✓[/]" if verdict.ok else "[red]✗[/]"
    console.print(mark, end=" ")
    console.print(verdict.what, markup=False)
    if verdict.mend:
        console.print(f"  → {verdict.mend}", markup=False)
