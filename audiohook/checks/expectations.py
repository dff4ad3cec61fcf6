"""What an operator expects, and no setting tells."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Expectations:
    """What the checks judge by, besides the settings.

    Attributes:
        public_name: The name that Genesys is to connect to, if it is known.
        minutes: How long calls are, on average.
        env_file: Where the settings were looked for.
        environment: Names that the environment has a value for, besides what we have
            put there ourselves for botocore.
    """

    public_name: str | None = None
    minutes: float = 10.0
    env_file: Path = Path(".env")
    environment: frozenset[str] = field(default_factory=lambda: names_in_environment())


def names_in_environment() -> frozenset[str]:
    """Return the names that the environment has a value for."""
    return frozenset(name for name, value in os.environ.items() if value)
