"""Settings and fixtures that all tests share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

import pytest
import structlog.testing
from hypothesis import HealthCheck, settings

from tests.ports import reserved_ports

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

settings.register_profile("default", deadline=None, max_examples=100)
settings.register_profile(
    "ci", deadline=None, max_examples=300, derandomize=True, print_blob=True
)
# Under sanitizers each example takes several times as long.
settings.register_profile(
    "sanitize",
    deadline=None,
    max_examples=60,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "nightly",
    deadline=None,
    max_examples=20_000,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    """Lines of our log, as they are written: each a dict, with its ``event``."""
    with structlog.testing.capture_logs() as captured:
        yield cast("list[Any]", captured)


@pytest.fixture
def port() -> Iterator[int]:
    """A port that has to be known before anybody listens on it."""
    with reserved_ports(1) as (found,):
        yield found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where every judge is said to be installed, a skipped test is a failed one."""
    report = yield
    if report.skipped and os.environ.get("AUDIOHOOK_FORBID_SKIPS"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be: {report.longreprtext}"
    return report
