"""AssemblyAI's API for recordings, over HTTP.

Each call is one request. Nothing is tried again in here: to submit is not
idempotent, and a job that is submitted twice is billed twice, so whoever keeps the
jobs decides. An error tells whether the request may have been carried out.
"""

from __future__ import annotations

import json
import socket
import ssl
import zlib
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

import httpx
import trio

from audiohook._version import __version__
from audiohook.errors import TranscriptError
from audiohook.hosts import is_loopback
from audiohook.transcription.answers import (
    Asked,
    Question,
    nonsense,
    read_page,
    read_transcript,
    read_upload,
    refusal,
)
from audiohook.transcription.base import (
    Transcript,
    TranscriptFault,
    TranscriptPage,
    is_transcript_id,
)

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Iterator,
        Mapping,
    )

T = TypeVar("T")

KIB: Final = 1024
MIB: Final = 1024 * KIB
SECONDS: Final = 1.0
MINUTES: Final = 60 * SECONDS

UPLOAD_LIMIT_BYTES: Final = 2_200_000_000
"""Largest upload. Source: AssemblyAI, "Are there any limits on file size"."""

PAGE_LIMIT: Final = 200
"""Most jobs on a page of the list. Source: AssemblyAI's OpenAPI, `listTranscripts`."""

_ERROR_LIMIT_BYTES: Final = 64 * KIB
_SUCCESS: Final = range(200, 300)
# Added to the window's size, it makes zlib read gzip's header and trailer.
_GZIP: Final = 16
# A longer transcript takes ten times as much memory while it is turned into texts.
_LARGE_BYTES: Final = 2 * MIB
# A smaller answer is parsed in less time than a thread takes to begin.
_PARSE_IN_THREAD_BYTES: Final = 256 * KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """How long requests may take, and how long answers may be.

    Attributes:
        connect: Longest time to connect, in seconds.
        silence: Longest time without a byte in either direction, in seconds.
        request: Longest time for a request and its answer, in seconds.
        transcript: The same where the answer is a transcript, in seconds.
        upload_bytes_per_second: An upload gets ``request`` and as many seconds
            more as its bytes take at this rate.
        answer_bytes: Longest answer.
        transcript_bytes: Longest transcript. Ten hours with a turn every two
            seconds are 40 MiB.
    """

    connect: float = 10 * SECONDS
    silence: float = 60 * SECONDS
    request: float = 2 * MINUTES
    transcript: float = 10 * MINUTES
    upload_bytes_per_second: int = 64 * KIB
    answer_bytes: int = 1 * MIB
    transcript_bytes: int = 256 * MIB


DEFAULT_LIMITS: Final = Limits()


def make_client(
    base_url: str, key: str, *, connections: int = 16, limits: Limits = DEFAULT_LIMITS
) -> httpx.AsyncClient:
    """Make the client that `AssemblyAI` sends by.

    Args:
        base_url: Where the API is, without ``/v2``.
        key: The account's key.
        connections: Most connections at a time; further requests wait for one.
        limits: How long requests may take.

    Returns:
        A client to be closed with ``aclose``, or to be used as a context.

    Source: AssemblyAI's OpenAPI, `securitySchemes`: the bare key, no ``Bearer``.
    """
    host = urlsplit(base_url).hostname or ""
    # A proxy would look for this machine at its own place.
    direct: dict[str, httpx.AsyncBaseTransport | None] = (
        {f"all://{host}": None} if is_loopback(host) else {}
    )
    return httpx.AsyncClient(
        base_url=base_url,
        headers={
            "Authorization": key,
            "User-Agent": f"audiohook/{__version__}",
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
        },
        timeout=httpx.Timeout(limits.silence, connect=limits.connect, pool=None),
        limits=httpx.Limits(
            max_connections=connections, max_keepalive_connections=connections
        ),
        mounts=direct,
        follow_redirects=False,
    )


