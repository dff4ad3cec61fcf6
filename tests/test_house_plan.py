"""The plan of the house: which rooms may know of which, found in their imports.

A room is a package below ``audiohook``, or a module that lies directly in it. What the
compiled modules take from each other in C is not looked at.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import audiohook

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PACKAGE = Path(audiohook.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

KNOTS: dict[tuple[str, str], str] = {
    ("recording", "call_settings"): (
        "a journal holds what was decided of its call, which is told in words of"
        " recording"
    ),
    ("transcription", "elsewhere"): (
        "events.py is where AWS Lambda comes in, and that address is in functions that"
        " are out there"
    ),
}
"""Where a room knows of one that knows of it, and why that is so."""

GROUND_FLOOR = frozenset(
    {
        "aws_secrets",
        "breaker",
        "errors",
        "file_limit",
        "hosts",
        "logs",
        "metrics",
        "networks",
        "rate",
        "setting_sources",
        "setting_values",
        "settings",
        "sqlite_file",
        "systemd",
        "tls",
        "verdict",
    }
)

# What waits, sends or looks at a clock.
OUTSIDE_WORLD = frozenset(
    {"asyncio", "httpx", "os", "select", "socket", "ssl", "threading", "time", "trio"}
)


def room_of(path: Path) -> str:
    inside = path.relative_to(PACKAGE)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


def imported(tree: ast.Module) -> Iterator[str]:
    """Yields the modules that are imported when the program runs, by their names."""
    for node in ast.walk(_without_types(tree)):
        match node:
            case ast.Import(names=names):
                yield from (each.name for each in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                yield module
                if module == "audiohook":
                    yield from (f"audiohook.{each.name}" for each in names)


class _WithoutTypes(ast.NodeTransformer):
    def visit_If(self, node: ast.If) -> ast.AST | None:
        is_for_types = isinstance(node.test, ast.Name) and (
            node.test.id == "TYPE_CHECKING"
        )
        return None if is_for_types else self.generic_visit(node)


def _without_types(tree: ast.Module) -> ast.AST:
    return _WithoutTypes().visit(tree)  # type: ignore[no-any-return]  # the same, less some


def plan() -> dict[str, set[str]]:
    """Returns what rooms each room knows of."""
    found: dict[str, set[str]] = {}
    for path in SOURCES:
        room = room_of(path)
        known = found.setdefault(room, set())
        for name in imported(ast.parse(path.read_bytes())):
            package, _, rest = name.partition(".")
            if package == "audiohook" and rest:
                known.add(rest.partition(".")[0])
        known.discard(room)
    return found


def behind(room: str, rooms: Mapping[str, set[str]]) -> set[str]:
    """Returns all rooms that one knows of, if only by way of another."""
    found: set[str] = set()
    waiting = [room]
    while waiting:
        for each in rooms.get(waiting.pop(), set()) - found:
            found.add(each)
            waiting.append(each)
    return found


@pytest.fixture(scope="module")
def rooms() -> dict[str, set[str]]:
    return plan()


def test_no_room_knows_of_one_that_knows_of_it(rooms: dict[str, set[str]]) -> None:
    loose = {
        room: {each for each in known if (room, each) not in KNOTS}
        for room, known in rooms.items()
    }
    assert [room for room in loose if room in behind(room, loose)] == []


def test_no_knot_is_left_over(rooms: dict[str, set[str]]) -> None:
    for room, other in KNOTS:
        assert other in rooms[room]
        assert room in behind(other, rooms)


def test_ground_floor_stands_on_nothing_above(rooms: dict[str, set[str]]) -> None:
    assert rooms.keys() > GROUND_FLOOR
    for room in GROUND_FLOOR:
        assert rooms[room] <= GROUND_FLOOR, room


def test_protocol_stands_on_errors_alone(rooms: dict[str, set[str]]) -> None:
    assert rooms["protocol"] == {"errors"}


def test_protocol_does_nothing_itself() -> None:
    for path in (PACKAGE / "protocol").glob("*.py"):
        outside = set(imported(ast.parse(path.read_bytes()))) & OUTSIDE_WORLD
        assert outside == set(), path.name


@pytest.mark.parametrize("room", ["service", "worker", "elsewhere", "recovery"])
def test_simulator_is_no_part_of_what_runs(
    rooms: dict[str, set[str]], room: str
) -> None:
    assert "simulator" not in behind(room, rooms)


@pytest.mark.parametrize("room", ["recording", "storage", "transcription", "index"])
def test_stores_know_nothing_of_calls_and_faces(
    rooms: dict[str, set[str]], room: str
) -> None:
    assert not behind(room, rooms) & {"admin", "api", "call", "cli", "ingest", "web"}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("import trio", {"trio"}),
        ("from audiohook.call import Call", {"audiohook.call"}),
        ("from audiohook import logs", {"audiohook", "audiohook.logs"}),
        ("def f():\n    import boto3", {"boto3"}),
        ("if TYPE_CHECKING:\n    import trio\nimport os", {"os"}),
    ],
)
def test_imports_are_found(text: str, names: set[str]) -> None:
    assert set(imported(ast.parse(text))) == names
