"""Processes that a test starts, and that do not outlive it whatever happens."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@contextmanager
def child(
    command: Sequence[str],
    **options: Any,  # noqa: ANN401 - those of `subprocess.Popen`
) -> Iterator[subprocess.Popen[str]]:
    """Runs a process for as long as the block lasts.

    At the end of its own block `subprocess.Popen` waits for as long as the process
    likes: a server that nobody has told to end, since the test failed before.
    """
    with subprocess.Popen(command, text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()
