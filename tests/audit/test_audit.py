"""A gap of each kind is planted, and has to be found."""

from __future__ import annotations

import json
import math
import re
import shutil
import uuid
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio

from audiohook.audit.day import Audit, Report
from audiohook.audit.findings import Kind
from audiohook.erasure.places import Place
from audiohook.index.database import Database
from audiohook.recording.spool import Spool
from audiohook.retention.terms import Keep
from audiohook.storage.folder import FolderStore
from audiohook.storage.s3_traces import S3Traces
from tests import aws
from tests.api.served import api_of
from tests.recording.factory import make_opened
from tests.test_cli import run
from tests.waiting import wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from audiohook.storage.base import ReadableStore
    from audiohook.storage.s3_requests import Requests


def now() -> float:
    return datetime.now(UTC).timestamp()


def today() -> date:
    return datetime.now(UTC).date()


class Planted:
    """A store with three sound calls, in which something is made to be missing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spool = root / ".spool"
        self.database = Database(self.spool / ".index")

    @property
    def folders(self) -> list[Path]:
        return sorted((self.root / "calls").iterdir())

    @property
    def name(self) -> str:
        """The call that something is done to."""
        return self.folders[1].name

    def change(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Changes what the call's JSON says."""
        path = self.folders[1] / "call.json"
        value = json.loads(path.read_bytes())
        change(value)
        path.write_text(json.dumps(value))

    def file(self, ending: str) -> Path:
        (path,) = self.folders[1].rglob(f"*{ending}")
        return path

    async def audit(
        self, day: date | None = None, *, deep: bool = False, keep: Keep | None = None
    ) -> Report:
        store = FolderStore(self.root)
        place = Place("folder", store.traces, "calls/")
        return await Audit(
            [place],
            at=lambda start: Place("folder", store.traces, start),
            store=store,
            spool=self.spool,
            search=self.database.search,
            keeps={"calls/": keep or Keep()},
            now=now(),
            deep=deep,
        ).of(day or today())


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three calls of today, as a service leaves it; not to be changed."""
    base = tmp_path_factory.mktemp("audited")

    async def record() -> None:
        async with api_of(base) as api:
            for _ in range(3):
                report = await api.house.call(
                    duration=0.5, session_id=str(uuid.uuid4())
                )
                assert report.ok
            await api.house.settle()
            await api.wait_indexed(3)
            await wait_until(lambda: not api.house.spooled())

    trio.run(record)
    return base / "recordings"


@pytest.fixture
def planted(sound: Path, tmp_path: Path) -> Iterator[Planted]:
    it = Planted(Path(shutil.copytree(sound, tmp_path / "recordings")))
    yield it
    it.database.close()


def kinds(report: Report) -> list[tuple[Kind, str]]:
    return [(each.kind, each.name) for each in report.findings]


async def test_a_day_without_gaps_has_none(planted: Planted) -> None:
    report = await planted.audit(deep=True)
    assert report.findings == []
    assert (report.calls, report.live, report.has_index) == (3, 0, True)
    other = await planted.audit(today() - timedelta(days=1))
    assert (other.calls, other.findings) == (0, [])


def lose_wav(it: Planted) -> None:
    it.file(".wav").unlink()


def lose_raw(it: Planted) -> None:
    it.file(".raw").unlink()


def lose_summary(it: Planted) -> None:
    it.file("call.json").unlink()


def spoil_summary(it: Planted) -> None:
    it.file("call.json").write_bytes(b"{")


def swap_summary(it: Planted) -> None:
    it.change(lambda call: call.update(start="2026-01-01T00:00:00.000Z"))


def never_store_wav(it: Planted) -> None:
    def change(call: dict[str, Any]) -> None:
        call["objects"] = [
            each for each in call["objects"] if not each["key"].endswith(".wav")
        ]

    it.change(change)


def cut_wav(it: Planted) -> None:
    path = it.file(".wav")
    path.write_bytes(path.read_bytes()[:-2])


def status(word: str, reason: str | None = None) -> Callable[[Planted], None]:
    def plant(it: Planted) -> None:
        entry: dict[str, Any] = {
            "audio": "x",
            "status": word,
            "reason": reason,
            "objects": [],
        }
        it.change(lambda call: call.update(transcripts=[entry]))

    return plant


def lose_transcript(it: Planted) -> None:
    key = f"calls/{it.name}/transcripts/{it.name}.json"
    listed = [{"key": key, "bytes": 1, "sha256": "0" * 64}]
    entry = {"audio": "x", "status": "completed", "objects": listed}
    it.change(lambda call: call.update(transcripts=[entry]))


def forget(it: Planted) -> None:
    call = json.loads(it.file("call.json").read_bytes())
    it.database.erase(call["conversationId"], call["sessionId"])


@pytest.mark.parametrize(
    ("plant", "kind"),
    [
        (lose_wav, Kind.MISSING),
        (lose_raw, Kind.MISSING),
        (spoil_summary, Kind.BAD_SUMMARY),
        (swap_summary, Kind.BAD_SUMMARY),
        (never_store_wav, Kind.NO_WAV),
        (cut_wav, Kind.SIZE),
        (status("pending"), Kind.TRANSCRIPT_WAITS),
        (status("submitted"), Kind.TRANSCRIPT_WAITS),
        (status("elsewhere"), Kind.TRANSCRIPT_WAITS),
        (status("parked", "no money"), Kind.TRANSCRIPT_PARKED),
        (status("failed", "no voice"), Kind.TRANSCRIPT_FAILED),
        (lose_transcript, Kind.MISSING),
        (forget, Kind.NOT_IN_INDEX),
    ],
)
async def test_a_planted_gap_is_found(
    planted: Planted, plant: Callable[[Planted], None], kind: Kind
) -> None:
    plant(planted)
    assert kinds(await planted.audit()) == [(kind, planted.name)]


@pytest.mark.parametrize("word", ["completed", "skipped", "off"])
async def test_what_is_no_gap_is_none(planted: Planted, word: str) -> None:
    status(word)(planted)
    assert (await planted.audit()).findings == []


async def test_a_call_without_its_json_is_an_orphan(planted: Planted) -> None:
    lose_summary(planted)
    assert kinds(await planted.audit()) == [
        (Kind.NO_SUMMARY, planted.name),
        (Kind.ONLY_IN_INDEX, planted.name),
    ]


async def test_a_call_that_is_gone_is_missed_by_the_index(planted: Planted) -> None:
    name = planted.name
    shutil.rmtree(planted.folders[1])
    assert kinds(await planted.audit()) == [(Kind.ONLY_IN_INDEX, name)]


async def test_other_content_is_found_if_it_is_read(planted: Planted) -> None:
    path = planted.file(".raw")
    path.write_bytes(bytes(len(path.read_bytes())))
    assert (await planted.audit()).findings == []
    report = await planted.audit(deep=True)
    assert kinds(report) == [(Kind.CHECKSUM, planted.name)]


async def test_a_call_that_is_not_stored_is_found_in_the_spool(
    planted: Planted,
    nursery: Any,  # noqa: ANN401
) -> None:
    spool = Spool(planted.spool, low_water_bytes=0)
    await nursery.start(spool.run)
    started = f"{today()}T00:00:00.001Z"
    call = await spool.create(make_opened(started_at=started))
    other = make_opened(started_at="2026-01-01T00:00:00.000Z")
    (await spool.create(other)).release()
    report = await planted.audit()
    assert (report.live, report.findings) == (1, [])
    call.release()
    report = await planted.audit()
    assert kinds(report) == [(Kind.NOT_STORED, call.record.opened.session_id)]
    nursery.cancel_scope.cancel()


async def test_what_was_put_aside_is_found(planted: Planted) -> None:
    for name, day in (("mine", today()), ("another", date(2026, 1, 1))):
        folder = planted.spool / "aside" / name
        folder.mkdir(parents=True)
        line = json.dumps({"fact": "opened", "started_at": f"{day}T10:00:00.000Z"})
        (folder / "journal.jsonl").write_text(line)
    assert kinds(await planted.audit()) == [(Kind.ASIDE, "mine")]


async def test_what_was_kept_for_its_time_is_not_missed(planted: Planted) -> None:
    lose_wav(planted)
    lose_raw(planted)
    lose_transcript(planted)
    planted.change(
        lambda call: call.update(
            removed={"audio": "2026-01-01T00:00:00.000Z", "transcripts": None}
        )
    )
    assert kinds(await planted.audit()) == [(Kind.MISSING, planted.name)]
    day = datetime(2026, 1, 1, tzinfo=UTC)
    keep = Keep(audio_days=30, transcripts_days=60)
    for days, audio, transcripts in (
        (29, False, False),
        (30, True, False),
        (60, True, True),
    ):
        at = (day + timedelta(days=days)).timestamp()
        expired = keep.over_on(day.date(), at)
        assert (expired.audio, expired.transcripts) == (audio, transcripts)


class Million:
    """A bucket of a million calls with five files each, a list of which is counted."""

    def __init__(self, calls_a_day: int) -> None:
        self.calls_a_day = calls_a_day
        self.listed = 0

    def list_objects_v2(
        self,
        *,
        Bucket: str,
        Prefix: str,
        ContinuationToken: str = "0",
    ) -> dict[str, Any]:
        # Whoever asks for more than a day would be at it for 5,000 pages.
        assert re.fullmatch("calls/[0-9]{4}-[0-9]{2}-[0-9]{2}T", Prefix)
        self.listed += 1
        first = int(ContinuationToken)
        keys = self._keys(Prefix)[first : first + 1000]
        more = first + 1000 < 5 * self.calls_a_day
        return {
            "Contents": [{"Key": key, "Size": 1} for key in keys],
            "IsTruncated": more,
            "NextContinuationToken": str(first + 1000),
        }

    def list_multipart_uploads(self, **_: str) -> dict[str, Any]:
        self.listed += 1
        return {}

    def _keys(self, prefix: str) -> list[str]:
        names = [
            f"{prefix}00-00-00.{number:03}Z_{number:08}"
            for number in range(self.calls_a_day)
        ]
        files = ("audio/x.raw", "audio/x.wav", "call.json", "transcripts/x.json")
        return [f"{name}/{file}" for name in names for file in (*files, "x")]


class Counted:
    """Reads one call's JSON after the other, each sound."""

    def __init__(self) -> None:
        self.read_count = 0

    async def read(self, key: str) -> bytes | None:
        self.read_count += 1
        folder = key.removesuffix("/call.json")
        start = folder.split("/")[1].split("_")[0]
        day, time = start.split("T")
        listed = [
            {"key": f"{folder}/audio/x.{ending}", "bytes": 1, "sha256": ""}
            for ending in ("wav", "raw")
        ]
        call = {
            "start": f"{day}T{time.replace('-', ':')}",
            "sessionId": "s",
            "ended": {"complete": True},
            "objects": listed,
            "transcripts": [],
        }
        return json.dumps(call).encode()


