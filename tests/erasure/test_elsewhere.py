"""Whoever transcribes elsewhere does not bring back what was erased."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from audiohook.errors import UnfinishedError
from audiohook.settings import load
from audiohook.simulator.assemblyai import Pace, StandIn
from audiohook.storage.folder import FolderStore
from audiohook.transcribing import make_account
from audiohook.transcription.errand import Errands, Outcome, Patience
from tests.api.served import ERASER
from tests.erasure.test_folder import (
    MINE,
    STANDIN_KEY,
    call,
    erased,
    soon,
    transcribing_api,
)
from tests.test_transcribing import haste
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["haste", "soon"]


async def test_a_worker_that_has_it_in_hand_and_one_that_is_told_late(
    tmp_path: Path,
) -> None:
    standin = StandIn(pace=Pace(processing=1.0))
    async with transcribing_api(tmp_path, standin, transcribe="elsewhere") as api:
        await call(api, MINE)
        (recording,) = api.house.recordings()
        name = recording.folder.name
        key = f"calls/{name}/audio/{name}.wav"
        settings = load(
            env_file=tmp_path / ".env",
            assemblyai_api_key=STANDIN_KEY,
            assemblyai_base_url=standin.base_url,
        )
        account = make_account(settings, STANDIN_KEY)
        errands = Errands(
            account.steps,
            store=FolderStore(api.house.folder),
            pace=account.pace,
            parameters=account.parameters,
            log=structlog.get_logger("audiohook"),
        )
        outcomes: list[Outcome | UnfinishedError] = []

        async def work() -> None:
            try:
                outcomes.append(await errands.see_to(key, Patience()))
            except UnfinishedError as error:
                outcomes.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            await wait_until(lambda: standin.account(STANDIN_KEY).jobs)
            # Its id is known only to the worker until it has written it down.
            path = recording.folder / "jobs" / f"{name}.json"
            await wait_until(lambda: b"transcript_submitted" in path.read_bytes())
            answer = await api.ask("DELETE", f"/calls/{MINE}", token=ERASER)
            standing = await erased(api, answer.json()["reference"])
        # The worker was told that the job is not its own any more.
        assert isinstance(outcomes[0], UnfinishedError)
        assert standing["erased"]["transcripts"] == 1  # type: ignore[index]
        (job,) = standin.account(STANDIN_KEY).jobs.values()
        assert job.deleted
        assert api.house.recordings() == []
        # The event of the bucket comes once more.
        assert await errands.see_to(key, Patience()) is Outcome.LEFT_ALONE
        assert api.house.recordings() == []
        assert len(standin.account(STANDIN_KEY).jobs) == 1
        await account.aclose()
