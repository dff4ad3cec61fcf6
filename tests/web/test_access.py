from __future__ import annotations

import pytest

from audiohook.web.access import SESSION_LIFE, Access, Entrance, Rule

PASSWORD = "a long enough password"
HERE = "127.0.0.1"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(clock: Clock) -> Access:
    return Access(Rule.PASSWORD, PASSWORD, clock=clock, cost=2)


async def test_whoever_knows_the_password_is_let_in(access: Access) -> None:
    came, cookie = await access.enter(PASSWORD, HERE)
    assert came is Entrance.IN
    visitor = access.visitor(cookie)
    assert visitor is not None
    assert visitor.by_password
    assert visitor.token == access.token_of(cookie)
    assert visitor.token != access.token_of("")


@pytest.mark.parametrize(
    "password", ["", PASSWORD[:-1], PASSWORD + " ", PASSWORD.upper(), "\udfff"]
)
async def test_wrong_password_lets_nobody_in(access: Access, password: str) -> None:
    assert await access.enter(password, HERE) == (Entrance.WRONG, "")


async def test_cookie_of_nobody_lets_nobody_in(access: Access) -> None:
    _, cookie = await access.enter(PASSWORD, HERE)
    for other in (None, "", cookie[:-1], cookie + "x", "\udfff"):
        assert access.visitor(other) is None


async def test_session_ends_by_itself(access: Access, clock: Clock) -> None:
    _, cookie = await access.enter(PASSWORD, HERE)
    clock.now += SESSION_LIFE - 1
    assert access.visitor(cookie) is not None
    clock.now += 1
    assert access.visitor(cookie) is None


async def test_session_ends_when_its_owner_leaves(access: Access) -> None:
    _, cookie = await access.enter(PASSWORD, HERE)
    access.leave(cookie)
    access.leave(cookie)
    assert access.visitor(cookie) is None


async def test_two_visitors_have_tokens_of_their_own(access: Access) -> None:
    _, one = await access.enter(PASSWORD, HERE)
    _, other = await access.enter(PASSWORD, HERE)
    assert one != other
    assert access.token_of(one) != access.token_of(other)
    access.leave(one)
    assert access.visitor(other) is not None


async def test_tries_of_one_address_are_limited(access: Access, clock: Clock) -> None:
    outcomes = [(await access.enter("wrong", HERE))[0] for _ in range(6)]
    assert outcomes == [Entrance.WRONG] * 5 + [Entrance.TOO_OFTEN]
    assert await access.enter(PASSWORD, HERE) == (Entrance.TOO_OFTEN, "")
    # Whoever comes from elsewhere is not held up by that.
    assert (await access.enter(PASSWORD, "::1"))[0] is Entrance.IN
    clock.now += 10
    assert (await access.enter(PASSWORD, HERE))[0] is Entrance.IN


async def test_tries_of_all_addresses_are_limited(access: Access) -> None:
    outcomes = [
        (await access.enter("wrong", f"10.0.0.{host}"))[0] for host in range(21)
    ]
    assert outcomes == [Entrance.WRONG] * 20 + [Entrance.TOO_OFTEN]


async def test_sessions_are_bounded(access: Access, clock: Clock) -> None:
    cookies = []
    for _ in range(101):
        clock.now += 10
        cookies.append((await access.enter(PASSWORD, HERE))[1])
    assert access.visitor(cookies[0]) is None
    assert access.visitor(cookies[1]) is not None
    assert access.visitor(cookies[100]) is not None


def test_without_a_password_everybody_here_is_let_in() -> None:
    visitor = Access(Rule.OPEN).visitor(None)
    assert visitor is not None
    assert not visitor.by_password


async def test_page_that_is_shut_lets_nobody_in() -> None:
    access = Access(Rule.SHUT)
    assert access.visitor("x") is None
    assert (await access.enter("", HERE))[0] is Entrance.WRONG
