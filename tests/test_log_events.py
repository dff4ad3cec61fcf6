"""Each complaint of the log is explained, and what is explained exists."""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import audiohook

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(audiohook.__file__).parent
DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("troubleshooting.md", "operate.md")

COMPLAINTS = frozenset({"warning", "error", "exception", "critical"})
LEVELS = frozenset({"WARNING", "ERROR", "CRITICAL"})
MILD = frozenset({"debug", "info"})


class Events:
    """What a module writes into the log.

    Attributes:
        complaints: Events of the levels warning and above.
        others: The rest of what may be an event.
        unread: Lines at which the event of a complaint cannot be told.
    """

    def __init__(self, tree: ast.AST) -> None:
        self.complaints: set[str] = set()
        self.others: set[str] = set()
        self.unread: list[int] = []
        self._tree = tree
        for function, call in _calls(tree):
            self._take(function, call)

    def _take(self, function: ast.FunctionDef | None, call: ast.Call) -> None:
        name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        if not call.args:
            return
        if name in COMPLAINTS and _is_log(call):
            self._note(function, call.args[0], call.lineno)
        elif name in MILD:
            self.others |= set(_constants(call.args[0]))
        else:
            self._take_with_level(function, call)

    def _take_with_level(
        self, function: ast.FunctionDef | None, call: ast.Call
    ) -> None:
        """Takes a call that has a level among its arguments, and the event behind."""
        for level, event in pairwise(call.args):
            if levels := _levels(level):
                if levels & LEVELS:
                    self._note(function, event, call.lineno)
                else:
                    self.others |= set(_constants(event))
                return

    def _note(
        self, function: ast.FunctionDef | None, event: ast.expr, line: int
    ) -> None:
        if found := set(_constants(event)):
            self.complaints |= found
        elif (
            isinstance(event, ast.Name)
            and function is not None
            and (place := _place(function, event.id)) is not None
        ):
            self.complaints |= self._given(function.name, place)
        else:
            self.unread.append(line)

    def _given(self, name: str, place: int) -> set[str]:
        """Return what a function of the module is called with at that place."""
        return {
            text
            for _, call in _calls(self._tree)
            if isinstance(call.func, ast.Attribute)
            and call.func.attr == name
            and len(call.args) > place
            for text in _constants(call.args[place])
        }


def _calls(
    node: ast.AST, function: ast.FunctionDef | None = None
) -> Iterator[tuple[ast.FunctionDef | None, ast.Call]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call):
            yield function, child
        inner = child if isinstance(child, ast.FunctionDef) else function
        yield from _calls(child, inner)


def _is_log(call: ast.Call) -> bool:
    assert isinstance(call.func, ast.Attribute)
    return ast.unparse(call.func.value).rpartition(".")[2] in {"log", "_log"}


def _levels(node: ast.expr) -> set[str]:
    return set(re.findall(r"logging\.([A-Z]+)", ast.unparse(node)))


def _constants(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.IfExp):
        yield from _constants(node.body)
        yield from _constants(node.orelse)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def _place(function: ast.FunctionDef, name: str) -> int | None:
    names = [each.arg for each in function.args.args]
    if name not in names:
        return None
    return names.index(name) - (names[0] == "self")


def every_module() -> Iterator[tuple[Path, Events]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path, Events(ast.parse(path.read_bytes()))


def explained() -> set[str]:
    text = "".join((DOCS / page).read_text() for page in PAGES)
    return set(re.findall(r"`([a-z_]+)`", text))


def test_every_complaint_is_explained() -> None:
    written: set[str] = set()
    for path, events in every_module():
        assert not events.unread, path
        written |= events.complaints
    assert len(written) > 50
    missing = sorted(written - explained())
    assert not missing, f"a row in docs/troubleshooting.md for each: {missing}"


def test_every_event_that_is_explained_exists() -> None:
    text = (DOCS / "troubleshooting.md").read_text()
    _, _, table = text.partition("## What the log complains of")
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    written = {
        name
        for _, events in every_module()
        for name in events.complaints | events.others
    }
    # It is of the level of the client that provokes it.
    assert named - written == set()
    assert len(named) > 50


def test_events_are_found_however_they_are_written() -> None:
    found = Events(
        ast.parse(
            "class A:\n"
            "    def f(self):\n"
            "        self._log.error('a_b', x=1)\n"
            "        log.exception('c_d')\n"
            "        log.info('mild')\n"
            "        self._noise(logging.WARNING, 'e_f')\n"
            "        self._noise(logging.INFO, 'also_mild')\n"
            "        log.log(logging.ERROR if x else logging.WARNING,\n"
            "                'g_h' if x else 'i_j')\n"
            "        self._warn('k_l', 1)\n"
            "        group.error('no log at all')\n"
            "        log.error(x)\n"
            "    def _warn(self, event, number):\n"
            "        self._noise.write(logging.WARNING, event, number=number)\n"
        )
    )
    assert found.complaints == {"a_b", "c_d", "e_f", "g_h", "i_j", "k_l"}
    assert found.others == {"mild", "also_mild"}
    assert found.unread == [12]
