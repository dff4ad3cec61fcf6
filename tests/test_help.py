"""What the command line tells of itself."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from audiohook.cli import app
from tests.test_cli import clean_environment

GROUP = typer.main.get_command(app)
assert isinstance(GROUP, TyperGroup)
COMMANDS = sorted(GROUP.commands)


def example_lines(name: str) -> list[str]:
    assert isinstance(GROUP, TyperGroup)
    head, *lines = (GROUP.commands[name].epilog or "").split("\n\n")
    assert head == "Examples:", name
    return lines


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_of_a_command_are_accepted(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("API_KEY", raising=False)
    lines = example_lines(name)
    assert lines
    for line in lines:
        program, command, *arguments = shlex.split(line)
        assert (program, command) == ("audiohook", name)
        assert isinstance(GROUP, TyperGroup)
        # It raises if an option is unknown, or a value is not of its kind.
        GROUP.commands[name].make_context(name, arguments)


@pytest.mark.parametrize(
    ("words", "completed"),
    [("audiohook se", "serve"), ("audiohook check --from", "--from-outside")],
)
def test_shell_completes_commands_and_options(words: str, completed: str) -> None:
    asked = {
        "_AUDIOHOOK_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done = subprocess.run(
        [Path(sys.executable).with_name("audiohook")],
        env={**clean_environment(), **asked},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == [completed]
