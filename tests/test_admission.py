from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiohook.admission import Admission, TurnedAway
from audiohook.keys import KeyLimits
from audiohook.rate import Rate, TokenBucket


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_without_limits_everybody_is_let_in(clock: Clock) -> None:
    admission = Admission(clock=clock)
    places = [admission.admit("k") for _ in range(1000)]
    assert {place.refusal for place in places} == {None}
    assert admission.live == 1000
    for place in places:
        place.leave()
    assert admission.live == 0


def test_keys_do_not_share_their_places(clock: Clock) -> None:
    admission = Admission(calls_per_key=2, clock=clock)
    first, second = admission.admit("a"), admission.admit("a")
    assert (first.refusal, second.refusal) == (None, None)
    assert admission.admit("a").refusal is TurnedAway.KEY_CALLS
    assert admission.admit("b").refusal is None
    assert admission.live == 3
    second.leave()
    assert admission.admit("a").refusal is None
    assert admission.admit("a").refusal is TurnedAway.KEY_CALLS


def test_place_is_left_once(clock: Clock) -> None:
    admission = Admission(calls_per_key=2, clock=clock)
    first = admission.admit("a")
    admission.admit("a")
    first.leave()
    first.leave()
    assert admission.live == 1
    refused = Admission(calls_per_key=0, clock=clock).admit("a")
    refused.leave()
    assert admission.live == 1


def test_new_calls_come_in_bursts_and_then_at_their_rate(clock: Clock) -> None:
    admission = Admission(new_calls_per_key=Rate(2.0, 3), clock=clock)

    def admitted(count: int, key: str = "a") -> int:
        places = [admission.admit(key) for _ in range(count)]
        assert {place.refusal for place in places} <= {None, TurnedAway.KEY_RATE}
        return sum(place.refusal is None for place in places)

    assert admitted(10) == 3
    assert admitted(10, "b") == 3
    clock.now += 0.5
    assert admitted(10) == 1
    clock.now += 1.0
    assert admitted(10) == 2
    clock.now += 1000.0
    assert admitted(10) == 3


def test_call_beyond_the_number_does_not_count_towards_the_rate(clock: Clock) -> None:
    rate = Rate(1.0, 2)
    admission = Admission(calls_per_key=1, new_calls_per_key=rate, clock=clock)
    place = admission.admit("a")
    for _ in range(100):
        assert admission.admit("a").refusal is TurnedAway.KEY_CALLS
    place.leave()
    assert admission.admit("a").refusal is None


@given(
    st.floats(0.01, 1000),
    st.integers(1, 1000),
    st.lists(st.floats(0, 10), min_size=1, max_size=200),
)
def test_bucket_never_gives_more_than_its_rate(
    per_second: float, burst: int, pauses: list[float]
) -> None:
    bucket = TokenBucket(Rate(per_second, burst), 0.0)
    now, taken = 0.0, 0
    for pause in pauses:
        now += pause
        taken += bucket.take(now)
        assert taken <= burst + per_second * now + 1e-6


def test_words_for_the_peer_say_nothing_about_others() -> None:
    assert len({kind.label for kind in TurnedAway}) == len(TurnedAway)
    for kind in TurnedAway:
        assert str(kind).isascii()
        assert not any(char.isdigit() for char in str(kind))


def test_limits_of_a_key_count_in_place_of_those_for_all() -> None:
    admission = Admission(calls_per_key=1, clock=lambda: 0.0)
    own = KeyLimits(max_calls=2)
    assert [admission.admit("a", own).refusal for _ in range(3)] == [
        None,
        None,
        TurnedAway.KEY_CALLS,
    ]
    assert admission.admit("b").refusal is None
    assert admission.admit("b").refusal is TurnedAway.KEY_CALLS


def test_rate_of_a_key_that_is_changed_counts_at_once() -> None:
    admission = Admission(clock=lambda: 0.0)
    slow, fast = KeyLimits(new_calls=Rate(1, 1)), KeyLimits(new_calls=Rate(9, 2))
    assert admission.admit("a", slow).refusal is None
    assert admission.admit("a", slow).refusal is TurnedAway.KEY_RATE
    assert admission.admit("a", fast).refusal is None
    assert admission.admit("a", KeyLimits()).refusal is None
    assert admission.admit("a", slow).refusal is None
