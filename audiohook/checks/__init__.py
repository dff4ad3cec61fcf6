"""``audiohook check``: the settings, tried for real, a module for each kind."""

from audiohook.checks.expectations import Expectations, names_in_environment
from audiohook.checks.outside import Approach, approach_of, check_from_outside
from audiohook.checks.run import CHECKS, Findings, run_checks, tell_config_fault
from audiohook.checks.store import describe_permissions

__all__ = [
    "CHECKS",
    "Approach",
    "Expectations",
    "Findings",
    "approach_of",
    "check_from_outside",
    "describe_permissions",
    "names_in_environment",
    "run_checks",
    "tell_config_fault",
]
