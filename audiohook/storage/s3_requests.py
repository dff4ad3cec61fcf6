"""One request to the store: in a thread, within its time, its failures translated.

boto3 blocks, so each request is made in a worker thread. A thread that waits for
the network cannot be interrupted; a task that is cancelled leaves it behind, and
what it was sending is in memory by then, so nothing of the call is still in use.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import trio
from botocore.exceptions import BotoCoreError, ClientError, IncompleteReadError

from audiohook.errors import UploadError
from audiohook.storage.base import READ_LIMIT_BYTES, StoreFault
from audiohook.storage.s3_client import S3Client, S3Options, connect
from audiohook.storage.s3_faults import LostAnswerError, Place, translate

if TYPE_CHECKING:
    from collections.abc import Callable

    from audiohook.storage.s3_client import FetchedObject

T = TypeVar("T")

SECONDS = 1.0

# Credentials that are refused are looked for again, but not all the time.
_CLIENT_AGE: Final = 10 * SECONDS


def read_body(found: FetchedObject, most_bytes: int) -> bytes:
    """Read what an answer brings. It blocks, and gives the connection back.

    Args:
        found: The answer.
        most_bytes: No more than this is read.

    Raises:
        IncompleteReadError: The connection broke before its end, of which botocore
            tells only whoever reads on until nothing comes any more.
    """
    body = found["Body"]
    try:
        data = body.read(most_bytes)
    finally:
        body.close()
    wanted = min(most_bytes, found["ContentLength"])
    if len(data) < wanted:
        raise IncompleteReadError(actual_bytes=len(data), expected_bytes=wanted)
    return data


def read_small(found: FetchedObject, key: str) -> bytes:
    """Read all of an answer, as `read_body` does.

    Raises:
        IncompleteReadError: The connection broke before its end.
        UploadError: The object is larger than `READ_LIMIT_BYTES`.
    """
    data = read_body(found, READ_LIMIT_BYTES + 1)
    if len(data) > READ_LIMIT_BYTES:
        raise UploadError(
            f"{key}: larger than {READ_LIMIT_BYTES} bytes, too large to be read",
            retryable=False,
        )
    return data


class Requests:
    """Makes requests, so many at a time, through a client that is made when needed.

    Args:
        bucket: For the texts of errors.
        options: Limits of time.
        parallel: Most requests at a time.
    """

    def __init__(self, bucket: str, options: S3Options, parallel: int) -> None:
        self._bucket = bucket
        self._options = options
        self._parallel = parallel
        self._threads = trio.CapacityLimiter(parallel)
        self._connecting = trio.Lock()
        self._client: S3Client | None = None
        self._client_born = 0.0

    async def make(self, operation: str, key: str, work: Callable[[S3Client], T]) -> T:
        """Make a request.

        Args:
            operation: The call, as S3 names it.
            key: The object in question.
            work: Sends it, and takes from the answer what is wanted.

        Raises:
            UploadError: The store did not do as asked; see `translate`.

        *Cancellation:* At once. The request may still be carried out.
        """
        client = await self._connected()
        with trio.move_on_after(self._options.request_limit):
            try:
                return await trio.to_thread.run_sync(
                    partial(self._guarded, operation, key, client, work),
                    abandon_on_cancel=True,
                    limiter=self._threads,
                )
            except UploadError as exc:
                if exc.fault == StoreFault.BAD_KEY_OR_SECRET:
                    self._forget(client)
                raise
        self._leave_behind(client)
        raise LostAnswerError(
            f"the answer of {self._place(client).host} does not end",
            fault=StoreFault.AWAY,
        )

    async def do(self, work: Callable[[], T]) -> T:
        """Do something else in one of the threads, to its end."""
        return await trio.to_thread.run_sync(work, limiter=self._threads)

    def close(self) -> None:
        """Close idle connections; requests can be made again."""
        if self._client is not None:
            self._client.close()

    def _guarded(
        self,
        operation: str,
        key: str,
        client: S3Client,
        work: Callable[[S3Client], T],
    ) -> T:
        # Slow to import, but boto3 has done it by now.
        from botocore.parsers import ResponseParserError

        try:
            return work(client)
        except (BotoCoreError, ClientError, ResponseParserError, KeyError) as exc:
            # A field that an answer of S3 has for sure is missed as a key.
            place = self._place(client)
            raise translate(exc, place, operation=operation, key=key) from exc

    def _place(self, client: S3Client) -> Place:
        meta = client.meta
        return Place(self._bucket, meta.region_name, meta.endpoint_url)

    async def _connected(self) -> S3Client:
        async with self._connecting:
            if self._client is None:
                self._client = await self.do(self._connect)
                self._client_born = trio.current_time()
            return self._client

    def _connect(self) -> S3Client:
        try:
            return connect(self._parallel, self._options)
        except (BotoCoreError, ValueError) as exc:
            place = Place(self._bucket, "?", "")
            raise translate(exc, place, operation="connect", key="") from exc

    def _forget(self, client: S3Client) -> None:
        """Have a client with refused credentials made anew, which looks for others.

        Files and roles may have changed since it was made.
        """
        old = trio.current_time() - self._client_born > _CLIENT_AGE
        if client is self._client and old:
            self._client = None

    def _leave_behind(self, client: S3Client) -> None:
        """Let other requests have threads and connections that nobody hangs in."""
        if client is self._client:
            self._client = None
            self._threads = trio.CapacityLimiter(self._parallel)
