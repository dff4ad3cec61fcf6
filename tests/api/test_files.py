"""Files of recordings over HTTP: whole, in part, and not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from audiohook.storage.layout import file_key
from tests.api.served import Api, api_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NAME = "2026-01-01T00-00-00.000Z_x_y"
DATA = bytes(range(256)) * 3000
SIZE = len(DATA)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    folder = tmp_path / "recordings" / "calls" / NAME
    (folder / "audio").mkdir(parents=True)
    (folder / "transcripts").mkdir()
    (folder / "audio" / f"{NAME}.wav").write_bytes(DATA)
    (folder / "audio" / f"{NAME}.raw").write_bytes(b"")
    (folder / "transcripts" / f"{NAME}.vtt").write_text("WEBVTT\n")
    (folder / "audio" / f"{NAME}-x.wav").symlink_to("/etc/passwd")
    (folder / "audio" / f"{NAME}-y.wav").mkdir()
    (folder / "secret.txt").write_text("secret")
    async with api_of(tmp_path) as it:
        yield it


WAV = f"/recordings/{NAME}/{NAME}.wav"


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=5-9", 5, 9),
        (f"bytes=5-{SIZE + 999}", 5, SIZE - 1),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE - 1),
        ("bytes=-3", SIZE - 3, SIZE - 1),
        (f"bytes=-{SIZE * 2}", 0, SIZE - 1),
        ("bytes=300000-700000", 300_000, 700_000),
    ],
)
async def test_part_of_a_file(api: Api, wanted: str, first: int, last: int) -> None:
    answer = await api.get(WAV, headers={"range": wanted})
    assert answer.status_code == 206
    assert answer.content == DATA[first : last + 1]
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{SIZE}"
    assert answer.headers["content-type"] == "audio/wav"
    head = await api.ask("HEAD", WAV, headers={"range": wanted})
    assert head.status_code == 206
    assert head.headers["content-length"] == str(last + 1 - first)
    assert head.content == b""


@pytest.mark.parametrize(
    "wanted",
    [
        "",
        "bytes=",
        "bytes=-",
        "bytes=x-",
        "items=0-1",
        "bytes=9-5",
        "bytes=0-1,3-4",
        "bytes=0-0;x",
        "bytes=" + "9" * 30 + "-",
    ],
)
async def test_range_that_makes_no_sense_is_passed_over(api: Api, wanted: str) -> None:
    answer = await api.get(WAV, headers={"range": wanted})
    assert (answer.status_code, answer.content) == (200, DATA)
    assert answer.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize("wanted", [f"bytes={SIZE}-", "bytes=-0", "bytes=9999999999-"])
async def test_range_beyond_the_file(api: Api, wanted: str) -> None:
    answer = await api.get(WAV, headers={"range": wanted})
    assert (answer.status_code, answer.json()["code"]) == (416, "range")
    assert answer.headers["content-range"] == f"bytes */{SIZE}"


async def test_empty_file(api: Api) -> None:
    raw = f"/recordings/{NAME}/{NAME}.raw"
    answer = await api.get(raw)
    assert (answer.status_code, answer.content) == (200, b"")
    assert (await api.get(raw, headers={"range": "bytes=0-"})).status_code == 416


async def test_who_has_the_file_is_told_so(api: Api, tmp_path: Path) -> None:
    tag = (await api.ask("HEAD", WAV)).headers["etag"]
    for known in (tag, f'"x", W/{tag}', "*"):
        answer = await api.get(WAV, headers={"if-none-match": known})
        assert (answer.status_code, answer.content) == (304, b"")
    assert (await api.get(WAV, headers={"if-none-match": '"x"'})).status_code == 200
    part = {"range": "bytes=0-1", "if-range": tag}
    assert (await api.get(WAV, headers=part)).status_code == 206
    path = tmp_path / "recordings" / "calls" / NAME / "audio" / f"{NAME}.wav"
    path.rename(path.with_name("old"))
    path.write_bytes(DATA)
    assert (await api.ask("HEAD", WAV)).headers["etag"] != tag
    answer = await api.get(WAV, headers=part)
    assert (answer.status_code, len(answer.content)) == (200, SIZE)


async def test_transcript_is_text(api: Api) -> None:
    answer = await api.get(f"/recordings/{NAME}/{NAME}.vtt")
    assert answer.text == "WEBVTT\n"
    assert answer.headers["content-type"] == "text/vtt; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        f"/recordings/{NAME}/secret.txt",
        f"/recordings/{NAME}/{NAME}.txt",
        f"/recordings/{NAME}/call.json",
        f"/recordings/{NAME}/{NAME}.exe",
        f"/recordings/{NAME}/{NAME}",
        "/recordings/2026-x/call.json",
    ],
)
async def test_file_that_is_not_there(api: Api, path: str) -> None:
    answer = await api.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("ending", ["x", "y"])
async def test_what_is_no_plain_file_is_not_served(api: Api, ending: str) -> None:
    answer = await api.get(f"/recordings/{NAME}/{NAME}-{ending}.wav")
    assert (answer.status_code, answer.json()["code"]) == (503, "store")


@pytest.mark.parametrize(
    "path",
    [
        "/recordings/../call.json",
        "/recordings/%2e%2e/call.json",
        "/recordings/..%2f..%2fetc/call.json",
        f"/recordings/{NAME}/..%2f..%2f..%2fetc%2fpasswd",
        f"/recordings/{NAME}%2f../call.json",
        f"/recordings/{NAME}/.hidden",
        f"/recordings/{NAME}/%00.wav",
        f"/recordings/{NAME}/{NAME}.wav%0A",
        "/recordings/.spool/call.json",
        "/recordings/a%0Ab/call%0A.json",
        "/calls/%0A/pause",
        "/%0A",
        f"/recordings/{NAME}%5c..%5cx/call.json",
    ],
)
async def test_no_way_out_of_the_store(api: Api, path: str) -> None:
    request = api.client.build_request("GET", "/api/v1/live")
    # As it stands, which a tidy client would not send.
    request.url = request.url.copy_with(raw_path=f"/api/v1{path}".encode())
    request.headers["authorization"] = "Bearer ah_reader"
    answer = await api.client.send(request)
    assert answer.status_code in (400, 404, 405), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_key_of_a_file_is_always_of_its_recording() -> None:
    assert file_key("p/", "n", "call.json") == "p/n/call.json"
    assert file_key("p/", "n", "n-external.wav") == "p/n/audio/n-external.wav"
    assert file_key("p/", "n", "n.txt") == "p/n/transcripts/n.txt"
    for other in ("m.wav", "n.exe", "n", ".wav", "wav", "x.json"):
        assert file_key("p/", "n", other) is None


async def test_files_of_a_call_with_a_prefix_of_its_own_are_found(
    tmp_path: Path,
) -> None:
    async with api_of(tmp_path, custom_config_allow="prefix") as api:
        report = await api.house.call(
            duration=1.0, custom_config={"prefix": "sales/north"}
        )
        assert report.ok
        await api.house.settle()
        index = api.house.service.index
        await index.build()
        answer = await api.get(f"/calls/{report.conversation_id}")
        (session,) = answer.json()["sessions"]
        links = {each["file"]: each["href"] for each in session["links"]}
        (wav,) = (href for file, href in links.items() if file.endswith(".wav"))
        stored = list((api.house.folder / "calls/sales/north").glob("*/audio/*.wav"))
        audio = await api.get(wav.removeprefix("/api/v1"))
        assert audio.content == stored[0].read_bytes()
        summary = await api.get(links["call.json"].removeprefix("/api/v1"))
        assert summary.json()["settings"]["prefix"]["value"] == "calls/sales/north/"
