"""Disks of a test's own, in memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def mounted(folder: Path, options: str, *, lazy: bool = False) -> Iterator[None]:
    """Mounts a disk while the block lasts; skips the test where nobody may.

    Args:
        folder: Where; it is made.
        options: As for ``mount``, such as ``size=512k``.
        lazy: Whether files of it may still be open at the end.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk")
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "audiohook-test", str(folder)]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    if done.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        how = ["--lazy"] if lazy else []
        subprocess.run(["umount", *how, str(folder)], check=True)
