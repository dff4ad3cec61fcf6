"""Calls that are stored in parts, while they live and after."""

from __future__ import annotations

import errno
import itertools
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from audiohook.errors import SpoolError, UploadError, UploadGoneError
from audiohook.protocol.timeline import GapKind
from audiohook.recording import disk, wav
from audiohook.recording.journal import GapFact, UploadBegun
from audiohook.recording.render import Layout
from audiohook.recording.wav import Encoding
from audiohook.storage.base import BytesBlob
from tests.recording.factory import entries, make_closed, make_opened, running
from tests.storage.fake_s3 import FakeS3, Thing, away
from tests.storage.scripts import (
    AUDIO,
    Script,
    finish_at_last,
    plain_script,
    play,
    run_script,
    stored_whole,
    stored_whole_locked,
)
from tests.storage.uploads import (
    make_uploader,
)
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from audiohook.recording.journal import Fact
    from audiohook.recording.spool import Spool
    from audiohook.recording.spooled import SpooledCall
    from audiohook.storage.upload import CallUpload


def journal_of(folder: Path, script: Script) -> list[dict[str, Any]]:
    path = folder / script.opened.session_id / "journal.jsonl"
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines]


# While it lives


async def test_parts_from_the_second_on_go_while_the_call_lives(
    tmp_path: Path,
) -> None:
    store = FakeS3()
    script = plain_script()
    async with running(tmp_path) as spool:
        call, upload = await play(script, spool, make_uploader(store, spool))
        parts = {
            each.key.rpartition(".")[2]: sorted(each.parts)
            for each in store.uploads.values()
        }
        # 1,000 bytes of audio are 44 + 2,000 of a WAV: 31 whole parts of 64.
        assert parts == {"wav": list(range(2, 32)), "raw": list(range(2, 16))}
        assert store.objects == {}
        await spool.seal(call, make_closed(1000))
        sent = len(store.sent)
        await upload.finish()
    # The first and the last of each, and nothing again.
    numbers = [number for _, _, number, _ in store.sent[sent:]]
    assert (sorted(numbers[:2]), sorted(numbers[2:])) == ([1, 32], [1, 16])
    assert store.uploads == {}
    assert store.listings == 0


async def test_object_is_what_a_put_would_have_made(tmp_path: Path) -> None:
    store = FakeS3()
    assert await run_script(tmp_path, store, plain_script()) == store.contents()
    assert len(store.objects) == 3


async def test_nothing_goes_before_it_is_settled(tmp_path: Path) -> None:
    store = FakeS3()
    async with running(tmp_path) as spool:
        uploader = make_uploader(store, spool, keep_raw=False)
        call = await spool.create(make_opened())
        os.pwrite(call.audio_fd, AUDIO, 0)
        upload = uploader.take(call)
        # The header and 42 bytes of audio are two parts, but for the byte that
        # might turn out to be padding.
        assert not upload.ready(42)
        await upload.advance(42)
        assert store.sent == []
        # A frame has two bytes of audio.
        assert not upload.ready(43)
        assert upload.ready(44)
        await upload.advance(44)
        await upload.advance(44)
        assert [number for _, _, number, _ in store.sent] == [2]
        assert not upload.ready(75)
        assert upload.ready(76)


async def test_silence_of_a_gap_is_sent_like_audio(tmp_path: Path) -> None:
    store = FakeS3()
    script = plain_script()
    script.steps.insert(3, GapFact(GapKind.PAUSED, 150, 10_000))
    async with running(tmp_path) as spool:
        call, upload = await play(
            Script(script.opened, script.steps[:4]), spool, make_uploader(store, spool)
        )
        assert len(store.sent) > 600
        await spool.seal(call, make_closed(300))
        sent = len(store.sent)
        await upload.finish()
    assert {number for _, _, number, _ in store.sent[sent:]} <= {1, 636, 5}


async def test_gap_that_becomes_known_late_is_put_right(tmp_path: Path) -> None:
    store = FakeS3()
    script = plain_script()
    script.steps.append(GapFact(GapKind.LOST, 400, 7))
    expected = await run_script(tmp_path, store, script)
    assert store.contents() == expected
    assert store.uploads == {}
    again = [number for key, _, number, _ in store.sent if key.endswith("wav")]
    # 400 samples of a WAV end in part 26: those from there on went twice.
    assert sorted(again) == sorted([*range(1, 34), *range(26, 32)])


