"""What a test starts ends with it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.children import child

if TYPE_CHECKING:
    import subprocess


def test_process_is_ended_by_a_test_that_fails() -> None:
    started: list[subprocess.Popen[str]] = []

    def fail() -> None:
        with child(["sleep", "600"]) as process:
            started.append(process)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [each.returncode for each in started] == [-signal.SIGKILL]


def test_process_that_has_ended_keeps_its_code() -> None:
    with child(["sh", "-c", "exit 3"]) as process:
        assert process.wait(30) == 3
    assert process.returncode == 3
