"""Calls on their way to the store, each object once, however often it is tried."""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from audiohook.errors import KeyExistsError, SpoolError, UploadError
from audiohook.protocol.timeline import GapKind
from audiohook.recording import disk
from audiohook.recording.journal import Done, GapFact, Media
from audiohook.recording.render import Gaps, Layout
from audiohook.recording.transcripts import (
    Choice,
    TranscriptGivenUp,
    TranscriptPlanned,
)
from audiohook.recording.wav import Encoding, read_info
from audiohook.storage.folder import FolderStore
from audiohook.storage.layout import peaks_key
from tests.recording.factory import (
    entries,
    make_opened,
    running,
)
from tests.recording.waveforms import summed_up
from tests.storage.uploads import (
    AUDIO,
    NAME,
    Changes,
    Fuse,
    FusedSpool,
    FusedStore,
    Killed,
    MemoryStore,
    make_uploader,
    spool_call,
    store_call,
    summary_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from audiohook.recording.journal import Opened
    from audiohook.recording.render import Rendering
    from audiohook.recording.spooled import SpooledCall
    from audiohook.storage.base import Blob, StoredObject


async def test_finish_stores_everything_and_call_json_last(tmp_path: Path) -> None:
    opened = make_opened()
    store = await store_call(tmp_path, opened)
    base = f"calls/{NAME}"
    assert store.written == [
        f"{base}/audio/{NAME}.wav",
        f"{base}/audio/{NAME}.raw",
        f"{base}/call.json",
    ]
    assert store.objects[f"{base}/audio/{NAME}.raw"] == AUDIO
    info = read_info(io.BytesIO(store.objects[f"{base}/audio/{NAME}.wav"]))
    assert (info.channels, info.bits, info.data_bytes) == (2, 16, 2 * len(AUDIO))
    assert store.tokens == {opened.session_id}


async def test_call_without_audio_gets_a_wav_without_frames(tmp_path: Path) -> None:
    store = await store_call(tmp_path, make_opened(), b"")
    info = read_info(io.BytesIO(store.objects[f"calls/{NAME}/audio/{NAME}.wav"]))
    assert info.data_bytes == 0
    assert store.objects[f"calls/{NAME}/audio/{NAME}.raw"] == b""
    assert summary_of(store)["duration"] == 0


async def test_waveform_lies_beside_each_file_and_in_call_json(
    tmp_path: Path,
) -> None:
    store = await store_call(
        tmp_path, make_opened(), layout=Layout.SPLIT, keep_peaks=True
    )
    audio = f"calls/{NAME}/audio/{NAME}"
    assert store.written == [
        f"{audio}-external.wav",
        f"{audio}-internal.wav",
        f"{audio}.raw",
        f"{audio}-external.dat",
        f"{audio}-internal.dat",
        f"calls/{NAME}/call.json",
    ]
    told = {each["key"]: each for each in summary_of(store)["objects"]}
    for side in ("external", "internal"):
        data = store.objects[f"{audio}-{side}.dat"]
        assert data == summed_up(store.objects[f"{audio}-{side}.wav"])
        entry = told[f"{audio}-{side}.dat"]
        assert entry["bytes"] == len(data)
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()


async def test_waveform_that_another_version_has_drawn_is_replaced(
    tmp_path: Path,
) -> None:
    store = MemoryStore()
    key = f"calls/{NAME}/audio/{NAME}.dat"
    store.objects[key] = b"otherwise"
    async with running(tmp_path) as spool:
        call = await spool_call(spool, make_opened())
        await make_uploader(store, spool, keep_peaks=True).take(call).finish()
    assert store.objects[key] == summed_up(store.objects[key[:-4] + ".wav"])
    assert set(store.objects) >= {f"calls/{NAME}/call.json"}


async def test_split_layout_stores_one_wav_a_channel(tmp_path: Path) -> None:
    store = await store_call(
        tmp_path,
        make_opened(),
        encoding=Encoding.ULAW,
        layout=Layout.SPLIT,
        keep_raw=False,
    )
    audio = f"calls/{NAME}/audio/{NAME}"
    assert set(store.objects) == {
        f"{audio}-external.wav",
        f"{audio}-internal.wav",
        f"calls/{NAME}/call.json",
    }
    for number, channel in enumerate(("external", "internal")):
        data = store.objects[f"{audio}-{channel}.wav"]
        info = read_info(io.BytesIO(data))
        assert info.channels == 1
        end = info.data_offset + len(AUDIO) // 2
        assert data[info.data_offset : end] == AUDIO[number::2]


async def test_finish_refuses_a_call_that_is_not_sealed(tmp_path: Path) -> None:
    async with running(tmp_path) as spool:
        call = await spool.create(make_opened())
        with pytest.raises(SpoolError, match="not sealed"):
            await make_uploader(MemoryStore(), spool).take(call).finish()


async def test_finish_of_a_call_that_is_done_only_removes_it(tmp_path: Path) -> None:
    store = MemoryStore()
    async with running(tmp_path) as spool:
        call = await spool_call(spool, make_opened())
        await spool.commit(call, Done())
        await make_uploader(store, spool).take(call).finish()
        assert entries(tmp_path) == set()
    assert store.objects == {}


# Names that are taken


@pytest.mark.parametrize("audio", [AUDIO, b""])
async def test_sessions_that_would_share_a_name_get_numbers(
    tmp_path: Path, audio: bytes
) -> None:
    store = MemoryStore()
    sessions = []
    async with running(tmp_path) as spool:
        for number in range(3):
            opened = make_opened()
            sessions.append(opened.session_id)
            call = await spool_call(spool, opened, audio and audio + bytes(2 * number))
            await make_uploader(store, spool).take(call).finish()
    names = [NAME, f"{NAME}_2", f"{NAME}_3"]
    for session, name in zip(sessions, names, strict=True):
        summary = summary_of(store, name)
        assert summary["sessionId"] == session
        for each in summary["objects"]:
            data = store.objects[each["key"]]
            assert each["key"].startswith(f"calls/{name}/audio/{name}.")
            assert hashlib.sha256(data).hexdigest() == each["sha256"]
    assert len(store.objects) == 9


async def test_names_run_out_with_an_error_one_can_read(tmp_path: Path) -> None:
    class Taken(MemoryStore):
        async def put(
            self, key: str, blob: Blob, *, metadata: Mapping[str, str], token: str
        ) -> StoredObject:
            raise KeyExistsError(key)

    async with running(tmp_path) as spool:
        call = await spool_call(spool, make_opened())
        with pytest.raises(UploadError, match="no free name") as caught:
            await make_uploader(Taken(), spool).take(call).finish()
        assert not isinstance(caught.value, KeyExistsError)


# Trying again


@pytest.mark.parametrize("lines_survive", [True, False])
@pytest.mark.parametrize("layout", [Layout.STEREO, Layout.SPLIT])
@pytest.mark.parametrize("peaks", [True, False])
async def test_finish_killed_at_any_step_goes_on_in_the_next_process(
    tmp_path: Path, layout: Layout, lines_survive: bool, peaks: bool
) -> None:
    """The same objects, each written once, whatever the next one's settings."""
    opened = make_opened()
    whole = await store_call(
        tmp_path / "whole", opened, layout=layout, keep_peaks=peaks
    )
    for step in itertools.count(1):
        folder = tmp_path / str(step)
        store = FusedStore()
        store.fuse = fuse = Fuse(step)
        killed = False
        async with running(folder) as spool:
            call = await spool_call(spool, opened)
            fused: Any = FusedSpool(spool, fuse)
            uploader = make_uploader(store, fused, layout=layout, keep_peaks=peaks)
            try:
                await uploader.take(call).finish()
            except Killed:
                killed = True
                if lines_survive:
                    await spool.flush()
            call.release()
        planned_before = "planned" in read_journal(folder, opened)
        store.fuse = Fuse(0)
        async with running(folder) as spool:
            for call in await spool.adopt():
                # Settings of the new process must not matter once there is a plan.
                other: Changes = {"layout": layout, "keep_peaks": peaks}
                if planned_before:
                    other = {"layout": Layout.MONO, "keep_peaks": not peaks}
                await make_uploader(store, spool, **other).take(call).finish()
            assert entries(folder) == set()
        assert store.objects == whole.objects
        assert store.written == whole.written
        if not killed:
            break
    # A plan, two or three audio objects, call.json, done, removal: twice or more each.
    assert step > 14


def read_journal(folder: Path, opened: Opened) -> str:
    path = folder / opened.session_id / "journal.jsonl"
    return path.read_text() if path.exists() else ""


async def test_finish_that_failed_goes_on_where_it_was(tmp_path: Path) -> None:
    class Flaky(MemoryStore):
        broken = True

        def __init__(self) -> None:
            super().__init__()
            self.asked: list[str] = []

        async def put(
            self, key: str, blob: Blob, *, metadata: Mapping[str, str], token: str
        ) -> StoredObject:
            if key.endswith(".raw") and self.broken:
                raise UploadError("away")
            self.asked.append(key)
            return await super().put(key, blob, metadata=metadata, token=token)

    store = Flaky()
    async with running(tmp_path) as spool:
        call = await spool_call(spool, make_opened())
        uploader = make_uploader(store, spool)
        for _ in range(3):
            with pytest.raises(UploadError, match="away"):
                await uploader.take(call).finish()
        store.broken = False
        await uploader.take(call).finish()
    assert store.asked == store.written
    assert len(store.asked) == len(set(store.asked)) == 3


async def test_finish_keeps_the_call_until_done_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_fd: int) -> None:
        raise OSError(errno.EIO, "bad sector")

    store = MemoryStore()
    store.before_put = lambda: monkeypatch.setattr(os, "fdatasync", refuse)
    async with running(tmp_path) as spool:
        call = await spool_call(spool, make_opened())
        with pytest.raises(SpoolError, match="bad sector"):
            await make_uploader(store, spool).take(call).finish()
        assert (call.folder / "audio.ulaw").read_bytes() == AUDIO
        monkeypatch.undo()
        call.release()
        # The store had confirmed it all, and its journal says so.
        assert await spool.adopt() == []
        assert entries(tmp_path) == set()
    assert len(store.objects) == 3


