"""Where commands print to."""

from __future__ import annotations

import os
from typing import Final

from rich.console import Console

# No table is as wide.
_WIDE_CHARS: Final = 10_000


def make_console(*, stderr: bool = False, markup: bool = True) -> Console:
    """Makes a console that breaks no line.

    A terminal does so itself; and whoever reads a pipe looks for whole lines, in which
    no cell of a table was cut to fit into 80 columns either.

    Args:
        stderr: Whether it prints to standard error.
        markup: Whether words in brackets may be styles.
    """
    console = Console(stderr=stderr, highlight=False, soft_wrap=True, markup=markup)
    if not console.is_terminal and not os.environ.get("COLUMNS"):
        console.width = _WIDE_CHARS
    return console
