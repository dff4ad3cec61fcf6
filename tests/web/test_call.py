"""The page of a recording, its files and its transcript, over HTTP."""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from audiohook.errors import CallIndexError
from audiohook.web.recording import SHOWN_LIMIT, read_recording, readable
from tests.web.recorded import BIDI, HOSTILE, NAME, Made
from tests.web.visiting import Page, page_of

if TYPE_CHECKING:
    from pathlib import Path

PATH = f"/calls/{NAME}"


def player_of(text: str) -> dict[str, Any]:
    """What the script of the page is given."""
    found = re.search(r"data-player='([^']*)'", text)
    assert found is not None
    return json.loads(html.unescape(found[1]))  # type: ignore[no-any-return]


def summary(made: Made) -> bytes:
    return made.files()[f"calls/{made.name}/call.json"]


# A call that was taken


async def test_call_that_was_taken_is_shown_with_all_its_files(tmp_path: Path) -> None:
    async with page_of(tmp_path, show_numbers=True) as page:
        assert (await page.house.call(duration=1.0)).ok
        await page.house.settle()
        (recording,) = page.house.recordings()
        path = f"/calls/{recording.folder.name}"
        text = await page.text(path)
        player = player_of(text)
        (file,) = player["files"]
        assert file["sides"] == ["external", "internal"]
        assert (await page.get(file["audio"])).content == recording.audio(".wav")
        assert (await page.get(file["peaks"])).content == recording.audio(".dat")
        for each in recording.facts["objects"]:
            name = each["key"].rpartition("/")[2]
            assert f'href="{path}/files/{name}" download' in text
        answer = await page.get(f"{path}/files/call.json")
        assert answer.json() == recording.facts
        assert "There is no transcript: transcription is off." in text


# Its files


@pytest.mark.parametrize(
    ("asked", "status", "first", "last"),
    [
        ("bytes=0-", 206, 0, None),
        ("bytes=44-99", 206, 44, 99),
        ("bytes=-10", 206, -10, None),
        ("bytes=99999999-", 416, 0, None),
        ("bytes=5-4", 200, 0, None),
        ("bytes=0-1,4-5", 200, 0, None),
        ("lines=1-2", 200, 0, None),
    ],
)
async def test_audio_is_sent_in_part(
    tmp_path: Path, asked: str, status: int, first: int, last: int | None
) -> None:
    made = Made()
    wav = made.files()[f"calls/{NAME}/audio/{NAME}.wav"]
    made.write(tmp_path)
    async with page_of(tmp_path) as page:
        answer = await page.get(f"{PATH}/files/{NAME}.wav", range=asked)
        assert answer.status_code == status
        if status == 416:
            assert answer.headers["content-range"] == f"bytes */{len(wav)}"
            return
        assert (
            answer.content == wav[first:][: None if last is None else last - first + 1]
        )
        assert answer.headers["accept-ranges"] == "bytes"
        assert answer.headers["content-type"] == "audio/wav"
        assert "sandbox" in answer.headers["content-security-policy"]
        tag = answer.headers["etag"]
        known = await page.client.get(
            f"{PATH}/files/{NAME}.wav", headers={"range": "bytes=1-2", "if-range": tag}
        )
        assert (known.status_code, known.content) == (206, wav[1:3])
        other = await page.client.get(
            f"{PATH}/files/{NAME}.wav",
            headers={"range": "bytes=1-2", "if-range": '"x"'},
        )
        assert (other.status_code, other.content) == (200, wav)


