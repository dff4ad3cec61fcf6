"""Recordings held against what was sent, good ones and spoilt ones."""

from __future__ import annotations

import json
import shutil
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import trio

from audiohook.errors import ConfigError
from audiohook.simulator.load._frames import audio
from audiohook.simulator.load.manifest import (
    ManifestWriter,
    SentCall,
    SentGap,
    make_manifest,
    read_manifest,
)
from audiohook.simulator.load.shelf import open_shelf
from audiohook.simulator.load.verify import Verdict, verify
from audiohook.simulator.load.voice import Expected, from_pcm, to_pcm
from tests import reference_ulaw
from tests.house import KEY, house
from tests.simulator.load.runs import Run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FRAME = 1600
HEADER = 44


async def check(
    calls: list[SentCall],
    root: Path,
    **options: Any,  # noqa: ANN401 - passed on
) -> Verdict:
    return await verify(calls, open_shelf(str(root)), **{"wait": 0.0, **options})


async def record(
    folder: Path,
    run: dict[str, Any],
    **flags: Any,  # noqa: ANN401 - passed on
) -> list[SentCall]:
    """Has calls recorded by the service itself."""
    async with house(folder, **flags) as it:
        load = Run(it.uri, api_key=KEY, speed=10.0, **run)
        await load.make()
        await it.settle()
    assert [call.faults for call in load.calls if call.faults] == []
    return sorted(load.calls, key=lambda call: call.number)


# What the service stores is found to be right, in every form.


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"wav_encoding": "ulaw"},
        {"wav_encoding": "ulaw", "channel_layout": "split"},
        {"channel_layout": "split", "gaps": "cut"},
        {"channel_layout": "mono"},
        {"wav_encoding": "ulaw", "channel_layout": "mono"},
        {"keep_raw": False},
    ],
    ids=lambda flags: "-".join(map(str, flags.values())) or "default",
)
async def test_recordings_are_sound_in_every_form(
    flags: dict[str, object], tmp_path: Path
) -> None:
    run = {"calls": 6, "length": "3..6", "pause": 0.6, "discard": 0.6, "hang_up": 0.3}
    calls = await record(tmp_path, {**run, "probe": 0.2, "seed": 0}, **flags)
    # The seed was chosen so.
    assert {call.ending for call in calls} == {"closed", "hung-up", "probed"}
    assert {gap.kind for call in calls for gap in call.gaps} == {"paused", "discarded"}
    verdict = await check(calls, tmp_path)
    assert verdict.faults == []
    assert verdict.sound == verdict.calls == 6
    assert verdict.audio_bytes == sum(call.audio_bytes for call in calls)


# What is wrong is told.


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[SentCall]]:
    """Two calls as the service stores them; the first pauses once."""
    folder = tmp_path_factory.mktemp("recorded")

    async def run() -> list[SentCall]:
        options = {"calls": 2, "length": "4", "pause": 0.5, "seed": 1}
        return await record(folder, options)

    calls = trio.run(run)
    first, second = calls
    assert [len(first.gaps), len(second.gaps)] == [1, 0]
    return folder, calls


class Copy:
    """Recordings to spoil; those of the first call are at hand."""

    def __init__(self, root: Path, calls: list[SentCall]) -> None:
        self.root = root
        self.calls = calls

    def folder(self, number: int = 0) -> Path:
        (found,) = self.root.glob(f"calls/*_{self.calls[number].conversation}_*")
        return found

    def path(self, ending: str, number: int = 0) -> Path:
        (found,) = self.folder(number).glob(f"audio/*{ending}")
        return found

    def change(self, ending: str, change: Callable[[bytearray], Any]) -> None:
        data = bytearray(self.path(ending).read_bytes())
        change(data)
        self.path(ending).write_bytes(data)

    def facts(self, change: Callable[[dict[str, Any]], None]) -> None:
        path = self.folder() / "call.json"
        facts = json.loads(path.read_bytes())
        change(facts)
        path.write_text(json.dumps(facts))


