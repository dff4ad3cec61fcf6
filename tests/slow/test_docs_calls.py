"""What becomes of a call, and what is done about it at a shell, as the pages say."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from audiohook.simulator.assemblyai import Pace, StandIn
from tests.api.served import REPORTER, write_tokens
from tests.documents import shown, typed
from tests.house import KEY
from tests.printed import assert_alike, assert_printed, form, read_shown
from tests.slow.desk import ANSWER_SECONDS, Desk, below, report_missed, shell
from tests.slow.processes import Site
from tests.transcription.scripted_server import Answer, Heard, ScriptedServer
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    import trio

    from tests.documents import Block
    from tests.slow.processes import Server

pytestmark = pytest.mark.slow

ASSEMBLYAI_KEY = "k" * 32
# The conversation of docs/operate.md and docs/erase.md.
CONVERSATION = "4d029331-a63c-4ec1-9132-bd3b294f2331"
UNWANTED = "9d3c1b52-7c0a-4f0e-8f0e-2f4a6c1d9b11"
FORMS = [".json", ".srt", ".txt", ".vtt"]


async def call(site: Site, server: Server, *options: str) -> str:
    """Makes a call that goes well; what the simulator prints."""
    uri = f"ws://127.0.0.1:{server.port}/"
    return await shell(
        site, f"audiohook call {uri} --api-key {KEY} {' '.join(options)}"
    )


def listing(folder: Path) -> list[str]:
    """Returns what lies below the folder of a recording, as the pages write it."""
    return sorted(
        form(f"{folder.name}/{path.relative_to(folder)}")
        for path in folder.rglob("*")
        if path.is_file()
    )


def first_words(block: Block) -> list[str]:
    """Returns the paths that a block lists, without what it says of them."""
    return sorted(form(re.split(r"\s{2,}", line)[0]) for line in block.lines)


class Listener:
    """Receives notifications, and says for a while that it wants none."""

    def __init__(self) -> None:
        self.wants = True
        self.server = ScriptedServer(lambda _: Answer(204 if self.wants else 410))

    def of(self, kind: str, conversation: str) -> list[Heard]:
        return [
            heard
            for heard in self.server.heard
            if json.loads(heard.body)["type"].split(".")[-2] == kind
            and conversation.encode() in heard.body
        ]


async def test_call_leaves_what_the_pages_show(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    listener, standin = Listener(), StandIn(keys=(ASSEMBLYAI_KEY,), pace=Pace())
    await nursery.start(listener.server.serve)
    site = Site(
        tmp_path,
        {
            "ASSEMBLYAI_API_KEY": ASSEMBLYAI_KEY,
            "ASSEMBLYAI_BASE_URL": await nursery.start(standin.serve),
            "KEEP_DIALOGUE": "masked",
            "API_TOKENS_FILE": str(write_tokens(tmp_path / "tokens.json")),
        },
    )
    settings = typed("docs/notifications.md", "NOTIFY_URL=")
    told = settings.text.replace("https://example.com", listener.server.url)
    (env := site.work / ".env").write_text(told)
    env.chmod(0o600)
    leave_nonsense(site)
    async with site.serve() as server:
        names = {"T": REPORTER, "B": f"{server.admin_uri}/api/v1"}
        at = Desk(site, server, names)
        await report_missed(at, UNWANTED)
        await call(site, server, "--conversation", CONVERSATION, "--fast")
        await wait_until(lambda: server.lines("call_transcribed"), ANSWER_SECONDS)
        assert_logged(server, shown("docs/operate.md", '{"session"'))
        lines = shown("docs/first-hour.md", "call_opened …").lines
        events = [line.split()[0] for line in lines]
        assert [len(server.lines(each)) for each in events] == [1] * len(events)

        await wait_until(
            lambda: listener.of("transcribed", CONVERSATION), ANSWER_SECONDS
        )
        (heard,) = listener.of("transcribed", CONVERSATION)
        body = shown("docs/notifications.md", '{"specversion"')
        assert_told(read_shown(body.text), json.loads(heard.body))
        snippet = typed("docs/notifications.md", "from standardwebhooks")
        (secret,) = re.findall("NOTIFY_SECRET=(.*)", settings.text)
        known: dict[str, Any] = {"body": heard.body, "headers": heard.headers}
        exec(snippet.text.replace("whsec_…", secret), known)
        assert known["event"] == json.loads(heard.body)

        (audit,) = typed("docs/operate.md", "audiohook audit").commands()
        today = f"{datetime.now(UTC):%Y-%m-%d}"
        await at.type(audit, instead={"2026-11-24": today})
        (dialogue,) = typed("docs/operate.md", "audiohook dialogue").commands()
        assert "opened" in await at.type(dialogue)
        (index,) = (block := typed("docs/api.md", "audiohook index")).commands()
        assert_printed(below(block)[0], await at.type(index))

        await tell_again(
            at, listener, typed("docs/notifications.md", "audiohook notify")
        )
        await erase(at, typed("docs/erase.md", "audiohook erase"))

        live = ("--conversation", CONVERSATION, "--duration", "60")
        uri = f"ws://127.0.0.1:{server.port}/"
        async with site.run(
            "call", "-m", "audiohook", "call", uri, "--api-key", KEY, *live
        ):
            await wait_until(
                lambda: any(
                    path.stat().st_size
                    for path in site.recordings.glob(".spool/*/audio.ulaw")
                ),
                ANSWER_SECONDS,
            )
            assert_spool(site, shown("docs/architecture.md", "RECORDINGS_DIR/.spool"))
            server.kill()
            await server.wait()
    (recover,) = typed("docs/scale-out.md", "RECORDINGS_DIR=").commands()
    await shell(site, recover.replace("/mnt/rescued", str(site.recordings)))
    assert site.spooled() == [site.recordings / ".spool" / "aside"]
    ended = [each.facts["ended"] for (each,) in site.stored().values()]
    assert {each["complete"] for each in ended} == {False, True}


def leave_nonsense(site: Site) -> None:
    """Leaves a call in the spool that nobody can make sense of."""
    folder = site.recordings / ".spool" / "22222222-2222-4222-8222-222222222222"
    folder.mkdir(parents=True)
    (folder / "journal.jsonl").write_text("nonsense\n")


def assert_logged(server: Server, block: Block) -> None:
    """Checks that lines of the log have the fields of those on a page."""
    for line in map(read_shown, block.lines):
        (real,) = server.lines(line["event"])
        # In the order of the page, too.
        names = [name for name in real if name in line]
        assert names == [name for name in line if name != "…"]
        assert_alike(line, real)


def assert_told(page: dict[str, Any], real: dict[str, Any]) -> None:
    """Checks a notification; its first file stands for all four."""
    (page_file,) = page["data"].pop("files")
    files = real["data"].pop("files")
    assert_alike(page, real)
    assert page["type"] == real["type"]
    for file in files:
        assert_alike(page_file, file)
    assert sorted(file["key"][file["key"].rindex(".") :] for file in files) == FORMS


def assert_spool(site: Site, block: Block) -> None:
    """Checks that what the page lists of a spool is there while a call is live."""
    for line in block.lines:
        path = re.split(r"\s{2,}", line)[0].replace("<session>", "*-*-*-*-*")
        base, _, path = path.partition("/")
        assert base == "RECORDINGS_DIR"
        assert list(site.recordings.glob(path.rstrip("/"))), line
    assert list(site.recordings.glob(".spool/aside/*/reason.txt"))


async def tell_again(at: Desk, listener: Listener, block: Block) -> None:
    """Looks at what the receiver did not want, and has it sent after all."""
    listener.wants = False
    await call(at.site, at.server, "--conversation", UNWANTED, "--fast")
    await wait_until(lambda: at.server.lines("notification_dead"), ANSWER_SECONDS)
    show, resend = block.commands()
    assert "1 were given up" in await at.type(show)
    listener.wants = True
    before = len(listener.of("opened", UNWANTED))
    await at.type(resend)
    await wait_until(
        lambda: len(listener.of("opened", UNWANTED)) > before, ANSWER_SECONDS
    )


async def erase(at: Desk, block: Block) -> None:
    """Has a conversation erased by the command, which asks before it does."""
    (folder,) = (at.site.recordings / "calls").glob(f"*_{CONVERSATION}_*")
    look, do = block.commands()
    await at.type(look)
    assert folder.exists()
    await at.type(do, answers="n\n", code=1)
    assert folder.exists()
    await at.type(do, answers="y\n")
    assert not folder.exists()


async def test_transcripts_come_late_as_the_page_says(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    again = typed("docs/assemblyai.md", "$ audiohook transcribe")
    (missed,) = typed("docs/assemblyai.md", "grep ").commands()
    site = Site(tmp_path)
    async with site.serve() as server:
        for _ in range(2):
            await call(site, server, "--fast")
        await site.wait_stored()
    first, second = sorted((site.recordings / "calls").iterdir())
    assert listing(first) == first_words(shown("README.md", "<start>"))
    standin = StandIn(keys=(ASSEMBLYAI_KEY,), pace=Pace())
    site.settings |= {
        "ASSEMBLYAI_API_KEY": ASSEMBLYAI_KEY,
        "ASSEMBLYAI_BASE_URL": await nursery.start(standin.serve),
    }
    # Where the pages have `recordings`, and not on the day of the example.
    (command,) = again.commands()
    command = re.sub(r"recordings/calls/\S+", f"{first}/", command)
    assert_printed(below(again)[0], await shell(site, command))
    assert [p.suffix for p in sorted(first.glob("transcripts/*"))] == FORMS
    assert list(second.glob("transcripts/*")) == []
    command = re.sub(r"recordings/calls/[\d-]+T\*", f"{second.parent}/*", missed)
    await shell(site, command)
    assert [p.suffix for p in sorted(second.glob("transcripts/*"))] == FORMS
    assert standin.statistics().billed == 2


async def test_key_of_assemblyai_is_tried_as_the_page_shows(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    page = typed("docs/assemblyai.md", "ASSEMBLYAI_API_KEY=")
    standin = StandIn(keys=(ASSEMBLYAI_KEY,))
    url = await nursery.start(standin.serve)
    place = url.partition("://")[2]
    site = Site(tmp_path, {"RECORDINGS_DIR": "recordings"})
    (check,) = page.commands()
    settings = page.text.partition(f"$ {check}")[0]
    for old, new in {"…": ASSEMBLYAI_KEY, "https://api.eu.assemblyai.com": url}.items():
        assert old in settings
        settings = settings.replace(old, new)
    (site.work / ".env").write_text(settings)
    # What it says of where data stay is for AssemblyAI alone.
    sample = below(page)[0].replace(
        "api.eu.assemblyai.com, whose data stay in the EU", place
    )
    assert_printed(sample, await shell(site, check))