@pytest.mark.parametrize(
    "path",
    [
        f"{PATH}/files/../../../secret",
        f"{PATH}/files/..%2f..%2f..%2fsecret",
        f"{PATH}/files/%2e%2e%2fcall.json",
        f"{PATH}/files/secret.txt",
        f"{PATH}/files/{NAME}.exe",
        f"{PATH}/files/.hidden.wav",
        f"/calls/..%2f{NAME}/files/{NAME}.wav",
        f"/calls/2026-x%0a/files/{NAME}.wav",
        f"/calls/2026-other/files/{NAME}.wav",
        f"{PATH}/turns/..%2fcall.json",
        f"{PATH}/turns/other.wav",
        "/calls/2026-%00",
        "/calls/nobody",
        f"/calls/{NAME}%0a",
        f"/calls/{'2026-' + 'x' * 400}",
    ],
)
async def test_nothing_else_is_to_be_had(tmp_path: Path, path: str) -> None:
    Made().write(tmp_path)
    (tmp_path / "secret").write_text("secret")
    (tmp_path / f"calls/{NAME}/secret.txt").write_text("secret")
    async with page_of(tmp_path) as page:
        answer = await page.get(path)
        assert answer.status_code == 404
        assert "secret" not in answer.text.replace("/secret", "").replace("fsecret", "")


async def test_files_are_for_those_who_are_let_in(tmp_path: Path) -> None:
    Made().write(tmp_path)
    async with page_of(tmp_path, admin_password="a long enough password") as page:
        for path in (
            PATH,
            f"{PATH}/files/{NAME}.wav",
            f"{PATH}/files/{NAME}.dat",
            f"{PATH}/turns/{NAME}.wav",
        ):
            answer = await page.get(path)
            assert (answer.status_code, answer.content) == (303, b"")


# Numbers


async def test_numbers_are_hidden_unless_asked_for(tmp_path: Path) -> None:
    Made().write(tmp_path)
    async with page_of(tmp_path) as page:
        text = await page.text(PATH)
        assert "123456" not in text
        assert "999888" not in text
        assert "••••56" in text
        (tmp_path / f"calls/{NAME}/audio/{NAME}.jsonl").write_text('{"ani": "+49"}')
        for file in ("call.json", f"{NAME}.jsonl"):
            assert (await page.get(f"{PATH}/files/{file}")).status_code == 404
            assert f"files/{file}" not in text
    async with page_of(tmp_path, show_numbers=True) as page:
        text = await page.text(PATH)
        assert text.count("+4930123456") >= 2
        assert "+49301234567" in text
        for file in ("call.json", f"{NAME}.jsonl"):
            assert (await page.get(f"{PATH}/files/{file}")).status_code == 200


def test_numbers_that_are_numbers_are_hidden_too() -> None:
    call = {
        "customConfig": {"a": 4930123456, "b": [7, 2.5, True, None], "4930123456": 1}
    }
    shown = json.loads(
        readable(call, lambda _: "•", lambda text: "•" if len(text) > 5 else text)
    )
    assert shown == {"customConfig": {"a": "•", "b": [7, 2.5, True, None], "•": 1}}


# Malice


async def test_whatever_came_from_the_network_is_text(tmp_path: Path) -> None:
    made = Made(
        words=[(1, 0, 500, HOSTILE), (2, 600, 900, "<b>bold</b>")],
        changes={
            "participant": {
                "id": HOSTILE,
                "ani": HOSTILE,
                "aniName": HOSTILE,
                "dnis": HOSTILE,
            },
            "conversationId": HOSTILE,
            "language": HOSTILE,
            "customConfig": {HOSTILE: [HOSTILE, {"x": HOSTILE}]},
            "media": {"channels": [HOSTILE, "'\"><script>"]},
            "gaps": [
                {
                    "kind": HOSTILE,
                    "start": 1,
                    "length": 1,
                    "by": HOSTILE,
                    "reason": HOSTILE,
                }
            ],
        },
        script={"status": HOSTILE, "reason": HOSTILE},
    )
    made.write(tmp_path)
    async with page_of(tmp_path, show_numbers=True) as page:
        text = await page.text(PATH)
    assert "<img" not in text
    assert "<script>" not in text
    assert BIDI not in text
    assert "&lt;img src=x" in text
    assert "⟨U+202E⟩" in text
    # An attribute holds what the script reads, and no more.
    assert player_of(text)["files"][0]["sides"][0].startswith("</script><img")


