"""What the page on security says is tested is, by those names."""

from __future__ import annotations

import re
from pathlib import Path

from tests.slow.hostile_shapes import KINDS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "security.md").read_text()
NAMES = set(re.findall(r"`([\w/.]+)`", PAGE))


def test_tests_that_are_named_exist() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    known = set(re.findall(r"def (test_\w+)", source))
    named = {name for name in NAMES if re.fullmatch(r"test_\w+", name)}
    assert len(named) > 10
    assert named - known == set()


def test_files_that_are_named_exist() -> None:
    files = {
        str(path.relative_to(ROOT))
        for folder in ("audiohook", "tests")
        for path in (ROOT / folder).rglob("*.py")
    }
    named = {name for name in NAMES if name.endswith(".py")}
    assert len(named) > 20
    missing = {name for name in named if not any(f.endswith(name) for f in files)}
    assert missing == set()


def test_hostile_ways_that_are_named_exist_and_are_counted() -> None:
    kinds = {kind.name for kind in KINDS}
    named = {
        name for name in NAMES if re.match(r"(offers|sets|replays|says|has)_", name)
    }
    assert len(named) > 4
    assert named - kinds == set()
    assert f"{len(KINDS)} ways to be hostile" in PAGE
