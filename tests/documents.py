"""The code blocks of the pages, and the commands in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    ROOT / "README.md",
    ROOT / "bench" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
)

# What a command of ours may be called by.
OURS = re.compile(r"(\S*/)?audiohook$")
_ASSIGNMENT = re.compile(r"[A-Z_][A-Z0-9_]*=")


@dataclass(frozen=True, slots=True)
class Block:
    """A code block.

    Attributes:
        page: Where it is.
        line: Its first line there, counted from 1.
        lines: The block, without what indents it.
    """

    page: Path
    line: int
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def commands(self) -> list[str]:
        """Returns its shell commands, each on one line, without prompt and comment."""
        joined = re.sub(r"\s*\\\n\s*", " ", self.text)
        return [
            found
            for line in joined.splitlines()
            if (found := _command(line)) is not None
        ]


def _command(line: str) -> str | None:
    has_prompt = line.startswith("$ ")
    # What comes after a wide space says something to the reader.
    line = re.sub(r"\s{2,}.*$", "", line.removeprefix("$ "))
    words = line.split()
    while words and (_ASSIGNMENT.match(words[0]) or words[0] == "sudo"):
        words.pop(0)
    if not words:
        return None
    # A figure of the log's form begins with our name, too.
    if words[1:2] == ["|"]:
        return None
    return line if has_prompt or is_program(words[0]) else None


def is_program(word: str) -> bool:
    """Tells whether a line that begins with this word is a command."""
    return word in PROGRAMS or OURS.match(word) is not None


# All programs that the pages name. Those of the first group are tried by tests, or
# their words held against what they know; of the others only the shell's grammar is,
# for the reason given.
TRIED = ("audiohook", "aws", "cd", "curl", "grep", "make", "openssl", "docker")
NOT_TRIED = {
    ".venv/bin/python": "benchmarks take minutes; CI runs the short form",
    "for": "a loop of systemctl",
    "install": "writes into /etc",
    "journalctl": "wants a journal of the machine",
    "ngrok": "wants an account",
    "/opt/audiohook/bin/pip": "installs from elsewhere; a test installs the wheel",
    "python3": "makes an environment in /opt",
    "systemctl": "wants a service manager; units have tests of their own",
    "echo": "of the shell",
}
PROGRAMS = frozenset({*TRIED, *NOT_TRIED})


def blocks(page: Path) -> Iterator[Block]:
    """Yields the code blocks of a page, indented and fenced."""
    lines = page.read_text().splitlines()
    at = 0
    while at < len(lines):
        line = lines[at]
        if line.lstrip().startswith("```"):
            end = next(
                each
                for each in range(at + 1, len(lines))
                if lines[each].lstrip().startswith("```")
            )
            indent = len(line) - len(line.lstrip())
            yield Block(
                page, at + 2, tuple(each[indent:] for each in lines[at + 1 : end])
            )
            at = end + 1
        elif line.startswith("    ") and not (at and lines[at - 1].strip()):
            end = at
            while end < len(lines) and (
                lines[end].startswith("    ") or not lines[end].strip()
            ):
                end += 1
            while not lines[end - 1].strip():
                end -= 1
            yield Block(page, at + 1, tuple(each[4:] for each in lines[at:end]))
            at = end
        else:
            at += 1


def all_blocks() -> list[Block]:
    """Returns the code blocks of all pages."""
    return [block for page in PAGES for block in blocks(page)]
