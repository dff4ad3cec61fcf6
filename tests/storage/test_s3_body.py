from __future__ import annotations

import base64
import hashlib
import io
import os
import zlib
from functools import partial

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from audiohook.errors import UploadError
from audiohook.storage.base import MIB, BytesBlob
from audiohook.storage.s3_body import Body, load
from tests.storage.s3_tools import PatternBlob

DATA = os.urandom(3 * MIB + 17)


def body_of(data: bytes) -> Body:
    return Body([data[at : at + MIB] for at in range(0, len(data), MIB)], 0)


@given(
    st.integers(0, len(DATA)),
    st.lists(
        st.one_of(
            st.tuples(st.just("read"), st.integers(-1, 2 * MIB)),
            st.tuples(st.just("seek"), st.integers(0, 4 * MIB)),
            st.tuples(st.just("tell"), st.just(0)),
        )
    ),
)
def test_body_reads_as_a_file_does(
    length: int, operations: list[tuple[str, int]]
) -> None:
    body, file = body_of(DATA[:length]), io.BytesIO(DATA[:length])
    assert body.size == length
    for operation, number in operations:
        if operation == "read":
            piece = body.read(number)
            # It may be shorter than a file's, but not empty before the end.
            wanted = file.read(len(piece) if piece else number)
            assert bytes(piece) == wanted
        elif operation == "seek":
            assert body.seek(number) == file.seek(number)
        assert body.tell() == file.tell()


def test_body_knows_its_end() -> None:
    body = body_of(DATA)
    assert body.seek(0, io.SEEK_END) == len(DATA)
    assert body.read(1) == b""
    assert body.seek(-3, io.SEEK_CUR) == len(DATA) - 3
    assert bytes(body.read()) == DATA[-3:]


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 0), (0, 5), (7, MIB), (MIB - 1, 2 * MIB + 2)]
)
async def test_piece_of_a_blob_is_loaded_with_its_checksums(
    offset: int, length: int
) -> None:
    digest = hashlib.sha256(b"before")
    body = await trio.to_thread.run_sync(
        partial(load, BytesBlob(DATA), offset, length, key="k", digest=digest)
    )
    wanted = DATA[offset : offset + length]
    assert b"".join(iter(partial(body.read, 100_000), b"")) == wanted
    assert body.size == length
    crc32 = zlib.crc32(wanted).to_bytes(4, "big")
    assert body.crc32 == base64.b64encode(crc32).decode()
    assert digest.digest() == hashlib.sha256(b"before" + wanted).digest()


async def test_blob_that_ends_too_soon_is_not_loaded() -> None:
    with pytest.raises(UploadError, match="k: ends at 5 of 5 bytes"):
        await trio.to_thread.run_sync(partial(load, BytesBlob(b"hello"), 2, 4, key="k"))


async def test_loading_ends_when_nobody_wants_it_any_more() -> None:
    read: list[int] = []

    class Slow(PatternBlob):
        def read_at(self, offset: int, length: int) -> bytes:
            read.append(offset)
            trio.from_thread.run_sync(scope.cancel)
            return super().read_at(offset, length)

    with trio.CancelScope() as scope:
        await trio.to_thread.run_sync(partial(load, Slow(9 * MIB), 0, 9 * MIB, key="k"))
    assert scope.cancelled_caught
    assert read == [0]
