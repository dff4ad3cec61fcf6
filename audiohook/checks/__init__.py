"""``audiohook check``: the settings, tried for real, a module for each kind."""

from audiohook.checks.run import run_checks
from audiohook.checks.store import describe_permissions

__all__ = ["describe_permissions", "run_checks"]
