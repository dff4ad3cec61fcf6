"""Whether what was set is what was meant.

Settings that cannot be used never come this far: `audiohook.settings.load` tells
them all. Here is what can be used, and is likely to be a slip of the pen.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from audiohook.setting_sources import read_env_file, resembles
from audiohook.settings import setting_names
from audiohook.verdict import doubtful, good

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from audiohook.checks.expectations import Expectations
    from audiohook.settings import Settings
    from audiohook.verdict import Verdict


async def check_settings(
    _: Settings, expected: Expectations
) -> AsyncGenerator[Verdict, None]:
    """Looks at where the settings come from.

    Yields:
        A verdict on each source that somebody ought to look at.
    """
    known = frozenset(setting_names())
    path = expected.env_file
    in_file = read_env_file(path, known).values.keys() & known
    in_environment = known & expected.environment
    yield _sources(path, len(in_file), len(in_environment))
    for name in sorted(expected.environment - known):
        meant = resembles(name, known)
        if meant and not name.startswith("AWS_") and name.isupper():
            yield doubtful(
                f"{name} in the environment",
                f"is not a setting and is passed over; did you mean {meant}?",
            )
    if in_file & in_environment:
        both = ", ".join(sorted(in_file & in_environment))
        yield good(
            f"{path} and the environment agree on who wins",
            f"the environment does, for {both}",
        )
    if fault := exposed(path):
        yield doubtful(f"keep {path} to its owner", f"{fault}: chmod 600 {path}")


def exposed(path: Path) -> str:
    """Say who else may read a file with secrets; nothing if nobody may.

    Args:
        path: The file; it may be absent.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return ""
    if not stat.S_ISREG(mode):
        return ""
    if mode & stat.S_IWOTH:
        return "everybody on this machine may change it"
    if mode & stat.S_IROTH:
        return "everybody on this machine may read it"
    return ""


def _sources(path: Path, in_file: int, in_environment: int) -> Verdict:
    if path.exists():
        from_file = f"{in_file} from {path}"
    else:
        from_file = f"none from {path}, which is not there"
    return good(f"read the settings: {from_file}, {in_environment} of the environment")
