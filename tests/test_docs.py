"""What the pages tell people to type and to write is what the code knows.

Every command and every setting in a code block is held against the code here; which
test runs it is told by tests/account.py.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from functools import cache
from typing import TYPE_CHECKING, Any

import botocore.session
import pytest
import typer.main
from botocore import xform_name
from typer.core import TyperGroup

from audiohook.cli import app
from audiohook.errors import ConfigError
from audiohook.settings import describe, load
from tests.documents import OURS, PAGES, PROGRAMS, ROOT, Block, all_blocks

if TYPE_CHECKING:
    from pathlib import Path

BLOCKS = all_blocks()
_SETTING = re.compile(r"([A-Z][A-Z0-9_]+)=(.*)")
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#([^)]*))?\)")
# What the reader fills in.
_HOLES = ("…", "$QUEUE_URL")


def commands(*programs: str) -> list[Any]:
    """Returns the commands of the pages that begin with one of these, as parameters."""
    found = []
    for block in BLOCKS:
        for command in block.all_commands():
            words = _words(command)
            name = "audiohook" if OURS.match(words[0]) else words[0]
            if name in programs:
                found.append(pytest.param(words, id=f"{block}-{' '.join(words)[:40]}"))
    return found


def _words(command: str) -> list[str]:
    """Splits a command; what it is fed from, and what its environment is, is left out."""
    words = shlex.split(command.partition(" | ")[0].partition(" </")[0])
    while re.match(r"[A-Z_][A-Z0-9_]*=|sudo$|-u$|audiohook$", words[0]) and (
        not OURS.match(words[0]) or OURS.match(words[1] if len(words) > 1 else "")
    ):
        words.pop(0)
    return words


@cache
def known() -> frozenset[str]:
    return frozenset(each.name for each in describe())


@pytest.mark.parametrize("words", commands("audiohook"))
def test_commands_of_ours_are_taken_as_they_stand(words: list[str]) -> None:
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    root.commands[words[1]].make_context(words[1], words[2:])


@pytest.mark.parametrize("words", commands("make"))
def test_what_is_made_can_be_made(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in words[1:]:
        assert "=" in target or re.search(rf"^{target}:", makefile, re.MULTILINE), (
            target
        )


@pytest.mark.parametrize("words", commands("aws"))
def test_commands_of_aws_are_of_its_model(words: list[str]) -> None:
    service, operation, *rest = words[1:]
    if service == "s3":
        assert operation in ("cp", "ls", "mb")
        return
    if (service, operation) == ("cloudformation", "deploy"):
        # Of the command line's own making, of these options among others.
        named = {each for each in rest if each.startswith("--")}
        assert named <= {
            "--template-file",
            "--stack-name",
            "--capabilities",
            "--parameter-overrides",
        }
        return
    # The command line calls the plain calls of S3 so; its model does not.
    service = "s3" if service == "s3api" else service
    model = botocore.session.get_session().get_service_model(service)
    (found,) = [
        each for each in model.operation_names if xform_name(each, "-") == operation
    ]
    shape = model.operation_model(found).input_shape
    members = {f"--{xform_name(each, '-')}" for each in shape.members if shape}
    named = {each for each in rest if each.startswith("--")} - {"--query", "--output"}
    assert named <= members
    assert {f"--{xform_name(each, '-')}" for each in shape.required_members} <= named


@pytest.mark.parametrize(
    "block",
    [pytest.param(each, id=str(each)) for each in BLOCKS if each.all_commands()],
)
def test_shell_understands_every_command(block: Block) -> None:
    for command in block.all_commands():
        # Braces of a template are not the shell's.
        subprocess.run(["bash", "-n", "-c", command], check=True)


def settings_of(block: Block) -> dict[str, str]:
    """Returns the settings that a block shows as lines of a file."""
    if block.all_commands() and not block.text.startswith(tuple(known())):
        return {}
    found = {}
    for line in block.lines:
        match = _SETTING.fullmatch(re.sub(r"\s{2,}#.*", "", line))
        if match is not None and "$(" not in line:
            found[match[1]] = match[2]
    return found


SETTINGS = [
    pytest.param(found, id=str(block))
    for block in BLOCKS
    if (found := settings_of(block))
]


@pytest.mark.parametrize("found", SETTINGS)
def test_lines_of_env_files_are_taken(
    found: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in known():
        monkeypatch.delenv(name, raising=False)
    if all(len(name) == 1 for name in found):
        return
    # A key in place of what stands for one; the other half of what goes in pairs.
    lines = [f"{name}={value.replace('…', '0' * 32)}" for name, value in found.items()]
    path = tmp_path / ".env"
    path.write_text("\n".join(lines))
    # The files that are named are the reader's; all else is ours.
    faults: list[str] = []
    try:
        load(env_file=path)
    except ConfigError as error:
        faults = str(error).splitlines()
    assert [line for line in faults if "cannot be read" not in line] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_json_is_json(page: Path) -> None:
    for block in BLOCKS:
        if block.page != page or "…" in block.text:
            continue
        for line in block.lines:
            if line.startswith("{") and line.endswith("}") and '"' in line:
                json.loads(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, _ in _LINK.findall(page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_programs_that_are_known_are_still_named() -> None:
    named = {
        word.lstrip("(")
        for block in BLOCKS
        for command in block.all_commands()
        for word in command.split()
    }
    assert named >= PROGRAMS