async def test_header_that_grows_late_moves_all_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past 4 GiB the header is longer; here, past 1,500 bytes."""
    store = FakeS3()
    plain = wav.header

    def header(encoding: Encoding, channels: int, frames: int) -> bytes:
        long = frames * channels * encoding.sample_bytes > 1500
        return plain(encoding, channels, frames) + bytes(36 * long)

    monkeypatch.setattr("audiohook.recording.render.header", header)
    expected = await run_script(tmp_path, store, plain_script())
    assert store.contents() == expected
    assert store.uploads == {}


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("encoding", Encoding)
async def test_all_layouts_and_encodings(
    tmp_path: Path, layout: Layout, encoding: Encoding
) -> None:
    store = FakeS3()
    expected = await run_script(
        tmp_path, store, plain_script(), layout=layout, encoding=encoding
    )
    assert store.contents() == expected


async def test_call_of_one_part_is_a_single_put(tmp_path: Path) -> None:
    store = FakeS3(4096)
    expected = await run_script(tmp_path, store, plain_script())
    assert store.contents() == expected
    assert store.sent == []


async def test_upload_of_a_call_that_lost_its_audio_is_given_up(
    tmp_path: Path,
) -> None:
    store = FakeS3()
    script = plain_script()
    async with running(tmp_path) as spool:
        call, _ = await play(script, spool, make_uploader(store, spool))
        await spool.flush()
        os.truncate(call.folder / disk.AUDIO, 10)
        call.release()
    expected = await stored_whole(tmp_path)
    async with running(tmp_path) as spool:
        (call,) = await spool.adopt()
        await make_uploader(store, spool).take(call).finish()
    assert store.contents() == expected
    assert store.uploads == {}


async def test_metadata_of_a_live_call_says_what_is_known(tmp_path: Path) -> None:
    store = FakeS3()
    await run_script(tmp_path, store, plain_script())
    for key, thing in store.objects.items():
        known = key.endswith("call.json")
        assert thing.metadata["conversation-id"] != "unknown"
        assert (thing.metadata["bytes"] == "1000") is known
        assert (thing.metadata["duration-seconds"] == "0.0625") is known


async def test_upload_that_is_gone_is_begun_anew_while_the_call_lives(
    tmp_path: Path,
) -> None:
    store = FakeS3()
    script = plain_script()
    half = Script(script.opened, script.steps[:5])
    async with running(tmp_path) as spool:
        call, upload = await play(half, spool, make_uploader(store, spool))
        store.uploads.clear()
        os.pwrite(call.audio_fd, AUDIO, 0)
        gone = 0
        while upload.ready(1000):
            try:
                await upload.advance(1000)
            except UploadGoneError:
                gone += 1
        assert gone == 2
        await spool.seal(call, make_closed(1000))
        await upload.finish()
    assert store.uploads == {}
    raw = next(data for key, data in store.contents().items() if key.endswith("raw"))
    assert raw == AUDIO


async def test_call_that_is_given_up_meanwhile_only_fails(tmp_path: Path) -> None:
    store = FakeS3()
    async with running(tmp_path) as spool:
        call, upload = await play(plain_script(), spool, make_uploader(store, spool))
        descriptor = call.audio_fd

        def give_up(what: str) -> None:
            if what == "part":
                call.release()
                # Still open, or another file might get the number.
                os.fstat(descriptor)

        store.step = give_up
        os.pwrite(call.audio_fd, AUDIO, 1000)
        with pytest.raises(SpoolError, match="given up"):
            await upload.advance(2000)
        # A thread of the spool may be at its journal still.
        await wait_until(lambda: call.audio_fd == -1)


async def test_full_disk_keeps_its_room_for_the_call(tmp_path: Path) -> None:
    store = FakeS3()
    script = plain_script()
    seen: list[int] = []

    def step(what: str) -> None:
        facts = [line["fact"] for line in journal_of(tmp_path, script)]
        seen.append(facts.count("part_stored"))

    async with running(tmp_path) as spool:
        call, upload = await play(script, spool, make_uploader(store, spool))
        await spool.seal(call, make_closed(1000))
        store.step = step
        spool._low_water_bytes = 1 << 62
        assert not spool.can_record
        await upload.finish()
        assert entries(tmp_path) == set()
    # Four more were sent, and none was written down.
    assert set(seen) == {44}
    assert len(store.objects) == 3


# Failures


async def test_finish_that_failed_sends_no_part_again(tmp_path: Path) -> None:
    store = FakeS3()
    left = iter(range(3, 1000, 3))
    fails = next(left)
    count = 0

    def step(what: str) -> None:
        nonlocal count, fails
        count += 1
        # An upload that was begun and never told of is left to the bucket.
        if count >= fails and what != "begin":
            fails = count + next(left)
            raise away()

    script = plain_script()
    async with running(tmp_path) as spool:
        call = await spool.create(script.opened)
        os.pwrite(call.audio_fd, AUDIO, 0)
        await spool.seal(call, make_closed(1000))
        upload = make_uploader(store, spool).take(call)
        store.step = step
        tries = await finish_at_last(upload)
    assert tries > 5
    assert store.uploads == {}
    contents = [(key, number) for key, _, number, _ in store.sent]
    # Only a part whose answer was lost may come twice.
    assert len(contents) - len(set(contents)) <= tries


async def test_lost_answer_to_the_last_request_makes_no_second_object(
    tmp_path: Path,
) -> None:
    store = FakeS3()
    lost = []

    def step(what: str) -> None:
        if what == "complete" and store.written and store.written[-1] not in lost:
            lost.append(store.written[-1])
            raise away()

    store.step = step
    script = plain_script()
    async with running(tmp_path) as spool:
        call, upload = await play(script, spool, make_uploader(store, spool))
        await spool.seal(call, make_closed(1000))
        for _ in range(2):
            with pytest.raises(UploadError, match="reached"):
                await upload.finish()
        sent = len(store.sent)
        call.release()
        (call,) = await spool.adopt()
        await make_uploader(store, spool).take(call).finish()
    assert len(store.sent) == sent
    assert len(store.written) == 3
    assert store.uploads == {}


async def test_upload_of_which_we_were_never_told_is_given_up(tmp_path: Path) -> None:
    store = FakeS3()
    begun = itertools.count()

    def step(what: str) -> None:
        # Before and after each of four; the answers to the first two are lost.
        if what == "begin" and next(begun) in {1, 3}:
            raise away()

    store.step = step
    async with running(tmp_path) as spool:
        script = plain_script()
        call, upload = await play(
            script, spool, make_uploader(store, spool), UploadError
        )
        assert len(store.uploads) == 4
        await spool.seal(call, make_closed(1000))
        await upload.finish()
    assert store.uploads == {}
    assert len(store.objects) == 3


@dataclass
class Stray:
    """An upload to the key of a WAV of which the journal does not know."""

    store: FakeS3 = field(default_factory=FakeS3)

    async def begin(self, spool: Spool) -> CallUpload:
        """Leave it behind, with a call that has ended since; take the call over."""
        call, _ = await play(plain_script(), spool, make_uploader(self.store, spool))
        await spool.seal(call, make_closed(1000))
        (self.key,) = (key for key in call.record.uploads if key.endswith("wav"))
        call.release()
        self.name = await self.store.begin(self.key, metadata={}, token="another's")
        (call,) = await spool.adopt()
        return make_uploader(self.store, spool).take(call)

    @property
    def is_there(self) -> bool:
        return self.name in self.store.uploads


async def test_upload_that_has_parts_is_left_to_whoever_knows_of_it(
    tmp_path: Path,
) -> None:
    stray = Stray()
    async with running(tmp_path) as spool:
        upload = await stray.begin(spool)
        await stray.store.put_part(stray.key, stray.name, 2, BytesBlob(b"x"))
        await upload.finish()
    assert stray.store.uploads.keys() == {stray.name}
    assert len(stray.store.objects) == 3


async def test_upload_to_a_key_that_only_begins_like_ours_is_left_alone(
    tmp_path: Path,
) -> None:
    stray = Stray()
    async with running(tmp_path) as spool:
        upload = await stray.begin(spool)
        other = await stray.store.begin(f"{stray.key}.wav", metadata={}, token="o")
        await upload.finish()
    assert stray.store.uploads.keys() == {other}


@pytest.mark.parametrize("what", ["list uploads", "list", "abort"])
async def test_call_is_stored_though_nothing_can_be_given_up(
    tmp_path: Path, what: str
) -> None:
    stray = Stray()

    def step(now: str) -> None:
        # Once all is stored; before, the journal's own are listed.
        if now == what and len(stray.store.objects) == 3:
            raise away()

    async with running(tmp_path) as spool:
        upload = await stray.begin(spool)
        stray.store.step = step
        assert await upload.finish()
        assert entries(tmp_path) == set()
    assert stray.is_there
    assert len(stray.store.objects) == 3


@pytest.mark.parametrize("what", ["list uploads", "list", "abort"])
async def test_stray_upload_is_given_up_though_the_store_fails_meanwhile(
    tmp_path: Path, what: str
) -> None:
    stray = Stray()
    faults = iter(range(3))

    def step(now: str) -> None:
        if now == what and len(stray.store.objects) == 3:
            for _ in faults:
                raise away()

    async with running(tmp_path) as spool:
        upload = await stray.begin(spool)
        stray.store.step = step
        assert await upload.finish()
        assert entries(tmp_path) == set()
    assert not stray.is_there
    assert len(stray.store.objects) == 3


async def test_upload_that_goes_as_it_is_to_be_given_up_is_no_fault(
    tmp_path: Path,
) -> None:
    stray = Stray()

    def step(now: str) -> None:
        if now == "list" and len(stray.store.objects) == 3:
            stray.store.uploads.pop(stray.name, None)

    async with running(tmp_path) as spool:
        upload = await stray.begin(spool)
        stray.store.step = step
        await upload.finish()
    assert stray.store.uploads == {}


async def test_call_that_nobody_else_was_at_is_not_searched_for_uploads(
    tmp_path: Path,
) -> None:
    store = FakeS3()
    seen: list[str] = []
    store.step = seen.append
    await run_script(tmp_path, store, plain_script())
    assert "complete" in seen
    assert "list uploads" not in seen


async def test_upload_that_is_gone_is_begun_anew_at_once(tmp_path: Path) -> None:
    store = FakeS3()
    script = plain_script()
    async with running(tmp_path) as spool:
        call, upload = await play(script, spool, make_uploader(store, spool))
        await spool.seal(call, make_closed(1000))
        store.uploads.clear()
        await upload.finish()
    assert store.uploads == {}
    assert len(store.objects) == 3


async def test_upload_that_is_gone_again_and_again_is_tried_later(
    tmp_path: Path,
) -> None:
    store = FakeS3()

    def step(what: str) -> None:
        if what == "complete":
            store.uploads.clear()

    store.step = step
    async with running(tmp_path) as spool:
        call, upload = await play(plain_script(), spool, make_uploader(store, spool))
        await spool.seal(call, make_closed(1000))
        with pytest.raises(UploadGoneError):
            await upload.finish()
        store.step = lambda _: None
        await upload.finish()
    assert len(store.objects) == 3


async def test_second_upload_is_given_up_if_the_first_became_the_object(
    tmp_path: Path,
) -> None:
    """As when its answer was lost, and the lines that told of its parts as well."""
    store = FakeS3()
    script = plain_script()
    async with running(tmp_path) as spool:
        call = await spool.create(script.opened)
        os.pwrite(call.audio_fd, AUDIO, 0)
        await spool.seal(call, make_closed(1000))
        expected = await stored_whole_locked(call, spool, {})
        key = next(key for key in expected if key.endswith(".wav"))
        upload = make_uploader(store, spool).take(call)

        def step(what: str) -> None:
            if what == "part":
                (upload_id,) = store.uploads
                del store.uploads[upload_id]
                token = script.opened.session_id
                store.objects[key] = Thing(expected[key], token, {})
                store.step = lambda _: None

        store.step = step
        await upload.finish()
    assert store.uploads == {}
    assert store.contents() == expected


async def test_upload_that_cannot_be_written_down_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FakeS3()
    async with running(tmp_path) as spool:
        call = await spool.create(make_opened())
        os.pwrite(call.audio_fd, AUDIO, 0)
        await spool.seal(call, make_closed(1000))
        commit = spool.commit

        async def refuse(call: SpooledCall, *facts: Fact) -> None:
            if any(isinstance(fact, UploadBegun) for fact in facts):
                raise SpoolError("bad sector")
            await commit(call, *facts)

        monkeypatch.setattr(spool, "commit", refuse)
        with pytest.raises(SpoolError, match="bad sector"):
            await make_uploader(store, spool).take(call).finish()
    assert store.uploads == {}


async def test_upload_that_is_not_on_disk_for_sure_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line is in the journal, whatever the kernel says of it."""
    store = FakeS3()
    fdatasync, faults = os.fdatasync, [OSError(errno.EIO, "bad sector")]
    begins = 0

    def sync(fd: int) -> None:
        if begins and faults:
            raise faults.pop()
        fdatasync(fd)

    def step(what: str) -> None:
        nonlocal begins
        begins += what == "begin"

    store.step = step
    async with running(tmp_path) as spool:
        call = await spool.create(make_opened())
        os.pwrite(call.audio_fd, AUDIO, 0)
        await spool.seal(call, make_closed(1000))
        monkeypatch.setattr(os, "fdatasync", sync)
        with pytest.raises(SpoolError, match="bad sector"):
            await make_uploader(store, spool).take(call).finish()
        assert len(store.uploads) == 1
        call.release()
        (call,) = await spool.adopt()
        await make_uploader(store, spool).take(call).finish()
    # Before and after each, of the WAV and of the audio as received.
    assert begins == 4
    assert store.uploads == {}
    assert len(store.objects) == 3