@pytest.fixture
def copy(recorded: tuple[Path, list[SentCall]], tmp_path: Path) -> Copy:
    root, calls = recorded
    shutil.copytree(root, tmp_path / "copy", ignore=shutil.ignore_patterns(".spool"))
    return Copy(tmp_path / "copy", calls)


def cut(start: int, count: int) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        del data[start : start + count]

    return change


def insert(start: int, made: bytes) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[start:start] = made

    return change


def overwrite(start: int, made: bytes) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[start : start + len(made)] = made

    return change


def repeat(start: int, count: int) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[start:start] = data[start : start + count]

    return change


def of_other(copy: Copy) -> bytes:
    """Returns a frame of the second call, the tenth."""
    return audio(copy.calls[1].voice, 2000, 200)


SPOILT: dict[str, tuple[Callable[[Copy], object], str]] = {
    "dropped frame": (
        lambda it: it.change(".raw", cut(10 * FRAME, FRAME)),
        "raw, at 1.0000 s: 1,600 bytes missing (1 frame)",
    ),
    "dropped frame at the end": (
        lambda it: it.change(".raw", cut(39 * FRAME, FRAME)),
        "raw: ends 1,600 bytes (0.100 s) early",
    ),
    "dropped frame at the beginning": (
        lambda it: it.change(".raw", cut(0, FRAME)),
        "raw, at 0.0000 s: 1,600 bytes missing (1 frame)",
    ),
    "dropped frame in the WAV": (
        lambda it: it.change(".wav", cut(HEADER + 32, 2 * FRAME)),
        "WAV, at 0.0010 s: 1,600 bytes missing (1 frame)",
    ),
    "dropped samples": (
        lambda it: it.change(".raw", cut(1002, 6)),
        "raw, at 0.0626 s: 6 bytes missing",
    ),
    "repeated frame": (
        lambda it: it.change(".raw", repeat(10 * FRAME, FRAME)),
        "raw, at 1.1000 s: 1,600 bytes back: audio repeated (1 frame)",
    ),
    "frame of another call": (
        lambda it: it.change(".raw", overwrite(10 * FRAME, of_other(it))),
        "audio of call 1",
    ),
    "frame of another call in the WAV": (
        lambda it: it.change(".wav", overwrite(HEADER, to_pcm(of_other(it)))),
        "WAV, at 0.0000 s: audio of call 1",
    ),
    "frame of another load": (
        lambda it: it.change(".raw", overwrite(FRAME, audio(1, 0, 200))),
        "audio of a call of another load",
    ),
    "bytes of nobody": (
        lambda it: it.change(".raw", overwrite(FRAME, b"\x40\x41" * 800)),
        "raw, at 0.1000 s: bytes that nobody sent",
    ),
    "silence": (
        lambda it: it.change(".raw", overwrite(FRAME, b"\xff" * FRAME)),
        "raw, at 0.1000 s: 1,600 bytes of silence that was not sent",
    ),
    "silence in the WAV": (
        lambda it: it.change(".wav", overwrite(HEADER, bytes(3200))),
        "WAV, at 0.0000 s: 1,600 bytes of silence that was not sent",
    ),
    "one bit": (
        lambda it: it.change(".raw", overwrite(FRAME, b"\x3f")),
        "raw, at 0.1000 s: bytes that nobody sent",
    ),
    "an extra second": (
        lambda it: it.change(".raw", lambda data: data.extend(b"\xff" * 16_000)),
        "raw: 16,000 bytes (1.000 s) more than was sent",
    ),
    "an extra second in the WAV": (
        lambda it: it.change(".wav", lambda data: data.extend(bytes(32_000))),
        "WAV: 16,000 bytes (1.000 s) more than was sent",
    ),
    "header of the WAV": (
        lambda it: it.change(".wav", overwrite(40, struct.pack("<I", 400))),
        "WAV: its header tells of 400 bytes of samples",
    ),
    "no WAV file": (
        lambda it: it.change(".wav", overwrite(0, b"JUNK")),
        "WAV: not a WAV file",
    ),
    "gap of another length": (
        lambda it: it.facts(lambda facts: facts["gaps"][0].update(lengthSamples=1)),
        "call.json: gaps paused 1 samples at",
    ),
    "no gap": (
        lambda it: it.facts(lambda facts: facts.update(gaps=[])),
        "call.json: gaps none, not paused",
    ),
    "incomplete": (
        lambda it: it.facts(lambda facts: facts["ended"].update(complete=False)),
        "call.json: complete is False, the call closed",
    ),
    "another session": (
        lambda it: it.facts(lambda facts: facts.update(sessionId="x")),
        "call.json is of session x",
    ),
    "another checksum": (
        lambda it: it.facts(lambda facts: facts["objects"][0].update(sha256="")),
        "call.json: another size or checksum for",
    ),
    "no JSON": (
        lambda it: (it.folder() / "call.json").write_text("?"),
        "call.json is of session None",
    ),
    "no call.json": (lambda it: (it.folder() / "call.json").unlink(), "no call.json"),
    "no WAV": (lambda it: it.path(".wav").unlink(), "no WAV"),
    "no raw": (lambda it: it.path(".raw").unlink(), "not there: 2026"),
    "missing call": (lambda it: shutil.rmtree(it.folder()), "no recording"),
    "stored twice": (
        lambda it: shutil.copytree(
            it.folder(), it.folder().with_name("3" + it.folder().name[1:])
        ),
        "2 recordings",
    ),
}


