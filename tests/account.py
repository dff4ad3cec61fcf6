"""An account of all code blocks of the pages: who runs each, or why nobody can.

Nothing is written down twice: the tests are read, and which of them asks for a block
(`tests.documents.typed`, `tests.documents.shown`) has it on its account. As a program
it prints the table: ``python -m tests.account``.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeGuard

from tests import documents
from tests.documents import ROOT, Block, all_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERBS = (documents.typed.__name__, documents.shown.__name__)
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Request:
    """A test asks for a block.

    Attributes:
        verb: ``typed`` or ``shown``.
        page: The page that it names.
        start: How the block begins that it names.
        test: What pytest calls the test; None outside of one.
        place: Where it is asked for, as file and line.
    """

    verb: str
    page: str
    start: str
    test: str | None
    place: str

    def block(self) -> Block:
        return documents.find(self.page, self.start)


@cache
def requests() -> tuple[Request, ...]:
    """Returns what all tests ask for, in the order of their files."""
    return tuple(
        request
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for request in _requests_of(path)
    )


def _requests_of(path: Path) -> Iterator[Request]:
    if documents.__name__ not in (text := path.read_text()):
        return
    statements = ast.parse(text).body
    verbs = _imported(statements)
    file = str(path.relative_to(ROOT))
    for statement in statements if verbs else ():
        test = f"{file}::{statement.name}" if _is_test(statement, path) else None
        # With what stands above it, such as its parameters.
        for node in ast.walk(statement):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in verbs
            ):
                # An error here: they are to be two plain strings.
                page, start = (ast.literal_eval(each) for each in node.args)
                place = f"{file}:{node.lineno}"
                yield Request(node.func.id, page, start, test, place)


def _imported(statements: list[ast.stmt]) -> set[str]:
    return {
        each.name
        for statement in statements
        if isinstance(statement, ast.ImportFrom)
        and statement.module == documents.__name__
        for each in statement.names
    } & {*VERBS}


def _is_test(statement: ast.stmt, path: Path) -> TypeGuard[Function]:
    return (
        path.name.startswith("test_")
        and isinstance(statement, Function)
        and statement.name.startswith("test_")
    )


def rows() -> Iterator[tuple[str, str, str, str]]:
    """Yields, for each block: where it is, how it begins, what is done with it, by whom."""
    for block in all_blocks():
        start = block.lines[0]
        asked = {
            (request.verb, str(request.test)): None
            for request in requests()
            if request.block() == block
        }
        for verb, test in asked:
            yield str(block), start, verb, test
        if not block.all_commands():
            for reason in block.reasons():
                yield str(block), start, "not run", reason
        for command in block.all_commands():
            for reason in block.reasons(command):
                yield str(block), command, "not run", reason


def main() -> None:
    for place, start, what, who in rows():
        sys.stdout.write(f"{place:26} {start[:50]:50} {what:8} {who}\n")


if __name__ == "__main__":
    main()
