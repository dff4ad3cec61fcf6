"""A whole service with the stand-in for AssemblyAI: calls become transcripts."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from audiohook.recovery import recover
from audiohook.simulator.assemblyai import (
    Endpoint,
    Fault,
    JobFault,
    Pace,
    StandIn,
)
from tests.documents import shown
from tests.house import House, house
from tests.printed import assert_alike, is_form_of, read_shown
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

KEY = "stand-in-key"


@asynccontextmanager
async def transcribing(
    folder: Path, standin: StandIn, **flags: object
) -> AsyncIterator[House]:
    """A service that has its calls transcribed by a stand-in."""
    async with trio.open_nursery() as nursery:
        url = await nursery.start(standin.serve)
        chosen = {"assemblyai_api_key": KEY, "assemblyai_base_url": url, **flags}
        async with house(folder, **chosen) as it:
            yield it
        nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has everything happen soon: these tests run in real time."""
    for name, seconds in (
        ("job._FIRST_POLL", 0.05),
        ("job._FIRST_PAUSE", 0.05),
        ("job._FIRST_RESUBMIT", 0.05),
        ("job._PARKED_PAUSE", 0.5),
        ("job._LOOK_EARLY", 0.1),
        ("job._LOOK_SURE", 0.6),
    ):
        monkeypatch.setattr(f"audiohook.transcription.{name}", seconds)
    monkeypatch.setattr("audiohook.breaker._FIRST_PAUSE", 0.05)
    monkeypatch.setattr("audiohook.breaker._LONGEST_PAUSE", 0.3)


def events(lines: list[Any]) -> Counter[str]:
    return Counter(line["event"] for line in lines)


async def settle(it: House, seconds: float = 30) -> None:
    with trio.fail_after(seconds):
        await it.settle()
        await wait_until(lambda: not it.spooled())


def transcripts(it: House) -> list[dict[str, Any]]:
    """What `call.json` of the only call says."""
    (recording,) = it.recordings()
    found: list[dict[str, Any]] = recording.facts["transcripts"]
    return found


def stored_transcript(it: House) -> bytes:
    """The JSON that is stored of the only call."""
    (recording,) = it.recordings()
    (path,) = recording.folder.glob("transcripts/*.json")
    return path.read_bytes()


async def wait_parked(it: House) -> str:
    """Waits until `call.json` says that the job is parked, and why."""

    def is_parked() -> bool:
        return bool(it.recordings()) and (
            (it.recordings()[0].folder / "call.json").exists()
            and transcripts(it)[0]["status"] == "parked"
        )

    await wait_until(is_parked)
    return str(transcripts(it)[0]["reason"])


# What comes of a call


async def test_call_becomes_a_transcript_in_four_forms(tmp_path: Path) -> None:
    standin = StandIn(keys=(KEY,))
    async with transcribing(tmp_path, standin) as it:
        assert (await it.call(duration=8.0)).ok
        await settle(it)
        (recording,) = it.recordings()
        (told,) = transcripts(it)
    assert (told["status"], told["reason"]) == ("completed", None)
    assert told["model"] == "universal-3-5-pro"
    endings = [each["key"].rpartition(".")[2] for each in told["objects"]]
    # Where the JSON is, all the rest is.
    assert endings == ["txt", "srt", "vtt", "json"]
    for each in told["objects"]:
        assert (tmp_path / each["key"]).stat().st_size == each["bytes"]
    (path,) = recording.folder.glob("transcripts/*.json")
    assert json.loads(path.read_bytes())["id"] == told["id"]
    (path,) = recording.folder.glob("transcripts/*.txt")
    assert "customer:" in path.read_text()
    assert "agent:" in path.read_text()
    assert standin.statistics().billed == 1


async def test_split_channels_get_a_transcript_each(tmp_path: Path) -> None:
    standin = StandIn(keys=(KEY,))
    async with transcribing(tmp_path, standin, channel_layout="split") as it:
        assert (await it.call(duration=8.0)).ok
        await settle(it)
        told = transcripts(it)
        (recording,) = it.recordings()
    assert [each["status"] for each in told] == ["completed", "completed"]
    assert len({each["id"] for each in told}) == 2
    (path,) = recording.folder.glob("transcripts/*-internal.txt")
    assert "agent" in path.read_text()
    assert "customer" not in path.read_text()
    assert standin.statistics().billed == 2


