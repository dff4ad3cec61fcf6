"""What the package must not do anywhere, found in its syntax."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import audiohook

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(audiohook.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

# Data that becomes code, and programs that are started.
MODULES = frozenset(
    {
        "code",
        "commands",
        "dbm",
        "dill",
        "imp",
        "importlib",
        "marshal",
        "multiprocessing",
        "pickle",
        "pty",
        "runpy",
        "shelve",
        "subprocess",
        "xml",
        "yaml",
    }
)
CALLS = frozenset({"__import__", "compile", "eval", "exec"})
# Of any object: `os.system`, `trio.run_process`, `anyio.open_process` and so on.
METHODS = frozenset(
    {
        "execl",
        "execle",
        "execlp",
        "execv",
        "execve",
        "execvp",
        "execvpe",
        "forkpty",
        "load_module",
        "mktemp",
        "open_process",
        "popen",
        "posix_spawn",
        "posix_spawnp",
        "run_process",
        "spawnl",
        "spawnv",
        "startfile",
        "system",
        "unpack_archive",
        "extractall",
    }
)

UNVERIFIED = frozenset({"CERT_NONE", "_create_unverified_context"})
KEYWORDS = {"shell": True, "verify": False}

ALLOWED: dict[tuple[str, str], str] = {
    ("install.py", "importlib"): "reads the unit files that the package brings",
    ("simulator/connection.py", "CERT_NONE"): "only where `--insecure` asks for it",
    ("simulator/load/control.py", "subprocess"): "for the constant PIPE",
    ("simulator/load/control.py", "run_process"): (
        "starts this very Python for its workers: a list of arguments that we write,"
        " no shell"
    ),
}
"""Where something of it is done all the same, and why that is harmless."""


def forbidden(tree: ast.AST) -> Iterator[str]:
    """Yields what a module does of what it must not."""
    for node in ast.walk(tree):
        yield from _imports(node) & MODULES
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in CALLS:
                yield name
            case ast.Attribute(attr=name) if name in METHODS | UNVERIFIED:
                yield name
            case ast.keyword(arg=str(name), value=ast.Constant(value=value)):
                if name in KEYWORDS and KEYWORDS[name] is value:
                    yield name


def _imports(node: ast.AST) -> set[str]:
    """Returns the names of top-level modules that a statement imports."""
    match node:
        case ast.Import(names=names):
            return {alias.name.partition(".")[0] for alias in names}
        case ast.ImportFrom(module=str(module), level=0):
            return {module.partition(".")[0]}
    return set()


def found() -> set[tuple[str, str]]:
    return {
        (str(path.relative_to(PACKAGE)), what)
        for path in SOURCES
        for what in forbidden(ast.parse(path.read_bytes()))
    }


def test_package_starts_no_programs_and_takes_no_data_for_code() -> None:
    assert len(SOURCES) > 100
    assert found() - ALLOWED.keys() == set()


def test_no_exception_is_left_over() -> None:
    assert ALLOWED.keys() - found() == set()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("import pickle", "pickle"),
        ("import os.path, xml.sax", "xml"),
        ("from subprocess import run", "subprocess"),
        ("eval('1')", "eval"),
        ("__import__('os')", "__import__"),
        ("import os\nos.system('x')", "system"),
        ("await trio.run_process(['x'])", "run_process"),
        ("start('x', shell=True)", "shell"),
        ("httpx.get('x', verify=False)", "verify"),
        ("context.verify_mode = ssl.CERT_NONE", "CERT_NONE"),
    ],
)
def test_rule_finds_each(text: str, what: str) -> None:
    assert list(forbidden(ast.parse(text))) == [what]


@pytest.mark.parametrize(
    "text", ["import os", "from . import pickle", "re.compile('x')", "f(shell=False)"]
)
def test_rule_leaves_the_rest(text: str) -> None:
    assert list(forbidden(ast.parse(text))) == []
