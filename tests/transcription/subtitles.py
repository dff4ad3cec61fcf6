"""Strict readers of SubRip and WebVTT, written from their descriptions alone.

Source: W3C, WebVTT, "Syntax"; for SubRip, which has no standard, what ffmpeg and VLC
read without a warning.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

_CLOCK = r"(\d{2,}):([0-5]\d):([0-5]\d)%s(\d{3})"
_SUBRIP_TIME = re.compile(f"{_CLOCK % ','} --> {_CLOCK % ','}", re.ASCII)
_WEBVTT_TIME = re.compile(f"{_CLOCK % '[.]'} --> {_CLOCK % '[.]'}", re.ASCII)
_VOICE = re.compile(r"<v ([^<>\n]+)>([^<>]+)", re.DOTALL)
_REFERENCE = re.compile(r"&(?:amp|lt|gt);")
_NOT_PLAIN = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


@dataclass(frozen=True)
class Shown:
    start_ms: int
    end_ms: int
    speaker: str
    lines: list[str]


def read_subrip(data: bytes) -> list[Shown]:
    text = data.decode("utf-8")
    assert not _NOT_PLAIN.search(text)
    if not text:
        return []
    assert text.endswith("\n")
    shown = []
    for number, block in enumerate(text[:-1].split("\n\n"), start=1):
        first, time, *lines = block.split("\n")
        assert first == str(number)
        assert lines
        assert all(lines)
        assert not any(set(line) & set("<>{}\\") for line in lines)
        speaker, colon, lines[0] = lines[0].partition(": ")
        assert colon
        shown.append(Shown(*_times(_SUBRIP_TIME, time), speaker, lines))
    _check_order(shown)
    return shown


def read_webvtt(data: bytes) -> list[Shown]:
    text = data.decode("utf-8")
    assert not _NOT_PLAIN.search(text)
    head, *blocks = text.removesuffix("\n").split("\n\n")
    assert head == "WEBVTT"
    shown = []
    for block in blocks:
        time, payload = block.split("\n", 1)
        assert "-->" not in payload
        assert "&" not in _REFERENCE.sub("", payload)
        voice = _VOICE.fullmatch(payload)
        assert voice, payload
        speaker, *lines = [html.unescape(s) for s in (voice[1], *voice[2].split("\n"))]
        assert all(lines)
        shown.append(Shown(*_times(_WEBVTT_TIME, time), speaker, lines))
    _check_order(shown)
    return shown


def _times(pattern: re.Pattern[str], line: str) -> tuple[int, int]:
    found = pattern.fullmatch(line)
    assert found, line
    numbers = [int(part) for part in found.groups()]
    times = [
        ((hours * 60 + minutes) * 60 + seconds) * 1000 + thousandths
        for hours, minutes, seconds, thousandths in (numbers[:4], numbers[4:])
    ]
    assert times[0] < times[1]
    return times[0], times[1]


def _check_order(shown: list[Shown]) -> None:
    starts = [each.start_ms for each in shown]
    assert starts == sorted(starts)
