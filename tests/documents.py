"""The code blocks of the pages, the commands in them, and which cannot be run here.

A test that runs a block asks for it with `typed`, one that compares what a block says
is printed with what is printed, with `shown`. tests/account.py finds these requests,
so that every block has a test, or a reason below.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    ROOT / "README.md",
    ROOT / "bench" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
)

# All programs that the pages have people type, but for ours.
PROGRAMS = frozenset(
    {
        ".",
        ".venv/bin/pip",
        ".venv/bin/python",
        "/opt/audiohook/bin/pip",
        "apt-get",
        "aws",
        "cd",
        "curl",
        "docker",
        "echo",
        "for",
        "git",
        "grep",
        "install",
        "journalctl",
        "jq",
        "make",
        "ngrok",
        "openssl",
        "python3",
        "rm",
        "ssh",
        "systemctl",
        "umask",
    }
)
# What a command of ours may be called by.
OURS = re.compile(r"(\S*/)?audiohook$")
_ASSIGNMENT = re.compile(r"[A-Z_][A-Z0-9_]*=")

_DOCKER = "needs a running Docker, and a registry to fetch images from"
# A page, the first words of a block or a command on it, and why nobody runs it here.
NOT_RUN = {
    ("docs/architecture.md", "Genesys ─wss─▶"): "a drawing",
    ("docs/architecture.md", "foundation"): "a drawing",
    ("docs/load-balancer.md", "ngrok http"): "needs an account at ngrok",
    ("docs/container.md", "docker build"): _DOCKER,
    ("docs/container.md", "docker run"): _DOCKER,
    ("docs/container.md", "docker compose up"): _DOCKER,
    ("docs/container.md", "docker compose run"): _DOCKER,
    (
        "docs/elsewhere.md",
        "aws sqs start-message-move-task",
    ): "moto does not know it, and there is no account at Amazon",
    (
        "docs/first-hour.md",
        "sudo apt-get install git",
    ): "whoever runs tests has installed these",
    ("bench/README.md", "make bench"): "takes half an hour",
    ("bench/README.md", "make bench-quick"): "takes minutes; .ci/run ends with it",
}


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
        return f"{self.place}:{self.line}"

    @property
    def place(self) -> str:
        return str(self.page.relative_to(ROOT))

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def all_commands(self) -> list[str]:
        """Returns its shell commands, each on one line, without prompt and comment."""
        joined = re.sub(r"\s*\\\n\s*", " ", self.text)
        return [
            found
            for line in joined.splitlines()
            if (found := _command(line)) is not None
        ]

    def commands(self) -> list[str]:
        """Returns those of its commands that can be run here."""
        return [each for each in self.all_commands() if not self.reasons(each)]

    @property
    def can_be_run(self) -> bool:
        """Whether there is anything in it that can be, or can be compared."""
        return not self.reasons() if not self.all_commands() else bool(self.commands())

    def reasons(self, command: str | None = None) -> list[str]:
        """Returns why a command of it, or the whole block, is not run."""
        text = self.text if command is None else command
        return [
            reason
            for (page, start), reason in NOT_RUN.items()
            if page == self.place and begins(text, start)
        ]


def begins(text: str, words: str) -> bool:
    """Tells whether a text begins with these words, to the end of the last one."""
    return re.match(rf"{re.escape(words)}(\s|$)", text) is not None


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
    return word.lstrip("(") in PROGRAMS or OURS.match(word) is not None


@cache
def blocks(page: Path) -> tuple[Block, ...]:
    """Returns the code blocks of a page, indented and fenced."""
    found = []
    for token in MarkdownIt().parse(page.read_text()):
        if token.type in ("fence", "code_block"):
            assert token.map is not None
            first = token.map[0] + (2 if token.type == "fence" else 1)
            lines = token.content.rstrip("\n").split("\n")
            found.append(Block(page, first, tuple(lines)))
    return tuple(found)


def all_blocks() -> list[Block]:
    """Returns the code blocks of all pages."""
    return [block for page in PAGES for block in blocks(page)]


def find(page: str, start: str) -> Block:
    """Returns a block of a page.

    Args:
        page: The page, from the root of the source tree.
        start: The whole block, or enough of its beginning to tell it from the others
            on that page.

    Raises:
        LookupError: No block there begins so, or more than one.
    """
    found = [each for each in blocks(ROOT / page) if each.text.startswith(start)]
    found = [each for each in found if each.text == start] or found
    if len(found) != 1:
        raise LookupError(f"{len(found)} blocks of {page} begin with {start!r}")
    return found[0]


def typed(page: str, start: str) -> Block:
    """Finds a block for the test that runs it: commands, settings, or code."""
    return find(page, start)


def shown(page: str, start: str) -> Block:
    """Finds a block for the test that compares it with what is really there."""
    return find(page, start)
