"""``python -m audiohook``, the same as the command ``audiohook``."""

from audiohook.cli import main

if __name__ == "__main__":
    main()
