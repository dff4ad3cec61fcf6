from __future__ import annotations

from collections import Counter

import pytest
from pydantic import ValidationError

from audiohook.simulator.assemblyai import Endpoint, Fault, Faults, JobFault
from audiohook.simulator.assemblyai.faults import FaultOrders


def draw(faults: Faults, count: int, endpoint: Endpoint = Endpoint.GET) -> Counter[str]:
    return Counter(str(faults.draw(endpoint)) for _ in range(count))


def test_no_fault_unless_ordered() -> None:
    assert draw(Faults(), 100) == {"None": 100}


def test_share_of_the_requests_of_one_kind() -> None:
    faults = Faults(seed=1)
    faults.share(Fault.LOST, 0.25, Endpoint.GET)
    drawn = draw(faults, 2000)
    assert drawn.keys() == {"None", "lost"}
    assert 400 < drawn["lost"] < 600
    assert faults.drawn == {"lost": drawn["lost"]}
    assert draw(faults, 100, Endpoint.SUBMIT) == {"None": 100}
    faults.share(Fault.LOST, 0)
    assert draw(faults, 100) == {"None": 100}


def test_same_seed_same_faults() -> None:
    runs = []
    for _ in range(2):
        faults = Faults(seed=7)
        faults.fail(0.5)
        runs.append([faults.draw(Endpoint.LIST) for _ in range(50)])
    assert runs[0] == runs[1]


def test_share_over_all_kinds() -> None:
    faults = Faults()
    faults.fail(0.25)
    faults.fail(0.25)
    drawn = draw(faults, 4000)
    assert 2900 < drawn["None"] < 3100
    assert {"500", "503-empty", "429", "reset", "lost", "cut"} <= drawn.keys()
    assert not {"401", "stall", "slow"} & drawn.keys()


def test_shares_cannot_exceed_all() -> None:
    faults = Faults()
    faults.share(Fault.LOST, 0.75)
    for share in (-0.1, 0.5):
        with pytest.raises(ValueError, match=r"0\.25 is left"):
            faults.share(Fault.CUT, share)
    faults.share(Fault.LOST, 1.0)
    faults.fail(0)
    assert draw(faults, 5) == {"None": 5}


def test_script_comes_before_chance() -> None:
    faults = Faults()
    faults.share(Fault.RESET, 1.0)
    faults.script(Endpoint.GET, Fault.LOST, None)
    drawn = [faults.draw(Endpoint.GET) for _ in range(3)]
    assert drawn == [Fault.LOST, None, Fault.RESET]


def test_jobs() -> None:
    faults = Faults()
    faults.job_share(JobFault.SERVER, 1.0)
    faults.script_jobs(None, JobFault.NO_AUDIO)
    assert [faults.draw_job("/a") for _ in range(3)] == [
        None,
        JobFault.NO_AUDIO,
        JobFault.SERVER,
    ]
    assert faults.drawn == {"job-no-audio": 1, "job-server": 1}


def test_first_download_of_each_file() -> None:
    faults = Faults()
    faults.first_download_fails = True
    drawn = [faults.draw_job(path) for path in ("/a", "/b", "/a", "/b")]
    assert drawn == [JobFault.DOWNLOAD, JobFault.DOWNLOAD, None, None]


def test_orders_from_another_process() -> None:
    faults = Faults()
    faults.share(Fault.CUT, 1.0)
    FaultOrders.model_validate_json(
        """{"clear": true, "away": true, "keys_refused": true, "slow": 2.5,
        "balance_negative": true, "retired": ["universal-2"], "retry_after": 9,
        "first_download_fails": true, "webhooks_lost": true,
        "shares": [{"fault": "lost", "share": 1, "endpoints": ["submit"]}],
        "scripts": [{"endpoint": "get", "faults": ["500", null]}],
        "job_shares": [{"fault": "server", "share": 1}],
        "job_script": ["too-short", null]}"""
    ).apply(faults)
    assert faults.away
    assert faults.keys_refused
    assert faults.balance_negative
    assert faults.webhooks_lost
    assert (faults.slow, faults.retry_after) == (2.5, 9)
    assert faults.retired == {"universal-2"}
    assert faults.draw(Endpoint.SUBMIT) is Fault.LOST
    assert [faults.draw(Endpoint.GET) for _ in range(3)] == [
        Fault.ERROR_500,
        None,
        None,
    ]
    assert faults.draw_job("/a") is JobFault.DOWNLOAD
    assert faults.draw_job("/a") is JobFault.TOO_SHORT


def test_orders_change_only_what_they_name() -> None:
    faults = Faults()
    faults.away = faults.keys_refused = True
    FaultOrders.model_validate_json('{"away": false, "fail": 1}').apply(faults)
    assert (faults.away, faults.keys_refused) == (False, True)
    assert faults.draw(Endpoint.GET) is not None
    FaultOrders(clear=True).apply(faults)
    assert (faults.away, faults.keys_refused) == (False, False)
    assert draw(faults, 5) == {"None": 5}


def test_orders_that_make_no_sense() -> None:
    for text in ('{"a_way": true}', '{"fail": 2}', '{"job_script": ["bad"]}', "[]"):
        with pytest.raises(ValidationError):
            FaultOrders.model_validate_json(text)