async def test_transcript_that_holds_malice_is_handed_over_as_json(
    tmp_path: Path,
) -> None:
    Made(words=[(1, 0, 500, HOSTILE)]).write(tmp_path)
    async with page_of(tmp_path) as page:
        answer = await page.get(f"{PATH}/turns/{NAME}.wav")
    assert answer.headers["content-type"] == "application/json"
    (turn,) = answer.json()["turns"]
    assert (turn["speaker"], turn["channel"]) == ("customer", 1)
    assert "".join(turn["words"][::3]) == HOSTILE.replace(BIDI, "")


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{]", b'{"utterances": 7, "words": 3}', b"[" * 100_000, b"\xff"],
)
async def test_transcript_that_is_none_is_not_there(
    tmp_path: Path, data: bytes
) -> None:
    Made().write(tmp_path)
    (tmp_path / f"calls/{NAME}/transcripts/{NAME}.json").write_bytes(data)
    async with page_of(tmp_path) as page:
        answer = await page.get(f"{PATH}/turns/{NAME}.wav")
    assert answer.status_code == 404 or answer.json() == {"turns": []}


@pytest.mark.parametrize(
    "changes",
    [
        {"objects": 7, "transcripts": []},
        {"objects": [None, {"key": 5}, {"key": "calls/other/audio/other.wav"}]},
        {"objects": [{"key": f"calls/{NAME}/audio/../../x.wav"}]},
        {"gaps": "none", "media": None, "recording": []},
        {"gaps": [{"start": "x", "length": None}, 5, {"start": 1e999, "length": -1}]},
        {"media": {"channels": "both"}},
        {"gaps": [{"kind": "paused", "start": n, "length": 1} for n in range(3000)]},
        {"customConfig": "x" * (2 * SHOWN_LIMIT)},
        {"customConfig": {"a": {"b": [[[[[[[[{"c": 1}]]]]]]]]}}},
    ],
)
async def test_odd_call_json_still_has_a_page(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    Made(changes=changes).write(tmp_path)
    async with page_of(tmp_path) as page:
        text = await page.text(PATH)
        assert len(text) < 3 * SHOWN_LIMIT
        for each in player_of(text)["files"]:
            assert each["audio"] == f"{PATH}/files/{NAME}.wav"


async def test_deep_call_json_still_has_a_page(tmp_path: Path) -> None:
    made = Made()
    made.write(tmp_path)
    path = tmp_path / f"calls/{NAME}/call.json"
    deep = b"[" * 400 + b"]" * 400
    path.write_bytes(path.read_bytes().replace(b'"+49301234567"', deep))
    async with page_of(tmp_path, show_numbers=True) as page:
        assert "…" in await page.text(PATH)


# States


async def test_nothing_of_that_name_is_said_so(tmp_path: Path) -> None:
    async with page_of(tmp_path) as page:
        answer = await page.get(PATH)
    assert answer.status_code == 404
    assert "or not yet" in answer.text


async def test_audio_that_was_removed_is_said_so(tmp_path: Path) -> None:
    Made().write(tmp_path)
    (tmp_path / f"calls/{NAME}/audio/{NAME}.wav").unlink()
    async with page_of(tmp_path) as page:
        text = await page.text(PATH)
        assert "has been removed" in text
        assert "<audio" not in text
        assert player_of(text)["files"] == []
        # What was said can still be read.
        assert player_of(text)["scripts"][0]["file"] is None
        assert f'{NAME}.wav <span class="soft">(removed)' in text


async def test_what_call_json_says_is_deleted_is_not_offered(tmp_path: Path) -> None:
    made = Made()
    made.write(tmp_path)
    path = tmp_path / f"calls/{NAME}/call.json"
    call = json.loads(path.read_text())
    for each in [*call["objects"], *call["transcripts"][0]["objects"]]:
        each["deleted"] = "2026-11-24T00:00:00.000Z"
        (tmp_path / each["key"]).unlink()
    path.write_text(json.dumps(call))
    async with page_of(tmp_path) as page:
        text = await page.text(PATH)
    assert "audio of this call has been removed" in text
    assert "transcript has been removed" in text
    assert player_of(text)["files"] == player_of(text)["scripts"] == []
    assert text.count('<span class="soft">(removed)') == 4
    assert "/files/" not in text


async def test_recording_with_a_prefix_of_its_own_is_found(tmp_path: Path) -> None:
    async with page_of(tmp_path, custom_config_allow="prefix") as page:
        report = await page.house.call(duration=1.0, custom_config={"prefix": "north"})
        assert report.ok
        await page.house.settle()
        await page.house.service.index.build()
        (folder,) = (tmp_path / "calls/north").iterdir()
        (file,) = player_of(await page.text(f"/calls/{folder.name}"))["files"]
        for each in (file["audio"], file["peaks"]):
            assert (await page.get(each)).status_code == 200


async def test_page_does_without_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise CallIndexError("broken")

    Made().write(tmp_path)
    async with page_of(tmp_path) as page:
        for name in ("by_name", "search"):
            monkeypatch.setattr(page.house.service.index, name, fail)
        (file,) = player_of(await page.text(PATH))["files"]
        assert (await page.get(file["audio"])).status_code == 200


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ({"status": "pending"}, "not made yet"),
        ({"status": "submitted"}, "being made"),
        (
            {"status": "failed", "reason": "no speech &c"},
            "has failed. <bdi>no speech &amp;c",
        ),
        (
            {"status": "parked", "reason": "bad key"},
            "mend something first. <bdi>bad key",
        ),
        ({"status": "off"}, "transcription is off"),
        ({"status": "new"}, "not known how this stands"),
        ({}, "none was asked for"),
    ],
)
async def test_transcript_that_is_not_there_is_said_so(
    tmp_path: Path, script: dict[str, Any], said: str
) -> None:
    Made(script=script).write(tmp_path)
    async with page_of(tmp_path) as page:
        text = await page.text(PATH)
    assert said in text
    assert 'id="turns"' not in text