@pytest.mark.parametrize("fault", SPOILT)
async def test_fault_of_a_recording_is_told(fault: str, copy: Copy) -> None:
    spoil, words = SPOILT[fault]
    spoil(copy)
    verdict = await check(copy.calls, copy.root)
    (line,) = verdict.faults
    assert line.startswith("call 0: ")
    assert words in line
    assert verdict.sound == 1


async def test_gap_that_is_too_short_or_too_long_is_told(copy: Copy) -> None:
    (gap,) = copy.calls[0].gaps
    start = HEADER + gap.offset_samples * 4
    copy.change(".wav", cut(start, 400))
    (line,) = (await check(copy.calls, copy.root)).faults
    place = (gap.offset_samples + gap.length_samples - 100) / 8000
    assert f"WAV, at {place:.4f} s: audio where a gap has to be" in line
    copy.change(".wav", insert(start, bytes(800)))
    (line,) = (await check(copy.calls, copy.root)).faults
    place = (gap.offset_samples + gap.length_samples) / 8000
    assert f"WAV, at {place:.4f} s: 200 bytes of silence that was not sent" in line


async def test_sound_recordings_are_found_so(copy: Copy) -> None:
    verdict = await check(copy.calls, copy.root)
    assert (verdict.sound, verdict.faults) == (2, [])


async def test_call_that_failed_may_be_there_in_part(copy: Copy) -> None:
    calls = [replace(copy.calls[0], ending="failed"), copy.calls[1]]
    copy.change(".raw", cut(10 * FRAME, 1_000_000))
    assert (await check(calls, copy.root)).faults == []
    copy.change(".raw", overwrite(0, of_other(copy)))
    (line,) = (await check(calls, copy.root)).faults
    assert "audio of call 1" in line
    shutil.rmtree(copy.folder())
    assert (await check(calls, copy.root)).faults == []


async def test_probe_that_is_recorded_is_told(copy: Copy) -> None:
    nil = "00000000-0000-0000-0000-000000000000"
    calls = [replace(copy.calls[0], ending="probed"), copy.calls[1]]
    folder = copy.folder()
    folder.rename(folder.with_name(f"2026_{nil}_{nil}"))
    (line,) = (await check(calls, copy.root)).faults
    assert line == "call 0: recorded, though it was only a probe"


