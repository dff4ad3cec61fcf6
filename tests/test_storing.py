"""What decides about tags, and who goes on without keys that cannot be read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog
from typer.testing import CliRunner

from audiohook import settings, storing
from audiohook.cli import app
from audiohook.errors import ConfigError
from audiohook.keys import KeyRecord
from audiohook.recovery import recover
from audiohook.storage.s3_buckets import S3Buckets
from tests.house import house
from tests.web.recorded import NAME, Made

if TYPE_CHECKING:
    from collections.abc import Mapping

WAV = "calls/a/audio/a.wav"
SECRET = {"from-the-secret": {"secret": "", "prefix": "vip/", "keep_audio_days": 5}}


def load(**flags: object) -> settings.Settings:
    return settings.load(env_file=Path(os.devnull), **flags)


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "audiohook.key_ring.fetch_secret", lambda _: json.dumps(SECRET).encode()
    )


@pytest.fixture
def no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(_: str) -> bytes:
        raise ConfigError("API_KEYS_SECRET: name cannot be read (Denied)")

    monkeypatch.setattr("audiohook.key_ring.fetch_secret", deny)


def test_objects_are_tagged_once_a_key_needs_it() -> None:
    keys: Mapping[str, KeyRecord] = {"a": KeyRecord()}
    store = storing.make_store(load(s3_bucket="main"), lambda: keys)
    assert isinstance(store, S3Buckets)
    options = store._options
    assert options.for_object(WAV) == {}
    # A secret is read anew while the service runs.
    keys = {**keys, "b": KeyRecord(prefix="vip/", keep_audio_days=5)}
    assert options.for_object(WAV) == {"Tagging": "audiohook-kind=audio"}
    keys = {"b": KeyRecord(prefix="vip/", keep_audio_days=5, keep_transcripts_days=5)}
    assert options.for_object(WAV) == {}


def test_days_are_looked_at_once_for_the_same_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = 0

    def keeps_of(*_: object) -> dict[str, object]:
        nonlocal looks
        looks += 1
        return {}

    monkeypatch.setattr(storing, "keeps_of", keeps_of)
    keys: Mapping[str, KeyRecord] = {"a": KeyRecord()}
    tell = storing._tags_kinds(load(), lambda: keys)
    assert [tell() for _ in range(5)] == [False] * 5
    assert looks == 1
    keys = dict(keys)
    tell()
    assert looks == 2


async def test_service_tags_by_keys_that_it_gets_later(tmp_path: Path) -> None:
    # Nobody is asked for that bucket but once, as no call comes.
    async with house(tmp_path, s3_bucket="main") as it:
        store = it.service._store
        assert isinstance(store, S3Buckets)
        assert store._options.for_object(WAV) == {}
        it.service._keys._put(
            "secret", {"k": KeyRecord(prefix="v/", keep_audio_days=5)}
        )
        assert store._options.for_object(WAV) == {"Tagging": "audiohook-kind=audio"}


@pytest.mark.usefixtures("no_secret")
async def test_leftovers_are_stored_even_if_the_secret_cannot_be_read(
    tmp_path: Path,
) -> None:
    log = structlog.get_logger("audiohook")
    chosen = load(recordings_dir=tmp_path, api_keys_secret="name", s3_bucket="main")
    with structlog.testing.capture_logs() as lines:
        done = await recover(chosen, log=log)
    assert (done.stored, done.waiting) == (0, 0)
    (line,) = [each for each in lines if each["event"] == "keys_not_read"]
    assert line["error"].endswith("cannot be read (Denied)")


@pytest.mark.usefixtures("secret")
def test_index_is_made_of_what_keys_of_the_secret_have_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Made().write(tmp_path / "calls-of-all")
    (tmp_path / "calls-of-all" / "calls").rename(tmp_path / "vip")
    call = tmp_path / "vip" / NAME / "call.json"
    call.write_text(call.read_text().replace("calls/2026", "vip/2026"))
    monkeypatch.setenv("RECORDINGS_DIR", str(tmp_path))
    monkeypatch.setenv("API_KEYS_SECRET", "name")
    monkeypatch.setattr(
        "audiohook.cli.operate.start_log", lambda _: structlog.get_logger("audiohook")
    )
    done = CliRunner().invoke(app, ["index", "--env-file", os.devnull])
    assert done.exit_code == 0, done.output
    assert "1 recordings in the index" in done.output
