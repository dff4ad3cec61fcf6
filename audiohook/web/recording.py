"""One recording as its page has it, made of its ``call.json``, whoever wrote that."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from audiohook.index.entry import entry_of
from audiohook.storage.layout import SUMMARY_NAME, beside, file_key, peaks_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from audiohook.index.entry import Entry

KIB: Final = 1024

RATE_HZ: Final = 8000

SHOWN_LIMIT: Final = 256 * KIB
"""How much of a ``call.json`` is shown at most, in characters."""

# A call is on hold some hundred times at the very most; more are not told one by one.
_MOST_GAPS: Final = 2000
_MOST_FILES: Final = 100
_MOST_SIDES: Final = 2
_DEPTH_LIMIT: Final = 50
_WORD_LIMIT: Final = 40
# What the members of a participant that name somebody may be called.
_NUMBERS: Final = frozenset({"ani", "dnis"})
_NAMES: Final = frozenset({"aniName"})
_KINDS: Final = {
    "paused": "paused",
    "discarded": "discarded by Genesys",
    "lost": "lost",
}
_SPLIT: Final = re.compile(r"-(external|internal)\.wav\Z")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a recording.

    Attributes:
        name: Its own name.
        key: Where it is in the store.
        size: Bytes, None if that is not told.
        deleted: Whether it was removed, and is told of nevertheless.
    """

    name: str
    key: str
    size: int | None
    deleted: bool


@dataclass(frozen=True, slots=True)
class Audio:
    """A WAV file of a recording.

    Attributes:
        name: Its own name.
        key: Where it is in the store.
        peaks: Name of what its waveform is drawn from; None if there is none.
        sides: Whose voices are in it, by its channels.
    """

    name: str
    key: str
    peaks: str | None
    sides: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """A stretch of which there is no audio.

    Attributes:
        kind: Why, in words.
        start: Where in the file, in seconds.
        length: How long in the call, in seconds.
        in_file: How long in the file: 0 where gaps are cut out.
        asked: Who asked for it and why, as they said; empty if nobody did.
    """

    kind: str
    start: float
    length: float
    in_file: float
    asked: str


