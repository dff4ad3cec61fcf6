from __future__ import annotations

import errno
import hashlib
import io
import itertools
import json
import os
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from audiohook.errors import KeyExistsError, SpoolError, UploadError
from audiohook.protocol.timeline import GapKind
from audiohook.recording.journal import (
    ContinuedSession,
    ControlFact,
    Done,
    GapFact,
    LanguageFact,
    Media,
    Participant,
    PausedFact,
)
from audiohook.recording.render import Gaps, Layout
from audiohook.recording.wav import Encoding, read_info
from audiohook.storage.base import StoredObject
from audiohook.storage.folder import FolderStore
from audiohook.storage.layout import peaks_key
from audiohook.storage.summary import recording_name
from audiohook.storage.upload import Uploader
from tests.recording.factory import (
    CONVERSATION,
    PARTICIPANT,
    entries,
    make_closed,
    make_opened,
    running,
)
from tests.recording.test_peaks import summed_up

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from audiohook.recording.journal import ClosedFact, Fact, Opened
    from audiohook.recording.spool import Spool
    from audiohook.recording.spooled import SpooledCall
    from audiohook.storage.base import Blob, Store

NAME = f"2026-11-22T14-10-44.123Z_{CONVERSATION}_{PARTICIPANT}"
AUDIO = bytes(range(256)) * 4


