"""Where recordings lie, to be read: a folder, or a bucket.

Source of the layout: `<…><start>_<conversation>_<participant>/audio/<name>.wav`,
with a `.raw` beside it and a `call.json` above.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from audiohook.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK_BYTES: Final = 1024 * 1024
S3_SCHEME: Final = "s3://"

_UUID: Final = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_PATH: Final = re.compile(
    rf"(?P<folder>(?:.*/)?[^/_]+_(?P<conversation>{_UUID})_{_UUID})/(?P<rest>.+)"
)
# Connections to the store; twice as many as threads that compare.
_PARALLEL: Final = 8


@dataclass(slots=True)
class Folder:
    """One recording: the paths of what belongs to it.

    Attributes:
        path: Its own.
        conversation: The conversation that it is of.
        raw: Audio as received.
        wavs: WAV files.
        summary: ``call.json``.
    """

    path: str
    conversation: str
    raw: str | None = None
    wavs: list[str] = field(default_factory=list)
    summary: str | None = None


class Shelf(Protocol):
    """What recordings can be read from. All of it blocks; `read` in any thread."""

    def paths(self) -> Iterator[str]:
        """List the paths of all objects, in any order.

        Raises:
            AudioHookError: It cannot be read; the text says why.
        """

    def read(self, path: str) -> Iterator[bytes]:
        """Read an object in pieces.

        Raises:
            AudioHookError: It cannot be read; the text says why.
        """


def open_shelf(where: str) -> Shelf:
    """Find out what is meant.

    Args:
        where: A folder, or ``s3://bucket/prefix``.

    Raises:
        ConfigError: There is no such folder.
    """
    if where.startswith(S3_SCHEME):
        bucket, _, prefix = where.removeprefix(S3_SCHEME).partition("/")
        return BucketShelf(bucket, prefix)
    return FolderShelf(Path(where))


def recordings(shelf: Shelf) -> dict[str, list[Folder]]:
    """List all recordings, by their conversations."""
    folders: dict[str, Folder] = {}
    for path in shelf.paths():
        match = _PATH.fullmatch(path)
        if match is None:
            continue
        name = match["folder"]
        folder = folders.setdefault(name, Folder(name, match["conversation"]))
        rest = match["rest"]
        if rest == "call.json":
            folder.summary = path
        elif rest.startswith("audio/") and rest.endswith(".raw"):
            folder.raw = path
        elif rest.startswith("audio/") and rest.endswith(".wav"):
            folder.wavs.append(path)
    found: dict[str, list[Folder]] = {}
    for folder in folders.values():
        found.setdefault(folder.conversation, []).append(folder)
    return found


class FolderShelf:
    """A folder.

    Args:
        root: All paths are below it.

    Raises:
        ConfigError: There is no such folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise ConfigError(f"{root}: no such folder")
        self._root = root

    def paths(self) -> Iterator[str]:
        """List all files, but for hidden ones: they are not finished."""
        for folder, folders, names in os.walk(self._root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            base = Path(folder).relative_to(self._root)
            for name in names:
                if not name.startswith("."):
                    yield (base / name).as_posix()

    def read(self, path: str) -> Iterator[bytes]:
        """Read a file in pieces."""
        try:
            with (self._root / path).open("rb", buffering=0) as stream:
                while data := stream.read(CHUNK_BYTES):
                    yield data
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error


class _Body(Protocol):
    def read(self, amt: int) -> bytes: ...

    def close(self) -> None: ...


class _Client(Protocol):
    """The two calls of boto3's client that are needed here."""

    meta: Any

    def list_objects_v2(self, **parameters: str) -> dict[str, Any]: ...

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]: ...


class BucketShelf:
    """A bucket, reached by AWS's standard settings.

    Args:
        bucket: Its name.
        prefix: What the keys begin with.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._client: _Client | None = None

    def paths(self) -> Iterator[str]:
        """List the keys below the prefix."""
        client = self._connected()
        parameters = {"Bucket": self._bucket, "Prefix": self._prefix}
        while True:
            page = self._ask("ListObjectsV2", client.list_objects_v2, **parameters)
            for entry in page.get("Contents", ()):
                yield entry["Key"]
            if not page.get("IsTruncated"):
                return
            parameters["ContinuationToken"] = page["NextContinuationToken"]

    def read(self, path: str) -> Iterator[bytes]:
        """Read an object in pieces."""
        client = self._connected()
        answer = self._ask(
            "GetObject", client.get_object, Bucket=self._bucket, Key=path
        )
        body: _Body = answer["Body"]
        try:
            while data := self._ask("GetObject", body.read, amt=CHUNK_BYTES):
                yield data
        finally:
            body.close()

    def _connected(self) -> _Client:
        if self._client is None:
            # Slow to import, and seldom needed.
            from audiohook.storage.s3_client import S3Options, connect

            client: Any = self._ask("connect", connect, _PARALLEL, S3Options())
            self._client = client
        return self._client

    def _ask(self, operation: str, work: Any, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - botocore has no types
        from botocore.exceptions import BotoCoreError, ClientError

        from audiohook.storage.s3_faults import Place, translate

        try:
            return work(*arguments, **named)
        except (BotoCoreError, ClientError, ValueError) as error:
            meta = getattr(self._client, "meta", None)
            place = Place(
                self._bucket,
                getattr(meta, "region_name", "?"),
                getattr(meta, "endpoint_url", ""),
            )
            key = str(named.get("Key", ""))
            raise translate(error, place, operation=operation, key=key) from error
