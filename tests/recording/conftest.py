"""Disks that refuse, for tests of the spool."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from audiohook.recording import _files, disk

if TYPE_CHECKING:
    from collections.abc import Callable

    from audiohook.recording._files import Journals, Lock
    from tests.recording.factory import Calls

    Requests = list[tuple[bytes, bytes, bytes, bytes | None]]
    Made = list[tuple[int, int, int, Lock | None]]


@pytest.fixture
def failing(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str, int], Callable[[], None]]:
    """Lets a function of `os` fail with an errno until told otherwise."""

    def fail(name: str, code: int) -> Callable[[], None]:
        original = getattr(os, name)
        broken = True

        def function(*args: object, **kwargs: object) -> object:
            if broken:
                raise OSError(code, os.strerror(code))
            return original(*args, **kwargs)

        def mend() -> None:
            nonlocal broken
            broken = False

        monkeypatch.setattr(os, name, function)
        return mend

    return fail


@pytest.fixture
def full(
    monkeypatch: pytest.MonkeyPatch, failing: Callable[[str, int], Callable[[], None]]
) -> Callable[[int], Callable[[], None]]:
    """Lets no byte be written, with an errno, until told otherwise."""
    write_steps, create_all = disk.write_steps, _files.create_all

    def refuse(code: int) -> Callable[[], None]:
        broken = True
        mend_python = failing("pwrite", code)

        def write(journals: Journals, calls: Calls) -> None:
            if not broken:
                write_steps(journals, calls)
                return
            for _, steps in calls:
                for step in steps:
                    step.failure = OSError(code, os.strerror(code))

        def create(spool_fd: int, requests: Requests, **rest: int) -> Made:
            if not broken:
                return create_all(
                    spool_fd,
                    requests,
                    journal_room_bytes=rest["journal_room_bytes"],
                    keep_file=bool(rest["keep_file"]),
                )
            return [(code, 0, -1, None)]

        def mend() -> None:
            nonlocal broken
            broken = False
            mend_python()

        monkeypatch.setattr(disk, "write_steps", write)
        monkeypatch.setattr(_files, "create_all", create)
        return mend

    return refuse
