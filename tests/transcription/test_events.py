"""The Lambda function: a bucket in memory, the stand-in, and events as Amazon's."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog
import trio

from audiohook import elsewhere as composition
from audiohook.elsewhere import Elsewhere, find_key
from audiohook.errors import ConfigError, UnfinishedError
from audiohook.settings import Settings, load
from audiohook.transcription import events
from audiohook.transcription.errand import Outcome, Patience
from audiohook.transcription.events import EventsFailedError, handler
from tests.transcription.test_notices import TEST, in_queue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PACKAGE = Path(composition.__file__).parent
BUCKET = "recordings"


def wav(number: int) -> str:
    return f"calls/n{number}/audio/n{number}.wav"


def event(*keys: str) -> dict[str, Any]:
    return {
        "Records": [
            {
                "eventVersion": "2.1",
                "eventSource": "aws:s3",
                "eventName": "ObjectCreated:Put",
                "s3": {"bucket": {"name": BUCKET}, "object": {"key": key}},
            }
            for key in keys
        ]
    }


def queued(**bodies: object) -> dict[str, Any]:
    records = []
    for name, body in bodies.items():
        text = body if isinstance(body, str) else json.dumps(body)
        records += in_queue(text)["Records"]
        records[-1]["messageId"] = name
    return {"Records": records}


class Context:
    def __init__(self, seconds: float = 120.0) -> None:
        self._seconds = seconds

    def get_remaining_time_in_millis(self) -> int:
        return int(self._seconds * 1000)


class Script:
    """Stands for `Errands`."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.patience: list[float] = []
        self.failing: set[str] = set()
        self.hangs = False

    async def see_to(self, key: str, patience: Patience) -> Outcome:
        self.seen.append(key)
        self.patience.append(patience.until - trio.current_time())
        await trio.lowlevel.checkpoint()
        if self.hangs:
            await trio.sleep_forever()
        if key in self.failing:
            raise UnfinishedError("not done yet")
        return Outcome.COMPLETED


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    script = Script()
    for name, value in (
        ("S3_BUCKET", BUCKET),
        ("ASSEMBLYAI_API_KEY", "hush"),
        ("AWS_REGION", "eu-central-1"),
        ("LOG_LEVEL", "debug"),
    ):
        monkeypatch.setenv(name, value)

    @asynccontextmanager
    async def transcribing(
        settings: Settings,
        key: str,
        *,
        log: Any,  # noqa: ANN401 - structlog's
    ) -> AsyncIterator[Elsewhere]:
        assert key == "hush"
        assert settings.s3_bucket == BUCKET
        yield Elsewhere(script, BUCKET, settings.s3_key_prefix, log)  # type: ignore[arg-type]

    monkeypatch.setattr(events, "transcribing_elsewhere", transcribing)
    monkeypatch.setattr(events, "_start_log", lambda _: structlog.get_logger())
    return script


def run(event: dict[str, Any], seconds: float = 120.0) -> dict[str, Any]:
    """Calls the handler as Lambda does, outside of any Trio."""
    answers: list[Any] = []

    def call() -> None:
        try:
            answers.append(handler(event, Context(seconds)))
        except Exception as error:  # noqa: BLE001 - to be raised on
            answers.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    if isinstance(answers[0], Exception):
        raise answers[0]
    answer: dict[str, Any] = answers[0]
    return answer


def test_event_of_the_bucket_is_done(script: Script) -> None:
    assert run(event(wav(1), wav(2))) == {}
    assert sorted(script.seen) == [wav(1), wav(2)]
    # All the time there is but what it takes to end.
    assert all(99 < each <= 100 for each in script.patience)


def test_key_is_decoded_and_seen_to_once(script: Script) -> None:
    assert run(event("calls%2Fn1/audio/n1.wav", wav(1))) == {}
    assert script.seen == [wav(1)]


def test_event_that_is_not_done_raises_so_that_it_comes_again(script: Script) -> None:
    script.failing = {wav(2)}
    with pytest.raises(EventsFailedError, match=f"{wav(2)}: not done yet"):
        run(event(wav(1), wav(2)))
    script.failing.clear()
    assert run(event(wav(1), wav(2))) == {}


