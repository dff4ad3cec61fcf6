"""What AssemblyAI, or whoever sits in its place, may answer: any bytes."""

from __future__ import annotations

import json
import unicodedata
from typing import TYPE_CHECKING, Any

from audiohook.errors import TranscriptError
from audiohook.transcription.answers import (
    Asked,
    Question,
    read_page,
    read_transcript,
    read_upload,
    refusal,
    retry_after,
)
from audiohook.transcription.base import is_transcript_id
from audiohook.transcription.cues import CUE_LIMIT_MS, LINES, cut
from audiohook.transcription.export import exports
from audiohook.transcription.parameters import WEBHOOK_HEADER, Webhook
from audiohook.transcription.turns import TIME_LIMIT_MS, read_turns
from audiohook.transcription.webhook import WebhookDesk

if TYPE_CHECKING:
    from collections.abc import Mapping

_SECRET = "sesame-sesame"
_NAMES = (("external", "internal"), ("internal",), ())
_MESSAGE_LIMIT = 1000
# Control characters, line breaks, halves of pairs; and what turns lines around.
_HARMFUL = {"Cc", "Cs", "Zl", "Zp"}
_TURNING = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}


def transcripts(data: bytes) -> None:
    """Reads an answer as each that it could be, and writes it in every form."""
    choice, body = (data[0], data[1:]) if data else (0, b"")
    names = _NAMES[choice % len(_NAMES)]
    asked = Asked(tuple(Question)[choice % len(Question)], "api.example.com")
    try:
        transcript = read_transcript(asked, body, secret=_SECRET)
    except TranscriptError as error:
        _check_error(error)
    else:
        assert is_transcript_id(transcript.id)
        assert "?X-Amz-Signature=" not in transcript.audio_url
        _check_exports(transcript.body, names)
    try:
        page = read_page(asked, body, limit=10)
    except TranscriptError as error:
        _check_error(error)
    else:
        assert all(is_transcript_id(item.id) for item in page.items)
    try:
        url = read_upload(asked, body)
    except TranscriptError as error:
        _check_error(error)
    else:
        assert url.startswith(("http://", "https://"))
        assert url.isprintable()
    headers = {"retry-after": body[:64].decode("latin-1"), "date": ""}
    _check_error(refusal(asked, 400 + choice, headers, body, secret=_SECRET))
    pause = retry_after(headers)
    assert pause is None or 0 <= pause <= 3600


def _check_error(error: TranscriptError) -> None:
    text = str(error)
    assert _SECRET not in text
    assert text.isprintable()
    assert len(text) < _MESSAGE_LIMIT


def _check_exports(body: Mapping[str, Any], names: tuple[str, ...]) -> None:
    turns = read_turns(body, names)
    for turn in turns:
        assert 0 <= turn.start_ms <= turn.end_ms <= TIME_LIMIT_MS
        assert turn.text
        assert not _HARMFUL & set(map(unicodedata.category, turn.text + turn.speaker))
        assert not _TURNING & set(turn.text + turn.speaker)
    for cue in cut(turns):
        assert cue.start_ms < cue.end_ms <= cue.start_ms + CUE_LIMIT_MS
        assert 1 <= len(cue.lines) <= LINES
        assert all(cue.lines)
    try:
        forms = exports(body, channel_names=names)
    except TranscriptError as error:
        _check_error(error)
        return
    assert set(forms) == {".json", ".txt", ".srt", ".vtt"}
    for form in forms.values():
        form.decode()
    assert forms[".txt"].count(b"\n") == len(turns)
    assert b"<script" not in forms[".vtt"]
    json.loads(forms[".json"])


def webhook(data: bytes) -> None:
    """Takes a report: a line with the secret or another one, and a body."""
    line, _, body = data.partition(b"\n")
    told: list[str] = []
    counted: list[str] = []

    def tell(transcript_id: str) -> bool:
        told.append(transcript_id)
        return True

    desk = WebhookDesk(
        Webhook("https://calls.example.com/done?x=1", _SECRET), tell, counted.append
    )
    header = WEBHOOK_HEADER.lower().encode()
    assert desk.admits([(header, line)]) is (line == _SECRET.encode())
    assert not desk.admits([(header, line), (header, line)])
    assert desk.take(body) in (200, 400)
    assert len(told) <= 1
    assert all(map(is_transcript_id, told))
    assert set(counted) <= {"refused", "malformed", "taken", "unknown"}
