"""Calls whose text messages are kept, and the command that shows them."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import structlog
import trio

from audiohook.recovery import recover
from audiohook.settings import load
from tests.house import House, house
from tests.test_cli import run
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path


def dialogue_of(it: House) -> list[dict[str, Any]]:
    (recording,) = it.recordings()
    return [json.loads(each) for each in recording.audio(".jsonl").splitlines()]


def kinds(lines: list[dict[str, Any]]) -> list[str]:
    return [f"{each['direction']} {each['message']['type']}" for each in lines]


async def test_all_that_is_said_is_stored_beside_the_audio(tmp_path: Path) -> None:
    async with house(tmp_path, keep_dialogue="masked") as it:
        report = await it.call(
            duration=7.0, fast=False, ani="tel:+491701234567", pauses=((1.0, 0.5),)
        )
        assert report.ok
        await it.settle()
    lines = dialogue_of(it)
    said = kinds(lines)
    assert said[:2] == ["in open", "out opened"]
    assert said[-2:] == ["in close", "out closed"]
    assert said.count("in ping") == said.count("out pong") > 0
    assert "in paused" in said
    assert "in resumed" in said
    # Nothing is missing: each side's messages bear numbers without a gap.
    for direction in ("in", "out"):
        numbers = [
            each["message"]["seq"] for each in lines if each["direction"] == direction
        ]
        assert numbers == list(range(1, len(numbers) + 1))
    samples = [each["samples"] for each in lines]
    assert samples == sorted(samples)
    assert [each["at"] for each in lines] == sorted(each["at"] for each in lines)
    (recording,) = it.recordings()
    assert samples[-1] == recording.facts["audioBytes"] // 2
    (entry,) = [
        each for each in recording.facts["objects"] if each["key"].endswith(".jsonl")
    ]
    assert entry["bytes"] == len(recording.audio(".jsonl"))
    assert b"170123" not in recording.audio(".jsonl")


async def test_nothing_is_kept_unless_it_is_wanted(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        await it.call(duration=1.0)
        await it.settle()
    (recording,) = it.recordings()
    assert not list(recording.folder.glob("audio/*.jsonl"))


async def test_dialogue_of_a_call_that_was_cut_off_is_stored_by_the_next_process(
    tmp_path: Path,
) -> None:
    async with trio.open_nursery() as nursery:
        async with house(tmp_path, keep_dialogue="full", s3_bucket="nowhere") as it:
            nursery.start_soon(lambda: it.call(duration=60.0, fast=False))
            await it.wait_streaming()
            await trio.sleep(0.3)
        nursery.cancel_scope.cancel()
    chosen = load(env_file=tmp_path / "none", recordings_dir=tmp_path)
    done = await recover(chosen, log=structlog.get_logger("audiohook"))
    assert done.stored == 1
    assert kinds(dialogue_of(it))[:2] == ["in open", "out opened"]


async def test_command_shows_a_dialogue_by_key_and_by_conversation(
    tmp_path: Path,
) -> None:
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    async with house(recordings, keep_dialogue="masked") as it:
        await it.call(duration=1.0)
        await it.settle()
        await wait_until(lambda: not it.service.statistics().index.waiting)
    (recording,) = it.recordings()
    conversation = recording.facts["conversationId"]
    by_key, by_path, by_id, nothing = [
        await trio.to_thread.run_sync(
            partial(run, tmp_path, "dialogue", *each, COLUMNS="")
        )
        for each in (
            [f"calls/{recording.folder.name}"],
            [str(recording.folder), "--json"],
            [conversation],
            ["calls/nothing"],
        )
    ]
    for shown in (by_key, by_id):
        assert shown.returncode == 0
        assert "◀ Genesys" in shown.stdout
        assert "opened" in shown.stdout
        assert conversation in shown.stdout
        # Whole lines, though no terminal is there to say how wide it is.
        first, *rows = shown.stdout.splitlines()
        assert first.startswith("session ")
        assert first.endswith(", end")
        assert len(rows) == 1 + len(recording.audio(".jsonl").splitlines())
        assert conversation in next(row for row in rows if " open " in row)
    assert by_path.stdout.encode() == recording.audio(".jsonl")
    assert nothing.returncode == 1
    assert "no recording of ours" in nothing.stdout


@pytest.mark.parametrize("word", ["yes", "FULL"])
def test_setting_takes_three_words(word: str, tmp_path: Path) -> None:
    done = run(tmp_path, "recover", KEEP_DIALOGUE=word)
    assert "KEEP_DIALOGUE: should be 'no', 'masked' or 'full'" in done.stderr