async def test_audio_that_could_not_be_deleted_goes_with_the_next_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of the call is stored, and only its transcript is missing."""

    async def wanted(
        call: SpooledCall, wavs: Mapping[str, Rendering]
    ) -> list[TranscriptPlanned]:
        return [TranscriptPlanned(key, Choice.TRANSCRIBE) for key in wavs]

    def refuse(_spool_fd: int, _name: str) -> None:
        raise OSError(errno.EIO, "bad sector")

    store = MemoryStore()
    async with running(tmp_path) as spool:
        call = await spool_call(spool, make_opened())
        uploader = make_uploader(store, spool)
        uploader.plan_transcripts = wanted
        monkeypatch.setattr(disk, "drop_audio", refuse)
        with pytest.raises(SpoolError, match="bad sector"):
            await uploader.take(call).finish()
        assert entries(call.folder) == {disk.AUDIO, disk.JOURNAL}
        monkeypatch.undo()
        written = [*store.written]
        assert not await uploader.take(call).finish()
        assert entries(call.folder) == {disk.JOURNAL}
        for job in list(call.record.jobs):
            spool.append(call, TranscriptGivenUp(job, "nobody is to say"))
        assert await uploader.take(call).finish()
        assert entries(tmp_path) == set()
    assert store.written == written


async def test_finish_of_audio_that_has_shrunk_fails(tmp_path: Path) -> None:
    async with running(tmp_path / "spool") as spool:
        call = await spool_call(spool, make_opened())
        os.truncate(call.folder / "audio.ulaw", 10)
        with pytest.raises(SpoolError, match="the audio ends at"):
            await (
                make_uploader(FolderStore(tmp_path / "store"), spool)
                .take(call)
                .finish()
            )
        assert call.folder.exists()
        assert not call.released


@settings(max_examples=25)
@given(
    mono=st.booleans(),
    audio=st.binary(max_size=300),
    gaps=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), max_size=4),
    encoding=st.sampled_from(Encoding),
    layout=st.sampled_from(Layout),
    cut=st.sampled_from(Gaps),
    peaks=st.booleans(),
)
def test_what_is_in_the_folder_is_what_call_json_says(
    tmp_path_factory: pytest.TempPathFactory,
    mono: bool,
    audio: bytes,
    gaps: list[tuple[int, int]],
    encoding: Encoding,
    layout: Layout,
    cut: Gaps,
    peaks: bool,
) -> None:
    folder = tmp_path_factory.mktemp("recordings")
    channels = ("internal",) if mono else ("internal", "external")
    opened = make_opened(media=Media("PCMU", channels, 8000))
    facts = [GapFact(GapKind.LOST, offset, length) for offset, length in gaps]

    async def store() -> None:
        async with running(folder / ".spool") as spool:
            call = await spool_call(spool, opened, audio, *facts)
            uploader = make_uploader(
                FolderStore(folder),
                spool,
                encoding=encoding,
                layout=layout,
                gaps=cut,
                keep_peaks=peaks,
            )
            await uploader.take(call).finish()

    trio.run(store)
    summary = json.loads((folder / "calls" / NAME / "call.json").read_text())
    stored = {path for path in folder.rglob("*") if path.is_file()}
    named = {folder / each["key"] for each in summary["objects"]}
    assert stored == named | {folder / "calls" / NAME / "call.json"}
    for each in summary["objects"]:
        data = (folder / each["key"]).read_bytes()
        assert len(data) == each["bytes"]
        assert hashlib.sha256(data).hexdigest() == each["sha256"]
        if each["key"].endswith(".wav"):
            info = read_info(io.BytesIO(data))
            frames = info.data_bytes // info.channels // (info.bits // 8)
            assert frames == round(summary["duration"] * 8000)
            drawn = folder / peaks_key(each["key"])
            assert drawn.exists() is peaks
            assert not peaks or drawn.read_bytes() == summed_up(data)
    ends = [gap["start"] + gap["length"] for gap in summary["gaps"]]
    if cut is Gaps.SILENCE:
        assert all(end <= summary["duration"] + 1e-9 for end in ends)
    assert summary["audioBytes"] == len(audio) - len(audio) % len(channels)
