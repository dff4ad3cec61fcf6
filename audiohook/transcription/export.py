"""A transcript in the forms in which it is stored: for programs, and for people.

The same transcript always gives the same bytes. For a long call this is work for a
worker thread.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from audiohook.errors import TranscriptError
from audiohook.transcription.base import without_query
from audiohook.transcription.cues import cut
from audiohook.transcription.turns import HOURS_IN_MS, read_turns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from audiohook.transcription.cues import Cue
    from audiohook.transcription.turns import Turn

_DEPTH_LIMIT: Final = 64
_PIECE_ITEMS: Final = 256
_SECRETS: Final = frozenset({"webhook_auth_header_value"})

# SubRip has no escapes, and players take tags where they see any; so these become
# characters of the same look.
_SUBRIP: Final = str.maketrans(
    {"<": "‹", ">": "›", "{": "(", "}": ")", "\\": "⧵"}  # noqa: RUF001 - for the look
)
# Source: W3C, WebVTT, "WebVTT cue text" and "WebVTT cue span start tag annotation text".
_WEBVTT: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def exports(
    body: Mapping[str, Any], *, channel_names: Sequence[str]
) -> dict[str, bytes]:
    """Make all that is stored of a transcript.

    Args:
        body: AssemblyAI's JSON.
        channel_names: Genesys's names of the channels of the WAV, in their order
            there; none for a WAV in which they are mixed.

    Returns:
        UTF-8 by what is added to the name: ``.json``, the answer whole but for the
        queries of addresses, which would open the recording; ``.txt``, a line a
        turn; ``.srt`` and ``.vtt``.

    Raises:
        TranscriptError: The answer cannot be written as JSON.
    """
    turns = read_turns(body, channel_names)
    cues = cut(turns)
    return {
        ".json": _as_json(body),
        ".txt": "".join(map(_line, turns)).encode(),
        ".srt": _as_subrip(cues).encode(),
        ".vtt": _as_webvtt(cues).encode(),
    }


def _as_json(body: Mapping[str, Any]) -> bytes:
    try:
        safe = {
            name: _without_secrets(item, _DEPTH_LIMIT)
            for name, item in body.items()
            if name not in _SECRETS
        }
        try:
            return "".join(_pieces(safe, escape=False)).encode()
        except UnicodeEncodeError:
            # Half a surrogate pair, which JSON can carry only as an escape.
            return "".join(_pieces(safe, escape=True)).encode()
    except (ValueError, TypeError) as error:
        raise TranscriptError(
            "the transcript cannot be written as JSON", retryable=False
        ) from error


def _pieces(body: Mapping[str, object], *, escape: bool) -> Iterator[str]:
    """Write JSON in pieces, since no other thread runs while one is written."""
    write = json.JSONEncoder(
        ensure_ascii=escape, allow_nan=False, separators=(",", ":")
    ).encode
    mark = "{"
    for name, item in body.items():
        yield f"{mark}{write(name)}:"
        mark = ","
        if isinstance(item, list) and item:
            for first in range(0, len(item), _PIECE_ITEMS):
                inner = write(item[first : first + _PIECE_ITEMS])[1:-1]
                yield f"{',' if first else '['}{inner}"
            yield "]"
        else:
            yield write(item)
    yield "}\n" if body else "{}\n"


def _without_secrets(value: object, depth: int) -> object:
    """Copy JSON without the queries of the addresses in it."""
    if isinstance(value, str):
        signed = "://" in value or "X-Amz-" in value
        return without_query(value) if signed else value
    if not isinstance(value, dict | list):
        return value
    if depth == 0:
        raise ValueError("too deep")
    if isinstance(value, list):
        return [_without_secrets(item, depth - 1) for item in value]
    return {
        name: _without_secrets(item, depth - 1)
        for name, item in value.items()
        if name not in _SECRETS
    }


def _line(turn: Turn) -> str:
    time = _clock(turn.start_ms, ".")[:-4]
    return f"[{time}] {turn.speaker}: {turn.text}\n"


def _as_subrip(cues: Sequence[Cue]) -> str:
    return "\n".join(
        f"{number}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n"
        + "\n".join((f"{cue.speaker}: {cue.lines[0]}", *cue.lines[1:])).translate(
            _SUBRIP
        )
        + "\n"
        for number, cue in enumerate(cues, start=1)
    )


def _as_webvtt(cues: Sequence[Cue]) -> str:
    return "WEBVTT\n" + "".join(
        f"\n{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n"
        f"<v {cue.speaker.translate(_WEBVTT)}>"
        + "\n".join(cue.lines).translate(_WEBVTT)
        + "\n"
        for cue in cues
    )


def _clock(time_ms: int, point: str) -> str:
    """Write a time as hours, minutes, seconds and thousandths."""
    hours, rest = divmod(time_ms, HOURS_IN_MS)
    minutes, rest = divmod(rest, 60_000)
    seconds, thousandths = divmod(rest, 1000)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{thousandths:03}"
