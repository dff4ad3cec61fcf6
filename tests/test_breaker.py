from __future__ import annotations

import math

import pytest

from audiohook.breaker import Breaker
from audiohook.errors import KeyExistsError, UploadError, UploadGoneError
from audiohook.storage.base import StoreFault, is_stores_own

AWAY = UploadError("away", fault=StoreFault.AWAY)
DENIED = UploadError("denied", retryable=False, fault=StoreFault.DENIED)


def make_breaker(jitter: float = 1.0) -> Breaker[UploadError]:
    return Breaker(lambda: jitter)


def open_breaker() -> Breaker[UploadError]:
    """One that opened at 0; the next trial is due at 1."""
    breaker = make_breaker()
    for _ in range(3):
        breaker.fail(breaker.begin(), AWAY, 0.0, lasting=False)
    assert breaker.is_open
    return breaker


def test_closed_breaker_lets_everybody_at_it() -> None:
    breaker = make_breaker()
    assert not breaker.is_open
    assert breaker.next_at == -math.inf
    breaker.begin()
    breaker.begin()
    assert breaker.next_at == -math.inf


def test_some_failures_in_a_row_open_it() -> None:
    breaker = make_breaker()
    for _ in range(2):
        breaker.fail(breaker.begin(), AWAY, 0.0, lasting=False)
        breaker.fail(breaker.begin(), AWAY, 0.0, lasting=False)
        assert not breaker.is_open
        breaker.succeed()
    breaker.fail(breaker.begin(), AWAY, 0.0, lasting=False)
    breaker.fail(breaker.begin(), AWAY, 0.0, lasting=False)
    breaker.fail(breaker.begin(), AWAY, 5.0, lasting=False)
    assert breaker.fault is AWAY
    assert breaker.next_at == 6.0


def test_one_trial_at_a_time_with_growing_pauses() -> None:
    breaker = open_breaker()
    pauses = []
    for _ in range(8):
        now = breaker.next_at
        attempt = breaker.begin()
        assert breaker.next_at == math.inf
        breaker.fail(attempt, AWAY, now, lasting=False)
        pauses.append(breaker.next_at - now)
    assert pauses == [2, 4, 8, 16, 30, 30, 30, 30]


@pytest.mark.parametrize("jitter", [0.0, 0.5])
def test_pauses_are_jittered(jitter: float) -> None:
    breaker = make_breaker(jitter)
    for _ in range(3):
        breaker.fail(breaker.begin(), AWAY, 0.0, lasting=False)
    assert breaker.next_at == 0.5 + jitter / 2


def test_what_must_be_mended_opens_it_at_once_and_is_tried_calmly() -> None:
    breaker = make_breaker()
    breaker.fail(breaker.begin(), DENIED, 0.0, lasting=True)
    assert breaker.fault is DENIED
    assert breaker.next_at == 30.0
    breaker.fail(breaker.begin(), DENIED, 30.0, lasting=True)
    assert breaker.next_at == 60.0


def test_first_success_closes_it_and_forgets_the_pauses() -> None:
    breaker = open_breaker()
    breaker.begin()
    breaker.succeed()
    assert breaker.next_at == -math.inf
    for _ in range(3):
        breaker.fail(breaker.begin(), AWAY, 100.0, lasting=False)
    assert breaker.next_at == 101.0


def test_those_that_went_before_it_opened_do_not_make_the_pause_longer() -> None:
    breaker = make_breaker()
    attempts = [breaker.begin() for _ in range(8)]
    for attempt in attempts:
        breaker.fail(attempt, AWAY, 0.0, lasting=False)
    assert breaker.next_at == 1.0
    # Nor do they end a trial that is under way.
    breaker.begin()
    breaker.fail(attempts[0], AWAY, 0.0, lasting=False)
    breaker.end(attempts[0])
    assert breaker.next_at == math.inf


def test_trial_that_got_through_and_fails_later_is_like_any_other() -> None:
    breaker = open_breaker()
    attempt = breaker.begin()
    breaker.succeed()
    breaker.fail(attempt, AWAY, 1.0, lasting=False)
    assert not breaker.is_open


def test_trial_that_told_nothing_makes_room_for_the_next() -> None:
    breaker = open_breaker()
    attempt = breaker.begin()
    breaker.end(attempt)
    assert breaker.next_at == 1.0
    assert breaker.is_open


@pytest.mark.parametrize("fault", StoreFault)
def test_only_faults_of_the_store_count(fault: StoreFault) -> None:
    assert is_stores_own(UploadError("x", fault=fault)) == (fault != StoreFault.OTHER)


def test_faults_of_one_object_do_not_count() -> None:
    assert not is_stores_own(KeyExistsError("k"))
    assert not is_stores_own(UploadGoneError("k"))