class AssemblyAI:
    """The requests that we need; any number at a time.

    Every method raises `TranscriptError` and no other error of its own.

    Args:
        http: Sends, with the key in its headers, see `make_client`. Who made it
            closes it.
        limits: How long answers may take and be.
    """

    def __init__(
        self, http: httpx.AsyncClient, *, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self._http = http
        self._limits = limits
        self._key = http.headers.get("Authorization", "")
        self._host = http.base_url.netloc.decode("ascii")
        # Parsing holds the interpreter, so that more at a time would only add memory.
        self._parsers = trio.CapacityLimiter(1)

    async def submit(self, parameters: Mapping[str, Any]) -> Transcript:
        """Submit a job.

        Args:
            parameters: The body, see `audiohook.transcription.parameters`.

        Raises:
            TranscriptError: There is no job, unless ``outcome_unknown`` is set: then
                there may be one, and the account's list has to be looked up before
                another is submitted.

        *Cancellation:* There may be a job.
        """
        asked = Asked(Question.SUBMIT, self._host)
        try:
            body = json.dumps(parameters, allow_nan=False).encode()
        except (ValueError, TypeError, RecursionError) as error:
            raise TranscriptError(
                "the parameters are no JSON: correct ASSEMBLYAI_PARAMS",
                retryable=False,
                fault=TranscriptFault.BAD_REQUEST,
            ) from error
        request = self._http.build_request(
            "POST",
            "/v2/transcript",
            headers={
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
            },
        )
        request.stream = _Body(_Once(body), len(body))
        read = partial(read_transcript, asked, secret=self._key)
        return await self._ask(asked, request, read)

    async def get(
        self, transcript_id: str, *, large: Callable[[], Awaitable[None]] | None = None
    ) -> Transcript:
        """Look a job up, and fetch its transcript if it is done.

        Args:
            transcript_id: What `submit` returned.
            large: Called before a long transcript is read on, so that not many of
                them are in memory. It may wait for a while, or raise `TranscriptError`.

        Raises:
            TranscriptError: It could not be fetched; with fault ``not_found`` if there
                is no such job for this key.
        """
        return await self._ask_about(
            "GET", Question.LOOK_UP, transcript_id, large=large
        )

    async def delete(self, transcript_id: str) -> Transcript:
        """Delete the transcript of a job that is done, and its audio if uploaded.

        To delete what is deleted succeeds. A job that still runs is not deleted.

        Args:
            transcript_id: What `submit` returned.

        Raises:
            TranscriptError: It could not be deleted; with fault ``not_found`` if there
                is no such job for this key, or if it still runs.
        """
        return await self._ask_about("DELETE", Question.DELETE, transcript_id)

    async def list_page(
        self,
        *,
        limit: int = PAGE_LIMIT,
        before_id: str | None = None,
    ) -> TranscriptPage:
        """Fetch a page of the account's jobs of the last 90 days, newest first.

        Args:
            limit: Most jobs on the page, from 1 to `PAGE_LIMIT`.
            before_id: Only what is older than this job.

        Raises:
            TranscriptError: It could not be fetched.
        """
        asked = Asked(Question.LIST, self._host)
        query: dict[str, str] = {"limit": str(limit)}
        if before_id is not None:
            self._check_id(before_id)
            query["before_id"] = before_id
        request = self._http.build_request("GET", "/v2/transcript", params=query)
        return await self._ask(asked, request, partial(read_page, asked, limit=limit))

    async def upload(self, chunks: AsyncIterator[bytes], size_bytes: int) -> str:
        """Upload audio.

        Args:
            chunks: All of it. Errors that it raises are raised on.
            size_bytes: How many bytes that is, from 1 to `UPLOAD_LIMIT_BYTES`.

        Returns:
            Where it went: an ``audio_url`` for `submit` with the same key. The file
            is removed after a day.

        Raises:
            TranscriptError: It could not be uploaded.
        """
        if not 0 < size_bytes <= UPLOAD_LIMIT_BYTES:
            raise TranscriptError(
                f"audio of {size_bytes} bytes cannot be uploaded: 1 to"
                f" {UPLOAD_LIMIT_BYTES} are taken",
                retryable=False,
                fault=TranscriptFault.MEDIA,
            )
        asked = Asked(Question.UPLOAD, self._host)
        request = self._http.build_request(
            "POST",
            "/v2/upload",
            headers={
                "Content-Type": "application/octet-stream",
                "Content-Length": str(size_bytes),
            },
        )
        request.stream = _Body(chunks, size_bytes)
        seconds = (
            self._limits.request + size_bytes / self._limits.upload_bytes_per_second
        )
        return await self._ask(
            asked, request, partial(read_upload, asked), seconds=seconds
        )

    def _check_id(self, transcript_id: str) -> None:
        if not is_transcript_id(transcript_id):
            raise TranscriptError(
                "this is no id of a transcript",
                retryable=False,
                fault=TranscriptFault.NOT_FOUND,
            )

    async def _ask_about(
        self,
        method: Literal["GET", "DELETE"],
        what: Question,
        transcript_id: str,
        *,
        large: Callable[[], Awaitable[None]] | None = None,
    ) -> Transcript:
        self._check_id(transcript_id)
        asked = Asked(what, self._host)
        request = self._http.build_request(method, f"/v2/transcript/{transcript_id}")
        transcript = await self._ask(
            asked,
            request,
            partial(read_transcript, asked, secret=self._key),
            seconds=self._limits.transcript,
            limit_bytes=self._limits.transcript_bytes,
            large=large,
        )
        if transcript.id != transcript_id:
            raise nonsense(asked, "another transcript")
        return transcript

    async def _ask(
        self,
        asked: Asked,
        request: httpx.Request,
        read: Callable[[bytearray], T],
        *,
        seconds: float | None = None,
        limit_bytes: int | None = None,
        large: Callable[[], Awaitable[None]] | None = None,
    ) -> T:
        """Send a request, and read its answer.

        Args:
            asked: What it asks.
            request: The request.
            read: Makes a value of the body of a success.
            seconds: Longest time for all of it; `Limits.request` if None.
            limit_bytes: Longest body; `Limits.answer_bytes` if None.
            large: See `get`.
        """
        with trio.move_on_after(
            self._limits.request if seconds is None else seconds
        ) as scope:
            limit = self._limits.answer_bytes if limit_bytes is None else limit_bytes
            body = await self._exchange(asked, request, limit, large)
        if scope.cancelled_caught:
            raise TranscriptError(
                f"{asked.host} took too long to {asked.what}",
                fault=TranscriptFault.AWAY,
                outcome_unknown=True,
            )
        if len(body) < _PARSE_IN_THREAD_BYTES:
            return read(body)
        return await trio.to_thread.run_sync(read, body, limiter=self._parsers)

    async def _exchange(
        self,
        asked: Asked,
        request: httpx.Request,
        limit: int,
        large: Callable[[], Awaitable[None]] | None,
    ) -> bytearray:
        """Send a request and return the body of a success."""
        try:
            answer = await self._http.send(request, stream=True, follow_redirects=False)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise _transport_fault(error, asked) from error
        try:
            if answer.status_code not in _SUCCESS:
                body = await _read_error(answer)
                raise refusal(
                    asked, answer.status_code, answer.headers, body, secret=self._key
                )
            return await _read(answer, limit, large)
        except (httpx.HTTPError, OSError) as error:
            raise _transport_fault(error, asked) from error
        except _UnfitError as error:
            raise nonsense(asked, str(error)) from error
        finally:
            with trio.move_on_after(1 * SECONDS, shield=True):
                await answer.aclose()


class _UnfitError(Exception):
    """A body is too long, or packed in a way that cannot be unpacked."""


async def _read_error(answer: httpx.Response) -> bytearray:
    """Read as much as is wanted for a message; the status is known already."""
    try:
        return await _read(answer, _ERROR_LIMIT_BYTES)
    except (httpx.HTTPError, OSError, _UnfitError):
        return bytearray()


async def _read(
    answer: httpx.Response,
    limit: int,
    large: Callable[[], Awaitable[None]] | None = None,
) -> bytearray:
    """Read and unpack a body, with a limit on what comes out of it.

    Args:
        answer: What it belongs to.
        limit: Most bytes.
        large: See `AssemblyAI.get`.
    """
    body = bytearray()
    unpack = _unpacker(answer.headers.get("Content-Encoding", "identity"))
    fault: _UnfitError | TranscriptError | None = None
    try:
        async for piece in answer.aiter_raw():
            if fault is not None:
                continue
            try:
                body += unpack(piece, limit + 1 - len(body))
                if len(body) > limit:
                    raise _UnfitError(f"more than {limit} bytes")
                if large is not None and len(body) > _LARGE_BYTES:
                    await large()
                    large = None
            except (_UnfitError, TranscriptError) as error:
                fault = error
                # To leave the loop would leave httpx's generators open; they end
                # by themselves with the connection.
                _end_connection(answer)
    except httpx.HTTPError:
        if fault is None:
            raise
    if fault is not None:
        raise fault
    return body


def _end_connection(answer: httpx.Response) -> None:
    """Let no more come in; the pool sees that the connection is of no more use."""
    sock = answer.extensions["network_stream"].get_extra_info("socket")
    with suppress(OSError):  # it has ended by itself
        sock.shutdown(socket.SHUT_RDWR)


def _unpacker(encoding: str) -> Callable[[bytes, int], bytes]:
    """Return what unpacks pieces of a body, each to so many bytes at the most."""
    if encoding == "identity":
        return lambda piece, _: piece
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | _GZIP)

    def unpack(piece: bytes, limit: int) -> bytes:
        if encoding != "gzip":
            raise _UnfitError("something packed in an unknown way")
        try:
            return unpacker.decompress(piece, limit)
        except zlib.error as error:
            raise _UnfitError("something that cannot be unpacked") from error

    return unpack