async def test_gaps_are_listed_with_who_asked(tmp_path: Path) -> None:
    gap = {
        "kind": "paused",
        "start": 61.0,
        "length": 5.0,
        "by": "desk",
        "reason": "card",
    }
    Made(changes={"gaps": [gap]}).write(tmp_path)
    async with page_of(tmp_path) as page:
        text = await page.text(PATH)
    assert re.search(r"1:01</span>, for <span[^>]*>0:05</span>: <bdi>paused", text)
    assert "desk · card" in text
    assert player_of(text)["gaps"] == [{"kind": "paused", "start": 61.0, "length": 5.0}]


def test_gaps_that_are_cut_out_have_a_place_and_no_length() -> None:
    gap = {"kind": "paused", "start": 61.0, "length": 5.0, "storedSamplesBefore": 8000}
    recording = {"encoding": "pcm16", "layout": "stereo", "gaps": "cut"}
    made = Made(changes={"gaps": [gap, gap], "recording": recording})
    found = read_recording("calls/", NAME, summary(made))
    assert [(each.start, each.length, each.in_file) for each in found.stops] == [
        (1.0, 5.0, 0.0)
    ] * 2


async def test_files_of_one_side_each_are_shown_together(tmp_path: Path) -> None:
    async with page_of(tmp_path, channel_layout="split") as page:
        assert (await page.house.call(duration=1.0)).ok
        await page.house.settle()
        (recording,) = page.house.recordings()
        text = await page.text(f"/calls/{recording.folder.name}")
    files = player_of(text)["files"]
    assert [each["sides"] for each in files] == [["external"], ["internal"]]
    assert all(each["peaks"].endswith(f"-{each['sides'][0]}.dat") for each in files)
    assert '<select id="file">' in text


async def test_sessions_of_one_conversation_lead_to_each_other(tmp_path: Path) -> None:
    conversation = "55555555-5555-4555-8555-555555555555"
    async with page_of(tmp_path) as page:
        for _ in range(2):
            assert (
                await page.house.call(duration=0.5, conversation_id=conversation)
            ).ok
            await page.house.settle()
        first, second = (each.folder.name for each in page.house.recordings())
        text = await wait_for(page, f"/calls/{first}", f'href="/calls/{second}"')
    assert "(this one)" in text


async def wait_for(page: Page, path: str, part: str) -> str:
    """Loads a page until the index knows what it is to have."""
    for _ in range(200):
        text = await page.text(path)
        if part in text:
            return text
    raise AssertionError(part)