class Direct:
    """Makes requests at once."""

    def __init__(self, client: Million) -> None:
        self.client = client

    async def make(self, _operation: str, _key: str, work: Any) -> Any:  # noqa: ANN401
        return work(self.client)


async def test_the_size_of_the_bucket_costs_nothing(tmp_path: Path) -> None:
    million = Million(calls_a_day=1_000_000 // 365)
    store = Counted()
    traces = S3Traces("bucket", cast("Requests", Direct(million)), {})
    report = await Audit(
        [Place("bucket", traces, "calls/")],
        at=lambda start: Place("bucket", traces, start),
        store=cast("ReadableStore", store),
        spool=tmp_path,
        search=None,
        keeps={},
        now=now(),
    ).of(date(2026, 11, 22))
    assert report.findings == []
    assert report.calls == store.read_count == 2739
    assert million.listed == math.ceil(5 * 2739 / 1000) + 1 == 15
    assert report.requests == 2739 + 15


# The command


@pytest.mark.parametrize(
    ("arguments", "settings", "code", "told"),
    [
        ([], {}, 0, "3 calls stored (0 cut off), 0 live, 0 things missing or wrong;"),
        (["--json"], {}, 0, '"findings": []'),
        (["--day", "yesterday"], {}, 2, "--day: 'yesterday' is no day; for example"),
        ([], {"API_KEYS_FILE": "absent.json"}, 2, "absent.json cannot be read"),
        (
            [],
            {"S3_BUCKET": "bucket", **aws.environment()},
            2,
            "cannot connect to 127.0.0.1:9",
        ),
    ],
)
def test_the_command_tells_by_its_exit_code(
    planted: Planted,
    arguments: list[str],
    settings: dict[str, str],
    code: int,
    told: str,
) -> None:
    done = audited(planted, *arguments, **settings)
    assert done.returncode == code, done.stderr
    assert told in (done.stderr if code == 2 else done.stdout)


def test_the_command_tells_of_what_is_missing_and_changes_nothing(
    planted: Planted,
) -> None:
    lose_wav(planted)
    before = sorted(planted.root.rglob("*"))
    done = audited(planted)
    assert done.returncode == 1, done.stderr
    assert f"missing            {planted.name}  calls/{planted.name}/audio/" in (
        done.stdout
    )
    assert " 1 thing missing or wrong" in done.stdout
    (finding,) = json.loads(audited(planted, "--json").stdout)["findings"]
    assert (finding["kind"], finding["name"]) == ("missing", planted.name)
    assert sorted(planted.root.rglob("*")) == before


def audited(
    planted: Planted, *arguments: str, **settings: str
) -> subprocess.CompletedProcess[str]:
    planted.database.close()
    chosen = {"RECORDINGS_DIR": str(planted.root), **settings}
    day = planted.name[:10]
    return run(planted.root.parent, "audit", "--day", day, *arguments, **chosen)