def test_messages_that_are_not_done_come_again_without_the_others(
    script: Script,
) -> None:
    script.failing = {wav(2)}
    answer = run(queued(a=event(wav(1)), b=event(wav(2), wav(3)), c="no JSON", d=TEST))
    failed = [each["itemIdentifier"] for each in answer["batchItemFailures"]]
    assert sorted(failed) == ["b", "c"]
    assert sorted(script.seen) == [wav(1), wav(2), wav(3)]
    # A queue brings it back, so nobody pays for a long wait.
    assert max(script.patience) <= 60


def test_bug_in_one_call_is_not_that_of_the_others(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    see_to = script.see_to

    async def broken(key: str, patience: Patience) -> Outcome:
        if key == wav(1):
            raise RuntimeError("oops")
        return await see_to(key, patience)

    monkeypatch.setattr(script, "see_to", broken)
    answer = run(queued(a=event(wav(1)), b=event(wav(2))))
    assert answer == {"batchItemFailures": [{"itemIdentifier": "a"}]}


def test_no_failure_is_said_so(script: Script) -> None:
    assert run(queued(a=event(wav(1)))) == {"batchItemFailures": []}


def test_test_event_is_done(script: Script) -> None:
    assert run(TEST) == {}
    assert run({"Records": []}) == {}


def test_other_keys_are_none_of_its_business(script: Script) -> None:
    assert run(event("calls/../x.wav", "calls/n1/call.json")) == {}
    assert script.seen == []


@pytest.mark.parametrize("wrong", [{}, {"Records": [{}]}, {"Records": 5}])
def test_what_is_no_event_raises(script: Script, wrong: dict[str, Any]) -> None:
    with pytest.raises(EventsFailedError, match="not an event"):
        run(wrong)


def test_what_hangs_is_dropped_before_the_process_is_ended(script: Script) -> None:
    script.hangs = True
    with pytest.raises(EventsFailedError, match="no time"):
        run(event(wav(1)), seconds=3.2)
    answer = run(queued(a=event(wav(1))), seconds=3.2)
    assert answer == {"batchItemFailures": [{"itemIdentifier": "a"}]}


def test_without_a_bucket_it_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "_start_log", lambda _: structlog.get_logger())
    monkeypatch.setenv("ASSEMBLYAI_API_KEY", "hush")
    monkeypatch.delenv("S3_BUCKET", raising=False)
    with pytest.raises(ConfigError, match="S3_BUCKET: is not set"):
        run(TEST)


def test_key_comes_from_the_parameter_store_if_it_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ASSEMBLYAI_API_KEY", raising=False)
    monkeypatch.setenv("S3_BUCKET", BUCKET)
    missing = tmp_path / "none"
    with pytest.raises(ConfigError, match="ASSEMBLYAI_API_KEY_PARAMETER"):
        find_key(load(env_file=missing))
    monkeypatch.setenv("ASSEMBLYAI_API_KEY_PARAMETER", "/a/key")
    asked: list[str] = []

    def read(name: str) -> str:
        asked.append(name)
        return "hush"

    assert find_key(load(env_file=missing), read) == "hush"
    assert asked == ["/a/key"]


SERVER_ONLY = ("ingest", "cli", "admin", "simulator", "protocol/session.py")
PROBE = """
import sys
sys.path[:0] = [{tree!r}]
from audiohook.transcription.events import handler
import audiohook
assert audiohook.__file__.startswith({tree!r}), audiohook.__file__
server = {{"trio_websocket", "wsproto", "hypercorn", "starlette", "typer"}}
print(sorted(server & set(sys.modules)))
"""


def test_function_needs_nothing_of_the_server(tmp_path: Path) -> None:
    """Imports the handler from a tree as the zip has it, without the server in it."""
    tree = tmp_path / "tree"
    shutil.copytree(
        PACKAGE, tree / "audiohook", ignore=shutil.ignore_patterns("__pycache__", "*.c")
    )
    for name in SERVER_ONLY:
        path = tree / "audiohook" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(tree=str(tree))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
