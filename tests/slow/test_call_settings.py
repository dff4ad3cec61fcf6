"""Calls that are to be treated each in its own way, and a server that is killed."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import trio

from audiohook.protocol.messages import Channel
from audiohook.simulator.assemblyai import Pace, StandIn
from audiohook.simulator.client import place_call
from audiohook.simulator.options import CallOptions
from tests.house import KEY
from tests.slow.bucket import Bucket, aws_settings
from tests.slow.processes import Site
from tests.slow.talk import write_talk
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.slow.processes import Server

pytestmark = pytest.mark.slow

ALLOWED = "language,transcription,layout,keep_raw,prefix,mode,neither"
USUAL = (Channel.EXTERNAL, Channel.INTERNAL)
ACME = "YWNtZQ=="
QUIET = "cXVpZXQ="
SETTLE_SECONDS = 60.0

CONFIGS: dict[str, dict[str, object]] = {
    "usual": {},
    "record": {"mode": "record only", "keep_raw": False},
    "transcribe": {"mode": "transcribe only", "language": "de"},
    "split": {"mode": "transcribe only", "layout": "split", "prefix": "sales/north"},
    "neither": {"mode": "neither"},
    "own": {"prefix": "sales", "layout": "mono", "transcription": {"punctuate": False}},
    "wrong": {"mode": "everything", "prefix": "../../etc", "layout": 7},
}


@dataclass
class Calls:
    """Those who call, each in a way of its own."""

    folder: Path
    sessions: dict[str, str] = field(default_factory=dict)

    async def call(
        self, server: Server, what: str, *, key: str = KEY, fast: bool = True
    ) -> None:
        options = CallOptions(
            uri=server.uri,
            api_key=key,
            wav=write_talk(
                self.folder / f"{what}.wav",
                3.0 if fast else 8.0,
                USUAL,
                random.Random(what),
            ),
            channels=USUAL,
            custom_config=CONFIGS.get(what, {}),
            fast=fast,
        )
        self.sessions[options.session_id] = what
        report = await place_call(options)
        if fast:
            assert report.ok, report.breaches


@dataclass
class Shelf:
    """What the store holds, by key; buckets of keys before theirs."""

    objects: dict[str, bytes]
    calls: Calls

    def found(self) -> dict[str, tuple[str, dict[str, Any], set[str]]]:
        """Returns folder, ``call.json`` and kinds of files, by what was called."""
        result = {}
        for key, data in self.objects.items():
            if not key.endswith("/call.json"):
                continue
            folder = key.removesuffix("/call.json")
            facts = json.loads(data)
            name = folder.rpartition("/")[2]
            kinds = {
                each.removeprefix(f"{folder}/").replace(name, "")
                for each in self.objects
                if each.startswith(f"{folder}/")
            }
            result[self.calls.sessions[facts["sessionId"]]] = (folder, facts, kinds)
        return result


TEXTS = {f"transcripts/{each}" for each in (".json", ".txt", ".srt", ".vtt")}


def check(
    found: Mapping[str, tuple[str, dict[str, Any], set[str]]], standin: StandIn
) -> None:
    """Holds each call against what it was to come to."""
    assert "neither" not in found
    assert "quiet" not in found

    folder, facts, kinds = found["usual"]
    assert folder.startswith("calls/2")
    assert kinds == {"call.json", "audio/.wav", "audio/.dat", "audio/.raw", *TEXTS}
    assert facts["settings"]["mode"] == {
        "value": "record and transcribe",
        "from": "service",
    }
    assert facts["audio"] == "stored"

    _, facts, kinds = found["record"]
    assert kinds == {"call.json", "audio/.wav", "audio/.dat"}
    (entry,) = facts["transcripts"]
    assert entry["status"] == "off"
    assert entry["reason"] == "only the recording is wanted, by customConfig"

    _, facts, kinds = found["transcribe"]
    assert kinds == {"call.json", *TEXTS}
    assert facts["audio"] == "deleted"
    assert [each.get("deleted") for each in facts["objects"]] == [True]
    assert facts["settings"]["language"] == {"value": "de", "from": "customConfig"}
    assert facts["transcripts"][0]["status"] == "completed"

    folder, facts, kinds = found["split"]
    assert folder.startswith("calls/sales/north/2")
    assert facts["audio"] == "deleted"
    sides = ("-external", "-internal")
    forms = (".json", ".txt", ".srt", ".vtt")
    assert kinds == {
        "call.json",
        *(f"transcripts/{side}{form}" for side in sides for form in forms),
    }

    folder, facts, kinds = found["own"]
    assert folder.startswith("calls/sales/2")
    assert facts["recording"]["layout"] == "mono"
    assert "audio/.wav" in kinds

    folder, facts, _ = found["wrong"]
    assert folder.startswith("calls/2")
    ignored = {each["name"] for each in facts["settings"]["ignored"]}
    assert ignored == {"mode", "prefix", "layout"}
    assert facts["transcripts"][0]["status"] == "completed"

    asked = [job.parameters for job in standin.account().jobs.values()]
    # Of seven kinds of calls: two have one file and no say, two are one and two files
    # of their own language or prefix, one has parameters; and two ask for none.
    assert [each.get("language_code") for each in asked].count("de") == 1
    assert [each.get("punctuate") for each in asked].count(False) == 1
    assert len(asked) == len({each["audio_url"].split("?")[0] for each in asked})


def read_folder(site: Site) -> dict[str, bytes]:
    root = site.recordings
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".spool" not in path.parts
    }


def read_bucket(bucket: Bucket) -> dict[str, bytes]:
    with bucket._client() as client:
        return {
            key: client.get_object(Bucket=bucket.name, Key=key)["Body"].read()
            for key in bucket.sizes()
        }


def environment(standin: StandIn, folder: Path, **keys: object) -> dict[str, str]:
    file = folder / "keys.json"
    file.write_text(json.dumps(keys))
    return {
        "ASSEMBLYAI_API_KEY": "stand-in-key",
        "ASSEMBLYAI_BASE_URL": standin.base_url,
        "CUSTOM_CONFIG_ALLOW": ALLOWED,
        "API_KEYS_FILE": str(file),
    }


# A later process knows nothing of it, and would decide otherwise on all of it.
OTHERWISE = {
    "CUSTOM_CONFIG_ALLOW": "",
    "CHANNEL_LAYOUT": "split",
    "KEEP_RAW": "false",
    "S3_KEY_PREFIX": "other/",
    "TRANSCRIBE_LANGUAGE": "fr",
}


async def make_calls_and_kill(site: Site, calls: Calls, *others: str) -> None:
    """Has all kinds of calls come, kills the server among them, and starts another."""
    async with site.serve() as server:
        async with trio.open_nursery() as nursery:
            for what in CONFIGS:
                if what != "split":
                    nursery.start_soon(calls.call, server, what)
            nursery.start_soon(lambda: calls.call(server, "quiet", key=QUIET))
            for what in others:
                nursery.start_soon(lambda w=what: calls.call(server, w, key=ACME))  # type: ignore[misc]  # mypy knows no defaults of lambdas
        async with trio.open_nursery() as nursery:
            # Its last second may be lost, and nothing that was decided on it.
            nursery.start_soon(lambda: calls.call(server, "split", fast=False))
            # So that enough is left to be worth a transcript, on a busy machine too.
            await trio.sleep(3.5)
            ignored = server.lines("custom_config_ignored")
            server.kill()
            await server.wait()
    (line,) = ignored
    assert len(line["ignored"]) == 3
    assert "etc" not in str(line)
    async with site.serve(**OTHERWISE):
        await wait_until(lambda: not site.spooled(), SETTLE_SECONDS)


async def test_folder_each_call_in_its_own_way_in_spite_of_a_kill(
    tmp_path: Path,
) -> None:
    standin = StandIn(pace=Pace(processing=1.0))
    calls = Calls(tmp_path)
    async with trio.open_nursery() as nursery:
        await nursery.start(standin.serve)
        quiet = {"secret": None, "settings": {"mode": "neither"}}
        folder = tmp_path / "site"
        folder.mkdir()
        site = Site(folder, environment(standin, tmp_path, **{QUIET: quiet}))
        await make_calls_and_kill(site, calls)
        found = Shelf(read_folder(site), calls).found()
        check(found, standin)
        # And found again by whoever makes the index anew.
        done = await site.command("index")
        assert done.returncode == 0, done.stderr
        nursery.cancel_scope.cancel()


async def test_bucket_each_call_in_its_own_way_in_spite_of_a_kill(
    tmp_path: Path, bucket: Bucket
) -> None:
    standin = StandIn(pace=Pace(processing=1.0))
    calls = Calls(tmp_path)
    acme = Bucket(bucket.store)
    acme.create()
    async with trio.open_nursery() as nursery:
        await nursery.start(standin.serve)
        folder = tmp_path / "site"
        folder.mkdir()
        settings = environment(
            standin,
            tmp_path,
            **{
                QUIET: {"secret": None, "settings": {"mode": "neither"}},
                ACME: {"secret": None, "bucket": acme.name, "prefix": "acme/"},
            },
        )
        site = Site(folder, settings | aws_settings(bucket.store.url, bucket.name))
        await make_calls_and_kill(site, calls, "acme")
        nursery.cancel_scope.cancel()
    objects = await trio.to_thread.run_sync(read_bucket, bucket)
    found = Shelf(objects, calls).found()
    check(found, standin)
    assert "acme" not in found
    objects = await trio.to_thread.run_sync(read_bucket, acme)
    apart = Shelf(objects, calls).found()
    folder_key, facts, kinds = apart["acme"]
    assert list(apart) == ["acme"]
    assert folder_key.startswith("acme/2")
    assert kinds == {"call.json", "audio/.wav", "audio/.dat", "audio/.raw", *TEXTS}
    assert facts["settings"]["bucket"] == {"value": acme.name, "from": "key"}
    keys = [each["key"] for each in facts["objects"]]
    assert all(key.startswith("acme/2") for key in keys)
    assert facts["transcripts"][0]["status"] == "completed"


async def test_audio_without_a_transcript_is_kept_and_says_so(tmp_path: Path) -> None:
    standin = StandIn()
    calls = Calls(tmp_path)
    async with trio.open_nursery() as nursery:
        await nursery.start(standin.serve)
        folder = tmp_path / "site"
        folder.mkdir()
        site = Site(folder, environment(standin, tmp_path, x=None))
        site.settings |= {"TRANSCRIBE_MIN_SECONDS": "60"}
        async with site.serve() as server:
            await calls.call(server, "transcribe")
            await wait_until(lambda: not site.spooled(), SETTLE_SECONDS)
        nursery.cancel_scope.cancel()
    _, facts, kinds = Shelf(read_folder(site), calls).found()["transcribe"]
    assert facts["audio"] == "kept"
    assert kinds == {"call.json", "audio/.wav"}
    assert facts["transcripts"][0]["reason"] == "shorter than 60 s"
