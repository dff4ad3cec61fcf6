"""``audiohook transcribe``: recordings that are stored get their transcripts."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog
import trio
from rich.console import Console

from audiohook import settings
from audiohook.errors import ConfigError
from audiohook.simulator.assemblyai import Endpoint, Fault, JobFault, Pace, StandIn
from audiohook.storage.find import FoundFile, find_files
from audiohook.transcribe import Order, transcribe
from tests.house import House, Recording, house
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from audiohook.storage.folder import FolderStore

KEY = "stand-in-key"


@pytest.fixture(autouse=True)
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has everything happen soon: these tests run in real time."""
    for name, seconds in (
        ("_FIRST_POLL", 0.05),
        ("_FIRST_PAUSE", 0.05),
        ("_FIRST_RESUBMIT", 0.05),
        ("_LOOK_EARLY", 0.1),
        ("_LOOK_SURE", 0.6),
    ):
        monkeypatch.setattr(f"audiohook.transcription.job.{name}", seconds)


async def record(folder: Path, **options: Any) -> Recording:  # noqa: ANN401
    """Has one call recorded by a service that transcribes nothing."""
    async with house(folder, **options) as it:
        report = await it.call(duration=6.0)
        assert report.ok
        await settle(it)
        (found,) = (
            each
            for each in it.recordings()
            if each.facts["sessionId"] == report.session_id
        )
    return found


async def settle(it: House) -> None:
    await it.settle()
    await wait_until(lambda: not it.spooled())


async def run(
    folder: Path,
    standin: StandIn,
    *keys: str | Path,
    again: bool = False,
    **flags: object,
) -> tuple[int, list[str]]:
    """Runs the command against a stand-in; returns its exit code and its lines."""
    out = io.StringIO()
    async with trio.open_nursery() as nursery:
        url = await nursery.start(standin.serve)
        chosen = settings.load(
            env_file=Path(os.devnull),
            recordings_dir=folder,
            **{"assemblyai_api_key": KEY, "assemblyai_base_url": url, **flags},
        )
        order = Order([str(key) for key in keys], again=again, wait=30.0)
        log = structlog.get_logger("audiohook")
        code = await transcribe(chosen, order, Console(file=out, width=500), log=log)
        nursery.cancel_scope.cancel()
    return code, out.getvalue().splitlines()


def told(recording: Recording) -> dict[str, Any]:
    """What `call.json` says of the only transcript."""
    (entry,) = recording.facts["transcripts"]
    assert isinstance(entry, dict)
    return entry


def stored_id(recording: Recording) -> str:
    """The id in the JSON that is stored."""
    (path,) = recording.folder.glob("transcripts/*.json")
    return str(json.loads(path.read_bytes())["id"])


def wav_key(recording: Recording) -> str:
    name = recording.folder.name
    return f"calls/{name}/audio/{name}.wav"


@pytest.mark.parametrize(
    "typed",
    [
        lambda recording: f"calls/{recording.folder.name}",
        lambda recording: f"calls/{recording.folder.name}/",
        lambda recording: f"calls/{recording.folder.name}/call.json",
        wav_key,
        lambda recording: recording.folder,
        lambda recording: recording.folder / "call.json",
        lambda recording: os.path.relpath(recording.folder),
        lambda recording: next(recording.folder.glob("audio/*.wav")),
    ],
)
async def test_recording_gets_its_transcript_whatever_it_is_called(
    tmp_path: Path, typed: Callable[[Recording], str | Path]
) -> None:
    recording = await record(tmp_path)
    assert told(recording)["status"] == "off"
    standin = StandIn(keys=(KEY,))
    code, lines = await run(tmp_path, standin, typed(recording))
    assert code == 0, lines
    key = wav_key(recording)
    text = key.replace("/audio/", "/transcripts/").replace(".wav", ".txt")
    name = recording.folder.name
    assert lines[-1] == f"{name}.wav: transcript stored: {text}"
    # Unless all went too quickly for anybody to wait.
    assert lines[:-1] in ([f"{name}.wav: submitted"], [])
    assert told(recording)["status"] == "completed"
    assert told(recording)["model"] == "universal-3-5-pro"
    assert stored_id(recording) == told(recording)["id"]
    for each in told(recording)["objects"]:
        assert (tmp_path / each["key"]).stat().st_size == each["bytes"]
    assert "customer:" in (tmp_path / text).read_text()
    assert standin.statistics().billed == 1


