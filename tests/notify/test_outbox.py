"""What is forgotten while others wait for it, or are writing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
import trio
import trio.testing

from audiohook.errors import OutboxError
from audiohook.notify import outbox as module
from audiohook.notify.event import Kind
from audiohook.notify.letter import Standing
from audiohook.notify.outbox import Outbox
from tests.notify.desk import InlineOutbox

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from audiohook.notify.database import Database

LOG = structlog.get_logger("audiohook")


def written(database: Database) -> list[str]:
    return [each.conversation for each in database.entries(Standing.WAITING, 10)]


async def test_what_the_disk_refuses_while_it_is_forgotten_does_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY_INTERVAL", 0.01)
    outbox = Outbox(tmp_path, source="/", log=LOG)
    change = outbox._database.change
    forgotten = trio.Event()

    async def forget() -> None:
        await outbox.erase("gone-for-good")
        forgotten.set()

    async def begin_to_forget() -> None:
        nursery.start_soon(forget)
        await trio.testing.wait_all_tasks_blocked()

    def refuse(*_: Any) -> None:  # noqa: ANN401 - as it comes
        monkeypatch.setattr(outbox._database, "change", change)
        trio.from_thread.run(begin_to_forget)
        raise OutboxError("no room")

    monkeypatch.setattr(outbox._database, "change", refuse)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(outbox.run)
            outbox.note(Kind.STORED, conversation="gone-for-good")
            outbox.note(Kind.STORED, conversation="kept")
            await forgotten.wait()
            await outbox.flush()
            assert await outbox.ask(written) == ["kept"]
            nursery.cancel_scope.cancel()


async def test_nobody_waits_for_what_is_forgotten(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    outbox = InlineOutbox(tmp_path, source="/", log=LOG)
    with structlog.testing.capture_logs() as lines, trio.fail_after(60):
        async with trio.open_nursery() as nursery:

            async def tell() -> None:
                await outbox.record(Kind.STORED, conversation="gone-for-good")

            nursery.start_soon(tell)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(outbox.flush)
            await trio.testing.wait_all_tasks_blocked()
            began = trio.current_time()
            assert await outbox.erase("gone-for-good") == 0
    assert trio.current_time() == began
    assert lines == []
    outbox._database.close()