async def test_recordings_that_are_not_stored_yet_are_waited_for(
    copy: Copy, autojump_clock: trio.testing.MockClock
) -> None:
    hidden = copy.root.parent / "later"
    folder = copy.folder()
    folder.rename(hidden)

    async def store() -> None:
        await trio.sleep(7.0)
        hidden.rename(folder)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(store)
        verdict = await check(copy.calls, copy.root, wait=20.0)
    assert verdict.faults == []
    assert 7 <= trio.current_time() < 20


async def test_servers_that_store_only_what_came_are_judged_by_that(
    copy: Copy,
) -> None:
    (copy.folder() / "call.json").unlink()
    copy.change(".wav", overwrite(0, b"JUNK"))
    assert (await check(copy.calls, copy.root, raw_only=True)).faults == []
    copy.path(".raw").unlink()
    (line,) = (await check(copy.calls, copy.root, raw_only=True)).faults
    assert line == "call 0: no audio as received"


async def test_recording_of_a_call_without_audio_is_told(copy: Copy) -> None:
    calls = [replace(copy.calls[0], channels=0, audio_bytes=0), copy.calls[1]]
    (line,) = (await check(calls, copy.root)).faults
    assert "the server wanted no audio" in line


async def test_call_that_was_given_up_may_have_been_opened_after_that(
    copy: Copy,
) -> None:
    failed = replace(copy.calls[0], ending="failed", channels=0, audio_bytes=0)
    calls = [failed, copy.calls[1]]
    (line,) = (await check(calls, copy.root, raw_only=True)).faults
    assert line == "call 0: raw: audio, though none was sent"
    copy.change(".raw", bytearray.clear)
    assert (await check(calls, copy.root, raw_only=True)).faults == []


def test_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        open_shelf(str(tmp_path / "nowhere"))


# The manifest.


def make_call(number: int) -> SentCall:
    gaps = (SentGap("paused", 800, 5), SentGap("discarded", 1600, 7))
    return SentCall(
        number=number,
        voice=9,
        session="s",
        conversation="c",
        channels=2,
        audio_bytes=12_800,
        frame_bytes=1600,
        gaps=gaps,
        ending="closed",
        faults=("seq: é",),
        closed_at=1_795_600_800.25,
    )


def test_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    make_manifest(path)
    writers = [ManifestWriter(path), ManifestWriter(path)]
    for number in range(1000):
        writers[number % 2].add(make_call(number))
    for writer in writers:
        writer.close()
    calls = sorted(read_manifest(path), key=lambda call: call.number)
    assert calls == [make_call(number) for number in range(1000)]


def test_manifest_that_is_none_is_told(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_text(make_call(1).to_line() + '{"number": 1}\n')
    with pytest.raises(ConfigError, match="line 2: no call of a manifest"):
        list(read_manifest(path))
    path.write_text("?\n")
    with pytest.raises(ConfigError, match="line 1"):
        list(read_manifest(path))
    with pytest.raises(ConfigError, match="cannot read"):
        list(read_manifest(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="cannot write"):
        make_manifest(tmp_path)


# The audio that is expected.


def test_expected_audio_has_its_gaps() -> None:
    call = make_call(0)
    whole = audio(9, 0, 1600)
    expected = Expected(call, gaps=True)
    wanted = whole[:1600] + b"\xff" * 10 + whole[1600:3200] + b"\xff" * 14
    wanted += whole[3200:]
    assert expected.total_bytes == len(wanted)
    taken = [expected.take(count) for count in (1, 1600, 7, 5000, 100_000, 10)]
    assert b"".join(taken) == wanted
    assert [len(each) for each in taken[:4]] == [1, 1600, 7, 5000]
    assert Expected(call, gaps=False).take(100_000) == whole


def test_decoding_is_that_of_the_standard() -> None:
    codes = bytes(range(256))
    assert to_pcm(codes) == reference_ulaw.decode(codes)
    # Of the two codes of zero, silence is taken.
    assert from_pcm(to_pcm(codes)) == codes.replace(b"\x7f", b"\xff")
    assert from_pcm(struct.pack("<h", 5)) == b"\xff"
