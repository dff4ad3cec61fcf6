"""``python -m audiohook``, and the command ``audiohook``.

Whoever presses Ctrl-C while the modules are being read, which takes a second, gets
no traceback: so this module reads nothing before it is ready for that.
"""

import sys

_EXIT_INTERRUPTED = 130


def main() -> None:
    """Runs the command; ends the process with its exit code."""
    try:
        from audiohook.cli import main as run

        run()
    except* KeyboardInterrupt:
        sys.exit(_EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
