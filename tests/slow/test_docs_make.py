"""What the pages have one make, made in a tree of a test's own.

`.ci/run` makes most of it at full size as well, with all tests and all of the code.
"""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import pytest
import trio

from tests.documents import ROOT, shown, typed
from tests.printed import assert_printed, form
from tests.slow.alone import own_network
from tests.slow.desk import ANSWER_SECONDS, going_on, shell
from tests.slow.processes import Site
from tests.slow.sources import link_environment, link_sources, write_small
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

MAKE_SECONDS = 300.0
# All that the tests set, so that nothing is.
SETTINGS = ("HOST", "PORT", "ADMIN_PORT", "API_KEY", "RECORDINGS_DIR", "LOG_FORMAT")


async def test_first_minute_is_as_the_readme_shows_it(tmp_path: Path) -> None:
    site = Site(tmp_path)
    link_sources(site.work)
    run = typed("README.md", "make run").commands()[0]
    assert typed("docs/first-hour.md", "make run").commands() == [run]
    greeting = shown("README.md", "No API_KEY is set").text
    dialogue = shown("README.md", "    0.005 → open").lines
    async with own_network(tmp_path, site.work) as prefix:
        site.prefix = (*prefix, "env", *(f"--unset={name}" for name in SETTINGS))
        async with going_on(site, run) as printed:
            last = greeting.splitlines()[-1].strip().split(" --api-key ")[0]
            await wait_until(lambda: last in printed.read_text(), ANSWER_SECONDS)
            said = printed.read_text()
            # But for the key, and the folder that the reader is in.
            shape = re.sub(r"(?<=\s)[\w-]{32}(?=\s|$)|/\S+(?=/\.env)", "…", greeting)
            assert_printed(shape, said)
            (call,) = re.findall(rf"^\s+({re.escape(last)}.*)$", said, re.MULTILINE)
            told = await shell(site, call)
        made = {plural(form(line)) for line in told.splitlines()}
        assert made == {plural(form(line)) for line in dialogue}

        (demo,) = typed("README.md", "make demo").commands()
        told = await shell(site, demo, seconds=MAKE_SECONDS)
        assert_printed(shown("README.md", "[00:00:00] customer").text, told)
        assert_printed(shown("docs/assemblyai.md", "[00:00:00] customer").text, told)


def plural(line: str) -> str:
    """Has lines that differ by a number alone be the same."""
    return line.replace(" frame,", " frames,")


async def test_clone_is_a_demonstration_away(tmp_path: Path) -> None:
    """With an environment that is built; `make build` in a clone takes its minutes."""
    site = Site(tmp_path)
    bare = tmp_path / "bare"
    git = f"git --git-dir={bare} --work-tree={ROOT} -c user.name=x -c user.email=x"
    await shell(
        site, f"git init -q --bare {bare} && {git} add -A && {git} commit -qm x"
    )
    clone, enter, demo = typed(
        "docs/first-hour.md", "sudo apt-get install git"
    ).commands()
    await shell(site, clone.replace("…", str(bare)))
    link_environment(site.work / "audiohook")
    told = await shell(site, f"{enter}\n{demo}", seconds=MAKE_SECONDS)
    assert "agent: " in told
    activate = typed("docs/first-hour.md", ". .venv/bin/activate")
    found = await shell(site, f"{enter}\n{activate.text}\ntype -p audiohook")
    assert found.endswith("/.venv/bin/audiohook\n")


async def test_what_changes_are_made_with_can_be_typed(tmp_path: Path) -> None:
    site = Site(tmp_path)
    write_small(site.work)
    commands = {
        command: None
        for block in (
            typed("README.md", "make run"),
            typed("docs/contributing.md", "make test"),
            typed("docs/architecture.md", "make test"),
        )
        for command in block.commands()
        if command != "make run"
    }
    said = {
        command: await shell(
            site, command, seconds=MAKE_SECONDS, environment={"WORKERS": "0"}
        )
        for command in commands
    }
    assert said.keys() == {
        *("make test", "make test-slow", "make lint types"),
        *("make coverage", "make fuzz"),
    }
    for command in ("make test", "make test-slow", "make fuzz"):
        assert re.search(r"\b[24] passed", said[command]), said[command]
    assert "already formatted" in said["make lint types"]
    assert "no issues found" in said["make lint types"]
    assert "transcription/job.py" in said["make coverage"]


async def test_benchmarks_run_and_are_reported(tmp_path: Path) -> None:
    """With few calls for a moment: what they show is not looked at."""
    site = Site(tmp_path)
    link_sources(site.work)
    (site.work / "tests").symlink_to(ROOT / "tests")
    bench = site.work / "bench"
    await trio.to_thread.run_sync(shutil.copytree, ROOT / "bench", bench)
    one, report = typed("bench/README.md", "make bench ").commands()
    await shell(site, report)
    # From results that have not changed come a page and plots that have not.
    assert changed(bench) == []
    for old, new in {"1000": "20", "--rounds 3": "--rounds 1 --window 1"}.items():
        assert old in one
        one = one.replace(old, new)
    assert "plain-interval-3" in one
    await shell(site, one, seconds=MAKE_SECONDS)
    assert "results/calls.json" in changed(bench)


def changed(folder: Path) -> list[str]:
    """Returns the files of a copy of ``bench`` that are not as here."""
    return [
        name
        for path in folder.rglob("*")
        if path.is_file()
        and path.suffix != ".pyc"
        and path.read_bytes()
        != (ROOT / "bench" / (name := str(path.relative_to(folder)))).read_bytes()
    ]


def test_all_of_it_is_made_at_full_size_before_a_change_is_taken() -> None:
    script = (ROOT / ".ci" / "run").read_text().splitlines()
    made = {
        target
        for line in script
        if re.match(r"([A-Z_]+=\S+ )*make ", line)
        for target in line.split()[line.split().index("make") + 1 :]
    }
    assert {"test", "test-slow", "lint", "types", "installed", "bench-quick"} <= made
    # With all tests but those that boot a machine where none can be booted.
    assert "PYTEST_ADDOPTS=$without make test-slow" in script