async def test_part_that_is_not_what_was_stored_is_sent_again(tmp_path: Path) -> None:
    """As when a request that was given up for lost arrived after all."""
    store = FakeS3()
    script = plain_script()
    async with running(tmp_path) as spool:
        call, _ = await play(script, spool, make_uploader(store, spool))
        await spool.seal(call, make_closed(1000))
        expected = await stored_whole_locked(call, spool, {})
        call.release()
        first, second = store.uploads.values()
        first.parts[5] = first.parts[5][0], '"another"'
        del second.parts[7]
        sent = len(store.sent)
        (call,) = await spool.adopt()
        await make_uploader(store, spool).take(call).finish()
    again = sorted((key[-3:], number) for key, _, number, _ in store.sent[sent:])
    raw, wav = [("raw", n) for n in (1, 7, 16)], [("wav", n) for n in (1, 5, 32)]
    assert again == raw + wav
    assert store.contents() == expected


@pytest.mark.parametrize("gone", [False, True])
async def test_part_that_was_put_right_is_not_sent_a_third_time(
    tmp_path: Path, gone: bool
) -> None:
    store = FakeS3()
    script = plain_script()
    script.steps.append(GapFact(GapKind.LOST, 400, 7))
    async with running(tmp_path) as spool:
        call, upload = await play(script, spool, make_uploader(store, spool))
        await spool.seal(call, make_closed(1000))

        def step(what: str) -> None:
            if what == "complete":
                store.step = lambda _: None
                if gone:
                    store.uploads.clear()
                raise UploadGoneError("x") if gone else away()

        store.step = step
        if not gone:
            with pytest.raises(UploadError):
                await upload.finish()
        sent = len(store.sent)
        await upload.finish()
    numbers = [number for key, _, number, _ in store.sent[sent:] if key[-3:] == "wav"]
    assert len(numbers) == len(set(numbers)) + (8 if gone else 0)


# Names that are taken


async def test_name_that_is_taken_costs_the_parts_but_no_upload_is_left(
    tmp_path: Path,
) -> None:
    store = FakeS3()
    script = plain_script()
    async with running(tmp_path) as spool:
        call, upload = await play(script, spool, make_uploader(store, spool))
        await spool.seal(call, make_closed(1000))
        expected = await stored_whole_locked(call, spool, {})
        for key in expected:
            store.objects[key] = Thing(b"another's", "another", {})
        await upload.finish()
    assert store.uploads == {}
    assert len(store.objects) == 6
    own = {key: data for key, data in store.contents().items() if key not in expected}
    kinds = {key.rpartition(".")[2]: data for key, data in own.items()}
    assert all("_2/" in key for key in own)
    for key, data in expected.items():
        kind = key.rpartition(".")[2]
        assert store.objects[key].data == b"another's"
        if kind != "json":
            assert kinds[kind] == data
