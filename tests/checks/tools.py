"""Checks, run as a person would run them."""

from __future__ import annotations

import io
import os
from pathlib import Path

from rich.console import Console

from audiohook import settings
from audiohook.checks import Expectations, Findings, run_checks


def load(**flags: object) -> settings.Settings:
    return settings.load(env_file=Path(os.devnull), **flags)


async def checked(*only: str, **flags: object) -> tuple[int, str]:
    """Runs checks; returns the exit code and what was printed.

    Args:
        *only: Their names; none for those of the services that are used.
        **flags: Settings.
    """
    return await judged(Expectations(env_file=Path(os.devnull)), *only, **flags)


async def judged(
    expectations: Expectations, *only: str, **flags: object
) -> tuple[int, str]:
    """Runs checks that judge by more than the settings."""
    out = io.StringIO()
    code = await run_checks(
        load(**flags),
        Findings(Console(file=out, width=500)),
        expectations=expectations,
        only=only or ("storage", "transcription"),
    )
    return code, out.getvalue()
