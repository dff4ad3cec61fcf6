"""Checks, run as a person would run them."""

from __future__ import annotations

import io
import os
from pathlib import Path

from rich.console import Console

from audiohook import settings
from audiohook.checks import run_checks


def load(**flags: object) -> settings.Settings:
    return settings.load(env_file=Path(os.devnull), **flags)


async def checked(**flags: object) -> tuple[int, str]:
    """Runs all checks; returns the exit code and what was printed."""
    out = io.StringIO()
    code = await run_checks(load(**flags), Console(file=out, width=300))
    return code, out.getvalue()