async def test_without_a_key_transcription_is_off(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        await it.call(duration=3.0)
        await settle(it)
        (told,) = transcripts(it)
        assert it.service.statistics().transcriptions is None
    assert (told["status"], told["reason"]) == ("off", "ASSEMBLYAI_API_KEY is not set")


async def test_elsewhere_it_is_left_to_others(tmp_path: Path) -> None:
    standin = StandIn(keys=(KEY,))
    async with transcribing(tmp_path, standin, transcribe="elsewhere") as it:
        await it.call(duration=3.0)
        await settle(it)
        (told,) = transcripts(it)
    assert told["status"] == "elsewhere"
    assert standin.statistics().requests.get(Endpoint.SUBMIT, 0) == 0


async def test_elsewhere_nobody_is_bothered_with_what_is_not_worth_it(
    tmp_path: Path,
) -> None:
    standin = StandIn(keys=(KEY,))
    async with transcribing(tmp_path, standin, transcribe="elsewhere") as it:
        await it.call(duration=0.5)
        await settle(it)
        (told,) = transcripts(it)
    assert (told["status"], told["reason"]) == ("skipped", "shorter than 1 s")


async def test_call_that_is_too_short_costs_nothing(tmp_path: Path) -> None:
    standin = StandIn(keys=(KEY,))
    async with transcribing(tmp_path, standin) as it:
        await it.call(duration=0.5)
        await settle(it)
        (told,) = transcripts(it)
    assert (told["status"], told["reason"]) == ("skipped", "shorter than 1 s")
    assert standin.statistics().submitted == 0


async def test_transcript_is_deleted_there_once_it_is_stored_here(
    tmp_path: Path,
) -> None:
    standin = StandIn(keys=(KEY,))
    async with transcribing(tmp_path, standin, delete_transcript=True) as it:
        standin.faults.script(Endpoint.DELETE, Fault.ERROR_503, Fault.LOST)
        await it.call(duration=3.0)
        await settle(it)
        (told,) = transcripts(it)
    assert told["status"] == "completed"
    assert standin.statistics().deleted == 1


# What goes wrong


async def test_lost_answer_is_looked_up_and_not_paid_twice(tmp_path: Path) -> None:
    standin = StandIn(keys=(KEY,))
    async with transcribing(tmp_path, standin) as it:
        standin.faults.script(Endpoint.SUBMIT, Fault.LOST)
        await it.call(duration=3.0)
        await settle(it)
        (told,) = transcripts(it)
    assert told["status"] == "completed"
    assert standin.statistics().submitted == 1
    assert standin.statistics().requests[Endpoint.LIST] >= 1


async def test_request_that_never_came_is_made_again(tmp_path: Path) -> None:
    standin = StandIn(keys=(KEY,))
    async with transcribing(tmp_path, standin) as it:
        standin.faults.script(Endpoint.GET, Fault.RESET)
        await it.call(duration=3.0)
        await settle(it)
        assert transcripts(it)[0]["status"] == "completed"
    assert standin.statistics().submitted == 1


@pytest.mark.parametrize("fault", [JobFault.DOWNLOAD, JobFault.SERVER])
async def test_job_that_failed_is_asked_for_again(
    tmp_path: Path, fault: JobFault, lines: list[Any]
) -> None:
    standin = StandIn(keys=(KEY,))
    async with transcribing(tmp_path, standin) as it:
        standin.faults.script_jobs(fault, fault)
        await it.call(duration=3.0)
        await settle(it)
        assert transcripts(it)[0]["status"] == "completed"
    assert (standin.statistics().submitted, standin.statistics().billed) == (3, 1)
    assert events(lines)["transcript_failed"] == 2
    assert events(lines)["call_transcribed"] == 1


async def test_unusable_audio_is_given_up_with_its_reason(
    tmp_path: Path, lines: list[Any]
) -> None:
    standin = StandIn(keys=(KEY,))
    async with transcribing(tmp_path, standin) as it:
        standin.faults.script_jobs(JobFault.NO_AUDIO)
        await it.call(duration=3.0)
        await settle(it)
        (told,) = transcripts(it)
    assert told["status"] == "failed"
    assert "does not appear to contain audio" in told["reason"]
    assert events(lines)["transcript_given_up"] == 1
    assert standin.statistics().billed == 0


TROUBLES = (
    "transcription_needs_mending",
    "transcription_fails",
    "transcript_parked",
    "transcript_failed",
    "transcript_given_up",
    "transcript_not_stored",
)


def refuse_key(standin: StandIn) -> None:
    standin.faults.keys_refused = True


def retire_model(standin: StandIn) -> None:
    standin.faults.retired.add("universal-3-5-pro")


def empty_account(standin: StandIn) -> None:
    standin.faults.balance_negative = True


def spoil_audio(standin: StandIn) -> None:
    standin.faults.job_share(JobFault.NO_AUDIO, 1)


def lose_language(standin: StandIn) -> None:
    standin.faults.job_share(JobFault.LANGUAGE, 1)


def hide_audio(standin: StandIn) -> None:
    standin.faults.job_share(JobFault.DOWNLOAD, 1)


def break_down(standin: StandIn) -> None:
    standin.faults.job_share(JobFault.SERVER, 1)


@pytest.mark.parametrize(
    ("spoil", "flags", "status", "reason", "event"),
    [
        (refuse_key, {}, "parked", "ASSEMBLYAI_API_KEY", "transcription_needs_mending"),
        (retire_model, {}, "parked", "universal-3-", "transcription_needs_mending"),
        (empty_account, {}, "parked", "top it up", "transcription_needs_mending"),
        (
            None,
            {"assemblyai_params": {"punctuate": "yes"}},
            *("parked", "correct ASSEMBLYAI_PARAMS", "transcript_parked"),
        ),
        (spoil_audio, {}, "failed", "not appear to contain", "transcript_given_up"),
        (lose_language, {}, "failed", "confidence", "transcript_given_up"),
        (hide_audio, {}, "pending", "Download error", "transcript_failed"),
        (break_down, {}, "pending", "Server error", "transcript_failed"),
    ],
)
async def test_trouble_is_in_the_calls_json_and_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lines: list[Any],
    spoil: Callable[[StandIn], None] | None,
    flags: dict[str, Any],
    status: str,
    reason: str,
    event: str,
) -> None:
    # Whatever may be tried again is so in a minute.
    monkeypatch.setattr("audiohook.transcription.job._FIRST_RESUBMIT", 60)
    monkeypatch.setattr("audiohook.transcription.job._PARKED_PAUSE", 60)
    standin = StandIn(keys=(KEY,))
    if spoil is not None:
        spoil(standin)
    async with transcribing(tmp_path, standin, **flags) as it:
        await it.call(duration=3.0)
        await it.settle()

        def is_told() -> bool:
            (told,) = transcripts(it)
            return told["status"] == status and reason in (told["reason"] or "")

        await wait_until(is_told)
        # All that is common is tried time and again.
        await trio.sleep(1.0)
    said = events(lines)
    assert {name: said[name] for name in TROUBLES if said[name]} == {event: 1}
    (line,) = (line for line in lines if line["event"] == event)
    assert reason in (line.get("reason") or line.get("error"))
    assert standin.statistics().billed == 0