class _Body(httpx.AsyncByteStream):
    """A request's body, of as many bytes as were promised.

    Not a generator, as those of httpx are: it leaves one where it stands if the
    connection breaks, and Trio complains when that is collected.

    Args:
        chunks: All of it.
        size_bytes: How many bytes that is.
    """

    def __init__(self, chunks: AsyncIterator[bytes], size_bytes: int) -> None:
        self._chunks = chunks
        self._size_bytes = size_bytes
        self._left = size_bytes

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            if self._left:
                raise self._changed() from None
            raise
        self._left -= len(chunk)
        if self._left < 0:
            raise self._changed()
        return chunk

    def _changed(self) -> TranscriptError:
        return TranscriptError(
            f"the audio is not of {self._size_bytes} bytes any more",
            fault=TranscriptFault.OTHER,
        )


class _Once:
    """Hands on one chunk."""

    def __init__(self, chunk: bytes) -> None:
        self._chunks = [chunk]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._chunks:
            raise StopAsyncIteration
        return self._chunks.pop()


_NOT_SENT: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
)


def _transport_fault(error: Exception, asked: Asked) -> TranscriptError:
    """Judge a request that got no answer, or only a part of one."""
    return TranscriptError(
        _transport_text(error, asked.host),
        fault=TranscriptFault.AWAY,
        outcome_unknown=not isinstance(error, _NOT_SENT),
    )


