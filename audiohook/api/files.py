"""Files of a folder, whole or in part. Source: RFC 9110, sections 13 and 14."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from starlette.responses import Response, StreamingResponse

from audiohook.api.problems import Code, ProblemError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from audiohook.storage.folder import FileFacts, FolderStore

KIB: Final = 1024

_CHUNK_BYTES: Final = 256 * KIB
_RANGE: Final = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_TYPES: Final = {
    "wav": "audio/wav",
    "raw": "application/octet-stream",
    "dat": "application/octet-stream",
    "jsonl": "application/jsonl",
    "json": "application/json",
    "txt": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
}
MEDIA_TYPES: Final = tuple(
    dict.fromkeys(each.partition(";")[0] for each in _TYPES.values())
)
"""What a file can be."""


def key_of(prefix: str, name: str, file: str) -> str | None:
    """Return where a file of a recording is in the store; None if there can be none.

    Args:
        prefix: What keys begin with.
        name: Name of the recording.
        file: Name of the file alone.
    """
    if file == "call.json":
        return f"{prefix}{name}/{file}"
    stem, _, ending = file.rpartition(".")
    if not stem.startswith(name):
        return None
    if ending in ("wav", "raw", "dat", "jsonl"):
        return f"{prefix}{name}/audio/{file}"
    if ending in ("json", "txt", "srt", "vtt"):
        return f"{prefix}{name}/transcripts/{file}"
    return None


async def serve(request: Request, store: FolderStore, key: str) -> Response:
    """Answer a request for a file.

    Raises:
        ProblemError: There is no such file, or not so much of it.
        UploadError: It cannot be read.
    """
    facts = await store.look(key)
    if facts is None:
        raise ProblemError(Code.NOT_FOUND)
    tag = f'"{facts.tag}"'
    headers = {"etag": tag, "accept-ranges": "bytes"}
    if _is_known(request.headers.get("if-none-match"), tag):
        return Response(status_code=304, headers=headers)
    first, count, status = 0, facts.size, 200
    # One of an older file would not fit to what the asker has.
    if request.headers.get("if-range", tag) == tag:
        stretch = _stretch(request.headers.get("range"), facts)
        if stretch is not None:
            first, count = stretch
            status = 206
            last = first + count - 1
            headers["content-range"] = f"bytes {first}-{last}/{facts.size}"
    headers["content-length"] = str(count)
    media_type = _TYPES[key.rpartition(".")[2]]
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=media_type)
    body = _read(store, key, first, count)
    return StreamingResponse(body, status, headers=headers, media_type=media_type)


async def _read(
    store: FolderStore, key: str, first: int, count: int
) -> AsyncIterator[bytes]:
    end = first + count
    while first < end:
        chunk = await store.read_range(key, first, min(_CHUNK_BYTES, end - first))
        if not chunk:
            return
        yield chunk
        first += len(chunk)


def _is_known(condition: str | None, tag: str) -> bool:
    if condition is None:
        return False
    known = {each.strip().removeprefix("W/") for each in condition.split(",")}
    return tag in known or "*" in known


def _stretch(wanted: str | None, facts: FileFacts) -> tuple[int, int] | None:
    """Return first byte and number of bytes that are wanted; None for all.

    What is not one range of bytes may be passed over, and is.

    Raises:
        ProblemError: There are no such bytes.
    """
    match = _RANGE.fullmatch(wanted.strip()) if wanted is not None else None
    if match is None or not (match[1] or match[2]):
        return None
    size = facts.size
    if match[1]:
        first = int(match[1])
        last = min(int(match[2]), size - 1) if match[2] else size - 1
        if match[2] and int(match[2]) < first:
            return None
    else:
        first, last = max(0, size - int(match[2])), size - 1
        if not int(match[2]):
            first = size
    if first >= size:
        raise ProblemError(Code.RANGE, headers={"content-range": f"bytes */{size}"})
    return first, last - first + 1
