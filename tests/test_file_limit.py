from __future__ import annotations

import resource

import pytest

from audiohook.errors import ConfigError
from audiohook.file_limit import handshakes_within, raise_file_limit


class FakeLimits:
    """The limits of a process, as the kernel keeps them."""

    def __init__(self, soft: int, hard: int, *, locked: bool = False) -> None:
        self.soft = soft
        self.hard = hard
        self._locked = locked

    def get(self, what: int) -> tuple[int, int]:
        assert what == resource.RLIMIT_NOFILE
        return self.soft, self.hard

    def set(self, what: int, limits: tuple[int, int]) -> None:
        assert what == resource.RLIMIT_NOFILE
        if self._locked:
            raise ValueError("not allowed to raise maximum limit")
        self.soft, self.hard = limits


def use(monkeypatch: pytest.MonkeyPatch, limits: FakeLimits) -> None:
    monkeypatch.setattr(resource, "getrlimit", limits.get)
    monkeypatch.setattr(resource, "setrlimit", limits.set)


def test_limit_is_raised_as_far_as_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = FakeLimits(1024, 524_288)
    use(monkeypatch, limits)
    raise_file_limit(None)
    assert (limits.soft, limits.hard) == (524_288, 524_288)


@pytest.mark.parametrize(("calls", "enough"), [(1000, 2256), (1, 258)])
def test_as_many_files_as_the_calls_need(
    monkeypatch: pytest.MonkeyPatch, calls: int, enough: int
) -> None:
    use(monkeypatch, FakeLimits(256, enough))
    raise_file_limit(calls)
    use(monkeypatch, FakeLimits(256, enough - 1))
    with pytest.raises(ConfigError) as caught:
        raise_file_limit(calls)
    line = str(caught.value)
    assert line.startswith(f"MAX_CALLS: {calls} calls need {enough} open files")
    assert "\n" not in line


def test_number_that_would_do_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = FakeLimits(1024, 4096)
    use(monkeypatch, limits)
    with pytest.raises(ConfigError, match="lower it to 1920 or raise LimitNOFILE"):
        raise_file_limit(5000)
    raise_file_limit(1920)


def test_limit_that_cannot_be_raised_is_taken_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(monkeypatch, FakeLimits(1024, 4096, locked=True))
    raise_file_limit(None)
    raise_file_limit(384)
    with pytest.raises(ConfigError, match="the limit is 1024"):
        raise_file_limit(385)


def test_no_limit_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    infinity = resource.RLIM_INFINITY
    use(monkeypatch, FakeLimits(infinity, infinity))
    raise_file_limit(1_000_000)


@pytest.mark.parametrize(
    ("files", "handshakes"),
    [(resource.RLIM_INFINITY, 4096), (524_288, 4096), (1024, 256), (20, 16)],
)
def test_handshakes_leave_files_for_calls(
    monkeypatch: pytest.MonkeyPatch, files: int, handshakes: int
) -> None:
    use(monkeypatch, FakeLimits(min(files, 1024), files))
    assert handshakes_within(4096) == handshakes
    assert handshakes_within(8) == 8