class MemoryStore:
    """A store that keeps the promises of a store, and notes what it was asked."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.metadata: dict[str, Mapping[str, str]] = {}
        self.tokens: set[str] = set()
        self.written: list[str] = []

    async def put(
        self, key: str, blob: Blob, *, metadata: Mapping[str, str], token: str
    ) -> StoredObject:
        data = blob.read_at(0, blob.size_bytes)
        if self.objects.get(key, data) != data:
            raise KeyExistsError(key)
        if key not in self.objects:
            self.written.append(key)
        return self._keep(key, data, metadata, token)

    async def replace(
        self, key: str, blob: Blob, *, metadata: Mapping[str, str], token: str
    ) -> StoredObject:
        data = blob.read_at(0, blob.size_bytes)
        return self._keep(key, data, metadata, token)

    async def read(self, key: str) -> bytes | None:
        return self.objects.get(key)

    def _keep(
        self, key: str, data: bytes, metadata: Mapping[str, str], token: str
    ) -> StoredObject:
        self.objects[key] = data
        self.metadata[key] = metadata
        self.tokens.add(token)
        return StoredObject(key, len(data), hashlib.sha256(data).hexdigest())


class Changes(TypedDict, total=False):
    """Settings that differ from the usual."""

    encoding: Encoding
    layout: Layout
    gaps: Gaps
    keep_raw: bool
    keep_peaks: bool


def make_uploader(store: Store, spool: Spool, **changes: Unpack[Changes]) -> Uploader:
    usual: Changes = {
        "encoding": Encoding.PCM16,
        "layout": Layout.STEREO,
        "gaps": Gaps.SILENCE,
        "keep_raw": True,
    }
    usual.update(changes)
    return Uploader(store, spool, prefix="calls/", **usual)


async def spool_call(
    spool: Spool, opened: Opened, audio: bytes = AUDIO, *facts: Fact
) -> SpooledCall:
    call = await spool.create(opened)
    if audio:
        os.pwrite(call.audio_fd, audio, 0)
    for fact in facts:
        spool.append(call, fact)
    await spool.seal(call, make_closed(len(audio)))
    return call


async def store_call(
    folder: Path,
    opened: Opened,
    audio: bytes = AUDIO,
    *facts: Fact,
    **changes: Unpack[Changes],
) -> MemoryStore:
    store = MemoryStore()
    async with running(folder) as spool:
        call = await spool_call(spool, opened, audio, *facts)
        await make_uploader(store, spool, **changes).take(call).finish()
        assert entries(folder) == set()
    return store


def summary_of(store: MemoryStore, name: str = NAME) -> dict[str, Any]:
    summary = json.loads(store.objects[f"calls/{name}/call.json"])
    assert isinstance(summary, dict)
    return summary


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


async def test_call_json_tells_all_about_the_call(tmp_path: Path) -> None:
    opened = make_opened(
        start_samples=16_000,
        continued_sessions=(ContinuedSession("before", 3, 4),),
    )
    facts: list[Fact] = [
        GapFact(GapKind.DISCARDED, 0, 800),
        LanguageFact("fr-FR", 100),
        ControlFact("pause", "desk", "card", "2026-11-22T14:10:50.000Z", 90),
        GapFact(GapKind.PAUSED, 100, 1, by="desk", reason="card"),
        PausedFact(paused=True, offset_samples=512),
    ]
    store = await store_call(tmp_path, opened, AUDIO, *facts)
    base = f"calls/{NAME}"
    wav, raw = (store.objects[f"{base}/audio/{NAME}.{kind}"] for kind in ("wav", "raw"))
    assert summary_of(store) == {
        "audio": "stored",
        "key": None,
        "settings": None,
        "schemaVersion": 1,
        "sessionId": opened.session_id,
        "conversationId": CONVERSATION,
        "organizationId": opened.organization_id,
        "correlationId": opened.correlation_id,
        "participant": {
            "id": PARTICIPANT,
            "ani": "+4930123",
            "aniName": "Zoë",
            "dnis": "tel:+4940",
        },
        "language": "de-DE",
        "languageChanges": [{"language": "fr-FR", "at": 901 / 8000}],
        "customConfig": {"team": "north", "weights": [1, 2.5, None]},
        "media": {
            "format": "PCMU",
            "rate": 8000,
            "channels": ["external", "internal"],
        },
        "recording": {"encoding": "pcm16", "layout": "stereo", "gaps": "silence"},
        "start": "2026-11-22T14:10:44.123Z",
        "end": "2026-11-22T14:11:44.123Z",
        "startPosition": 2.0,
        "duration": (512 + 801) / 8000,
        "audioDuration": 512 / 8000,
        "audioBytes": 1024,
        "ended": {"reason": "end", "complete": True, "paused": True},
        "controls": [
            {
                "action": "pause",
                "by": "desk",
                "reason": "card",
                "at": "2026-11-22T14:10:50.000Z",
                "position": 890 / 8000,
            }
        ],
        "gaps": [
            {
                "kind": "discarded",
                "start": 0.0,
                "length": 0.1,
                "startSamples": 0,
                "lengthSamples": 800,
                "storedSamplesBefore": 0,
            },
            {
                "kind": "paused",
                "start": 0.1125,
                "length": 0.000125,
                "startSamples": 900,
                "lengthSamples": 1,
                "storedSamplesBefore": 100,
                "by": "desk",
                "reason": "card",
            },
        ],
        "objects": [
            {
                "key": f"{base}/audio/{NAME}.wav",
                "bytes": len(wav),
                "sha256": hashlib.sha256(wav).hexdigest(),
            },
            {
                "key": f"{base}/audio/{NAME}.raw",
                "bytes": len(raw),
                "sha256": hashlib.sha256(raw).hexdigest(),
            },
        ],
        "transcripts": [],
        "continuedSessions": [{"id": "before", "serverseq": 3, "clientseq": 4}],
    }
    assert "Zoë".encode() in store.objects[f"{base}/call.json"]


async def test_call_json_of_a_cut_off_call_has_its_gaps_within_the_audio(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as spool:
        call = await spool.create(make_opened())
        os.pwrite(call.audio_fd, bytes(201), 0)
        spool.append(call, GapFact(GapKind.PAUSED, 150, 50))
        await spool.flush()
        call.release()
        store = MemoryStore()
        (call,) = await spool.adopt()
        await make_uploader(store, spool).take(call).finish()
    summary = summary_of(store)
    assert summary["ended"] == {
        "reason": "interrupted",
        "complete": False,
        "paused": False,
    }
    gaps = [
        (gap["kind"], gap["startSamples"], gap["lengthSamples"])
        for gap in summary["gaps"]
    ]
    assert gaps == [("lost", 100, 50), ("paused", 150, 50)]
    assert summary["duration"] == 200 / 8000
    assert summary["audioBytes"] == 200


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


async def test_metadata_is_short_ascii_in_the_names_users_know(tmp_path: Path) -> None:
    opened = make_opened(
        participant=Participant(PARTICIPANT, "Zoë\n" + "9" * 500, "", ""),
        language=None,
    )
    store = await store_call(tmp_path, opened)
    raw = store.metadata[f"calls/{NAME}/audio/{NAME}.raw"]
    assert raw == {
        "session-id": opened.session_id,
        "conversation-id": CONVERSATION,
        "participant-id": PARTICIPANT,
        "ani": "Zo%C3%AB " + "9" * 111,
        "dnis": "unknown",
        "audio-format": "PCMU",
        "sample-rate": "8000",
        "channels": "external,internal",
        "language": "unknown",
        "duration-seconds": "0.064",
        "start-time": "2026-11-22T14:10:44.123Z",
        "bytes": "1024",
    }
    wav = store.metadata[f"calls/{NAME}/audio/{NAME}.wav"]
    assert wav == {**raw, "converted": "true", "original-file": f"{NAME}.raw"}


async def test_metadata_names_the_last_language(tmp_path: Path) -> None:
    facts = LanguageFact("fr-CA", 0), LanguageFact("es-419", 8)
    store = await store_call(tmp_path, make_opened(language="de-DE"), AUDIO, *facts)
    assert {each["language"] for each in store.metadata.values()} == {"es-419"}


async def test_half_a_surrogate_pair_still_makes_json(tmp_path: Path) -> None:
    opened = make_opened(
        participant=Participant(PARTICIPANT, "\ud83d", "", ""),
        custom_config={"\udc00": "x"},
    )
    summary = summary_of(await store_call(tmp_path, opened))
    assert summary["participant"]["ani"] == "\ud83d"
    assert summary["customConfig"] == {"\udc00": "x"}


@pytest.mark.parametrize("bad", ["", "../../x", CONVERSATION.upper() + "Ä", "$(id)"])
def test_recording_name_has_uuids_only(bad: str) -> None:
    nil = "00000000-0000-0000-0000-000000000000"
    opened = make_opened(conversation_id=bad, participant=Participant(bad, "", "", ""))
    assert recording_name(opened) == f"2026-11-22T14-10-44.123Z_{nil}_{nil}"
    assert recording_name(make_opened()) == NAME


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


@pytest.mark.parametrize(
    "present", [b"", b"{]", b"null", b"[]", b'{"sessionId": "other"}', b"[" * 100_000]
)
async def test_call_json_of_another_is_never_replaced(
    tmp_path: Path, present: bytes
) -> None:
    store = MemoryStore()
    store.objects[f"calls/{NAME}/call.json"] = present
    async with running(tmp_path) as spool:
        call = await spool_call(spool, make_opened())
        await make_uploader(store, spool).take(call).finish()
    assert store.objects[f"calls/{NAME}/call.json"] == present
    assert f"calls/{NAME}_2/call.json" in store.objects


async def test_call_json_of_an_earlier_version_of_us_is_replaced(
    tmp_path: Path,
) -> None:
    store = MemoryStore()
    opened = make_opened()
    key = f"calls/{NAME}/call.json"
    store.objects[key] = json.dumps({"sessionId": opened.session_id}).encode()
    async with running(tmp_path) as spool:
        await make_uploader(store, spool).take(await spool_call(spool, opened)).finish()
    assert summary_of(store)["audioBytes"] == len(AUDIO)
    assert len(store.objects) == 3


# Trying again


class Killed(Exception):
    """The process dies here."""


class Fuse:
    """Counts steps, and blows at one of them."""

    def __init__(self, step: int) -> None:
        self._left = step

    def burn(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise Killed


class FusedStore(MemoryStore):
    """May die before it is asked, or before its answer arrives."""

    fuse = Fuse(0)

    async def put(
        self, key: str, blob: Blob, *, metadata: Mapping[str, str], token: str
    ) -> StoredObject:
        self.fuse.burn()
        stored = await super().put(key, blob, metadata=metadata, token=token)
        self.fuse.burn()
        return stored


class FusedSpool:
    """A spool whose process may die before and after each fact."""

    def __init__(self, spool: Spool, fuse: Fuse) -> None:
        self._spool = spool
        self._fuse = fuse

    async def commit(self, call: SpooledCall, *facts: Fact) -> None:
        self._fuse.burn()
        await self._spool.commit(call, *facts)
        self._fuse.burn()

    @property
    def can_record(self) -> bool:
        return self._spool.can_record

    async def create(self, opened: Opened) -> SpooledCall:
        return await self._spool.create(opened)

    async def seal(self, call: SpooledCall, closed: ClosedFact) -> None:
        await self._spool.seal(call, closed)

    def append(self, call: SpooledCall, fact: Fact) -> None:
        self._fuse.burn()
        self._spool.append(call, fact)
        self._fuse.burn()

    async def remove(self, call: SpooledCall) -> None:
        self._fuse.burn()
        await self._spool.remove(call)
        self._fuse.burn()


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

    class LastStraw(MemoryStore):
        async def put(
            self, key: str, blob: Blob, *, metadata: Mapping[str, str], token: str
        ) -> StoredObject:
            monkeypatch.setattr(os, "fdatasync", refuse)
            return await super().put(key, blob, metadata=metadata, token=token)

    store = LastStraw()
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
