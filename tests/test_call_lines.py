"""What the log tells of a call, from its first moment to its transcript."""

from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from audiohook import logs
from audiohook.simulator.assemblyai import StandIn
from tests.house import KEY as API_KEY
from tests.test_transcribing import KEY, settle, transcribing
from tests.test_transcribing import haste as haste

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PERSONAL = {
    "ani": "tel:+4930123456",
    "ani_name": "Erika Mustermann",
    "dnis": "tel:+4930654321",
    "custom_config": {"customer": "4711-secret"},
}


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """The log as systemd gets it."""
    root, own = logging.getLogger(), logging.getLogger(logs.OWN_LOGGERS)
    before = root.handlers[:], root.level, own.level
    text = io.StringIO()
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    logs.configure("auto", logging.DEBUG, stream=text)
    yield text
    structlog.reset_defaults()
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    own.setLevel(before[2])


async def test_four_lines_tell_of_a_call_and_none_of_people(
    tmp_path: Path, journal: io.StringIO
) -> None:
    standin = StandIn(keys=(KEY,))
    async with transcribing(tmp_path, standin) as it:
        report = await it.call(duration=8.0, pauses=((1.0, 2.0),), **PERSONAL)
        assert report.ok, report.breaches
        await settle(it)
        (recording,) = it.recordings()
        facts = recording.facts
        (spoken,) = recording.folder.glob("transcripts/*.txt")
        words = [line.split(": ", 1)[1] for line in spoken.read_text().splitlines()]
    lines: list[dict[str, Any]] = [
        json.loads(line) for line in journal.getvalue().splitlines()
    ]
    of_call = {
        line["event"]: line for line in lines if line["event"].startswith("call_")
    }
    assert of_call.keys() == {
        *("call_opened", "call_ended", "call_stored", "call_transcribed")
    }
    for event, line in of_call.items():
        assert [each["event"] for each in lines].count(event) == 1
        assert line["session"] == facts["sessionId"]
        assert line["conversation"] == facts["conversationId"]
        assert line["correlation"] == facts["correlationId"]
        assert line["timestamp"]
        assert line["level"] == "info"
    ended = of_call["call_ended"]
    assert ended["outcome"] == "ended"
    assert ended["audio_bytes"] == report.audio_bytes
    assert ended["frames"] == report.frames
    assert (ended["gaps"], ended["lost_bytes"], ended["violations"]) == (1, 0, 0)
    assert of_call["call_transcribed"]["transcript"]
    told = journal.getvalue()
    for secret in (*PERSONAL.values(), *words, API_KEY, KEY):
        text = secret if isinstance(secret, str) else "4711-secret"
        assert text not in told
    # The participant is in no line but as a part of the recording's name.
    participant = facts["participant"]["id"]
    for line in lines:
        for name, value in line.items():
            if name not in ("key", "audio"):
                assert participant not in str(value), line["event"]
