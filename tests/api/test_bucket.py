"""The API of a service that stores in a bucket."""

from __future__ import annotations

import hashlib
import uuid
from typing import TYPE_CHECKING

import httpx

from tests.api.served import api_of
from tests.seaweed import BUCKET, Seaweed, reach
from tests.seaweed import seaweed as seaweed
from tests.storage.conftest import aws as aws

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

CONVERSATION = str(uuid.UUID(int=0xB0C4E7, version=4))


async def test_files_are_fetched_from_the_bucket(
    tmp_path: Path, seaweed: Seaweed, aws: pytest.MonkeyPatch
) -> None:
    reach(seaweed, aws)
    async with api_of(tmp_path, s3_bucket=BUCKET, s3_key_prefix="api/") as api:
        report = await api.house.call(duration=1.0, conversation_id=CONVERSATION)
        assert report.ok
        await api.house.settle()
        (item,) = await api.wait_indexed(1)
        (session,) = (await api.get(f"/calls/{CONVERSATION}")).json()["sessions"]
        assert session["call"]["conversationId"] == CONVERSATION
        assert len(session["links"]) == 4
        async with httpx.AsyncClient() as anybody:
            for link in session["links"]:
                assert link["expiresIn"] == 900
                answer = await anybody.get(link["href"])
                assert answer.status_code == 200
                if link["sha256"] is not None:
                    digest = hashlib.sha256(answer.content).hexdigest()
                    assert digest == link["sha256"]
            # Under the name that it has at the port, one is sent there.
            wav = f"/recordings/{item['name']}/{item['name']}.wav"
            moved = await api.get(wav)
            assert moved.status_code == 307
            part = {"range": "bytes=0-3"}
            answer = await anybody.get(moved.headers["location"], headers=part)
            assert (answer.status_code, answer.content) == (206, b"RIFF")
        # Made anew from the bucket, it is found just so.
        await api.house.service.index.erase(CONVERSATION)
        assert (await api.get("/calls")).json()["recordings"] == []
        assert (await api.house.service.index.build()).taken == 1
        assert (await api.get("/calls")).json()["recordings"] == [item]
