"""The page knows the service by its figures, the index and the store alone."""

from __future__ import annotations

import ast
from pathlib import Path

import audiohook

PACKAGE = Path(audiohook.__file__).parent
KNOWN = (
    "audiohook.web",
    "audiohook.index",
    "audiohook.storage",
    # The ground floor.
    "audiohook.errors",
    "audiohook.file_ranges",
    "audiohook.logs.Limiter",
    "audiohook.rate",
    "audiohook.__version__",
    # What is in a file of the store, and nothing that does anything.
    "audiohook.transcription.turns.read_turns",
)
# Who puts the service together.
COMPOSERS = {"backlog.py", "facing.py", "glance.py", "service.py"}


def imports_of(path: Path) -> set[str]:
    """Returns all that a module imports of the package, with what is taken of it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, path
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {each for each in found if each.split(".")[0] == "audiohook"}


def test_web_knows_nothing_else_of_the_service() -> None:
    sources = list((PACKAGE / "web").rglob("*.py"))
    assert len(sources) > 5
    for path in sources:
        for each in imports_of(path):
            assert each.startswith(KNOWN), f"{path.name} imports {each}"


def test_nobody_but_who_composes_it_knows_the_page() -> None:
    for path in PACKAGE.rglob("*.py"):
        name = str(path.relative_to(PACKAGE))
        if name.startswith("web/") or name in COMPOSERS:
            continue
        knows = [each for each in imports_of(path) if each.startswith("audiohook.web")]
        assert not knows, f"{name} imports {knows}"
