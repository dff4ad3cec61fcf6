"""Audio on its way into the stand-in: uploaded to it, or fetched by it."""

from __future__ import annotations

import io
import tempfile
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import trio

from audiohook.simulator.assemblyai.account import Refusal
from audiohook.simulator.assemblyai.voices import listen

if TYPE_CHECKING:
    from typing import BinaryIO, Self

    from audiohook.simulator.assemblyai.voices import Hearing

SECONDS = 1.0
HOURS = 3600 * SECONDS
KIB = 1024

UNAVAILABLE = (
    "Download error, unable to download {url}. Please make sure the file exists and is"
    " accessible from the internet."
)
"""Why audio cannot be fetched, in the service's words."""

# As long as it is no longer, audio stays in memory and is heard without a thread:
# quick, and a test's clock does not run while one works.
_IN_MEMORY_BYTES = 512 * KIB
_UPLOAD_URL = "https://cdn.assemblyai.com/upload/"
# After this long, uploads are removed.
_UPLOAD_LIFE = 24 * HOURS


class TooLongError(Exception):
    """There is more audio than may be."""


class Clip:
    """Audio that grows, in memory at first and then in a file without a name.

    Args:
        most_bytes: How long it may become.

    Attributes:
        size_bytes: How long it is.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._pending = bytearray()
        self._file: BinaryIO | None = None
        self.size_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    async def append(self, data: bytes) -> None:
        """Takes more of it.

        Raises:
            TooLongError: It becomes too long.
        """
        self.size_bytes += len(data)
        if self.size_bytes > self._most_bytes:
            raise TooLongError
        self._pending += data
        if len(self._pending) > _IN_MEMORY_BYTES:
            await trio.to_thread.run_sync(self._write_out)

    async def listen(self) -> Hearing | None:
        """Finds the voices in it; None if it is no audio at all."""
        try:
            if self._file is None:
                return listen(io.BytesIO(self._pending))
            return await trio.to_thread.run_sync(self._listen_to_file, self._file)
        except ValueError:
            return None

    def _write_out(self) -> None:
        if self._file is None:
            # It has no name, so that not even a crash leaves it behind; `__exit__`
            # closes it.
            self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self._file.write(self._pending)
        self._pending.clear()

    def _listen_to_file(self, file: BinaryIO) -> Hearing:
        self._write_out()
        return listen(file)


@dataclass(frozen=True, slots=True)
class _Upload:
    key: str
    hearing: Hearing | None
    at: float


class Uploads:
    """What was heard in uploaded files; the files themselves are not kept.

    Attributes:
        count: Files taken.
        bytes: Their length in all.
    """

    def __init__(self) -> None:
        self._files: dict[str, _Upload] = {}
        self.count = 0
        self.bytes = 0

    async def keep(self, clip: Clip, key: str, now: float) -> str:
        """Takes a file that is whole.

        Args:
            clip: The file.
            key: Of the account it belongs to.
            now: Seconds.

        Returns:
            The URL to name in a request for a transcript.
        """
        hearing = await clip.listen()
        for url in [u for u, f in self._files.items() if f.at < now - _UPLOAD_LIFE]:
            self.remove(url)
        url = f"{_UPLOAD_URL}{uuid.uuid4()}"
        self._files[url] = _Upload(key, hearing, now)
        self.count += 1
        self.bytes += clip.size_bytes
        return url

    def check(self, url: str, key: str) -> None:
        """Holds an address in a request for a transcript against what is here.

        Raises:
            Refusal: It is an upload, but not of this account.
        """
        file = self._files.get(url)
        if file is not None and file.key != key:
            raise Refusal(403, "Cannot access uploaded file")

    def get(self, url: str) -> Hearing | None:
        """Gives what was heard in a file; None if it is no audio.

        Raises:
            DownloadError: There is no such file.
        """
        file = self._files.get(url)
        if file is None:
            raise DownloadError(_unavailable(url))
        return file.hearing

    def remove(self, url: str) -> None:
        """Removes a file, if it is here."""
        self._files.pop(url, None)


def is_upload(url: str) -> bool:
    """Whether an address is one that `Uploads.keep` may have given."""
    return url.startswith(_UPLOAD_URL)


class DownloadError(Exception):
    """Audio cannot be fetched; the text says why, as the service does."""


async def fetch(client: httpx.AsyncClient, url: str, most_bytes: int) -> Hearing | None:
    """Fetches audio and listens to it.

    Args:
        client: What to fetch it with.
        url: Where it is.
        most_bytes: Longest file.

    Returns:
        What is heard in it; None if it is no audio.

    Raises:
        DownloadError: It is not to be had.
        TooLongError: It is too long.
    """
    with Clip(most_bytes) as clip:
        try:
            async with client.stream("GET", url) as response:
                if not response.is_success:
                    status = f"{response.status_code} {response.reason_phrase}"
                    raise DownloadError(f"{_unavailable(url)} ({status})")
                await _receive(response, clip)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise DownloadError(_unavailable(url)) from error
        return await clip.listen()


async def _receive(response: httpx.Response, clip: Clip) -> None:
    """Appends the body of a response.

    Raises:
        TooLongError: It is too long.
    """
    with trio.CancelScope() as scope:
        async for chunk in response.aiter_raw():
            try:
                await clip.append(chunk)
            except TooLongError:
                # To leave the loop would leave the generators below half-run, for
                # the garbage collector; what is raised within them ends them.
                scope.cancel()
    if scope.cancelled_caught:
        raise TooLongError


def _unavailable(url: str) -> str:
    return UNAVAILABLE.format(url=url)