async def test_language_and_channels_are_those_of_the_call(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        channels = ("internal", "external")
        assert (await it.call(duration=6.0, language="de-DE", channels=channels)).ok
        await settle(it)
        (recording,) = it.recordings()
    standin = StandIn(keys=(KEY,))
    code, _ = await run(tmp_path, standin, recording.folder, transcribe_language="call")
    assert code == 0
    (job,) = standin.account(KEY).jobs.values()
    assert (job.parameters["language_code"], job.parameters["multichannel"]) == (
        "de",
        True,
    )
    # The customer speaks first, in the second channel.
    (path,) = recording.folder.glob("transcripts/*.txt")
    assert path.read_text().startswith("[00:00:00] customer: ")


async def test_transcript_that_is_there_is_left_unless_another_is_wanted(
    tmp_path: Path,
) -> None:
    recording = await record(tmp_path)
    standin = StandIn(keys=(KEY,))
    await run(tmp_path, standin, recording.folder)
    first = stored_id(recording)
    code, lines = await run(tmp_path, standin, recording.folder)
    assert (code, len(lines)) == (0, 1)
    assert lines[0].endswith(": has a transcript; --again asks for another")
    assert standin.statistics().submitted == 1
    code, lines = await run(tmp_path, standin, recording.folder, again=True)
    assert code == 0, lines
    assert stored_id(recording) == told(recording)["id"] != first
    assert standin.statistics().billed == 2


@pytest.mark.parametrize("again", [False, True])
async def test_transcript_that_comes_before_its_turn_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """A service that ends a job while others of the same order are seen to."""
    recording = await record(tmp_path)
    standin = StandIn(keys=(KEY,))
    await run(tmp_path, standin, recording.folder)
    first = stored_id(recording)
    # A service that records has what it knows of a job in its spool alone.
    shutil.rmtree(recording.folder / "jobs")
    path = recording.folder / "call.json"
    done = path.read_text()
    facts = recording.facts
    facts["transcripts"][0] |= {"status": "pending", "id": None, "objects": []}
    path.write_text(json.dumps(facts))

    async def find(store: FolderStore, key: str) -> list[FoundFile]:
        monkeypatch.setattr("audiohook.transcribe.find_files", find_files)
        found = await find_files(store, key)
        path.write_text(done)
        return found

    monkeypatch.setattr("audiohook.transcribe.find_files", find)
    code, lines = await run(tmp_path, standin, recording.folder, again=again)
    assert code == 0, lines
    if again:
        assert stored_id(recording) == told(recording)["id"] != first
    else:
        assert lines[0].endswith(": has a transcript; --again asks for another")
    assert standin.statistics().billed == 1 + again


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.CUT, Fault.RESET, Fault.EMPTY_504])
async def test_lost_answer_is_looked_for_and_not_paid_twice(
    tmp_path: Path, fault: Fault
) -> None:
    recording = await record(tmp_path)
    standin = StandIn(keys=(KEY,))
    await run(tmp_path, standin, recording.folder)
    first = stored_id(recording)
    standin.faults.script(Endpoint.SUBMIT, fault)
    code, lines = await run(tmp_path, standin, recording.folder, again=True)
    assert code == 0, lines
    assert any("looked for in the account's list" in line for line in lines)
    # It is the new one that was found, not the old one of the same audio.
    assert stored_id(recording) != first
    assert standin.statistics().submitted == 2


@pytest.mark.parametrize("again", [False, True])
async def test_run_that_is_cut_off_is_gone_on_with(tmp_path: Path, again: bool) -> None:
    recording = await record(tmp_path)
    standin = StandIn(keys=(KEY,), pace=Pace(processing=1.0))
    if again:
        await run(tmp_path, standin, recording.folder)
    made = standin.statistics().submitted + 1
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def cut() -> None:
                await wait_until(lambda: standin.statistics().submitted == made)
                scope.cancel()

            nursery.start_soon(cut)
            await run(tmp_path, standin, recording.folder, again=again)
    code, lines = await run(tmp_path, standin, recording.folder, again=again)
    assert code == 0, lines
    assert told(recording)["status"] == "completed"
    assert standin.statistics().submitted == made


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (
            "calls/nothing",
            "there is no calls/nothing/call.json, so this is no recording",
        ),
        ("calls/nothing/audio/nothing.wav", "there is no calls/nothing/call.json"),
        ("/etc/passwd", "there is no etc/passwd/call.json"),
        ("../../etc", "is not letters, digits"),
        ("calls/broken", "calls/broken/call.json cannot be understood"),
        ("calls/other", "calls/other/call.json cannot be understood (sessionId"),
        ("calls/bare", "calls/bare/call.json tells of no such file"),
        ("", "is not letters, digits"),
    ],
)
async def test_what_is_no_recording_is_refused(
    tmp_path: Path, key: str, words: str
) -> None:
    for name, text in (
        ("broken", "{"),
        ("other", '{"version": 3}'),
        (
            "bare",
            '{"sessionId": "22222222-2222-4222-8222-222222222222", "transcripts": []}',
        ),
    ):
        (tmp_path / "calls" / name).mkdir(parents=True)
        (tmp_path / "calls" / name / "call.json").write_text(text)
    standin = StandIn(keys=(KEY,))
    code, lines = await run(tmp_path, standin, key)
    assert (code, len(lines)) == (1, 1)
    assert words in lines[0]
    assert not standin.statistics().requests


