from __future__ import annotations

import base64
import hashlib
import zlib
from itertools import pairwise

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from audiohook.errors import SpoolError
from audiohook.storage.base import MIB, BytesBlob
from audiohook.storage.parts import (
    Slice,
    Span,
    Survey,
    all_spans,
    crc32_text,
    full_span,
    survey,
)

# Source: Amazon S3 User Guide, "Multipart upload limits".
MOST_PARTS = 10_000
MOST_PART_BYTES = 5 * 1024 * MIB


@given(size=st.integers(0, 6000), part_bytes=st.integers(1, 300))
def test_parts_follow_each_other_and_cover_the_object(
    size: int, part_bytes: int
) -> None:
    spans = all_spans(size, part_bytes)
    assert [span.number for span in spans] == list(range(1, len(spans) + 1))
    assert all(before.end == after.offset for before, after in pairwise(spans))
    if size:
        assert (spans[0].offset, spans[-1].end) == (0, size)
    for span in spans[:-1]:
        assert span == full_span(span.number, part_bytes)
    assert all(span.size > 0 for span in spans)


def test_object_without_bytes_has_no_parts() -> None:
    assert all_spans(0, 5 * MIB) == []


@pytest.mark.parametrize(
    ("number", "offset", "size"),
    [
        (1, 0, 5),
        (2, 5, 5),
        (1000, 4995, 5),
        (1001, 5000, 10),
        (1002, 5010, 10),
        (2000, 14_990, 10),
        (2001, 15_000, 20),
    ],
)
def test_size_of_a_part_follows_from_its_number(
    number: int, offset: int, size: int
) -> None:
    assert full_span(number, 5) == Span(number, offset, size)


def test_call_of_years_keeps_the_rules_of_s3() -> None:
    last = full_span(MOST_PARTS, 5 * MIB)
    assert last.size <= MOST_PART_BYTES
    seconds = last.end / (8000 * 2 * 2)
    assert seconds > 4 * 365 * 24 * 3600


def test_slice_is_the_part_and_no_more() -> None:
    piece = Slice(BytesBlob(b"0123456789"), Span(2, 3, 4))
    assert piece.size_bytes == 4
    assert piece.read_at(0, 100) == b"3456"
    assert piece.read_at(1, 2) == b"45"
    assert piece.read_at(4, 1) == piece.read_at(9, 9) == b""


async def test_survey_finds_parts_that_are_not_those_of_the_object() -> None:
    data = bytes(range(256)) * 5000
    spans = all_spans(len(data), 500_000)
    assert len(spans) == 3
    crc32s = {
        span.number: crc32_text(zlib.crc32(data[span.offset : span.end]))
        for span in spans
    }
    digest = hashlib.sha256(data).hexdigest()
    blob = BytesBlob(data)
    found = await trio.to_thread.run_sync(survey, blob, spans, crc32s)
    assert found == Survey(digest, frozenset())
    crc32s[2] = crc32_text(1)
    crc32s[3] = ""
    del crc32s[1]
    found = await trio.to_thread.run_sync(survey, blob, spans, crc32s)
    assert found == Survey(digest, frozenset({2, 3}))


async def test_survey_of_an_object_that_is_too_short_fails() -> None:
    spans = all_spans(11, 4)
    with pytest.raises(SpoolError, match="ends at 10 of 10"):
        await trio.to_thread.run_sync(survey, BytesBlob(bytes(10)), spans, {})


async def test_survey_ends_with_its_task(autojump_clock: object) -> None:
    class Endless:
        size_bytes = 1 << 60

        def read_at(self, offset: int, length: int) -> bytes:
            return bytes(length)

    with trio.move_on_after(0.1) as scope:
        await trio.to_thread.run_sync(survey, Endless(), [Span(1, 0, 1 << 60)], {})
    assert scope.cancelled_caught


def test_crc32_is_written_as_s3_does() -> None:
    # Source: the check value of CRC-32/ISO-HDLC.
    assert crc32_text(zlib.crc32(b"123456789")) == "y/Q5Jg=="
    assert base64.b64decode(crc32_text(1)) == b"\0\0\0\1"
