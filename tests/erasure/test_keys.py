"""Erasure where buckets of API keys are not known yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from audiohook.erasure.eraser import Eraser
from audiohook.erasure.ledger import Ledger
from audiohook.erasure.places import Place
from audiohook.errors import UploadError
from audiohook.storage.folder import FolderStore
from tests import aws
from tests.erasure.test_bucket import MINE, NoIndex, name_of
from tests.test_cli import run

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from audiohook.erasure.eraser import Standing

SECRET = {
    "API_KEYS_SECRET": "audiohook/keys",
    "S3_BUCKET": "bucket",
    **aws.environment(AWS_ENDPOINT_URL=aws.NOWHERE),
}


async def test_an_order_waits_until_all_buckets_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    monkeypatch.setattr("audiohook.erasure.eraser._FIRST_PAUSE", 0.05)
    store = FolderStore(tmp_path)
    folder = tmp_path / "calls" / name_of()
    folder.mkdir(parents=True)
    (folder / "call.json").write_bytes(b"{}")
    known = False

    def places() -> list[Place]:
        if not known:
            raise UploadError("the keys were not read yet")
        return [Place("folder", store.traces, "calls/")]

    eraser = Eraser(
        Ledger(tmp_path / ".spool"),
        spool=tmp_path / ".spool",
        places=places,
        index=NoIndex(),
        account=None,
        log=structlog.get_logger("audiohook"),
    )
    reference = await eraser.order(MINE, by="me", end=False)
    nursery.start_soon(eraser.pursue, reference)

    async def standing() -> Standing:
        found = await eraser.standing(reference)
        assert found is not None
        return found

    with trio.fail_after(30):
        while (await standing()).waits_for is None:
            await trio.lowlevel.checkpoint()
        found = await standing()
        assert (found.done, found.waits_for) == (False, "the keys were not read yet")
        assert folder.exists()
        known = True
        while not (await standing()).done:
            await trio.lowlevel.checkpoint()
    assert not folder.exists()


def test_commands_end_with_2_if_keys_cannot_be_read(tmp_path: Path) -> None:
    for arguments in (
        ("erase", MINE, "--yes"),
        ("erase", MINE, "--dry-run"),
        ("audit", "--day", "2026-11-22"),
        ("index",),
    ):
        done = run(tmp_path, *arguments, **SECRET)
        assert done.returncode == 2, done.stderr
        (line,) = done.stderr.splitlines()
        assert "API_KEYS_SECRET: audiohook/keys cannot be read" in line