def _transport_text(error: Exception, host: str) -> str:
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"the certificate of {host} is not trusted ({cause.verify_message}):"
                " name the file with its authority in SSL_CERT_FILE, or correct"
                " ASSEMBLYAI_BASE_URL"
            )
    match error:
        case httpx.ProxyError():
            return "the proxy does not connect: is HTTPS_PROXY right?"
        case httpx.ConnectTimeout() | httpx.ConnectError():
            why = _system_words(error) or "no answer"
            return (
                f"cannot connect to {host} ({why}): is it up, and is"
                " ASSEMBLYAI_BASE_URL right?"
            )
        case httpx.TimeoutException():
            return f"no answer from {host}"
        case httpx.UnsupportedProtocol() | httpx.InvalidURL():
            return f"{host} cannot be asked: correct ASSEMBLYAI_BASE_URL"
    return f"the connection to {host} broke"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Go through an error and all that it was raised from, the outermost first."""
    waiting: list[BaseException | None] = [error]
    while waiting:
        cause = waiting.pop()
        if cause is None:
            continue
        yield cause
        if isinstance(cause, BaseExceptionGroup):
            waiting.extend(reversed(cause.exceptions))
        waiting.append(cause.__cause__ or cause.__context__)


def _system_words(error: BaseException) -> str | None:
    """Say in the words of the system why there is no connection."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.strerror and cause.errno:
            return cause.strerror
    return None
