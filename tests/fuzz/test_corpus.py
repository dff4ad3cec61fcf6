"""What fuzzers have found, and what they began with, once each."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.fuzz.targets import CORPUS, TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# No input takes a hundredth of it.
HANG_SECONDS = 10.0

INPUTS = sorted(path for path in CORPUS.glob("*/*"))


@contextmanager
def no_hang() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, HANG_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    "path", INPUTS, ids=lambda path: f"{path.parent.name}-{path.name}"
)
def test_input_does_no_harm(path: Path) -> None:
    with no_hang():
        TARGETS[path.parent.name](path.read_bytes())


def test_every_target_has_inputs() -> None:
    assert {path.parent.name for path in INPUTS} == set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_does_no_harm(name: str) -> None:
    with no_hang():
        TARGETS[name](b"")