@dataclass(frozen=True, slots=True)
class Script:
    """How the transcript of a WAV file stands.

    Attributes:
        audio: Name of that file.
        status: As ``call.json`` has it.
        reason: Why, in words; empty if nothing is said.
        json: Where its JSON is in the store, None if it is not there.
        channels: Names of the file's channels; none if they are mixed.
    """

    audio: str
    status: str
    reason: str
    json: str | None
    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording.

    Attributes:
        entry: What it is found by.
        folder: Where it is in the store.
        call: Its ``call.json``.
        files: All files that it tells of.
        audio: Those that can be heard.
        stops: Where there is no audio.
        more_stops: How many others there are.
        scripts: How its transcripts stand.
    """

    entry: Entry
    folder: str
    call: Mapping[str, Any]
    files: tuple[StoredFile, ...]
    audio: tuple[Audio, ...]
    stops: tuple[Stop, ...]
    more_stops: int
    scripts: tuple[Script, ...]


def read_recording(prefix: str, name: str, data: bytes) -> Recording:
    """Read what is to be shown of a recording.

    Args:
        prefix: What keys begin with, with the bucket if that is another.
        name: Of the recording.
        data: Its ``call.json``.

    Raises:
        ValueError: It is not the JSON of a call.
    """
    folder = f"{prefix}{name}"
    entry = entry_of(f"{folder}/{SUMMARY_NAME}", data)
    call = json.loads(data)
    files = tuple(_files(call, prefix, name))
    sides = _sides(call)
    gaps = _dicts(call.get("gaps"))
    cut = _recording(call).get("gaps") == "cut"
    return Recording(
        entry=entry,
        folder=folder,
        call=call,
        files=files,
        audio=tuple(_audio(files, call, sides)),
        stops=tuple(_stop(gap, cut=cut) for gap in gaps[:_MOST_GAPS]),
        more_stops=len(gaps[_MOST_GAPS:]),
        scripts=tuple(_scripts(call, files, sides)),
    )


def readable(
    call: Mapping[str, Any],
    number: Callable[[str], str] | None,
    name: Callable[[str], str],
) -> str:
    """Write a ``call.json`` for somebody to read.

    Args:
        call: It.
        number: Hides numbers; None if they are shown.
        name: Hides numbers in names and in what the integration was set up with.

    Returns:
        JSON, not more than `SHOWN_LIMIT` characters of it.
    """
    shown = {key: _hide(value, str, _DEPTH_LIMIT) for key, value in call.items()}
    if number is not None:
        party = call.get("participant")
        if isinstance(party, dict):
            shown["participant"] = {
                key: _hide_in_party(key, value, number, name)
                for key, value in party.items()
            }
        if "customConfig" in call:
            # What an integration was set up with may be a number of somebody.
            shown["customConfig"] = _hide(call["customConfig"], name, _DEPTH_LIMIT)
    text = json.dumps(shown, indent=2, ensure_ascii=False)
    return text if len(text) <= SHOWN_LIMIT else f"{text[:SHOWN_LIMIT]}\n…"


def _hide_in_party(
    key: str,
    value: object,
    number: Callable[[str], str],
    name: Callable[[str], str],
) -> object:
    if isinstance(value, str) and key in _NUMBERS:
        return number(value)
    return _hide(value, name, _DEPTH_LIMIT) if key in _NAMES else value


def _hide(value: object, name: Callable[[str], str], depth: int) -> object:
    """Hide numbers in all texts, and numbers long enough to be called."""
    if depth == 0:
        return "…"
    if isinstance(value, dict):
        return {name(k): _hide(v, name, depth - 1) for k, v in value.items()}
    if isinstance(value, list):
        return [_hide(each, name, depth - 1) for each in value]
    if isinstance(value, str):
        return name(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        text = str(value)
        return value if name(text) == text else name(text)
    return value


# Parts


def _dicts(value: object) -> list[Mapping[str, Any]]:
    return [x for x in value if isinstance(x, dict)] if isinstance(value, list) else []


def _recording(call: Mapping[str, Any]) -> Mapping[str, Any]:
    found = call.get("recording")
    return found if isinstance(found, dict) else {}


def _sides(call: Mapping[str, Any]) -> tuple[str, ...]:
    media = call.get("media")
    names = media.get("channels") if isinstance(media, dict) else None
    if not isinstance(names, list):
        return ()
    known = [each for each in names if isinstance(each, str)][:_MOST_SIDES]
    return tuple(each[:_WORD_LIMIT] for each in known)


def _files(call: Mapping[str, Any], prefix: str, name: str) -> Iterator[StoredFile]:
    """List the files that lie where files of that recording can lie, and no other."""
    seen = set()
    objects = [
        *_dicts(call.get("objects")),
        *(
            each
            for script in _dicts(call.get("transcripts"))
            for each in _dicts(script.get("objects"))
        ),
    ]
    for each in objects[:_MOST_FILES]:
        key, size = each.get("key"), each.get("bytes")
        file = key.rpartition("/")[2] if isinstance(key, str) else ""
        ours = file_key(prefix, name, file) if file else None
        if ours is not None and beside(prefix, str(key)) == ours and file not in seen:
            seen.add(file)
            bytes_told = size if type(size) is int else None
            yield StoredFile(file, ours, bytes_told, bool(each.get("deleted")))


def _audio(
    files: tuple[StoredFile, ...], call: Mapping[str, Any], sides: tuple[str, ...]
) -> Iterator[Audio]:
    names = {each.key: each.name for each in files if not each.deleted}
    is_mixed = _recording(call).get("layout") == "mono" and len(sides) > 1
    for each in files:
        if each.name.endswith(".wav") and not each.deleted:
            side = _SPLIT.search(each.name)
            ours = (side[1],) if side else ("both mixed",) if is_mixed else sides
            yield Audio(each.name, each.key, names.get(peaks_key(each.key)), ours)


def _scripts(
    call: Mapping[str, Any], files: tuple[StoredFile, ...], sides: tuple[str, ...]
) -> Iterator[Script]:
    known = {each.name: each.key for each in files if not each.deleted}
    is_mixed = _recording(call).get("layout") == "mono" and len(sides) > 1
    for each in _dicts(call.get("transcripts"))[:_MOST_FILES]:
        audio, reason = each.get("audio"), each.get("reason")
        name = audio.rpartition("/")[2] if isinstance(audio, str) else ""
        side = _SPLIT.search(name)
        names = (
            str(one.get("key")).rpartition("/")[2]
            for one in _dicts(each.get("objects"))
        )
        found = [known[one] for one in names if one in known and one.endswith(".json")]
        yield Script(
            audio=name,
            status=str(each.get("status"))[:_WORD_LIMIT],
            reason=reason if isinstance(reason, str) else "",
            json=found[0] if found else None,
            channels=(side[1],) if side else () if is_mixed else sides,
        )


def _stop(gap: Mapping[str, Any], *, cut: bool) -> Stop:
    kind = str(gap.get("kind"))
    length = _seconds(gap.get("length"))
    before = gap.get("storedSamplesBefore")
    asked = " · ".join(
        each
        for each in (gap.get("by"), gap.get("reason"))
        if isinstance(each, str) and each
    )
    return Stop(
        kind=_KINDS.get(kind, kind[:_WORD_LIMIT]),
        start=_seconds(before) / RATE_HZ if cut else _seconds(gap.get("start")),
        length=length,
        in_file=0.0 if cut else length,
        asked=asked,
    )


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    try:
        seconds = float(value)
    except OverflowError:
        return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
