"""Files of a folder over HTTP, whole or in part. Source: RFC 9110, sections 13 and 14."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from starlette.responses import Response, StreamingResponse

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

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


class NoFileError(Exception):
    """There is no such file."""


class NoStretchError(Exception):
    """There is not so much of it.

    Args:
        size_bytes: How much there is.
    """

    def __init__(self, size_bytes: int) -> None:
        super().__init__(f"there are {size_bytes} bytes")
        self.headers: Mapping[str, str] = {"content-range": f"bytes */{size_bytes}"}


async def serve(
    request: Request,
    store: FolderStore,
    key: str,
    *,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Answer a request for a file.

    Args:
        request: For a file, or a part of it.
        store: Where it is.
        key: Which.
        headers: Of the answer, besides those that belong to it.

    Raises:
        NoFileError: There is none.
        NoStretchError: There is not so much of it.
        UploadError: It cannot be read.
    """
    facts = await store.look(key)
    if facts is None:
        raise NoFileError
    tag = f'"{facts.tag}"'
    told = {**(headers or {}), "etag": tag, "accept-ranges": "bytes"}
    if _is_known(request.headers.get("if-none-match"), tag):
        return Response(status_code=304, headers=told)
    first, count, status = 0, facts.size, 200
    # One of an older file would not fit to what the asker has.
    if request.headers.get("if-range", tag) == tag:
        stretch = _stretch(request.headers.get("range"), facts)
        if stretch is not None:
            first, count = stretch
            status = 206
            last = first + count - 1
            told["content-range"] = f"bytes {first}-{last}/{facts.size}"
    told["content-length"] = str(count)
    media_type = _TYPES[key.rpartition(".")[2]]
    if request.method == "HEAD":
        return Response(status_code=status, headers=told, media_type=media_type)
    body = _Stretch(store, key, first, count)
    return StreamingResponse(body, status, headers=told, media_type=media_type)


class _Stretch:
    """Reads a part of a file as it is sent.

    It is no generator, since one would be left open where a browser goes away, as it
    does for every leap in a recording.
    """

    def __init__(self, store: FolderStore, key: str, first: int, count: int) -> None:
        self._store = store
        self._key = key
        self._next = first
        self._end = first + count

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        length = min(_CHUNK_BYTES, self._end - self._next)
        if length <= 0:
            raise StopAsyncIteration
        chunk = await self._store.read_range(self._key, self._next, length)
        if not chunk:
            raise StopAsyncIteration
        self._next += len(chunk)
        return chunk


def _is_known(condition: str | None, tag: str) -> bool:
    if condition is None:
        return False
    known = {each.strip().removeprefix("W/") for each in condition.split(",")}
    return tag in known or "*" in known


def _stretch(wanted: str | None, facts: FileFacts) -> tuple[int, int] | None:
    """Return first byte and number of bytes that are wanted; None for all.

    What is not one range of bytes may be passed over, and is.

    Raises:
        NoStretchError: There are no such bytes.
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
        raise NoStretchError(size)
    return first, last - first + 1
