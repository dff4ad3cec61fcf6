"""``python -m audiohook``, and the command ``audiohook``.

Whoever presses Ctrl-C while the modules are being read, which takes a second, gets
no traceback: so this module reads nothing before it is ready for that.
"""

import os
import sys

_EXIT_INTERRUPTED = 130


def main() -> None:
    """Runs the command; ends the process with its exit code."""
    _fill_standard_streams()
    try:
        from audiohook.cli import main as run

        run()
    except* KeyboardInterrupt:
        sys.exit(_EXIT_INTERRUPTED)


def _fill_standard_streams() -> None:
    """Puts nothing in place of standard streams that whoever started us has closed.

    The first files and sockets of ours would get their numbers, and what a library
    in C writes to standard error would go into a recording.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # It gets the lowest number that is free, which is this.
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
            setattr(sys, name, stream)


if __name__ == "__main__":
    main()