async def test_one_that_is_refused_keeps_no_other_from_its_transcript(
    tmp_path: Path,
) -> None:
    recording = await record(tmp_path)
    standin = StandIn(keys=(KEY,))
    code, _ = await run(tmp_path, standin, "calls/nothing", recording.folder)
    assert code == 1
    assert told(recording)["status"] == "completed"


async def test_refused_key_is_told_once_and_mended_by_another_run(
    tmp_path: Path,
) -> None:
    recordings = [await record(tmp_path) for _ in range(2)]
    standin = StandIn(keys=(KEY,))
    standin.faults.keys_refused = True
    keys = [each.folder for each in recordings]
    code, lines = await run(tmp_path, standin, *keys, transcribe_parallel=1)
    assert code == 1
    assert "correct ASSEMBLYAI_API_KEY" in lines[0]
    assert "not tried: " in lines[-1]
    assert told(recordings[0])["status"] == "parked"
    standin.faults.keys_refused = False
    code, lines = await run(tmp_path, standin, *keys)
    assert code == 0, lines
    assert standin.statistics().billed == 2


async def test_audio_of_no_use_is_told_and_tried_anew_by_another_run(
    tmp_path: Path,
) -> None:
    recording = await record(tmp_path)
    standin = StandIn(keys=(KEY,))
    standin.faults.script_jobs(JobFault.NO_AUDIO)
    code, lines = await run(tmp_path, standin, recording.folder)
    assert code == 1
    assert "there will be no transcript: Transcoding failed." in lines[-1]
    assert told(recording)["status"] == "failed"
    code, lines = await run(tmp_path, standin, recording.folder)
    assert code == 0, lines
    assert told(recording)["status"] == "completed"


async def test_call_that_a_service_sees_to_is_left_to_it(tmp_path: Path) -> None:
    standin = StandIn(keys=(KEY,), pace=Pace(processing=60.0))
    async with trio.open_nursery() as nursery:
        url = await nursery.start(standin.serve)
        flags: dict[str, Any] = {"assemblyai_api_key": KEY, "assemblyai_base_url": url}
        async with house(tmp_path, **flags) as it:
            assert (await it.call(duration=6.0)).ok
            await wait_until(lambda: standin.statistics().submitted == 1)
            (recording,) = it.recordings()
            for again in (False, True):
                code, lines = await run(
                    tmp_path, standin, recording.folder, again=again
                )
                assert (code, len(lines)) == (1, 1)
                assert "its call waits in the spool here" in lines[0]
        nursery.cancel_scope.cancel()
    assert standin.statistics().submitted == 1


async def test_call_of_another_machine_is_left_to_it_unless_that_is_gone(
    tmp_path: Path,
) -> None:
    recording = await record(tmp_path)
    path = recording.folder / "call.json"
    path.write_text(path.read_text().replace('"status": "off"', '"status": "pending"'))
    standin = StandIn(keys=(KEY,))
    code, lines = await run(tmp_path, standin, recording.folder)
    assert code == 1
    assert "pending (ASSEMBLYAI_API_KEY is not set) with the service" in lines[0]
    assert not standin.statistics().submitted
    code, lines = await run(tmp_path, standin, recording.folder, again=True)
    assert code == 0, lines


async def test_one_file_of_two_gets_a_transcript_if_it_is_named(tmp_path: Path) -> None:
    recording = await record(tmp_path, channel_layout="split")
    (wav,) = recording.folder.glob("audio/*-internal.wav")
    standin = StandIn(keys=(KEY,))
    code, lines = await run(tmp_path, standin, wav)
    assert code == 0, lines
    found = {
        each["audio"].rpartition("-")[2]: each["status"]
        for each in recording.facts["transcripts"]
    }
    assert found == {"external.wav": "off", "internal.wav": "completed"}
    code, lines = await run(tmp_path, standin, recording.folder)
    assert code == 0, lines
    assert standin.statistics().billed == 2


async def test_transcript_is_deleted_there_once_it_is_stored_here(
    tmp_path: Path,
) -> None:
    recording = await record(tmp_path)
    standin = StandIn(keys=(KEY,))
    standin.faults.script(Endpoint.DELETE, Fault.ERROR_503)
    code, lines = await run(tmp_path, standin, recording.folder, delete_transcript=True)
    assert code == 0, lines
    assert standin.statistics().deleted == 1


async def test_without_a_key_nothing_is_tried(tmp_path: Path) -> None:
    chosen = settings.load(env_file=Path(os.devnull), recordings_dir=tmp_path)
    console, log = Console(file=io.StringIO()), structlog.get_logger("audiohook")
    with pytest.raises(ConfigError, match="ASSEMBLYAI_API_KEY: is not set"):
        await transcribe(chosen, Order(["calls/x"]), console, log=log)