async def test_refused_key_parks_all_and_goes_on_when_it_is_mended(
    tmp_path: Path, lines: list[Any]
) -> None:
    standin = StandIn(keys=(KEY,))
    async with transcribing(tmp_path, standin) as it:
        standin.faults.keys_refused = True
        await it.call(duration=3.0)
        reason = await wait_parked(it)
        assert "ASSEMBLYAI_API_KEY" in reason
        for _ in range(3):
            await it.call(duration=3.0)
        await it.settle()
        statistics = it.service.statistics().transcriptions
        assert statistics is not None
        assert statistics.fault == reason
        assert statistics.calls == 4
        standin.faults.keys_refused = False
        await settle(it)
        statuses = [r.facts["transcripts"][0]["status"] for r in it.recordings()]
    assert statuses == ["completed"] * 4
    assert standin.statistics().billed == 4
    # However many calls wait and however often it is tried.
    assert events(lines)["transcription_needs_mending"] == 1
    assert events(lines)["transcription_works_again"] == 1


async def test_lines_of_the_page_are_those_of_the_log(
    tmp_path: Path, lines: list[Any], port: int
) -> None:
    page = [read_shown(each) for each in shown("docs/assemblyai.md", '{"error"').lines]
    standin = StandIn(keys=(KEY,))
    place = f"127.0.0.1:{port}"
    flags: dict[str, Any] = {
        "assemblyai_api_key": KEY,
        "assemblyai_base_url": f"http://{place}",
    }

    async def attend(
        until: trio.CancelScope, task_status: trio.TaskStatus[str]
    ) -> None:
        with until:
            await standin.serve(port=port, task_status=task_status)

    async with house(tmp_path, **flags) as it, trio.open_nursery() as nursery:
        await nursery.start(attend, first := trio.CancelScope())
        retire_model(standin)
        await it.call(duration=3.0)
        await wait_parked(it)
        standin.faults.retired.clear()
        await settle(it)
        # Nobody is there for a while.
        first.cancel()
        await it.call(duration=3.0)
        await wait_until(lambda: events(lines)["transcription_fails"] == 1)
        await nursery.start(attend, second := trio.CancelScope())
        await settle(it)
        second.cancel()
    for shown_line in page:
        (real, *_) = (each for each in lines if each["event"] == shown_line["event"])
        line = {**real, "level": real["log_level"]}
        assert_alike(shown_line, line)
        assert line["level"] == shown_line["level"]
        if error := shown_line.get("error"):
            assert is_form_of(error.replace("127.0.0.1:8100", place), line["error"])


