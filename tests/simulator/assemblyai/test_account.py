from __future__ import annotations

import pytest

from audiohook.simulator.assemblyai.account import (
    Account,
    Job,
    Limits,
    Pace,
    Refusal,
    Status,
    Traffic,
)
from audiohook.simulator.assemblyai.voices import Hearing

HEARD = Hearing(1.0, ((),))


def make(*, parallel: int = 2, queued: float = 0.0, requests: int = 100) -> Account:
    return Account(Limits(parallel=parallel, requests=requests), Pace(queued=queued))


def submit(account: Account, now: float = 0.0, name: str = "a") -> Job:
    url = f"http://h/{name}.wav?signature={now}"
    return account.submit({"audio_url": url}, model="m", language="en", now=now)


def start(account: Account, now: float = 0.0) -> Job:
    job = account.start(now)
    assert isinstance(job, Job)
    return job


def test_first_come_first_served_within_the_limit() -> None:
    account = make(parallel=2)
    jobs = [submit(account) for _ in range(4)]
    assert [start(account), start(account)] == jobs[:2]
    assert account.start(0.0) is None
    assert [account.throttled(job, 0.0) for job in jobs] == [False, False, True, True]
    account.complete(jobs[1], HEARD, 1.0)
    assert not account.throttled(jobs[2], 1.0)
    assert start(account) is jobs[2]
    assert account.throttled(jobs[3], 1.0)
    assert account.most_parallel == 2
    assert account.most_open == 4


def test_a_job_waits_its_time() -> None:
    account = make(queued=3.0)
    job = submit(account, 10.0)
    assert account.start(10.0) == 13.0
    assert account.start(12.9) == 13.0
    assert not account.throttled(job, 12.9)
    assert start(account, 13.0) is job
    assert account.start(13.0) is None


def test_a_smaller_limit_for_the_time_being() -> None:
    account = make(parallel=5)
    submit(account)
    second = submit(account)
    assert account.start(0.0, 1) is not None
    assert account.start(0.0, 1) is None
    assert account.throttled(second, 0.0)


def test_only_what_was_completed_is_billed() -> None:
    account = make()
    good, bad = submit(account, 1.0), submit(account, 2.0)
    account.complete(start(account, 2.0), HEARD, 5.0)
    account.fail(start(account, 2.0), "no", 6.0)
    assert (good.status, good.ended) == (Status.COMPLETED, 5.0)
    assert (bad.status, bad.error, bad.ended) == (Status.ERROR, "no", 6.0)
    assert (account.submitted, account.billed, account.failed) == (2, 1, 1)
    assert account.open == 0
    # Signed anew it is the same audio.
    assert {path: (c.submitted, c.billed) for path, c in account.audio.items()} == {
        "/a.wav": (2, 1)
    }


def test_work_broken_off_comes_first_again() -> None:
    account = make()
    first, second = submit(account), submit(account)
    account.put_back(start(account))
    assert first.status is Status.QUEUED
    assert [start(account), start(account)] == [first, second]


def test_lookup() -> None:
    account = make()
    job = submit(account)
    assert account.get(job.id) is job
    with pytest.raises(Refusal, match="transcript id not found") as caught:
        account.get("nonsense")
    assert caught.value.status == 400


def test_delete_only_at_the_end() -> None:
    account = make()
    job = submit(account)
    for _ in range(2):
        with pytest.raises(Refusal, match="not found"):
            account.delete(job.id)
        if job.status is Status.QUEUED:
            start(account)
    account.complete(job, HEARD, 1.0)
    account.delete(job.id)
    account.delete(job.id)
    assert job.deleted
    assert account.deleted == 1
    assert account.billed == 1


def test_pages_from_newest_to_oldest() -> None:
    account = make()
    jobs = [submit(account, float(number)) for number in range(7)]

    def numbers(**more: object) -> list[int]:
        page = account.page(lambda _: True, limit=3, **more)  # type: ignore[arg-type]
        found.append(page)
        return [job.number for job in page.jobs]

    found = []  # type: ignore[var-annotated]
    assert numbers() == [6, 5, 4]
    assert (found[-1].newer, found[-1].older) == (False, True)
    assert numbers(before_id=jobs[4].id) == [3, 2, 1]
    assert (found[-1].newer, found[-1].older) == (True, True)
    assert numbers(before_id=jobs[1].id) == [0]
    assert (found[-1].newer, found[-1].older) == (True, False)
    assert numbers(before_id=jobs[0].id) == []
    assert numbers(after_id=jobs[1].id) == [4, 3, 2]
    assert numbers(after_id=jobs[4].id) == [6, 5]
    assert numbers(after_id=jobs[1].id, before_id=jobs[4].id) == [3, 2]
    even = account.page(lambda job: job.number % 2 == 0, limit=2)
    assert [job.number for job in even.jobs] == [6, 4]
    assert (even.newer, even.older) == (False, True)
    with pytest.raises(Refusal):
        numbers(before_id="nonsense")


def test_rate_is_bounded_over_five_minutes() -> None:
    account = make(requests=3)
    for now in (0.0, 10.0, 20.0):
        account.admit(now)
    with pytest.raises(Refusal) as caught:
        account.admit(30.0)
    assert caught.value.status == 429
    assert caught.value.headers == {"Retry-After": "271"}
    account.admit(301.0)
    with pytest.raises(Refusal):
        account.admit(302.0)


def test_traffic_of_any_minute() -> None:
    traffic = Traffic()
    for now in (0.0, 1.0, 59.0, 60.5, 200.0):
        traffic.count("get", now)
    assert traffic.requests == {"get": 5}
    assert traffic.most_a_minute == 3
    assert traffic.last_minute(201.0) == 1
    assert traffic.last_minute(300.0) == 0
