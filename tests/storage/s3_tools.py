from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import boto3

from audiohook.storage.base import BytesBlob, Part, StoredObject
from tests.seaweed import OWNER, Seaweed

if TYPE_CHECKING:
    from botocore.client import BaseClient

    from audiohook.storage.s3 import S3Store


HELLO = BytesBlob(b"hello")
HELLO_SHA256 = hashlib.sha256(HELLO.data).hexdigest()


def new_key(ending: str = "wav") -> str:
    return f"calls/{uuid.uuid4()}/audio/x.{ending}"


@dataclass
class PatternBlob:
    """Bytes that differ from place to place and take no room."""

    size_bytes: int

    def read_at(self, offset: int, length: int) -> bytes:
        length = min(length, self.size_bytes - offset)
        unit = bytes(range(251))
        start = offset % len(unit)
        return (unit * (length // len(unit) + 2))[start : start + length]

    def sha256(self) -> str:
        return hashlib.sha256(self.read_at(0, self.size_bytes)).hexdigest()


async def put(
    store: S3Store, key: str, data: bytes = HELLO.data, token: str = "t"
) -> StoredObject:
    return await store.put(key, BytesBlob(data), metadata={}, token=token)


async def put_in_parts(
    store: S3Store, key: str, data: bytes = HELLO.data, token: str = "t"
) -> StoredObject:
    upload = await store.begin(key, metadata={}, token=token)
    parts = [await store.put_part(key, upload, 1, BytesBlob(data))]
    return await complete(store, key, upload, parts, token)


async def complete(
    store: S3Store, key: str, upload: str, parts: list[Part], token: str = "t"
) -> StoredObject:
    size = sum(part.size for part in parts)
    return await store.complete(
        key, upload, parts, size=size, sha256="as told", token=token
    )


def plain_client(seaweed: Seaweed) -> BaseClient:
    return boto3.client(
        "s3",
        endpoint_url=seaweed.url,
        aws_access_key_id=OWNER[0],
        aws_secret_access_key=OWNER[1],
    )