async def test_account_without_money_waits_for_it(tmp_path: Path) -> None:
    standin = StandIn(keys=(KEY,))
    async with transcribing(tmp_path, standin) as it:
        standin.faults.balance_negative = True
        await it.call(duration=3.0)
        assert "balance" in await wait_parked(it)
        standin.faults.balance_negative = False
        await settle(it)
        assert transcripts(it)[0]["status"] == "completed"


async def test_retired_model_is_mended_by_another_setting(tmp_path: Path) -> None:
    standin = StandIn(keys=(KEY,))
    standin.faults.retired.add("universal-3-5-pro")
    async with transcribing(tmp_path, standin) as it:
        await it.call(duration=3.0)
        assert "universal-3-5-pro" in await wait_parked(it)
    assert it.spooled()
    params = {"speech_models": ["universal-2"]}
    async with transcribing(tmp_path, standin, assemblyai_params=params) as it:
        await settle(it)
        (told,) = transcripts(it)
    assert (told["status"], told["model"]) == ("completed", "universal-2")


async def test_service_that_was_away_all_the_time_is_waited_for(
    tmp_path: Path, lines: list[Any]
) -> None:
    standin = StandIn(keys=(KEY,))
    standin.faults.away = True
    async with transcribing(tmp_path, standin) as it:
        for _ in range(5):
            await it.call(duration=3.0)
        await it.settle()
        assert len(it.recordings()) == 5
        await wait_until(lambda: events(lines)["transcription_fails"] > 0)
        assert all(
            entry.name != "audio.ulaw" for p in it.spooled() for entry in p.iterdir()
        )
        standin.faults.away = False
        await settle(it)
    assert standin.statistics().billed == 5


# Who comes after


async def test_next_process_goes_on_and_pays_nothing_twice(tmp_path: Path) -> None:
    standin = StandIn(keys=(KEY,), pace=Pace(processing=4))
    async with transcribing(tmp_path, standin) as it:
        for _ in range(3):
            await it.call(duration=3.0)
        await it.settle()
        await wait_until(lambda: standin.statistics().submitted == 3)
    assert len(it.spooled()) == 3
    async with transcribing(tmp_path, standin) as it:
        await settle(it)
        statuses = [r.facts["transcripts"][0]["status"] for r in it.recordings()]
    assert statuses == ["completed"] * 3
    assert standin.statistics().billed == 3


async def test_calls_without_a_key_to_go_on_with_wait_and_are_told_of(
    tmp_path: Path, lines: list[Any]
) -> None:
    standin = StandIn(keys=(KEY,), pace=Pace(processing=60))
    async with transcribing(tmp_path, standin) as it:
        await it.call(duration=3.0)
        await it.settle()
        await wait_until(lambda: standin.statistics().submitted == 1)
    async with house(tmp_path) as it:
        await wait_until(lambda: events(lines)["transcripts_wait_for_key"] == 1)
        # The others are stored as ever.
        await it.call(duration=3.0)
        await it.settle()
        assert len(it.recordings()) == 2
    assert len(it.spooled()) == 1


async def test_recover_waits_for_transcripts(tmp_path: Path) -> None:
    standin = StandIn(keys=(KEY,), pace=Pace(processing=0.3))
    async with transcribing(tmp_path, standin) as it:
        await it.call(duration=3.0)
        await it.settle()
        chosen, log = it.service._settings, it.service._log
    async with trio.open_nursery() as nursery:
        url = await nursery.start(standin.serve)
        chosen = chosen.model_copy(update={"assemblyai_base_url": url})
        with trio.fail_after(30):
            found = await recover(chosen, log=log)
        nursery.cancel_scope.cancel()
    assert (found.waiting, found.transcribed, found.untranscribed) == (0, 1, 0)
    assert it.spooled() == []


