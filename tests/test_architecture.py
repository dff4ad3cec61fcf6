"""The house as docs/architecture.md draws it: every room is there, and none looks down.

That no two rooms know of each other is held by tests/test_house_plan.py.
"""

from __future__ import annotations

import re

from tests.test_house_plan import KNOTS, PACKAGE, plan

PAGE = PACKAGE.parent / "docs" / "architecture.md"
# What every module may have: the version, and the ways in.
NO_ROOMS = {"__init__", "__main__", "_version", "__version__", "units"}


def storeys() -> dict[str, int]:
    """Returns the rooms of the page's table, by the row that they are in."""
    text = PAGE.read_text().partition("## The house")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE)
    return {
        name: number
        for number, row in enumerate(rows)
        for name in re.findall(r"`([a-z_]+)/?`", row)
    }


def test_page_names_every_room_and_no_other() -> None:
    compiled = {path.stem for path in PACKAGE.glob("*.pyx")}
    assert storeys().keys() == (plan().keys() | compiled) - NO_ROOMS


def test_room_knows_of_none_below_its_row() -> None:
    height = storeys()
    below = {
        (room, other)
        for room, known in plan().items()
        for other in known - NO_ROOMS
        if height[other] > height.get(room, len(height))
    }
    assert below - KNOTS.keys() == set()
