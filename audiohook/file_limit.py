"""How many files, and so how many calls, the process may have open."""

from __future__ import annotations

import contextlib
import resource

from audiohook.errors import ConfigError

# A call has a socket and its audio open.
_FILES_PER_CALL = 2
_FILES_BESIDE = 256
# Of the files, so that connections which ask for nothing leave room for calls.
_SHARE_OF_HANDSHAKES = 4
_LEAST_HANDSHAKES = 16


def files_needed(max_calls: int) -> int:
    """Returns how many open files so many calls take."""
    return max_calls * _FILES_PER_CALL + _FILES_BESIDE


def calls_within(files: int) -> int:
    """Returns how many calls so many open files allow, at least one."""
    return max(1, (files - _FILES_BESIDE) // _FILES_PER_CALL)


def handshakes_within(most: int) -> int:
    """Returns how many connections may be open that are no call yet.

    More than the process may have files would keep new calls and health checks from
    being accepted at all, and make no room for them.

    Args:
        most: As many as there should be.
    """
    # What `raise_file_limit` makes of it.
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return most
    return min(most, max(_LEAST_HANDSHAKES, files // _SHARE_OF_HANDSHAKES))


def raise_file_limit(max_calls: int | None) -> None:
    """Raises the limit of open files as far as is allowed.

    Args:
        max_calls: Most calls at a time; None if there is no such limit.

    Raises:
        ConfigError: Even so there are too few for so many calls.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if max_calls is None:
        return
    needed = files_needed(max_calls)
    if soft != resource.RLIM_INFINITY and soft < needed:
        raise ConfigError(
            f"MAX_CALLS: {max_calls} calls need {needed} open files and the limit is"
            f" {soft}; lower it to {calls_within(soft)}"
            f" or raise LimitNOFILE (ulimit -Hn) to {needed}"
        )