async def test_recover_does_not_wait_for_what_must_be_mended(tmp_path: Path) -> None:
    standin = StandIn(keys=(KEY,))
    standin.faults.keys_refused = True
    async with transcribing(tmp_path, standin) as it:
        await it.call(duration=3.0)
        await it.settle()
        chosen, log = it.service._settings, it.service._log
    async with trio.open_nursery() as nursery:
        url = await nursery.start(standin.serve)
        chosen = chosen.model_copy(update={"assemblyai_base_url": url})
        with trio.fail_after(30):
            found = await recover(chosen, log=log)
        nursery.cancel_scope.cancel()
    assert (found.transcribed, found.untranscribed) == (0, 1)


# Webhooks


async def test_webhook_brings_the_transcript_at_once(tmp_path: Path, port: int) -> None:
    standin = StandIn(keys=(KEY,))
    flags = {"port": port, "webhook_url": f"http://127.0.0.1:{port}/assemblyai?x=1"}
    async with transcribing(tmp_path, standin, **flags) as it:
        await it.call(duration=3.0)
        # A poll would come after minutes.
        await settle(it, 20)
        assert transcripts(it)[0]["status"] == "completed"
        metrics = it.service.metrics.registry
        name = "audiohook_webhooks_total"
        assert metrics.get_sample_value(name, {"outcome": "taken"}) == 1
    assert standin.statistics().requests[Endpoint.GET] == 1
    (job,) = standin.account(KEY).jobs.values()
    secret = str(job.parameters["webhook_auth_header_value"])
    assert secret not in stored_transcript(it).decode()


async def test_lost_webhook_is_made_up_for_by_a_poll(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audiohook.transcription.job._RECONCILING_POLL", 0.5)
    standin = StandIn(keys=(KEY,))
    standin.faults.webhooks_lost = True
    url = "http://127.0.0.1:9/assemblyai"
    async with transcribing(tmp_path, standin, webhook_url=url) as it:
        await it.call(duration=3.0)
        await settle(it)
        assert transcripts(it)[0]["status"] == "completed"


@pytest.mark.parametrize(
    ("request_", "status", "outcome"),
    [
        (b"GET /hook HTTP/1.1\r\nHost: x\r\n\r\n", 405, None),
        (
            b"POST /hook HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
            401,
            "refused",
        ),
        (
            (
                b"POST /hook HTTP/1.1\r\nHost: x\r\nX-Audiohook-Secret: no\r\n"
                b"Content-Length: 2\r\n\r\n{}"
            ),
            401,
            "refused",
        ),
        (
            (
                b"POST /hook?a=b HTTP/1.1\r\nHost: x\r\nX-Audiohook-Secret: s3cret\r\n"
                b'Content-Length: 24\r\n\r\n{"transcript_id": "abc"}'
            ),
            200,
            "unknown",
        ),
        (
            (
                b"POST /hook HTTP/1.1\r\nHost: x\r\nX-Audiohook-Secret: s3cret\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
                b'18\r\n{"transcript_id": "abc"}\r\n0\r\n\r\n'
            ),
            200,
            "unknown",
        ),
        (
            b"POST /hook HTTP/1.1\r\nHost: x\r\nX-Audiohook-Secret: s3cret\r\n"
            b'Content-Length: 38\r\n\r\n{"status":"redacted_audio_ready","a":1}'[:-1],
            400,
            "malformed",
        ),
        (
            b"POST /hook HTTP/1.1\r\nHost: x\r\nX-Audiohook-Secret: s3cret\r\n"
            b"Content-Length: 20000\r\n\r\n" + b" " * 20000,
            413,
            None,
        ),
        (b"POST /other HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 426, None),
    ],
)
async def test_webhook_takes_what_brings_the_secret(
    tmp_path: Path, request_: bytes, status: int, outcome: str | None
) -> None:
    flags: dict[str, Any] = {
        "assemblyai_api_key": KEY,
        "webhook_url": "https://example.com/hook?tenant=1",
        "webhook_secret": "s3cret",
    }
    async with house(tmp_path, **flags) as it:
        async with await trio.open_tcp_stream("127.0.0.1", it.port) as client:
            await client.send_all(request_)
            answer = await client.receive_some()
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        metrics = it.service.metrics.registry
        for word in ("taken", "unknown", "refused", "malformed"):
            labels = {"outcome": word}
            value = metrics.get_sample_value("audiohook_webhooks_total", labels)
            assert value == (word == outcome)
