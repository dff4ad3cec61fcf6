"""What is said of a call beside its audio."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from audiohook.protocol.timeline import GapKind
from audiohook.recording.journal import (
    ContinuedSession,
    ControlFact,
    GapFact,
    LanguageFact,
    Participant,
    PausedFact,
)
from audiohook.storage.summary import recording_name
from tests.recording.factory import (
    CONVERSATION,
    PARTICIPANT,
    make_opened,
    running,
)
from tests.storage.uploads import (
    AUDIO,
    NAME,
    MemoryStore,
    make_uploader,
    store_call,
    summary_of,
)

if TYPE_CHECKING:
    from pathlib import Path

    from audiohook.recording.journal import Fact


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
