"""Whether the machine lets the service have what it needs, and no more."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Final

from audiohook.file_limit import calls_within, files_needed
from audiohook.verdict import bad, doubtful, good

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from audiohook.checks.expectations import Expectations
    from audiohook.settings import Settings
    from audiohook.verdict import Verdict

# Source: sd_booted(3).
SYSTEMD: Final = Path("/run/systemd/system")
UNITS: Final = (
    Path("/etc/systemd/system/audiohook.service"),
    Path("/etc/systemd/system/audiohook@.service"),
)
_FEW_CALLS: Final = 1000


async def check_machine(
    settings: Settings, _: Expectations
) -> AsyncGenerator[Verdict, None]:
    """Looks at limits, the user, and the service manager.

    Yields:
        A verdict on each.
    """
    yield _files(settings.max_calls)
    if os.geteuid() == 0:
        yield doubtful(
            "run as a user of its own",
            "this is root, which the service has no need of: run it as another user"
            " (`audiohook install-service` sees to it)",
        )
    else:
        yield good("run as a user without privileges")
    yield _manager()


def _files(max_calls: int | None) -> Verdict:
    """Judge the limit that the service will raise its own to."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return good("open files without a limit")
    fit = calls_within(hard)
    what = f"open files: {hard:,} allow {fit:,} calls at a time"
    if max_calls is None:
        if fit < _FEW_CALLS:
            return doubtful(
                what,
                "those beyond fail: set MAX_CALLS, or raise LimitNOFILE (ulimit -Hn);"
                " this shell's limit need not be that of the service",
            )
        return good(what)
    if fit < max_calls:
        return bad(
            what,
            f"MAX_CALLS is {max_calls:,}: lower it to {fit:,}, or raise LimitNOFILE"
            f" (ulimit -Hn) to {files_needed(max_calls):,}",
        )
    return good(f"{what}, MAX_CALLS is {max_calls:,}")


def _manager() -> Verdict:
    if not SYSTEMD.is_dir():
        return good(
            "systemd does not run here",
            "see that something starts the service again: a container's restart"
            " policy, for example",
        )
    if not any(unit.exists() for unit in UNITS):
        return good(
            "systemd runs here, without a unit of ours",
            "`audiohook install-service` writes one",
        )
    return good("systemd has a unit of ours")
