"""Runs all checks, and prints a line on each thing that was tried."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from audiohook.checks.clock import check_clock
from audiohook.checks.expectations import Expectations
from audiohook.checks.keys import check_keys
from audiohook.checks.machine import check_machine
from audiohook.checks.ports import check_ports
from audiohook.checks.settings import check_settings
from audiohook.checks.spool import check_spool
from audiohook.checks.store import check_storage
from audiohook.checks.tls import check_tls
from audiohook.checks.transcription import check_transcription
from audiohook.errors import ConfigError
from audiohook.verdict import bad

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Collection, Mapping

    from rich.console import Console

    from audiohook.settings import Settings
    from audiohook.verdict import Verdict

CHECKS: Final[
    Mapping[str, Callable[[Settings, Expectations], AsyncGenerator[Verdict, None]]]
] = {
    "settings": check_settings,
    "keys": check_keys,
    "tls": check_tls,
    "machine": check_machine,
    "ports": check_ports,
    "clock": check_clock,
    "spool": check_spool,
    "storage": check_storage,
    "transcription": check_transcription,
}
"""Each tries things one after another, and yields a verdict on each."""


class Findings:
    """What came of the checks so far, told as it comes or as JSON at the end.

    Args:
        console: Where to print.
        as_json: Print one JSON object at the end, and nothing before.
    """

    def __init__(self, console: Console, *, as_json: bool = False) -> None:
        self._console = console
        self._as_json = as_json
        self._all: list[tuple[str, Verdict]] = []

    @property
    def exit_code(self) -> int:
        """0 if all works, 1 if anything does not."""
        return 0 if all(verdict.ok for _, verdict in self._all) else 1

    def add(self, check: str, verdict: Verdict) -> None:
        """Takes in a verdict.

        Args:
            check: Name of the check that it is of.
            verdict: What came of it.
        """
        self._all.append((check, verdict))
        if not self._as_json:
            self._print(verdict)

    async def gather(self, check: str, verdicts: AsyncGenerator[Verdict, None]) -> None:
        """Takes in all verdicts of a check."""
        async with aclosing(verdicts):
            async for verdict in verdicts:
                self.add(check, verdict)

    def close(self) -> int:
        """Prints what is left to be printed; returns the exit code."""
        if self._as_json:
            report = {
                "ok": self.exit_code == 0,
                "verdicts": [
                    {
                        "check": check,
                        "result": _result(verdict),
                        "what": verdict.what,
                        "mend": verdict.mend,
                    }
                    for check, verdict in self._all
                ],
            }
            text = json.dumps(report, indent=2, ensure_ascii=False)
            self._console.print(text, markup=False)
        return self.exit_code

    def _print(self, verdict: Verdict) -> None:
        mark = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "fault": "[red]✗[/]"}
        self._console.print(mark[_result(verdict)], end=" ")
        self._console.print(verdict.what, markup=False)
        if verdict.mend:
            self._console.print(f"  → {verdict.mend}", markup=False)


def _result(verdict: Verdict) -> str:
    if not verdict.ok:
        return "fault"
    return "warning" if verdict.warns else "ok"


def tell_config_fault(error: ConfigError, findings: Findings) -> int:
    """Tells settings that cannot be used, each by itself.

    Returns:
        The exit code.
    """
    for line in str(error).splitlines():
        name, _, fault = line.partition(": ")
        findings.add("settings", bad(name, fault) if fault else bad("settings", name))
    return findings.close()


async def run_checks(
    settings: Settings,
    findings: Findings,
    *,
    expectations: Expectations | None = None,
    only: Collection[str] = (),
) -> int:
    """Tries everything, and tells of each thing.

    Args:
        settings: What to try.
        findings: Gets the verdicts.
        expectations: What else to judge by.
        only: Names of `CHECKS`; none for all.

    Returns:
        0 if all works, 1 if anything does not.

    Raises:
        ConfigError: There is no check of such a name.
    """
    if unknown := set(only) - CHECKS.keys():
        raise ConfigError(
            f"--only: there is no check {min(unknown)}; there are {', '.join(CHECKS)}"
        )
    expected = expectations or Expectations()
    for name, check in CHECKS.items():
        if not only or name in only:
            await findings.gather(name, check(settings, expected))
    return findings.close()
