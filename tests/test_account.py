"""Every code block of the pages has a test that runs it, or a reason why none can."""

from __future__ import annotations

import pytest

from tests.account import requests
from tests.documents import NOT_RUN, ROOT, Block, all_blocks, begins, blocks, find

REQUESTS = requests()
ASKED = {request.block() for request in REQUESTS}


@pytest.mark.parametrize("block", all_blocks(), ids=str)
def test_block_has_a_test_or_a_reason(block: Block) -> None:
    assert (block in ASKED) == block.can_be_run


def test_blocks_are_asked_for_by_tests() -> None:
    """A request that no test makes would stand in the account and run nothing."""
    assert [each.place for each in REQUESTS if each.test is None] == []


@pytest.mark.parametrize("key", NOT_RUN, ids=str)
def test_reasons_are_for_what_is_there(key: tuple[str, str]) -> None:
    page, start = key
    found = [
        text
        for block in blocks(ROOT / page)
        for text in (block.all_commands() or [block.text])
        if begins(text, start)
    ]
    assert len(found) == 1, found


def test_block_is_told_from_others_by_its_beginning() -> None:
    assert find("docs/s3.md", "audiohook check").lines == ("audiohook check",)
    with pytest.raises(LookupError, match="0 blocks"):
        find("docs/s3.md", "audiohook fly")
    with pytest.raises(LookupError, match="2 blocks"):
        find("docs/first-hour.md", ". .venv/bin")
