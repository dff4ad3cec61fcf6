"""The page of one recording: to be heard, seen and read."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import TYPE_CHECKING, Final

import trio
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from audiohook.errors import CallIndexError
from audiohook.file_ranges import NoFileError, NoStretchError, serve
from audiohook.index.search import Query
from audiohook.storage.base import ReadableStore, SigningStore
from audiohook.storage.folder import FolderStore
from audiohook.storage.layout import SUMMARY_NAME, file_key
from audiohook.transcription.turns import read_turns
from audiohook.web.recording import read_recording, readable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from audiohook.index.search import Found
    from audiohook.web.gate import Visit
    from audiohook.web.pages import Pages
    from audiohook.web.recording import Audio, Recording, Script
    from audiohook.web.surroundings import Surroundings

SECONDS = 1
MINUTES = 60 * SECONDS
KIB: Final = 1024
MIB: Final = 1024 * KIB

ADDRESS_LIFE: Final = 15 * MINUTES
"""How long an address holds from which a browser fetches audio of a bucket."""

_NAME: Final = re.compile(r"[0-9]{4}-[A-Za-z0-9_.-]{1,255}")
_FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,255}")
# The dialogue is what Genesys sent, word for word.
_WITH_NUMBERS: Final = (SUMMARY_NAME, ".jsonl")
_LONGEST_SUMMARY: Final = 4 * MIB
_LARGEST_PEAKS: Final = 256 * KIB
_MOST_SESSIONS: Final = 20
# What is fetched of a recording is for whoever was let in, and does nothing.
_FILE_HEADERS: Final = {
    "cache-control": "private, no-cache",
    "content-security-policy": "default-src 'none'; sandbox",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
}
_WORDS: Final = {
    "pending": "The transcript is not made yet.",
    "submitted": "The transcript is being made.",
    "completed": "",
    "failed": "There is no transcript: its making has failed.",
    "parked": "There is no transcript yet: somebody has to mend something first.",
    "skipped": "There is no transcript, since there is nothing to be transcribed.",
    "off": "There is no transcript: transcription is off.",
    "elsewhere": "The transcript is made elsewhere, and not there yet.",
}


class CallPages:
    """Shows recordings, one at a time.

    Args:
        surroundings: What the page knows of the service.
        pages: Hides numbers.
    """

    def __init__(self, surroundings: Surroundings, pages: Pages) -> None:
        self._around = surroundings
        self._pages = pages
        # A transcript of ten hours is parsed for a second or two, 100 MiB in memory.
        self._parsers = trio.CapacityLimiter(1)

    async def show(self, visit: Visit) -> Response:
        """Show one."""
        name = _checked(visit, "name", _NAME)
        found = await self._read(name)
        if found is None:
            return visit.render("no_call.html", status=404, recording_name=name)
        there = [each for each in found.audio if await self._is_there(each)]
        store, signed = self._around.store, []
        if there and isinstance(store, SigningStore):
            signed.append(await store.presign(there[0].key, ADDRESS_LIFE))
        hide = None if self._pages.show_numbers else self._pages.number
        return visit.render(
            "call.html",
            media=signed,
            recording=found.entry,
            name=name,
            found=found,
            player=_player(name, found, there, ADDRESS_LIFE if signed else None),
            removed=not there and any(x.name.endswith(".wav") for x in found.files),
            has_audio=bool(there),
            states=[(each, _state_of(each)) for each in found.scripts],
            files=self._shown_files(found, there),
            readable=readable(found.call, hide, self._pages.name),
            hides_numbers=hide is not None,
            others=await self._others(found),
        )

    async def file(self, visit: Visit) -> Response:
        """Send a file, or say where it is."""
        name = _checked(visit, "name", _NAME)
        file = _checked(visit, "file", _FILE)
        key = file_key(await self._prefix_of(name), name, file)
        if key is None or self._is_hidden(file):
            raise HTTPException(404)
        store = self._around.store
        if isinstance(store, FolderStore):
            try:
                return await serve(visit.request, store, key, headers=_FILE_HEADERS)
            except NoFileError:
                raise HTTPException(404) from None
            except NoStretchError as error:
                return Response(status_code=416, headers={**error.headers})
        if file.endswith(".dat"):
            # A script may not read what comes from another origin, unless the bucket
            # is set up for that.
            return await self._hand_through(key)
        if not isinstance(store, SigningStore):
            raise HTTPException(404)
        address = await store.presign(key, ADDRESS_LIFE)
        headers = {"cache-control": "no-store"}
        return RedirectResponse(address, 307, headers=headers)

    async def turns(self, visit: Visit) -> Response:
        """Send a transcript as its page takes it: turns, and words with their times."""
        name = _checked(visit, "name", _NAME)
        found = await self._read(name)
        if found is None:
            raise HTTPException(404)
        scripts = {each.audio: each for each in found.scripts}
        script = scripts.get(visit.request.path_params["audio"])
        if script is None or script.json is None:
            raise HTTPException(404)
        data = await self._around.store.read(script.json)
        if data is None:
            raise HTTPException(404)
        work = partial(_turns, data, script.channels)
        body = await trio.to_thread.run_sync(work, limiter=self._parsers)
        if body is None:
            raise HTTPException(404)
        headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
        return Response(body, headers=headers, media_type="application/json")

    async def _prefix_of(self, name: str) -> str:
        """Return where a recording is; a call may have a prefix of its own."""
        try:
            found = await self._around.index.by_name(name, self._around.prefix)
        except CallIndexError:
            # The store can do without it.
            found = None
        return self._around.prefix if found is None else found.entry.key[: -len(name)]

    async def _read(self, name: str) -> Recording | None:
        prefix = await self._prefix_of(name)
        data = await self._around.store.read(f"{prefix}{name}/{SUMMARY_NAME}")
        if data is None or len(data) > _LONGEST_SUMMARY:
            return None
        try:
            return read_recording(prefix, name, data)
        except ValueError:
            return None

    async def _is_there(self, audio: Audio) -> bool:
        """Tell whether audio that call.json tells of has not been removed since."""
        store = self._around.store
        if not isinstance(store, ReadableStore):
            return True
        return await store.size(audio.key) is not None

    async def _hand_through(self, key: str) -> Response:
        store = self._around.store
        size = await store.size(key) if isinstance(store, ReadableStore) else None
        if size is None or size > _LARGEST_PEAKS:
            raise HTTPException(404)
        data = await store.read(key)
        if data is None:
            raise HTTPException(404)
        kind = "application/octet-stream"
        return Response(data, headers=_FILE_HEADERS, media_type=kind)

    def _shown_files(
        self, found: Recording, there: Sequence[Audio]
    ) -> list[tuple[str, int | None, bool]]:
        """List the files to be fetched: name, size, and whether it is there."""
        gone = {each.name for each in found.audio} - {each.name for each in there}
        shown = [
            (each.name, each.size, not each.deleted and each.name not in gone)
            for each in found.files
        ]
        shown.append((SUMMARY_NAME, None, True))
        return [each for each in shown if not self._is_hidden(each[0])]

    def _is_hidden(self, file: str) -> bool:
        """Tell whether a file holds numbers, and none are to be shown."""
        return not self._pages.show_numbers and file.endswith(_WITH_NUMBERS)

    async def _others(self, found: Recording) -> list[tuple[str, Found, bool]]:
        """List the sessions of the conversation, with whether it is this one."""
        query = Query(conversation=found.entry.conversation)
        try:
            others = await self._around.index.search(query, _MOST_SESSIONS)
        except CallIndexError:
            return []
        if len(others) < 2:
            return []
        return [
            (
                each.entry.key.rpartition("/")[2],
                each,
                each.entry.key == found.folder,
            )
            for each in reversed(others)
        ]


def _state_of(script: Script) -> str:
    """Say why there is no transcript to be read; nothing if there is one."""
    if script.status == "completed" and script.json is None:
        return "The transcript has been removed from the store."
    return _WORDS.get(script.status, "It is not known how this stands.")


def _checked(visit: Visit, part: str, pattern: re.Pattern[str]) -> str:
    value = visit.request.path_params[part]
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise HTTPException(404)
    return value


def _player(
    name: str, found: Recording, there: Sequence[Audio], address_life: int | None
) -> dict[str, Any]:
    """Say what the script of the page has to know."""
    base = f"/calls/{name}"
    scripts = {each.audio: each for each in found.scripts}
    return {
        "duration": found.entry.duration,
        "addressLife": address_life,
        "files": [
            {
                "audio": f"{base}/files/{each.name}",
                "peaks": each.peaks and f"{base}/files/{each.peaks}",
                "sides": each.sides,
            }
            for each in there
        ],
        "scripts": [
            {
                "turns": f"{base}/turns/{each.audio}",
                "file": next(
                    (i for i, one in enumerate(there) if one.name == each.audio), None
                ),
            }
            for each in scripts.values()
            if each.json is not None
        ],
        "gaps": [
            {"kind": each.kind, "start": each.start, "length": each.in_file}
            for each in found.stops
        ],
    }


def _turns(data: bytes, channels: tuple[str, ...]) -> bytes | None:
    """Turn a transcript's JSON into what the page draws; None if it is none."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict):
        return None
    turns = [
        {
            "speaker": each.speaker,
            "channel": each.channel,
            "start": each.start_ms,
            "words": [
                part
                for token in each.tokens
                for part in (token.text, token.start_ms, token.end_ms)
            ],
        }
        for each in read_turns(body, channels)
    ]
    return json.dumps({"turns": turns}, separators=(",", ":")).encode()
