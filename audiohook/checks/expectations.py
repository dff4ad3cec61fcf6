"""What an operator expects, and no setting tells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Expectations:
    """What the checks judge by, besides the settings.

    Attributes:
        public_name: The name that Genesys is to connect to, if it is known.
        minutes: How long calls are, on average.
        env_file: Where the settings were looked for.
    """

    public_name: str | None = None
    minutes: float = 10.0
    env_file: Path = Path(".env")
